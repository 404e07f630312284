"""A table as text: its type, and how numbers are written in its cells."""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scripts.reporting.statistics import t_interval
from scripts.reporting.style import short

COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
MISSING = "–"
OPTIMIZER = "optimizer"  # the column with the label of an optimizer
ON_VALIDATION = "NDCG@10 on validation"  # the column with a mean over seeds


class Table(NamedTuple):
    """A table whose cells are text, and the caption above it."""

    frame: pd.DataFrame
    caption: str


def mean_and_std(values: pd.Series) -> str:
    """``mean ± sample std``; for one value, the value; for none, a dash."""
    if len(values) == 0:
        return MISSING
    if len(values) == 1:
        return f"{values.iloc[0]:.4f}"
    return f"{values.mean():.4f} ± {values.std(ddof=1):.4f}"


def with_interval(d: np.ndarray) -> str:
    """The mean of differences (n,), with its 95% interval if there are three or more."""
    bounds = t_interval(d)
    return signed(d.mean()) + (f" {bracketed(*bounds)}" if bounds else "")


def bracketed(low: float, high: float) -> str:
    """An interval, such as [-0.0011, +0.0010]."""
    return f"[{signed(low)}, {signed(high)}]"


def signed(value: float) -> str:
    """A number with its sign and four decimals, such as +0.0012; zero is 0.0000."""
    return _with_sign(value, 4)


def signed_percent(share: float, decimals: int = 0) -> str:
    """A share in % with its sign, such as +5% for 0.05; zero is 0%."""
    return f"{_with_sign(100 * share, decimals)}%"


def percent_with_interval(share: float, low: float, high: float, decimals: int = 0) -> str:
    """A share in % with an interval, such as +5% [0, +10]; without it if an end is NaN."""
    text = signed_percent(share, decimals)
    if math.isnan(low) or math.isnan(high):
        return text
    ends = ", ".join(_with_sign(100 * end, decimals) for end in (low, high))
    return f"{text} [{ends}]"


def _with_sign(value: float, decimals: int) -> str:
    text = f"{value:+z.{decimals}f}"
    return text if float(text) else text.removeprefix("+")


def values_in(column: pd.Series) -> str:
    """The different values of a column, such as ``1, 2``; a dash if there is none."""
    values = [value for value in column.dropna().unique() if value != ""]
    return ", ".join(map(short, values)) or MISSING


def four_decimals(value: Any) -> str:
    """A number with four decimals; a dash for NaN."""
    return MISSING if pd.isna(value) else f"{value:.4f}"


def p_value(p: float) -> str:
    """A p-value with four decimals, or ``< 0.0001``."""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def seeds(n: int) -> str:
    """``one seed``, ``five seeds``."""
    return f"{count(n)} seed{'' if n == 1 else 's'}"


def count(n: int) -> str:
    """A number in words up to ten, above in digits."""
    return COUNTS[n] if n < len(COUNTS) else str(n)
