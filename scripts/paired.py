"""Every row beside Lion, run by run and user by user."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from scripts import run_record
from scripts.studies import STUDY, compared

AGAINST = "lion"
RESAMPLES = 10_000


def user_tests(root: Path, runs: pd.DataFrame) -> pd.DataFrame:
    """Per study and optimizer: users whose NDCG@10 on test is better or worse than with Lion, as a
    mean over the seeds that both have, and the p of a two-sided paired t-test over users.

    It is a test of these runs' users, not of seeds. ``p`` is not yet adjusted for several rows.
    """
    lines = []
    for keys, study in compared(runs).groupby(STUDY):
        if study.duplicated(["optimizer", "seed"]).any():
            continue  # a study of rates: which run would be paired with which?
        gains = {
            (line["optimizer"], line["seed"]): user_gains(root / line["record"])
            for _, line in study.iterrows()
        }
        for optimizer in sorted(set(study["optimizer"]) - {AGAINST}):
            seeds = [s for o, s in gains if o == optimizer and (AGAINST, s) in gains]
            if not seeds:
                continue
            d = np.mean([gains[optimizer, s] - gains[AGAINST, s] for s in seeds], axis=0)
            d[np.abs(d) < 1e-12] = 0  # means that cancel but for rounding
            p = stats.ttest_1samp(d, 0).pvalue if d.any() else 1.0
            better, worse = int((d > 0).sum()), int((d < 0).sum())
            found = [*keys, optimizer, len(seeds), len(d), better, worse, float(f"{p:.6g}")]
            lines.append(found)
    columns = [*STUDY, "optimizer", "seeds", "users", "better", "worse", "p"]
    return pd.DataFrame(lines, columns=columns)


def user_gains(path: Path) -> np.ndarray:
    """(users,) NDCG@10 on test of each user."""
    ranks = run_record.decode_ranks(run_record.read(path)["test_ranks"])
    return np.where(ranks <= 10, 1 / np.log2(ranks + 1.0), 0.0)


def differences(study: pd.DataFrame, optimizer: str, column: str) -> np.ndarray:
    """(n,) the row's figure minus Lion's, seed by seed."""
    runs = study.pivot(index="seed", columns="optimizer", values=column)
    return (runs[optimizer] - runs[AGAINST]).dropna().to_numpy()


def bootstrap(values: np.ndarray) -> tuple[float, float] | None:
    """95% percentile interval of the mean; None for fewer than five values.

    Of so few it is too narrow: of five normal ones it holds the true mean 84 times in 100.
    """
    if len(values) < 5:
        return None
    if np.ptp(values) == 0:
        return values[0], values[0]
    found = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(found.low), float(found.high)


def holm(p: list[float]) -> list[float]:
    """Holm's step-down correction, in the order given."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1)))
    return adjusted.tolist()
