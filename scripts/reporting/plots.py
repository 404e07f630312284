"""The figures of a study, listed in ``FIGURES``. They are drawn from the CSV files only.

To add a figure, write a function that returns a matplotlib figure, or None if it does not apply to
a study, and add a line to ``FIGURES``.
"""

import math
from collections.abc import Callable, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from scripts.reporting import note
from scripts.reporting.note import METRICS, ROWS
from scripts.reporting.studies import VARIANT, Study, variant
from scripts.reporting.style import label_of, short, style_of
from scripts.reporting.tables import beside_note, last_looks, looked_at_memories

# different widths, so that of two lines in the same place both can be seen
WIDTHS = {optimizer: 3.6 - 0.5 * i for i, optimizer in enumerate(ROWS)}
DASHES = ("-", "--", ":", "-.")  # for variants of the same colour
LOSSES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.4)
MOST_LINES = 12  # a reader cannot distinguish more lines in a figure
GUESSING = 2 * math.log(2)  # the loss of a model that gives every item the score 0
TITLES = {
    "train/loss": "training loss (lower is better)",
    "valid/NDCG@10": "NDCG@10 on valid (higher is better)",
}
GRID_TITLES = {"train/min_loss": TITLES["train/loss"], "valid/NDCG@10": TITLES["valid/NDCG@10"]}
PARTS = {  # the bars of the diagnostics: how a step relates to Lion's
    "agreement": ("#0072B2", "as Lion would"),
    "rests": ("#DDDDDD", "rests"),
    "against": ("#661100", "against Lion"),
}
LOOKS = {  # diagnostics drawn over the epochs
    ("agreement", "items"): "moves as Lion would\n(item embeddings)",
    ("agreement", "weights"): "moves as Lion would\n(all other weights)",
    ("memory", "items"): "moves by its memory, whatever\nthe gradient (item embeddings)",
    ("without_gradient", "items"): "moves without a gradient\n(item embeddings)",
    ("counter", "items"): "how full its counters are,\nmean |s| / w (item embeddings)",
}
DRIFT = {  # diagnostics of the last diagnosed epoch, drawn over the items' popularity
    "absent": "share of an epoch's steps an item\nmakes while not in the batch",
    "net": "how far an epoch takes an item\n(100%: it never turns)",
}
MEMORIES = {
    "astray_m": "Lion's m points against\nthe epoch's sum of gradients",
    "astray_s": "the counter s does",
    "outvoted": "the epoch's own count\nof signs does",
}


def has_curves(study: Study) -> bool:
    """Whether curves show a study; the figure ``grid`` shows one with more variants."""
    return not study.declared.shown_elsewhere and len(study.variants) <= MOST_LINES


def curves(study: Study) -> Figure | None:
    """Loss and valid NDCG@10 over epochs: the mean over seeds, and a band from lowest to highest.

    In a study that is compared with the note, diamonds are the note's losses.
    """
    if not has_curves(study):
        return None
    points = study.shown_curves
    figure, axes = _pair(study, points)
    for axis, (curve, title) in zip(axes, TITLES.items(), strict=True):
        _bands(axis, study, points, "epoch", curve)
        axis.set(xlabel="epoch", title=title)
    axes[0].set_yscale("log")
    ticks = [tick for tick in LOSSES if tick > study.curves["train/loss"].min() / 1.2]
    axes[0].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes[0].minorticks_off()
    axes[0].axhline(GUESSING, color="gray", ls=":")
    axes[0].text(
        0.99,
        GUESSING,
        "guessing",
        ha="right",
        va="top",
        color="gray",
        transform=axes[0].get_yaxis_transform(),
    )
    if beside_note(study):
        last = study.curves["epoch"].max()
        for optimizer, row in ROWS.items():
            colour = style_of(optimizer).colour
            axes[0].plot(last, row.loss, "D", color=colour, mfc="white", clip_on=False)
        axes[0].plot([], [], "D", color="gray", mfc="white", label="the note's")
        axes[0].legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 0.93))
    return figure


