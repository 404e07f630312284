"""One page of all results: words, tables and figures in a file that needs nothing else.

templates/report.md has the text, in Markdown, and calls the methods of ``Page`` for what is
computed. templates/page.html is the page around them. plotly draws, DataTables (from itables) sorts
and filters; both are written into the page.
"""

import itertools
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import plotly.io
import yaml
from itables.utils import read_package_file
from markdown_it import MarkdownIt
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from scripts.reporting import findings, note
from scripts.reporting.cells import Table
from scripts.reporting.charts import CHARTS
from scripts.reporting.finalists import BENCHMARKS, machine, note_study_and_finalists, state_bytes
from scripts.reporting.folder_tables import GUIDES, folder_tables, runs_of_folder_table
from scripts.reporting.render import is_numeric_column
from scripts.reporting.sources import commands, commits, runs_behind, runs_of_row
from scripts.reporting.studies import Study
from scripts.reporting.style import label_of, on_dark, short
from scripts.reporting.tables import tables

TEMPLATES = Path(__file__).parent / "templates"
TITLES = {  # of a study's tables that the text does not name
    "metrics": "Results",
    "paired": "Compared with the baseline, seed by seed and user by user",
    "popularity": "By how often the test item occurs in training",
    "history": "By the length of the history",
    "by_epoch": "Compared with the baseline at several epochs",
    "best": "Each optimizer at its best rate and decay",
    "grid": "At every value that was tried",
    "steps": "Step by step",
    "published": "Adam compared with published results",
    "corrupted_ndcg": "NDCG@10 with corrupted gradients",
    "corrupted_loss": "Training loss with corrupted gradients",
    "moves": "How the variants moved in the last diagnosed epoch",
    "memories": "How often a memory contradicts its epoch",
}
LEADING_NUMBER = re.compile(r"[\[<\s]*([-+−]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?)")
HEX = re.compile("#[0-9A-Fa-f]{6}")


