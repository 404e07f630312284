"""What every experiment asks, from the first words of its file in configs/experiment."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from scripts.reporting.cells import MISSING, Table
from scripts.reporting.studies import EXPERIMENTS, Study

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
                "datasets": ", ".join(sorted(runs["dataset"].unique())),
                "what it asks": asks(name) or MISSING,
            }
        )
    caption = "The experiments by their names in other tables; configs/experiment has their files."
    return Table(pd.DataFrame(lines), caption) if lines else None


def asks(experiment: str) -> str:
    """The question of an experiment's file, or its first sentence; nothing without a comment."""
    path = EXPERIMENTS / f"{experiment}.yaml"
    if not path.is_file():
        return ""
    comments = [line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#")]
    text = " ".join(c for c in comments if not c.startswith("@package"))
    found = FIRST_QUESTION.match(text) or FIRST_SENTENCE.match(text)
    return found[0] if found else ""
