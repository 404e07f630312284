"""How far a training is: a bar on a terminal, a line every few minutes in a log.

A worker of a sweep draws nothing. It sends its bar's text to the sweep's supervisor, which draws
all bars: two processes that draw on one terminal would cut each other.
"""

import json
import os
import sys
from typing import Any

from tqdm import tqdm

EVERY = 180.0  # seconds between two lines of a log
WORKER = "SIMBA_WORKER"  # for a worker of a sweep: the Unix time when the sweep began
EVENT = "\x1e"  # starts a line that is an event and no message


class Log(tqdm):
    """A bar for a log: whole lines, few of them."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if msg != "":  # tqdm's way to clear a bar
            self.fp.write(f"{self.told()}\n")
            self.fp.flush()

    def told(self) -> str:
        n, total, took = (self.format_dict[key] for key in ("n", "total", "elapsed"))
        done = n - self.initial
        left = self.format_interval(took / done * (total - n)) if done else "unknown"
        return f"{self.desc}: {n} of {total} {self.unit}s, ETA {left}"


class Sent(tqdm):
    """A bar that the supervisor draws."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        send(bar=str(self) if msg is None else msg)


def bar(**settings: Any) -> tqdm:
    """A tqdm for where this process runs; it disappears at its end."""
    if is_worker():
        return Sent(**settings, leave=False)
    if sys.stderr.isatty():
        return tqdm(**settings, leave=False)
    return Log(**settings, leave=False, delay=EVERY, mininterval=EVERY, maxinterval=EVERY)


def is_worker() -> bool:
    return WORKER in os.environ


def sweep_began() -> float:
    """The Unix time when this worker's sweep began; infinity for a process that is no worker."""
    return float(os.environ.get(WORKER, "inf"))


def message(line: str) -> None:
    """Tell what only matters to a single process: a sweep's supervisor knows it from events."""
    if not is_worker():
        print(line, file=sys.stderr)


def send(**event: Any) -> None:
    """Send an event to the supervisor, if there is one."""
    if is_worker():
        print(f"{EVENT}{json.dumps(event)}", file=sys.stderr, flush=True)
