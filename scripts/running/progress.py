"""The progress of a training: a bar on a terminal, a line every few minutes in a log.

A process of scripts.sweep draws nothing. It sends its bar's text to the supervisor, which draws all
bars: two processes that draw on one terminal would overwrite each other's lines.
"""

import json
import os
import sys
from contextlib import suppress
from typing import Any

from tqdm import tqdm

LOG_SECONDS = 180.0  # between two lines of a log
SWEEP_BEGAN = "SIMBA_SWEEP_BEGAN"  # set for a process of scripts.sweep: the Unix time of its start
EVENT = "\x1e"  # the first character of a line on stderr that is an event, not a message


class LogBar(tqdm):
    """A bar for a log file: it prints a whole line every LOG_SECONDS."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if msg != "":  # tqdm's way to clear a bar
            self.fp.write(f"{self.line()}\n")
            self.fp.flush()

    def line(self) -> str:
        n, total, elapsed = (self.format_dict[key] for key in ("n", "total", "elapsed"))
        done = n - self.initial
        eta = self.format_interval(elapsed / done * (total - n)) if done else "unknown"
        return f"{self.desc}: {n} of {total} {self.unit}s, ETA {eta}"


class SentBar(tqdm):
    """A bar that the supervisor draws."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        send(bar=str(self) if msg is None else msg)


def bar(**settings: Any) -> tqdm:
    """A progress bar for a sweep's process, a terminal or a log; it disappears when closed."""
    if in_sweep_process():
        return SentBar(**settings, leave=False)
    if sys.stderr.isatty():
        return tqdm(**settings, leave=False)
    return LogBar(
        **settings, leave=False, delay=LOG_SECONDS, mininterval=LOG_SECONDS, maxinterval=LOG_SECONDS
    )


def in_sweep_process() -> bool:
    """Whether scripts.sweep has started this process."""
    return SWEEP_BEGAN in os.environ


def sweep_began() -> float:
    """The Unix time when scripts.sweep began; infinity if it has not started this process."""
    return float(os.environ.get(SWEEP_BEGAN, "inf"))


def message(line: str) -> None:
    """Print a line to stderr; in a process of scripts.sweep, print nothing."""
    if not in_sweep_process():
        print(line, file=sys.stderr)


def send(**event: Any) -> None:
    """Send an event to the supervisor, if there is one; it may have been killed."""
    if in_sweep_process():
        with suppress(BrokenPipeError):
            print(f"{EVENT}{json.dumps(event)}", file=sys.stderr, flush=True)
