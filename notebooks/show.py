"""What the notebooks show: tables and figures, from the CSV files of results/ (SIMBA_RESULTS)."""

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
    """Show the tables whose names, as in results/tables, are given or end in one of these."""
    for name, table in TABLES.items():
        if name in names or name.split("/")[-1] in names:
            title = f"**{name.rpartition('/')[0] or name}**: {table.caption}"
            display(Markdown(f"{title}\n\n{render.markdown(table.frame)}"))


def show_figures(kind: str) -> None:
    """Draw a kind of figure, as in results/figures, for every study that has it."""
    for study in STUDIES:
        figure = plots.FIGURES[kind](study)
        if figure is not None:
            display(figure)
