"""The figures of a study, listed in ``FIGURES``. Their data is in the CSV files.

To add a figure, write a function that returns a matplotlib figure, or None if it does not apply to
a study, and add a line to ``FIGURES``. ``paper.mplstyle`` is the style of all of them: a figure is
as wide as a column of a paper, and its text can be read there.
"""

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import is_color_like, to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import PercentFormatter

from scripts.reporting import note
from scripts.reporting.corrupted import kinds
from scripts.reporting.note import METRICS, NOTE_VALUES
from scripts.reporting.statistics import Group
from scripts.reporting.studies import VARIANT, Study, variant
from scripts.reporting.style import label_of, on_dark, short, style_of
from scripts.reporting.tables import (
    GROUPED_BY,
    compares_with_note,
    group_name,
    groups_of,
    has_memory_diagnostics,
    last_diagnosed,
)

matplotlib.style.use(Path(__file__).with_name("paper.mplstyle"))
FIGURE_WIDTH = 3.4  # inches: a column of a paper
TITLE_CHARACTERS = 56  # letters that fit a line of the title
LEGEND_CHARACTERS = 24  # letters that fit one of two columns of a legend
# different widths, so that of two lines in the same place both can be seen
LINE_WIDTHS = {optimizer: 2.2 - 0.3 * i for i, optimizer in enumerate(NOTE_VALUES)}
COLOURED = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")
Dashes = str | tuple[int, tuple[int, ...]]  # a line style of matplotlib
# For variants of the same colour.
DASHES: tuple[Dashes, ...] = (
    *("-", "--", ":", "-.", (0, (8, 2)), (0, (8, 2, 2, 2))),
    *((0, (4, 1, 1, 1, 1, 1)), (0, (1, 4))),
)
MARKERS = "osD^vXP*"
LOSS_TICKS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.4)
LEAST_LOSS = 1e-7  # the last digit of curves.csv
MOST_LINES = 12  # a reader cannot distinguish more lines in a figure
GUESSING = 2 * math.log(2)  # the loss of a model that gives every item the score 0
TITLES = {
    "train/loss": "training loss (lower is better)",
    "valid/NDCG@10": "NDCG@10 on validation (higher is better)",
}
GRID_TITLES = {  # of one value per run
    "train/min_loss": "lowest training loss (lower is better)",
    "valid/NDCG@10": "best NDCG@10 on validation (higher is better)",
}
PARTS_OF_MOVES = {  # the bars of the diagnostics: how a step relates to Lion's
    "agreement": ("#0072B2", "as Lion would"),
    "rests": ("#8C8C8C", "does not move"),
    "against": ("#661100", "against Lion"),
}
MOVES_BY_EPOCH = {  # diagnostics drawn over the epochs
    ("agreement", "items"): "moves or rests as Lion\n(item embeddings)",
    ("agreement", "weights"): "moves or rests as Lion\n(all other parameters)",
    ("memory", "items"): "moves by its memory\n(item embeddings)",
    ("without_gradient", "items"): "moves without gradient\n(item embeddings)",
    ("counter", "items"): "mean |s| / w of counters\n(item embeddings)",
}
DISTANCES = {  # diagnostics of the last diagnosed epoch, drawn over the items' popularity
    "absent": "share of coordinates that move\nwhile the item is not in the batch",
    "net": "net distance per epoch, in % of that\nwith all steps in one direction",
}
NAMES = {"lr": "learning rate", "weight_decay": "weight decay"}  # of swept keys
SHARES_LABEL = "share of coordinates"
GAINS_LABEL = "difference in NDCG@10"
MEMORIES = {
    "astray_m": "Lion's m contradicts\nthe epoch's sum of gradients",
    "astray_s": "the counter s contradicts\nthe epoch's sum of gradients",
    "outvoted": "the epoch's sum of signs\ncontradicts that of gradients",
}


def drawn_points(study: Study, points: pd.DataFrame) -> pd.DataFrame:
    """The points of the variants that a figure can show: all, or the best if there are too many.

    No point of a study whose runs the table ``published`` or ``settings`` shows. The runs of
    another experiment's baseline always stay.
    """
    if study.declared.shown_elsewhere:
        return points[:0]
    if len(study.variants) > MOST_LINES and (grid_runs(study) is not None or kinds(study)):
        return points[:0]
    is_best = pd.MultiIndex.from_frame(points[VARIANT]).isin(best_variants(study))
    return points[is_best | (points["experiment"] != study.experiment)]


