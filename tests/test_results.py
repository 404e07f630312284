"""Reporting: CSV files, tables and figures from records."""

import base64
import copy
import json
import math
import os
import re
import shutil
import subprocess
import zlib
from collections import Counter
from itertools import product

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from scipy import stats

from data.prepare import compose, prepare
from scripts.aggregate import main as aggregate
from scripts.compare import main as compare
from scripts.make_figures import main as make_figures
from scripts.make_tables import main as make_tables
from scripts.records.errors import UserError
from scripts.records.record import decode_ranks, digest, encode_ranks, ndcg_at_10
from scripts.records.run_files import RunFiles
from scripts.records.users import read_users, users_path
from scripts.reporting import comparison
from scripts.reporting.collect import load
from scripts.reporting.note import NOTE_VALUES
from scripts.reporting.plots import figures
from scripts.reporting.studies import studies
from scripts.rerun import main as rerun
from scripts.running.run import finished_record, write_users_once
from tests.conftest import REPOSITORY
from tests.forked import python

FIRST = (
    "dataset,model,experiment,optimizer,seed,epochs,lr,weight_decay,best_epoch,test/HR@10,"
    "test/NDCG@10,valid/NDCG@10,train/loss,train/min_loss,targets_per_second,eval_seconds,"
    "peak_rss_mib,state_bytes_per_param,record,commit,setting_hash,overrides,swept"
)


@pytest.fixture(scope="session")
def study(tmp_path_factory, worker_id):
    """The results folder of a small real study: six variants, two seeds, toy data.

    One process of pytest trains it for all.
    """
    folder = tmp_path_factory.getbasetemp()
    root = (folder if worker_id == "master" else folder.parent) / "study"
    with FileLock(f"{root}.lock"):
        if not root.exists():
            train_study(root)
    return root


def train_study(root):
    root.mkdir()
    lines = [f"{u} " + " ".join(str((u * 7 + i) % 23 + 1) for i in range(8)) for u in range(1, 31)]
    (root / "toy.txt").write_text("\n".join(lines))
    settings = "epochs=4 eval_every=2 diagnose_every=2 batch_size=8 model.hidden=8 seed=0,1"
    settings += " optimizer.lr=0.01 tracker.mode=disabled"
    subprocess.run(
        [
            *(python(), "-m", "scripts.train", "-m", "experiment=short", "data=file"),
            *(f"data.path={root / 'toy.txt'}", f"results.root={root}", *settings.split()),
        ],
        cwd=REPOSITORY,
        check=True,
    )


@pytest.fixture
def results(study, tmp_path):
    for folder in ("runs", "users"):
        shutil.copytree(study / folder, tmp_path / folder)
    return tmp_path


def run(results, *arguments):
    root = f"results.root={results}"
    return aggregate([root]) or make_tables([root, *arguments])


@pytest.fixture(scope="session")
def study_with_tables(study, tmp_path_factory):
    root = tmp_path_factory.mktemp("tables")
    for folder in ("runs", "users"):
        shutil.copytree(study / folder, root / folder)
    assert run(root) == 0
    return root


@pytest.fixture
def tabled(study_with_tables, tmp_path):
    """``results`` with the CSV files and tables."""
    return shutil.copytree(study_with_tables, tmp_path, dirs_exist_ok=True)


def test_runs_csv_has_one_line_per_record(tabled):
    assert (tabled / "runs.csv").read_text().startswith(FIRST)
    runs = pd.read_csv(tabled / "runs.csv")
    assert len(runs) == 12
    curves = pd.read_csv(tabled / "curves.csv").set_index("record")
    diagnostics = pd.read_csv(tabled / "diagnostics.csv").set_index(["optimizer", "quantity"])
    assert diagnostics.loc[("lion", "agreement"), "value"].tolist() == [1.0] * 8
    for _, line in runs.iterrows():
        record = json.loads((tabled / line["record"]).read_text())
        assert line["test/HR@10"] == record["test"]["HR@10"]
        assert line["commit"] == record["commit"]
        losses = [entry["train/loss"] for entry in record["history"]]
        assert (line["train/loss"], line["train/min_loss"]) == (losses[-1], min(losses))
        assert curves.loc[line["record"], "epoch"].tolist() == [2, 4]


