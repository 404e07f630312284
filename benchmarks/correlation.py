"""What do votes keep of gradients? ``python -m benchmarks.correlation``: minutes, one core.

Lion trains SASRec in the setting of experiment ablation, for 100 epochs. Beside it, each kind of
vote gets the same gradients. Two squared correlations are measured for each tensor, 0 (nothing in
common) to 1 (equal but for a factor):

- of the vote with the gradient, in one step;
- of the memory with Lion's m. The memory is the moving sum ``b2 s + q`` of the votes; with error
  feedback, plus the error.

The correlation is ``(x . y)^2 / ((x . x) (y . y))`` over all coordinates of a tensor, a mean over
the steps of an epoch. Sums and errors are float32, so only the vote differs from Lion.
"""

from collections import defaultdict
from typing import Any

import pandas as pd
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from benchmarks.report import machine, markdown, parser_of, write
from data.prepare import CONFIGS, prepare
from scripts.running.config import checked
from scripts.running.training import Training
from simba.directions import average, nearest, nearest_with_error, sign_vote
from simba.scale import first_scale, scaled

EPOCHS = (1, 10, 100)
BETA2 = 0.99
# Levels and spacing of each kind of vote, as in experiment ladder; with error feedback or without.
KINDS: dict[str, tuple[int, float, bool]] = {
    "sign": (2, 1.0, False),
    "3 levels": (3, 1.25, False),
    "3 levels, EF": (3, 1.25, True),
    "7 levels": (7, 0.41667, False),
    "7 levels, EF": (7, 0.41667, True),
}
PARTS = {  # of SASRec's tensors, by a part of their names
    "item embeddings": ("item.",),
    "attention": ("qkv.weight", "out.weight"),
    "feed-forward": ("widen.weight", "narrow.weight"),
    "all others": ("",),
}
COLUMNS = [(of, kind) for of in ("vote", "memory") for kind in KINDS]
NOTES = [
    "Squared correlation of votes with gradients, and of their moving sums (memory) with Lion's m, "
    "while Lion trains SASRec on Beauty (seed 0). EF: with error feedback; the error is a part of "
    "the memory. Gradients are divided by the scale of their own step. The first table has means "
    f"over tensors, the second every tensor at epoch {max(EPOCHS)}."
]


class Follower:
    """The moving sum of one tensor's votes of one kind, and the error of its votes.

    Args:
        like: the parameter.
    """

    def __init__(self, kind: str, like: Tensor) -> None:
        self.levels, self.spacing, self.feeds_back = KINDS[kind]
        self.sum, self.error = torch.zeros_like(like), torch.zeros_like(like)

    def vote(self, g: Tensor, scale: Tensor) -> Tensor:
        """The vote for a gradient, which is added to the sum."""
        x = scaled(g, 1 / (self.spacing * scale))
        if self.levels == 2:
            q = sign_vote(g)
        elif self.feeds_back:
            q = nearest_with_error(x, self.error, 1.0, self.levels // 2)
            self.error += x - q
        else:
            q = nearest(x, self.levels // 2)
        self.sum.mul_(BETA2).add_(q)
        return q


class Correlations:
    """Takes the place of a training's diagnostics.

    Attributes:
        lines: one per tensor, epoch and kind of vote.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.parameters = dict(model.named_parameters())
        self.m = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.followers = {
            (name, kind): Follower(kind, p) for name, p in self.parameters.items() for kind in KINDS
        }
        self.lines: list[dict[str, Any]] = []

    def start_epoch(self, epoch: int) -> None:
        self.epoch, self.sums, self.steps = epoch, defaultdict[Any, float](float), 0

    @torch.no_grad()
    def before_step(self) -> None:
        self.steps += 1
        for name, p in self.parameters.items():
            assert p.grad is not None
            self.m[name] = average(self.m[name], p.grad, BETA2, 1 - BETA2)
            scale = first_scale(p.grad)
            for kind in KINDS:
                follower = self.followers[name, kind]
                vote = follower.vote(p.grad, scale)
                if self.epoch in EPOCHS:
                    self.sums[name, kind, "vote"] += squared_correlation(vote, p.grad)
                    # With feedback, the direction depends on the error, too.
                    memory = follower.sum + follower.error
                    self.sums[name, kind, "memory"] += squared_correlation(memory, self.m[name])

    def summary(self) -> dict[str, float]:
        for (name, kind, of), total in self.sums.items():
            line = {"tensor": name, "epoch": self.epoch, "votes": kind, "of": of}
            self.lines.append(line | {"value": total / self.steps})
        return {}


def squared_correlation(x: Tensor, y: Tensor) -> float:
    """0 if one of the two is 0 everywhere."""
    product, norms = float((x * y).sum()) ** 2, float((x * x).sum()) * float((y * y).sum())
    return product / norms if norms else 0.0


def measure() -> list[dict[str, Any]]:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        overrides = ["experiment=ablation", "optimizer=lion", f"epochs={max(EPOCHS)}"]
        config = checked(compose("train", overrides=[*overrides, f"eval_every={max(EPOCHS)}"]))
    training: Any = Training(config, prepare(config["data"]).sequences, torch.device("cpu"))
    training.diagnostics = Correlations(training.model)
    training.fit(save=lambda: None, log=lambda entry: None, description="correlation")
    return training.diagnostics.lines


def table(lines: list[dict[str, Any]]) -> str:
    """The means over each part's tensors at every epoch; then each tensor at the last epoch."""
    values = pd.DataFrame(lines)
    parts = pd.Categorical([*map(part_of, values["tensor"])], categories=list(PARTS), ordered=True)
    values = values.assign(tensors=parts)
    last = values[values["epoch"] == max(EPOCHS)]
    return f"{_means(values, ['tensors', 'epoch'])}\n{_means(last, ['tensor'])}"


def _means(values: pd.DataFrame, rows: list[str]) -> str:
    means = values.pivot_table("value", rows, ["of", "votes"], observed=True)[COLUMNS]
    lines = [[f"{value:.2f}" for value in line] for line in means.to_numpy()]
    labels = means.index.to_frame().astype(str).to_numpy()
    head = [*rows, *(f"{of}, {kind}" for of, kind in COLUMNS)]
    return markdown([head, *([*label, *line] for label, line in zip(labels, lines, strict=True))])


def part_of(tensor: str) -> str:
    return next(part for part, names in PARTS.items() if any(name in tensor for name in names))


def main() -> None:
    parser_of("correlation", __doc__).parse_args()
    torch.set_num_threads(1)
    lines = measure()
    write("correlation", {"machine": machine(), "lines": lines}, table(lines), NOTES)


if __name__ == "__main__":
    main()