def drawn_curves(study: Study) -> pd.DataFrame:
    """The ``drawn_points`` of the curves, losses of 0 raised to LEAST_LOSS (log axis)."""
    points = drawn_points(study, study.shown_curves)
    return points.assign(**{"train/loss": points["train/loss"].clip(lower=LEAST_LOSS)})


def best_variants(study: Study) -> list[tuple[str, str]]:
    """The best variants by NDCG@10 on validation, as many as a reader can distinguish."""
    means = study.runs.groupby(VARIANT)["valid/NDCG@10"].mean().sort_values(ascending=False)
    best = means.groupby(level="optimizer").head(len(DASHES)).head(MOST_LINES)
    return list(best.index)


def selection(study: Study) -> str:
    """How ``best_variants`` are chosen, as text; empty if they are all variants."""
    best, n = len(best_variants(study)), len(study.variants)
    chosen = f"the best by NDCG@10 on validation, at most {len(DASHES)} per optimizer"
    return f"{best} of {n} variants: {chosen}" if best < n else ""


def _with_selection(title: str, study: Study) -> str:
    """A title of a figure of ``drawn_points``, with how its variants are chosen."""
    return "; ".join(filter(None, (title, selection(study))))


def curves(study: Study) -> Figure | None:
    """Loss and validation NDCG@10 over epochs: mean over seeds, and a band from lowest to highest.

    In a study that is compared with the note, diamonds are the note's losses.
    """
    points = drawn_curves(study)
    if points.empty:
        return None
    title = _with_selection(_bands_title(study, points), study)
    figure, axes = column_figure(title, 2, handles=_handles(study, points))
    for axis, (curve, title) in zip(axes, TITLES.items(), strict=True):
        _bands(axis, study, points, "epoch", curve)
        axis.set(xlabel="epoch", title=title)
    axes[0].set_yscale("log")
    ticks = [tick for tick in LOSS_TICKS if tick > points["train/loss"].min() / 1.2]
    axes[0].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes[0].minorticks_off()
    axes[0].axhline(GUESSING, color="gray", ls=":")
    axes[0].text(
        0.99,
        GUESSING,
        "guessing",
        ha="right",
        va="bottom",
        color="gray",
        transform=axes[0].get_yaxis_transform(),
    )
    if compares_with_note(study):
        last = study.curves["epoch"].max()
        for optimizer, row in NOTE_VALUES.items():
            colour = style_of(optimizer).colour
            axes[0].plot(last, row.loss, "D", color=colour, mfc="white", clip_on=False)
        axes[0].plot([], [], "D", color="gray", mfc="white", label="the note's")
        axes[0].legend(loc="upper right", bbox_to_anchor=(1, 0.5))
    return figure


def grid_runs(study: Study) -> pd.DataFrame | None:
    """The runs of a study that sweeps over one number, which is in ``value``; else None."""
    if study.grid_key is None:
        return None
    values = pd.to_numeric(study.runs[study.grid_key], errors="coerce")
    runs = study.runs.assign(swept="", value=values)
    return None if runs["value"].isna().any() else runs


def grid_scale(ticks: Sequence[float]) -> str:
    """The scale of an axis with these sorted values: ``log`` or ``linear``."""
    return "log" if ticks[0] > 0 and ticks[-1] / ticks[0] >= 8 else "linear"


def axis_label(key: str) -> str:
    """What an axis calls a swept key."""
    name = key.split(".")[-1]
    return NAMES.get(name, name)


def grid(study: Study) -> Figure | None:
    """Lowest loss and best validation NDCG@10 over the values of the one number that is swept."""
    runs = grid_runs(study)
    if runs is None:
        return None
    figure, axes = column_figure(_bands_title(study, runs), 2, handles=_handles(study, runs))
    ticks = sorted(runs["value"].unique())
    (key,) = study.swept
    for axis, (column, title) in zip(axes, GRID_TITLES.items(), strict=True):
        _bands(axis, study, runs, "value", column, marker="o")
        axis.set(xscale=grid_scale(ticks), xlabel=axis_label(key), title=title)
        axis.set_xticks(ticks, [short(float(value)) for value in ticks])
        axis.minorticks_off()
    return figure


