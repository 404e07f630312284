"""The training loop: epochs, evaluations on validation in between, and one evaluation on test."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.errors import HydraException
from hydra.utils import instantiate
from torch import Tensor

from data.batches import RankingBatch, TrainingBatch, ranking_batches, training_batches
from data.sequences import Sequences
from models.contract import SequenceModel, check
from models.ops import backend_for
from models.packing import Layout, model_inputs
from models.ranking import block_size, metrics, rank_targets
from scripts.records.errors import RunFailed, UserError
from scripts.records.record import encode_ranks
from scripts.running import checkpoint
from scripts.running.corruption import Corruption
from scripts.running.diagnostics import Diagnostics
from scripts.running.memory import keep_freed_memory, peak_rss_mib, reset_peak_memory
from scripts.running.progress import bar
from scripts.running.tracking import Log


class Training:
    """The training of one run: model, optimizer, epochs, evaluations and history, without files.

    All random numbers are functions of the seed, the epoch and the batch; those of stochastic
    rounding, of ``optimizer.seed`` and the step. A run that is resumed from a checkpoint is
    therefore bitwise identical to an uninterrupted one.

    Args:
        config: a checked config, see scripts/running/config.py.
        data: the sequences to train and evaluate on.
        device: where model and batches are.

    Raises:
        UserError: a key of the model or optimizer, ``corrupt`` or ``diagnose_every`` is wrong.
    """

    def __init__(self, config: Mapping[str, Any], data: Sequences, device: torch.device) -> None:
        self.config, self.data, self.device = config, data, device
        reset_peak_memory()
        torch.manual_seed(config["seed"])
        self.model = build_model(config["model"], data.num_items).to(device)
        self.model.backend = backend_for(device)
        if device.type == "cpu":
            keep_freed_memory()
        self.optimizer = build(config["optimizer"], "optimizer")(self.model.parameters())
        self.corruption: Corruption | None = None
        if config["corrupt"] is not None:
            self.corruption = Corruption(config["corrupt"])
        self.diagnostics: Diagnostics | None = None
        if (every := config["diagnose_every"]) is not None:
            self.diagnostics = Diagnostics(self.model, self.optimizer, data.popularity, every)
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.seconds = {"train": 0.0, "eval": 0.0}
        self.evaluations = 0

    def fit(self, save: Callable[[], None], log: Log, description: str) -> None:
        """Train to the last epoch, or until ``out_of_patience``.

        Args:
            save: called after each evaluation.
            log: gets the history's entry after each epoch.
            description: the label of the progress bar.

        Raises:
            RunFailed: the loss is NaN or infinite.
        """
        epochs = self.config["epochs"]
        done = len(self.history)
        with bar(total=epochs, initial=done, desc=description, unit="epoch") as shown:
            for epoch in range(done + 1, epochs + 1):
                if self.out_of_patience():
                    break
                start = time.perf_counter()
                loss = self.train_epoch(epoch)
                self.seconds["train"] += time.perf_counter() - start
                if self.end_epoch(epoch, loss):
                    save()
                log(self.history[-1])
                latest = {key: f"{value:.4f}" for key, value in self.latest().items()}
                shown.set_postfix(latest, refresh=False)
                shown.update()

    def train_epoch(self, epoch: int) -> float:
        """Train for one epoch.

        Returns:
            The mean of the batches' losses, weighted by their numbers of users. Each loss is
            computed before the step on its batch.
        """
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        if self.diagnostics:
            self.diagnostics.start_epoch(epoch)
        batches = self.batches(epoch, self.model.backend.layout)
        for number, (batch, dropout_keys) in enumerate(batches):
            loss = self.backward(batch, dropout_keys)
            if self.config["max_grad_norm"] is not None:
                norm = self.config["max_grad_norm"]
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), norm)
            if self.corruption:
                self.corruption(self.model.parameters(), (self.config["seed"], epoch, number))
            if self.diagnostics:
                self.diagnostics.before_step()
            self.optimizer.step()
            total += loss * batch.num_users
        return float(total / len(self.data.trainable()))

    def backward(self, batch: TrainingBatch, dropout_keys: np.ndarray) -> Tensor:
        """Compute a batch's loss and backpropagate it into ``p.grad``; returns the loss."""
        loss = self.loss(batch, dropout_keys)
        self.optimizer.zero_grad()
        loss.backward()
        return loss.detach()

    def loss(self, batch: TrainingBatch, dropout_keys: np.ndarray) -> Tensor:
        """The loss of a batch with its dropout keys, a scalar."""
        tensors = self.tensors(batch.arrays() | {"dropout_keys": dropout_keys})
        return self.model.loss(**model_inputs(tensors, batch.layout))

    def batches(self, epoch: int, layout: Layout) -> Iterator[tuple[TrainingBatch, np.ndarray]]:
        """The batches of an epoch, each with its dropout keys (num_dropout_keys, 2) int64."""
        config = self.config
        rng = np.random.default_rng([config["seed"], epoch])
        sizes = config["batch_size"], self.model.maxlen, config["negatives"]
        for batch in training_batches(self.data, rng, *sizes, layout):
            yield batch, rng.integers(2**32, size=(self.model.num_dropout_keys, 2))

    def end_epoch(self, epoch: int, loss: float) -> bool:
        """Append an epoch to the history; evaluate it if ``eval_every`` divides it or it is last.

        Returns:
            Whether the epoch was evaluated.

        Raises:
            RunFailed: the loss is NaN or infinite.
        """
        entry = {"epoch": epoch, "train/loss": loss}
        if self.diagnostics:
            entry |= self.diagnostics.summary()
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
        """(users,) int64: the rank of the held-out item of each evaluated user; 1 is the best."""
        start = time.perf_counter()
        weight = self.model.item_weight()
        ranks = [torch.zeros(0, dtype=torch.int64)]
        for batch in self.ranking_batches(split):
            inputs = model_inputs(self.tensors(batch.arrays()), batch.layout)
            hidden = self.model.hidden_states(**inputs)
            held_out = self.tensors(vars(batch.held_out))
            ranks.append(rank_targets(hidden, weight, **held_out).cpu())
        self.seconds["eval"] += time.perf_counter() - start
        self.evaluations += 1
        return torch.cat(ranks).numpy()

    def ranking_batches(self, split: str) -> Iterator[RankingBatch]:
        """The batches of ``ranks``."""
        layout, mask_seen = self.model.backend.layout, self.config["mask_seen"]
        sizes = self.ranking_batch_size(), self.model.maxlen
        return ranking_batches(self.data, split, *sizes, layout, mask_seen)

    def ranking_batch_size(self) -> int:
        """The number of users per ranking batch."""
        return block_size(self.device)

    def is_best(self, entry: Mapping[str, float]) -> bool:
        """Whether the history's last entry has the highest validation NDCG@10 so far."""
        earlier = (e["valid/NDCG@10"] for e in self.history[:-1] if "valid/NDCG@10" in e)
        return entry["valid/NDCG@10"] > max(earlier, default=-1.0)

    def out_of_patience(self) -> bool:
        """Whether ``patience`` evaluations have passed since the best epoch."""
        patience = self.config["patience"]
        since = sum("valid/NDCG@10" in entry for entry in self.history[self.best_epoch :])
        return patience is not None and since >= patience

    def latest(self) -> dict[str, float]:
        """The latest loss and the latest validation NDCG@10, each if there is one."""
        evaluated = [e for e in self.history if "valid/NDCG@10" in e]
        loss = {"loss": self.history[-1]["train/loss"]} if self.history else {}
        return loss | ({"NDCG@10": evaluated[-1]["valid/NDCG@10"]} if evaluated else {})

    def test(self) -> dict[str, Any]:
        """Evaluate on test with the weights of the best epoch; returns keys of a record."""
        self.model.load_state_dict(self.best)
        ranks = self.ranks("test")
        return {
            "test": metrics(ranks, self.config["ks"]),
            "test_ranks": encode_ranks(ranks),
            "eval_seconds": self.seconds["eval"] / self.evaluations,
            "peak_rss_mib": peak_rss_mib(),
        }

    def summary(self) -> dict[str, Any]:
        """The keys of a record that describe the training."""
        states = [v for state in self.optimizer.state.values() for v in state.values()]
        tensors = [v for v in states if isinstance(v, Tensor) and v.ndim > 0]
        state_bytes = sum(v.numel() * v.element_size() for v in tensors)
        parameters = sum(p.numel() for p in self.model.parameters())
        targets = self.data.num_targets(self.model.maxlen) * len(self.history)
        evaluated = {e["epoch"]: e for e in self.history}.get(self.best_epoch, {})
        return {
            "num_parameters": parameters,
            "state_bytes": state_bytes,
            "state_bytes_per_param": state_bytes / parameters,
            "train_seconds": self.seconds["train"],
            "targets_per_second": targets / self.seconds["train"],
            "peak_rss_mib": peak_rss_mib(),
            "best_epoch": self.best_epoch,
            "valid": {k[6:]: v for k, v in evaluated.items() if k.startswith("valid/")},
            "history": self.history,
        }

    def state_dict(self) -> dict[str, Any]:
        """The state that ``load_state_dict`` restores."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
            "evaluations": self.evaluations,
            "diagnostics": self.diagnostics.state_dict() if self.diagnostics else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state of ``state_dict``."""
        if self.diagnostics:
            self.diagnostics.load_state_dict(state["diagnostics"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history, self.best = state["history"], state["best"]
        self.best_epoch, self.seconds = state["best_epoch"], state["seconds"]
        self.evaluations = state["evaluations"]

    def save_checkpoint(self, path: Path, config_hash: str) -> None:
        """Write the state of the training to a checkpoint.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        self.write_checkpoint(path, config_hash, self.state_dict())

    def load_checkpoint(self, path: Path, config_hash: str) -> None:
        """Restore the state of the checkpoint ``path`` if it exists.

        Raises:
            UserError: see ``read_checkpoint``.
        """
        if (state := self.read_checkpoint(path, config_hash, self.device)) is not None:
            self.load_state_dict(state)

    def write_checkpoint(self, path: Path, config_hash: str, state: dict[str, Any]) -> None:
        """Write a state with the hash of its run."""
        checkpoint.save(path, {"hash": config_hash, **state})

    def read_checkpoint(
        self, path: Path, config_hash: str, device: torch.device
    ) -> dict[str, Any] | None:
        """The state in the checkpoint ``path`` if it exists.

        None if it cannot be used: then the run starts again.

        Raises:
            UserError: it belongs to a run of another config, and ``force`` is not set.
        """
        state = checkpoint.load_or_none(path, device)
        if state is None:
            return None
        if state["hash"] != config_hash:
            if self.config["force"]:
                return None
            raise UserError(
                f"{path}: the checkpoint of a run of another config; force=true replaces it, "
                "results.name=NAME or results.root=DIR keeps both"
            )
        if self.diagnostics and state["diagnostics"] is None:
            print(f"{path}: has no diagnostics; the run starts again", file=sys.stderr)
            return None
        print(f"{path}: resuming after epoch {len(state['history'])}", file=sys.stderr)
        return state

    def tensors(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """Copy arrays to tensors on the training's device."""
        return {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}


def build_model(section: Mapping[str, Any], num_items: int) -> SequenceModel:
    """Instantiate the config's model.

    Raises:
        UserError: a key or value is wrong, or the class does not keep to the contract.
    """
    model = build(section, "model", num_items=num_items)
    try:
        if not isinstance(model, SequenceModel):
            raise TypeError(f"{section['_target_']} is not a models.contract.SequenceModel")
        check(model)
    except TypeError as error:
        raise UserError(f"model: {error}; docs/models.md says what a model needs") from None
    return model


def build(section: Mapping[str, Any], key: str, **arguments: Any) -> Any:
    """Instantiate a section of the config.

    Args:
        key: the section's name, for errors.
        arguments: further arguments of the class.

    Raises:
        UserError: a key or value of the section is wrong.
    """
    try:
        built = instantiate(dict(section), **arguments)
        if key == "optimizer":  # a partial checks nothing, a step on one element does
            parameter = torch.nn.Parameter(torch.zeros(1))
            parameter.grad = torch.zeros_like(parameter)
            built([parameter]).step()
        return built
    except (HydraException, TypeError, ValueError, RuntimeError, ImportError) as error:
        reason = error.__cause__ or error
        raise UserError(f"{key}: {' '.join(str(reason).split())}") from None
