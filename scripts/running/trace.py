"""The status file and the log of a run, which other processes can read while it is trained."""

import time
import traceback
from contextlib import suppress
from types import TracebackType
from typing import Self

from scripts.records.errors import UserError
from scripts.records.run_files import RunFiles
from scripts.records.status import Status
from scripts.running.config import one_line


class Trace:
    """The status and the log of a run, whose lock the caller holds.

    Used in a ``with`` statement, it records the error that ends the block. Ctrl-C is no error.

    Args:
        command: trains this run alone.
        epochs: the number of epochs of the whole training.
    """

    def __init__(self, files: RunFiles, command: str, epochs: int) -> None:
        self.files = files
        self.status = Status(command, epochs)
        self.begin: tuple[int, float] | None = None  # epoch and time of this process's start
        self.status.write(files.status)
        self.log(f"process {self.status.pid} on {self.status.host}: {command}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self.record_failure(error)

    def write_progress(self, epoch: int, metrics: dict[str, float]) -> None:
        """Write the epoch of the latest checkpoint, the loss and the expected end.

        Args:
            metrics: the latest ``loss`` and ``NDCG@10``, each if there is one.
        """
        now = time.time()
        if self.begin is None:
            self.begin = epoch, now
        first, began = self.begin
        if epoch > first:
            remaining = self.status.epochs - epoch
            self.status.expected_end = now + remaining * (now - began) / (epoch - first)
        self.status.epoch, self.status.loss = epoch, metrics.get("loss")
        self.status.write(self.files.status)
        values = "".join(f", {name} {value:.4f}" for name, value in metrics.items())
        self.log(f"epoch {epoch} of {self.status.epochs}{values}")

    def record_failure(self, error: Exception) -> None:
        """Write why the run failed, and add the log's path to the error."""
        if self.status.error is None:  # else it is written already
            reason = one_line(error).removeprefix(f"{self.files.record}: ")
            self.status.error = reason or type(error).__name__
            self.log("".join(traceback.format_exception(error)).rstrip())
            error.add_note(f"log: {self.files.log}")
            with suppress(UserError):  # the disk may be full, which may be the error itself
                self.status.write(self.files.status)

    def log(self, text: str) -> None:
        with suppress(OSError), self.files.log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
