"""Published Adam figures of the pre-norm SASRec (RecBoard): is our pipeline theirs?

Mean and population std over five seeds, as published; a loss is published without a std, and Toys
and Sports without any.
"""

import math

import pandas as pd

SEEDS = 5
FIGURES: dict[str, dict[str, tuple[float, float | None]]] = {
    "beauty": {"HR@10": (0.0668, 0.0012), "NDCG@10": (0.0354, 0.0009), "Loss": (0.269, None)},
    "toys": {"HR@10": (0.0766, None), "NDCG@10": (0.0432, None), "Loss": (0.252, None)},
    "sports": {"HR@10": (0.0373, None), "NDCG@10": (0.0200, None), "Loss": (0.335, None)},
}


def comparison(dataset: str, runs: pd.DataFrame, metrics: dict[str, str]) -> pd.DataFrame:
    """One line a metric: published, ours, and whether they agree.

    They agree if they lie within two standard errors of their difference. Where no std is
    published, ours stands for it; with one run of ours nothing is said.
    """
    lines = []
    for metric, column in metrics.items():
        values, (figure, std) = runs[column], FIGURES[dataset][metric]
        line = {"metric": metric, "published": f"{figure:.4f}" + (f" ± {std:.4f}" if std else "")}
        line |= {"ours": f"{values.mean():.4f}", "n": str(len(values))}
        line |= {"difference": f"{values.mean() - figure:+.4f}", "two s.e.": "–", "agrees": "–"}
        if len(values) > 1:
            own = values.std(ddof=1)
            theirs = own if std is None else std * math.sqrt(SEEDS / (SEEDS - 1))
            bound = 2 * math.sqrt(own**2 / len(values) + theirs**2 / SEEDS)
            line["ours"] += f" ± {own:.4f}"
            line["two s.e."] = f"{bound:.4f}"
            line["agrees"] = "yes" if abs(values.mean() - figure) <= bound else "no"
        lines.append(line)
    return pd.DataFrame(lines)
