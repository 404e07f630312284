"""The tables of runs whose gradients were corrupted (the key ``corrupt``)."""

from collections.abc import Callable

import pandas as pd

from scripts.reporting.cells import MISSING, Table, four_decimals, values_in
from scripts.reporting.studies import Study
from scripts.reporting.style import label_of

EXACT = "exact"


def corrupted_by(metric: str, column: str) -> Callable[[Study], Table | None]:
    """A function that makes the table of one figure: a line per corruption, a column per optimizer.

    Args:
        metric: the figure's name.
        column: its column in runs.csv.
    """

    def table(study: Study) -> Table | None:
        if "corrupt" not in study.runs:
            return None
        corruptions = study.runs["corrupt"].map(lambda text: text if isinstance(text, str) else "")
        if (corruptions == "").all():
            return None
        means = study.runs.assign(corrupt=corruptions).pivot_table(
            index="corrupt", columns="optimizer", values=column
        )
        lines = []
        for text in sorted(means.index, key=_place):
            kind, _, strength = text.partition("-")
            line = {"gradient": kind or EXACT, "strength": strength or MISSING}
            for optimizer in dict.fromkeys(o for o, _ in study.variants):
                value, exact = means[optimizer][text], means[optimizer].get("")
                shown = four_decimals(value)
                if kind and exact and not pd.isna(value) and not pd.isna(exact):
                    shown += f" ({100 * value / exact:.0f}%)"
                line[label_of(optimizer)] = shown
            own = study.runs[corruptions == text]
            lines.append(line | {"n": values_in(own.groupby("optimizer").size())})
        caption = (
            f"{metric} after training on corrupted gradients, means over n seeds, and in % of the "
            "same optimizer with exact gradients. scripts/running/corruption.py defines the kinds "
            "and strengths."
        )
        return Table(pd.DataFrame(lines), caption)

    return table


def _place(text: str) -> tuple[str, float]:
    kind, _, strength = text.partition("-")
    return kind, float(strength or 0)
