"""What a run tells others while it is trained: its status file and its log."""

import time
import traceback
from contextlib import suppress
from types import TracebackType
from typing import Self

from scripts.records.errors import UserError
from scripts.records.place import Place
from scripts.records.status import Status
from scripts.running.config import one_line


class Trace:
    """The status and the log of a run, whose lock the caller holds.

    As a context, it notes why the run failed if an exception ends it. An interrupt is no failure.

    Args:
        command: trains this run alone.
        epochs: of the whole training.
    """

    def __init__(self, place: Place, command: str, epochs: int) -> None:
        self.place = place
        self.status = Status(command, epochs)
        self.start: tuple[int, float] | None = (
            None  # the epoch and the time of this process's start
        )
        self.status.write(place.status)
        self.log(f"process {self.status.pid} on {self.status.host}: {command}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self.failed(error)

    def reached(self, epoch: int, figures: dict[str, float]) -> None:
        """Note the epoch that has just been saved, or resumed from.

        Args:
            figures: the latest loss, and others by their names.
        """
        now = time.time()
        if self.start is None:
            self.start = epoch, now
        first, began = self.start
        if epoch > first:
            left = self.status.epochs - epoch
            self.status.ends = now + left * (now - began) / (epoch - first)
        self.status.epoch, self.status.loss = epoch, figures.get("loss")
        self.status.write(self.place.status)
        told = "".join(f", {name} {value:.4f}" for name, value in figures.items())
        self.log(f"epoch {epoch} of {self.status.epochs}{told}")

    def failed(self, error: Exception) -> None:
        """Note why the run failed; the error then names the log."""
        if self.status.error is None:  # else it was noted where it was raised
            told = one_line(error).removeprefix(f"{self.place.record}: ")
            self.status.error = told or type(error).__name__
            self.log("".join(traceback.format_exception(error)).rstrip())
            error.add_note(f"log: {self.place.log}")
            with suppress(UserError):  # the disk may be full: that is the error
                self.status.write(self.place.status)

    def log(self, text: str) -> None:
        with suppress(OSError), self.place.log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