def test_tables_hold_the_mean_of_ours_and_the_ranks(tabled):
    folder = tabled / "tables" / "short-sasrec-toy"
    names = ("metrics", "paired", "popularity", "history", "moves", "memories")
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        f"{t}.{e}" for t in names for e in ("csv", "md", "tex")
    )
    table = pd.read_csv(folder / "metrics.csv").set_index("optimizer")
    assert table["note's rank"].to_dict() == {
        "Lion": 1,
        "Simba + m": 2,
        "Simba + (c = m)": 3,
        "sign-SGD": 4,
        "Simba + (1)": 5,
        "Simba": 6,
    }
    assert set(table["n"]) == {2}
    runs = pd.read_csv(tabled / "runs.csv")
    lion = runs.loc[runs["optimizer"] == "lion", "train/min_loss"]
    assert table.loc["Lion", "Loss"] == f"{lion.mean():.4f} ± {lion.std(ddof=1):.4f}"
    ours = [runs.loc[runs["optimizer"] == o, "test/NDCG@10"].mean() for o in NOTE_VALUES]
    assert table["rank"].tolist() == [1 + sum(b > a for b in ours) for a in ours]
    assert "\\pm" in (folder / "metrics.tex").read_text()


def test_users_are_compared_one_by_one(tabled):
    paired = pd.read_csv(tabled / "paired.csv").set_index("optimizer")
    assert set(paired.index) == set(NOTE_VALUES) - {"lion"}
    gains = {}
    for optimizer in ("lion", "simba"):
        runs = []
        for seed in (0, 1):
            (path,) = (tabled / f"runs/toy/{optimizer}").glob(f"short-sasrec-*-seed{seed}.json")
            ranks = decode_ranks(json.loads(path.read_text())["test_ranks"])
            runs.append([1 / math.log2(rank + 1) if rank <= 10 else 0 for rank in ranks.tolist()])
        gains[optimizer] = [(a + b) / 2 for a, b in zip(*runs, strict=True)]
    pairs = list(zip(gains["simba"], gains["lion"], strict=True))
    line = paired.loc["simba"]
    assert line["better"] == sum(a > b for a, b in pairs)
    assert line["worse"] == sum(a < b for a, b in pairs)
    assert (line["seeds"], line["users"]) == (2, 30)
    pair = gains["simba"], gains["lion"]
    assert line["p_t"] == pytest.approx(stats.ttest_rel(*pair).pvalue, rel=1e-2)
    assert line["p_wilcoxon"] == pytest.approx(stats.wilcoxon(*pair).pvalue, rel=1e-2)


@pytest.mark.slow
def test_figures_are_drawn_from_the_csv_files(results, capsys):
    root = f"results.root={results}"
    assert make_figures([root]) == 2
    assert "run `python -m scripts.aggregate` first" in capsys.readouterr().err
    assert run(results) == 0
    assert make_figures([root]) == 0
    assert sorted(p.name for p in (results / "figures").iterdir()) == sorted(
        f"{name}-short-sasrec-toy{kind}"
        for name in ("curves", "gains", "moves", "moves_by_epoch", "distances", "memories")
        for kind in (".png", "-dark.png", ".pdf")
    )


def test_regenerating_changes_nothing(tabled):
    files = {p: p.read_bytes() for p in tabled.rglob("*") if p.is_file()}
    assert run(tabled) == 0
    assert files == {p: p.read_bytes() for p in tabled.rglob("*") if p.is_file()}


def test_missing_runs_are_printed_and_shown_in_tables(results, capsys):
    for path in (results / "runs").glob("*/simba_eq1/*.json"):
        path.unlink()
    next((results / "runs").glob("*/simba/*seed1.json")).unlink()
    assert run(results) == 0
    assert "short-sasrec-toy: no run of simba_eq1; simba with seed 1" in capsys.readouterr().err
    table = pd.read_csv(results / "tables" / "short-sasrec-toy" / "metrics.csv")
    lines = table.set_index("optimizer")
    assert lines.loc["Simba + (1)", ["HR@10", "n"]].tolist() == ["–", 0]
    assert lines.loc["Simba", "n"] == 1


