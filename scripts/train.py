"""Train one model and write one record: ``python -m scripts.train --help``."""

import os
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from tqdm import tqdm

from data.errors import DataError
from data.prepare import prepare, statistics
from data.sequences import Batch, Sequences, ranking_batches, training_batches
from models import fast
from models.plain import Packing
from models.ranking import metrics, rank_targets
from models.sasrec import PackedTransformer
from scripts import run_record
from scripts.config import checked, choices, swept_keys
from scripts.errors import ConfigError, RunFailed
from scripts.memory import keep_freed_memory
from scripts.tracking import Log, tracked

exit_codes = [0]  # of the runs of this process; the worst one is its own


def run(cfg: DictConfig) -> None:
    """One run from config to record; skipped if its record is there already."""
    config, names = checked(cfg), choices()
    device = pick_device(config["device"])
    prepared = prepare(config["data"])
    dataset = Path(prepared.path).stem if names["data"] == "file" else names["data"]
    identity = run_record.identity(config, prepared.sha256)
    name = config["results"]["name"] or (
        f"{names['experiment']}-{names['model']}{swept_keys(sys.argv[1:])}-seed{config['seed']}"
    )
    root = Path(config["results"]["root"])
    path = root / "runs" / dataset / names["optimizer"] / f"{name}.json"
    work = root / "checkpoints" / dataset / names["optimizer"]
    with run_record.claimed(work / f"{name}.lock") as mine:
        if not mine:
            print(f"{path}: another process is at it, skipped", file=sys.stderr)
        elif is_finished(path, identity, config["force"]):
            print(f"{path}: finished already, skipped", file=sys.stderr)
        else:
            start = {
                "status": "finished",
                "dataset": dataset,
                **{key: names[key] for key in ("model", "optimizer", "experiment")},
                "seed": config["seed"],
                "command": rerun_command(name),
                "config": identity,
                "config_hash": run_record.digest(identity),
                **run_record.provenance(device),
                "data": {"sha256": prepared.sha256, **statistics(prepared.sequences)},
                "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
            training = Training(config, prepared.sequences, device)
            training.resume(work / f"{name}.pt", start["config_hash"])
            label = f"{dataset}-{names['optimizer']}-{name}"
            with tracked(config, names, label) as (log, summarize):
                record = finish(training, path, work / f"{name}.pt", start, log, label)
                summarize({f"test/{key}": value for key, value in record["test"].items()})
                summarize({"best_epoch": record["best_epoch"]})
            tqdm.write(f"{path}: {headline(record)}", file=sys.stderr)


def finish(
    training: "Training",
    path: Path,
    checkpoint: Path,
    start: Mapping[str, Any],
    log: Log,
    label: str,
) -> dict[str, Any]:
    """Train, test, write the record and return it.

    Raises:
        RunFailed: the loss is NaN; the record then says so.
    """
    try:
        training.fit(checkpoint, start["config_hash"], log, label)
    except RunFailed as failure:
        failed = {"status": "failed", "error": str(failure)}
        run_record.write(path, {**start, **training.summary(), **failed})
        raise RunFailed(f"{path}: {failure}") from None
    record = {**start, **training.summary(), **training.test()}
    run_record.write(path, record)
    checkpoint.unlink(missing_ok=True)
    return record


class Training:
    """The loop: an epoch, every so often an evaluation on valid, at the end one on test.

    All randomness is a function of (seed, epoch), so that a run resumed from a checkpoint goes on
    with the bits of an uninterrupted one.
    """

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
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.seconds = {"train": 0.0, "eval": 0.0}
        self.evaluations = 0

    def fit(self, checkpoint: Path, run_hash: str, log: Log, description: str) -> None:
        epochs = self.config["epochs"]
        done = len(self.history)
        with tqdm(
            total=epochs, initial=done, desc=description, unit="epoch", disable=None, leave=False
        ) as bar:
            for epoch in range(done + 1, epochs + 1):
                if self.out_of_patience():
                    break
                entry = {"epoch": epoch, "train/loss": self.train_epoch(epoch)}
                self.history.append(entry)
                if not np.isfinite(entry["train/loss"]):
                    raise RunFailed(f"the loss is {entry['train/loss']} in epoch {epoch}")
                if epoch % self.config["eval_every"] == 0 or epoch == epochs:
                    valid = metrics(self.ranks("valid"), self.config["ks"])
                    entry |= {f"valid/{key}": value for key, value in valid.items()}
                    if self.is_best(entry):
                        self.best_epoch = epoch
                        self.best = {k: v.clone() for k, v in self.model.state_dict().items()}
                    self.save(checkpoint, run_hash)
                log(entry)
                bar.set_postfix({k: f"{v:.4f}" for k, v in self.latest().items()}, refresh=False)
                bar.update()

    def train_epoch(self, epoch: int) -> float:
        """One pass over all users; the loss before each update, averaged over users."""
        start = time.perf_counter()
        config = self.config
        rng = np.random.default_rng([config["seed"], epoch])
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        users = 0
        for batch in training_batches(
            self.data,
            rng,
            config["batch_size"],
            config["model"]["maxlen"],
            config["negatives"],
            self.in_rows,
        ):
            keys = self.tensor(rng.integers(2**32, size=(self.model.num_keys, 2)))
            targets, negatives = self.tensor(batch.targets), self.tensor(batch.negatives)
            loss = self.model.loss(*self.inputs(batch), targets, negatives, keys)
            self.optimizer.zero_grad()
            loss.backward()
            if config["max_grad_norm"] is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), config["max_grad_norm"])
            self.optimizer.step()
            total += loss.detach() * batch.num_users
            users += batch.num_users
        mean = float(total / users)
        self.seconds["train"] += time.perf_counter() - start
        return mean

    @torch.inference_mode()
    def ranks(self, split: str) -> np.ndarray:
        """Rank of every evaluated user's held-out item among all items not had before."""
        start = time.perf_counter()
        weight = self.model.item_weight()
        ranks = []
        size, maxlen = self.config["eval_batch_size"], self.config["model"]["maxlen"]
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
            "hash": run_hash,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
            "evaluations": self.evaluations,
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
        if state["hash"] != run_hash:
            return
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
    except (HydraException, TypeError, ValueError) as error:
        reason = error.__cause__ or error
        raise ConfigError(f"{key}: {' '.join(str(reason).split())}") from None


