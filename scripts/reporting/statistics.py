"""Statistical comparison of variants with a baseline, over seeds and over users."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from scripts.records.record import decode_ranks, read_record
from scripts.reporting.studies import (
    STUDY,
    VARIANT,
    baseline_of,
    baseline_study,
    declared,
    of_study,
)


def user_tests(root: Path, runs: pd.DataFrame) -> pd.DataFrame:
    """One line per variant that has seeds in common with its study's baseline.

    The difference of a user's NDCG@10 on test is averaged over these seeds. ``better`` and
    ``worse`` count the users with a positive and a negative mean. ``p_t`` is the p-value of a
    two-sided paired t-test over users, ``p_wilcoxon`` that of Wilcoxon's signed-rank test. Both
    tests are over the users of these runs, not over seeds. The p-values are not yet corrected for
    the number of variants.
    """
    lines = []
    gains: dict[str, np.ndarray] = {}

    def gain(record: str) -> np.ndarray:
        if record not in gains:
            gains[record] = user_gains(root / record)
        return gains[record]

    for key, study in runs.groupby(STUDY):
        keys = tuple(map(str, key))
        baseline = declared(keys[0]).baseline
        pool = of_study(runs, baseline_study(keys))
        for variant, own in study.groupby(VARIANT):
            optimizer, swept = map(str, variant)
            baseline_runs = baseline_of(pool, baseline, swept)
            pairs = own.merge(baseline_runs, on="seed", suffixes=("", "_baseline"))
            if optimizer == baseline or len(pairs) == 0:
                continue
            differences = [
                gain(a) - gain(b)
                for a, b in zip(pairs["record"], pairs["record_baseline"], strict=True)
            ]
            d = np.mean(differences, axis=0)
            d[np.abs(d) < 1e-12] = 0  # rounding errors of differences that cancel
            p_values = [1.0, 1.0]
            if d.any():
                p_values = [stats.ttest_1samp(d, 0).pvalue, stats.wilcoxon(d).pvalue]
            counts = [len(pairs), len(d), int((d > 0).sum()), int((d < 0).sum())]
            rounded = [float(f"{p:.6g}") for p in p_values]
            lines.append([*keys, optimizer, swept, *counts, *rounded])
    columns = [*STUDY, *VARIANT, "seeds", "users", "better", "worse", "p_t", "p_wilcoxon"]
    return pd.DataFrame(lines, columns=columns)


def user_gains(path: Path) -> np.ndarray:
    """(users,) float64: the NDCG@10 on test of each user of a run."""
    ranks = decode_ranks(read_record(path)["test_ranks"])
    return np.where(ranks <= 10, 1 / np.log2(ranks + 1.0), 0.0)


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
