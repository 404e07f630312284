"""Joint training gives the results of runs that are trained one by one."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from omegaconf import OmegaConf

from data.prepare import prepare
from models.ops import REFERENCE
from scripts.records.errors import UserError
from scripts.running.joint import JointTraining
from scripts.running.run import Run
from scripts.running.training import Training
from scripts.train import main
from tests.conftest import REPOSITORY, SMALL
from tests.forked import python
from tests.test_train import kept_weights

NOTE_VALUES = ("sign_sgd", "lion", "simba", "simba_m", "simba_eq1", "simba_c_eq_m", "adam")


def section(group: str, name: str) -> dict:
    path = REPOSITORY / "configs" / group / f"{name}.yaml"
    return OmegaConf.to_container(OmegaConf.load(path))


def configs(form: str, clip: float | None):
    model = section("model", form) | {"maxlen": 10, "hidden": 8}
    for name in NOTE_VALUES:
        for seed in (0, 1):
            yield {
                "seed": seed,
                "model": model,
                "optimizer": section("optimizer", name) | {"lr": 1e-3, "fused": False},
                "batch_size": 16,
                "negatives": 2,
                "epochs": 4,
                "eval_every": 2,
                "max_grad_norm": clip,
                "diagnose_every": None,
                "ks": [10],
                "mask_seen": "others",
                "corrupt": None,
            }


def training(config, data) -> Training:
    """A training in float64, so that rounding errors do not change the signs of gradients."""
    double = Training(config, data, torch.device("cpu"))
    double.model.double()
    double.model.backend = REFERENCE
    return double


@pytest.mark.parametrize(
    ("form", "clip"), [("sasrec", None), ("sasrec_prenorm", 0.1), ("fism", None)]
)
def test_a_joint_training_takes_the_steps_of_its_runs(toy, form, clip):
    data = prepare({"path": toy, "sha256": None, "k_core": 0}).sequences
    alone = [training(config, data) for config in configs(form, clip)]
    trainings = [training(config, data) for config in configs(form, clip)]
    losses = []
    for epoch in (1, 2):
        losses.append([run.train_epoch(epoch) for run in alone])
    joint = JointTraining(trainings)
    joint.template.double()
    assert joint.train_epoch(1) == pytest.approx(losses[0], rel=1e-9)
    for run in range(len(trainings)):  # as if each was loaded from a checkpoint
        joint.write_back(run)
    joint = JointTraining(trainings)
    joint.template.double()
    assert joint.train_epoch(2) == pytest.approx(losses[1], rel=1e-9)
    for run, (a, b) in enumerate(zip(alone, trainings, strict=True)):
        joint.write_back(run)
        others = b.model.named_parameters()
        for p, (name, q) in zip(a.model.parameters(), others, strict=True):
            pairs = {"parameter": (p.detach(), q.detach())}
            for key, value in a.optimizer.state[p].items():
                assert value.dtype == b.optimizer.state[q][key].dtype
                pairs[key] = value, b.optimizer.state[q][key]
            for x, y in pairs.values():
                if name.endswith(("qkv.bias", "qkv_bias")) and x.ndim:
                    # the loss does not depend on the keys' bias: its gradient is a rounding error
                    x, y = (torch.cat([z.chunk(3)[0], z.chunk(3)[2]]) for z in (x, y))
                torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-9)


def test_runs_that_differ_in_other_settings_are_not_trained_jointly(train, tmp_path):
    done = train("-m", "optimizer=lion,simba", "batch_size=16,32", "joint=true")
    assert done.returncode == 0, done.stderr
    assert len(records(tmp_path / "results" / "runs")) == 4


def records(root):
    by_path = {p.relative_to(root): json.loads(p.read_text()) for p in root.rglob("*.json")}
    assert all(record["status"] == "finished" for record in by_path.values())
    return by_path


@pytest.mark.slow
def test_a_joint_sweep_writes_the_records_of_a_sweep(train, tmp_path):
    sweep = ["-m", "optimizer=lion,simba", "seed=0,1", "epochs=4"]
    one_by_one, joint = tmp_path / "one", tmp_path / "joint"
    assert train(*sweep, f"results.root={one_by_one}").returncode == 0
    done = train(*sweep, f"results.root={joint}", "joint=true")
    assert done.returncode == 0, done.stderr
    ours, expected = records(joint / "runs"), records(one_by_one / "runs")
    assert ours.keys() == expected.keys()
    assert len(ours) == 4
    for path, record in ours.items():
        assert record["config_hash"] == expected[path]["config_hash"]
        for a, b in zip(record["history"], expected[path]["history"], strict=True):
            assert a["train/loss"] == pytest.approx(b["train/loss"], rel=1e-3)
    again = train(*sweep, f"results.root={joint}", "joint=true")
    assert again.stderr.count("skipped") == 4


@pytest.mark.slow
def test_a_killed_joint_sweep_resumes_to_the_same_bits(train, toy, tmp_path):
    sweep = ["-m", "optimizer=lion,simba_eq1", "epochs=40", "joint=true", "save_best=true"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(*sweep, f"results.root={whole}").returncode == 0
    command = [python(), "-m", "scripts.train", "-m", "data=file", f"data.path={toy}"]
    command += [*SMALL, *sweep[1:], f"results.root={killed}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(killed.rglob("*.pt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list((killed / "runs").rglob("*.json")), "it was not killed in time"
    resumed = train(*sweep, f"results.root={killed}")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after epoch" in resumed.stderr
    ours, expected = records(killed / "runs"), records(whole / "runs")
    for path, record in ours.items():
        assert record["history"] == expected[path]["history"]
        assert record["test_ranks"] == expected[path]["test_ranks"]
    assert len(kept_weights(killed)) == 2
    assert kept_weights(killed) == kept_weights(whole)


def test_an_optimizer_that_is_not_elementwise_trains_alone(train, tmp_path):
    """Adafactor's step depends on the shape of a tensor; jointly, all tensors are one."""
    (tmp_path / "optimizer").mkdir()
    content = "_target_: torch.optim.Adafactor\n_partial_: true\nlr: 0.01\n"
    (tmp_path / "optimizer" / "adafactor.yaml").write_text(content)
    histories = []
    for joint in ("true", "false"):
        root = tmp_path / joint
        where = [f"--config-dir={tmp_path}", f"results.root={root}", f"joint={joint}"]
        done = train("-m", "optimizer=adafactor", "seed=0,1", *where)
        assert done.returncode == 0, done.stderr
        histories.append([record["history"] for record in records(root / "runs").values()])
    assert histories[0] == histories[1]


