"""The tables of each optimizer at its best rate and decay."""

from collections.abc import Sequence

import pandas as pd

from scripts.reporting.cells import (
    MISSING,
    ON_VALIDATION,
    OPTIMIZER,
    Table,
    four_decimals,
    mean_and_std,
    seeds,
    values_in,
    with_interval,
)
from scripts.reporting.note import METRICS
from scripts.reporting.statistics import differences
from scripts.reporting.studies import VARIANT, Study, variant
from scripts.reporting.style import label_of, short

VALID = "valid/NDCG@10"
KEYS = {"lr": "lr", "weight_decay": "decay"}  # the columns that are tuned, and their names
EDGE = (
    "At the edge: the value is the lowest or the highest of those tried with the row's other "
    "values (if it is the only one, of all that were tried), so the best may lie beyond."
)
TARGET = 0.95  # of the baseline's validation NDCG@10


def best(study: Study) -> Table | None:
    """One row per optimizer of a study that sweeps over rates or decays: its best variant.

    The best one has the highest NDCG@10 on validation, as a mean over seeds.
    """
    keys = [key for key in KEYS if key in study.swept]
    if not keys or study.declared.tuning or study.declared.shown_elsewhere:
        return None
    means = study.runs.groupby(VARIANT)[VALID].mean()
    chosen = {o: means.loc[o].idxmax() for o in dict.fromkeys(o for o, _ in study.variants)}
    base = study.declared.baseline
    base_runs = study.of(base, chosen[base]) if base in chosen else study.runs.iloc[:0]
    target = TARGET * base_runs[VALID].mean()
    lines = []
    for optimizer, swept in chosen.items():
        runs = study.of(optimizer, swept)
        line = {OPTIMIZER: label_of(optimizer)}
        for key in study.swept:
            line[study.short_names[key]] = values_in(runs[key])
        tried = study.runs.loc[study.runs["optimizer"] == optimizer]
        line |= {"at the edge": _at_the_edge(runs.iloc[0], tried, keys)}
        line |= {ON_VALIDATION: four_decimals(means[optimizer, swept])}
        line |= {name: mean_and_std(runs[column]) for name, column in METRICS.items()}
        line |= {"n": str(len(runs))}
        if len(base_runs):
            d = differences(runs, base_runs, METRICS["NDCG@10"])
            compared = optimizer != base and len(d)
            line |= {"NDCG@10, difference": with_interval(d) if compared else MISSING}
            curve = variant(study.curves, optimizer, swept).groupby("epoch")[VALID].mean()
            reached = curve.index[curve >= target]
            line |= {"epochs to 95%": str(reached[0]) if len(reached) else MISSING}
        lines.append(line)
    caption = (
        "Each optimizer at the best of the settings that were tried: the highest NDCG@10 on "
        f"validation, as a mean over seeds. {study.runs['epochs'].max()} epochs. HR@10 and NDCG@10 "
        "are on test, Loss is the lowest training loss; mean ± sample std over n seeds."
    )
    if len(base_runs):
        name = label_of(base)
        caption += (
            f" The difference is that to {name} at its best over equal seeds, with its 95% "
            "interval (Student's t). The last column has the first evaluated epoch with 95% of "
            f"{name}'s NDCG@10 on validation."
        )
    caption += f" {EDGE}"
    return Table(pd.DataFrame(lines).fillna(MISSING), caption)


def _at_the_edge(chosen: pd.Series, tried: pd.DataFrame, keys: Sequence[str]) -> str:
    """The keys of which the chosen run has the lowest or the highest value tried, as text.

    A key's values are those tried with the chosen values of the other keys; if this is one value,
    all that were tried. A lowest value of 0 is no edge, as there is no lower one. MISSING if
    nothing was varied.
    """
    edges = []
    if all(tried[key].nunique() == 1 for key in keys):
        return MISSING
    for key in keys:
        others = [other for other in keys if other != key]
        values = tried.loc[(tried[others] == chosen[others]).all(axis=1), key]
        values = values if values.nunique() > 1 else tried[key]
        lowest, highest = values.min(), values.max()
        if chosen[key] == highest or (chosen[key] == lowest and lowest > 0):
            edges.append(KEYS[key])
    return ", ".join(edges) or "no"


def tuned(studies: Sequence[Study]) -> Table | None:
    """One row per optimizer: the run with the best NDCG@10 on validation of all that tuned it."""
    tuning = [study for study in studies if study.declared.tuning]
    if not tuning:
        return None
    runs = pd.concat([study.runs for study in tuning])
    others = {
        key: study.short_names[key] for study in tuning for key in study.swept if key not in KEYS
    }
    lines = []
    for _, selected in runs.groupby("optimizer"):
        chosen = selected.sort_values(VALID, kind="stable").iloc[-1]
        line = {OPTIMIZER: label_of(str(chosen["optimizer"])), "runs": str(len(selected))}
        line |= {"lr": short(chosen["lr"]), "decay": short(chosen["weight_decay"])}
        line |= {name: values_in(pd.Series([chosen[key]])) for key, name in others.items()}
        line |= {ON_VALIDATION: four_decimals(chosen[VALID])}
        line |= {name: four_decimals(chosen[column]) for name, column in METRICS.items()}
        line |= {"at the edge": _at_the_edge(chosen, selected, list(KEYS))}
        lines.append((chosen[VALID], line))
    lines.sort(key=lambda pair: -pair[0])
    epochs = int(runs["epochs"].max())
    caption = (
        "Each optimizer at its best rate and decay: the best of its runs by NDCG@10 on validation, "
        f"{epochs} epochs, {seeds(runs['seed'].nunique())}. HR@10 and NDCG@10 are on test, Loss is "
        f"the lowest training loss. {EDGE}"
    )
    return Table(pd.DataFrame([line for _, line in lines]), caption)
