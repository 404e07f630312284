"""One run, from its config to its record."""

import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from tqdm import tqdm

from data.prepare import Prepared, prepare, statistics
from data.sequences import Sequences
from scripts.records.errors import RunFailed, UserError
from scripts.records.files import locked, write_json
from scripts.records.record import differences, digest, identity, read_record
from scripts.records.run_files import RunFiles
from scripts.records.status import read_status
from scripts.records.torchrun import START
from scripts.records.users import Users, users_path, write_users
from scripts.running import weights
from scripts.running.config import checked
from scripts.running.data_parallel import DataParallel
from scripts.running.naming import choices, run_files_of
from scripts.running.progress import message, sweep_began
from scripts.running.provenance import REPOSITORY, provenance
from scripts.running.trace import Trace
from scripts.running.tracking import Mode, tracked, tracking_mode
from scripts.running.training import Training
from scripts.running.workers import Workers, device_of, require_worker_count

# A record's command omits these overrides, so that whoever reruns it can choose them. The record's
# own name is then added as results.name.
NOT_IN_COMMAND = (
    *("results.root", "results.name", "data.root", "tracker.mode", "force", "save_best", "device"),
)


@dataclass
class Run:
    """A training with its files, status and tracker."""

    tracker_mode: Mode
    training: Training
    files: RunFiles
    trace: Trace
    initial: dict[str, Any]  # the result of ``initial_record``
    label: str

    def complete(self) -> dict[str, Any]:
        """Train to the end, test, write the record and return it.

        Raises:
            RunFailed: the loss is NaN or infinite; the record then says so.
        """
        config, path = self.training.config, self.files.record
        tracker = tracked(self.tracker_mode, config, self.initial, path, self.label)
        with tracker as (log, log_record):
            try:
                for entry in self.training.history:  # epochs of a checkpoint or joint training
                    log(entry)
                self.training.fit(self.save, log, self.label)
            except RunFailed as failure:
                raise self.record_failure(failure) from None
            record = {**self.initial, **self.training.summary(), **self.training.test()}
            self.write(record)
            self.files.clear()
            log_record(record)
        tqdm.write(f"{path}: {result_line(record)}", file=sys.stderr)
        return record

    def save(self) -> None:
        """Write the checkpoint and the status.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        self.training.save_checkpoint(self.files.checkpoint, self.initial["config_hash"])
        self.trace.write_progress(len(self.training.history), self.training.latest())

    def record_failure(self, failure: RunFailed) -> RunFailed:
        """Write the record of a failure; returns the failure with the record's path."""
        failed = {"status": "failed", "error": str(failure)}
        self.write({**self.initial, **self.training.summary(), **failed})
        named = RunFailed(f"{self.files.record}: {failure}")
        self.trace.record_failure(named)
        return named

    def write(self, record: Mapping[str, Any]) -> None:
        """Write the record. With ``save_best``, write the weights first."""
        keep = self.training.config["save_best"] and record["status"] == "finished"
        if keep:
            weights.save(self.files.record, record, self.training.best)
        write_json(self.files.record, record)
        if not keep:  # existing weights belong to the record that is replaced
            self.files.weights.unlink(missing_ok=True)


@dataclass
class Follower:
    """A training on a worker that is not the leader: it writes and prints nothing.

    Args:
        save: sends this worker's part of the checkpoint, for which the leader waits.
    """

    training: Training
    save: Callable[[], None]

    def complete(self) -> dict[str, Any]:
        """Train and test with the other workers; returns the results as in the record.

        Raises:
            RunFailed: the loss is NaN or infinite.
        """
        self.training.fit(self.save, lambda entry: None, "")
        return {**self.training.summary(), **self.training.test()}


@dataclass
class Claim:
    """A run that this process has locked and is going to train."""

    trace: Trace
    tracker_mode: Mode


def open_run(
    cfg: DictConfig, stack: ExitStack, workers: Workers
) -> Run | Follower | dict[str, Any] | None:
    """Lock the run of a config and prepare its training.

    Args:
        stack: holds the run's lock and its trace.

    Returns:
        A Run on the leader, a Follower on the other workers. The record if the run is finished.
        None if another process trains it, or if it has failed in this sweep.

    Raises:
        UserError: a value is wrong, or the record's path holds a run of another config.
        DataError: the dataset cannot be used.
    """

    def read() -> tuple[dict[str, Any], torch.device, Prepared, RunFiles]:
        config = checked(cfg)
        require_worker_count(config, workers)
        device = pick_device(config["device"])
        return config, device, prepare(config["data"]), run_files_of(config, choices())

    def built() -> Training:
        if workers.has_process_group:
            return DataParallel(config, prepared.sequences, device, workers)
        return Training(config, prepared.sequences, device)

    config, device, prepared, files = workers.on_each(read)
    run_identity = identity(config, prepared.sha256)
    claim = workers.on_leader(
        lambda: claim_run(files, config, run_identity, prepared, workers, stack)
    )
    if not isinstance(claim, Claim):
        return claim
    training, config_hash = workers.on_each(built), digest(run_identity)
    training.load_checkpoint(files.checkpoint, config_hash)
    workers.on_leader(lambda: claim.trace.write_progress(len(training.history), training.latest()))
    if not workers.is_leader:
        return Follower(training, lambda: training.save_checkpoint(files.checkpoint, config_hash))
    initial = initial_record(config, run_identity, device, prepared, files, workers)
    label = f"{initial['dataset']}-{initial['optimizer']}-{files.name}"
    return Run(claim.tracker_mode, training, files, claim.trace, initial, label)


