"""Tables as Markdown and LaTeX."""

import re
import sys
from collections.abc import Mapping

import pandas as pd
import rich.console
import rich.table
import rich.text

from scripts.reporting.tables import MISSING, Table

NUMBER = re.compile(r"[-+−<\d\[]")
SYMBOLS = {"±": r"$\pm$", "−": "$-$", MISSING: "--", ">": "$>$", "<": "$<$"}


def markdown(frame: pd.DataFrame) -> str:
    """A table of text as Markdown; columns of numbers are right-aligned, others left-aligned."""
    text = frame.map(lambda cell: cell.replace("|", r"\|"))
    align = ["right" if is_number(frame[column]) else "left" for column in frame]
    return text.to_markdown(index=False, colalign=align, disable_numparse=True) + "\n"


def latex(table: Table, name: str) -> str:
    """A LaTeX table environment with caption and label, at most as wide as the text.

    It needs the LaTeX packages booktabs and adjustbox.
    """
    frame = table.frame.rename(columns=_escaped).map(_escaped)
    align = "".join("r" if is_number(table.frame[column]) else "l" for column in table.frame)
    tabular = frame.style.hide(axis="index").to_latex(hrules=True, column_format=align)
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{_escaped(table.caption)}}}\n\\label{{tab:{name.replace('/', ':')}}}\n"
        f"\\begin{{adjustbox}}{{max width=\\textwidth}}\n{tabular}\\end{{adjustbox}}\n"
        "\\end{table}\n"
    )


def page(tables: Mapping[str, Table], *titles: str) -> str:
    """The tables with these titles as Markdown, each below the name of its study."""
    chosen = [name for name in tables if name.split("/")[-1] in titles]
    return "\n".join(
        f"**{name.rpartition('/')[0] or name}**\n\n{markdown(tables[name].frame)}"
        for name in chosen
    )


def show(table: Table) -> None:
    """Print a table for a terminal: it fits its width, and NO_COLOR is honoured."""
    shown = rich.table.Table(title=table.caption, title_justify="left", title_style="")
    for column in table.frame:
        shown.add_column(str(column), justify="right" if is_number(table.frame[column]) else "left")
    for line in table.frame.itertuples(index=False):
        shown.add_row(*map(rich.text.Text, line))
    rich.console.Console(width=None if sys.stdout.isatty() else 100).print(shown, "")


def is_number(column: pd.Series) -> bool:
    """Whether all cells of a column of text hold numbers; cells without data do not count."""
    cells = [cell for cell in column if cell not in (MISSING, "")]
    return all(NUMBER.match(cell) for cell in cells)


def _escaped(text: str) -> str:
    text = re.sub(r"([&%$#_{}])", r"\\\1", text)
    for symbol, code in SYMBOLS.items():
        text = text.replace(symbol, code)
    return text