def grid_runs(study: Study) -> pd.DataFrame | None:
    """The runs of a study that sweeps over one number, which is in ``value``; else None."""
    if len(study.swept) != 1:
        return None
    (key,) = study.swept
    runs = study.runs.assign(swept="", value=pd.to_numeric(study.runs[key], errors="coerce"))
    return None if runs["value"].isna().any() else runs


def grid_scale(ticks: Sequence[float]) -> str:
    """The scale of an axis with these sorted values: ``log`` or ``linear``."""
    return "log" if ticks[0] > 0 and ticks[-1] / ticks[0] >= 8 else "linear"


def grid(study: Study) -> Figure | None:
    """Lowest loss and best valid NDCG@10 over the values of the one number that is swept."""
    runs = grid_runs(study)
    if runs is None:
        return None
    figure, axes = _pair(study, runs)
    ticks = sorted(runs["value"].unique())
    (key,) = study.swept
    for axis, (column, title) in zip(axes, GRID_TITLES.items(), strict=True):
        _bands(axis, study, runs, "value", column, marker="o")
        axis.set(xscale=grid_scale(ticks), xlabel=key.split(".")[-1], title=title)
        axis.set_xticks(ticks, [short(float(value)) for value in ticks])
        axis.minorticks_off()
    return figure


def steps(study: Study) -> Figure | None:
    """A waterfall chart of the lowest loss, from the first declared optimizer to the last."""
    if not study.declared.steps:
        return None
    figure = Figure(figsize=(9, 0.6 * len(study.declared.steps) + 1.2), layout="constrained")
    _title(figure, study, study.runs)
    axis = figure.subplots()
    labels, before = [], None
    for y, (optimizer, change) in enumerate(study.declared.steps.items()):
        labels.append(f"{label_of(optimizer)}:\n{change}")
        losses = study.of(optimizer)["train/min_loss"]
        if len(losses) == 0:
            axis.text(0, y, " –", va="center")
            continue
        mean, colour = losses.mean(), style_of(optimizer).colour
        axis.barh(y, mean, color=colour, alpha=0.25)
        axis.plot(losses, [y] * len(losses), "o", color=colour, ms=4)
        if before is not None:
            axis.annotate("", (mean, y), (before, y), arrowprops={"arrowstyle": "->", "lw": 1.5})
        before = mean
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel=TITLES["train/loss"], xlim=(0, None))
    axis.grid(alpha=0.3, axis="x")
    return figure