def report(studies: Sequence[Study], root: Path) -> str:
    """The page as HTML; equal results give equal bytes."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=jinja2.select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"slug": _slug, "on_dark": on_dark, "whole_parts": _whole_parts}
    page = Page(studies, root, environment)
    words = environment.get_template("report.md").render(
        page=page, findings=findings, setting=note.SETTING, short=short, label_of=label_of
    )
    markdown = MarkdownIt("commonmark", {"html": True})
    tokens = markdown.parse(words)
    headings = []
    for token, text in itertools.pairwise(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            token.attrs["id"] = _slug(text.content)
            headings.append((_slug(text.content), text.content))
    body = page.fill_placeholders(markdown.renderer.render(tokens, markdown.options, {}))
    return environment.get_template("page.html").render(
        body=body,
        headings=headings,
        terms=page.terms_used,
        colours=page.colours,
        css=(TEMPLATES / "report.css").read_text(),
        javascript=(TEMPLATES / "report.js").read_text(),
        plotly=_inline(get_plotlyjs()),
        datatables=_inline(read_package_file("html", "dt_bundle.js")),
        datatables_css=read_package_file("html", "dt_bundle.css"),
    )


class Page:
    """What templates/report.md may use: studies, tables and figures, numbered in their order."""

    def __init__(self, studies: Sequence[Study], root: Path, environment: jinja2.Environment):
        self.studies = studies
        self.by_name = {study.name: study for study in studies}
        self.root = root
        self.environment = environment
        self.tables = tables(studies)
        self.folder_tables = folder_tables(studies, root)
        self.tables |= self.folder_tables
        self.definitions: dict[str, str] = yaml.safe_load((TEMPLATES / "terms.yaml").read_text())
        self.terms_used: dict[str, str] = {}  # word -> definition
        self.colours: dict[str, str] = {}  # of the figures, and what they are on a dark page
        self.blocks: list[str] = []
        self.numbers: dict[str, str] = {}  # name -> "Table 3"
        self.ids: dict[str, str] = {}  # name -> its HTML id

    def has(self, *names: str) -> bool:
        """Whether there are these studies and tables."""
        return all(name in self.by_name or name in self.tables for name in names)

    def has_figure(self, study: Study) -> bool:
        """Whether a figure of a study was shown already."""
        return any(
            name.startswith(f"{study.name}/") and name.endswith("-figure") for name in self.numbers
        )

    def study(self, name: str) -> Study:
        return self.by_name[name]

    def term(self, word: str, text: str = "") -> str:
        """A button that shows the definition of a word; ``text`` is a form of the word."""
        self.terms_used[word] = self.definitions[word]
        target = f"term-{_slug(word)}"
        return (
            f'<button class="term" type="button" popovertarget="{target}">{text or word}</button>'
        )

    def glossary(self) -> str:
        """The definitions of all words."""
        html = self.environment.get_template("glossary.html").render(terms=self.definitions)
        self.blocks.append(html)
        return f"@@block {len(self.blocks) - 1}@@"

    def finalists_with(self, word: str) -> list[str]:
        """The optimizers of the finalists whose names contain a word, such as ``ternary``."""
        return [o for s in self.finalists for o, _ in s.variants if word in o.split("_")]

    @property
    def finalists(self) -> list[Study]:
        """The studies that are compared with the baseline of the note's setting."""
        return note_study_and_finalists(self.studies)[1]

    def state_bytes(self, optimizer: str) -> float | None:
        """Bytes of optimizer state per parameter; None for an optimizer without a run."""
        return state_bytes(self.studies, optimizer)

    def trained(self, study: str, *optimizers: str) -> bool:
        """Whether a study has runs of these optimizers."""
        return study in self.by_name and set(optimizers) <= set(
            self.by_name[study].runs["optimizer"]
        )

    def link(self, name: str) -> str:
        """A link to a table, ``Table 3``; empty if there is no such table."""
        if name not in self.tables:
            return ""
        return f"[@@number {name}@@](#{self._id(name)})"

    def table(self, name: str, title: str) -> str:
        """A table of tables.py or folder_tables.py as a block; empty if it does not apply."""
        if name not in self.tables:
            return ""
        table = self.tables[name]
        files = [f"tables/{name}.{kind}" for kind in ("csv", "md", "tex")]
        if name in GUIDES:
            return self._table(name, title, table, files=files)
        runs = (
            runs_of_folder_table(self.studies, name, table)
            if name in self.folder_tables
            else runs_behind(self.studies, name, table)
        )
        return self._table(name, title, table, runs, files)

    def cells(self, name: str) -> pd.DataFrame:
        """The cells of a table."""
        return self.tables[name].frame

    def benchmark(self, name: str, title: str) -> str:
        """A table of a benchmark as a block; empty if the benchmark was not run."""
        make, command, file = BENCHMARKS[name]
        table = make(self.root)
        if table is None:
            return ""
        return self._table(
            f"benchmark-{name}",
            title,
            table,
            files=[f"benchmarks/{file}.json"],
            command=command,
            machine=machine(self.root, file),
        )

    def figure(self, kind: str, study: str, title: str) -> str:
        """A figure of charts.py as a block; empty if it does not apply."""
        chart = CHARTS[kind](self.by_name[study]) if study in self.by_name else None
        if chart is None:
            return ""
        runs = runs_behind(self.studies, f"{study}/{kind}")
        json = _inline(plotly.io.to_json(chart.figure, engine="json"))
        self.colours |= {colour: on_dark(colour) for colour in HEX.findall(json)}
        return self._block(
            "figure.html",
            f"{study}/{kind}-figure",
            "Figure",
            title=title,
            chart=chart,
            files=[f"figures/{kind}-{study}.{suffix}" for suffix in ("png", "pdf")],
            json=json,
            sources=self._sources(runs),
        )

    def unshown_tables(self) -> list[tuple[str, str]]:
        """Name and title of every table that was not shown yet."""
        return [(name, self._title(name)) for name in self.tables if name not in self.numbers]

    def _title(self, name: str) -> str:
        study_name, _, kind = name.rpartition("/")
        if study_name not in self.by_name:
            return name.replace("_", " ")
        study = self.by_name[study_name]
        words = TITLES.get(kind, kind.replace("_", " "))
        return f"{words}: {study.experiment}, {study.model} on {study.dataset}"

    def fill_placeholders(self, html: str) -> str:
        """Replace the placeholders of blocks and of table numbers."""
        html = re.sub(r"<p>@@block (\d+)@@</p>", lambda match: self.blocks[int(match[1])], html)
        return re.sub(r"@@number (.+?)@@", lambda match: self.numbers[match[1]], html)

    def _table(
        self,
        name: str,
        title: str,
        table: Table,
        runs: pd.DataFrame | None = None,
        files: Sequence[str] = (),
        command: str = "",
        machine: str = "",
    ) -> str:
        numeric = {column: is_numeric_column(table.frame[column]) for column in table.frame}
        lines = [
            {
                "id": f"row-{i}",
                "cells": [
                    {"text": text, "number": numeric[column], "order": _order(text)}
                    for column, text in line.items()
                ],
                "runs": [] if runs is None else _described(runs_of_row(runs, line)),
            }
            for i, (_, line) in enumerate(table.frame.iterrows(), 1)
        ]
        return self._block(
            "table.html",
            name,
            "Table",
            title=title,
            caption=table.caption,
            columns=numeric,
            lines=lines,
            files=files,
            command=command,
            machine=machine,
            sources=None if runs is None else self._sources(runs),
        )

    def _block(self, template: str, name: str, kind: str, **context: Any) -> str:
        number = 1 + sum(label.startswith(kind) for label in self.numbers.values())
        self.numbers[name] = f"{kind} {number}"
        block = self.environment.get_template(template)
        self.blocks.append(block.render(id=self._id(name), number=self.numbers[name], **context))
        return f"\n\n@@block {len(self.blocks) - 1}@@\n\n"

    def _id(self, name: str) -> str:
        """The HTML id of a table or figure, which no other one has."""
        if name not in self.ids:
            slug, taken = _slug(name), set(self.ids.values())
            others = (f"{slug}-{n}" for n in itertools.count(2))
            self.ids[name] = next(i for i in itertools.chain([slug], others) if i not in taken)
        return self.ids[name]

    def _sources(self, runs: pd.DataFrame) -> dict[str, Any]:
        first = runs["record"].iloc[0]
        return {
            "commands": commands(runs),
            "rerun": f"python -m scripts.rerun {shlex.quote(str(self.root / first))}",
            "args": "" if self.root == Path("results") else f" ARGS=results.root={self.root}",
            "commits": commits(runs),
            "runs": _described(runs),
        }


def _described(runs: pd.DataFrame) -> list[tuple[str, str]]:
    """(record, words) of each run."""
    return [
        (record, f"{label_of(optimizer, swept)}, {experiment}, {dataset}, seed {seed}")
        for record, optimizer, swept, experiment, dataset, seed in runs[
            ["record", "optimizer", "swept", "experiment", "dataset", "seed"]
        ].itertuples(index=False)
    ]


def _order(text: str) -> str:
    """The first number of a cell, by which a column of numbers is sorted; empty without one."""
    match = LEADING_NUMBER.match(text)
    return match[1].replace(",", "").replace("−", "-") if match else ""


def _whole_parts(text: str) -> Markup:
    """A cell of numbers that may break only before ± or a bracket."""
    if not LEADING_NUMBER.match(text):
        return escape(text)
    parts = re.split(r" (?=[\[(±])", text)
    return Markup(" ").join(Markup("<span>{}</span>").format(part) for part in parts)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-")


def _inline(script: str) -> str:
    """A script that does not end the element that holds it."""
    return script.replace("</script", "<\\/script")
