"""Why a row falls where it does: its choices, looked at while it trains.

In the epochs that ``diagnose_every`` names, before each step and averaged over the epoch's steps,
as shares of coordinates; apart for item embeddings (``items``) and all other weights (``weights``):

==================  =====================================================================
agreement           moves, or not, as Lion would at this very point
memory              moves by its memory: it would move the same way with the opposite g
without_gradient    moves although its gradient is zero
counter             mean abs(s)/w (rows that count; w is the bound of s)
==================  =====================================================================

and for the items alone, by fifths of popularity in training (``1``: the rarest), in units of
lr times the epoch's steps, which is how far one that never turns is taken:

==================  =====================================================================
path                how much it moves
absent              how much of that while the item is not in the batch
net                 how far it is at the epoch's end from where it was at its start, by its steps
                    and by weight decay
==================  =====================================================================

and at the epoch's end, of the items' coordinates that had a gradient in it, beside the sum of these
gradients, which is where the epoch's data would have them go:

==================  =====================================================================
astray_m            Lion's m points against the sum
astray_s            s does (rows that count)
outvoted            more of the epoch's signs point against the sum than with it
lags                s points against what most of the epoch's signs do (rows that count)
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
FIFTHS = 5


class Diagnostics:
    """What an optimizer chooses for a model, beside a Lion that sees the same gradients.

    Args:
        popularity: (num_items,) how often each item is in training.
        every: every so many epochs are looked at.

    Raises:
        UserError: the optimizer is not one of simba's, or the model not one of models.sasrec.
    """

    def __init__(
        self,
        model: SequenceModel,
        optimizer: torch.optim.Optimizer,
        popularity: np.ndarray,
        every: int,
    ) -> None:
        if not isinstance(optimizer, SignOptimizer):
            raise UserError("diagnose_every: only simba's own optimizers can be diagnosed")
        if not isinstance(model, PackedTransformer):
            raise UserError("diagnose_every: only models of models.sasrec can be diagnosed")
        self.optimizer, self.every = optimizer, every
        self.items = model.item.weight
        self.group = optimizer.param_groups[0]
        self.bound = self.group.get("bound", self.group.get("window_size", 0))  # of the counter
        self.shadow = [torch.zeros_like(p) for p in self.group["params"]]  # Lion's m
        by_popularity = np.array_split(np.argsort(popularity, kind="stable") + 1, FIFTHS)
        self.fifths = [torch.from_numpy(i).to(self.items.device) for i in by_popularity]

    def start_epoch(self, epoch: int) -> None:
        self.looks = epoch % self.every == 0
        self.steps = 0
        self.sums: dict[str, float] = defaultdict(float)
        self.coordinates = {"items": 0, "weights": 0}
        self.before = self.items.detach().clone()
        self.moved = torch.zeros(len(self.items), device=self.items.device)
        self.moved_absent = torch.zeros_like(self.moved)
        self.sum, self.count = torch.zeros_like(self.items), torch.zeros_like(self.items)

    @torch.no_grad()
    def before_step(self) -> None:
        """Look at the choices of the coming step, if it is time, and follow Lion's memory."""
        for p, m in self._parameters():
            if self.looks:
                self._look(p, m)
            m.mul_(BETA2).add_(p.grad, alpha=1 - BETA2)
        self.steps += 1

    def summary(self) -> dict[str, float]:
        """The averages of the epoch since ``start_epoch``, by name; none if it is not looked at."""
        if not self.looks:
            return {}
        found = {}
        for name, total in self.sums.items():
            found[name] = total / self.coordinates[name.split("/")[-1]]
        lr = float(self.group["lr"])
        net = (self.items.detach() - self.before).abs().mean(1) / lr
        for name, value in (("path", self.moved), ("absent", self.moved_absent), ("net", net)):
            for i, fifth in enumerate(self.fifths, start=1):
                found[f"{name}/{i}"] = float(value[fifth].mean()) / self.steps
        found |= self._against_the_sum()
        return {f"why/{name}": value for name, value in found.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"shadow": self.shadow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shadow = state["shadow"]

    def _parameters(self) -> Iterator[tuple[Any, Tensor]]:
        """Each with the m that Lion would have."""
        return zip(self.group["params"], self.shadow, strict=True)

    def _against_the_sum(self) -> dict[str, float]:
        m = next(m for p, m in self._parameters() if p is self.items)
        assert self.items.grad is not None
        _, memories = self.optimizer.look(self.items, self.group, self.items.grad)
        s = memories.get("s")
        pairs = {"outvoted": (self.count, self.sum), "astray_m": (m, self.sum)}
        if s is not None:
            pairs |= {"lags": (s, self.count), "astray_s": (s, self.sum)}
        had = self.sum != 0
        return {
            f"{name}/items": float((torch.sign(a) == -torch.sign(b))[had].float().mean())
            for name, (a, b) in pairs.items()
        }

    def _look(self, p: Tensor, lion_m: Tensor) -> None:
        g = p.grad
        assert g is not None
        direction, memories = self.optimizer.look(p, self.group, g)
        reverse, _ = self.optimizer.look(p, self.group, -g)
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
            real = quantity[1:] if part == "items" else quantity  # row 0 stands for no item
            self.sums[f"{name}/{part}"] += float(real.sum())
        self.coordinates[part] += p.numel() - (p.shape[1] if part == "items" else 0)
        if part == "items":
            share = moves.float().mean(1)
            self.moved += share
            self.moved_absent += share * (g == 0).all(1)
            self.sum += g
            self.count += torch.sign(g)
