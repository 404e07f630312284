"""Whether a run is done, running, failed or to do, from its record, status file and lock alone."""

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from scripts.records.errors import UserError
from scripts.records.record import differences, identity, read_record
from scripts.records.run_files import RunFiles
from scripts.records.status import Status, read_status

Phase = Literal["failed", "running", "to do", "done"]


@dataclass
class State:
    """A run as its files show it."""

    files: RunFiles
    phase: Phase
    epochs: str = ""  # TRAINED/ALL from a status, else TRAINED from the record
    loss: float | None = None
    remark: str = ""  # running: host and process; failed: the reason; done: NDCG@10 on test
    eta_seconds: float | None = None  # of a running run
    seconds_since_update: float = 0.0  # of the status file of a run on another host
    train_seconds: float | None = None  # of a finished run
    retry_command: str = ""  # trains a failed run again


def state_of(files: RunFiles, config: Mapping[str, Any] | None = None) -> State:
    """Read the files of a run. Nothing is locked or written.

    Args:
        files: the paths of the run's files.
        config: the checked config of the run. If given, the phase of a record with another config
            is "failed": the run cannot be trained under this name.
    """
    status = read_status(files.status)
    if status and files.lock.exists() and status.may_be_alive():
        return _running(files, status)
    try:
        record = read_record(files.record) if files.record.exists() else None
    except UserError as error:
        return State(files, "failed", remark=str(error))
    if record and record["status"] == "finished":
        return _finished(files, record, config)
    if status and status.error:
        return State(
            files,
            "failed",
            _epochs(status),
            status.loss,
            status.error,
            retry_command=status.command,
        )
    if record:
        retry = f"{record['command']} results.root={shlex.quote(str(files.root))}"
        epochs = str(len(record["history"]))
        return State(files, "failed", epochs, remark=record.get("error", ""), retry_command=retry)
    if status and status.epoch:
        return State(files, "to do", _epochs(status), status.loss, "resumes from its checkpoint")
    return State(files, "to do")


def _running(files: RunFiles, status: Status) -> State:
    now = time.time()
    eta = None if status.expected_end is None else max(0.0, status.expected_end - now)
    where = f"{status.host}, process {status.pid}"
    since_update = 0.0 if status.is_on_this_host() else now - status.updated
    return State(files, "running", _epochs(status), status.loss, where, eta, since_update)


def _finished(
    files: RunFiles, record: Mapping[str, Any], config: Mapping[str, Any] | None
) -> State:
    sha256 = record["config"].get("data", {}).get("sha256", "")
    if config and (changed := differences(record["config"], identity(config, sha256))):
        remark = f"the record is of another config ({'; '.join(changed)}); force=true replaces it"
        return State(files, "failed", remark=remark)
    epochs, loss = str(len(record["history"])), record["history"][-1]["train/loss"]
    remark = f"NDCG@10 {record['test']['NDCG@10']:.4f}"
    return State(files, "done", epochs, loss, remark, train_seconds=record.get("train_seconds"))


def _epochs(status: Status) -> str:
    return f"{status.epoch}/{status.epochs}"