def beside_the_note(study: Study) -> Figure | None:
    """Above, the note's figures and those of our runs; below, our mean relative to the note's.

    The bars below extend two standard errors of one more run to both sides of our mean. A figure is
    reproduced if its bar contains the note's value.
    """
    if not beside_note(study):
        return None
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    figure.suptitle(
        f"The note's figures and ours ({study.dataset}): HR@10 and NDCG@10 on test, lowest "
        "training loss"
    )
    axes = figure.subplots(2, 3, sharey=True)
    for i, (metric, column) in enumerate(METRICS.items()):
        runs, relative = axes[:, i]
        for y, (optimizer, published) in enumerate(ROWS.items()):
            ours, theirs = study.of(optimizer)[column], float(published[i])
            mean = ours.mean() / theirs - 1
            half = 2 * note.prediction_se(ours, len(ours)) / theirs
            colour = style_of(optimizer).colour
            runs.plot(ours, [y] * len(ours), "o", color=colour, alpha=0.6)
            runs.plot(theirs, y, "D", color=colour, mfc="white", ms=9, zorder=0)
            relative.plot([mean - half, mean + half], [y, y], color=colour, lw=4)
        runs.set(title=f"{metric} ({'lower' if metric == 'Loss' else 'higher'} is better)")
        runs.set_xlim(left=0)
        relative.set(xlabel=f"{metric} beside the note's")
        relative.xaxis.set_major_formatter(lambda x, _: f"{100 * x:+.0f}%" if x else "equal")
        relative.axvline(0, color="gray", ls=":")
        for axis in (runs, relative):
            axis.grid(alpha=0.3)
    axes[0, 0].set_yticks(range(len(ROWS)), [label_of(o) for o in ROWS])
    axes[0, 0].invert_yaxis()
    handles = [
        Line2D([], [], ls="", marker="D", color="gray", mfc="white", ms=9, label="the note"),
        Line2D([], [], ls="", marker="o", color="gray", alpha=0.6, label="a run of ours"),
        Line2D([], [], color="gray", lw=4, label="our mean ± 2 standard\nerrors of one more run"),
        Line2D([], [], color="gray", ls=":", label="the note: reproduced\nif the bar crosses it"),
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    return figure


def why(study: Study) -> Figure | None:
    """The diagnostics of the variants' steps; scripts/running/diagnostics.py defines them."""
    lines = study.diagnostics
    if lines.empty:
        return None
    figure = Figure(figsize=(11, 7), layout="constrained")
    _title(figure, study, lines)
    axes = figure.subplots(2, 3)
    _beside_lion(axes[0, 0], last_looks(lines))
    for axis, ((quantity, of), title) in zip(axes.flat[1:], LOOKS.items(), strict=True):
        shown = lines[(lines["quantity"] == quantity) & (lines["of"] == of)].assign(swept="")
        _bands(axis, study, shown, "epoch", "value")
        axis.set(xlabel="epoch", title=title)
        _percent(axis)
    _key(figure, study, lines.assign(swept=""))
    return figure


def drift(study: Study) -> Figure | None:
    """How far items move in the last diagnosed epoch, by their popularity."""
    if study.diagnostics.empty:
        return None
    last = last_looks(study.diagnostics).assign(swept="")
    figure = Figure(figsize=(9, 4), layout="constrained")
    _title(figure, study, last)
    for axis, (quantity, title) in zip(figure.subplots(1, 2), DRIFT.items(), strict=True):
        shown = last[last["quantity"] == quantity].astype({"of": int})
        _bands(axis, study, shown, "of", "value", marker="o")
        axis.set(xlabel="items by popularity, in fifths", title=title)
        axis.set_xticks(range(1, 6), ["rarest", "2", "3", "4", "most\npopular"])
        _percent(axis)
    _key(figure, study, last)
    return figure


def memories(study: Study) -> Figure | None:
    """How often a memory's sign contradicts the gradients of the last diagnosed epoch."""
    if not looked_at_memories(study):
        return None
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    last = last_looks(study.diagnostics)
    _title(figure, study, last, ", item embeddings")
    optimizers = [o for o, _ in study.variants if o in set(last["optimizer"])]
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    for axis, (quantity, title) in zip(axes, MEMORIES.items(), strict=True):
        shown = last[last["quantity"] == quantity].groupby("optimizer")["value"].mean()
        shown = shown.reindex(optimizers)
        axis.barh(range(len(shown)), shown, color=[style_of(o).colour for o in optimizers])
        for y in (y for y, value in enumerate(shown) if pd.isna(value)):
            axis.text(0.01, y, "–", va="center")  # the variant has no such memory
        axis.axvline(0.5, color="gray", ls=":")
        axis.set(title=title, xlim=(0, 0.6))
    axes[0].text(0.49, 0, "a coin", ha="right", va="center", color="gray")
    axes[0].xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[0].set_yticks(range(len(optimizers)), [label_of(o) for o in optimizers])
    axes[0].invert_yaxis()
    return figure


def step_shares(last: pd.DataFrame) -> pd.DataFrame:
    """The share of each of ``PARTS`` in the steps of item embeddings, one line per optimizer.

    Args:
        last: the result of ``last_looks``.
    """
    last = last[(last["of"] == "items") & last["quantity"].isin(PARTS)]
    shares = last.pivot_table(index="optimizer", columns="quantity", values="value")
    return shares[list(PARTS)].sort_values("against", kind="stable")


def _beside_lion(axis: Axes, last: pd.DataFrame) -> None:
    """One stacked bar per variant: how its steps relate to Lion's in the last diagnosed epoch."""
    shares = step_shares(last)
    labels, starts = [label_of(str(o)) for o in shares.index], shares.cumsum(axis=1) - shares
    for part, (colour, label) in PARTS.items():
        axis.barh(labels, shares[part], left=starts[part], color=colour, label=label)
    axis.set(title="all steps of item embeddings,\nat the last look")
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.invert_yaxis()
    axis.legend(loc="upper center", bbox_to_anchor=(0.3, -0.08), ncols=3, frameon=False)


def _percent(axis: Axes) -> None:
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set_ylim(0, max(1.03, axis.get_ylim()[1]))


def _pair(study: Study, lines: pd.DataFrame) -> tuple[Figure, list[Axes]]:
    """A figure of two panels with a title and a legend."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    _title(figure, study, lines)
    _key(figure, study, lines)
    return figure, figure.subplots(1, 2)


def _title(figure: Figure, study: Study, lines: pd.DataFrame, of: str = "") -> None:
    counts = lines.groupby("optimizer")["seed"].nunique()
    seeds = "one seed"
    if counts.max() > 1:
        n = f"{counts.min()} to {counts.max()}" if counts.min() < counts.max() else counts.max()
        seeds = f"mean of {n} seeds (band: lowest to highest)"
    epochs = study.runs["epochs"].max()
    where = f"{study.experiment}: {study.model} on {study.dataset}"
    figure.suptitle(f"{where}{of}, {epochs} epochs, {seeds}")


def _bands(
    axis: Axes, study: Study, points: pd.DataFrame, x: str, y: str, marker: str | None = None
) -> None:
    """One line per variant: the mean over seeds, with a band from the lowest to the highest."""
    for (optimizer, swept), dashes in dashes_of(study, points).items():
        own = variant(points, optimizer, swept)
        over = own.groupby(x)[y].agg(["mean", "min", "max"])
        colour, width = style_of(optimizer).colour, WIDTHS.get(optimizer, 2.0)
        axis.plot(over.index, over["mean"], dashes, marker=marker, color=colour, lw=width)
        axis.fill_between(over.index, over["min"], over["max"], color=colour, alpha=0.2)
    axis.grid(alpha=0.3)


def dashes_of(study: Study, points: pd.DataFrame) -> dict[tuple[str, str], str]:
    """The variants that points belong to, in the study's order, each with its line style."""
    present = set(points[VARIANT].itertuples(index=False, name=None))
    ordered = [v for v in study.variants if v in present]
    ordered += sorted(present - set(ordered))
    seen: dict[str, int] = {}
    dashes = {}
    for optimizer, swept in ordered:
        colour = style_of(optimizer).colour
        dashes[optimizer, swept] = DASHES[seen.get(colour, 0) % len(DASHES)]
        seen[colour] = seen.get(colour, 0) + 1
    return dashes


def _key(figure: Figure, study: Study, points: pd.DataFrame) -> None:
    handles = [
        Line2D([], [], color=style_of(o).colour, ls=dashes, lw=2, label=label_of(o, swept))
        for (o, swept), dashes in dashes_of(study, points).items()
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False)


# A study's figure NAME is written to results/figures/NAME-STUDY.
FIGURES: dict[str, Callable[[Study], Figure | None]] = {
    "curves": curves,
    "grid": grid,
    "steps": steps,
    "note": beside_the_note,
    "why": why,
    "drift": drift,
    "memories": memories,
}


def figures(studies: Sequence[Study]) -> dict[str, Figure]:
    """All figures that apply, by the name ``NAME-STUDY``."""
    drawn = {f"{name}-{s.name}": draw(s) for s in studies for name, draw in FIGURES.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}
