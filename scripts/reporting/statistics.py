"""Statistical comparison of variants with a baseline, over seeds and over users."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats

from scripts.records.errors import UserError
from scripts.records.record import decode_ranks, ndcg_at_10
from scripts.records.users import Users
from scripts.reporting.studies import (
    STUDY,
    VARIANT,
    baseline_of,
    baseline_study,
    declared,
    of_study,
)

QUANTILES = (0.2, 0.4, 0.6, 0.8)


class Paired(NamedTuple):
    """A variant compared with its study's baseline, user by user; means over common seeds."""

    study: tuple[str, ...]  # of STUDY
    variant: tuple[str, ...]  # of VARIANT
    seeds: int
    difference: np.ndarray  # (users,) float64: NDCG@10 on test minus the baseline's
    baseline: np.ndarray  # (users,) float64: the baseline's NDCG@10 on test


def paired_users(runs: pd.DataFrame, records: Mapping[str, Mapping[str, Any]]) -> list[Paired]:
    """Every variant that has seeds in common with its study's baseline, on the same data.

    Args:
        records: the record of each run, by its path in ``runs``.

    Raises:
        UserError: two runs on the same data were tested on different users.
    """
    ndcg_by_path = {path: user_ndcg(record) for path, record in records.items()}
    comparisons = []
    for key, study in runs.groupby(STUDY):
        keys = tuple(map(str, key))
        baseline = declared(keys[0]).baseline
        baseline_runs = of_study(runs, baseline_study(keys))
        for variant, variant_runs in study.groupby(VARIANT):
            optimizer, swept = map(str, variant)
            pairs = paths_by_seed(variant_runs, baseline_of(baseline_runs, baseline, swept))
            pairs = [(a, b) for a, b in pairs if same_data(records[a], records[b])]
            if optimizer == baseline or not pairs:
                continue
            for one, other in pairs:
                if len(ndcg_by_path[one]) != len(ndcg_by_path[other]):
                    raise UserError(f"{one} and {other} were tested on different users; delete one")
            d = mean_difference([(ndcg_by_path[a], ndcg_by_path[b]) for a, b in pairs])
            theirs = np.mean([ndcg_by_path[b] for _, b in pairs], axis=0)
            comparisons.append(Paired(keys, (optimizer, swept), len(pairs), d, theirs))
    return comparisons


def same_data(record: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two runs were trained and tested on the same interactions."""
    return bool(record["config"]["data"] == other["config"]["data"])


def user_tests(comparisons: Sequence[Paired]) -> pd.DataFrame:
    """One row per variant: how many users gain and lose, and two tests over users.

    ``better`` and ``worse`` count the users with a positive and a negative difference. ``p_t`` and
    ``p_wilcoxon`` are those of ``p_values``, not yet corrected for the number of variants.
    """
    lines = []
    for paired in comparisons:
        d = paired.difference
        counts = [paired.seeds, len(d), int((d > 0).sum()), int((d < 0).sum())]
        rounded = [float(f"{p:.6g}") for p in p_values(d)]
        lines.append([*paired.study, *paired.variant, *counts, *rounded])
    columns = [*STUDY, *VARIANT, "seeds", "users", "better", "worse", "p_t", "p_wilcoxon"]
    return pd.DataFrame(lines, columns=columns)


def user_groups(
    comparisons: Sequence[Paired], users: Mapping[tuple[str, ...], Users]
) -> pd.DataFrame:
    """One row per variant and group of users: who gains and who loses.

    Args:
        users: the users of each study; a study without them has no row.
    """
    columns = [*STUDY, *VARIANT, "seeds", "by", *Group._fields]
    lines = [
        [*paired.study, *paired.variant, paired.seeds, by, *group]
        for paired in comparisons
        if paired.study in users
        for by in Users._fields
        for group in groups(paired.difference, paired.baseline, getattr(users[paired.study], by))
    ]
    return pd.DataFrame(lines, columns=columns)


class Group(NamedTuple):
    """Users whose popularity or history length is from ``least`` to ``most``, and their results."""

    least: int
    most: int
    users: int
    better: int
    worse: int
    baseline: float  # mean NDCG@10 on test
    difference: float  # mean of the users' differences
    low: float  # of the 95% interval of this mean, over users; NaN for fewer than three
    high: float


def groups(d: np.ndarray, baseline: np.ndarray, values: np.ndarray) -> list[Group]:
    """Differences in about five groups of about equal size; users with equal values stay together.

    Args:
        d: (users,) differences.
        baseline: (users,) the baseline's NDCG@10.
        values: (users,) integers, such as the length of a history.
    """
    edges = np.unique(np.quantile(values, QUANTILES, method="inverted_cdf"))
    group_index = np.searchsorted(edges, values)
    results = []
    for i in np.unique(group_index):
        in_group = group_index == i
        low, high = t_interval(d[in_group]) or (math.nan, math.nan)
        results.append(
            Group(
                least=int(values[in_group].min()),
                most=int(values[in_group].max()),
                users=int(in_group.sum()),
                better=int((d[in_group] > 0).sum()),
                worse=int((d[in_group] < 0).sum()),
                baseline=round(float(baseline[in_group].mean()), 7),
                difference=round(float(d[in_group].mean()), 7),
                low=round(low, 7),
                high=round(high, 7),
            )
        )
    return results


def user_ndcg(record: Mapping[str, Any]) -> np.ndarray:
    """(users,) float64: the NDCG@10 on test of each user of a run."""
    return ndcg_at_10(decode_ranks(record["test_ranks"]))


def paths_by_seed(ours: pd.DataFrame, theirs: pd.DataFrame) -> list[tuple[str, str]]:
    """The record paths of two variants' runs, paired by their common seeds."""
    by_seed = dict(zip(theirs["seed"], theirs["record"], strict=True))
    ours_by_seed = zip(ours["seed"], ours["record"], strict=True)
    return [(record, by_seed[seed]) for seed, record in ours_by_seed if seed in by_seed]


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
    # the quantile and the standard error as in scipy.stats, without its checks, which take longer
    quantile = special.stdtrit(len(values) - 1, (1 + confidence) / 2)
    half = quantile * np.std(values, ddof=1) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def holm(p: list[float]) -> list[float]:
    """The p-values corrected by Holm's step-down method, in the given order."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1)))
    return adjusted.tolist()
