"""Tracking with real W&B, offline or before a port that nobody listens on."""

import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY, SMALL
from tests.forked import python

KEY = "0123456789" * 4


@pytest.fixture
def track(train, tmp_path):
    """A small run that is tracked by a user without a key."""

    def run(*arguments, **environment):
        home = {"HOME": str(tmp_path), "NETRC": "/no/netrc"}
        return train("tracker.mode=auto", *arguments, **home | environment)

    return run


@pytest.fixture
def start(toy, tmp_path):
    """Start a tracked run and wait until it has a checkpoint."""

    def run():
        root = tmp_path / "results"
        command = [python(), "-m", "scripts.train", *SMALL, "data=file", f"data.path={toy}"]
        process = subprocess.Popen(
            [*command, "epochs=60", "eval_every=3", "tracker.mode=offline", f"results.root={root}"],
            cwd=REPOSITORY,
            env={k: v for k, v in os.environ.items() if not k.startswith("WANDB")},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while not list(root.rglob("*.pt")) and time.monotonic() < deadline:
            time.sleep(0.01)
        return process

    return run


def records(root: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((root / "runs").rglob("*.json"))]


def offline_files(root: Path) -> list[Path]:
    return sorted((root / "wandb").glob("offline-run-*/run-*.wandb"), key=os.path.getmtime)


def test_an_offline_run_holds_what_the_record_holds(track, tmp_path):
    done = track("optimizer=simba_m")
    assert done.returncode == 0, done.stderr
    root = tmp_path / "results"
    (record,) = records(root)
    (file,) = offline_files(root)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("W&B")]
    assert line == f"W&B: offline in {file.parent}; to upload it: wandb sync {file.parent}"
    logged = read_offline(file)
    for logged_entry, entry in zip(logged.history, record["history"], strict=True):
        assert logged_entry["_step"] == entry["epoch"]
        assert entry.items() <= logged_entry.items()
    for split in ("valid", "test"):
        for key, value in record[split].items():
            assert logged.summary[f"{split}/{key}"] == value
    for key in ("best_epoch", "train_seconds", "state_bytes", "peak_rss_mib"):
        assert logged.summary[key] == record[key]
    for key in ("dataset", "experiment", "config_hash", "seed"):
        assert logged.config[key] == record[key]
    assert logged.config["variant"] == record["optimizer"]
    assert logged.config["optimizer"]["lr"] == record["config"]["optimizer"]["lr"]
    run = logged.run
    assert (run.project, run.run_group, run.entity) == ("simba", "toy-single", "")
    assert run.display_name.startswith("toy-simba_m-single-sasrec-")
    assert list(run.tags) == ["toy", "sasrec", "simba_m"]
    (artifact,) = logged.artifacts
    assert artifact.type == "record"
    (content,) = artifact.manifest.contents
    assert json.loads(Path(content.local_path).read_text()) == record


def test_the_summary_holds_the_best_epoch_not_the_last(track, tmp_path):
    done = track("epochs=8", "optimizer.lr=0.1")
    assert done.returncode == 0, done.stderr
    (record,) = records(tmp_path / "results")
    assert record["best_epoch"] < 8
    (file,) = offline_files(tmp_path / "results")
    found = read_offline(file).summary["valid/NDCG@10"]
    assert found == record["valid"]["NDCG@10"]
    assert found != record["history"][-1]["valid/NDCG@10"]


@pytest.mark.slow
def test_the_environment_wins_over_what_nobody_set_and_an_override_wins_over_it(track, tmp_path):
    said = {
        "WANDB_PROJECT": "theirs",
        "WANDB_ENTITY": "team",
        "WANDB_NAME": "name",
        "WANDB_RUN_GROUP": "group",
        "WANDB_TAGS": "a,b",
        "WANDB_RUN_ID": "id",
        "WANDB_DIR": str(tmp_path / "elsewhere"),
    }
    assert track(**said).returncode == 0
    (file,) = offline_files(tmp_path / "elsewhere")
    run = read_offline(file).run
    assert (run.project, run.entity, run.display_name) == ("theirs", "team", "name")
    assert (run.run_group, list(run.tags), run.run_id) == ("group", ["a", "b"], "id")
    assert not (tmp_path / "results/wandb").exists()
    ours = ("tracker.project=ours", "tracker.entity=us", "tracker.tags=[c]")
    assert track(*ours, "seed=1", **said | {"WANDB_RUN_ID": "other"}).returncode == 0
    run = read_offline(offline_files(tmp_path / "elsewhere")[-1]).run
    assert (run.project, run.entity) == ("ours", "us")
    assert list(run.tags) == ["c", "toy", "sasrec", "lion"]


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_run_that_goes_on_is_the_same_wandb_run(start, tmp_path, sent, code):
    stopped = start()
    os.killpg(stopped.pid, sent)
    output = stopped.communicate()[1]
    assert stopped.returncode == code, output
    if sent == signal.SIGINT:
        where, interrupted = output.splitlines()
        assert where.startswith("W&B: offline in ")
        assert interrupted.startswith("interrupted; the same command resumes")
    again = start()
    output = again.communicate()[1]
    assert again.returncode == 0, output
    assert "resuming after epoch" in output
    (record,) = records(tmp_path / "results")
    files = offline_files(tmp_path / "results")
    first, second = (read_offline(file) for file in files)
    assert {file.name for file in files} == {f"run-{second.run.run_id}.wandb"}
    epochs = [entry["_step"] for entry in second.history]
    assert epochs == list(range(1, len(record["history"]) + 1))  # whole, and none twice
    for early, whole, entry in zip_longest(first.history, second.history, record["history"]):
        assert entry.items() <= whole.items()
        assert early is None or entry.items() <= early.items()


