"""Compare two variants: over seeds, over users, and by groups of users."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from scripts.records.errors import UserError
from scripts.records.record import read_record
from scripts.records.users import path_of, read_users
from scripts.reporting.cells import (
    MISSING,
    Table,
    bracketed,
    mean_and_std,
    signed,
    with_interval,
)
from scripts.reporting.note import METRICS
from scripts.reporting.plots import TITLES, column_figure, errors
from scripts.reporting.statistics import (
    Group,
    differences,
    groups,
    mean_difference,
    p_values,
    paths_by_seed,
    user_ndcg,
)
from scripts.reporting.studies import VARIANT, Study
from scripts.reporting.style import label_of, style_of
from scripts.reporting.tables import GROUPED_BY, group_name


class Side(NamedTuple):
    """One side of a comparison: the runs of a variant."""

    name: str
    runs: pd.DataFrame
    curves: pd.DataFrame

    @property
    def optimizer(self) -> str:
        return str(self.runs["optimizer"].iloc[0])


class Comparison(NamedTuple):
    """Two variants, user by user, over their equal seeds."""

    a: Side
    b: Side
    difference: np.ndarray  # (users,) float64: NDCG@10 on test, A's minus B's
    groups: dict[str, list[Group]]  # by each key of GROUPED_BY; empty if no training wrote users


def find(studies: Sequence[Study], name: str, dataset: str | None) -> list[Side]:
    """The variants that a name stands for.

    Args:
        name: ``EXPERIMENT``, for all its variants; ``EXPERIMENT/OPTIMIZER``, with ``/SWEPT`` behind
            it if the experiment sweeps over more; or the file of a record.
        dataset: that of the runs; None if there is only one.

    Raises:
        UserError: there is no such run, or the name stands for runs of several datasets.
    """
    for study in studies:
        own = study.runs[study.runs["record"].map(name.endswith)]
        if len(own):
            return [_side(study, own)]
    experiment, _, named = name.strip("/").partition("/")
    found = [s for s in studies if s.experiment == experiment and dataset in (None, s.dataset)]
    if not found:
        known = ", ".join(sorted({s.experiment for s in studies}))
        where = f" on {dataset}" if dataset else ""
        raise UserError(f"{name}: no experiment{where} and no record; there are {known}")
    if len(found) > 1:
        several = ", ".join(study.dataset for study in found)
        raise UserError(f"{name} was run on {several}; choose one with --dataset")
    (study,) = found
    variants = {"/".join(filter(None, v)): study.of(*v) for v in study.variants}
    chosen = [v for v in variants if named in ("", v) or v.startswith(f"{named}/")]
    if not chosen:
        raise UserError(f"{name}: no run of it; {experiment} has {', '.join(variants)}")
    return [_side(study, variants[v]) for v in chosen]


def pairs(a: Sequence[Side], b: Sequence[Side]) -> list[tuple[Side, Side]]:
    """What to compare: all with the only one of a side; else each variant that both sides have.

    Raises:
        UserError: they have no variant in common.
    """
    if 1 in (len(a), len(b)):
        return list(itertools.product(a, b))
    whole = {tuple(side.runs[VARIANT].iloc[0]): side for side in b}
    common = [(s, whole[v]) for s in a if (v := tuple(s.runs[VARIANT].iloc[0])) in whole]
    if not common:
        raise UserError(f"{a[0].name} and {b[0].name}: their experiments share no variant")
    return common


def compare(root: Path, a: Side, b: Side) -> Comparison:
    """Compare two variants over the seeds that both have.

    Raises:
        UserError: they have no seed in common, or were tested on different users.
    """
    dataset, other = (str(side.runs["dataset"].iloc[0]) for side in (a, b))
    if dataset != other:
        raise UserError(f"they were run on different datasets: {dataset}, {other}")
    records = [
        (read_record(root / one), read_record(root / other))
        for one, other in paths_by_seed(a.runs, b.runs)
    ]
    if not records:
        raise UserError(f"{a.name} and {b.name} have no seed in common")
    gains = [(user_ndcg(one), user_ndcg(other)) for one, other in records]
    if len({len(gain) for pair in gains for gain in pair}) > 1:
        raise UserError(f"{a.name} and {b.name} were tested on different users")
    d, baseline = mean_difference(gains), np.mean([other for _, other in gains], axis=0)
    users = read_users(path_of(root, dataset, records[0][0]["config"]["data"]), len(d))
    by = {} if users is None else users._asdict()
    return Comparison(a, b, d, {key: groups(d, baseline, values) for key, values in by.items()})


def tables(found: Comparison) -> list[Table]:
    """A comparison as tables: over seeds, over users, and by each kind of group."""
    by = [_groups_table(found, quantity) for quantity in found.groups]
    return [_seeds_table(found.a, found.b), _users_table(found.difference), *by]


def draw(found: Comparison) -> Figure:
    """The curves of both variants, and in which groups of users A differs from B."""
    a, b, by = found.a, found.b, found.groups
    title = f"{a.name} and {b.name}, {a.runs['dataset'].iloc[0]}"
    colours = [style_of(side.optimizer).colour for side in (a, b)]
    dashes = ("-", "--" if colours[0] == colours[1] else "-")
    figure, axes = column_figure(title, len(TITLES) + len(by))
    for axis, (column, words) in zip(axes, TITLES.items(), strict=False):
        for side, colour, dash in zip((a, b), colours, dashes, strict=True):
            over = side.curves.groupby("epoch")[column].agg(["mean", "min", "max"])
            axis.plot(over.index, over["mean"], dash, color=colour, label=side.name)
            axis.fill_between(over.index, over["min"], over["max"], color=colour, alpha=0.2)
        axis.set(title=words, xlabel="epoch")
    axes[0].legend()
    for axis, (quantity, own) in zip(axes[len(TITLES) :], by.items(), strict=True):
        places = range(len(own))
        heights = [group.difference for group in own]
        axis.errorbar(places, heights, errors(own), fmt="o", color=colours[0])
        axis.axhline(0, color="gray")
        axis.set_xticks(places, [group_name(group) for group in own])
        axis.set(title="difference in NDCG@10 on test", xlabel=GROUPED_BY[quantity])
    return figure


def _side(study: Study, runs: pd.DataFrame) -> Side:
    line = runs.iloc[0]
    name = f"{label_of(line['optimizer'], line['swept'])} ({study.experiment})"
    curves = study.curves[study.curves["record"].isin(runs["record"])]
    return Side(name, runs, curves)


def _seeds_table(a: Side, b: Side) -> Table:
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


def _users_table(d: np.ndarray) -> Table:
    p_t, p_wilcoxon = p_values(d)
    line = {"users": len(d), "better": (d > 0).sum(), "worse": (d < 0).sum()}
    line |= {"mean difference": signed(d.mean()), "p, t-test": f"{p_t:.4g}"}
    frame = pd.DataFrame([line | {"p, Wilcoxon": f"{p_wilcoxon:.4g}"}]).map(str)
    return Table(frame, "Users whose NDCG@10 on test is better or worse; tests over these users.")


def _groups_table(found: Comparison, quantity: str) -> Table:
    lines = []
    for group in found.groups[quantity]:
        counts = {"users": group.users, "better": group.better, "worse": group.worse}
        difference = signed(group.difference)
        if not math.isnan(group.low):
            difference += f" {bracketed(group.low, group.high)}"
        line = {quantity: group_name(group), **{key: str(n) for key, n in counts.items()}}
        lines.append(line | {found.b.name: f"{group.baseline:.4f}", "difference": difference})
    caption = f"NDCG@10 on test by {GROUPED_BY[quantity]}; 95% interval over users."
    return Table(pd.DataFrame(lines), caption)
