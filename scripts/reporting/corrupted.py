"""What tables and figures show of runs with corrupted gradients (the key ``corrupt``)."""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from scripts.reporting.cells import MISSING, Table, four_decimals, values_in
from scripts.reporting.studies import Study
from scripts.reporting.style import label_of

EXACT = "exact"
SMALLER_IS_STRONGER = ("levels", "top")  # kinds whose smaller strengths corrupt more


def corrupted_runs(runs: pd.DataFrame) -> pd.DataFrame | None:
    """Runs with the columns ``kind`` and ``strength`` (as text); None without corruption.

    Runs with exact gradients come first, with the kind EXACT; then kind after kind, each from the
    weakest corruption to the strongest.
    """
    if "corrupt" not in runs:
        return None
    texts = runs["corrupt"].map(lambda text: text if isinstance(text, str) else "")
    if (texts == "").all():
        return None
    parts = texts.str.partition("-")
    strengths = pd.to_numeric(parts[2], errors="coerce").fillna(0.0)
    runs = runs.assign(
        kind=parts[0].where(texts != "", EXACT),
        strength=parts[2].where(texts != "", MISSING),
        severity=strengths.where(~parts[0].isin(SMALLER_IS_STRONGER), -strengths),
        corrupted=texts != "",
    )
    return runs.sort_values(["corrupted", "kind", "severity"], kind="stable")


class RunsOfKind(NamedTuple):
    """One kind of corruption, to be drawn: the exact gradient at the left, the strongest right."""

    name: str
    strengths: list[str]
    runs: pd.DataFrame  # with the column ``x``, the index of a run's strength


def kinds(study: Study) -> list[RunsOfKind]:
    """The kinds of corruption of a study's runs."""
    runs = corrupted_runs(study.runs)
    if runs is None:
        return []
    runs = runs.assign(swept="")  # an optimizer is one line
    exact, of_kinds = runs[runs["kind"] == EXACT], []
    for name in dict.fromkeys(runs["kind"]):
        if name != EXACT:
            corrupted = runs[runs["kind"] == name]
            strengths = list(dict.fromkeys(corrupted["strength"]))
            indices = {text: i for i, text in enumerate(strengths, 1)}
            corrupted = corrupted.assign(x=corrupted["strength"].map(indices))
            with_exact = pd.concat([exact.assign(x=0), corrupted])
            of_kinds.append(RunsOfKind(name, [EXACT, *strengths], with_exact))
    return of_kinds


def corrupted_by(metric: str, column: str) -> Callable[[Study], Table | None]:
    """A function that makes the table of a metric: a row per corruption, a column per optimizer.

    Args:
        metric: the metric's name.
        column: its column in runs.csv.
    """

    def table(study: Study) -> Table | None:
        runs = corrupted_runs(study.runs)
        if runs is None:
            return None
        optimizers = list(dict.fromkeys(o for o, _ in study.variants))
        lines = []
        for (kind, strength), corrupted in runs.groupby(["kind", "strength"], sort=False):
            line = {"gradient": kind, "strength": strength}
            for optimizer in optimizers:
                line[label_of(optimizer)] = _cell(runs, corrupted, optimizer, column)
            lines.append(line | {"n": values_in(corrupted.groupby("optimizer").size())})
        caption = (
            f"{metric} after training on corrupted gradients, means over n seeds, and in % of the "
            "same optimizer with exact gradients and the same seeds. scripts/running/corruption.py "
            "defines the kinds and strengths."
        )
        return Table(pd.DataFrame(lines), caption)

    return table


def _cell(runs: pd.DataFrame, corrupted: pd.DataFrame, optimizer: str, column: str) -> str:
    """An optimizer's mean with one corruption, and in % of its mean with exact gradients."""
    values = corrupted[corrupted["optimizer"] == optimizer]
    if values.empty:
        return MISSING
    text = four_decimals(values[column].mean())
    exact = runs[(runs["optimizer"] == optimizer) & (runs["kind"] == EXACT)]
    both = values.merge(exact, on="seed")
    if values["kind"].iloc[0] == EXACT or both.empty:
        return text
    return f"{text} ({100 * both[f'{column}_x'].mean() / both[f'{column}_y'].mean():.0f}%)"
