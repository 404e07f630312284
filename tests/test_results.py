"""Records -> runs.csv -> tables -> notebook."""

import json
import shutil
import subprocess
import sys

import jupytext
import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from scripts.aggregate import main as aggregate
from scripts.make_tables import main as make_tables
from scripts.note import ROWS
from tests.conftest import REPOSITORY

NOTEBOOKS = REPOSITORY / "notebooks"
FIRST = (
    "dataset,model,optimizer,seed,experiment,epochs,lr,weight_decay,best_epoch,test/HR@10,"
    "test/NDCG@10,valid/NDCG@10,train/loss,targets_per_second,eval_seconds,peak_rss_mib,"
    "state_bytes_per_param,record"
)


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A real study: six rows, two seeds, on toy lines."""
    root = tmp_path_factory.mktemp("study")
    lines = [f"{u} " + " ".join(str((u * 7 + i) % 23 + 1) for i in range(8)) for u in range(1, 31)]
    (root / "toy.txt").write_text("\n".join(lines))
    settings = "epochs=2 eval_every=1 batch_size=8 model.hidden=8 tracker.mode=disabled seed=0,1"
    subprocess.run(
        [
            *(sys.executable, "-m", "scripts.train", "-m", "experiment=short", "data=file"),
            *(f"data.path={root / 'toy.txt'}", f"results.root={root}", *settings.split()),
        ],
        cwd=REPOSITORY,
        check=True,
    )
    return root


@pytest.fixture
def results(study, tmp_path):
    shutil.copytree(study / "runs", tmp_path / "runs")
    return tmp_path


def run(results, *arguments):
    root = f"results.root={results}"
    return aggregate([root]) or make_tables([root, *arguments])


def test_runs_csv_has_a_line_a_record(results):
    assert run(results) == 0
    assert (results / "runs.csv").read_text().startswith(FIRST)
    runs = pd.read_csv(results / "runs.csv")
    assert len(runs) == 12
    for _, line in runs.iterrows():
        record = json.loads((results / line["record"]).read_text())
        assert line["test/HR@10"] == record["test"]["HR@10"]
        assert line["train/loss"] == record["history"][-1]["train/loss"]
        assert len(line["curve/epoch"].split()) == 2


def test_tables_hold_the_notes_figures_and_the_mean_of_ours(results):
    assert run(results) == 0
    folder = results / "tables" / "short-sasrec-toy"
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        f"{t}.{e}" for t in ("note_1", "note_2", "note_3", "rows") for e in ("csv", "md", "tex")
    )
    table = pd.read_csv(folder / "note_1.csv")
    assert table["HR@10 note"].tolist() == [0.0690, 0.0420, 0.0195]
    assert table["n"].tolist() == [2, 2, 2]
    runs = pd.read_csv(results / "runs.csv")
    lion = runs.loc[runs["optimizer"] == "lion", "train/loss"]
    assert table["Loss ours"][0] == f"{lion.mean():.4f} ± {lion.std(ddof=1):.4f}"
    assert "\\pm" in (folder / "rows.tex").read_text()


def test_regenerating_changes_nothing(results):
    assert run(results) == 0
    files = {p: p.read_bytes() for p in results.rglob("*") if p.is_file()}
    assert run(results) == 0
    assert files == {p: p.read_bytes() for p in results.rglob("*") if p.is_file()}


@pytest.mark.parametrize("seeds", ["*", "1"])
def test_a_missing_cell_is_loud_and_partial_shows_it(results, capsys, seeds):
    for path in (results / "runs").glob(f"*/simba_eq1/*seed{seeds}.json"):
        path.unlink()
    assert run(results) == 2
    assert "simba_eq1 has no finished run for seed" in capsys.readouterr().err
    assert not (results / "tables").exists()
    assert run(results, "--partial") == 0
    line = (results / "tables" / "short-sasrec-toy" / "rows.md").read_text().splitlines()[6]
    assert line.startswith("| Simba + (1)")
    assert ("– | 0 |" in line) == (seeds == "*")


def test_mixed_settings_and_broken_records_are_errors(results, capsys):
    path = next((results / "runs").glob("*/lion/*seed1.json"))
    record = json.loads(path.read_text())
    record["config"]["epochs"] = 99
    path.write_text(json.dumps(record))
    assert run(results) == 2
    assert "lion was run in several settings" in capsys.readouterr().err
    path.write_text("{")
    assert run(results) == 2
    assert f"{path}: not a record" in capsys.readouterr().err


def test_nothing_to_show_is_an_error(tmp_path, capsys):
    assert aggregate([f"results.root={tmp_path}"]) == 2
    assert "no finished record" in capsys.readouterr().err
    assert make_tables([f"results.root={tmp_path}"]) == 2
    assert aggregate(["result.root=x"]) == 2
    assert aggregate([f"results.root={tmp_path / 'absent'}"]) == 2


def test_committed_tables_come_from_committed_records(tmp_path):
    shutil.copytree(REPOSITORY / "results" / "runs", tmp_path / "runs")
    assert run(tmp_path) == 0
    names = ["runs.csv", *(f"tables/{p.parent.name}/{p.name}" for p in tmp_path.rglob("*.md"))]
    for name in names:
        committed = (REPOSITORY / "results" / name).read_text()
        assert (tmp_path / name).read_text() == committed, name


def test_the_readme_shows_a_committed_table():
    shown = (REPOSITORY / "README.md").read_text()
    assert (REPOSITORY / "results/tables/short-sasrec-beauty/rows.md").read_text() in shown
    assert all(row.label in shown for row in ROWS.values())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(p.stem for p in NOTEBOOKS.glob("*.py")))
def test_notebooks_run_on_the_committed_results(name):
    notebook = nbformat.read(str(NOTEBOOKS / f"{name}.ipynb"), as_version=4)
    script = jupytext.read(NOTEBOOKS / f"{name}.py")
    assert [c.source for c in notebook.cells] == [c.source for c in script.cells], (
        "run make notebooks"
    )
    NotebookClient(notebook, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    pictures = [
        o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    assert pictures
