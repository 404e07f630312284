"""The table of each optimizer's best rate and decay."""

from collections.abc import Sequence

import pandas as pd

from scripts.reporting.cells import WITH, Table, four_decimals, seeds
from scripts.reporting.note import METRICS
from scripts.reporting.studies import Study
from scripts.reporting.style import label_of, short

VALID = "valid/NDCG@10"


def tuned(studies: Sequence[Study]) -> Table | None:
    """One row per optimizer: the run with the best NDCG@10 on validation of all that tuned it."""
    tuning = [study for study in studies if study.declared.tuning]
    if not tuning:
        return None
    runs = pd.concat([study.runs for study in tuning])
    lines = []
    for _, selected in runs.groupby("optimizer"):
        best = selected.sort_values(VALID, kind="stable").iloc[-1]
        line = {WITH: label_of(str(best["optimizer"])), "runs": str(len(selected))}
        line |= {"lr": short(best["lr"]), "decay": short(best["weight_decay"])}
        line |= {"NDCG@10 on validation": four_decimals(best[VALID])}
        line |= {name: four_decimals(best[column]) for name, column in METRICS.items()}
        edges = ["lr"] if best["lr"] in (selected["lr"].min(), selected["lr"].max()) else []
        edges += ["decay"] if best["weight_decay"] == selected["weight_decay"].max() else []
        lines.append((best[VALID], line | {"at the edge": ", ".join(edges) or "no"}))
    lines.sort(key=lambda pair: -pair[0])
    epochs = int(runs["epochs"].max())
    caption = (
        "Each optimizer at its best rate and decay: the best of its runs by NDCG@10 on validation, "
        f"{epochs} epochs, {seeds(runs['seed'].nunique())}. HR@10 and NDCG@10 are on test, Loss is "
        "the lowest training loss. At the edge: the optimizer was tried with no lower or no higher "
        "rate, or with no higher decay, so the best may lie beyond."
    )
    return Table(pd.DataFrame([line for _, line in lines]), caption)