@pytest.mark.slow
def test_another_setting_or_a_training_by_force_is_another_wandb_run(track, tmp_path):
    for more in (["epochs=1"], [], ["force=true"]):
        done = track(*more)
        assert done.returncode == 0, done.stderr
    runs = [read_offline(file).run for file in offline_files(tmp_path / "results")]
    assert len({run.run_id for run in runs}) == 3


@pytest.mark.slow
def test_what_an_agent_starts_is_a_run_with_a_record(track, tmp_path):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    sweep = yaml.safe_load((REPOSITORY / "docs/wandb_sweep.yaml").read_text())
    rate = sweep["parameters"]["optimizer.lr"]
    assert rate["min"] < rate["max"]  # numbers: YAML takes 1e-5 for text
    drawn = [("lion", rate["min"]), ("lion", rate["max"]), ("simba", rate["max"])]
    for i, (optimizer, lr) in enumerate(drawn):
        arguments = {"optimizer": {"value": optimizer}, "optimizer.lr": {"value": lr}}
        given = tmp_path / f"config-{i}.yaml"
        given.write_text(yaml.safe_dump({"wandb_version": 1, **arguments}))
        fill = create_sweep_command_args({"args": arguments})
        fill |= {"env": ["/usr/bin/env"], "interpreter": ["python"]}
        command = []
        for word in create_sweep_command(list(sweep["command"])):
            command += fill[word[2:-1]] if word.startswith("${") else [word]
        start = command.index("scripts.train") + 1
        assert command[:start] == ["/usr/bin/env", "python", "-m", "scripts.train"]
        ours = [word for word in command[start:] if word.startswith("optimizer")]
        assert ours == [f"optimizer={optimizer}", f"optimizer.lr={lr}"]
        agent = {"WANDB_SWEEP_ID": "sweep", "WANDB_SWEEP_PARAM_PATH": str(given)}
        agent |= {"WANDB_RUN_ID": f"drawn{i}", "WANDB_PROJECT": "theirs", "WANDB_ENTITY": "team"}
        done = track(*ours, **agent)
        assert done.returncode == 0, done.stderr
    found = {
        (r["optimizer"], r["config"]["optimizer"]["lr"]) for r in records(tmp_path / "results")
    }
    assert found == set(drawn)
    logged = [read_offline(file) for file in offline_files(tmp_path / "results")]
    assert [each.run.run_id for each in logged] == ["drawn0", "drawn1", "drawn2"]
    assert {(each.run.sweep_id, each.run.project) for each in logged} == {("sweep", "theirs")}
    assert sweep["metric"]["name"] in logged[0].summary
    assert logged[0].config["optimizer.lr"] == rate["min"]


@pytest.mark.slow
def test_without_a_network_a_run_goes_on_offline(track, tmp_path):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # and never listens
        network = {"WANDB_BASE_URL": f"http://127.0.0.1:{deaf.getsockname()[1]}"}
        network |= {"WANDB_API_KEY": KEY, "WANDB_INIT_TIMEOUT": "3"}
        done = track("-m", "seed=0,1", **network)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    output = [line for line in done.stderr.splitlines() if "W&B" in line or "wandb" in line.lower()]
    assert len(output) == 2
    assert all("connection refused" in line and "wandb sync" in line for line in output)
    files = offline_files(tmp_path / "results")
    for file, record in zip(files, records(tmp_path / "results"), strict=True):
        logged = read_offline(file)
        assert [entry["_step"] for entry in logged.history] == [1, 2]
        assert logged.summary["test/NDCG@10"] == record["test"]["NDCG@10"]


def test_a_failed_training_is_one_line(track):
    done = track("optimizer=sgd", "optimizer.lr=1e30")
    assert done.returncode == 1
    where, failed = done.stderr.splitlines()
    assert where.startswith("W&B: offline in ")
    assert "the loss is" in failed


