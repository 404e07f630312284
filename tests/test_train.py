"""scripts.train as users run it, with real processes, files and kills."""

import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir

import simba
from scripts.records.errors import UserError
from scripts.records.files import write_atomically
from scripts.records.record import decode_ranks
from scripts.reporting.note import NOTE_VALUES
from scripts.running import checkpoint
from scripts.running.config import checked
from scripts.running.provenance import provenance
from scripts.running.training import build
from scripts.running.workers import out_of_memory_as_user_error
from tests.conftest import REPOSITORY, SMALL, write_toy
from tests.forked import python
from tests.mounts import needs_mounts, read_only, within

PUT_ASIDE = (
    "started",
    "train_seconds",
    "targets_per_second",
    "eval_seconds",
    "peak_rss_mib",
    "command",
)


def records(root: Path) -> dict[str, dict]:
    return {
        str(p.relative_to(root)): json.loads(p.read_text()) for p in root.rglob("runs/**/*.json")
    }


def results_of(record: dict) -> dict:
    return {key: value for key, value in record.items() if key not in PUT_ASIDE}


def test_two_processes_give_the_same_bits_and_another_seed_does_not(train, tmp_path):
    for name in ("a", "b", "c"):
        done = train(f"results.root={tmp_path / name}", f"seed={int(name == 'c')}")
        assert done.returncode == 0, done.stderr
    a, b, c = ([*records(tmp_path / name).values()] for name in "abc")
    assert results_of(a[0]) == results_of(b[0])
    assert a[0]["history"] != c[0]["history"]


def test_a_record_is_complete(train, tmp_path):
    assert train("optimizer=simba_m").returncode == 0
    ((path, record),) = records(tmp_path / "results").items()
    overrides = "batch_size=16-epochs=2-eval_every=1-model.hidden=16-model.maxlen=10"
    assert path == f"runs/toy/simba_m/single-sasrec-{overrides}-seed0.json"
    assert record["status"] == "finished"
    assert record["state_bytes_per_param"] == 6  # float32 m, int16 s
    assert record["data"]["users"] == 60
    assert len(record["history"]) == 2
    ranks = decode_ranks(record["test_ranks"])
    assert len(ranks) == 60
    assert record["test"]["HR@10"] == np.mean(ranks <= 10)
    best = max(record["history"], key=lambda entry: entry["valid/NDCG@10"])
    assert record["best_epoch"] == best["epoch"]
    assert record["valid"]["NDCG@10"] == best["valid/NDCG@10"]
    assert not list((tmp_path / "results" / "checkpoints").rglob("*.pt"))
    assert not list(REPOSITORY.glob("*.log"))  # nothing is written to the working folder
    assert {"commit", "dirty", "versions", "device", "config", "config_hash"} <= record.keys()


def test_a_records_command_gives_the_same_record(train, tmp_path):
    assert train("-m", "optimizer=simba_m", "optimizer.lr=1e-3,1e-2", "seed=3").returncode == 0
    path, record = sorted(records(tmp_path / "results").items())[0]
    command = record["command"].replace("python", python(), 1)
    again = tmp_path / "again"
    command += f" tracker.mode=disabled results.root={shlex.quote(str(again))}"
    done = subprocess.run(command, shell=True, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ((other_path, other),) = records(again).items()
    assert other_path == path
    assert results_of(other) == results_of(record)


def test_rerun_says_that_the_data_file_has_changed(train, run_module, tmp_path):
    file = write_toy(tmp_path / "mine.txt")
    assert train(f"data.path={file}").returncode == 0
    ((name, _),) = records(tmp_path / "results").items()
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:-1]))
    done = run_module("scripts.rerun", tmp_path / "results" / name)
    assert done.returncode == 1
    assert "config.data.sha256: " in done.stdout


