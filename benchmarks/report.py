"""Write a benchmark's results to results/benchmarks/NAME.json and NAME.md, and print them."""

import argparse
import json
import os
import platform
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import pandas as pd

from scripts.records.files import write_atomically, write_json
from scripts.reporting import render
from scripts.running.provenance import PACKAGES, REPOSITORY, commit, processor

FOLDER = REPOSITORY / "results" / "benchmarks"


def machine() -> dict[str, Any]:
    """The processor, its cores, the commit, and the versions of Python and packages."""
    return {
        "commit": commit(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def parser_of(name: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of ``python -m benchmarks.NAME``; it keeps the lines of the description."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def check_extra(parser: argparse.ArgumentParser) -> None:
    """End with an error if the packages of the extra ``bench`` are not installed."""
    if find_spec("bitsandbytes") is None:
        parser.error("bitsandbytes is not installed: run make .venv/bench")


def markdown(rows: list[list[str]]) -> str:
    """A table as Markdown; the first row is the header."""
    head, *body = rows
    return render.markdown(pd.DataFrame(body, columns=head))


def read_lines(name: str) -> list[dict[str, Any]]:
    """The key ``lines`` of results that were written before; none without a file."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text())["lines"] if path.exists() else []


def save(name: str, results: dict[str, Any], table: str, notes: list[str]) -> str:
    """Write the results as JSON, and table, notes and machine as Markdown; returns the latter."""
    about = ", ".join(f"{k} {v}" for k, v in results["machine"].items())
    text = f"{table}\n" + "".join(f"{note}\n" for note in [*notes, f"Machine: {about}."])
    write_json(FOLDER / f"{name}.json", results)
    write_atomically(FOLDER / f"{name}.md", text.encode())
    return text


def write(name: str, results: dict[str, Any], table: str, notes: list[str]) -> None:
    """``save`` the results and print them."""
    print(save(name, results, table, notes))
    print(f"{FOLDER / name}.md, .json")
