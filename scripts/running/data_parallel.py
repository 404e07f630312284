"""Data-parallel training: each worker takes a part of every batch's users.

Workers have the same weights and the same random numbers, so they divide each batch without asking,
and tokens have the dropout of one process. With ``gradients=float32``, the optimizer gets the
gradient of the whole batch, up to rounding. Else it gets the majority of the workers' votes
(simba/distributed.py).
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.batches import RankingBatch, TrainingBatch
from data.sequences import Sequences
from scripts.running.training import Training
from scripts.running.workers import Workers, reaching
from simba.distributed import VoteState

LEVELS = {"ternary": 3, "sign": 2}  # of votes, for the config's key ``gradients``


class DataParallel(Training):
    """One run, as one of its workers trains it.

    All workers must call the same methods in the same order.

    Args:
        workers: those of torchrun.
    """

    def __init__(
        self, config: Mapping[str, Any], data: Sequences, device: torch.device, workers: Workers
    ) -> None:
        super().__init__(config, data, device)
        self.workers = workers
        self.votes: VoteState | None = None
        if levels := LEVELS.get(config["gradients"]):
            self.votes = VoteState(self.model.parameters(), levels, seed=config["seed"])

    def train_epoch(self, epoch: int) -> float:
        own = torch.tensor(super().train_epoch(epoch), dtype=torch.float64, device=self.device)
        return float(self.workers.add_up(own))

    def backward(self, batch: TrainingBatch, keys: np.ndarray) -> Tensor:
        """Give the parameters the gradient that all workers decide.

        Returns:
            This worker's share of the loss.
        """
        part = batch.part(self.workers.rank, self.workers.count)
        share = part.num_targets / batch.num_targets  # the loss is a mean over targets
        loss = share * self.loss(part if share else batch, keys)
        self.optimizer.zero_grad()
        loss.backward()
        own = {p: p.grad for p in self.model.parameters() if p.grad is not None}
        parts = self.reduce(own).split([g.numel() for g in own.values()])
        for p, reduced in zip(own, parts, strict=True):
            p.grad = reduced.view_as(p)
        return loss.detach()

    def reduce(self, own: Mapping[torch.nn.Parameter, Tensor]) -> Tensor:
        """The sum of all workers' gradients or the majority of their votes, in one tensor.

        Args:
            own: this worker's gradient of each parameter.
        """
        if self.votes is None:
            return self.workers.add_up(torch.cat([g.flatten() for g in own.values()]))
        votes = torch.cat([self.votes.vote(p, g).flatten() for p, g in own.items()])
        with reaching():
            decided = self.votes.reduce(votes, next(iter(own)).dtype)
        self.votes.step += 1
        return decided

    def ranking_batches(self, split: str) -> Iterator[RankingBatch]:
        """This worker's part of the ranking batches, which are those of a single process."""
        rank, count = self.workers.rank, self.workers.count
        number = -(-len(self.data.evaluated) // self.ranked_together())
        first, last = (number * k // count for k in (rank, rank + 1))
        return islice(super().ranking_batches(split), first, last)

    def ranks(self, split: str) -> np.ndarray:
        return np.concatenate(self.workers.gathered(super().ranks(split)))

    def state_dict(self) -> dict[str, Any]:
        """The state, with what each worker's votes have left out."""
        state = super().state_dict()
        if self.votes:
            state["votes"] = self.workers.gathered(self.moved(self.votes.state_dict(), "cpu"))
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        if self.votes:
            own = state["votes"][self.workers.rank]
            self.votes.load_state_dict(self.moved(own, self.device))

    def save(self, path: Path, run_hash: str) -> None:
        """Write the state of all workers; the leading one writes."""
        state = self.state_dict()
        if self.workers.lead:
            self.write(path, run_hash, state)

    def saved(self, path: Path, run_hash: str, device: torch.device) -> dict[str, Any] | None:
        """What the leading worker reads, on the CPU: each worker moves it to its own device."""
        read, cpu = super().saved, torch.device("cpu")
        return self.workers.first(lambda: read(path, run_hash, cpu))

    @staticmethod
    def moved(votes: Mapping[str, Any], device: torch.device | str) -> dict[str, Any]:
        """The state of votes with its residuals on a device."""
        residuals = {i: t.to(device) for i, t in votes["residuals"].items()}
        return {**votes, "residuals": residuals}
