"""The note's published figures, and the rule that says whether ours reproduce them.

The note (https://mtandhj.github.io, "Simba: the feasibility of sign gradients") names no dataset,
model or hyperparameter. The setting below is our reading: it is that of its author's public
benchmark of Lion (RecBoard). For the other variants even the weight decay is a guess.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

SETTING = {
    "model": "sasrec",
    "dataset": "beauty",
    "epochs": 500,
    "lr": 1e-4,
    "weight_decay": 0.5,
}
# The note's loss is the lowest of all epochs, as its author's code reports it.
METRICS = {"HR@10": "test/HR@10", "NDCG@10": "test/NDCG@10", "Loss": "train/min_loss"}


class Published(NamedTuple):
    """A line of the note's tables: HR@10 and NDCG@10 on test, training loss."""

    hr: float
    ndcg: float
    loss: float


# The note prints Simba + m, Simba + (1) and Simba + (c = m) one by one; the first two are its test
# of the two differences between Simba and Lion and share a table here. Its "Sign Gradient" is
# sign-SGD.
TABLES: dict[str, dict[str, Published]] = {
    "note_1": {
        "lion": Published(0.0690, 0.0381, 0.145131),
        "sign_sgd": Published(0.0420, 0.0213, 0.665475),
        "simba": Published(0.0195, 0.0094, 0.872968),
    },
    "note_2": {
        "simba_m": Published(0.0693, 0.0378, 0.145657),
        "simba_eq1": Published(0.0296, 0.0152, 0.578699),
    },
    "note_3": {
        "simba_c_eq_m": Published(0.0667, 0.0358, 0.142691),
    },
}
ROWS: dict[str, Published] = {name: row for table in TABLES.values() for name, row in table.items()}
BY_SIGN_M = ("lion", "simba_m", "simba_c_eq_m")  # variants that follow the sign of m

VERDICTS = ("reproduced", "same order", "not reproduced")


def is_setting(runs: pd.DataFrame) -> bool:
    """Whether runs were made in our reading of the note's setting."""
    return bool((runs[list(SETTING)] == pd.Series(SETTING)).all(axis=None))


def verdict(ours: pd.Series, figure: float, same_place: bool | None) -> str | None:
    """What our runs say of a figure of the note; None where they cannot say.

    The note prints one figure. If it came from one more run of ours, its distance from the mean of
    our n runs would have the standard error ``std * sqrt(1 + 1/n)``. So the figure is

    - reproduced if it lies within two such standard errors of our mean;
    - else of the same order if the variant has its place among the note's six, by our means;
    - else not reproduced.

    Fewer than two runs have no std; ``same_place`` is None while a variant has no run.

    The repository shows that commit f2e6588 (25 November 2026, 01:33 UTC) holds the rule. Two of
    the thirty runs had ended by then (sign-SGD and Lion, seed 1), and two were under way.
    """
    if len(ours) < 2:
        return None
    if abs(figure - ours.mean()) <= 2 * prediction_se(ours, len(ours)):
        return VERDICTS[0]
    if same_place is None:
        return None
    return VERDICTS[1] if same_place else VERDICTS[2]


def prediction_se(ours: pd.Series, n: int) -> float:
    """Standard error of the difference between one more run and the mean of n runs."""
    return ours.std(ddof=1) * math.sqrt(1 + 1 / n)


def interval(ours: pd.Series) -> float | None:
    """Half the width of the 95% interval of one more run's distance from our mean.

    By Student's t, so it is wider than the rule's two standard errors while n is small. None for
    fewer than two runs.
    """
    n = len(ours)
    return float(stats.t.ppf(0.975, n - 1)) * prediction_se(ours, n) if n > 1 else None


def pass_probability(n: int, off: float = 0.0) -> float:
    """How often the rule calls one more run reproduced, whose figure is off by ``off`` stds.

    The distance in units of its estimated standard error has a noncentral t distribution with
    n - 1 degrees of freedom.
    """
    shift = off / math.sqrt(1 + 1 / n)
    t = stats.nct(n - 1, shift) if shift else stats.t(n - 1)
    return float(t.cdf(2) - t.cdf(-2))


def replicates(runs: pd.DataFrame, draws: int = 100_000) -> float:
    """How often one more run of the same setting is called reproduced in all three figures.

    Simulated for as many seeds as ``runs`` has, with normal figures that correlate as those of
    ``runs`` do on average over the variants. 0.73 with five seeds: of six variants that the note
    had trained just as we do, 4.4 would pass.
    """
    columns = list(METRICS.values())
    groups = [own[columns] for _, own in runs.groupby("optimizer") if len(own) > 2]
    n, correlation = min(map(len, groups)), np.mean([own.corr() for own in groups], axis=0)
    noise = np.random.default_rng(0).normal(size=(draws, n + 1, len(columns)))
    figures = noise @ np.linalg.cholesky(correlation).T
    ours, more = figures[:, :n], figures[:, n]
    bounds = 2 * ours.std(1, ddof=1) * math.sqrt(1 + 1 / n)
    return float((abs(more - ours.mean(1)) <= bounds).all(1).mean())