def test_rerun_compares_a_record_with_a_new_run(train, run_module, tmp_path):
    assert train("optimizer=simba_m", "seed=3").returncode == 0
    ((name, record),) = records(tmp_path / "results").items()
    path = tmp_path / "results" / name
    before = path.read_bytes()
    same = run_module("scripts.rerun", path)
    assert same.returncode == 0, same.stderr
    assert f"{name}: bitwise identical" in same.stdout
    assert path.read_bytes() == before
    record["history"][1]["train/loss"] += 1e-9
    best, record["best_epoch"] = record["best_epoch"], 3 - record["best_epoch"]
    record["device"]["cpu"] = "another"
    path.write_text(json.dumps(record))
    other = run_module("scripts.rerun", path)
    assert other.returncode == 1
    assert f"best_epoch: {3 - best} -> {best}" in other.stdout
    assert "histories first differ in epoch 2: train/loss" in other.stdout
    assert "device.cpu: another -> " in other.stdout
    path.write_text("{}")
    broken = run_module("scripts.rerun", path)
    assert broken.returncode == 2
    assert "not a record" in broken.stderr


def test_a_finished_run_is_skipped_a_name_clash_refused_and_force_respected(train, tmp_path):
    assert train("results.name=mine").returncode == 0
    ((path, first),) = records(tmp_path / "results").items()
    again = train("results.name=mine")
    assert again.returncode == 0
    assert "skipped" in again.stderr
    assert records(tmp_path / "results")[path] == first
    clash = train("results.name=mine", "epochs=1")
    assert clash.returncode == 2
    assert "epochs: 2 -> 1" in clash.stderr
    assert records(tmp_path / "results")[path] == first
    assert train("results.name=mine", "epochs=1", "force=true").returncode == 0
    assert len(records(tmp_path / "results")[path]["history"]) == 1


def test_another_value_is_another_run(train, tmp_path):
    assert train().returncode == 0
    assert train("epochs=1").returncode == 0
    assert train("epochs=1", "diagnose_every=1").stderr.count("skipped") == 1  # no effect
    assert len(records(tmp_path / "results")) == 2


