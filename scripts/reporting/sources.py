"""What stands behind a table or a figure: its runs, and the command that trains them again."""

from collections.abc import Sequence

import pandas as pd

from scripts.reporting.cells import Table
from scripts.reporting.studies import EXPERIMENTS, RUN, STUDY, Study
from scripts.reporting.style import label_of, short
from scripts.reporting.tables import beside_note

LABELS = ("SASRec with", "step", "item embeddings with")  # columns that name a variant
DIAGNOSED = ("choices", "memories", "parts")  # tables and figures of diagnosed runs alone


def runs_behind(studies: Sequence[Study], name: str, table: Table | None = None) -> pd.DataFrame:
    """The runs that a table ``STUDY/TABLE`` or ``TABLE``, or a figure ``STUDY/FIGURE``, shows."""
    study_name, _, kind = name.partition("/")
    for study in studies:
        if study.name == study_name:
            if kind in DIAGNOSED:
                return study.runs.merge(study.diagnostics[RUN].drop_duplicates(), on=RUN)
            return study.shown_runs
    if table is not None and "experiment" in table.frame:
        shown = table.frame[STUDY].agg("-".join, axis=1)
        return pd.concat([study.runs for study in studies if study.name in set(shown)])
    bases = list(filter(beside_note, studies))
    if table is not None and "setting" in table.frame:
        bases += [s for s in studies if s.declared.departs_from == bases[0].experiment]
    return pd.concat([study.runs for study in bases])


def runs_of_row(runs: pd.DataFrame, row: pd.Series) -> pd.DataFrame:
    """Those of a table's runs that one of its rows shows."""
    for column in set(STUDY) & set(row.index):
        runs = runs[runs[column] == row[column]]
    if "setting" in row:
        runs = runs[runs["experiment"] == row["setting"].partition(",")[0]]
    for column in set(LABELS) & set(row.index):
        whole = [label_of(*v) for v in zip(runs["optimizer"], runs["swept"], strict=True)]
        runs = runs[
            (runs["optimizer"].map(label_of) == row[column])
            | (pd.Series(whole, runs.index, dtype=str) == row[column])
        ]
    for column in map(str, runs):
        if column in ("lr", "weight_decay") or "." in column:
            shown = row.get(column.split(".")[-1])
            if shown is not None:
                runs = runs[runs[column].map(short) == shown]
    return runs


def commands(runs: pd.DataFrame) -> list[str]:
    """One for each experiment, model and dataset; runs without an experiment have only records."""
    return [
        f"python -m scripts.train -m experiment={experiment} model={model} data={dataset}"
        " results.root=results/reproduced"
        for experiment, model, dataset in runs[STUDY].drop_duplicates().itertuples(index=False)
        if (EXPERIMENTS / f"{experiment}.yaml").is_file()
    ]


def commits(runs: pd.DataFrame) -> list[str]:
    """The commits that trained them, each once."""
    return sorted({commit[:9] for commit in runs["commit"] if commit})
