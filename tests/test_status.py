"""scripts.status, on real runs: done, failed, running, to do."""

import json
import os
import platform
import re
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from scripts.records.record import digest
from scripts.records.run_files import RunFiles, find_runs
from scripts.records.state import state_of
from scripts.records.status import Status
from scripts.running.status import state_reader
from scripts.status import main
from tests.conftest import REPOSITORY, SMALL, write_toy
from tests.forked import python
from tests.test_stopping import LINE, start

PATIENCE = 300  # seconds for a machine that has much else to do
SWEEP = ["optimizer=sgd", "optimizer.lr=1e-3,1e30"]  # one worker meets what failed in another


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> list[str]:
    """Where a sweep has trained a run and failed in another: overrides for scripts.status."""
    folder = tmp_path_factory.mktemp("swept")
    toy = write_toy(folder / "toy.txt")
    where = ["data=file", f"data.path={toy}", f"results.root={folder}", *SMALL]
    process = start("scripts.sweep", "--jobs", "2", *where, *SWEEP, program=python())
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, output
    return where


def root_of(overrides: list[str]) -> Path:
    (root,) = (o.removeprefix("results.root=") for o in overrides if o.startswith("results.root"))
    return Path(root)


@pytest.fixture
def status(monkeypatch, capsys):
    """A function that gives the lines of scripts.status."""
    monkeypatch.chdir(REPOSITORY)

    def run(*arguments: str) -> list[str]:
        assert main(list(arguments)) == 0
        return capsys.readouterr().out.splitlines()

    return run


def flat(lines: list[str]) -> str:
    """Lines of a table without the breaks inside its cells."""
    return "".join("".join(line.split()) for line in lines)


def test_a_sweep_is_seen_with_what_is_still_to_do(status, swept):
    first, *lines = status(*swept, "optimizer=sgd", "optimizer.lr=1e-3,1e30,1e-2")
    assert first == "3 runs: 1 failed, 0 running, 1 to do, 1 done"
    *table, command = lines
    assert all(len(line) <= 100 for line in table)
    words = [line.split()[0] for line in table if line.startswith((" failed", " to do", " done"))]
    assert words == ["failed", "to", "done"]
    assert "thelossis" in flat(table)
    assert "NDCG@100." in flat(table)
    assert command.startswith("OMP_NUM_THREADS=1 python -m scripts.train data=file")


def test_all_runs_below_a_folder_are_seen(status, swept):
    first, *_ = status(f"results.root={root_of(swept)}")
    assert first == "2 runs: 1 failed, 0 running, 0 to do, 1 done"


def test_a_failed_run_is_trained_once_per_sweep_and_its_command_trains_it_alone(status, swept):
    (log,) = root_of(swept).glob("checkpoints/toy/sgd/*.log")
    starts = f" on {platform.node()}: OMP_NUM_THREADS=1 python -m scripts.train"
    assert log.read_text().count(starts) == 1  # of two workers, one trained it
    assert "the loss is" in log.read_text()
    *_, command = status(*swept, *SWEEP)
    finished = {p: p.stat() for p in root_of(swept).rglob("*lr=0.001*")}
    line = command.replace("python", python(), 1)
    done = subprocess.run(line, shell=True, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"(log: {log})" in done.stderr
    assert log.read_text().count(starts) == 2
    assert finished == {p: p.stat() for p in root_of(swept).rglob("*lr=0.001*")}


@pytest.mark.slow
def test_a_running_run_is_followed_to_its_end(status, swept, tmp_path):
    where = [*swept, f"results.root={tmp_path}", "epochs=40", "optimizer=lion"]
    process = start("scripts.train", *where)
    while not any(state_of(files).eta_seconds is not None for files in find_runs(tmp_path)):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    first, *table = status(*where)
    assert re.fullmatch(r"1 run: 0 failed, 1 running, 0 to do, 0 done; ETA \d\d:\d\d", first)
    assert re.search(r" \d+/40 +\d\.\d{4} +\d\d:\d\d ", "\n".join(table))
    assert flat(table).count(f"process{process.pid}") == 1
    (files,) = find_runs(tmp_path)
    seen = state_of(files)
    assert seen.remark == f"{platform.node()}, process {process.pid}"
    first, *_ = status("--watch", *where)
    assert first == "1 run: 0 failed, 0 running, 0 to do, 1 done"
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    assert LINE not in output
    assert not list((tmp_path / "checkpoints").rglob("*.*"))


def test_a_process_that_is_gone_is_no_running_one_and_an_old_status_is_noted(status, tmp_path):
    for name, host in (("here", platform.node()), ("there", "elsewhere")):
        files = RunFiles(tmp_path, "toy/lion", name)
        earlier = {"pid": os.getpid(), "process_start": "1"}  # its id was another's
        Status("", epochs=50, epoch=7, loss=0.5, host=host, **earlier).write(files.status)
        files.lock.touch()
        written = json.loads(files.status.read_text())
        written["updated"] -= 3600
        files.status.write_text(json.dumps(written))
    first, *table = status(f"results.root={tmp_path}")
    assert first == "2 runs: 0 failed, 1 running, 1 to do, 0 done"
    assert "noupdatefor1:00:0" in flat(table)
    assert "resumesfromitscheckpoint" in flat(table)
    assert "\n".join(table).count("7/50") == 2


def test_a_damaged_status_is_none(tmp_path):
    files = RunFiles(tmp_path, "toy/lion", "run")
    files.status.parent.mkdir(parents=True)
    files.lock.touch()
    right = asdict(Status("python -m scripts.train", 3, error="x"))
    odd = {"updated": None, "loss": "x", "error": [1], "command": 3, "pid": True, "epoch": "1"}
    wrong = [json.dumps(right | {key: value}) for key, value in odd.items()]
    for text in ("", "{", "[]", "{}", '{"epoch": 3}', "\0", *wrong):
        files.status.write_text(text)
        assert state_of(files).phase == "to do"
    files.status.write_text(json.dumps(right))
    assert state_of(files).phase != "to do"


def test_a_record_of_another_config_is_not_done(swept):
    (record,) = root_of(swept).glob("runs/toy/sgd/*lr=0.001*.json")
    before = record.read_text()
    try:
        other = json.loads(before)
        other["config"]["negatives"] = 3
        other["config_hash"] = digest(other["config"])
        record.write_text(json.dumps(other))
        notes = [state.remark for state in state_reader([*swept, *SWEEP])()]
        assert "the record is of another config (negatives: 3 -> 1)" in notes[0]
    finally:
        record.write_text(before)


def test_a_mistake_is_one_line(monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    for override, message in (
        ("epochs=0", "epochs must be an integer >= 1, got 0"),
        ("experiment=nothing", "Could not find 'experiment/nothing'"),
        ("optimizer.lr=[", "quote a value"),
    ):
        assert main([override]) == 2
        output = capsys.readouterr().err
        assert message in output
        assert output.count("\n") == 1


def test_colours_can_be_switched_off(monkeypatch, capsys, swept):
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("FORCE_COLOR", "1")
    for variable, coloured in ((None, True), ("NO_COLOR", False)):
        if variable:
            monkeypatch.setenv(variable, "1")
        assert main([f"results.root={root_of(swept)}"]) == 0
        assert ("\x1b[31m" in capsys.readouterr().out) == coloured
