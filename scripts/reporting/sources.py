"""What stands behind a table or a figure: its runs, and the command that trains them again."""

import shlex
from collections.abc import Sequence
from typing import Any

import pandas as pd

from scripts.records.torchrun import START
from scripts.reporting.cells import MISSING, OPTIMIZER, Table
from scripts.reporting.collect import is_missing
from scripts.reporting.corrupted import corrupted_runs
from scripts.reporting.note import NOTE_VALUES
from scripts.reporting.studies import (
    EXPERIMENTS,
    RUN,
    STUDY,
    Study,
    experiment_file,
    short_names,
    swept_columns,
    without,
)
from scripts.reporting.style import label_of, short
from scripts.reporting.tables import ORDER, compares_with_note
from scripts.reporting.tuned import KEYS

LABELS = (OPTIMIZER, "step")  # columns that name a variant
SINGLE = "single"  # the experiment of runs without one
DIAGNOSED = ("moves", "memories")  # tables and figures of diagnosed runs alone


def runs_behind(studies: Sequence[Study], name: str, table: Table | None = None) -> pd.DataFrame:
    """The runs that a table ``STUDY/TABLE`` or ``TABLE``, or a figure ``STUDY/FIGURE``, shows."""
    study_name, _, kind = name.partition("/")
    for study in studies:
        if study.name == study_name:
            if kind in DIAGNOSED:
                return study.runs.merge(study.diagnostics[RUN].drop_duplicates(), on=RUN)
            runs = study.shown_runs
            return runs.assign(own=runs["experiment"] == study.experiment)
    if name == "tuned":
        return pd.concat([study.runs for study in studies if study.declared.tuning])
    if table is not None and "experiment" in table.frame:
        shown = table.frame[STUDY].agg("-".join, axis=1)
        return pd.concat([study.runs for study in studies if study.name in set(shown)])
    bases = list(filter(compares_with_note, studies))
    if table is not None and "setting" in table.frame:
        bases += [s for s in studies if s.declared.departs_from == bases[0].experiment]
    return pd.concat([study.runs for study in bases])


def runs_of_row(runs: pd.DataFrame, row: pd.Series) -> pd.DataFrame:
    """Those of a table's runs that one of its rows shows."""
    for column in set(STUDY) & set(row.index):
        runs = runs[runs[column] == row[column]]
    if "setting" in row:
        runs = runs[runs["experiment"] == row["setting"].partition(",")[0]]
    names = short_names(swept_columns(runs[runs["own"]] if "own" in runs else runs))
    for column in set(LABELS) & set(row.index):
        shown = {*row.index, *(key for key, name in KEYS.items() if name in row.index)}
        rest = [without(swept, shown) for swept in runs["swept"]]  # columns have the others
        labels = [label_of(*v) for v in zip(runs["optimizer"], rest, strict=True)]
        whole = pd.Series(labels, runs.index, dtype=str)
        if "own" in runs:  # a baseline of another experiment is labelled so
            whole = whole.where(runs["own"], whole + " (" + runs["experiment"] + ")")
        exact = whole == row[column]
        runs = runs[exact if exact.any() else runs["optimizer"].map(label_of) == row[column]]
    if ORDER in row:
        runs = runs[runs["optimizer"].isin(NOTE_VALUES)]
    if "gradient" in row and (corrupted := corrupted_runs(runs)) is not None:
        same = (corrupted["kind"] == row["gradient"]) & (corrupted["strength"] == row["strength"])
        runs = runs[same.reindex(runs.index)]
    for column, name in names.items():
        cell = row.get(name, row.get(KEYS.get(column)))
        if cell is not None:
            runs = runs[runs[column].map(lambda v: MISSING if _is_empty(v) else short(v)) == cell]
    return runs


def commands(runs: pd.DataFrame) -> list[str]:
    """Commands that train the runs again, as few as possible.

    Runs of an experiment that has no file have only records.
    """
    lines = []
    for name, own in runs.groupby("experiment", sort=False):
        experiment = str(name)
        if experiment == SINGLE or (EXPERIMENTS / f"{experiment}.yaml").is_file():
            words = [] if experiment == SINGLE else [f"experiment={experiment}"]
            start = " ".join([_start(experiment), "-m", *words])
            lines += [f"{start} {sweep} results.root=results/reproduced" for sweep in sweeps(own)]
    return lines


def _start(experiment: str) -> str:
    """How a training of an experiment is started: by torchrun if its file says ``workers``."""
    workers = experiment_file(experiment).get("workers")
    return START.format(workers) if workers else "python -m scripts.train"


def sweeps(runs: pd.DataFrame) -> list[str]:
    """The overrides of an experiment's runs: as few sweeps as give these runs and no other."""
    lines = []
    for _, run in runs.sort_values("seed", kind="stable").iterrows():
        words = [word.partition("=") for word in shlex.split(run["overrides"])]
        lines.append({key: value for key, _, value in words} | {"seed": str(run["seed"])})
    keys = dict.fromkeys(key for line in lines for key in line)
    for key in ("seed", *(key for key in keys if key != "seed" and not key.startswith("--"))):
        lines = _joined(lines, key)
    return [
        shlex.join(f"{key}={value}" if value else key for key, value in line.items())
        for line in lines
    ]


def _is_empty(value: Any) -> bool:
    """Whether a cell of runs.csv has no value."""
    return value == "" or is_missing(value)


def _joined(lines: list[dict[str, str]], key: str) -> list[dict[str, str]]:
    """The same sweeps in fewer lines: those that differ in this key alone become one."""
    alike: dict[object, list[dict[str, str]]] = {}
    for line in lines:
        others = tuple((k, v) for k, v in line.items() if k != key)
        alike.setdefault((key in line, others), []).append(line)
    return [
        same[0] | {key: ",".join(line[key] for line in same)} if key in same[0] else same[0]
        for same in alike.values()
    ]


def commits(runs: pd.DataFrame) -> list[str]:
    """The commits that trained them, each once."""
    return sorted({commit[:9] for commit in runs["commit"] if commit})
