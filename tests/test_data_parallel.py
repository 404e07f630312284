"""Training through torchrun: the loss of one process, votes, kills, one voice."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data.batches import training_batches
from models.ops import CPU, REFERENCE
from models.packing import model_inputs
from scripts.records.errors import UserError
from scripts.records.record import decode_ranks
from scripts.running.workers import Workers, require_worker_count
from tests.conftest import REPOSITORY, SMALL
from tests.forked import python
from tests.test_models import FORMS, build, some_sequences
from tests.test_stopping import wait_for_checkpoint
from tests.test_train import records, results_of

TWO = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "scripts.train")
PATIENCE = 300  # seconds for a machine that has much else to do
FORKS = {"PYTHON_EXEC": python()}  # what torchrun starts its workers with


def where(toy: Path, root: Path) -> list[str]:
    return ["data=file", f"data.path={toy}", f"results.root={root}", *SMALL]


def lines_by_us(text: str) -> list[str]:
    """The lines that are not torchrun's own, which name their time or module."""
    return [line for line in text.splitlines() if line.startswith(("/", "error", "interrupted"))]


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("backend", [CPU, REFERENCE])
@pytest.mark.parametrize("form", FORMS)
def test_the_parts_of_a_batch_add_up_to_its_loss_and_gradient_with_dropout(form, backend, workers):
    torch.manual_seed(0)
    model = build(form)
    model.backend = backend
    if backend is REFERENCE:
        model.double()
    rng = np.random.default_rng(1)
    (batch,) = training_batches(some_sequences(0), rng, 10**6, model.maxlen, 2, backend.layout)
    keys = torch.from_numpy(rng.integers(2**32, size=(model.num_dropout_keys, 2)))

    def backward(part, share):
        tensors = {name: torch.from_numpy(array) for name, array in part.arrays().items()}
        loss = share * model.loss(**model_inputs(tensors | {"dropout_keys": keys}, part.layout))
        loss.backward()
        return loss.item()

    whole = backward(batch, 1.0)
    expected = [p.grad for p in model.parameters()]
    model.zero_grad()
    parts = [batch.part(rank, workers) for rank in range(workers)]
    assert sum(part.num_targets for part in parts) == batch.num_targets
    shares = [part.num_targets / batch.num_targets for part in parts]
    losses = [backward(part, share) for part, share in zip(parts, shares, strict=True) if share]
    tight = {"rtol": 1e-10, "atol": 1e-12} if backend is REFERENCE else {"rtol": 1e-4, "atol": 1e-6}
    assert sum(losses) == pytest.approx(whole, rel=1e-6)
    for p, g in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g, **tight)


def test_parts_of_few_users_may_be_empty_and_lose_nobody():
    for layout in ("flat", "rows"):
        rng = np.random.default_rng(0)
        for batch in training_batches(some_sequences(0), rng, 2, 10, 1, layout):
            parts = [batch.part(rank, 5) for rank in range(5)]
            assert min(part.num_targets for part in parts) == 0
            pairs = [np.stack([p.tokens, p.targets])[:, p.targets > 0] for p in parts]
            whole = np.stack([batch.tokens, batch.targets])[:, batch.targets > 0]
            assert np.array_equal(np.concatenate(pairs, axis=1), whole)


@pytest.mark.slow
def test_two_workers_train_as_one_process_and_one_of_them_tells_it(run_module, toy, tmp_path):
    """The last batch has one user, so one worker has none. A diverging run stops no other."""
    sweep = ["-m", "model=sasrec,sasrec_prenorm", "optimizer=adam", "optimizer.lr=1e-3,1e36"]
    sweep += ["batch_size=59", "epochs=4", "negatives=2", "max_grad_norm=0.5"]
    runs = {}
    for name, command in {"one": ["scripts.train"], "two": TWO}.items():
        settings = [*sweep[:1], *where(toy, tmp_path / name), *sweep[1:]]
        done = run_module(*command, *settings, **FORKS)
        assert done.returncode == 1, done.stderr
        own = lines_by_us(done.stderr)
        assert len([line for line in own if ": HR@10 " in line]) == 2
        assert len([line for line in own if line.startswith("error: ")]) == 2
        assert len(own) == 4, own
        runs[name] = records(tmp_path / name)
    assert runs["one"].keys() == runs["two"].keys()
    for path, one in runs["one"].items():
        two = runs["two"][path]
        assert (one["status"], one["config_hash"]) == (two["status"], two["config_hash"])
        assert "workers" not in one
        assert two["workers"] == 2
        assert " torchrun --standalone --nproc-per-node=2 -m scripts.train " in two["command"]
        if one["status"] == "finished":
            for a, b in zip(one["history"], two["history"], strict=True):
                assert b == pytest.approx(a, rel=1e-5)
            assert np.mean(decode_ranks(one["test_ranks"]) == decode_ranks(two["test_ranks"])) > 0.9
    assert not list((tmp_path / "two").rglob("*.lock"))