def initial_record(
    config: Mapping[str, Any],
    run_identity: Mapping[str, Any],
    device: torch.device,
    prepared: Prepared,
    files: RunFiles,
    workers: Workers,
) -> dict[str, Any]:
    """The keys of a record that are known before the training."""
    names = choices()
    return {
        "status": "finished",
        "dataset": files.folder.split("/")[0],
        **{key: names[key] for key in ("model", "optimizer", "experiment")},
        "seed": config["seed"],
        "command": rerun_command(overrides_of(config), files.name, workers),
        "config": run_identity,
        "config_hash": digest(run_identity),
        **provenance(device),
        **({"workers": workers.count} if workers.has_process_group else {}),
        "data": {
            "sha256": prepared.sha256,
            **statistics(prepared.sequences),
            "understood": prepared.understood,
        },
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def claim_run(
    files: RunFiles,
    config: Mapping[str, Any],
    run_identity: Mapping[str, Any],
    prepared: Prepared,
    workers: Workers,
    stack: ExitStack,
) -> Claim | dict[str, Any] | None:
    """Lock a run that is to be trained.

    Returns:
        A Claim. The record if the run is finished; None if another process trains it, or if it has
        failed in this sweep.

    Raises:
        UserError: another run has this name, or ``save_best`` asks for weights that do not exist.
    """
    again = command(overrides_of(config), workers)
    if not stack.enter_context(locked(files.lock)):
        status = read_status(files.status)
        if status and status.is_of_this_process() and status.command != again:
            raise UserError(f"{files.record}: two runs of this command have this name")
        message(f"{files.record}: another process trains it, skipped ({holder(files)})")
        return None
    files.remove_partials()
    dataset = files.folder.split("/")[0]
    users = users_path(files.root, dataset, run_identity["data"])
    write_users_once(users, prepared.sequences)
    # Another process of this sweep may have trained it with force=true already.
    is_new = files.record.exists() and files.record.stat().st_mtime > sweep_began()
    if (is_new or not config["force"]) and (record := finished_record(files, run_identity)):
        files.clear()
        if config["save_best"] and not files.weights.exists():
            raise UserError(
                f"{files.record}: finished without weights; save_best=true needs another training: "
                "results.root=DIR keeps this record, force=true replaces it"
            )
        message(f"{files.record}: finished already, skipped")
        return record
    if (earlier := read_status(files.status)) and earlier.error and earlier.updated > sweep_began():
        return None
    trace = stack.enter_context(Trace(files, again, config["epochs"]))
    return Claim(trace, tracking_mode(config["tracker"]))


def write_users_once(path: Path, data: Sequences) -> None:
    """Write the file of a dataset's users if it does not exist."""
    if not path.exists():
        write_users(path, Users(data.test_popularity, data.lengths[data.evaluated] - 1))


def finished_record(files: RunFiles, run_identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a run of this identity, if it is finished.

    Raises:
        UserError: there is a finished record of another config, or a file that is no record.
    """
    if not files.record.exists():
        return None
    record = read_record(files.record)
    if record["status"] != "finished":
        return None
    changed = differences(record["config"], run_identity)
    if changed:
        raise UserError(
            f"{files.record} holds a finished run of another config ({'; '.join(changed)}); "
            "force=true replaces it, results.name=NAME or results.root=DIR keeps both"
        )
    return record


def holder(files: RunFiles) -> str:
    """Which process holds the lock of a run, in words."""
    status = read_status(files.status)
    return f"process {status.pid} on {status.host}" if status else str(files.lock)


def overrides_of(config: Mapping[str, Any]) -> list[str]:
    """The overrides of a run. If workers exchange votes, they contain ``workers=N``."""
    overrides = list(HydraConfig.get().overrides.task)
    if config["gradients"] == "float32":
        return overrides
    return [*(o for o in overrides if key_of(o) != "workers"), f"workers={config['workers']}"]


def rerun_command(overrides: Sequence[str], name: str, workers: Workers) -> str:
    """The command line in a run's record: without NOT_IN_COMMAND, with the record's name."""
    kept = [o for o in overrides if key_of(o) not in NOT_IN_COMMAND]
    plain = re.fullmatch(r"[\w.-]+", name)  # Hydra reads other names only in quotes
    kept.append(f"results.name={name}" if plain else f"results.name='{name}'")
    return command(kept, workers)


def command(overrides: Sequence[str], workers: Workers) -> str:
    """The command line that trains one run, without a launcher."""
    sources = HydraConfig.get().runtime.config_sources
    folders = [Path(s.path) for s in sources if s.provider == "command-line"]  # --config-dir
    here = [d.relative_to(REPOSITORY) if d.is_relative_to(REPOSITORY) else d for d in folders]
    kept = [f"--config-dir={folder}" for folder in here]
    kept += [o for o in HydraConfig.get().overrides.hydra if key_of(o) == "hydra.searchpath"]
    kept += [o for o in overrides if key_of(o) != "launcher"]
    # With another number of threads, results may differ in their last digits.
    threads = f"OMP_NUM_THREADS={torch.get_num_threads()}"
    start = START.format(workers.count) if workers.has_process_group else "python -m scripts.train"
    return f"{threads} {start} {shlex.join(kept)}"


def key_of(override: str) -> str:
    return override.split("=")[0].lstrip("+")


def pick_device(device: str) -> torch.device:
    """The device of the config's ``device``; ``auto``: a GPU if torch finds one.

    Raises:
        UserError: there is no GPU, or this host has fewer GPUs than workers.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch finds no GPU; use device=cpu or auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return device_of(device)


def result_line(record: Mapping[str, Any]) -> str:
    """A record's test metrics, best epoch and loss in one line."""
    test = record["test"]
    return (
        f"HR@10 {test['HR@10']:.4f}, NDCG@10 {test['NDCG@10']:.4f}, best epoch "
        f"{record['best_epoch']}, loss {record['history'][-1]['train/loss']:.4f}"
    )