def damaged(path, how):
    text = path.read_text()
    if how == "cut":
        return text[: len(text) // 2]
    record = json.loads(text)
    if how == "no test":
        del record["test"]
    elif how == "no figure":
        record["history"][0]["train/loss"] = None
    elif how == "another figure":
        record["test"]["HR@10"] += 0.5
    elif how == "another config":
        record["config"]["epochs"] = 99
    elif how == "ranks":
        record["test_ranks"]["data"] = record["test_ranks"]["data"][:-8]
    return {"list": "[]", "nothing": "", "number": "1", "null": "null"}.get(how, json.dumps(record))


@pytest.mark.parametrize(
    "how",
    [
        *("cut", "no test", "no figure", "another figure", "another config", "ranks"),
        *("list", "nothing", "number", "null"),
    ],
)
def test_a_damaged_record_is_a_one_line_error_that_names_it(results, capsys, how):
    path = next((results / "runs").glob("*/lion/*seed1.json"))
    path.write_text(damaged(path, how))
    assert run(results) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {path}: not a record: ")
    assert message.count("\n") == 1


def places(value, before=()):
    """The keys and indices that lead to each value inside a JSON value."""
    yield before
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*before, key))


def replaced(value, place, new):
    """A copy of a JSON value with another value at a place, or without that place."""
    copied = copy.deepcopy(value)
    if not place:
        return new
    inside = copied
    for key in place[:-1]:
        inside = inside[key]
    if new is DELETED:
        del inside[place[-1]]
    else:
        inside[place[-1]] = new
    return copied


DELETED = object()
OTHERS = (DELETED, None, "x", [1], {"a": 1}, -1, 1e400, True)


@pytest.mark.slow
def test_any_damage_to_a_record_is_one_line_for_all_commands_or_changes_no_figure(results, capsys):
    for path in (results / "runs").glob("*/*/*.json"):
        if "simba_m" not in str(path):
            path.unlink()
    path = next((results / "runs").glob("*/simba_m/*seed1.json"))
    record, refused = json.loads(path.read_text()), 0
    at = RunFiles(results, path.parent.relative_to(results / "runs").as_posix(), path.stem)
    cases = list(product(places(record), OTHERS))
    for number in np.random.default_rng(0).permutation(len(cases))[:150]:
        place, new = cases[number]
        path.write_text(json.dumps(replaced(record, place, new)))
        code = aggregate([f"results.root={results}"])
        output = capsys.readouterr().err
        if code == 0:
            continue
        assert code == 2
        assert output.startswith(f"error: {path}: not a record: "), place
        assert output.count("\n") == 1
        assert rerun([str(path)]) == 2
        assert capsys.readouterr().err == output
        with pytest.raises(UserError, match="not a record"):
            finished_record(at, {})  # as scripts.train finds it
        refused += 1
    assert refused > 50


RANKS = {"encoding": "zlib+base64", "data": base64.b64encode(zlib.compress(b"\1\0" * 60)).decode()}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *((("experiment",), name) for name in ("../../evil", "..", "a/b", "a\0b", "", "x" * 5000)),
        (("dataset",), "../x"),
        (("model",), "\0"),
        (("seed",), 10**400),
        (("seed",), -1),
        (("best_epoch",), 10**400),
        (("best_epoch",), 0),
        (("peak_rss_mib",), 10**400),
        (("history", 0, "train/loss"), 1e308),
        (("command",), "python -m scripts.train 'x"),
        (("command",), "python -m scripts.train x\0"),
        *(
            (("test_ranks",), RANKS | {"dtype": dtype})
            for dtype in ("S2", "f4", "i1", "u2,u2", "M8[s]")
        ),
        (("test_ranks",), encode_ranks(np.zeros(60, int))),
        (("test_ranks",), RANKS | {"dtype": "uint16", "data": "eJwDAAAAAAE="}),
    ],
)
def test_what_other_commands_could_not_use_is_refused_with_the_record(
    results, capsys, place, value
):
    path = next((results / "runs").glob("*/lion/*seed1.json"))
    path.write_text(json.dumps(replaced(json.loads(path.read_text()), place, value)))
    assert aggregate([f"results.root={results}"]) == 2
    output = capsys.readouterr().err
    assert output.startswith(f"error: {path}: not a record: ")
    assert output.count("\n") == 1