def test_a_sweep_names_what_it_sweeps_and_failed_runs_do_not_stop_it(train, tmp_path):
    done = train("-m", "optimizer=sgd,lion", "optimizer.lr=1e30,1e-3", "seed=0,1")
    assert done.returncode == 1, done.stderr
    found = records(tmp_path / "results")
    assert len(found) == 8
    status = {path: record["status"] for path, record in found.items()}
    failed = [path for path, s in status.items() if s == "failed"]
    assert {path.split("/")[2] for path in failed} == {"sgd", "lion"}
    assert all("lr=1e+30" in path for path in failed)
    assert len(failed) == 4
    assert "the loss is" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_killed_run_resumes_to_the_same_bits(train, toy, tmp_path):
    long = ["epochs=60", "diagnose_every=3", "save_best=true", "corrupt=noise-0.1"]
    settings = [*SMALL, "data=file", f"data.path={toy}", "optimizer=simba_eq1", *long]
    whole = train("optimizer=simba_eq1", *long, f"results.root={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    root = tmp_path / "killed"
    command = [python(), "-m", "scripts.train", *settings, f"results.root={root}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(root.rglob("*.pt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not records(root), "it was not killed in time"
    resumed = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    assert "resuming after epoch" in resumed.stderr
    ((_, ours),) = records(root).items()
    ((_, expected),) = records(tmp_path / "whole").items()
    assert results_of(ours) == results_of(expected)
    assert kept_weights(root) == kept_weights(tmp_path / "whole")


def kept_weights(root: Path) -> dict[str, bytes]:
    """The bytes of the weights that ``save_best`` has kept, by their path; there must be some."""
    found = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.best.pt")}
    assert found
    return found


@pytest.mark.slow
def test_a_full_disk_is_a_one_line_error_and_leaves_no_partial_file(toy, tmp_path):
    def shrink() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    command = [sys.executable, "-m", "scripts.train", *SMALL, "data=file", f"data.path={toy}"]
    done = subprocess.run(
        [*command, f"results.root={tmp_path / 'r'}"],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        preexec_fn=shrink,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    left = {p.suffix for p in (tmp_path / "r").rglob("*") if p.is_file()}
    assert left <= {".json", ".log", ".csv"}  # its status, its log, what is known of the users
    assert not records(tmp_path / "r")


@pytest.mark.slow
@needs_mounts
def test_a_checkout_that_cannot_be_written_without_a_home_gives_the_same_record(
    train, toy, tmp_path
):
    """Kernels are compiled, because there is no folder for a cache of them."""
    checkout = tmp_path / "checkout"
    for name in ("simba", "models", "data", "scripts", "configs"):
        nothing_compiled = shutil.ignore_patterns("__pycache__", "prepared", "raw")
        shutil.copytree(REPOSITORY / name, checkout / name, ignore=nothing_compiled)
    command = [*within(read_only(checkout), read_only(Path.home()), f"cd {checkout}")]
    command += [sys.executable, "-m", "scripts.train", "optimizer=simba_m", *SMALL, "data=file"]
    skipped = ("HOME", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "NUMBA_CACHE_DIR")
    environment = {k: v for k, v in os.environ.items() if k not in skipped}
    done = subprocess.run(
        [*command, f"data.path={toy}", f"results.root={tmp_path / 'read-only'}"],
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not list(checkout.rglob("__pycache__"))
    assert train("optimizer=simba_m").returncode == 0
    ((_, ours),) = records(tmp_path / "read-only").items()
    ((_, expected),) = records(tmp_path / "results").items()
    own = ("commit", "dirty")  # the copy holds no repository
    assert {k: v for k, v in results_of(ours).items() if k not in own} == {
        k: v for k, v in results_of(expected).items() if k not in own
    }


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("torch.optim.LBFGS", "missing 1 required positional argument: 'closure'"),
        ("torch.optim.SparseAdam", "does not support dense gradients"),
    ],
)
def test_an_optimizer_that_cannot_step_here_is_one_line(train, tmp_path, target, message):
    (tmp_path / "optimizer").mkdir()
    content = f"_target_: {target}\n_partial_: true\nlr: 0.1\n"
    (tmp_path / "optimizer" / "mine.yaml").write_text(content)
    done = train(f"--config-dir={tmp_path}", "optimizer=mine")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_the_checkpoint_of_another_config_is_not_lost_without_a_word(train, tmp_path):
    kept = tmp_path / "results" / "checkpoints" / "toy" / "lion" / "x.pt"
    checkpoint.save(kept, {"hash": "of another config"})
    done = train("results.name=x")
    assert done.returncode == 2
    assert "the checkpoint of a run of another config; force=true replaces it" in done.stderr
    assert kept.exists()
    assert train("results.name=x", "force=true").returncode == 0
    assert not kept.exists()


def test_configs_of_a_search_path_are_in_the_records_command(train, tmp_path):
    (tmp_path / "optimizer").mkdir()
    lion = (REPOSITORY / "configs" / "optimizer" / "lion.yaml").read_text()
    (tmp_path / "optimizer" / "mine.yaml").write_text(lion)
    assert train(f"hydra.searchpath=[file://{tmp_path}]", "optimizer=mine").returncode == 0
    (record,) = records(tmp_path / "results").values()
    assert f"hydra.searchpath=[file://{tmp_path}]" in record["command"]


def test_provenance_does_not_write_to_the_checkout(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "file").write_text("content")
    subprocess.run(["git", "add", "file"], cwd=tmp_path, check=True)
    os.utime(tmp_path / "file", (0, 0))  # git status would refresh the index
    monkeypatch.setattr("scripts.running.provenance.REPOSITORY", tmp_path)
    before = (tmp_path / ".git" / "index").read_bytes()
    assert provenance.__wrapped__(torch.device("cpu"))["dirty"] is True
    assert (tmp_path / ".git" / "index").read_bytes() == before


def test_missing_memory_is_one_line():
    message = r"^out of memory: .*DefaultCPUAllocator.*; lower batch_size"
    with pytest.raises(UserError, match=message), out_of_memory_as_user_error():
        torch.empty(2**60)
    with pytest.raises(RuntimeError, match="another"), out_of_memory_as_user_error():
        raise RuntimeError("another")


def test_an_interrupt_just_after_a_file_was_written_is_an_interrupt(tmp_path, monkeypatch):
    replace = os.replace

    def interrupted(*paths: str) -> None:
        replace(*paths)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", b"whole")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs=abc", "epochs"),
        ("epochs=0", "epochs must be an integer >= 1, got 0"),
        ("seed=-1", "seed must be"),
        ("ks=10", "ks: must be a list: ks=[A,B]"),
        (
            "optimizer.lr=abc",
            "optimizer.lr must be a number, true, false, null, or a list of these",
        ),
        ("optimizer.lr=-1", "lr must be a finite number >= 0, got -1"),
        ("optimizer=nonsense", "nonsense"),
        ("+optimizer.momentum=0.9", "momentum"),
        ("model.heads=3", "model.heads must be a divisor"),
        ("device=tpu", "device must be one of"),
        ("corrupt=flip-2", "the strength of flip must be from 0 to 1"),
        ("tracker.mode=loud", "tracker.mode must be one of"),
        ("ks=[1,5]", "ks must be"),
        ("epoch=3", "epoch"),
    ],
)
def test_a_wrong_setting_is_a_one_line_error(train, tmp_path, override, message):
    done = train(override)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not records(tmp_path / "results")


