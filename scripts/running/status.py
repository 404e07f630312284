"""The table of scripts.status, printed once or live."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from scripts.records.run_files import find_runs
from scripts.records.state import Phase, State, state_of
from scripts.running.plan import compose_runs, plan

STYLES: dict[Phase, str] = {"failed": "red", "running": "cyan", "to do": "dim", "done": "green"}
WIDTH = 100  # columns
STALE_SECONDS = 600.0  # without an update for so long, a run on another host may be dead
REFRESH_SECONDS = 2.0  # seconds between two readings


def state_reader(overrides: Sequence[str]) -> Callable[[], list[State]]:
    """A function that reads the states of the runs of ``scripts.train -m OVERRIDES``.

    Without overrides, or with ``results.root`` alone, these are all runs below ``results.root``.

    Raises:
        HydraException: the overrides do not fit together.
        UserError, DataError: a value is wrong.
    """
    planned = plan(overrides)
    if all(override.startswith("results.root=") for override in overrides):
        return lambda: [state_of(files) for files in find_runs(planned.root)]
    runs = compose_runs(planned.runs)
    return lambda: [state_of(files, config) for files, config in runs]


def show(read_states: Callable[[], list[State]], watch: bool) -> None:
    """Print the states of runs; with ``watch`` again and again, until all runs have ended."""
    console = Console(width=None if sys.stdout.isatty() and Console().width < WIDTH else WIDTH)
    states = read_states()
    if watch:
        with Live(rendered(states), console=console, auto_refresh=False) as live:
            while any(state.phase in ("running", "to do") for state in states):
                time.sleep(REFRESH_SECONDS)
                states = read_states()
                live.update(rendered(states), refresh=True)
    else:
        console.print(rendered(states))
    for state in states:
        if state.retry_command:  # on one line, to be copied
            console.print(Text(state.retry_command), soft_wrap=True)


def rendered(states: Sequence[State]) -> Group:
    return Group(summary(states), table(states))


def summary(states: Sequence[State]) -> Text:
    """The number of runs in each phase, and when all will be done."""
    counts = Counter(state.phase for state in states)
    line = Text(f"{len(states)} run{'' if len(states) == 1 else 's'}: ")
    for i, (phase, style) in enumerate(STYLES.items()):
        line.append(", " if i else "").append(f"{counts[phase]} {phase}", style)
    eta = seconds_to_end(states)
    return line if eta is None else line.append(f"; ETA {tqdm.format_interval(eta)}")


def seconds_to_end(states: Sequence[State]) -> float | None:
    """Seconds until all runs are done by as many processes as now; None if it is unknown."""
    running = [state.eta_seconds for state in states if state.phase == "running"]
    known = [eta for eta in running if eta is not None]
    to_do = sum(state.phase == "to do" for state in states)
    durations = [s.train_seconds for s in states if s.train_seconds is not None]
    if not known or (to_do and not durations):
        return None
    mean = sum(durations) / len(durations) if durations else 0.0
    return max(max(known), (sum(known) + to_do * mean) / len(running))


def stale_remark(seconds: float) -> str:
    """A remark for a run on another host whose status file is old; empty for others."""
    if seconds <= STALE_SECONDS:
        return ""
    return f", no update for {tqdm.format_interval(seconds)} (the process may be dead)"


def table(states: Sequence[State]) -> Table:
    """A row per run, in the order of STYLES: failed runs first."""
    lines = Table(box=SIMPLE, pad_edge=False)
    lines.add_column("phase")
    lines.add_column("run", overflow="fold")
    for name in ("epoch", "loss", "ETA"):
        lines.add_column(name, justify="right", no_wrap=True)
    lines.add_column("", overflow="fold")
    order = list(STYLES)
    for state in sorted(states, key=lambda state: order.index(state.phase)):
        lines.add_row(
            Text(state.phase, STYLES[state.phase]),
            Text(f"{state.files.folder}/{state.files.name}"),
            state.epochs,
            "" if state.loss is None else f"{state.loss:.4f}",
            "" if state.eta_seconds is None else tqdm.format_interval(state.eta_seconds),
            Text(state.remark + stale_remark(state.seconds_since_update)),
        )
    return lines