def test_two_runs_of_one_name_are_an_error(train, tmp_path):
    done = train("-m", "joint=true", "results.name=mine", "seed=0,1")
    assert done.returncode == 2
    assert "mine.json: two runs of this command have this name" in done.stderr
    assert len(records(tmp_path / "results" / "runs")) == 1
    twice = train("-m", "joint=true", "seed=3,3", f"results.root={tmp_path / 'twice'}")
    assert twice.returncode == 0
    assert len(records(tmp_path / "twice" / "runs")) == 1


def test_what_one_run_cannot_write_does_not_end_the_others(toy, tmp_path, monkeypatch, capsys):
    save = Run.save

    def full_for_lion(self: Run) -> None:
        if self.initial["optimizer"] == "lion":
            raise UserError("the disk is full")
        save(self)

    monkeypatch.setattr(Run, "save", full_for_lion)
    monkeypatch.chdir(REPOSITORY)
    where = ["data=file", f"data.path={toy}", f"results.root={tmp_path}", *SMALL]
    sweep = ["optimizer=lion,simba", "batch_size=16,32", "joint=true"]
    monkeypatch.setattr(sys, "argv", ["train", "-m", *where, *sweep])
    assert main() == 2
    assert capsys.readouterr().err.count("error: the disk is full (log: ") == 2
    assert [path.parent.name for path in records(tmp_path / "runs")] == ["simba", "simba"]


def test_a_failed_run_does_not_stop_or_change_the_others(train, tmp_path):
    """The other optimizers keep their state, although no checkpoint was written before."""
    settings = ["epochs=4", "eval_every=4", "joint=true", "optimizer.momentum=0.99"]
    done = train("-m", "optimizer=sgd", "optimizer.lr=1e30,1e-3", *settings)
    assert done.returncode == 1
    assert "the loss is" in done.stderr
    assert "Traceback" not in done.stderr
    alone = tmp_path / "alone"
    one = train("-m", "optimizer=sgd", "optimizer.lr=1e-3", *settings, f"results.root={alone}")
    assert one.returncode == 0
    found = [
        json.loads(path.read_text())
        for root in (tmp_path / "results", alone)
        for path in sorted((root / "runs").rglob("*.json"))
    ]
    assert sorted(record["status"] for record in found) == ["failed", "finished", "finished"]
    ours, expected = (record["history"] for record in found if record["status"] == "finished")
    losses = [[entry["train/loss"] for entry in history] for history in (ours, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
