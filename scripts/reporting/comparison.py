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
from scripts.records.users import read_users, users_path
from scripts.reporting.cells import (
    MISSING,
    Table,
    bracketed,
    mean_and_std,
    signed,
    with_interval,
)
from scripts.reporting.note import METRICS
from scripts.reporting.plots import TITLES, column_figure, error_bars
from scripts.reporting.statistics import (
    Group,
    differences,
    groups,
    mean_difference,
    p_values,
    paths_by_seed,
    same_data,
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


def find(root: Path, studies: Sequence[Study], name: str, dataset: str | None) -> list[Side]:
    """The variants that a name stands for.

    Args:
        root: the results folder, which holds the records.
        name: ``EXPERIMENT``, for all its variants; ``EXPERIMENT/OPTIMIZER``, with ``/VALUES`` after
            it if the experiment sweeps over more; or the file of a record.
        dataset: that of the runs; None if there is only one.

    Raises:
        UserError: there is no such run, or the name stands for runs of several datasets or models.
    """
    if name.endswith(".json"):
        path = Path(name).resolve()
        for study in studies:
            runs = study.runs[[(root / r).resolve() == path for r in study.runs["record"]]]
            if len(runs):
                return [_side(study, runs)]
        raise UserError(
            f"{name}: no record in {root / 'runs.csv'}; set results.root=DIR, or run "
            f"`python -m scripts.aggregate results.root={root}`"
        )
    experiment, _, named = name.strip("/").partition("/")
    matching = [s for s in studies if s.experiment == experiment and dataset in (None, s.dataset)]
    if not matching:
        known = ", ".join(sorted({s.experiment for s in studies}))
        where = f" on {dataset}" if dataset else ""
        raise UserError(f"{name}: no experiment{where} and no record; there are {known}")
    if len(matching) > 1:
        several = ", ".join(f"{study.dataset} with {study.model}" for study in matching)
        raise UserError(
            f"{name} was run on {several}; choose one with --dataset, or name a record's file"
        )
    (study,) = matching
    variants = {"/".join(filter(None, v)): study.of(*v) for v in study.variants}
    chosen = [v for v in variants if named in ("", v) or v.startswith(f"{named}/")]
    if not chosen:
        raise UserError(f"{name} has no run; {experiment} has {', '.join(variants)}")
    return [_side(study, variants[v]) for v in chosen]


def pairs(a: Sequence[Side], b: Sequence[Side]) -> list[tuple[Side, Side]]:
    """The pairs to compare.

    If one side has a single variant, it is paired with every variant of the other side. Otherwise
    equal variants are paired.

    Raises:
        UserError: there are no equal variants.
    """
    if 1 in (len(a), len(b)):
        return list(itertools.product(a, b))
    by_variant = {tuple(side.runs[VARIANT].iloc[0]): side for side in b}
    common = [(s, by_variant[v]) for s in a if (v := tuple(s.runs[VARIANT].iloc[0])) in by_variant]
    if not common:
        names = [", ".join(side.name for side in sides) for sides in (a, b)]
        raise UserError(f"no variant is in both: {names[0]} and {names[1]}")
    return common


def compare(root: Path, a: Side, b: Side) -> Comparison:
    """Compare two variants over the seeds that both have.

    Raises:
        UserError: they have no seed in common, were run on different data, or were tested on
            different users.
    """
    if a.name == b.name and not a.runs.equals(b.runs):  # such as two records of one variant
        a, b = a._replace(name=f"{a.name}, A"), b._replace(name=f"{b.name}, B")
    dataset, other = (str(side.runs["dataset"].iloc[0]) for side in (a, b))
    if dataset != other:
        raise UserError(f"{a.name} and {b.name} were run on different datasets: {dataset}, {other}")
    records = [
        (read_record(root / one), read_record(root / other))
        for one, other in paths_by_seed(a.runs, b.runs)
    ]
    if not records:
        raise UserError(f"{a.name} and {b.name} have no seed in common")
    if not all(same_data(records[0][0], record) for pair in records for record in pair):
        raise UserError(f"{a.name} and {b.name} were run on different versions of {dataset}")
    ndcg_pairs = [(user_ndcg(one), user_ndcg(other)) for one, other in records]
    if len({len(ndcg) for pair in ndcg_pairs for ndcg in pair}) > 1:
        raise UserError(f"{a.name} and {b.name} were tested on different users")
    d, baseline = mean_difference(ndcg_pairs), np.mean([other for _, other in ndcg_pairs], axis=0)
    users = read_users(users_path(root, dataset, records[0][0]["config"]["data"]), len(d))
    by = {} if users is None else users._asdict()
    return Comparison(a, b, d, {key: groups(d, baseline, values) for key, values in by.items()})


def tables(compared: Comparison) -> list[Table]:
    """A comparison as tables: over seeds, over users, and by each kind of group."""
    by = [_groups_table(compared, quantity) for quantity in compared.groups]
    return [_seeds_table(compared.a, compared.b), _users_table(compared.difference), *by]


def draw(compared: Comparison) -> Figure:
    """The curves of both variants, and in which groups of users A differs from B."""
    a, b, by = compared.a, compared.b, compared.groups
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
    for axis, (quantity, by_group) in zip(axes[len(TITLES) :], by.items(), strict=True):
        positions = range(len(by_group))
        heights = [group.difference for group in by_group]
        axis.errorbar(positions, heights, error_bars(by_group), fmt="o", color=colours[0])
        axis.axhline(0, color="gray")
        axis.set_xticks(positions, [group_name(group) for group in by_group])
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
        line = {"metric": metric, a.name: mean_and_std(a.runs[column])}
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


def _groups_table(compared: Comparison, quantity: str) -> Table:
    lines = []
    for group in compared.groups[quantity]:
        counts = {"users": group.users, "better": group.better, "worse": group.worse}
        difference = signed(group.difference)
        if not math.isnan(group.low):
            difference += f" {bracketed(group.low, group.high)}"
        line = {quantity: group_name(group), **{key: str(n) for key, n in counts.items()}}
        lines.append(line | {compared.b.name: f"{group.baseline:.4f}", "difference": difference})
    caption = f"NDCG@10 on test by {GROUPED_BY[quantity]}; 95% interval over users."
    return Table(pd.DataFrame(lines), caption)