def test_another_project_called_simba_is_a_one_line_error(train, tmp_path):
    other = tmp_path / "other" / "simba"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    path = f"{other.parent}{os.pathsep}{REPOSITORY}"
    done = train(PYTHONPATH=path, PYTHONSAFEPATH="1", fresh=True)
    assert done.returncode == 2
    assert f"`import simba` gives {other}/__init__.py, not {REPOSITORY}/simba" in done.stderr
    assert "pip uninstall simba" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_patience_stops_early(train, tmp_path):
    done = train("epochs=50", "patience=2", "optimizer.lr=0", "optimizer.weight_decay=0")
    assert done.returncode == 0, done.stderr
    ((_, record),) = records(tmp_path / "results").items()
    assert record["best_epoch"] == 1
    assert len(record["history"]) == 3


def test_both_models_and_a_clipped_gradient(train, tmp_path):
    done = train("model=sasrec_prenorm", "max_grad_norm=1.0", "negatives=3", "optimizer=adam")
    assert done.returncode == 0, done.stderr
    ((path, _),) = records(tmp_path / "results").items()
    assert "sasrec_prenorm" in path


def test_every_variant_has_a_yaml_file_and_every_yaml_file_a_variant():
    """A new variant needs functions, a class and a YAML file; this test fails without one."""
    targets = {}
    for path in (REPOSITORY / "configs" / "optimizer").glob("*.yaml"):
        target = yaml.safe_load(path.read_text())["_target_"]
        if target.startswith("simba."):
            targets[path.stem] = target.removeprefix("simba.")
    classes = {name for name in simba.__all__ if name != "SignOptimizer"}
    assert set(targets.values()) == classes
    for name in classes:
        for part in getattr(simba, name).variant.functions:
            where = part.function.__module__
            assert where == "simba.directions", f"{name}: {part.function.__name__} is in {where}"
    assert set(NOTE_VALUES) <= set(targets)


@pytest.mark.parametrize(
    "name", sorted(p.stem for p in (REPOSITORY / "configs/experiment").glob("*.yaml"))
)
def test_every_experiment_composes_for_every_optimizer_of_its_sweep(name):
    with initialize_config_dir(str(REPOSITORY / "configs"), version_base="1.3"):
        whole = compose("train", [f"experiment={name}"], return_hydra_config=True)
        swept = whole.hydra.sweeper.params.get("optimizer", whole.hydra.runtime.choices.optimizer)
        for optimizer in swept.split(","):
            config = checked(compose("train", [f"experiment={name}", f"optimizer={optimizer}"]))
            build(config["optimizer"], "optimizer")([torch.nn.Parameter(torch.zeros(1))])
            assert config["epochs"] > 1