def gains(study: Study) -> Figure | None:
    """Who gains and who loses: differences to the baseline in groups of users, with intervals."""
    found = shown_gains(study)
    if found.empty:
        return None
    base = label_of(study.declared.baseline)
    where = f"{study.experiment}: {study.model} on {study.dataset}"
    title = f"{where}: NDCG@10 on test minus {base}'s, by groups of users, with 95% intervals"
    handles = _handles(study, found, with_markers=True)
    figure, axes = column_figure(_with_selection(title, study), 2, handles=handles)
    for axis, (quantity, words) in zip(axes, GROUPED_BY.items(), strict=True):
        draw_gains(axis, study, found[found["by"] == quantity])
        axis.set(xlabel=words, ylabel=GAINS_LABEL)
    return figure


def shown_gains(study: Study) -> pd.DataFrame:
    """The lines of gains.csv that figures draw: none if all comparisons have one seed."""
    several = (study.gains["seeds"] > 1).any()
    return drawn_points(study, study.gains if several else study.gains[:0])


def draw_gains(axis: Axes, study: Study, lines: pd.DataFrame) -> None:
    """A point with an interval for each variant in each group of users.

    Args:
        lines: those of gains.csv with one ``by``.
    """
    variants = line_styles(study, lines)
    for i, ((optimizer, swept), style) in enumerate(variants.items()):
        groups = groups_of(variant(lines, optimizer, swept))
        axis.errorbar(
            [place + group_offset(i, len(variants)) for place in range(len(groups))],
            [group.difference for group in groups],
            error_bars(groups),
            fmt=MARKERS[style],
            ms=3,
            color=style_of(optimizer).colour,
        )
    axis.set_xticks(range(len(groups)), [group_name(group) for group in groups])
    axis.axhline(0, color="gray", lw=0.8)
    axis.grid(axis="x", visible=False)


def group_offset(i: int, n: int) -> float:
    """The x offset of the i-th of n variants in its group."""
    return 0.6 * ((i + 0.5) / n - 0.5)


def error_bars(groups: Sequence[Group]) -> list[list[float]]:
    """The lengths of error bars below and above the groups' differences."""
    return [
        [0.0 if math.isnan(g.low) else g.difference - g.low for g in groups],
        [0.0 if math.isnan(g.high) else g.high - g.difference for g in groups],
    ]


def steps(study: Study) -> Figure | None:
    """A waterfall chart of the lowest loss, from the first declared optimizer to the last."""
    changes = study.declared.steps
    if not changes:
        return None
    figure = Figure(figsize=(FIGURE_WIDTH, 0.55 * len(changes) + 0.7))
    _title(figure, _study_title(study, study.runs))
    axis = figure.subplots()
    before = None
    for y, (optimizer, change) in enumerate(changes.items()):
        axis.text(0, y - 0.46, label_of(optimizer), weight="bold", size=7, va="bottom")
        axis.text(0, y - 0.22, change, size=6.5, va="bottom")
        losses = study.of(optimizer)["train/min_loss"]
        if len(losses) == 0:
            axis.text(0, y, " –", va="center")
            continue
        mean, colour = losses.mean(), style_of(optimizer).colour
        axis.barh(y, mean, height=0.36, color=colour, alpha=0.3)
        axis.plot(losses, [y] * len(losses), "o", color=colour)
        axis.text(0.01, y, f"{mean:.3f}", va="center", size=7)
        if before is not None:
            arrow = {"arrowstyle": "->", "lw": 1, "shrinkA": 0, "shrinkB": 0}
            axis.annotate("", (mean, y), (before, y), arrowprops=arrow)
        before = mean
    axis.set_yticks([])
    axis.set(xlabel=GRID_TITLES["train/min_loss"], xlim=(0, None), ylim=(len(changes) - 0.7, -0.8))
    axis.spines["left"].set_visible(False)
    return figure


