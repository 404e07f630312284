"""The note's published figures, table by table, and when ours reproduce them."""

import math
from typing import NamedTuple

import pandas as pd
from scipy import stats


class Published(NamedTuple):
    label: str
    hr: float
    ndcg: float
    loss: float


SETTING = ("ablation", "sasrec", "beauty")  # experiment, model and dataset: those of the note
# The note prints Simba+m, Simba+(1) and Simba+(c=m) one by one; the first two are its test of the
# two differences between Simba and Lion and share a table here.
TABLES: dict[str, dict[str, Published]] = {
    "note_1": {
        "lion": Published("Lion", 0.0690, 0.0381, 0.145131),
        "sign_sgd": Published("Sign Gradient", 0.0420, 0.0213, 0.665475),
        "simba": Published("Simba", 0.0195, 0.0094, 0.872968),
    },
    "note_2": {
        "simba_m": Published("Simba + m", 0.0693, 0.0378, 0.145657),
        "simba_eq1": Published("Simba + (1)", 0.0296, 0.0152, 0.578699),
    },
    "note_3": {
        "simba_c_eq_m": Published("Simba + (c = m)", 0.0667, 0.0358, 0.142691),
    },
}
ROWS: dict[str, Published] = {name: row for table in TABLES.values() for name, row in table.items()}

VERDICTS = ("reproduced", "same order", "not reproduced")


def verdict(ours: pd.Series, figure: float, same_place: bool) -> str | None:
    """The rule, written down before the runs were in; None for fewer than two runs.

    The note prints one figure. Were it one more run of ours, it would lie about
    ``std * sqrt(1 + 1/n)`` off the mean of our n. So it is

    - reproduced if it lies within our mean ± 2 * std * sqrt(1 + 1/n);
    - else of the same order if the row has its place among the six rows, by our means;
    - else not reproduced.
    """
    bound = tolerance(ours)
    if bound is None:
        return None
    if abs(figure - ours.mean()) <= bound:
        return VERDICTS[0]
    return VERDICTS[1] if same_place else VERDICTS[2]


def tolerance(ours: pd.Series) -> float | None:
    """How far one more run may lie from the mean of ours; None for fewer than two."""
    return 2 * ours.std(ddof=1) * math.sqrt(1 + 1 / len(ours)) if len(ours) > 1 else None


def interval(ours: pd.Series) -> float | None:
    """Half the width of the 95% interval for one more run's distance from the mean of ours.

    Student's t: wider than the rule's two spreads while n is small. None for fewer than two runs.
    """
    n = len(ours)
    if n < 2:
        return None
    return float(stats.t.ppf(0.975, n - 1)) * ours.std(ddof=1) * math.sqrt(1 + 1 / n)
