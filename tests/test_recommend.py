"""Weights that a run keeps, and the items that scripts.recommend gives with them."""

import csv
import io
import json
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from scripts.aggregate import main as aggregate
from scripts.recommend import main
from scripts.records.record import decode_ranks
from scripts.records.run_files import weights_of
from scripts.running import checkpoint, weights
from scripts.train import main as train_main
from tests.conftest import REPOSITORY, SMALL
from tests.test_train import kept_weights, records, results_of

ITEMS = [f"b{number:02}" for number in range(38)] + ["a,b", "\x1b[31m"]


class Trained(NamedTuple):
    """A run that has kept its weights."""

    record: Path
    data: Path
    histories: dict[str, list[str]]  # each user's items

    def read(self) -> dict:
        return json.loads(self.record.read_text())


def write(path: Path, histories: dict[str, list[str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item"])
        writer.writerows([user, item] for user, items in histories.items() for item in items)


@pytest.fixture(scope="module")
def shared(run_module, tmp_path_factory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    histories = {
        f"u{user:02}": rng.permutation(ITEMS)[: rng.integers(3, 16)].tolist() for user in range(60)
    }
    write(folder / "shop.csv", histories)
    where = ["data=file", f"data.path={folder / 'shop.csv'}", f"results.root={folder}"]
    done = run_module("scripts.train", *where, *SMALL, "save_best=true", "optimizer.lr=1e-2")
    assert done.returncode == 0, done.stderr
    (path,) = folder.rglob("runs/**/*.json")
    return Trained(path, folder / "shop.csv", histories)


@pytest.fixture
def trained(shared, tmp_path) -> Trained:
    """A copy that a test may change."""
    for file in (shared.record, weights_of(shared.record)):
        shutil.copy(file, tmp_path / file.name)
    return shared._replace(record=tmp_path / shared.record.name)


def lines(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_every_users_test_item_has_the_rank_of_the_record(shared, run_module, tmp_path):
    """The evaluation ranks, the command recommends: both must use the same weights and numbers."""
    before = {user: items[:-1] for user, items in shared.histories.items()}
    write(tmp_path / "before.csv", before)
    known = ("--histories", str(tmp_path / "before.csv"), "--csv", "--top", "99")
    done = run_module("scripts.recommend", str(shared.record), *known)
    assert done.returncode == 0, done.stderr
    tops: dict[str, list[str]] = {user: [] for user in before}
    for line in lines(done.stdout):
        tops[line["user"]].append(line["item"])
        assert line["rank"] == str(len(tops[line["user"]]))
    ranks = [tops[user].index(items[-1]) + 1 for user, items in shared.histories.items()]
    assert ranks == decode_ranks(shared.read()["test_ranks"]).tolist()
    for user, items in before.items():
        assert sorted([*tops[user], *items]) == sorted(ITEMS)  # all items but the seen ones


def test_the_table_shows_what_the_csv_holds(shared, capsys):
    record = str(shared.record)
    assert main([record, "--items", 'b01,"a,b",b02', "--top", "3", "--csv"]) == 0
    top = lines(capsys.readouterr().out)
    assert list(top[0]) == ["rank", "item", "score"]
    assert [line["rank"] for line in top] == ["1", "2", "3"]
    scores = [float(line["score"]) for line in top]
    assert scores == sorted(scores, reverse=True)
    assert main([record, "--items", 'b01,"a,b",b02', "--top", "3"]) == 0
    shown = capsys.readouterr().out.replace("\\x1b[31m", "\x1b[31m").splitlines()[3:6]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in shown]
    assert cells == [list(line.values()) for line in top]


def test_control_characters_of_ids_do_not_reach_the_terminal(shared, capsys):
    assert main([str(shared.record), "--items", "b00", "--top", "40"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b[31m" in out


def test_the_order_of_a_history_matters_and_its_length_does_not_fail(shared, capsys):
    longest = ITEMS[:30]  # three times the model's maxlen
    scores = set()
    for items in (longest, longest[::-1]):
        quoted = ",".join(items)
        assert main([str(shared.record), "--items", quoted, "--csv", "--top", "1"]) == 0
        scores.add(capsys.readouterr().out)
    assert len(scores) == 2


def fails(capsys, *arguments: str) -> str:
    assert main([*map(str, arguments)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1, output.err
    return output.err


def test_an_unknown_item_is_named_with_the_nearest(shared, tmp_path, capsys):
    output = fails(capsys, shared.record, "--items", "b01", "model=sasrec")
    assert output == "error: model=sasrec: expected data.KEY=VALUE\n"
    output = fails(capsys, shared.record, "--items", "b01,b011")
    assert "item 'b011' is not in shop; nearest: 'b11', 'b01'" in output
    assert "ids are, for example, '\\x1b[31m', 'a,b', " in fails(
        capsys, shared.record, "--items", "unlike"
    )
    write(tmp_path / "h.csv", {"ann": ["b01", "B1"]})
    assert "item 'B1' is not in shop" in fails(
        capsys, shared.record, "--histories", tmp_path / "h.csv"
    )


def test_histories_that_cannot_be_read_are_named(shared, tmp_path, capsys):
    path = tmp_path / "h.csv"
    assert f"{path}: No such file" in fails(capsys, shared.record, "--histories", path)
    path.write_text("who,item\nann,b01\n")
    assert f"{path}: no column 'user'" in fails(capsys, shared.record, "--histories", path)


def test_weights_that_are_missing_damaged_or_of_another_run_say_how_to_get_them(trained, capsys):
    record, file = trained.record, weights_of(trained.record)
    content = file.read_bytes()
    retrain = f"train it again: {trained.read()['command']} save_best=true force=true results.root="
    file.unlink()
    output = fails(capsys, record, "--items", "b01")
    assert output.startswith(f"error: {file}: the run kept no weights; {retrain}")
    for damaged in (b"", content[:-1], content[:200] + b"\0" + content[201:]):
        file.write_bytes(damaged)
        output = fails(capsys, record, "--items", "b01")
        assert output.startswith(f"error: {file}: damaged or of another format; {retrain}")
    weights.save(record, trained.read() | {"best_epoch": 77}, {})
    output = fails(capsys, record, "--items", "b01")
    assert output.startswith(f"error: {file}: the weights of another run; {retrain}")
    state = {"item.weight": torch.zeros(41, 16)}
    weights.save(record, trained.read(), state)
    assert "models.sasrec.SASRec has changed since" in fails(capsys, record, "--items", "b01")


def test_a_file_that_is_no_record_of_a_finished_run_is_an_error(trained, capsys):
    path = trained.record
    path.write_text(json.dumps(trained.read() | {"status": "failed"}))
    assert f"{path}: the run is failed" in fails(capsys, path, "--items", "b01")
    path.write_text("{}")
    assert f"{path}: not a record" in fails(capsys, path, "--items", "b01")


def test_data_that_is_gone_or_has_changed_is_an_error(shared, tmp_path, capsys):
    path = tmp_path / "shop.csv"
    another = f"data.path={path}"
    assert "no such file (data.path)" in fails(capsys, shared.record, "--items", "b01", another)
    write(path, shared.histories | {"new": ["b01", "b02", "b03"]})
    output = fails(capsys, shared.record, "--items", "b01", another)
    sha256 = shared.read()["data"]["sha256"]
    assert f"{path} differs from the data of the training (sha256: {sha256} -> " in output
    output = fails(capsys, shared.record, "--items", "b01", "data.k_core=3")
    assert "differs from the data of the training (k_core: 0 -> 3)" in output
    shutil.copy(shared.data, path)
    assert main([str(shared.record), "--items", "b01", another]) == 0


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--items", "b01", "--histories", "x"],
        ["--items", "b01,,b02"],
        ["--items", "b01\nb02"],
        ["--items", ""],
        ["--items", "b01", "--top", "0"],
    ],
)
def test_a_wrong_command_line_is_refused(shared, words):
    with pytest.raises(SystemExit) as stop:
        main([str(shared.record), *words])
    assert stop.value.code == 2


def test_weights_are_loaded_without_code_and_are_those_of_the_best_epoch(shared):
    file, record = weights_of(shared.record), shared.read()
    assert file.name == shared.record.name.replace(".json", ".best.pt")
    content = checkpoint.load(file, torch.device("cpu"), weights.FORMAT)  # weights_only
    assert content["epoch"] == record["best_epoch"]
    assert sum(t.numel() for t in content["model"].values()) == record["num_parameters"]


def test_csv_files_of_results_do_not_see_the_weights(shared, tmp_path):
    shutil.copytree(shared.record.parents[2], tmp_path / "runs")
    assert aggregate([f"results.root={tmp_path}"]) == 0
    assert (tmp_path / "runs.csv").read_text().count("\n") == 2


def test_a_finished_run_is_not_trained_again_for_its_weights(toy, tmp_path, monkeypatch, capsys):
    results = tmp_path / "results"
    where = ["data=file", f"data.path={toy}", f"results.root={results}"]
    monkeypatch.chdir(REPOSITORY)

    def train(*settings: str) -> str:
        monkeypatch.setattr(sys, "argv", ["train", *where, *SMALL, *settings])
        code = train_main()
        output = capsys.readouterr().err
        assert code == (2 if output.startswith("error: ") else 0)
        assert output.count("\n") == 1
        return output

    train()
    assert not list(results.rglob("*.pt"))
    refused = train("save_best=true")
    assert "finished without weights; save_best=true needs another training" in refused
    ((name, before),) = records(results).items()
    train("save_best=true", "force=true")
    ((path, after),) = records(results).items()
    assert path == name
    assert results_of(after) == results_of(before)
    assert "save_best" not in after["command"]
    assert len(kept_weights(results)) == 1
    assert "skipped" in train("save_best=true")
    train("force=true")
    assert not list(results.rglob("*.pt")), "they belong to the record that was replaced"


def test_the_page_shows_the_command():
    page = (REPOSITORY / "docs" / "sweeps.md").read_text()
    assert "python -m scripts.recommend" in page
    assert "save_best=true" in page
