"""What tables and figures show of runs with corrupted gradients (the key ``corrupt``)."""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from scripts.reporting.cells import MISSING, Table, four_decimals, values_in
from scripts.reporting.studies import Study
from scripts.reporting.style import label_of

EXACT = "exact"
LESS_IS_MORE = ("levels", "top")  # kinds whose smaller strengths corrupt more


def corrupted_runs(study: Study) -> pd.DataFrame | None:
    """A study's runs with the columns ``kind`` (or EXACT) and ``strength``; None without such runs.

    They are in the order of their kinds, each from the weakest corruption to the strongest.
    """
    if "corrupt" not in study.runs:
        return None
    texts = study.runs["corrupt"].map(lambda text: text if isinstance(text, str) else "")
    if (texts == "").all():
        return None
    parts = texts.str.partition("-")
    runs = study.runs.assign(
        kind=parts[0].where(texts != "", EXACT),
        strength=pd.to_numeric(parts[2], errors="coerce").fillna(0.0),
        shown=parts[2].where(texts != "", MISSING),
    )
    runs["place"] = runs["strength"].where(~runs["kind"].isin(LESS_IS_MORE), -runs["strength"])
    first = (runs["kind"] != EXACT).rename("first")
    return runs.assign(first=first).sort_values(["first", "kind", "place"], kind="stable")


class Kind(NamedTuple):
    """One kind of corruption, to be drawn: the exact gradient at the left, the strongest right."""

    name: str
    strengths: list[str]
    runs: pd.DataFrame  # with the column ``x``, the place of a run's strength


def kinds(study: Study) -> list[Kind]:
    """The kinds of corruption of a study's runs."""
    runs = corrupted_runs(study)
    if runs is None:
        return []
    exact, made = runs[runs["kind"] == EXACT], []
    for name in dict.fromkeys(runs["kind"]):
        if name != EXACT:
            own = runs[runs["kind"] == name]
            strengths = list(dict.fromkeys(own["shown"]))
            places = {text: i for i, text in enumerate(strengths, 1)}
            own = own.assign(x=own["shown"].map(places))
            made.append(Kind(name, [EXACT, *strengths], pd.concat([exact.assign(x=0), own])))
    return made


def corrupted_by(metric: str, column: str) -> Callable[[Study], Table | None]:
    """A function that makes the table of one figure: a line per corruption, a column per optimizer.

    Args:
        metric: the figure's name.
        column: its column in runs.csv.
    """

    def table(study: Study) -> Table | None:
        runs = corrupted_runs(study)
        if runs is None:
            return None
        optimizers = list(dict.fromkeys(o for o, _ in study.variants))
        lines = []
        for (kind, shown), own in runs.groupby(["kind", "shown"], sort=False):
            line = {"gradient": kind, "strength": shown}
            for optimizer in optimizers:
                line[label_of(optimizer)] = _cell(runs, own, optimizer, column)
            lines.append(line | {"n": values_in(own.groupby("optimizer").size())})
        caption = (
            f"{metric} after training on corrupted gradients, means over n seeds, and in % of the "
            "same optimizer with exact gradients and the same seeds. scripts/running/corruption.py "
            "defines the kinds and strengths."
        )
        return Table(pd.DataFrame(lines), caption)

    return table


def _cell(runs: pd.DataFrame, own: pd.DataFrame, optimizer: str, column: str) -> str:
    """An optimizer's mean over these runs, and in % of its mean with exact gradients."""
    values = own[own["optimizer"] == optimizer]
    if values.empty:
        return MISSING
    text = four_decimals(values[column].mean())
    exact = runs[(runs["optimizer"] == optimizer) & (runs["kind"] == EXACT)]
    both = values.merge(exact, on="seed")
    if values["kind"].iloc[0] == EXACT or both.empty:
        return text
    return f"{text} ({100 * both[f'{column}_x'].mean() / both[f'{column}_y'].mean():.0f}%)"
