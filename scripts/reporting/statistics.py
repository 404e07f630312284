"""Statistical comparison of variants with a baseline, over seeds and over users."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from scripts.records.record import decode_ranks, ndcg_at_10
from scripts.reporting.studies import (
    STUDY,
    VARIANT,
    baseline_of,
    baseline_study,
    declared,
    of_study,
)


def user_tests(runs: pd.DataFrame, records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One line per variant that has seeds in common with its study's baseline.

    The difference of a user's NDCG@10 on test is averaged over these seeds. ``better`` and
    ``worse`` count the users with a positive and a negative mean. ``p_t`` and ``p_wilcoxon`` are
    those of ``p_values``, not yet corrected for the number of variants.

    Args:
        records: the record of each run, by its path in ``runs``.
    """
    gains = {path: user_gains(record) for path, record in records.items()}
    lines = []
    for key, study in runs.groupby(STUDY):
        keys = tuple(map(str, key))
        baseline = declared(keys[0]).baseline
        pool = of_study(runs, baseline_study(keys))
        for variant, own in study.groupby(VARIANT):
            optimizer, swept = map(str, variant)
            pairs = paths_by_seed(own, baseline_of(pool, baseline, swept))
            if optimizer == baseline or not pairs:
                continue
            d = mean_difference([(gains[a], gains[b]) for a, b in pairs])
            counts = [len(pairs), len(d), int((d > 0).sum()), int((d < 0).sum())]
            rounded = [float(f"{p:.6g}") for p in p_values(d)]
            lines.append([*keys, optimizer, swept, *counts, *rounded])
    columns = [*STUDY, *VARIANT, "seeds", "users", "better", "worse", "p_t", "p_wilcoxon"]
    return pd.DataFrame(lines, columns=columns)


def user_gains(record: Mapping[str, Any]) -> np.ndarray:
    """(users,) float64: the NDCG@10 on test of each user of a run."""
    return ndcg_at_10(decode_ranks(record["test_ranks"]))


def paths_by_seed(ours: pd.DataFrame, theirs: pd.DataFrame) -> list[tuple[str, str]]:
    """The record paths of two variants' runs, paired by their common seeds."""
    pairs = ours.merge(theirs, on="seed", suffixes=("", "_theirs"))
    return list(zip(pairs["record"], pairs["record_theirs"], strict=True))


def mean_difference(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """(users,) float64: the mean over pairs of the first array minus the second."""
    d = np.mean([ours - theirs for ours, theirs in pairs], axis=0)
    d[np.abs(d) < 1e-12] = 0  # rounding errors of differences that cancel
    return d


def p_values(d: np.ndarray) -> tuple[float, float]:
    """The p-values of a two-sided t-test of d (users,) against 0 and of Wilcoxon's test.

    Both tests are over the users of these runs, not over seeds.
    """
    if not d.any():
        return 1.0, 1.0
    return float(stats.ttest_1samp(d, 0).pvalue), float(stats.wilcoxon(d).pvalue)


def differences(ours: pd.DataFrame, theirs: pd.DataFrame, column: str) -> np.ndarray:
    """(n,) float64: a column of a variant's runs minus the baseline's, over n common seeds."""
    d = ours.set_index("seed")[column] - theirs.set_index("seed")[column]
    return d.dropna().to_numpy(float)


def t_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's t confidence interval (low, high) of the mean; None for fewer than three values."""
    if len(values) < 3:
        return None
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean() - half), float(values.mean() + half)


def holm(p: list[float]) -> list[float]:
    """The p-values corrected by Holm's step-down method, in the given order."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1)))
    return adjusted.tolist()
