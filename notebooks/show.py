"""Run commands in a notebook, and show the tables and figures of a results folder."""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from IPython.core.pylabtools import print_figure
from IPython.display import Image, Markdown, display

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.reporting import note, plots, render
from scripts.reporting.collect import load
from scripts.reporting.studies import of_study, studies
from scripts.reporting.tables import tables


class Shown:
    """The tables and figures of the CSV files in the folder ``root``."""

    def __init__(self, root: Path) -> None:
        self.results = load(root)
        self.studies = studies(self.results)

    def tables(self, *names: str) -> None:
        """Show the tables with these names: ``STUDY/NAME``, or ``NAME`` for all studies."""

        def wanted(name: str) -> bool:
            return name in names or name.split("/")[-1] in names

        for name, table in tables(self.studies, wanted).items():
            title = f"**{name.rpartition('/')[0] or name}**: {table.caption}"
            parts = map(render.markdown, render.narrow(table.frame))
            display(Markdown("\n\n".join([title, *parts])))

    def figures(self, kind: str, *names: str) -> None:
        """Draw the figure ``kind`` of ``plots.FIGURES`` for these studies, or all that have it."""
        for study in self.studies:
            shown = not names or study.name in names
            if shown and (figure := plots.FIGURES[kind](study)):
                display(Image(print_figure(figure), alt=f"{kind} of {study.name}"))


COMMITTED = Shown(ROOT / "results")
show_tables, show_figures = COMMITTED.tables, COMMITTED.figures


def show_power() -> None:
    """Print how often the rule of the verdicts calls one more run of ours reproduced."""
    one, off = note.pass_probability(5), note.pass_probability(5, 3)
    print(f"one metric: {one:.2f}; off by three stds: {off:.2f}")
    ablation = of_study(COMMITTED.results.runs, ("ablation", "sasrec", "beauty"))
    print(f"all three metrics of a variant: {note.probability_all_reproduced(ablation):.2f}")


class Failed(Exception):
    """A command has failed. It has printed why, so a notebook shows no traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def run(command: str) -> None:
    """Run ``python -m MODULE ...`` in the current folder and print what it prints.

    Raises:
        Failed: the command fails.
    """
    python, *arguments = shlex.split(command)
    assert python == "python"
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | {"PYTHONPATH": str(ROOT)}
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE"):  # Jupyter sets them
        environment.pop(name, None)
    with subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line.replace(f"{ROOT}/", ""), end="")
    if process.returncode:
        raise Failed(f"the command failed: {command}")


def enter_temporary_folder() -> tempfile.TemporaryDirectory:
    """Change to a temporary folder. It is removed when the returned object is."""
    folder = tempfile.TemporaryDirectory()
    os.chdir(folder.name)
    return folder


def write(name: str, text: str) -> None:
    """Write a file into the current folder, and the folders of its name."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text.lstrip("\n"))
