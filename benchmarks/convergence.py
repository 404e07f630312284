"""Train small tasks with every optimizer at its own best rate: ``make bench-optim``.

All optimizers of a task have the same budget. First, we train with some seeds (three, one for
``bytes``) at each of five rates without decay. At the rate with the lowest mean validation loss, we
train with the same seeds at each of three decays. Then we train with three other seeds at the best
rate and decay; their results on test are reported, and the first step at which their mean
validation loss is at most Lion's last. A rate or decay at which a seed diverges is never the best.

The default tasks take tens of minutes. MNIST (which is downloaded) and ``bytes``, a transformer of
1.3 million parameters, take hours with all optimizers. Earlier results of other tasks and
optimizers are kept:

  python -m benchmarks.convergence --tasks MNIST bytes --optimizers AdamW Lion
"""

import itertools
import math
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

import simba
from benchmarks.mnist import mnist
from benchmarks.report import check_extra, machine, markdown, parser_of, read_lines, save
from benchmarks.tasks import TASKS, Task, loss
from benchmarks.text import source_code

ADAM_RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
SGD_RATES = tuple(10 * r for r in ADAM_RATES)
SIGN_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
# A step shrinks a weight by lr * decay, so rates ten times smaller need decays ten times larger.
ADAM_DECAYS = (0.01, 0.1, 1.0)
SIGN_DECAYS = tuple(10 * d for d in ADAM_DECAYS)
SGD_DECAYS = tuple(d / 100 for d in ADAM_DECAYS)  # coupled decay: it is added to the gradient


class Plan(NamedTuple):
    """How a task is trained."""

    task: Callable[[], Task]
    steps: int
    tuning_seeds: range = range(100, 103)


PLANS = {
    "digits": Plan(TASKS["digits"], 400),
    "MNIST": Plan(mnist, 400),
    "characters": Plan(TASKS["characters"], 300),
    "bytes": Plan(source_code, 200, range(100, 101)),
}
SEEDS = range(3)
POINTS = 20  # of a curve: evaluations on validation, evenly spaced over the steps
STEPS_TO, NEVER = "steps to Lion's loss", "–"
NOTES = [
    "Mean ± sample std over n seeds, at the best rate and decay by validation loss.",
    f"{STEPS_TO}: the first step at which the mean validation loss is at most Lion's last; "
    f"evaluated at {POINTS} steps. Empty: this was not recorded.",
]


def bitsandbytes(name: str) -> Callable[..., Any]:
    """A function that makes an optimizer of bitsandbytes, which is imported only then."""

    def make(params: Any, **hyperparameters: Any) -> Any:
        return getattr(import_module("bitsandbytes").optim, name)(params, **hyperparameters)

    return make


TWO_BYTES = partial(simba.TernaryLionEF, **simba.presets.TWO_BYTES)
ONE_BYTE = partial(simba.TernaryLionEF, **simba.presets.ONE_BYTE)
OPTIMIZERS: dict[str, tuple[Callable[..., Any], tuple[float, ...], tuple[float, ...]]] = {
    "SGD, momentum 0.9": (partial(torch.optim.SGD, momentum=0.9), SGD_RATES, SGD_DECAYS),
    "Adam": (torch.optim.Adam, ADAM_RATES, SGD_DECAYS),
    "AdamW": (torch.optim.AdamW, ADAM_RATES, ADAM_DECAYS),
    "sign-SGD": (simba.SignSGD, SIGN_RATES, SIGN_DECAYS),
    "Lion": (simba.Lion, SIGN_RATES, SIGN_DECAYS),
    "Simba": (simba.Simba, SIGN_RATES, SIGN_DECAYS),
    "Simba + m": (simba.SimbaM, SIGN_RATES, SIGN_DECAYS),
    "Simba + (1)": (simba.SimbaEq1, SIGN_RATES, SIGN_DECAYS),
    "Simba + (c = m)": (simba.SimbaCeqM, SIGN_RATES, SIGN_DECAYS),
    "8-bit Lion, lasting": (partial(simba.Lion8bit, least=1), SIGN_RATES, SIGN_DECAYS),
    "Ternary Lion EF, two bytes, lasting": (TWO_BYTES, SIGN_RATES, SIGN_DECAYS),
    "Ternary Lion EF, one byte, fine": (ONE_BYTE, SIGN_RATES, SIGN_DECAYS),
    "bitsandbytes Lion, 8 bits": (bitsandbytes("Lion8bit"), SIGN_RATES, SIGN_DECAYS),
    "bitsandbytes AdamW, 8 bits": (bitsandbytes("AdamW8bit"), ADAM_RATES, ADAM_DECAYS),
}