def test_a_diagnostic_of_nothing_is_left_out(results):
    """0 / 0 is null in a record."""
    path = next((results / "runs").glob("*/lion/*seed1.json"))
    record = json.loads(path.read_text())
    record["history"][1]["why/net/1"] = None
    path.write_text(json.dumps(record))
    assert run(results) == 0
    diagnostics = pd.read_csv(results / "diagnostics.csv")
    of_lion = diagnostics[diagnostics["optimizer"].eq("lion") & diagnostics["quantity"].eq("net")]
    assert of_lion["value"].notna().all()
    assert len(of_lion) == 2 * 2 * 5 - 1  # seeds, epochs, fifths


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [("gains", "low", 1e6), ("diagnostics", "part", "é"), ("runs", "epochs", None)],
)
def test_an_odd_cell_of_a_csv_file_is_a_one_line_error(tabled, capsys, name, column, value):
    path = tabled / f"{name}.csv"
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    if value is None:
        frame = frame.rename(columns={column: f"{column}s"})
    else:
        frame.loc[0, column] = str(value)
    frame.to_csv(path, index=False)
    for command in (make_tables, make_figures):
        assert command([f"results.root={tabled}"]) == 2
        output = capsys.readouterr().err
        assert output.startswith(f"error: {path}: damaged (")
        assert output.count("\n") == 1


@pytest.mark.parametrize("name", ["runs", "curves", "paired", "diagnostics"])
@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", 'x"\n"', "\0\0", None])
def test_a_damaged_csv_file_is_a_one_line_error_that_names_it(tabled, capsys, name, content):
    path = tabled / f"{name}.csv"
    if content is None:
        path.write_text(path.read_text().replace("0.", "o.", 3) if name != "paired" else "")
    else:
        path.write_text(content)
    for command in (make_tables, make_figures):
        assert command([f"results.root={tabled}"]) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"error: {path}: damaged (")
        assert message.count("\n") == 1


def test_two_variants_are_compared_over_seeds_and_users(tabled, tmp_path, capsys):
    root, figure = f"results.root={tabled}", tmp_path / "curves.pdf"
    assert compare(["short/simba", "short/lion", root, "--figure", str(figure)]) == 0
    output = capsys.readouterr().out
    users = pd.read_csv(tabled / "paired.csv").set_index("optimizer").loc["simba"]
    cells = " │ +".join(str(users[name]) for name in ("users", "better", "worse"))
    assert re.search(f"│ +{cells} │", output)
    assert figure.stat().st_size > 0
    for wrong, why in (
        ("curves.foo", "its name must end with .png or .pdf"),
        ("curves", "its name must end with .png or .pdf"),
        ("missing/curves.png", "cannot be written: "),
    ):
        arguments = ["short/simba", "short/lion", root, "--figure", str(tmp_path / wrong)]
        assert compare(arguments) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"error: --figure {tmp_path / wrong}: {why}")
        assert message.count("\n") == 1
    record = next((tabled / "runs").glob("*/simba_m/*seed1.json"))
    assert compare([str(record), "short/lion", root]) == 0
    assert "│ 1 │" in capsys.readouterr().out


def users_file(root):
    (path,) = (root / "users").iterdir()
    return path


def test_a_training_writes_how_long_and_how_popular_its_users_are(study):
    lines = [line.split()[1:] for line in (study / "toy.txt").read_text().splitlines()]
    trained = Counter(item for items in lines for item in items[:-2])
    users = read_users(users_file(study), len(lines))
    assert users.history.tolist() == [len(items) - 1 for items in lines]
    assert users.popularity.tolist() == [trained[items[-1]] for items in lines]
    record = json.loads(next((study / "runs").glob("*/*/*.json")).read_text())
    assert users_path(study, "toy", record["config"]["data"]) == users_file(study)
    assert read_users(study / "users" / "others.csv", len(lines)) is None


