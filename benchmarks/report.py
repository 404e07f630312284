"""Where a benchmark's figures go: results/benchmarks/NAME.json and NAME.md, and the terminal."""

import os
import platform
from importlib.metadata import version
from typing import Any

import pandas as pd

from scripts import make_tables, run_record

FOLDER = run_record.REPOSITORY / "results" / "benchmarks"


def machine() -> dict[str, Any]:
    return {
        "processor": run_record.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{package: version(package) for package in run_record.PACKAGES},
    }


def markdown(rows: list[list[str]]) -> str:
    head, *body = rows
    return make_tables.markdown(pd.DataFrame(body, columns=head))


def write(name: str, figures: dict[str, Any], table: str, notes: list[str]) -> None:
    about = ", ".join(f"{k} {v}" for k, v in figures["machine"].items())
    text = f"{table}\n" + "".join(f"{note}\n" for note in [*notes, f"Machine: {about}."])
    run_record.write(FOLDER / f"{name}.json", figures)
    run_record.atomically(FOLDER / f"{name}.md", text.encode())
    print(text)
    print(f"{FOLDER / name}.md, .json")
