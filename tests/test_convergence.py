"""On other tasks than SASRec, every variant beats a model that predicts the class frequencies."""

import json
import struct
import subprocess
import sys

import pytest
import torch

import simba
from benchmarks.convergence import OPTIMIZERS, POINTS, losses, steps_to, table, train
from benchmarks.mnist import read_idx
from benchmarks.optim import ours
from benchmarks.report import markdown
from benchmarks.tasks import TASKS
from tests.conftest import REPOSITORY

COMMITTED = json.loads((REPOSITORY / "results/benchmarks/convergence.json").read_text())["lines"]
SETTINGS = {
    (line["task"], line["optimizer"]): (line["lr"], line["weight_decay"]) for line in COMMITTED
}
OURS = [
    name
    for name, (make, *_) in OPTIMIZERS.items()
    if getattr(make, "func", make) in vars(simba).values()
]
STEPS = 100


# With all variants, characters takes half a minute, digits three seconds.
@pytest.fixture(
    scope="module", params=["digits", pytest.param("characters", marks=pytest.mark.slow)]
)
def task(request):
    return request.param, TASKS[request.param]()


@pytest.mark.parametrize("optimizer", OURS)
def test_every_variant_beats_the_floor(task, optimizer):
    name, data = task
    lr, decay = SETTINGS[name, optimizer]
    model = train(data, OPTIMIZERS[optimizer][0], lr, decay, seed=0, steps=STEPS)
    assert losses(data, model)["test/loss"] < data.floor - 0.1


def test_all_variants_are_tried_and_the_committed_table_is_that_of_the_committed_results():
    assert len(OURS) == 9
    committed = (REPOSITORY / "results/benchmarks/convergence.md").read_text()
    assert committed.startswith(markdown(table(COMMITTED)))


@pytest.mark.parametrize("name", ours())
def test_every_optimizer_whose_step_is_timed_takes_one(name):
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    optimizer = ours()[name]([p])
    for _ in range(2):  # Simba + (c = m) rests in the first
        optimizer.step()
    assert (p != 1).any()


@pytest.mark.parametrize("name", ["convergence", "memory", "optim"])
def test_a_missing_extra_is_named(name):
    hidden = "import sys; sys.modules['bitsandbytes'] = None; sys.argv = sys.argv[:1]"
    code = f"{hidden}; from benchmarks import {name}; {name}.main()"
    command = {"cwd": REPOSITORY, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", code], **command)
    assert done.returncode == 2
    message = f"benchmarks.{name}: error: bitsandbytes is not installed: run make .venv/bench"
    assert done.stderr.splitlines()[-1] == f"python -m {message}"


def test_steps_to_a_loss_are_those_of_the_mean_curve():
    curves = [[3.0] * 10 + [1.0] * 10, [3.0] * 12 + [2.0] * 8]
    line = {"steps": 40, "runs": [{"curve": curve} for curve in curves]}
    assert [steps_to(target, line) for target in (3.0, 2.0, 1.5, 1.4)] == ["2", "22", "26", "–"]


def test_a_curve_ends_with_the_last_loss_and_does_not_change_the_training(task):
    data, curve = task[1], []
    models = [train(data, simba.Lion, 1e-3, 0.1, 0, 40, c) for c in (None, curve)]
    assert all(map(torch.equal, *(model.parameters() for model in models)))
    assert len(curve) == POINTS
    assert curve[-1] == losses(data, models[0])["valid/loss"]


def test_an_idx_file_is_read():
    content = struct.pack(">4B3I", 0, 0, 8, 3, 2, 1, 2) + bytes([1, 2, 3, 255])
    assert read_idx(content).tolist() == [[[1, 2]], [[3, 255]]]
    assert read_idx(struct.pack(">4BI", 0, 0, 8, 1, 2) + b"\1\2").tolist() == [1, 2]
    for wrong in (b"", b"\0\0\x0d\1", b"PK\3\4"):
        with pytest.raises(ValueError, match="not an IDX array of bytes"):
            read_idx(wrong)
