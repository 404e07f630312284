"""Sweeps: names, launchers, sweepers and exit codes, in real processes."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from tests import slurm
from tests.conftest import REPOSITORY, SMALL

LAUNCHERS = {
    "local": [],
    "joblib": ["hydra.launcher.n_jobs=2"],
    "slurm": ["hydra.launcher.submitit_folder={tmp}/jobs", "hydra.launcher.partition=short"],
}


@pytest.fixture
def launch(train, tmp_path):
    """A function that runs a sweep with the preset of a launcher."""
    slurm.install(tmp_path / "slurm")
    path = f"{tmp_path / 'slurm'}:{os.environ['PATH']}"

    def run(launcher, *arguments):
        flags = [flag.format(tmp=tmp_path) for flag in LAUNCHERS[launcher]]
        return train(
            "-m", f"launcher={launcher}", *flags, *arguments, PATH=path, fresh=launcher == "joblib"
        )

    return run


def names(root: Path) -> set[str]:
    return {p.relative_to(root).as_posix() for p in (root / "runs").rglob("*.json")}


@pytest.mark.parametrize(
    "launcher", [pytest.param(o, marks=[pytest.mark.slow] * (o != "local")) for o in LAUNCHERS]
)
def test_every_launcher_gives_the_same_records_names_and_exit_codes(launch, tmp_path, launcher):
    done = launch(launcher, "optimizer=sgd", "optimizer.lr=1e30,1e-3", "seed=1")
    assert done.returncode == 1, done.stderr
    assert "optimizer.lr=1e+30-seed1.json: the loss is" in done.stderr
    assert "optimizer.lr=1e+30-seed1.log)" in done.stderr
    records = {p: json.loads(p.read_text()) for p in (tmp_path / "results/runs").rglob("*.json")}
    status = {r["config"]["optimizer"]["lr"]: r["status"] for r in records.values()}
    assert status == {1e30: "failed", 1e-3: "finished"}
    start = "single-sasrec-batch_size=16-epochs=2-eval_every=1-model.hidden=16-model.maxlen=10"
    assert {p.name for p in records} == {
        f"{start}-optimizer.lr={lr}-seed1.json" for lr in ("0.001", "1e+30")
    }
    assert not any("launcher=" in r["command"] for r in records.values())
    mistaken = launch(launcher, "optimizer=lion", "epochs=0,1")
    assert mistaken.returncode == 2
    assert "epochs must be an integer >= 1, got 0" in mistaken.stderr
    assert len(names(tmp_path / "results")) == 3  # the run with epochs=1 was trained
    if launcher == "slurm":
        asked = set((tmp_path / "slurm" / "batch").read_text().splitlines())
        wanted = {"cpus-per-task=1", "mem=4GB", "time=240", "requeue", "partition=short"}
        assert {f"#SBATCH --{flag}" for flag in wanted} <= asked
        assert "export OMP_NUM_THREADS=1" in asked


def test_joint_training_is_refused_if_each_run_has_its_own_process(launch, tmp_path):
    done = launch("slurm", "optimizer=lion,simba", "joint=true")
    assert done.returncode == 2
    assert "remove launcher=slurm" in done.stderr
    assert not names(tmp_path / "results")


def test_a_sweep_has_one_folder(run_module, tmp_path):
    roots = f"results.root={tmp_path / 'a'},{tmp_path / 'b'}"
    for command in ("scripts.sweep", "scripts.status"):
        done = run_module(command, roots, "optimizer=lion")
        assert done.returncode == 2
        assert done.stderr == "error: results.root: one folder is needed, got a list\n"


def test_processes_of_a_sweep_train_a_forced_run_once(train, tmp_path):
    assert train("seed=1").returncode == 0
    (record,) = (tmp_path / "results" / "runs").rglob("*.json")
    earlier = train("-m", "seed=1", "force=true", SIMBA_SWEEP_BEGAN=str(time.time()))
    assert earlier.returncode == 0
    trained = record.stat().st_mtime_ns
    again = train("-m", "seed=1", "force=true", SIMBA_SWEEP_BEGAN=str(trained / 1e9 - 60))
    assert again.returncode == 0
    assert record.stat().st_mtime_ns == trained


@pytest.mark.slow
def test_a_preset_names_the_extra_that_it_lacks(run_module, tmp_path):
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "__init__.py").touch()  # hides all plugins
    done = run_module(
        "scripts.train", "-m", "launcher=slurm", "seed=0,1", PYTHONPATH=str(tmp_path), fresh=True
    )
    assert done.returncode == 2
    extra = "hydra/launcher=submitit_slurm is not installed: pip install '.[slurm]'"
    assert done.stderr == f"error: {extra}\n"


def test_a_sweeper_gets_its_objective(train, tmp_path):
    """Optuna searches the best rate by validation NDCG@10."""
    done = train(
        *("-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1"),
        *("hydra.sweeper.direction=maximize", "optimizer.lr=interval(1e-4,1e-2)"),
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(p.read_text()) for p in (tmp_path / "results/runs").rglob("*.json")]
    assert len(records) == 3
    (path,) = (tmp_path / "results").rglob("optimization_results.yaml")
    best = max(record["valid"]["NDCG@10"] for record in records)
    assert f"best_value: {best}" in path.read_text()


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.betas=[0.9,0.99],[0.8,0.95]",
        "+data.licence='a, b','run (1), b'",
        "+data.licence='/x/y.csv',\"it's\"",
        "+data.licence='..','100%'",
        "+data.licence='a=b','{c: [d]}'",
    ],
)
def test_every_swept_value_gives_a_flat_name_that_reruns(train, run_module, tmp_path, override):
    done = train("-m", override)
    assert done.returncode == 0, done.stderr
    found = names(tmp_path / "results")
    assert len(found) == 2
    assert all(name.count("/") == 3 for name in found)
    paths = [str(tmp_path / "results" / name) for name in sorted(found)]
    again = run_module("scripts.rerun", *paths)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("bitwise identical") == 2


def test_a_sweep_over_files_gives_one_folder_per_file(train, toy, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text(toy.read_text())
    done = train("-m", f"data.path={toy},{other}")
    assert done.returncode == 0, done.stderr
    assert {name.split("/")[1] for name in names(tmp_path / "results")} == {"toy", "other"}


@pytest.mark.parametrize("name", ["../../out", "a/b", "..", "x%00y"])
def test_a_name_stays_inside_the_results(train, tmp_path, name):
    done = train(f"results.name='{name}'")
    assert done.returncode == 0, done.stderr
    (found,) = names(tmp_path / "results")
    assert found.startswith("runs/toy/lion/")
    assert found.count("/") == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer=sub/mine"], "optimizer=sub/mine: move the file to configs/optimizer, not a "),
        (["-m", "experiment=short,lr"], "an experiment sweeps over optimizer="),
        (["experiment=[short]"], "experiment=['short']: name one experiment, without brackets"),
    ],
)
def test_files_that_no_run_can_be_named_after_are_one_line(train, tmp_path, words, message):
    """A subfolder would be a part of the name; Hydra ignores the lists of several experiments."""
    own = tmp_path / "own" / "optimizer" / "sub"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("_target_: simba.SignSGD\n")
    done = train(*words, f"--config-dir={tmp_path / 'own'}")
    assert done.returncode == 2
    assert f"error: {message}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not names(tmp_path / "results")


def test_a_long_name_is_cut_and_stays_unique(train, tmp_path):
    words = [f"{'x' * 200}{i}" for i in range(2)]
    done = train("-m", f"+data.licence={','.join(words)}")
    assert done.returncode == 0, done.stderr
    assert len(names(tmp_path / "results")) == 2


def test_main_may_be_called_twice_in_a_process(toy, tmp_path, monkeypatch):
    from scripts.train import main

    small = [setting for setting in SMALL if not setting.startswith("epochs=")]
    words = ["data=file", f"data.path={toy}", f"results.root={tmp_path / 'r'}", *small]
    monkeypatch.chdir(REPOSITORY)
    for overrides, code in (
        (["epochs=1"], 0),
        (["epochs=0"], 2),
        (["-m", "epochs=1", "seed=1,2"], 0),
    ):
        monkeypatch.setattr(sys, "argv", ["train", *overrides, *words])
        assert main() == code
    assert len(names(tmp_path / "r")) == 3


@pytest.mark.slow
def test_a_users_sweeps_have_tables(train, run_module, tmp_path):
    """A user's sweeps with different decays, a swept rate, and a swept window."""
    root = f"results.root={tmp_path / 'results'}"
    for sweep in (
        ["optimizer=lion,adamw", "seed=0,1"],
        ["optimizer=lion,simba", "optimizer.lr=1e-4,3e-4", "seed=0,1"],
        ["experiment=short", "optimizer=simba", "optimizer.window_size=50,100"],
    ):
        done = train("-m", *sweep)
        assert done.returncode == 0, done.stderr
    for command in ("aggregate", "make_tables", "make_figures"):
        done = run_module(f"scripts.{command}", root)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    tables, figures = tmp_path / "results/tables", tmp_path / "results/figures"
    text = (tables / "single-sasrec-toy/metrics.md").read_text()
    assert text.count("| Lion ") == 2  # the default rate is 1e-4
    assert "AdamW" in text
    assert "3e-4" in text
    windows = (tables / "short-sasrec-toy/grid.md").read_text()
    assert "window_size 50" in windows
    assert (figures / "curves-single-sasrec-toy.png").exists()
    assert (figures / "grid-short-sasrec-toy.png").exists()