def started(*more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *TWO, *more],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def follower_of(process: subprocess.Popen[str]) -> int:
    """The process id of the worker of rank 1."""
    shown = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
    )
    for word in shown.stdout.split():
        environment = Path(f"/proc/{word}/environ").read_bytes().split(b"\0")
        if b"RANK=1" in environment:
            return int(word)
    raise AssertionError(shown.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc")
def test_voters_go_on_after_a_kill_with_the_same_bits(run_module, toy, tmp_path):
    votes = ["gradients=ternary", "optimizer=ternary_lion", "optimizer.lr=1e-3", "epochs=40"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_module(*TWO, *where(toy, whole), *votes, fresh=True).returncode == 0
    command = [*where(toy, killed), *votes]
    process = started(*command)
    wait_for_checkpoint(killed, process, 0.0)
    os.kill(follower_of(process), signal.SIGKILL)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, output
    assert len(lines_by_us(output)) <= 1, output
    assert not records(killed)
    again = run_module(*TWO, *command, **FORKS)
    assert again.returncode == 0, again.stderr
    assert [": resuming after epoch " in line for line in lines_by_us(again.stderr)] == [
        True,
        False,
    ]
    ((path, expected),), ((same_path, record),) = (records(r).items() for r in (whole, killed))
    assert path == same_path
    assert "-workers=2-" in path
    assert results_of(record) == results_of(expected)
    assert record["config"]["workers"] == 2
    assert record["config"]["gradients"] == "ternary"
    command = shlex.split(record["command"])
    assert command[1:6] == ["torchrun", "--standalone", "--nproc-per-node=2", "-m", "scripts.train"]
    assert "workers=2" in command


def test_signs_train_and_differ_from_gradients(run_module, toy, tmp_path):
    sweep = ["gradients=sign,float32", "optimizer=lion", "optimizer.lr=1e-3"]
    done = run_module(*TWO, "-m", *where(toy, tmp_path), *sweep, **FORKS)
    assert done.returncode == 0, done.stderr
    gradient, sign = sorted(records(tmp_path).values(), key=lambda r: len(r["config"]))
    assert sign["config"]["gradients"] == "sign"
    assert "gradients" not in gradient["config"]
    assert "workers" not in gradient["config"]
    assert sign["history"] != gradient["history"]
    assert sign["history"][-1]["train/loss"] < sign["history"][0]["train/loss"]


def test_a_mistake_of_all_workers_is_one_line(run_module, toy, tmp_path):
    done = run_module(*TWO, *where(toy, tmp_path), "batch_size=1", **FORKS)
    assert done.returncode == 1  # torchrun's own
    line = "error: batch_size=1 must be at least the number of workers, 2"
    assert lines_by_us(done.stderr) == [line]
    codes = set(re.findall(r"exitcode  : (-?\d+)", done.stderr))
    assert "2" in codes
    assert codes <= {"2", "-15", "143"}  # torchrun ends by SIGTERM whoever is slower


def test_what_one_worker_meets_alone_is_one_line_and_the_end(run_module, toy, tmp_path):
    (tmp_path / "runs").write_text("no folder")  # only the worker that writes notices
    done = run_module(*TWO, "-m", *where(toy, tmp_path), "seed=0,1", **FORKS)
    assert done.returncode == 1
    (line,) = lines_by_us(done.stderr)
    assert line.startswith(f"error: worker 0: {tmp_path / 'runs'}")
    assert ": cannot be written: " in line


FIT = {"workers": None, "joint": None, "diagnose_every": None, "batch_size": 2}


@pytest.mark.parametrize(
    ("workers", "change", "error"),
    [
        (Workers(), {"workers": 2}, "workers=2: start them by `torchrun .*--nproc-per-node=2 .*"),
        (Workers(0, 4, True), {"workers": 2}, r"workers=2: torchrun has started 4 .*"),
        (Workers(0, 2, True), {"joint": True}, "joint=true trains all runs in one process; .*"),
        (
            Workers(0, 2, True),
            {"diagnose_every": 5},
            "diagnose_every=5 records .*",
        ),
        (Workers(0, 3, True), {}, "batch_size=2 must be at least the number of workers, 3"),
    ],
)
def test_refuses_what_workers_cannot_do(workers, change, error):
    require_worker_count(FIT, Workers(0, 2, True))
    require_worker_count(FIT, Workers())
    with pytest.raises(UserError, match=f"^{error}$"):
        require_worker_count(FIT | change, workers)


@pytest.mark.parametrize("parts", [["launcher=joblib"], ["hydra/launcher=joblib"]])
def test_refuses_other_launchers_before_they_start_anything(train, tmp_path, parts):
    for rank in ("0", "1"):
        done = train("-m", *parts, "seed=0,1", RANK=rank, WORLD_SIZE="2")
        assert done.returncode == 2
        expected = f"error: {parts[0]} cannot be combined with torchrun, whose workers all train "
        assert done.stderr.startswith(expected) if rank == "0" else done.stderr == ""
        assert done.stderr.count("\n") == (rank == "0")
    assert not (tmp_path / "results").exists()


def test_refuses_a_sweep_of_processes(run_module):
    done = run_module("scripts.sweep", "seed=0,1", RANK="0", WORLD_SIZE="2")
    assert done.returncode == 2
    assert done.stderr.startswith("error: scripts.sweep cannot run under torchrun; ")


def test_votes_need_torchrun(train):
    done = train("gradients=ternary")
    assert done.returncode == 2
    assert done.stderr.startswith("error: gradients=ternary: workers exchange votes; start them ")
    assert done.stderr.count("\n") == 1


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.slow
def test_workers_agree_on_values_and_errors_and_notice_an_end(tmp_path):
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.worker_talk"],
            cwd=REPOSITORY,
            env=environment | {"RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    (out0, error0), (out1, error1) = (p.communicate(timeout=PATIENCE) for p in running)
    assert out0.splitlines() == ["talked", "only the first is heard", "noticed"], error0
    assert out1.splitlines() == ["talked"], error1
