"""Tables as Markdown, as LaTeX, and in a terminal."""

import itertools
import os
import re
import sys
from collections.abc import Sequence

import pandas as pd
import rich.console
import rich.table
import rich.text

from scripts.reporting.cells import MISSING, Table

WIDTH = 100  # columns of text where there is no terminal
LATEX_WIDTH = 110  # characters of small print in a page's width
COLUMN_GAP = 3  # columns of text between two columns of a table
NUMBER = re.compile(r"[-+−<\d\[]")
ESCAPES = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
)
SYMBOLS = {"±": r"$\pm$", "−": "$-$", MISSING: "--", ">": "$>$", "<": "$<$"}


def markdown(frame: pd.DataFrame) -> str:
    """A table of text as Markdown; columns of numbers are right-aligned, others left-aligned."""
    text = frame.map(lambda cell: cell.replace("|", r"\|"))
    align = ["right" if is_numeric_column(frame[column]) else "left" for column in frame]
    return text.to_markdown(index=False, colalign=align, disable_numparse=True) + "\n"


def narrow(frame: pd.DataFrame, width: int = WIDTH) -> list[pd.DataFrame]:
    """A table of text in parts of at most ``width`` characters.

    Each part begins with the columns of words that name its lines.
    """
    names = list(itertools.takewhile(lambda column: not is_numeric_column(frame[column]), frame))
    wide = {column: COLUMN_GAP + max(map(len, [column, *frame[column]])) for column in frame}
    begin = sum(wide[column] for column in names)
    parts, used = [names], begin
    for column in frame.columns[len(names) :]:
        if used + wide[column] > width and parts[-1] != names:
            parts, used = [*parts, names], begin
        parts[-1] = [*parts[-1], column]
        used += wide[column]
    return [frame[part] for part in parts]


def latex(table: Table, name: str) -> str:
    """A LaTeX table environment with caption and label, at most as wide as the text.

    It needs the LaTeX packages booktabs and adjustbox. A wide table is in parts, one below the
    other.
    """
    parts = "\\par\\medskip\n".join(
        f"\\begin{{adjustbox}}{{max width=\\textwidth}}\n{_tabular(part)}\\end{{adjustbox}}\n"
        for part in narrow(table.frame, LATEX_WIDTH)
    )
    label = re.sub(r"[^\w.:+=-]", "-", name.replace("/", ":"))
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{_escaped(table.caption)}}}\n\\label{{tab:{label}}}\n"
        f"\\footnotesize\n{parts}\\end{{table}}\n"
    )


def _tabular(frame: pd.DataFrame) -> str:
    align = "".join("r" if is_numeric_column(frame[column]) else "l" for column in frame)
    escaped = frame.rename(columns=_escaped).map(_escaped)
    return escaped.style.hide(axis="index").to_latex(hrules=True, column_format=align)


def show(table: Table, name: str = "") -> None:
    """Print a table for a reader: it fits the terminal, or 100 columns where there is none.

    Cells wrap between words. A table that does not fit is printed cell by cell.
    """
    terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = rich.console.Console(width=None if terminal else WIDTH, highlight=False)
    console.print(rich.text.Text(f"{name}: {table.caption}" if name else table.caption))
    columns, lines = list(map(str, table.frame)), table.frame.to_numpy().tolist()
    if widths := widths_of([columns, *lines], console.width):
        shown = rich.table.Table()
        for name, width in zip(columns, widths, strict=True):
            right = is_numeric_column(table.frame[name])
            shown.add_column(name, justify="right" if right else "left", width=width)
        for line in lines:
            shown.add_row(*map(rich.text.Text, line))
        console.print(shown, "")
        return
    for line in lines:
        cells = rich.table.Table.grid(padding=(0, 2))
        for name, cell in zip(columns, line, strict=True):
            cells.add_row(name, rich.text.Text(cell))
        console.print(cells, "")


def widths_of(lines: Sequence[Sequence[str]], width: int) -> list[int]:
    """The columns' widths in a table of ``width`` characters; none if a word would be cut."""
    columns = list(zip(*lines, strict=True))
    space = width - len(columns) * COLUMN_GAP - 1
    wanted = [max(map(len, cells)) for cells in columns]
    widths = [max(len(word) for cell in cells for word in cell.split()) for cells in columns]
    for _ in range(space - sum(widths)):
        i = max(range(len(widths)), key=lambda i: wanted[i] - widths[i])
        widths[i] += wanted[i] > widths[i]
    return widths if sum(widths) <= space else []


def is_numeric_column(column: pd.Series) -> bool:
    """Whether all cells of a column of text hold numbers; cells without data do not count."""
    cells = [cell for cell in column if cell not in (MISSING, "")]
    return all(NUMBER.match(cell) for cell in cells)


def _escaped(text: str) -> str:
    text = text.translate(ESCAPES)
    for symbol, code in SYMBOLS.items():
        text = text.replace(symbol, code)
    return text