@pytest.mark.skipif("SIMBA_DATA" not in os.environ, reason="SIMBA_DATA is not set")
@pytest.mark.parametrize("name", ["beauty", "toys", "sports"])
def test_the_committed_users_are_those_of_the_data(tmp_path, name):
    write_users_once(tmp_path / "users.csv", prepare(compose(name, [])).sequences)
    (committed,) = (REPOSITORY / "results" / "users").glob(f"{name}-*.csv")
    assert (tmp_path / "users.csv").read_bytes() == committed.read_bytes()


def test_who_gains_is_told_from_the_users_that_a_training_wrote(tabled, capsys):
    """The groups of compare, of gains.csv and of the table agree; without the users, none."""
    root = f"results.root={tabled}"
    assert compare(["short/simba", "short/lion", root]) == 0
    output = capsys.readouterr().out
    gains = pd.read_csv(tabled / "gains.csv")
    own = gains[gains["optimizer"] == "simba"]
    assert set(own["by"]) == {"popularity", "history"}
    assert (own.groupby("by")["users"].sum() == 30).all()
    tables = tabled / "tables" / "short-sasrec-toy"
    for by in ("popularity", "history"):
        groups = own[own["by"] == by].to_dict("records")
        names = [
            f"{g['least']}" if g["least"] == g["most"] else f"{g['least']} to {g['most']}"
            for g in groups
        ]
        table = pd.read_csv((tables / by).with_suffix(".csv"))
        assert table.columns.tolist() == ["optimizer", "n", *names]
        for group, name in zip(groups, names, strict=True):
            cells = " │ +".join([name, *(str(group[c]) for c in ("users", "better", "worse"))])
            assert re.search(f"│ +{cells} │", output)
    users_file(tabled).unlink()
    assert run(tabled) == 0
    assert len(pd.read_csv(tabled / "gains.csv")) == 0
    capsys.readouterr()
    assert compare(["short/simba", "short/lion", root]) == 0
    assert f"{tabled / 'users'} has no file" in capsys.readouterr().out


def test_a_comparison_of_an_experiment_is_one_of_each_of_its_variants(tabled, capsys):
    root = f"results.root={tabled}"
    assert compare(["short", "short/lion", root]) == 0
    assert capsys.readouterr().out.count("minus Lion (short)") == len(NOTE_VALUES)
    assert compare(["short", "short", root]) == 0
    output = capsys.readouterr().out
    assert "Simba (short) minus Simba (short)" in output
    assert "Simba (short) minus Lion" not in output


def test_the_file_of_a_record_names_this_file_and_no_other(tabled, tmp_path, capsys):
    ours = next((tabled / "runs").glob("*/simba_m/*seed1.json"))
    elsewhere = tmp_path / "elsewhere" / ours.relative_to(tabled)
    assert compare([str(elsewhere), str(ours), f"results.root={tabled}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {elsewhere}: no record in ")
    theirs = next((tabled / "runs").glob("*/simba_m/*seed0.json"))
    both = comparison.find(tabled, studies(load(tabled)), str(ours), None)
    both += comparison.find(tabled, studies(load(tabled)), str(theirs), None)
    same_seed = [
        both[0],
        both[1]._replace(runs=both[1].runs.assign(seed=both[0].runs["seed"].item())),
    ]
    table = comparison.tables(comparison.compare(tabled, *same_seed))[0].frame
    assert [name for name in table if name.endswith((", A", ", B"))] == [
        "Simba + m (short), A",
        "Simba + m (short), B",
    ]


@pytest.mark.parametrize("damage", ["", "\0", "popularity,history\n1,2\n", "1,2\n" * 31, "cut"])
def test_damaged_users_are_one_line_that_names_the_file(results, capsys, damage):
    path = users_file(results)
    path.write_text(path.read_text()[:-9] if damage == "cut" else damage)
    assert run(results) == 2
    output = capsys.readouterr().err
    assert output.startswith(f"error: {path}: damaged (")
    assert output.count("\n") == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["short/nonsense", "short/lion"], "short/nonsense has no run; short has lion, "),
        (["nonsense", "short/lion"], "nonsense: no experiment and no record; there are short"),
        (["short", "short/lion", "--dataset", "x"], "short: no experiment on x and no record"),
        (["short", "short/lion", "--figure", "x.png"], "--figure draws a single comparison"),
    ],
)
def test_a_wrong_comparison_is_one_line(tabled, capsys, names, message):
    assert compare([*names, f"results.root={tabled}"]) == 2
    output = capsys.readouterr().err
    assert message in output
    assert output.count("\n") == 1


