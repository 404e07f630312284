"""The note's published values, and the rule that decides whether our runs reproduce them.

The note's tables have HR@10, NDCG@10 and the loss of each variant. The note
(https://mtandhj.github.io, "Simba: the feasibility of sign gradients") names SASRec, but
neither its form nor a dataset nor the settings of its runs. The setting below is our
assumption: its author used it in a public benchmark of Lion (RecBoard). For the other variants, the
learning rate and the weight decay are guesses, too.
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
# We assume that the note's loss is the lowest of all epochs: its author's code reports that one.
METRICS = {"HR@10": "test/HR@10", "NDCG@10": "test/NDCG@10", "Loss": "train/min_loss"}


class Published(NamedTuple):
    """One variant's line in the note's tables: HR@10 and NDCG@10 on test, and the training loss."""

    hr: float
    ndcg: float
    loss: float


# The note prints Simba + m, Simba + (1) and Simba + (c = m) in separate tables. Each of the
# first two changes one of the two things in which Simba differs from Lion; they share a table here.
# The note calls sign-SGD "Sign Gradient".
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
NOTE_VALUES: dict[str, Published] = {
    name: row for table in TABLES.values() for name, row in table.items()
}
BY_SIGN_M = ("lion", "simba_m", "simba_c_eq_m")  # the variants that move by sign(m)

VERDICTS = ("reproduced", "same rank", "not reproduced")
RULE = (
    "A metric is reproduced if the note's value lies in the prediction interval for one more run "
    "of ours: mean ± 2 std sqrt(1 + 1/n). Otherwise we compare ranks among the six variants by "
    "this metric: the verdict is same rank if our rank equals the note's, else not reproduced."
)


def has_note_setting(runs: pd.DataFrame) -> bool:
    """Whether all runs have the setting that we assume for the note."""
    return bool((runs[list(SETTING)] == pd.Series(SETTING)).all(axis=None))


def verdict(ours: pd.Series, note_value: float, same_rank: bool | None) -> str | None:
    """The verdict on one value of the note; None if our runs do not suffice for one.

    If the note's value came from one more run of ours, its distance from the mean of our n runs
    would have the standard error ``std * sqrt(1 + 1/n)``. The verdict is therefore

    - "reproduced" if the value lies within two of these standard errors of our mean;
    - otherwise "same rank" if ``same_rank``;
    - otherwise "not reproduced".

    The rule was fixed in commit f2e6588 (25 November 2026, 01:33 UTC). At that time two of the
    thirty runs had ended (sign-SGD and Lion, seed 1), and two were running.

    Args:
        ours: the values of our runs, one per seed. Fewer than two have no std, so no verdict.
        note_value: the note's value.
        same_rank: whether the variant has the same rank among the note's six variants by our
            means as by the note's values; None if a variant has no run.
    """
    if len(ours) < 2:
        return None
    if abs(note_value - ours.mean()) <= 2 * prediction_se(ours, len(ours)):
        return VERDICTS[0]
    if same_rank is None:
        return None
    return VERDICTS[1] if same_rank else VERDICTS[2]


def prediction_se(ours: pd.Series, n: int) -> float:
    """The standard error of the difference between one more run and the mean of n runs."""
    return ours.std(ddof=1) * math.sqrt(1 + 1 / n)


def interval_half_width(ours: pd.Series) -> float | None:
    """Half the width of the 95% prediction interval for one more run, around our mean.

    The interval is that of Student's t; for small n it is wider than the two standard errors of the
    rule. None for fewer than two runs.
    """
    n = len(ours)
    return float(stats.t.ppf(0.975, n - 1)) * prediction_se(ours, n) if n > 1 else None


def pass_probability(n: int, off: float = 0.0) -> float:
    """The probability that the rule calls a metric of one more run reproduced.

    The distance in units of its estimated standard error has a noncentral t distribution with
    n - 1 degrees of freedom.

    Args:
        n: the number of our runs.
        off: the difference of the expected values, in stds.
    """
    shift = off / math.sqrt(1 + 1 / n)
    t = stats.nct(n - 1, shift) if shift else stats.t(n - 1)
    return float(t.cdf(2) - t.cdf(-2))


def probability_all_reproduced(runs: pd.DataFrame, draws: int = 100_000) -> float:
    """The probability that the rule calls all three metrics of one more run reproduced.

    It is simulated for the number of seeds in ``runs``. The metrics are normally distributed, with
    the mean correlation of ``runs`` over the variants. With five seeds the probability is 0.73: if
    the note had trained six variants exactly as we do, 4.4 of them would be reproduced on average.
    """
    columns = list(METRICS.values())
    groups = [group[columns] for _, group in runs.groupby("optimizer") if len(group) > 2]
    n, correlation = min(map(len, groups)), np.mean([group.corr() for group in groups], axis=0)
    noise = np.random.default_rng(0).normal(size=(draws, n + 1, len(columns)))
    metrics = noise @ np.linalg.cholesky(correlation).T
    ours, more = metrics[:, :n], metrics[:, n]
    bounds = 2 * ours.std(1, ddof=1) * math.sqrt(1 + 1 / n)
    return float((abs(more - ours.mean(1)) <= bounds).all(1).mean())
