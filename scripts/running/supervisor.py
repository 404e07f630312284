"""A sweep in several processes: this one starts them and displays their bars and messages."""

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
from scripts.records.torchrun import started_by_torchrun
from scripts.running.children import children, run_module
from scripts.running.plan import plan
from scripts.running.progress import EVENT, LOG_SECONDS, SWEEP_BEGAN, LogBar

REPORTING_MODULES = ("scripts.aggregate", "scripts.make_tables", "scripts.make_figures")


def sweep(overrides: list[str], jobs: int) -> int:
    """Train the runs of ``scripts.train -m OVERRIDES`` in ``jobs`` processes, then report.

    Every process goes through all runs and trains those that no other process trains. Returns the
    exit code: 1 for a failed training, 2 for an error that the user can correct. If it is not 0,
    there is no report: no CSV files, tables or figures.

    Raises:
        HydraException: the overrides do not fit together.
        UserError: they name another launcher or sweeper, or torchrun has started this process.
    """
    if started_by_torchrun():
        raise UserError(
            "scripts.sweep cannot run under torchrun; use `torchrun ... -m scripts.train -m`"
        )
    planned = plan(overrides)
    if planned.plugins:
        plugins = " ".join(planned.plugins)
        raise UserError(f"scripts.sweep does not take {plugins}; use scripts.train -m")
    runs = len(planned.runs)
    command = ["scripts.train", "-m", *overrides]
    settings = {"OMP_NUM_THREADS": "1", SWEEP_BEGAN: str(time.time()), "PYTHONUNBUFFERED": "1"}
    with children([command] * min(jobs, runs), settings, subprocess.PIPE) as processes:
        Display(runs, len(processes)).show(processes)
        code = max(exit_code(process.wait()) for process in processes)
    for module in REPORTING_MODULES if code == 0 else ():
        code = code or run_module([module, f"results.root={planned.root}"])
    return code


class Display:
    """Prints the messages of a sweep's processes and draws their bars; a log gets few lines."""

    def __init__(self, runs: int, processes: int) -> None:
        self.ended: set[int] = set()  # the numbers in the sweep of the runs that have ended
        self.printed: set[str] = set()  # several processes may send the same error
        self.due = time.monotonic() + LOG_SECONDS
        self.bars = []
        if sys.stderr.isatty():
            self.total = tqdm(total=runs, desc="sweep", unit="run", smoothing=0, leave=False)
            plain: Any = {"bar_format": "{desc}", "leave": False}
            self.bars = [tqdm(position=i + 1, **plain) for i in range(processes)]
        else:
            self.total = LogBar(
                total=runs, desc="sweep", unit="run", leave=False, delay=LOG_SECONDS
            )

    def show(self, processes: Sequence[subprocess.Popen[str]]) -> None:
        """Display events and messages until all processes have ended."""
        lines: queue.Queue[tuple[int, str]] = queue.Queue()
        readers = [
            threading.Thread(target=read_lines, args=(i, process, lines), daemon=True)
            for i, process in enumerate(processes)
        ]
        for reader in readers:
            reader.start()
        try:
            while any(reader.is_alive() for reader in readers) or not lines.empty():
                try:
                    self.handle(*lines.get(timeout=0.2))
                except queue.Empty:
                    self.refresh()
        finally:
            for each in (*self.bars, self.total):
                each.close()

    def handle(self, number: int, line: str) -> None:
        """Display an event or a message of a process.

        Args:
            number: the index of the process.
        """
        if not line.startswith(EVENT):
            if line not in self.printed:
                self.printed.add(line)
                self.write(line.rstrip("\n"))
            return
        event = json.loads(line.removeprefix(EVENT))
        if "bar" in event and self.bars:
            self.bars[number].set_description_str(event["bar"])
        if "run" in event and event["run"] not in self.ended:
            self.ended.add(event["run"])
            if not event["trained"]:  # a skipped run takes no time and must not change the ETA
                self.total.initial += 1
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
            self.due += LOG_SECONDS
            self.total.refresh()


def read_lines(
    number: int, process: subprocess.Popen[str], lines: queue.Queue[tuple[int, str]]
) -> None:
    """Put (number, line) into the queue for each line of a process."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.put((number, line))


def exit_code(code: int) -> int:
    """The exit code of a process; 1 for one that was killed."""
    if code < 0:
        name = signal.Signals(-code).name
        print(f"error: a process was ended by {name}; the same command resumes", file=sys.stderr)
        return 1
    return code
