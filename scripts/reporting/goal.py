"""The table ``goal``: which variants reach Lion's results. The criterion is older than the runs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from scripts.reporting.cells import OPTIMIZER, Table
from scripts.reporting.finalists import BYTES
from scripts.reporting.note import METRICS
from scripts.reporting.statistics import differences, t_interval
from scripts.reporting.studies import Study, baseline_of, variant
from scripts.reporting.style import label_of

LEAST_MEAN, LEAST_LOW = 0.99, 0.98  # of the baseline's: the mean, and the end of its interval
CHECKED = ("NDCG@10", "HR@10")  # the metrics of the goal
VALID = "valid/NDCG@10"
LATE = 0.8  # an evaluation is late after this share of the epochs


def goal(studies: Sequence[Study], root: Path) -> Table | None:
    """One row per dataset and variant that was compared with Lion in the ablation's setting."""
    lines = [
        _line(study, optimizer, swept)
        for study in goal_studies(studies)
        for optimizer, swept in study.variants
        if optimizer != study.declared.baseline
    ]
    frame = pd.DataFrame(filter(None, lines))
    if frame.empty:
        return None
    frame = frame.sort_values(["dataset", "order"], kind="stable").drop(columns="order")
    caption = (
        "The goal: at least 99% of Lion's NDCG@10 and HR@10 on test, with intervals that end above "
        "98%. Met: both hold for both metrics; mean only: the means are high enough; no: they are "
        "not. All variants that were compared with Lion at its rate and decay, in the setting of "
        "each dataset's main experiment, from the best to the worst. Values are % of Lion's mean "
        "over the n seeds that both have, with the 95% interval of Student's t from three seeds "
        "on. Late validation: the mean NDCG@10 on validation of all evaluations in the last fifth "
        "of the epochs. Loss is the lowest training loss."
    )
    return Table(frame, caption)


def goal_studies(studies: Sequence[Study]) -> list[Study]:
    """The studies that answer, and those that take their baseline from one of them."""
    answering = {study.experiment for study in studies if study.declared.answers}
    return [
        study
        for study in studies
        if study.declared.answers or study.declared.baseline_from in answering
    ]


def _line(study: Study, optimizer: str, swept: str) -> dict[str, object] | None:
    """The row of a variant; None if it has no seed in common with the baseline."""
    ours = study.of(optimizer, swept)
    theirs = baseline_of(study.baseline, study.declared.baseline, swept)
    tested = {name: _relative(ours, theirs, column) for name, column in METRICS.items()}
    n = len(tested["NDCG@10"])
    if n == 0:
        return None
    curves = variant(study.curves, optimizer, swept)
    their_curves = baseline_of(study.baseline_curves, study.declared.baseline, swept)
    tested["late validation"] = _relative(_late(curves), _late(their_curves), VALID)
    line: dict[str, object] = {"dataset": study.dataset, OPTIMIZER: label_of(optimizer, swept)}
    line[BYTES] = f"{ours['state_bytes_per_param'].iloc[0]:g}"
    line |= {name: _in_percent(values) for name, values in tested.items()}
    line |= {"n": str(n), "goal": _verdict([tested[name] for name in CHECKED])}
    return line | {"order": -tested["NDCG@10"].mean()}


def _late(curves: pd.DataFrame) -> pd.DataFrame:
    """The mean NDCG@10 on validation of the late evaluations, one row per seed."""
    evaluated = curves.dropna(subset=[VALID])
    late = evaluated[evaluated["epoch"] > LATE * evaluated["epoch"].max()]
    return late.groupby("seed", as_index=False)[VALID].mean()


def _relative(ours: pd.DataFrame, theirs: pd.DataFrame, column: str) -> np.ndarray:
    """(n,) a column of a variant's runs over the baseline's mean, for their n common seeds."""
    common = theirs[theirs["seed"].isin(ours["seed"])]
    return 1 + differences(ours, common, column) / common[column].mean()


def _in_percent(shares: np.ndarray) -> str:
    """The mean of shares in %, with its 95% interval if there are three or more."""
    text = f"{100 * shares.mean():.1f}%"
    bounds = t_interval(shares)
    return text if bounds is None else f"{text} [{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"


def _verdict(tested: Sequence[np.ndarray]) -> str:
    """Whether the shares of every metric reach the goal."""
    if not all(shares.mean() >= LEAST_MEAN for shares in tested):
        return "no"
    bounds = [t_interval(shares) for shares in tested]
    return "met" if all(b is not None and b[0] > LEAST_LOW for b in bounds) else "mean only"
