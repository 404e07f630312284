"""One run: opened from a config, trained, tested, recorded."""

import re
import shlex
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from tqdm import tqdm

from data.prepare import Prepared, dataset_name, prepare, statistics
from scripts.records.errors import RunFailed, UserError
from scripts.records.files import locked, remove_partials, write_json
from scripts.records.record import differences, digest, identity, read_record
from scripts.records.users import Users, read_users, write_users
from scripts.running import weights
from scripts.running.config import checked
from scripts.running.naming import choices, flat, record_name
from scripts.running.progress import message
from scripts.running.provenance import REPOSITORY, provenance
from scripts.running.tracking import Mode, tracked, tracking_mode
from scripts.running.training import Training

# Whoever reruns a record chooses these.
NOT_IN_COMMAND = (
    *("results.root", "results.name", "data.root", "tracker.mode", "force", "save_best", "device"),
)


@dataclass
class Run:
    """A training and where its record and checkpoint lie."""

    tracker_mode: Mode
    training: Training
    path: Path  # of the record
    checkpoint: Path
    start: dict[str, Any]  # what a record holds before any training
    label: str

    def complete(self) -> dict[str, Any]:
        """Train to the end, test, write the record and return it.

        Raises:
            RunFailed: the loss is NaN or infinite; the record then says so.
        """
        config = self.training.config
        with tracked(self.tracker_mode, config, self.start, self.path, self.label) as (
            log,
            log_record,
        ):
            try:
                for entry in self.training.history:  # of a checkpoint or of a joint training
                    log(entry)
                self.training.fit(self.checkpoint, self.start["config_hash"], log, self.label)
            except RunFailed as failure:
                raise self.failed(failure) from None
            record = {**self.start, **self.training.summary(), **self.training.test()}
            self.write(record)
            self.checkpoint.unlink(missing_ok=True)
            log_record(record)
        tqdm.write(f"{self.path}: {headline(record)}", file=sys.stderr)
        return record

    def failed(self, failure: RunFailed) -> RunFailed:
        """Write the record of a failure; returns the failure with the record's name."""
        failed = {"status": "failed", "error": str(failure)}
        self.write({**self.start, **self.training.summary(), **failed})
        return RunFailed(f"{self.path}: {failure}")

    def write(self, record: Mapping[str, Any]) -> None:
        """Write the record. With ``save_best``, the weights are there before the record is."""
        keep = self.training.config["save_best"] and record["status"] == "finished"
        if keep:
            weights.save(self.path, record, self.training.best)
        write_json(self.path, record)
        if not keep:  # they belong to a record that this one has replaced
            weights.path_of(self.path).unlink(missing_ok=True)


def open_run(cfg: DictConfig, lock: ExitStack) -> Run | dict[str, Any] | None:
    """The run of a config, ready to train and locked in ``lock``.

    Returns the record instead if the run is finished, and None if another process is at it.

    Raises:
        UserError: a value is wrong, or the record's place holds a run of another config.
        DataError: the dataset cannot be used.
    """
    config, names = checked(cfg), choices()
    device = pick_device(config["device"])
    prepared = prepare(config["data"])
    dataset = dataset_name(prepared.path.stem if names["data"] == "file" else names["data"])
    identified = identity(config, prepared.sha256)
    name = record_name(config, names)
    root, folder = Path(config["results"]["root"]), Path(dataset) / flat(names["optimizer"])
    path = root / "runs" / folder / f"{name}.json"
    work = root / "checkpoints" / folder
    if not lock.enter_context(locked(work / f"{name}.lock")):
        message(f"{path}: another process is at it, skipped")
        return None
    checkpoint = work / f"{name}.pt"
    for file in (path, checkpoint, weights.path_of(path)):
        remove_partials(file)
    remember_users(root, dataset, prepared)
    if not config["force"] and (record := finished(path, identified)):
        if config["save_best"] and not weights.path_of(path).exists():
            raise UserError(
                f"{path}: finished without weights; save_best=true needs another training: "
                "results.root=DIR keeps this record, force=true replaces it"
            )
        message(f"{path}: finished already, skipped")
        return record
    start = {
        "status": "finished",
        "dataset": dataset,
        **{key: names[key] for key in ("model", "optimizer", "experiment")},
        "seed": config["seed"],
        "command": rerun_command(name),
        "config": identified,
        "config_hash": digest(identified),
        **provenance(device),
        "data": {
            "sha256": prepared.sha256,
            **statistics(prepared.sequences),
            "understood": prepared.understood,
        },
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    tracker_mode = tracking_mode(config["tracker"]["mode"])
    training = Training(config, prepared.sequences, device)
    training.resume(checkpoint, start["config_hash"])
    label = f"{dataset}-{names['optimizer']}-{name}"
    return Run(tracker_mode, training, path, checkpoint, start, label)


def remember_users(root: Path, dataset: str, prepared: Prepared) -> None:
    """Write what comparisons ask of a dataset's users, unless it is there."""
    if read_users(root, dataset, prepared.sha256) is None:
        data = prepared.sequences
        users = Users(data.test_popularity, data.lengths[data.evaluated] - 1)
        write_users(root, dataset, prepared.sha256, users)


def finished(path: Path, identified: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of this very run, if it is finished.

    Raises:
        UserError: there is a finished record of another config, or a file that is no record.
    """
    if not path.exists():
        return None
    record = read_record(path)
    if record["status"] != "finished":
        return None
    changed = differences(record["config"], identified)
    if changed:
        raise UserError(
            f"{path} holds a finished run of another config ({'; '.join(changed)}); "
            "force=true replaces it, results.name=NAME or results.root=DIR keeps both"
        )
    return record


def rerun_command(name: str) -> str:
    """A command line that does this run again."""
    hydra = HydraConfig.get()
    sources = hydra.runtime.config_sources
    folders = [Path(s.path) for s in sources if s.provider == "command-line"]  # --config-dir
    here = [d.relative_to(REPOSITORY) if d.is_relative_to(REPOSITORY) else d for d in folders]
    overrides = hydra.overrides.task
    kept = [f"--config-dir={folder}" for folder in here]
    kept += [o for o in overrides if o.split("=")[0].lstrip("+") not in NOT_IN_COMMAND]
    plain = re.fullmatch(r"[\w.-]+", name)  # Hydra reads other names only in quotes
    kept.append(f"results.name={name}" if plain else f"results.name='{name}'")
    threads = f"OMP_NUM_THREADS={torch.get_num_threads()}"  # another number may round otherwise
    return f"{threads} {shlex.join(['python', '-m', 'scripts.train', *kept])}"


def pick_device(device: str) -> torch.device:
    """Raises UserError for a GPU that is not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch finds no GPU; use device=cpu or auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def headline(record: Mapping[str, Any]) -> str:
    """A record's main figures in one line."""
    test = record["test"]
    return (
        f"HR@10 {test['HR@10']:.4f}, NDCG@10 {test['NDCG@10']:.4f}, best epoch "
        f"{record['best_epoch']}, loss {record['history'][-1]['train/loss']:.4f}"
    )
