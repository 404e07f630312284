"""Show tables and figures in a notebook, from the CSV files of results/ or of SIMBA_RESULTS."""

import os
import sys
from pathlib import Path

from IPython.display import Markdown, display

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.reporting import plots, render
from scripts.reporting.collect import load
from scripts.reporting.studies import studies
from scripts.reporting.tables import tables

RESULTS = load(Path(os.environ.get("SIMBA_RESULTS", ROOT / "results")))
STUDIES = studies(RESULTS)
TABLES = tables(STUDIES)


def show_tables(*names: str) -> None:
    """Show the tables with these names: ``STUDY/NAME``, or ``NAME`` for those of all studies."""
    for name, table in TABLES.items():
        if name in names or name.split("/")[-1] in names:
            title = f"**{name.rpartition('/')[0] or name}**: {table.caption}"
            display(Markdown(f"{title}\n\n{render.markdown(table.frame)}"))


def show_figures(kind: str) -> None:
    """Draw the figure ``kind`` of ``plots.FIGURES`` for every study that has it."""
    for study in STUDIES:
        figure = plots.FIGURES[kind](study)
        if figure is not None:
            display(figure)
