"""Ctrl-C, SIGTERM, SIGHUP and kill -9, on single runs and sweeps; checkpoints that broke."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.records.files import write_atomically
from scripts.running.checkpoint import load_or_none
from scripts.running.training import Training
from scripts.train import main
from tests.conftest import REPOSITORY, SMALL
from tests.forked import python
from tests.test_train import records, results_of

LINE = "interrupted; the same command resumes"
LONG = [*SMALL, "epochs=40"]


def same(root: Path, other: Path) -> bool:
    ours, others = ({k: results_of(v) for k, v in records(r).items()} for r in (root, other))
    return bool(ours) and ours == others


def left_in(root: Path) -> list[str]:
    """Locks and parts of files."""
    return [p.name for p in root.rglob("*") if p.name.startswith(".") or p.suffix == ".lock"]


def start(*command: str, program: str = sys.executable) -> subprocess.Popen[str]:
    """A command in a process group of its own, as a shell starts it."""
    return subprocess.Popen(
        [program, "-m", *command],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def newest(root: Path) -> float:
    """When the last checkpoint was written."""
    times = [0.0]
    for path in root.rglob("*.pt"):
        try:
            times.append(path.stat().st_mtime)
        except FileNotFoundError:  # its run has just ended
            continue
    return max(times)


def wait_for_checkpoint(root: Path, process: subprocess.Popen[str], since: float) -> None:
    while newest(root) <= since:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)


def alive(root: Path) -> list[str]:
    """Processes with a folder in their command line."""
    shown = subprocess.run(["ps", "axww", "-o", "stat=,args="], capture_output=True, text=True)
    return [line for line in shown.stdout.splitlines() if str(root) in line and line[0] != "Z"]


def words(toy: Path, root: Path, *more: str) -> list[str]:
    return ["data=file", f"data.path={toy}", f"results.root={root}", *LONG, *more]


@pytest.mark.slow
def test_a_run_ends_alike_on_every_signal_and_goes_on(run_module, toy, tmp_path):
    whole, root = tmp_path / "whole", tmp_path / "stopped"
    assert run_module("scripts.train", *words(toy, whole)).returncode == 0
    since = 0.0
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        process = start("scripts.train", *words(toy, root), program=python())
        wait_for_checkpoint(root, process, since)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == code, output
        *before, last = output.splitlines()
        assert last == f"{LINE} from the last evaluation"
        assert len(before) == (since > 0)  # resuming after epoch ...
        assert not left_in(root)
        since = newest(root)
    assert run_module("scripts.train", *words(toy, root)).returncode == 0
    assert same(root, whole)


@pytest.mark.slow
def test_a_sweep_leaves_no_process_behind_and_goes_on(run_module, toy, tmp_path):
    whole, root = tmp_path / "whole", tmp_path / "stopped"
    runs = ["optimizer=lion,simba_m"]
    assert run_module("scripts.train", "-m", *words(toy, whole, *runs)).returncode == 0
    sweep = ["scripts.sweep", "--jobs", "2", *words(toy, root, *runs)]
    since = 0.0
    for number, to_all, code in (
        (signal.SIGINT, True, 130),  # as a terminal sends it
        (signal.SIGTERM, False, 143),
        (signal.SIGKILL, False, -9),
    ):
        # Forks are in no group of the sweep's, and ``alive`` does not see them.
        program = python() if number == signal.SIGTERM else sys.executable
        process = start(*sweep, program=program)
        wait_for_checkpoint(root, process, since)
        os.killpg(process.pid, number) if to_all else process.send_signal(number)
        output, _ = process.communicate(timeout=60)  # until no worker holds the pipe, either
        assert process.returncode == code, output
        if number != signal.SIGKILL:
            assert output.splitlines()[-1] == LINE
            assert output.count("interrupted") == 1
            assert "Traceback" not in output
        deadline = time.monotonic() + 20
        while alive(root) and number == signal.SIGKILL and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not alive(root)
        assert " 0 failed" in run_module("scripts.status", f"results.root={root}").stdout
        since = newest(root)
    done = run_module(*sweep)
    assert done.returncode == 0, done.stderr
    assert same(root, whole)
    assert not left_in(root)
    assert not list(root.rglob("*.pt"))
    assert (root / "tables" / "single-sasrec-toy" / "metrics.md").exists()
    assert "another process" not in done.stderr
    again = run_module(*sweep)
    assert again.returncode == 0
    assert again.stderr == ""


@pytest.mark.slow
def test_kills_at_random_moments_change_no_record(run_module):
    done = run_module("benchmarks.torture", "3", fresh=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines())
    assert int(counts["kills"]) >= 3
    assert int(counts["records"]) >= 1
    assert counts["differences"] == counts["leftovers"] == "0"


@pytest.mark.slow
def test_a_sweeps_mistake_is_told_once(run_module, toy, tmp_path):
    for override, message in (
        ("epoch=3", "Could not override 'epoch'"),
        ("optimizer.lr=[", "quote a value"),
        ("seed=-1", "seed must be an integer >= 0"),
        (f"results.root={toy}/below", "cannot be written"),
    ):
        where = words(toy, tmp_path / "r", "optimizer=lion,simba", override)
        done = run_module("scripts.sweep", "--jobs", "2", *where)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr


def test_rerun_takes_its_training_along(run_module, toy, tmp_path):
    assert run_module("scripts.train", *words(toy, tmp_path)).returncode == 0
    (name,) = records(tmp_path)
    # A fork may print after the stub that stands for it has ended.
    process = start("scripts.rerun", str(tmp_path / name))
    while len(alive(toy)) < 1:  # the training that it starts names the data
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert output.splitlines()[-1] == "interrupted", output
    assert not alive(toy)


def test_a_fork_can_be_stopped_while_it_starts():
    def printed() -> str:
        return subprocess.check_output([python(), "-c", "print(1)"], text=True, timeout=60)

    assert printed() == "1\n"
    for step in range(40):
        with subprocess.Popen([python(), "-c", "import time; time.sleep(60)"]) as process:
            time.sleep(step / 400)
            process.terminate()
            assert process.wait(timeout=30) == -signal.SIGTERM
    assert printed() == "1\n"


@pytest.fixture
def trained(toy, monkeypatch):
    """scripts.train in this process; with ``stop``, Ctrl-C comes in that epoch."""
    epoch_of = Training.train_epoch

    def run(root: Path, stop: int | None = None) -> int:
        def train_epoch(self, epoch):
            if epoch == stop:
                os.kill(os.getpid(), signal.SIGINT)
            return epoch_of(self, epoch)

        monkeypatch.setattr(Training, "train_epoch", train_epoch)
        small = [*SMALL, "epochs=4", "optimizer=simba_eq1", "diagnose_every=2"]
        where = ["data=file", f"data.path={toy}", f"results.root={root}"]
        monkeypatch.setattr(sys, "argv", ["train", *where, *small])
        return main()

    monkeypatch.chdir(REPOSITORY)
    return run


def killed_while_writing(path: Path) -> None:
    """A real kill -9 after the new content is on the disk and before it is renamed."""
    child = os.fork()
    if child == 0:
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        write_atomically(path, b"new")
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def test_a_kill_in_the_middle_of_a_save_keeps_the_old_file_and_leaves_nothing(trained, tmp_path):
    assert trained(tmp_path, stop=4) == 130
    (checkpoint,) = tmp_path.rglob("*.pt")
    record = tmp_path / "runs" / "toy" / "simba_eq1" / f"{checkpoint.stem}.json"
    before = checkpoint.read_bytes()
    for path in (checkpoint, record):
        killed_while_writing(path)
        assert [p.read_bytes() for p in path.parent.glob(".*")] == [b"new"]
    assert checkpoint.read_bytes() == before
    assert not record.exists()
    assert trained(tmp_path) == 0
    assert record.exists()
    assert not left_in(tmp_path)


def foreign() -> bytes:
    file = io.BytesIO()
    torch.save({"model": torch.zeros(3)}, file)
    return file.getvalue()


def flipped(content: bytes) -> list[bytes]:
    """30 copies with one bit flipped."""
    copies = []
    for bit in np.random.default_rng(0).integers(8 * len(content), size=30):
        copy = bytearray(content)
        copy[bit // 8] ^= 1 << (bit % 8)
        copies.append(bytes(copy))
    return copies


def damages(content: bytes) -> list[bytes]:
    """A copy for each kind of damage."""
    cut = [content[: len(content) // part] for part in (2, 100)]
    added = [content[:-1], content + b"\0"]
    return [flipped(content)[0], *cut, b"", *added, foreign(), os.urandom(1000)]


@pytest.mark.slow
def test_a_damaged_checkpoint_is_one_line_and_never_wrong_figures(trained, tmp_path, capsys):
    assert trained(tmp_path / "whole") == 0
    assert trained(tmp_path / "stopped", stop=4) == 130
    (checkpoint,) = (tmp_path / "stopped").rglob("*.pt")
    content = checkpoint.read_bytes()
    damage = "damaged or of another format; the run"
    capsys.readouterr()
    for damaged in flipped(content):
        checkpoint.write_bytes(damaged)
        assert (
            load_or_none(checkpoint, torch.device("cpu")) is None
        )  # as if there was no checkpoint
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"{checkpoint}: {damage}")
    for damaged in [*damages(content), content]:
        checkpoint.write_bytes(damaged)
        assert trained(tmp_path / "stopped") == 0
        first, second = capsys.readouterr().err.splitlines()
        expected = "resuming after epoch 3" if damaged == content else damage
        assert first.startswith(f"{checkpoint}: {expected}")
        assert "HR@10" in second
        assert same(tmp_path / "stopped", tmp_path / "whole")
        assert not checkpoint.exists()
        for record in records(tmp_path / "stopped"):
            (tmp_path / "stopped" / record).unlink()


ODD = """
seed=-1 seed=1.5 seed=true seed=x seed=99999999999999999999999 seed=9223372036854775808 seed='
~seed ~epochs ~results ~results.root ~optimizer ~data ~model ~tracker ~tracker.mode ~ks ~nothing
+x=1 +seed=1 seed a=b=c = optimizer.lr=[ optimizer.lr=${ optimizer.lr=1e400 optimizer.lr=nan
optimizer.lr=[1,2] optimizer.lr=x optimizer.betas=3 optimizer.betas=[] optimizer.betas=null
optimizer={a:1} optimizer=null model=null data=null tracker=3 hydra=3 results=3 study=3
model.hidden=0 model.hidden=-3 model.hidden=99999999999999 model.heads=0 model.blocks=-1
model.eps=nan batch_size=99999999999999999999 negatives=99999999999 ks=[] ks=10 ks=abc
ks=[10,99999999999999999999] results.root= max_grad_norm=inf patience=nan joint=maybe device=
experiment=nothing data.k_core=-1 data.k_core=x data.path=null data.path=[1] data.user_column=3
model._target_=os.system optimizer._target_=nothing.x optimizer._partial_=false
~model._target_ ~optimizer._target_ ~optimizer.lr ~optimizer.fused ~model.hidden
model.maxlen=1 negatives=9223372036854775807 negatives=4611686018427387904 results.name=
hydra.run.dir=/proc/x seed=${x} seed=${oc.env:NOPE_NOT_SET} results.root=/dev/null/below
""".split()  # noqa: SIM905


@pytest.mark.parametrize("override", ODD)
def test_an_odd_override_is_one_line_and_exit_code_2(toy, tmp_path, monkeypatch, capsys, override):
    where = ["data=file", f"data.path={toy}", f"results.root={tmp_path / 'r'}"]
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, "argv", ["train", *where, *SMALL, override])
    code = main()
    output = capsys.readouterr().err
    assert code == 2, output
    assert output.startswith("error: ")
    assert output.count("\n") == 1, output
    assert not records(tmp_path)


@pytest.mark.slow
def test_text_that_hydra_cannot_parse_comes_with_a_hint(run_module):
    for override in ("seed='", "optimizer.lr=[", "data.path=a b(c"):
        done = run_module("scripts.train", override)
        assert done.returncode == 2
        assert "quote a value with special characters" in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_full_disk_is_said_of_a_sweeps_own_file_too(train, tmp_path):
    folder = tmp_path / "results" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "multirun.yaml").symlink_to("/dev/full")
    done = train("-m", "seed=0,1")
    assert done.returncode == 2
    assert "cannot be written: the disk is full; results.root=DIR" in done.stderr
    assert done.stderr.count("\n") == 1


EVIL = [
    "results.root=$(touch made)",
    "results.root=$(shell touch made)",
    "results.root=`touch made`",
    "results.root=x;touch made",
    "results.root='x' data.root=$(touch made) data.root='; touch made; '",
    'results.root="x" | touch made',
    "x & touch made",
]


@pytest.mark.parametrize("target", ["reproduce", "paper", "tables", "figures", "status"])
@pytest.mark.parametrize("text", EVIL)
def test_make_runs_nothing_that_args_holds(tmp_path, target, text):
    """The real Makefile; its python writes down what it is called with."""
    (tmp_path / "Makefile").write_text((REPOSITORY / "Makefile").read_text())
    for name in ("pyproject.toml", "requirements.lock"):
        (tmp_path / name).touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done >> called\n')
    python.chmod(0o755)
    (tmp_path / ".venv" / "study").touch()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    for given in ([f"ARGS={text}"], []):
        done = subprocess.run(
            ["make", target, *given],
            cwd=tmp_path,
            env=environment | ({} if given else {"ARGS": text}),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert not (tmp_path / "made").exists()
        called = (tmp_path / "called").read_text().splitlines()
        if target in ("reproduce", "paper"):
            assert called[called.index("--args") + 1] == text


def test_make_splits_args_as_a_shell_does(tmp_path):
    """The real Makefile; its status prints its arguments."""
    (tmp_path / "Makefile").write_text((REPOSITORY / "Makefile").read_text())
    for path in ("pyproject.toml", "requirements.lock", ".venv/study", "scripts/__init__.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "scripts" / "status.py").write_text("import sys\nprint(sys.argv[1:])\n")
    (tmp_path / ".venv" / "bin").mkdir()
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)

    def status(text: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "status", f"ARGS={text}"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert "'name=a b', '$(x)']" in status("'name=a b' $(x)").stdout
    unclosed = status("'a")
    assert "error: ARGS: No closing quotation" in unclosed.stderr
    assert "Traceback" not in unclosed.stderr


@pytest.mark.parametrize("target", ["reproduce", "paper"])
def test_make_hands_its_signal_on_to_the_sweep(tmp_path, target):
    """The real Makefile; its python is a sleep in the sweep's place."""
    (tmp_path / "Makefile").write_text((REPOSITORY / "Makefile").read_text())
    for name in ("pyproject.toml", "requirements.lock"):
        (tmp_path / name).touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    sweep = f"*scripts.sweep*) echo $$ > {tmp_path}/started; exec sleep 60"
    python.write_text(f'#!/bin/sh\ncase "$*" in {sweep};; esac\n')
    python.chmod(0o755)
    (tmp_path / ".venv" / "study").touch()
    process = subprocess.Popen(["make", target], cwd=tmp_path, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() or not (tmp_path / "started").read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pid = int((tmp_path / "started").read_text())
    process.terminate()
    assert process.wait(timeout=30) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_sweep_takes_overrides_before_and_after_its_options(run_module, tmp_path):
    """In the order of the Makefile's recipe."""
    root = f"results.root={tmp_path}"
    done = run_module(
        "scripts.sweep", "--jobs", "1", root, "--args", "epochs=0", "experiment=short"
    )
    assert done.returncode == 2
    assert "epochs must be an integer >= 1, got 0" in done.stderr
    assert "usage" not in done.stderr
