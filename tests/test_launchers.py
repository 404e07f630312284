"""Launchers whose workers are killed in mid-run; locks of file systems without flock."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.records.run_files import RunFiles, find_runs
from scripts.records.state import state_of
from tests.conftest import REPOSITORY, write_toy
from tests.forked import python
from tests.test_stopping import left_in, same, start, wait_for_checkpoint, words

PATIENCE = 300  # seconds for a machine that has much else to do


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The record of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    command = ["scripts.train", *words(write_toy(folder / "toy.txt"), folder)]
    process = start(*command, program=python())
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    return folder


def running(root: Path, process: subprocess.Popen[str]) -> tuple[RunFiles, int]:
    """A run with a checkpoint, and the process that trains it, from the run's own status."""
    wait_for_checkpoint(root, process, 0.0)
    files = next(files for files in find_runs(root) if state_of(files).phase == "running")
    return files, json.loads(files.status.read_text())["pid"]


def complete(root: Path, whole: Path) -> bool:
    return same(root, whole) and not left_in(root) and not list(root.rglob("checkpoints/toy/*/*"))


@pytest.mark.slow
def test_a_killed_worker_of_joblib_is_one_line_and_its_run_goes_on(
    run_module, toy, tmp_path, whole
):
    root = tmp_path / "killed"
    sweep = ["-m", "launcher=joblib", "hydra.launcher.n_jobs=2", *words(toy, root)]
    process = start("scripts.train", *sweep)
    _, worker = running(root, process)
    os.kill(worker, signal.SIGKILL)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, output
    assert "error: joblib: A worker process" in output
    assert "; the same command trains what is missing\n" in output
    assert "Traceback" not in output
    again = run_module("scripts.train", *sweep, fresh=True)
    assert again.returncode == 0, again.stderr
    assert "resuming after epoch" in again.stderr
    assert complete(root, whole)


@pytest.mark.slow
def test_submitit_requeues_a_job_and_its_run_goes_on(toy, tmp_path, whole):
    """USR2 is what Slurm sends before a job's time is over."""
    root, jobs = tmp_path / "requeued", tmp_path / "jobs"
    launcher = ["hydra/launcher=submitit_local", f"hydra.launcher.submitit_folder={jobs}"]
    process = start("scripts.train", "-m", *launcher, *words(toy, root))
    files, worker = running(root, process)
    os.kill(worker, signal.SIGUSR2)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    logs = "".join(path.read_text() for path in jobs.rglob("*_log.*"))
    assert "Requeued job" in logs
    assert f"{files.checkpoint}: resuming after epoch" in logs
    assert complete(root, whole)


CLUSTER = """
import sys
from ray.cluster_utils import Cluster
settings = {"num_cpus": 1, "object_store_memory": 80_000_000}
cluster = Cluster(initialize_head=True, head_node_args=settings | {"include_dashboard": False})
cluster.add_node(**settings)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def two_nodes(tmp_path):
    """The address of a cluster of two nodes, which start in a folder of their own."""
    pytest.importorskip("hydra_plugins.hydra_ray_launcher.ray_launcher")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-c", CLUSTER]
    with subprocess.Popen(command, cwd=tmp_path, text=True, **pipes) as cluster:
        yield cluster.stdout.readline().strip()
        cluster.communicate()


@pytest.mark.slow
def test_ray_restarts_a_killed_worker_and_its_run_goes_on(toy, tmp_path, whole, two_nodes):
    root = Path(os.path.relpath(tmp_path / "killed", REPOSITORY))
    launcher = ["launcher=ray", f"hydra.launcher.ray.init.address={two_nodes}"]
    process = start("scripts.train", "-m", *launcher, *words(toy, root))
    files, worker = running(REPOSITORY / root, process)
    os.kill(worker, signal.SIGKILL)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    assert f"{files.name}.pt: resuming after epoch" in output
    assert complete(REPOSITORY / root, whole)


HOLD = """
import sys, time
from pathlib import Path
from scripts.records.files import locked
with locked(Path(sys.argv[1])) as held:
    print(held, flush=True)
    time.sleep(60 * held * (len(sys.argv) > 2))
"""
NO_FLOCK = """
import errno, fcntl
def flock(descriptor, operation):
    raise OSError(errno.{error}, "no flock")
fcntl.flock = flock
"""


@pytest.mark.parametrize(
    ("error", "environment"), [("ENOSYS", {}), ("ENOLCK", {"SIMBA_LOCKS": "soft"})]
)
def test_locks_do_without_flock(tmp_path, error, environment):
    (tmp_path / "sitecustomize.py").write_text(NO_FLOCK.format(error=error))
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"} | environment
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run.lock")]
    quick = {"env": environment, "capture_output": True, "text": True}
    pipe = {"env": environment, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "hold"], **pipe) as holder:
        assert holder.stdout.readline() == "True\n"
        assert subprocess.run(command, **quick).stdout == "False\n"
        holder.kill()
    for _ in range(2):  # the lock of the killed process, then one that was released
        done = subprocess.run(command, **quick)
        assert (done.stdout, done.stderr) == ("True\n", "")
    assert not (tmp_path / "run.lock").exists()


@pytest.mark.slow
def test_a_file_system_that_refuses_locks_is_one_line(run_module, toy, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NO_FLOCK.format(error="ENOLCK"))
    run = words(toy, tmp_path / "r")
    done = run_module("scripts.train", *run, PYTHONPATH=f"{tmp_path}:{REPOSITORY}", fresh=True)
    assert done.returncode == 2
    assert done.stderr.endswith(
        "no locks in this folder (no flock); set SIMBA_LOCKS=soft for all processes\n"
    )
    assert done.stderr.count("\n") == 1