def test_a_mistake_ends_a_command_before_it_trains(track, tmp_path):
    done = track("tracker.mode=online")
    assert done.returncode == 2
    assert "tracker.mode=online needs a W&B API key: `wandb login`" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "results/runs").exists()


MODE = """
import json, sys
from scripts.records.errors import UserError
from scripts.running.tracking import tracking_mode
tracker = {"mode": "auto", "project": None, "entity": None} | json.loads(sys.argv[1])
try:
    print(tracking_mode(tracker))
except UserError as error:
    print(error)
"""
MISTAKES = [
    ({}, {"WANDB_MODE": "online"}, "WANDB_MODE=online needs a W&B API key"),
    ({}, {"WANDB_MODE": "loud"}, "WANDB_MODE must be one of auto, online"),
    ({}, {"WANDB_API_KEY": "short"}, "W&B: WANDB_API_KEY invalid"),
    ({}, {"NETRC": "{garbage}"}, "W&B: 'utf-8' codec can't decode"),
    ({"mode": "offline"}, {"WANDB_CONFIG_DIR": "{folder}"}, "W&B: 'utf-8' codec can't decode"),
    ({"mode": "offline"}, {"WANDB_INIT_TIMEOUT": "soon"}, "W&B: 1 validation error for Settings"),
    ({"mode": "offline"}, {"WANDB_PROJECT": "a/b"}, "W&B: Invalid project name 'a/b'"),
    ({"mode": "offline", "project": "a/b"}, {}, "W&B: Invalid project name 'a/b'"),
    ({"mode": "offline"}, {"WANDB_SERVICE": "x"}, "W&B: Failed to parse WANDB_SERVICE='x'"),
]


@pytest.mark.parametrize(("tracker", "environment", "message"), MISTAKES)
def test_a_mistake_is_one_line(tmp_path, tracker, environment, message):
    garbage = tmp_path / "settings"
    garbage.write_bytes(b"\xff\xfe")
    paths = {"garbage": garbage, "folder": tmp_path}
    variables = {key: value.format(**paths) for key, value in environment.items()}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    done = subprocess.run(
        [python(), "-c", MODE, json.dumps(tracker)],
        env=inherited | {"HOME": str(tmp_path), "NETRC": "/no/netrc"} | variables,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith(message), done.stdout + done.stderr
    assert done.stdout.count("\n") == 1
    assert not done.stderr


@pytest.fixture
def uninstalled(tmp_path):
    """An environment in which wandb cannot be imported."""
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "wandb.py").write_text("raise ImportError")
    return {"PYTHONPATH": str(folder)}


def test_without_wandb_there_are_records_and_a_hint(track, tmp_path, uninstalled):
    done = track("-m", "seed=0,1", **uninstalled)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("pip install '.[wandb]'") == 1
    assert len(records(tmp_path / "results")) == 2
    assert not (tmp_path / "results/wandb").exists()
    quiet = track("tracker.mode=disabled", "seed=2", **uninstalled)
    assert quiet.returncode == 0
    assert "W&B" not in quiet.stderr


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_without_wandb_whoever_asks_for_it_is_told_what_to_install(track, uninstalled, mode):
    done = track(f"tracker.mode={mode}", **uninstalled)
    assert done.returncode == 2
    assert f"tracker.mode={mode} needs W&B: pip install '.[wandb]'" in done.stderr
    assert done.stderr.count("\n") == 1


@dataclass
class Logged:
    """What an offline run's file holds."""

    history: list[dict] = field(default_factory=list)
    summary: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    run: Any = None
    artifacts: list = field(default_factory=list)


def read_offline(file: Path) -> Logged:
    """Read protobuf records from a LevelDB log."""
    from wandb.proto.wandb_internal_pb2 import Record

    logged = Logged()
    for content in leveldb_log(file.read_bytes()[7:]):
        record = Record()
        record.ParseFromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            logged.history.append(values(record.history.item))
        elif kind == "summary":
            logged.summary |= values(record.summary.update)
        elif kind == "config":
            logged.config |= values(record.config.update)
        elif kind == "run":
            logged.run = record.run
            logged.config |= values(record.run.config.update)
        elif kind == "artifact":
            logged.artifacts.append(record.artifact)
    return logged


def leveldb_log(content: bytes):
    """Blocks of 32 KiB; a chunk is crc (4), length (2), type (1: whole, 2: first, 4: last).

    The last chunk of a killed run may be a part of one.
    """
    whole, at, block = b"", -7, 2**15  # W&B writes 7 bytes before the first chunk
    position = 0
    while position + 7 <= len(content):
        left = block - (position - at) % block
        if left < 7:
            position += left
            continue
        length = int.from_bytes(content[position + 4 : position + 6], "little")
        kind = content[position + 6]
        if position + 7 + length > len(content):
            return
        whole += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


def values(items) -> dict:
    return {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}
