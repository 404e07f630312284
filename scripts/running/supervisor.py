"""A sweep in several processes: one starts them, draws their bars, passes on their messages."""

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from scripts.records.errors import UserError
from scripts.records.rank import by_torchrun
from scripts.running.children import children, run
from scripts.running.plan import plan
from scripts.running.progress import EVENT, EVERY, WORKER, Log

AFTER = ("scripts.aggregate", "scripts.make_tables", "scripts.make_figures")


def sweep(overrides: list[str], jobs: int) -> int:
    """Train the runs of ``scripts.train -m OVERRIDES`` in ``jobs`` processes, then make the tables.

    Every process goes through all runs and takes those that no other has. Returns the exit code: 1
    for a failed training, 2 for a user's mistake; there are no tables then.

    Raises:
        HydraException: the overrides do not fit together.
        UserError: they name another launcher or sweeper, or torchrun has started this process.
    """
    if by_torchrun():
        raise UserError("scripts.sweep starts its own processes; under torchrun, scripts.train -m")
    planned = plan(overrides)
    if planned.foreign:
        others = " ".join(planned.foreign)
        raise UserError(f"scripts.sweep starts its own processes; {others} is for scripts.train -m")
    runs = len(planned.runs)
    command = ["scripts.train", "-m", *overrides]
    settings = {"OMP_NUM_THREADS": "1", WORKER: str(time.time()), "PYTHONUNBUFFERED": "1"}
    with children([command] * min(jobs, runs), settings, subprocess.PIPE) as workers:
        Display(runs, len(workers)).show(workers)
        code = max(exit_code(worker.wait()) for worker in workers)
    for module in AFTER if code == 0 else ():
        code = code or run([module, f"results.root={planned.root}"])
    return code


class Display:
    """What a user sees of the workers: their messages, and bars or, in a log, few lines."""

    def __init__(self, runs: int, workers: int) -> None:
        self.over: set[int] = set()  # runs that have ended, by their numbers in the sweep
        self.told: set[str] = set()  # all workers tell the same mistake
        self.due = time.monotonic() + EVERY
        self.bars = []
        if sys.stderr.isatty():
            self.total = tqdm(total=runs, desc="sweep", unit="run", smoothing=0, leave=False)
            plain: Any = {"bar_format": "{desc}", "leave": False}
            self.bars = [tqdm(position=i + 1, **plain) for i in range(workers)]
        else:
            self.total = Log(total=runs, desc="sweep", unit="run", leave=False, delay=EVERY)

    def show(self, workers: Sequence[subprocess.Popen[str]]) -> None:
        """Return when all workers have ended."""
        lines: queue.Queue[tuple[int, str]] = queue.Queue()
        readers = [
            threading.Thread(target=read, args=(i, worker, lines), daemon=True)
            for i, worker in enumerate(workers)
        ]
        for reader in readers:
            reader.start()
        try:
            while any(reader.is_alive() for reader in readers) or not lines.empty():
                try:
                    self.take(*lines.get(timeout=0.2))
                except queue.Empty:
                    self.refresh()
        finally:
            for each in (*self.bars, self.total):
                each.close()

    def take(self, worker: int, line: str) -> None:
        """An event or a message of a worker."""
        if not line.startswith(EVENT):
            if line not in self.told:
                self.told.add(line)
                self.write(line.rstrip("\n"))
            return
        event = json.loads(line.removeprefix(EVENT))
        if "bar" in event and self.bars:
            self.bars[worker].set_description_str(event["bar"])
        if "run" in event and event["run"] not in self.over:
            self.over.add(event["run"])
            self.total.initial += not event["trained"]  # it says nothing of a run's time
            self.total.n += 1
        self.refresh()

    def write(self, line: str) -> None:
        if self.bars:
            tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr)

    def refresh(self) -> None:
        if self.bars:
            self.total.refresh()
        elif time.monotonic() > self.due:
            self.due += EVERY
            self.total.refresh()


def read(number: int, worker: subprocess.Popen[str], lines: queue.Queue[tuple[int, str]]) -> None:
    """Put a worker's lines into the queue, each whole."""
    assert worker.stdout is not None
    for line in worker.stdout:
        lines.put((number, line))


def exit_code(code: int) -> int:
    """A worker's exit code; one that was killed has failed."""
    if code < 0:
        name = signal.Signals(-code).name
        print(f"error: a process was ended by {name}; the same command goes on", file=sys.stderr)
        return 1
    return code
