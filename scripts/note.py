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


def verdict(ours: pd.Series, figure: float, same_place: bool | None) -> str | None:
    """The rule; None where it cannot say.

    The bound was fixed with the plan of the study, the places before any row of it had more than
    two of its five runs.

    Fewer than two runs have no spread, and ``same_place`` is None while a row is missing.

    The note prints one figure. Were it one more run of ours, it would lie about
    ``std * sqrt(1 + 1/n)`` off the mean of our n. So it is

    - reproduced if it lies within our mean ± 2 * std * sqrt(1 + 1/n);
    - else of the same order if the row has its place among the six rows, by our means;
    - else not reproduced.
    """
    if len(ours) < 2:
        return None
    if abs(figure - ours.mean()) <= 2 * spread(ours, len(ours)):
        return VERDICTS[0]
    if same_place is None:
        return None
    return VERDICTS[1] if same_place else VERDICTS[2]


def spread(ours: pd.Series, n: int) -> float:
    """Standard error of the difference between the mean of n runs and one more run."""
    return ours.std(ddof=1) * math.sqrt(1 + 1 / n)


def interval(ours: pd.Series) -> float | None:
    """Half the width of the 95% interval of our mean's difference to one more run.

    Student's t: wider than the rule's two spreads while n is small. None for fewer than two runs.
    """
    n = len(ours)
    return float(stats.t.ppf(0.975, n - 1)) * spread(ours, n) if n > 1 else None
