"""What every experiment asks and trains, from its file in configs/experiment."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from scripts.reporting.cells import MISSING, Table
from scripts.reporting.studies import (
    EXPERIMENTS,
    NOT_A_LIST,
    Study,
    experiment_file,
    sweeper_params,
)

FIRST_QUESTION = re.compile(r".{0,110}?\?")
FIRST_SENTENCE = re.compile(r".*?(?<!eq)\.(?= |$)")


def experiments(studies: Sequence[Study], _: Path) -> Table | None:
    """One line per experiment: its runs, and its question."""
    lines = []
    for name in sorted({study.experiment for study in studies}):
        runs = pd.concat([study.runs for study in studies if study.experiment == name])
        lines.append(
            {
                "experiment": name,
                "epochs": str(runs["epochs"].max()),
                "runs": str(len(runs)),
                "a sweep trains": str(sweep_size(name) or MISSING),
                "datasets": ", ".join(sorted(runs["dataset"].unique())),
                "what it asks": asks(name) or MISSING,
            }
        )
    caption = (
        "The experiments by their names in other tables; configs/experiment has their files. Runs: "
        "those of this results folder. A sweep trains: the number of runs of `-m experiment=NAME`."
    )
    return Table(pd.DataFrame(lines), caption) if lines else None


def asks(experiment: str) -> str:
    """The question of an experiment's file, or its first sentence; nothing without a comment."""
    path = EXPERIMENTS / f"{experiment}.yaml"
    if not path.is_file():
        return ""
    lines = path.read_text(errors="replace").splitlines()
    comments = [line[1:].strip() for line in lines if line.startswith("#")]
    text = " ".join(c for c in comments if not c.startswith("@package"))
    found = FIRST_QUESTION.match(text) or FIRST_SENTENCE.match(text)
    return found[0] if found else ""


def sweep_size(experiment: str) -> int:
    """The number of runs that ``-m experiment=NAME`` trains.

    0 if the file lists no sweep, or has a sweep such as ``range(0,5)`` or lists of lists.
    """
    lists = [str(values) for values in _swept(experiment).values()]
    if not lists or any(NOT_A_LIST & set(values) for values in lists):
        return 0
    return math.prod(len(values.split(",")) for values in lists)


def _swept(experiment: str) -> dict[str, Any]:
    """The lists that a sweep goes through, by key: those of the files in ``defaults``, its own."""
    content = experiment_file(experiment)
    swept: dict[str, Any] = {}
    defaults = content.get("defaults")
    for default in defaults if isinstance(defaults, list) else []:
        if isinstance(default, str) and default != experiment:
            swept |= _swept(default)
    return swept | sweeper_params(experiment)
