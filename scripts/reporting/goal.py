"""The table ``goal``: which variants reach Lion's results."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from scripts.reporting.cells import OPTIMIZER, Table
from scripts.reporting.finalists import BYTES
from scripts.reporting.note import METRICS
from scripts.reporting.statistics import differences, t_interval
from scripts.reporting.studies import Study, variant
from scripts.reporting.style import label_of

LEAST_MEAN, LEAST_LOW = 0.99, 0.98  # of the baseline's: the mean, and the end of its interval
CHECKED = ("NDCG@10", "HR@10")  # the metrics of the goal
VALID = "valid/NDCG@10"
LATE = 0.8  # an evaluation is late after this share of the epochs


def goal(studies: Sequence[Study], root: Path) -> Table | None:
    """One row per dataset and variant that was compared with Lion in the ablation's setting."""
    lines = [
        _line(study, optimizer)
        for study in goal_studies(studies)
        for optimizer, swept in study.variants
        if optimizer != study.declared.baseline and not swept
    ]
    frame = pd.DataFrame(filter(None, lines))
    if frame.empty:
        return None
    frame = frame.sort_values(["dataset", "order"], kind="stable").drop(columns="order")
    caption = (
        "Our goal: HR@10 and NDCG@10 on test of at least 99% of Lion's, with intervals whose lower "
        "end is above 98%. Met: both hold for both metrics; mean only: both means are high "
        "enough; no: a mean is not. All variants that were trained at Lion's rate and decay, in "
        "the setting of each dataset's main experiment, from the best to the worst. Values are % "
        "of Lion's mean over the n seeds that both have; the 95% interval is Student's t of the "
        "paired differences, from three seeds on. Late validation: the mean NDCG@10 on validation "
        "of all evaluations in the last fifth of the epochs. Loss is the lowest training loss."
    )
    return Table(frame, caption)


def goal_studies(studies: Sequence[Study]) -> list[Study]:
    """The studies that answer, and those that take Lion from one of them."""
    answering = {study.experiment for study in studies if study.declared.answers}
    return [
        study
        for study in studies
        if study.declared.baseline == "lion"
        and (study.declared.answers or study.declared.baseline_from in answering)
    ]


def _line(study: Study, optimizer: str) -> dict[str, object] | None:
    """The row of a variant; None if it has no seed in common with the baseline."""
    base = study.declared.baseline
    ours, theirs = study.of(optimizer), variant(study.baseline, base)
    shares = {name: _relative(ours, theirs, column) for name, column in METRICS.items()}
    n = len(shares["NDCG@10"])
    if n == 0:
        return None
    our_late = _late(variant(study.curves, optimizer))
    their_late = _late(variant(study.baseline_curves, base))
    shares["late validation"] = _relative(our_late, their_late, VALID)
    line: dict[str, object] = {"dataset": study.dataset, OPTIMIZER: label_of(optimizer)}
    line[BYTES] = f"{ours['state_bytes_per_param'].iloc[0]:g}"
    line |= {name: _in_percent(values) for name, values in shares.items()}
    line |= {"n": str(n), "goal": _verdict([shares[name] for name in CHECKED])}
    return line | {"order": -shares["NDCG@10"].mean()}


def _late(curves: pd.DataFrame) -> pd.DataFrame:
    """The mean NDCG@10 on validation of the late evaluations, one row per seed."""
    evaluated = curves.dropna(subset=[VALID])
    late = evaluated[evaluated["epoch"] > LATE * evaluated["epoch"].max()]
    return late.groupby("seed", as_index=False)[VALID].mean()


def _relative(ours: pd.DataFrame, theirs: pd.DataFrame, column: str) -> np.ndarray:
    """(n,) a column of a variant's runs over the baseline's mean, for their n common seeds."""
    common = theirs[theirs["seed"].isin(ours["seed"])]
    return 1 + differences(ours, theirs, column) / common[column].mean()


def _in_percent(shares: np.ndarray) -> str:
    """The mean of shares in %, with its 95% interval if there are three or more."""
    text = f"{100 * shares.mean():.1f}%"
    bounds = t_interval(shares)
    return text if bounds is None else f"{text} [{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"


def _verdict(checked: Sequence[np.ndarray]) -> str:
    """Whether the shares of every metric reach the goal."""
    if not all(shares.mean() >= LEAST_MEAN for shares in checked):
        return "no"
    bounds = [t_interval(shares) for shares in checked]
    return "met" if all(b is not None and b[0] > LEAST_LOW for b in bounds) else "mean only"
