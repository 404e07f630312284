"""Compare two variants: over seeds, over users, and by groups of users."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from scripts.records.errors import UserError
from scripts.records.record import read_record
from scripts.reporting.note import METRICS
from scripts.reporting.statistics import (
    differences,
    mean_difference,
    p_values,
    paths_by_seed,
    t_interval,
    user_gains,
)
from scripts.reporting.studies import Study
from scripts.reporting.style import label_of
from scripts.reporting.tables import (
    MISSING,
    Table,
    bracketed,
    mean_and_std,
    signed,
    with_interval,
)

GROUPS = 5
COLOURS = ("#0072B2", "#D55E00")


class Side(NamedTuple):
    """One side of a comparison."""

    name: str
    runs: pd.DataFrame
    curves: pd.DataFrame


def find(studies: list[Study], name: str, dataset: str | None) -> Side:
    """The runs that ``EXPERIMENT/OPTIMIZER`` names, or a record by its path below the results.

    Raises:
        UserError: there are none, or they are of several datasets or settings.
    """
    parts = name.strip("/").split("/")
    for study in studies:
        own = study.runs[study.runs["record"].map(lambda record: name.endswith(record))]
        if len(own):
            return _side(study, own)
    if len(parts) != 2:
        raise UserError(f"{name}: no such record; expected EXPERIMENT/OPTIMIZER or a record's file")
    experiment, optimizer = parts
    found = [
        (study, swept)
        for study in studies
        if study.experiment == experiment and dataset in (None, study.dataset)
        for other, swept in study.variants
        if other == optimizer
    ]
    if not found:
        known = sorted({f"{s.experiment}/{o}" for s in studies for o, _ in s.variants})
        near = [k for k in known if k.split("/")[0] == experiment] or known
        raise UserError(f"{name}: no run of it; there are {', '.join(near[:12])}")
    if len(found) > 1:
        told = ", ".join(f"{study.dataset} {swept}".strip() for study, swept in found)
        raise UserError(f"{name} is several variants ({told}); name the dataset or a record")
    study, swept = found[0]
    return _side(study, study.of(optimizer, swept))


def _side(study: Study, runs: pd.DataFrame) -> Side:
    line = runs.iloc[0]
    name = f"{label_of(line['optimizer'], line['swept'])} ({study.experiment})"
    curves = study.curves[study.curves["record"].isin(runs["record"])]
    return Side(name, runs, curves)


def figures(a: Side, b: Side) -> Table:
    """The figures of both, and their difference over the seeds that both have."""
    lines = []
    for metric, column in METRICS.items():
        d = differences(a.runs, b.runs, column)
        line = {"figure": metric, a.name: mean_and_std(a.runs[column])}
        line |= {b.name: mean_and_std(b.runs[column]), "n": str(len(d))}
        lines.append(line | {"difference": with_interval(d) if len(d) else MISSING})
    return Table(
        pd.DataFrame(lines),
        f"{a.name} minus {b.name} over n equal seeds, 95% interval (Student's t).",
    )


def gains(root: Path, a: Side, b: Side) -> np.ndarray:
    """(users,) float64: each user's NDCG@10 on test with A minus with B, a mean over equal seeds.

    Raises:
        UserError: they have no seed in common, or were tested on different users.
    """
    pairs = [
        (user_gains(read_record(root / one)), user_gains(read_record(root / other)))
        for one, other in paths_by_seed(a.runs, b.runs)
    ]
    if not pairs:
        raise UserError(f"{a.name} and {b.name} have no seed in common")
    if len({len(gain) for pair in pairs for gain in pair}) > 1:
        raise UserError(f"{a.name} and {b.name} were tested on different users")
    return mean_difference(pairs)


def users(d: np.ndarray) -> Table:
    """The numbers of users that gain and lose, and two tests over users."""
    p_t, p_wilcoxon = p_values(d)
    line = {"users": len(d), "better": (d > 0).sum(), "worse": (d < 0).sum()}
    line |= {"mean difference": signed(d.mean()), "p, t-test": f"{p_t:.4g}"}
    frame = pd.DataFrame([line | {"p, Wilcoxon": f"{p_wilcoxon:.4g}"}]).map(str)
    return Table(frame, "Users whose NDCG@10 on test is better or worse; tests over these users.")


def by_group(d: np.ndarray, values: np.ndarray, name: str) -> Table:
    """Who gains: the mean difference in fifths of the users, by a number that each user has.

    Args:
        d: (users,) differences.
        values: (users,), such as the length of a history.
    """
    lines = []
    for part in np.array_split(np.argsort(values, kind="stable"), GROUPS):
        low, high = values[part].min(), values[part].max()
        own = d[part]
        bounds = t_interval(own) or (own.mean(), own.mean())
        line = {name: f"{low}" if low == high else f"{low} to {high}", "users": str(len(part))}
        line |= {"better": str((own > 0).sum()), "worse": str((own < 0).sum())}
        lines.append(line | {"difference": f"{signed(own.mean())} {bracketed(*bounds)}"})
    caption = f"NDCG@10 on test by {name}, in fifths of the users; 95% interval over users."
    return Table(pd.DataFrame(lines), caption)


def draw(a: Side, b: Side) -> Figure:
    """The curves of both: mean over seeds, from the lowest to the highest."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    figure.suptitle(f"{a.name} and {b.name}, {a.runs['dataset'].iloc[0]}")
    titles = {"train/loss": "training loss", "valid/NDCG@10": "NDCG@10 on valid"}
    for axis, (column, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for side, colour in zip((a, b), COLOURS, strict=True):
            over = side.curves.groupby("epoch")[column].agg(["mean", "min", "max"])
            axis.plot(over.index, over["mean"], color=colour, label=side.name)
            axis.fill_between(over.index, over["min"], over["max"], color=colour, alpha=0.2)
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False)
    return figure
