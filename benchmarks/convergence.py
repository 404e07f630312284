"""Every optimizer on two small tasks, each at its own best rate: ``make bench-optim``.

The same budget for all: one seed at each of the rates of a grid that is relative to AdamW's, the
best one by the loss on valid, then three seeds at that rate, reported on test. No decay.
"""

import argparse
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

import simba
from benchmarks.report import machine, markdown, write
from benchmarks.tasks import TASKS, Task, loss

ADAM_RATES = (3e-3, 1e-2, 3e-2, 1e-1)
RATES = {"adam": ADAM_RATES, "sgd": tuple(10 * r for r in ADAM_RATES)}
SIGN_RATES = tuple(r / 10 for r in ADAM_RATES)
STEPS = {"digits": 400, "characters": 300}
SEEDS = range(3)
OPTIMIZERS: dict[str, tuple[Callable[..., Any], tuple[float, ...]]] = {
    "SGD, momentum 0.9": (lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9), RATES["sgd"]),
    "Adam": (torch.optim.Adam, ADAM_RATES),
    "AdamW": (lambda p, lr: torch.optim.AdamW(p, lr, weight_decay=0.0), ADAM_RATES),
    "sign-SGD": (simba.SignSGD, SIGN_RATES),
    "Lion": (simba.Lion, SIGN_RATES),
    "Simba": (simba.Simba, SIGN_RATES),
    "Simba + m": (simba.SimbaM, SIGN_RATES),
    "Simba + (1)": (simba.SimbaEq1, SIGN_RATES),
    "Simba + (c = m)": (simba.SimbaCeqM, SIGN_RATES),
}


def train(task: Task, make: Callable[..., Any], lr: float, seed: int, steps: int) -> nn.Module:
    torch.manual_seed(seed)
    model = task.model()
    optimizer = make(model.parameters(), lr=lr)
    for _, (x, y) in zip(range(steps), task.batches(seed), strict=False):
        optimizer.zero_grad()
        loss(model, x, y).backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def losses(task: Task, model: nn.Module) -> dict[str, float]:
    x, y = task.test
    right = (model(x).argmax(-1) == y).float().mean().item()
    return {
        "valid/loss": loss(model, *task.valid).item(),
        "test/loss": loss(model, *task.test).item(),
        "test/accuracy": right,
    }


def measure(name: str, task: Task, steps: int, seeds: range) -> dict[str, Any]:
    make, rates = OPTIMIZERS[name]
    tried = {lr: losses(task, train(task, make, lr, 100, steps))["valid/loss"] for lr in rates}
    lr = min(tried, key=lambda rate: tried[rate] if math.isfinite(tried[rate]) else math.inf)
    runs = [losses(task, train(task, make, lr, seed, steps)) for seed in seeds]
    return {
        "optimizer": name,
        "lr": lr,
        "tried": {str(k): v for k, v in tried.items()},
        "runs": runs,
    }


def cell(runs: list[dict[str, float]], key: str) -> str:
    values = [run[key] for run in runs]
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convergence", description=__doc__)
    parser.parse_args()
    rows = [["task", "optimizer", "lr", "test loss", "test accuracy", "n"]]
    lines = []
    for name, make in TASKS.items():
        task = make()
        for optimizer in tqdm(OPTIMIZERS, desc=name):
            line = measure(optimizer, task, STEPS[name], SEEDS)
            lines.append({"task": name, "floor": task.floor, "steps": STEPS[name], **line})
            figures = [cell(line["runs"], key) for key in ("test/loss", "test/accuracy")]
            rows.append([name, optimizer, f"{line['lr']:g}", *figures, str(len(line["runs"]))])
        rows.append([name, "frequencies alone", "", f"{task.floor:.4f}", "", ""])
    notes = ["Mean ± sample std over seeds, at each optimizer's best of four rates by valid loss."]
    write("convergence", {"machine": machine(), "lines": lines}, markdown(rows), notes)


if __name__ == "__main__":
    main()
