"""A table of how far runs are, once or live."""

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

from scripts.records.place import places
from scripts.records.state import State, Word, state_of
from scripts.running.plan import composed, plan

STYLES: dict[Word, str] = {"failed": "red", "running": "cyan", "to do": "dim", "done": "green"}
WIDTH = 100  # columns
SILENT = 600.0  # seconds without a word, after which a run of another host may be dead
EVERY = 2.0  # seconds between two looks


def looking(overrides: Sequence[str]) -> Callable[[], list[State]]:
    """A function that reads the states of the runs of ``scripts.train -m OVERRIDES``.

    Without overrides, or with ``results.root`` alone, these are all runs below ``results.root``.

    Raises:
        HydraException: the overrides do not fit together.
        UserError, DataError: a value is wrong.
    """
    planned = plan(overrides)
    if all(override.startswith("results.root=") for override in overrides):
        return lambda: [state_of(place) for place in places(planned.root)]
    runs = composed(planned.runs)
    return lambda: [state_of(place, config) for place, config in runs]


def show(look: Callable[[], list[State]], watch: bool) -> None:
    """Print the states of runs; with ``watch`` again and again, until all runs have ended."""
    console = Console(width=None if sys.stdout.isatty() and Console().width < WIDTH else WIDTH)
    states = look()
    if watch:
        with Live(shown(states), console=console, auto_refresh=False) as live:
            while any(state.word in ("running", "to do") for state in states):
                time.sleep(EVERY)
                states = look()
                live.update(shown(states), refresh=True)
    else:
        console.print(shown(states))
    for state in states:
        if state.command:  # a line of its own, to be copied
            console.print(Text(state.command), soft_wrap=True)


def shown(states: Sequence[State]) -> Group:
    return Group(summary(states), table(states))


def summary(states: Sequence[State]) -> Text:
    """The number of runs in each state, and when all will be done."""
    counts = Counter(state.word for state in states)
    line = Text(f"{len(states)} run{'' if len(states) == 1 else 's'}: ")
    for i, (word, style) in enumerate(STYLES.items()):
        line.append(", " if i else "").append(f"{counts[word]} {word}", style)
    left = time_left(states)
    return line if left is None else line.append(f"; ETA {tqdm.format_interval(left)}")


def time_left(states: Sequence[State]) -> float | None:
    """Seconds until all runs are done by as many processes as now; None if nothing tells them."""
    running = [state.left for state in states if state.word == "running"]
    known = [left for left in running if left is not None]
    to_do = sum(state.word == "to do" for state in states)
    took = [state.took for state in states if state.took is not None]
    if not known or (to_do and not took):
        return None
    each = sum(took) / len(took) if took else 0.0
    return max(max(known), (sum(known) + to_do * each) / len(running))


def table(states: Sequence[State]) -> Table:
    """A line per run, in the order of STYLES: what needs a look stands first."""
    lines = Table(box=SIMPLE, pad_edge=False)
    lines.add_column("state")
    lines.add_column("run", overflow="fold")
    for name in ("epoch", "loss", "ETA"):
        lines.add_column(name, justify="right", no_wrap=True)
    lines.add_column("", overflow="fold")
    order = list(STYLES)
    for state in sorted(states, key=lambda state: order.index(state.word)):
        lines.add_row(
            Text(state.word, STYLES[state.word]),
            Text(f"{state.place.folder}/{state.place.name}"),
            state.epochs,
            "" if state.loss is None else f"{state.loss:.4f}",
            "" if state.left is None else tqdm.format_interval(state.left),
            Text(f"{state.note}, silent for {tqdm.format_interval(state.silent)}")
            if state.silent > SILENT
            else Text(state.note),
        )
    return lines