def is_finished(path: Path, identity: Mapping[str, Any], force: bool) -> bool:
    """Whether the record at ``path`` is this very run's, so that it can be skipped.

    Raises:
        ConfigError: there is a finished record of another config and no ``force``.
    """
    if force or not path.exists():
        return False
    record = run_record.read(path)
    if record["status"] != "finished":
        return False
    changed = run_record.differences(record["config"], identity)
    if changed:
        raise ConfigError(
            f"{path} holds a finished run of another config ({'; '.join(changed)}); "
            "force=true replaces it, results.name=NAME or results.root=DIR keeps both"
        )
    return True


def rerun_command(name: str) -> str:
    """A command line that does this run again."""
    overrides = HydraConfig.get().overrides.task
    dropped = ("results.root", "results.name", "data.root", "tracker.mode", "force", "device")
    kept = [o for o in overrides if o.split("=")[0].lstrip("+") not in dropped]
    kept.append(f"results.name={name}" if "=" not in name else f"results.name='{name}'")
    return shlex.join(["python", "-m", "scripts.train", *kept])


def pick_device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch finds no GPU; use device=cpu or auto")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def headline(record: Mapping[str, Any]) -> str:
    test = record["test"]
    return (
        f"HR@10 {test['HR@10']:.4f}, NDCG@10 {test['NDCG@10']:.4f}, best epoch "
        f"{record['best_epoch']}, loss {record['history'][-1]['train/loss']:.4f}"
    )


def report(error: Exception) -> int:
    """Print one line, return the exit code: 1 for a failed training, 2 for a user's mistake."""
    line = " ".join(str(error).split("Config search path")[0].split())
    print(f"error: {line}", file=sys.stderr)
    return 1 if isinstance(error, RunFailed) else 2


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
def hydra_main(cfg: DictConfig) -> None:
    try:
        run(cfg)
    except (ConfigError, DataError, RunFailed) as error:  # the sweep's other runs go on
        exit_codes.append(report(error))


def main() -> int:
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come here instead of being printed
    try:
        hydra_main()
    except (HydraException, OmegaConfBaseException) as error:
        return report(error)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last evaluation", file=sys.stderr)
        return 130
    return max(exit_codes)


if __name__ == "__main__":
    sys.exit(main())
