"""No failure of W&B costs a training or prints a traceback: services, disks and servers fail."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from scripts.records.run_files import find_runs
from scripts.records.status import read_status
from tests.conftest import REPOSITORY
from tests.forked import python
from tests.mounts import needs_mounts, small_disk, within
from tests.test_tracking import KEY, offline_files, read_offline, records, start  # noqa: F401

FAILED = "the run continues without it, its record is the same"
TRACK = """
import json, os, subprocess, sys
from pathlib import Path
from scripts.running import tracking
from scripts.running.tracking import IN_SUMMARY, tracked, tracking_mode

root, mode, limit, *faults = sys.argv[1:]
tracking.CALL_SECONDS = float(limit)
path = Path(root) / "record.json"
tracker = {"mode": mode, "project": None, "entity": None, "tags": []}
config = {"tracker": tracker, "results": {"root": root}}
start = {"dataset": "d", "model": "m", "optimizer": "o", "experiment": "e"}
record = {"valid": {"a": 1.0}, "test": {"a": 1.0}} | dict.fromkeys(IN_SUMMARY, 1)

for number, fault in enumerate(faults):
    sent, _, when = fault.partition(" ")

    def at(moment):
        if moment == when:
            service = ["pkill", f"-{sent}", "-P", str(os.getpid()), "wandb-core"]
            subprocess.run(service, check=True)

    own = start | {"config_hash": f"{number} {root}"}
    with tracked(tracking_mode(tracker), config, own, path, "name") as (log, log_record):
        at("before the first epoch")
        for epoch in range(1, 4):
            log({"epoch": epoch, "loss": 1.0})
            if epoch == 2:
                at("between two epochs")
        path.write_text(json.dumps(record))
        at("before the record")
        log_record(record)
        at("at the end")
    print("trained")
"""
Track = Callable[..., list[str]]


@pytest.fixture
def track(tmp_path) -> Track:
    """A function that tracks a run per fault, all in one process; returns what stderr tells."""

    def run(*faults, mode="offline", limit=60, prefix=(), **environment):
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
        home = {"HOME": str(tmp_path), "NETRC": "/no/netrc", "PYTHONPATH": str(REPOSITORY)}
        variables = inherited | home | environment
        program = [*prefix, sys.executable] if prefix else [python()]  # a fork has other mounts
        done = subprocess.run(
            [*program, "-c", TRACK, str(tmp_path), mode, str(limit), *faults],
            env={k: v for k, v in variables.items() if v is not None},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "trained\n" * len(faults)
        return done.stderr.splitlines()

    return run


KILLS = ("before the first epoch", "between two epochs", "before the record", "at the end")


@pytest.mark.slow
def test_a_service_that_dies_or_hangs_is_one_line_and_the_next_run_is_tracked_again(
    track, tmp_path
):
    output = track(*(f"KILL {when}" for when in KILLS), "STOP before the record", "none", limit=5)
    where, failed = output[:-1:2], output[1:-1:2]
    assert len(where) == len(failed) == 5
    assert all(line.startswith("W&B: offline in ") for line in [*where, output[-1]])
    assert all(line.startswith("W&B: failed (") and FAILED in line for line in failed)
    assert "no answer in 5 seconds" in failed[-1]
    last = read_offline(offline_files(tmp_path)[-1])
    assert [entry["_step"] for entry in last.history] == [1, 2, 3]
    assert last.artifacts


@pytest.mark.slow
def test_a_service_killed_during_a_training_costs_neither_it_nor_its_record(start, tmp_path):  # noqa: F811
    process = start()
    (files,) = find_runs(tmp_path / "results")
    parent = str(read_status(files.status).pid)
    subprocess.run(["pkill", "-KILL", "-P", parent, "wandb-core"], check=True)
    output = process.communicate()[1]
    assert process.returncode == 0, output
    where, failed, trained = output.splitlines()
    assert where.startswith("W&B: offline in ")
    assert failed.startswith("W&B: failed (")
    assert "HR@10" in trained
    (record,) = records(tmp_path / "results")
    assert len(record["history"]) == 60
    assert not list((tmp_path / "results").rglob("*.pt"))


@needs_mounts
@pytest.mark.parametrize(
    "disk", ["nr_inodes=1", "nr_inodes=5", "size=8k"], ids=["no file", "few files", "few bytes"]
)
def test_a_full_disk_below_wandb_is_one_line(track, tmp_path, disk):
    folder = tmp_path / "disk"
    folder.mkdir()
    prefix = within(small_disk(folder, disk))
    *before, failed = track("none", prefix=prefix, WANDB_DIR=str(folder))
    assert "No space left on device" in failed
    assert FAILED in failed
    assert len(before) == (disk == "size=8k")  # the line that tells the folder


class Server(BaseHTTPRequestHandler):
    """What W&B needs to start a run; then, without an answer to anything else, it is gone."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}")
        query, name = asked.get("query", ""), asked.get("variables", {}).get("name")
        of = {"id": "p", "name": "simba", "entity": {"id": "e", "name": "us"}}
        run = {"id": "r", "name": name, "displayName": "", "config": "{}", "project": of}
        answers = {
            "upsertBucket": {"upsertBucket": {"bucket": run, "inserted": True}},
            "RunResumeStatus": {"model": None},
            "Viewer": {"viewer": {"id": "v", "entity": "us", "username": "us", "flags": "{}"}},
        }
        known = [answer for key, answer in answers.items() if key in query]
        content = json.dumps({"data": known[0]} if known else {}).encode()
        self.send_response(200 if known else 503)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.slow
def test_a_network_that_is_lost_during_a_run_holds_no_sweep_up(track, server):
    network = {"WANDB_BASE_URL": server, "WANDB_API_KEY": KEY, "NO_PROXY": "127.0.0.1"}
    # A new interpreter: in a fork, W&B closes its mailbox before the time is over.
    runs = track("none", "none", mode="online", limit=4, prefix=["env"], **network)
    first, failed, second, failed_too = runs
    for online, line in ((first, failed), (second, failed_too)):
        assert online.startswith(f"W&B: {server}/us/simba/runs/")
        assert line == f"W&B: failed (no answer in 4 seconds); {FAILED}"


@pytest.mark.parametrize("home", [None, "/proc/nowhere"])
def test_without_a_home_wandb_writes_nothing_more(track, home, tmp_path):
    (line,) = track("none", HOME=home, TMPDIR=str(tmp_path))
    assert line.startswith("W&B: offline in ")
