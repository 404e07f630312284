"""Diagnostics of an optimizer: statistics of its steps and memories, recorded while it trains.

They are recorded in every epoch that ``diagnose_every`` divides. A Lion with its own m, which gets
the same gradients, serves as the reference.

The first four are averages over coordinates; the first three of them are shares. They are taken
before each step and averaged over the steps of the epoch, for item embeddings (``items``) and
all other weights (``weights``):

==================  =====================================================================
agreement           the direction (-1, 0 or 1) is Lion's: both move alike, or both rest
memory              the coordinate moves, and would move the same way with -g instead of g
without_gradient    the coordinate moves although its gradient is zero
counter             mean abs(s)/w (variants with a counter; w is the bound of s)
==================  =====================================================================

The next statistics are for item embeddings only, per fifth of the items by popularity in training
(``1``: the rarest). They are averages over the steps of the epoch. Multiplied by lr,
``path`` and ``net`` are distances per step.

==================  =====================================================================
path                the share of coordinates that move
absent              the part of the path in steps in which the item is not in the batch
net                 the distance between a coordinate's values at the epoch's end and start
                    (which includes weight decay), divided by lr and the number of steps; 1
                    for a coordinate that moves in the same direction in every step
==================  =====================================================================

The last statistics are taken at the epoch's end. They are shares of those item coordinates whose
sum of gradients over the epoch is not zero. Two numbers contradict each other if their signs are
opposite.

==================  =====================================================================
astray_m            the reference Lion's m contradicts the sum of the gradients
astray_s            s contradicts the sum of the gradients (variants with a counter)
outvoted            the sum of the gradients' signs contradicts the sum of the gradients
lags                s contradicts the sum of the gradients' signs (variants with a counter)
==================  =====================================================================
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.contract import SequenceModel
from models.sasrec import PackedTransformer
from scripts.records.errors import UserError
from simba import directions
from simba.base import SignOptimizer

LION = {
    "b1": 0.9,
    "one_minus_b1": 1 - 0.9,
}  # the betas of Chen et al. 2023, as in configs/optimizer
BETA2 = 0.99
NUM_FIFTHS = 5


class Diagnostics:
    """Records the diagnostics of one optimizer and one model.

    Args:
        popularity: (num_items,), how often each item occurs among the training items.
        every: the interval between diagnosed epochs.

    Raises:
        UserError: the optimizer is not from simba, or the model is not from models.sasrec.
    """

    def __init__(
        self,
        model: SequenceModel,
        optimizer: torch.optim.Optimizer,
        popularity: np.ndarray,
        every: int,
    ) -> None:
        if not isinstance(optimizer, SignOptimizer):
            raise UserError(
                f"diagnose_every={every}: only simba's own optimizers can be diagnosed, not "
                f"{type(optimizer).__name__}; set diagnose_every=null"
            )
        if not isinstance(model, PackedTransformer):
            raise UserError(
                f"diagnose_every={every}: only models of models.sasrec can be diagnosed, not "
                f"{type(model).__name__}; set diagnose_every=null"
            )
        self.optimizer, self.every = optimizer, every
        self.items = model.item.weight
        self.group = optimizer.param_groups[0]
        # the largest abs(s) of the counter
        self.bound = self.group.get("bound", self.group.get("window_size", 0))
        self.lion_m = [torch.zeros_like(p) for p in self.group["params"]]  # the reference Lion's m
        by_popularity = np.array_split(np.argsort(popularity, kind="stable") + 1, NUM_FIFTHS)
        self.fifths = [torch.from_numpy(i).to(self.items.device) for i in by_popularity]

    def start_epoch(self, epoch: int) -> None:
        """Reset the statistics; call it before the first step of an epoch."""
        self.is_diagnosed = epoch % self.every == 0
        self.steps = 0
        self.sums: dict[str, float] = defaultdict(float)
        self.coordinates = {"items": 0, "weights": 0}
        self.before = self.items.detach().clone()
        self.moved_shares = torch.zeros(len(self.items), device=self.items.device)
        self.moved_shares_absent = torch.zeros_like(self.moved_shares)
        self.gradient_sum = torch.zeros_like(self.items)
        self.sign_sum = torch.zeros_like(self.items)

    @torch.no_grad()
    def before_step(self) -> None:
        """Record the coming step, if the epoch is diagnosed, and update the reference Lion's m."""
        for p, m in self._parameters():
            if self.is_diagnosed:
                self._record(p, m)
            m.mul_(BETA2).add_(p.grad, alpha=1 - BETA2)
        self.steps += 1

    def summary(self) -> dict[str, float]:
        """The statistics of the epoch by name, with the prefix ``why/``; none if not diagnosed."""
        if not self.is_diagnosed:
            return {}
        statistics = {}
        for name, total in self.sums.items():
            statistics[name] = total / self.coordinates[name.split("/")[-1]]
        lr = float(self.group["lr"])
        net = (self.items.detach() - self.before).abs().mean(1) / lr
        for name, value in (
            ("path", self.moved_shares),
            ("absent", self.moved_shares_absent),
            ("net", net),
        ):
            for i, fifth in enumerate(self.fifths, start=1):
                statistics[f"{name}/{i}"] = float(value[fifth].mean()) / self.steps
        statistics |= self._against_the_sum()
        return {f"why/{name}": value for name, value in statistics.items()}

    def state_dict(self) -> dict[str, Any]:
        """The state to resume from after an epoch: the reference Lion's m."""
        return {"lion_m": self.lion_m}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.lion_m = state["lion_m"]

    def _parameters(self) -> Iterator[tuple[Any, Tensor]]:
        """Each parameter with the reference Lion's m."""
        return zip(self.group["params"], self.lion_m, strict=True)

    def _against_the_sum(self) -> dict[str, float]:
        m = next(m for p, m in self._parameters() if p is self.items)
        assert self.items.grad is not None
        _, memories = self.optimizer.preview(self.items, self.group, self.items.grad)
        s = memories.get("s")
        pairs = {"outvoted": (self.sign_sum, self.gradient_sum), "astray_m": (m, self.gradient_sum)}
        if s is not None:
            pairs |= {"lags": (s, self.sign_sum), "astray_s": (s, self.gradient_sum)}
        nonzero = self.gradient_sum != 0
        return {
            f"{name}/items": float((torch.sign(a) * torch.sign(b) < 0)[nonzero].float().mean())
            for name, (a, b) in pairs.items()
        }

    def _record(self, p: Tensor, lion_m: Tensor) -> None:
        g = p.grad
        assert g is not None
        direction, memories = self.optimizer.preview(p, self.group, g)
        reverse, _ = self.optimizer.preview(p, self.group, -g)
        s = memories.get("s")
        moves = direction != 0
        quantities = {
            "agreement": direction == directions.lion(g, lion_m, **LION),
            "memory": moves & (direction == reverse),
            "without_gradient": moves & (g == 0),
        }
        if s is not None:
            quantities["counter"] = abs(s) / self.bound
        part = "items" if p is self.items else "weights"
        for name, quantity in quantities.items():
            real = quantity[1:] if part == "items" else quantity  # row 0 is for empty slots
            self.sums[f"{name}/{part}"] += float(real.sum())
        self.coordinates[part] += p.numel() - (p.shape[1] if part == "items" else 0)
        if part == "items":
            share = moves.float().mean(1)
            self.moved_shares += share
            self.moved_shares_absent += share * (g == 0).all(1)
            self.gradient_sum += g
            self.sign_sum += torch.sign(g)