def test_runs_with_different_users_are_one_line_that_names_them(results, capsys):
    path = next((results / "runs").glob("*/simba/*seed1.json"))
    record = json.loads(path.read_text())
    ranks = decode_ranks(record["test_ranks"])[:-1]
    record |= {"test_ranks": encode_ranks(ranks)}
    record["test"] |= {"HR@10": float(np.mean(ranks <= 10)), "NDCG@10": ndcg_at_10(ranks).mean()}
    path.write_text(json.dumps(record))
    assert run(results) == 2
    output = capsys.readouterr().err
    assert "simba/" in output
    assert "were tested on different users" in output
    assert output.count("\n") == 1


def test_runs_on_other_data_are_not_compared(tabled, capsys):
    """Two files of the same name are two datasets."""
    for path in (tabled / "runs").glob("*/simba/*.json"):
        record = json.loads(path.read_text())
        record["config"]["data"]["sha256"] = "0" * 64
        path.write_text(json.dumps(record | {"config_hash": digest(record["config"])}))
    assert run(tabled) == 0
    paired = pd.read_csv(tabled / "paired.csv")
    assert "simba" not in set(paired["optimizer"])
    capsys.readouterr()
    assert compare(["short/simba", "short/lion", f"results.root={tabled}"]) == 2
    assert "were run on different versions of toy" in capsys.readouterr().err


def test_a_folder_without_records_is_an_error(tmp_path, capsys):
    assert aggregate([f"results.root={tmp_path}"]) == 2
    assert "no finished record" in capsys.readouterr().err
    assert make_tables([f"results.root={tmp_path}"]) == 2
    assert aggregate(["result.root=x"]) == 2
    assert aggregate([f"results.root={tmp_path / 'absent'}"]) == 2


def test_committed_csv_files_and_tables_come_from_the_committed_records(tmp_path):
    for folder in ("runs", "users", "benchmarks"):
        shutil.copytree(REPOSITORY / "results" / folder, tmp_path / folder)
    assert run(tmp_path) == 0
    committed = REPOSITORY / "results"
    for kind in ("*.csv", "tables/**/*.*"):
        names = {p.relative_to(tmp_path) for p in tmp_path.glob(kind)}
        assert names == {p.relative_to(committed) for p in committed.glob(kind)}, "run make tables"
        for name in names:
            assert (tmp_path / name).read_bytes() == (committed / name).read_bytes(), name


@pytest.mark.parametrize("name", ["answer", "headline"])
def test_the_readme_shows_a_committed_table(name):
    shown = (REPOSITORY / "README.md").read_text()
    assert (REPOSITORY / f"results/tables/{name}.md").read_text() in shown


@pytest.mark.parametrize("name", ["NA", "null", "007", "1e3"])
def test_a_data_set_whose_name_pandas_reads_as_a_number_or_a_missing_value(results, name):
    (results / "runs" / "toy").rename(results / "runs" / name)
    for folder in (results / "runs" / name).iterdir():
        if folder.name != "lion":  # figures of few runs are drawn in less time
            shutil.rmtree(folder)
    for path in (results / "runs").rglob("*.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"dataset": name}))
    assert run(results) == 0
    assert (results / f"tables/short-sasrec-{name}/metrics.md").exists()
    assert f"curves-short-sasrec-{name}" in figures(studies(load(results)))
