"""The tables over all studies that may also read results/benchmarks (``FOLDER_TABLES``)."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from scripts.reporting.answer import answer
from scripts.reporting.cells import OPTIMIZER, Table
from scripts.reporting.experiments import experiments
from scripts.reporting.finalists import finalists_table, note_study_and_finalists, rate_grids
from scripts.reporting.goal import goal, goal_studies
from scripts.reporting.robustness import robustness, state_table
from scripts.reporting.studies import Study
from scripts.reporting.style import label_of
from scripts.reporting.variants import variants

FOLDER_TABLES: dict[str, Callable[[Sequence[Study], Path], Table | None]] = {
    "answer": answer,
    "goal": goal,
    "finalists": finalists_table,
    "state_bytes": state_table,
    "robustness": robustness,
    "variants": variants,
    "experiments": experiments,
}
GUIDES = ("variants", "experiments")  # they explain, and show no result


def folder_tables(studies: Sequence[Study], root: Path) -> dict[str, Table]:
    """All of these tables that apply, by their names."""
    results = {name: make(studies, root) for name, make in FOLDER_TABLES.items()}
    return {name: table for name, table in results.items() if table is not None}


def runs_of_folder_table(studies: Sequence[Study], name: str, table: Table) -> pd.DataFrame:
    """The runs behind one of these tables."""
    if name == "answer":
        runs = pd.concat([study.runs for study in studies if study.declared.answers])
    elif name == "goal":
        return pd.concat([study.runs for study in goal_studies(studies)])
    else:
        base, finalists = note_study_and_finalists(studies)
        assert base is not None
        runs = pd.concat([study.runs for study in (base, *finalists)])
        grids = [study.runs for study in rate_grids(studies, base)]
        if (
            name == "state_bytes"
        ):  # it needs other runs only for optimizers without one in the setting
            grids = [grid[~grid["optimizer"].isin(runs["optimizer"])] for grid in grids]
        runs = pd.concat([runs, *grids])
    return runs[runs["optimizer"].map(label_of).isin(table.frame[OPTIMIZER])]