def note_figure(study: Study) -> Figure | None:
    """Left, the note's results and those of our runs; right, our mean relative to the note's.

    The bars at the right extend two standard errors of one more run to both sides of our mean. A
    metric is reproduced if its bar contains the note's value.
    """
    if not compares_with_note(study):
        return None
    figure = Figure(figsize=(FIGURE_WIDTH, 5.2))
    _title(
        figure,
        f"The note's results and ours ({study.dataset}): HR@10 and NDCG@10 on test, lowest "
        "training loss",
    )
    axes = figure.subplots(len(METRICS), 2, sharey=True)
    for i, (metric, column) in enumerate(METRICS.items()):
        runs, relative = axes[i]
        for y, (optimizer, published) in enumerate(NOTE_VALUES.items()):
            ours, theirs = study.of(optimizer)[column], float(published[i])
            colour = style_of(optimizer).colour
            runs.plot(theirs, y, "D", color=colour, mfc="white", ms=6, zorder=0)
            if ours.empty:
                continue
            mean = ours.mean() / theirs - 1
            half = 2 * note.prediction_se(ours, len(ours)) / theirs
            runs.plot(ours, [y] * len(ours), "o", color=colour, alpha=0.6)
            relative.plot([mean - half, mean + half], [y, y], color=colour, lw=3)
        runs.set(title=metric)
        runs.set_xlim(left=0)
        relative.set(title="relative to the note's")
        relative.xaxis.set_major_formatter(lambda x, _: f"{100 * x:+.0f}%" if x else "equal")
        relative.axvline(0, color="gray", ls=":")
    axes[0, 0].set_yticks(range(len(NOTE_VALUES)), [label_of(o) for o in NOTE_VALUES])
    axes[0, 0].invert_yaxis()
    handles = [
        Line2D([], [], ls="", marker="D", color="gray", mfc="white", ms=6, label="the note"),
        Line2D([], [], ls="", marker="o", color="gray", alpha=0.6, label="a run of ours"),
        Line2D([], [], color="gray", lw=3, label="mean ± 2 s.e. of one more run"),
        Line2D([], [], color="gray", ls=":", label="the note: reproduced if a bar crosses it"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def moves(study: Study) -> Figure | None:
    """One stacked bar per variant: how its steps relate to Lion's in the last diagnosed epoch."""
    if study.diagnostics.empty:
        return None
    last = last_diagnosed(study.diagnostics)
    shares = step_shares(last)
    figure = Figure(figsize=(FIGURE_WIDTH, 0.22 * len(shares) + 1.2))
    _title(
        figure,
        f"{_study_title(study, last)}: all steps of item embeddings in the last diagnosed epoch",
    )
    axis = figure.subplots()
    labels, starts = [label_of(str(o)) for o in shares.index], shares.cumsum(axis=1) - shares
    for part, (colour, label) in PARTS_OF_MOVES.items():
        axis.barh(labels, shares[part], left=starts[part], color=colour, label=label)
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set(xlabel=SHARES_LABEL)
    axis.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def moves_by_epoch(study: Study) -> Figure | None:
    """The diagnostics of the variants' steps; scripts/running/diagnostics.py defines them."""
    lines = study.diagnostics
    if lines.empty:
        return None
    figure = Figure(figsize=(FIGURE_WIDTH, 5.4))
    _title(figure, _bands_title(study, lines))
    axes = figure.subplots(3, 2)
    for axis, ((quantity, part), title) in zip(axes.flat, MOVES_BY_EPOCH.items(), strict=False):
        shown = lines[(lines["quantity"] == quantity) & (lines["part"] == part)].assign(swept="")
        _bands(axis, study, shown, "epoch", "value")
        axis.set(xlabel="epoch", title=title)
        _percent(axis)
    axes[-1, -1].set_axis_off()
    axes[-1, -1].legend(handles=_handles(study, lines.assign(swept="")), loc="center")
    return figure


def distances(study: Study) -> Figure | None:
    """How far items move in the last diagnosed epoch, by their popularity."""
    if study.diagnostics.empty:
        return None
    last = last_diagnosed(study.diagnostics).assign(swept="")
    figure, axes = column_figure(_bands_title(study, last), 2, handles=_handles(study, last))
    for axis, (quantity, title) in zip(axes, DISTANCES.items(), strict=True):
        shown = last[last["quantity"] == quantity].astype({"part": int})
        _bands(axis, study, shown, "part", "value", marker="o")
        axis.set(xlabel="items by popularity, in fifths", title=title)
        axis.set_xticks(range(1, 6), ["rarest", "2", "3", "4", "most\npopular"])
        _percent(axis)
    return figure


def memories(study: Study) -> Figure | None:
    """How often a memory's sign contradicts the gradients of the last diagnosed epoch."""
    if not has_memory_diagnostics(study):
        return None
    last = last_diagnosed(study.diagnostics)
    optimizers = [o for o, _ in study.variants if o in set(last["optimizer"])]
    figure, axes = column_figure(_study_title(study, last), 3, height=0.15 * len(optimizers) + 0.6)
    for axis, (quantity, title) in zip(axes, MEMORIES.items(), strict=True):
        shown = last[last["quantity"] == quantity].groupby("optimizer")["value"].mean()
        shown = shown.reindex(optimizers)
        axis.barh(range(len(shown)), shown, color=[style_of(o).colour for o in optimizers])
        for y in (y for y, value in enumerate(shown) if pd.isna(value)):
            axis.text(0.01, y, "–", va="center")  # the variant has no such memory
        axis.axvline(0.5, color="gray", ls=":")
        axis.set(title=title, xlim=(0, 0.6), ylim=(len(shown) - 0.4, -0.6))
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.set_yticks(range(len(optimizers)), [label_of(o) for o in optimizers])
    axes[0].text(0.49, 0, "chance", ha="right", va="center", color="gray")
    return figure


def corrupted(study: Study) -> Figure | None:
    """NDCG@10 on test over the strength of each kind of corruption, at the left without it."""
    shown = kinds(study)
    if not shown:
        return None
    rows = math.ceil((len(shown) + 1) / 2)  # the legend takes a panel
    figure = Figure(figsize=(FIGURE_WIDTH, 1.3 * rows + 0.4))
    title = f"{study.experiment}: NDCG@10 on test, by how gradients are corrupted"
    _title(figure, f"{title} ({study.model} on {study.dataset})")
    axes = figure.subplots(rows, 2, sharey=True, squeeze=False)
    for axis, kind in zip(axes.flat, shown, strict=False):
        _bands(axis, study, kind.runs, "x", METRICS["NDCG@10"], marker="o")
        axis.set(title=kind.name, ylim=(0, None))
        axis.set_xticks(range(len(kind.strengths)), kind.strengths)
    handles = _handles(study, shown[0].runs)
    for handle in handles:
        handle.set_label(textwrap.fill(str(handle.get_label()), LEGEND_CHARACTERS))
    for axis in list(axes.flat)[len(shown) :]:
        axis.set_axis_off()
    axes[-1, -1].legend(handles=handles, loc="center")
    return figure


def step_shares(last: pd.DataFrame) -> pd.DataFrame:
    """The share of each kind of ``PARTS_OF_MOVES`` in the steps of items, one row per optimizer.

    Args:
        last: the result of ``last_diagnosed``.
    """
    last = last[(last["part"] == "items") & last["quantity"].isin(PARTS_OF_MOVES)]
    shares = last.pivot_table(index="optimizer", columns="quantity", values="value")
    return shares[list(PARTS_OF_MOVES)].sort_values("against", kind="stable")


def darkened(figure: Figure) -> Figure:
    """Turn the colours of a figure into those for a dark page, which shows through it."""
    artists = figure.findobj(Artist)
    artists += [a.arrow_patch for a in artists if isinstance(a, Annotation) and a.arrow_patch]
    for artist in artists:
        kinds = [kind for kind in COLOURED if hasattr(artist, f"get_{kind}")]
        # all are read before one is written: to write one may change another
        colours = {kind: _on_dark(getattr(artist, f"get_{kind}")()) for kind in kinds}
        for kind, colour in colours.items():
            getattr(artist, f"set_{kind}")(colour)
    for patch in (figure.patch, *(axis.patch for axis in figure.axes)):
        patch.set_alpha(0)
    return figure


def _percent(axis: Axes) -> None:
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set_ylim(0, max(1.03, axis.get_ylim()[1]))


def column_figure(
    title: str, n: int, height: float = 1.8, handles: Sequence[Line2D] = ()
) -> tuple[Figure, list[Axes]]:
    """A figure of n panels, one below the other, with a title and a legend of these handles.

    Args:
        height: of a panel, in inches.
    """
    columns = (
        1 if any(len(str(handle.get_label())) > LEGEND_CHARACTERS for handle in handles) else 2
    )
    for handle in handles:
        handle.set_label(textwrap.fill(str(handle.get_label()), TITLE_CHARACTERS))
    rows = sum(str(handle.get_label()).count("\n") + 1 for handle in handles)
    lines = math.ceil(rows / columns)
    figure = Figure(figsize=(FIGURE_WIDTH, n * height + 0.4 + 0.15 * lines))
    _title(figure, title)
    if handles:
        # long enough to show each of DASHES
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=3.0)
    return figure, list(figure.subplots(n, 1, squeeze=False).flat)


def _title(figure: Figure, text: str) -> None:
    figure.suptitle(textwrap.fill(text, TITLE_CHARACTERS))


def _study_title(study: Study, lines: pd.DataFrame) -> str:
    """Experiment, model, dataset, epochs and number of seeds, for a title."""
    counts = lines.groupby("optimizer")["seed"].nunique()
    seeds = "one seed"
    if counts.max() > 1:
        n = f"{counts.min()} to {counts.max()}" if counts.min() < counts.max() else counts.max()
        seeds = f"mean of {n} seeds"
    epochs = study.runs["epochs"].max()
    return f"{study.experiment}: {study.model} on {study.dataset}, {epochs} epochs, {seeds}"


def _bands_title(study: Study, lines: pd.DataFrame) -> str:
    """The title of a figure that shows the range over seeds."""
    title = _study_title(study, lines)
    return title if title.endswith("one seed") else f"{title} (band: lowest to highest)"


def _bands(
    axis: Axes, study: Study, points: pd.DataFrame, x: str, y: str, marker: str | None = None
) -> None:
    """One line per variant: the mean over seeds, with a band from the lowest to the highest."""
    for (optimizer, swept), style in line_styles(study, points).items():
        selected = variant(points, optimizer, swept)
        over = selected.groupby(x)[y].agg(["mean", "min", "max"])
        colour, width = style_of(optimizer).colour, LINE_WIDTHS.get(optimizer, 1.2)
        axis.plot(over.index, over["mean"], ls=DASHES[style], marker=marker, color=colour, lw=width)
        axis.fill_between(over.index, over["min"], over["max"], color=colour, alpha=0.2)


def line_styles(study: Study, points: pd.DataFrame) -> dict[tuple[str, str], int]:
    """The variants that points belong to, in the study's order, each with its index in ``DASHES``
    and ``MARKERS``.
    """
    present = set(points[VARIANT].itertuples(index=False, name=None))
    ordered = [v for v in study.variants if v in present]
    ordered += sorted(present - set(ordered))
    seen: dict[str, int] = {}
    styles: dict[tuple[str, str], int] = {}
    for optimizer, swept in ordered:
        colour = style_of(optimizer).colour
        styles[optimizer, swept] = seen.get(colour, 0) % len(DASHES)
        seen[colour] = seen.get(colour, 0) + 1
    return styles


def _handles(study: Study, points: pd.DataFrame, with_markers: bool = False) -> list[Line2D]:
    """One line of a legend for each variant that points belong to."""
    handles = []
    for (optimizer, swept), style in line_styles(study, points).items():
        drawn: dict[str, Any] = {"ls": DASHES[style], "lw": 1.5}
        if with_markers:
            drawn = {"ls": "", "marker": MARKERS[style]}
        colour, label = style_of(optimizer).colour, label_of(optimizer, swept)
        handles.append(Line2D([], [], color=colour, label=label, **drawn))
    return handles


def _on_dark(colour: Any) -> Any:
    """A colour, or an array of colours, for a dark page; anything else as it is."""
    if isinstance(colour, np.ndarray) and colour.ndim == 2:
        return [_on_dark(tuple(one)) for one in colour]
    if not is_color_like(colour):
        return colour
    *_, alpha = to_rgba(colour)
    return to_rgba(on_dark(to_hex(colour)), alpha) if alpha else "none"


# A study's figure NAME is written to results/figures/NAME-STUDY.
FIGURES: dict[str, Callable[[Study], Figure | None]] = {
    "curves": curves,
    "grid": grid,
    "gains": gains,
    "steps": steps,
    "note": note_figure,
    "moves": moves,
    "moves_by_epoch": moves_by_epoch,
    "distances": distances,
    "memories": memories,
    "corrupted": corrupted,
}


def figures(studies: Sequence[Study]) -> dict[str, Figure]:
    """All figures that apply, by the name ``NAME-STUDY``."""
    drawn = {f"{name}-{s.name}": draw(s) for s in studies for name, draw in FIGURES.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}
