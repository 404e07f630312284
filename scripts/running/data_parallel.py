"""Data-parallel training: each worker takes a part of every batch's users.

Workers have the same weights and the same random numbers, so they divide each batch without
communication. Each token has the dropout mask of a single-process run. With
``gradients=float32``, the optimizer gets the gradient of the whole batch, up to rounding. Otherwise
it gets the majority of the workers' votes (simba/distributed.py).
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
from scripts.running.workers import Workers, raising_worker_lost
from simba.distributed import VoteState

LEVELS = {"ternary": 3, "sign": 2}  # of votes, for the config's key ``gradients``


class DataParallel(Training):
    """One run, as one of its workers trains it.

    All workers must call the same methods in the same order.

    Args:
        workers: this worker's rank and the number of workers.
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
        loss = torch.tensor(super().train_epoch(epoch), dtype=torch.float64, device=self.device)
        # Each loss is already multiplied by the worker's fraction of the targets.
        return float(self.workers.all_reduce(loss))

    def backward(self, batch: TrainingBatch, dropout_keys: np.ndarray) -> Tensor:
        """Set ``p.grad`` of all parameters to the result of ``reduce``.

        Returns:
            The loss of this worker's part, times its fraction of the batch's targets.
        """
        part = batch.part(self.workers.rank, self.workers.count)
        weight = part.num_targets / batch.num_targets  # the loss is a mean over targets
        # For an empty part, the whole batch with weight 0 gives each parameter a gradient of 0.
        loss = weight * self.loss(part if weight else batch, dropout_keys)
        self.optimizer.zero_grad()
        loss.backward()
        gradients = {p: p.grad for p in self.model.parameters() if p.grad is not None}
        parts = self.reduce(gradients).split([g.numel() for g in gradients.values()])
        for p, reduced in zip(gradients, parts, strict=True):
            p.grad = reduced.view_as(p)
        return loss.detach()

    def reduce(self, gradients: Mapping[torch.nn.Parameter, Tensor]) -> Tensor:
        """The sum of all workers' gradients or the majority of their votes, in one tensor.

        Args:
            gradients: this worker's gradient of each parameter.
        """
        if self.votes is None:
            return self.workers.all_reduce(torch.cat([g.flatten() for g in gradients.values()]))
        votes = torch.cat([self.votes.vote(p, g).flatten() for p, g in gradients.items()])
        with raising_worker_lost():
            majority = self.votes.reduce(votes, next(iter(gradients)).dtype)
        self.votes.step += 1
        return majority

    def ranking_batches(self, split: str) -> Iterator[RankingBatch]:
        """This worker's part of the batches that a single process would rank."""
        rank, count = self.workers.rank, self.workers.count
        batches = -(-len(self.data.evaluated) // self.ranking_batch_size())
        first, last = (batches * k // count for k in (rank, rank + 1))
        return islice(super().ranking_batches(split), first, last)

    def ranks(self, split: str) -> np.ndarray:
        """The ranks of all users, on every worker."""
        return np.concatenate(self.workers.gather(super().ranks(split)))

    def state_dict(self) -> dict[str, Any]:
        """The state, with the errors of each worker's votes."""
        state = super().state_dict()
        if self.votes:
            state["votes"] = self.workers.gather(self.moved(self.votes.state_dict(), "cpu"))
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        if self.votes:
            votes = state["votes"][self.workers.rank]
            self.votes.load_state_dict(self.moved(votes, self.device))

    def save_checkpoint(self, path: Path, config_hash: str) -> None:
        """Write one checkpoint with the state of all workers."""
        state = self.state_dict()
        if self.workers.is_leader:
            self.write_checkpoint(path, config_hash, state)

    def read_checkpoint(
        self, path: Path, config_hash: str, device: torch.device
    ) -> dict[str, Any] | None:
        """The state that the leader reads, on the CPU. Each worker moves it to its device."""
        read, cpu = super().read_checkpoint, torch.device("cpu")
        return self.workers.on_leader(lambda: read(path, config_hash, cpu))

    @staticmethod
    def moved(votes: Mapping[str, Any], device: torch.device | str) -> dict[str, Any]:
        """The state of votes with its errors on a device."""
        errors = {i: t.to(device) for i, t in votes["errors"].items()}
        return {**votes, "errors": errors}
