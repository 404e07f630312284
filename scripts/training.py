"""The loop: an epoch, every so often an evaluation on valid, at the end one on test."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hydra.errors import HydraException
from hydra.utils import instantiate
from torch import Tensor
from tqdm import tqdm

from data.batches import Batch, ranking_batches, training_batches
from data.sequences import Sequences
from models import fast
from models.plain import Packing
from models.ranking import block_size, metrics, rank_targets
from models.sasrec import PackedTransformer
from scripts import run_record
from scripts.diagnosis import Diagnosis
from scripts.errors import ConfigError, RunFailed
from scripts.memory import keep_freed_memory
from scripts.tracking import Log

CHECKPOINT_FORMAT = 3  # of another code's checkpoint nothing is taken


class Step(NamedTuple):
    """What the loss of one step is a function of; see models.sasrec."""

    items: Tensor
    packing: Packing
    targets: Tensor
    negatives: Tensor
    keys: Tensor


class Training:
    """One run. All its randomness is a function of (seed, epoch), so that a run resumed from a
    checkpoint goes on with the bits of an uninterrupted one."""

    def __init__(self, config: Mapping[str, Any], data: Sequences, device: torch.device) -> None:
        self.config, self.data, self.device = config, data, device
        run_record.reset_peak_memory()
        torch.manual_seed(config["seed"])
        self.model: PackedTransformer = build(config["model"], "model", num_items=data.num_items)
        self.model.to(device)
        self.in_rows = device.type != "cpu"
        if device.type == "cpu":
            self.model.ops = fast
            keep_freed_memory()
        self.optimizer = build(config["optimizer"], "optimizer")(self.model.parameters())
        self.diagnosis: Diagnosis | None = None
        if (every := config["diagnose_every"]) is not None:
            self.diagnosis = Diagnosis(self.model, self.optimizer, data.popularity, every)
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.seconds = {"train": 0.0, "eval": 0.0}
        self.evaluations = 0

    def fit(self, checkpoint: Path, run_hash: str, log: Log, description: str) -> None:
        """Train to the last epoch, or until patience ends.

        Raises:
            RunFailed: the loss is NaN or infinite.
        """
        epochs = self.config["epochs"]
        done = len(self.history)
        with tqdm(
            total=epochs, initial=done, desc=description, unit="epoch", disable=None, leave=False
        ) as bar:
            for epoch in range(done + 1, epochs + 1):
                if self.out_of_patience():
                    break
                start = time.perf_counter()
                loss = self.train_epoch(epoch)
                self.seconds["train"] += time.perf_counter() - start
                if self.end_epoch(epoch, loss):
                    self.save(checkpoint, run_hash)
                log(self.history[-1])
                bar.set_postfix({k: f"{v:.4f}" for k, v in self.latest().items()}, refresh=False)
                bar.update()

    def train_epoch(self, epoch: int) -> float:
        """One pass over all users; the loss before each update, averaged over users."""
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        if self.diagnosis:
            self.diagnosis.start_epoch(epoch)
        for batch, keys in self.batches(epoch, self.in_rows):
            loss = self.model.loss(*self.step(batch, keys))
            self.optimizer.zero_grad()
            loss.backward()
            if self.config["max_grad_norm"] is not None:
                norm = self.config["max_grad_norm"]
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), norm)
            if self.diagnosis:
                self.diagnosis.before_step()
            self.optimizer.step()
            total += loss.detach() * batch.num_users
        return float(total / len(self.data.trainable()))

    def batches(self, epoch: int, in_rows: bool) -> Iterator[tuple[Any, np.ndarray]]:
        """The epoch's batches, each with the keys of its dropout."""
        config = self.config
        rng = np.random.default_rng([config["seed"], epoch])
        sizes = config["batch_size"], config["model"]["maxlen"], config["negatives"]
        for batch in training_batches(self.data, rng, *sizes, in_rows):
            yield batch, rng.integers(2**32, size=(self.model.num_keys, 2))

    def step(self, batch: Any, keys: np.ndarray) -> Step:
        arrays = batch.targets, batch.negatives, keys
        return Step(*self.inputs(batch), *map(self.tensor, arrays))

    def end_epoch(self, epoch: int, loss: float) -> bool:
        """Enter an epoch into the history; whether it was evaluated.

        Raises:
            RunFailed: the loss is NaN or infinite.
        """
        entry = {"epoch": epoch, "train/loss": loss}
        if self.diagnosis:
            entry |= self.diagnosis.summary()
        self.history.append(entry)
        if not np.isfinite(loss):
            raise RunFailed(f"the loss is {loss} in epoch {epoch}")
        evaluated = epoch % self.config["eval_every"] == 0 or epoch == self.config["epochs"]
        if evaluated:
            valid = metrics(self.ranks("valid"), self.config["ks"])
            entry |= {f"valid/{key}": value for key, value in valid.items()}
            if self.is_best(entry):
                self.best_epoch = epoch
                self.best = {k: v.clone() for k, v in self.model.state_dict().items()}
        return evaluated

    @torch.inference_mode()
    def ranks(self, split: str) -> np.ndarray:
        """Rank of every evaluated user's held-out item among all items not had before."""
        start = time.perf_counter()
        weight = self.model.item_weight()
        ranks = []
        size, maxlen = block_size(self.device), self.config["model"]["maxlen"]
        for batch in ranking_batches(self.data, split, size, maxlen, self.in_rows):
            hidden = self.model.states(*self.inputs(batch), self.tensor(batch.last))
            race = batch.targets, batch.seen_offsets, batch.seen_items
            ranks.append(rank_targets(hidden, weight, *map(self.tensor, race)).cpu())
        self.seconds["eval"] += time.perf_counter() - start
        self.evaluations += 1
        return torch.cat(ranks).numpy()

    def is_best(self, entry: Mapping[str, float]) -> bool:
        earlier = (e["valid/NDCG@10"] for e in self.history[:-1] if "valid/NDCG@10" in e)
        return entry["valid/NDCG@10"] > max(earlier, default=-1.0)

    def out_of_patience(self) -> bool:
        patience = self.config["patience"]
        since = sum("valid/NDCG@10" in entry for entry in self.history[self.best_epoch :])
        return patience is not None and since >= patience

    def latest(self) -> dict[str, float]:
        evaluated = [e for e in self.history if "valid/NDCG@10" in e]
        found = {"loss": self.history[-1]["train/loss"]}
        return found | ({"NDCG@10": evaluated[-1]["valid/NDCG@10"]} if evaluated else {})

    def test(self) -> dict[str, Any]:
        """The one evaluation on test, with the parameters of the best epoch on valid."""
        self.model.load_state_dict(self.best)
        ranks = self.ranks("test")
        return {
            "test": metrics(ranks, self.config["ks"]),
            "test_ranks": run_record.encode_ranks(ranks),
            "eval_seconds": self.seconds["eval"] / self.evaluations,
            "peak_rss_mib": run_record.peak_rss_mib(),
        }

    def summary(self) -> dict[str, Any]:
        """What a record tells of the training."""
        states = [v for state in self.optimizer.state.values() for v in state.values()]
        tensors = [v for v in states if isinstance(v, Tensor) and v.ndim > 0]
        state_bytes = sum(v.numel() * v.element_size() for v in tensors)
        parameters = sum(p.numel() for p in self.model.parameters())
        targets = self.data.num_targets(self.config["model"]["maxlen"]) * len(self.history)
        evaluated = {e["epoch"]: e for e in self.history}.get(self.best_epoch, {})
        return {
            "num_parameters": parameters,
            "state_bytes": state_bytes,
            "state_bytes_per_param": state_bytes / parameters,
            "train_seconds": self.seconds["train"],
            "targets_per_second": targets / self.seconds["train"],
            "peak_rss_mib": run_record.peak_rss_mib(),
            "best_epoch": self.best_epoch,
            "valid": {k[6:]: v for k, v in evaluated.items() if k.startswith("valid/")},
            "history": self.history,
        }

    def save(self, checkpoint: Path, run_hash: str) -> None:
        state = {
            "format": CHECKPOINT_FORMAT,
            "hash": run_hash,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
            "evaluations": self.evaluations,
            "diagnosis": self.diagnosis.state_dict() if self.diagnosis else None,
        }
        partial = checkpoint.with_suffix(f".{os.getpid()}")
        try:
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, partial)
            os.replace(partial, checkpoint)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            partial.unlink(missing_ok=True)
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{checkpoint}: cannot be written: {reason}") from None

    def resume(self, checkpoint: Path, run_hash: str) -> None:
        """Go on from a checkpoint of the very same run, if there is one."""
        if not checkpoint.exists():
            return
        state = torch.load(checkpoint, map_location=self.device, weights_only=True)
        if state["hash"] != run_hash or state.get("format") != CHECKPOINT_FORMAT:
            return
        if self.diagnosis:
            if state["diagnosis"] is None:
                return  # the epochs so far were not looked at
            self.diagnosis.load_state_dict(state["diagnosis"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history, self.best = state["history"], state["best"]
        self.best_epoch, self.seconds = state["best_epoch"], state["seconds"]
        self.evaluations = state["evaluations"]
        print(f"{checkpoint}: going on after epoch {len(self.history)}", file=sys.stderr)

    def inputs(self, batch: Batch) -> tuple[Tensor, Packing]:
        where = batch.positions, batch.starts, batch.tokens
        return self.tensor(batch.items), Packing(*map(self.tensor, where))

    def tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def build(section: Mapping[str, Any], key: str, **arguments: Any) -> Any:
    """Instantiate a config section; a wrong key or value is a ConfigError."""
    try:
        built = instantiate(dict(section), **arguments)
        if key == "optimizer":  # check its values on a parameter of its own first
            built([torch.nn.Parameter(torch.zeros(1))])
        return built
    except (HydraException, TypeError, ValueError, RuntimeError, ImportError) as error:
        reason = error.__cause__ or error
        raise ConfigError(f"{key}: {' '.join(str(reason).split())}") from None
