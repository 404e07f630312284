"""RecBoard's published results of Adam on the pre-norm SASRec, to validate our pipeline.

RecBoard (benchmark/Amazon2014*_550_LOU/SASRec.json) publishes the results of five seeds. The values
below are their means and sample stds. HR@10 and NDCG@10 are on test, of the epoch that was
best on validation; the loss is the lowest of all epochs.
"""

import math

import pandas as pd

from scripts.reporting.cells import signed
from scripts.reporting.note import METRICS

SEEDS = 5
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "beauty": {
        "HR@10": (0.06676, 0.00129),
        "NDCG@10": (0.03536, 0.00105),
        "Loss": (0.26919, 0.00127),
    },
    "toys": {
        "HR@10": (0.07664, 0.00094),
        "NDCG@10": (0.04316, 0.00025),
        "Loss": (0.25203, 0.00118),
    },
    "sports": {
        "HR@10": (0.03728, 0.00046),
        "NDCG@10": (0.02005, 0.00025),
        "Loss": (0.33457, 0.00267),
    },
}


def comparison(dataset: str, runs: pd.DataFrame) -> pd.DataFrame:
    """One line per metric: the published mean, ours, and whether they agree.

    They agree if their difference is at most two standard errors of the difference. One run of ours
    does not suffice for a standard error, so ``agrees`` is then a dash.
    """
    lines = []
    for metric, column in METRICS.items():
        ours, (mean, std) = runs[column], PUBLISHED[dataset][metric]
        difference = ours.mean() - mean
        line = {"metric": metric, "published": f"{mean:.4f} ± {std:.4f}"}
        line |= {"ours": f"{ours.mean():.4f}", "n": str(len(ours))}
        line |= {"difference": signed(difference), "two s.e.": "–", "agrees": "–"}
        if len(ours) > 1:
            bound = 2 * math.sqrt(ours.var(ddof=1) / len(ours) + std**2 / SEEDS)
            line["ours"] += f" ± {ours.std(ddof=1):.4f}"
            line["two s.e."] = f"{bound:.4f}"
            line["agrees"] = "yes" if abs(difference) <= bound else "no"
        lines.append(line)
    return pd.DataFrame(lines)