def train(
    task: Task,
    make: Callable[..., Any],
    lr: float,
    decay: float,
    seed: int,
    steps: int,
    curve: list[float] | None = None,
) -> nn.Module:
    """Train a new model of a task and return it in evaluation mode.

    The list ``curve`` gets the validation loss after each of POINTS equal parts of the steps.
    """
    torch.manual_seed(seed)
    model = task.model()
    optimizer = make(model.parameters(), lr=lr, weight_decay=decay)
    for step, (x, y) in zip(range(1, steps + 1), task.batches(seed), strict=False):
        optimizer.zero_grad()
        loss(model, x, y).backward()
        optimizer.step()
        if curve is not None and step % (steps // POINTS) == 0:
            with torch.no_grad():
                curve.append(loss(model.eval(), *task.valid).item())
            model.train()
    return model.eval()


@torch.no_grad()
def losses(task: Task, model: nn.Module) -> dict[str, float]:
    """The validation and test losses, and the accuracy on test."""
    x, y = task.test
    accuracy = (model(x).argmax(-1) == y).float().mean().item()
    return {
        "valid/loss": loss(model, *task.valid).item(),
        "test/loss": loss(model, *task.test).item(),
        "test/accuracy": accuracy,
    }


def measure(name: str, task: Task, plan: Plan) -> dict[str, Any]:
    """Search the rate and decay of an optimizer, and train at the best ones."""
    make, rates, decays = OPTIMIZERS[name]

    def on_valid(lr: float, decay: float) -> float:
        trained = [train(task, make, lr, decay, seed, plan.steps) for seed in plan.tuning_seeds]
        value = float(np.mean([losses(task, model)["valid/loss"] for model in trained]))
        return value if math.isfinite(value) else math.inf

    tried = {(lr, 0.0): on_valid(lr, 0.0) for lr in rates}
    lr, _ = min(tried, key=lambda pair: tried[pair])
    tried |= {(lr, decay): on_valid(lr, decay) for decay in decays}
    lr, decay = min(tried, key=lambda pair: tried[pair])
    runs = []
    for seed in SEEDS:
        curve: list[float] = []
        model = train(task, make, lr, decay, seed, plan.steps, curve)
        runs.append(losses(task, model) | {"curve": curve})
    return {
        "optimizer": name,
        "lr": lr,
        "weight_decay": decay,
        "tried": [{"lr": a, "weight_decay": b, "valid/loss": v} for (a, b), v in tried.items()],
        "runs": runs,
    }


def steps_to(target: float, line: dict[str, Any]) -> str:
    """The first step of a line's curves at which their mean is at most ``target``."""
    curve = np.array([run["curve"] for run in line["runs"]], dtype=float).mean(axis=0)
    (reached,) = np.nonzero(curve <= target)
    return str((reached[0] + 1) * line["steps"] // POINTS) if len(reached) else NEVER


def cell(runs: list[dict[str, float]], key: str) -> str:
    test_losses = np.array([run["test/loss"] for run in runs], dtype=float)  # None, in JSON, is NaN
    if diverged := int((~np.isfinite(test_losses)).sum()):
        return f"{diverged} of {len(runs)} diverged"
    values = [run[key] for run in runs]
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def table(lines: list[dict[str, Any]]) -> list[list[str]]:
    rows = [["task", "optimizer", "lr", "decay", "test loss", "test accuracy", "n", STEPS_TO]]
    targets = {
        line["task"]: float(np.mean([run["valid/loss"] for run in line["runs"]]))
        for line in lines
        if line["optimizer"] == "Lion"
    }
    for line in lines:
        runs = line["runs"]
        setting = f"{line['lr']:g}", f"{line['weight_decay']:g}"
        figures = [cell(runs, key) for key in ("test/loss", "test/accuracy")]
        reached = steps_to(targets.get(line["task"], math.nan), line) if "curve" in runs[0] else ""
        rows.append([line["task"], line["optimizer"], *setting, *figures, str(len(runs)), reached])
    floors = {line["task"]: line["floor"] for line in lines}
    for task, floor in floors.items():
        rows.append([task, "frequencies alone", "", "", f"{floor:.4f}", "", "", ""])
    return rows


def main() -> None:
    parser = parser_of("convergence", __doc__)
    parser.add_argument(
        "--tasks",
        nargs="+",
        choices=PLANS,
        default=[*TASKS],
        metavar="TASK",
        help=f"of {', '.join(PLANS)} (default: {' '.join(TASKS)})",
    )
    parser.add_argument(
        "--optimizers",
        nargs="+",
        choices=OPTIMIZERS,
        default=[*OPTIMIZERS],
        metavar="OPTIMIZER",
        help=f"of {'; '.join(OPTIMIZERS)} (default: all)",
    )
    options = parser.parse_args()
    if any("bitsandbytes" in name for name in options.optimizers):
        check_extra(parser)
    about = machine()
    for name in options.tasks:
        plan = PLANS[name]
        task = plan.task()
        for optimizer in tqdm(options.optimizers, desc=name):
            line = {"task": name, "floor": task.floor, "steps": plan.steps, "machine": about}
            text = save_line(line | measure(optimizer, task, plan))
    print(text)


def save_line(line: dict[str, Any]) -> str:
    """Add a line to the results, in place of one of the same task and optimizer."""
    lines = {(old["task"], old["optimizer"]): old for old in read_lines("convergence")}
    lines[line["task"], line["optimizer"]] = line
    ordered = [lines[key] for key in itertools.product(PLANS, OPTIMIZERS) if key in lines]
    results = {"machine": line["machine"], "lines": ordered}
    return save("convergence", results, markdown(table(ordered)), NOTES)


if __name__ == "__main__":
    main()
