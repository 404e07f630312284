"""The figures of a study, from the CSV files alone; a row has one colour everywhere."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from scripts.note import ROWS
from scripts.studies import curves
from scripts.tables import METRICS, last_looks

# Okabe and Ito's palette, safe for the colour-blind.
COLOURS = {
    "lion": "#000000",
    "sign_sgd": "#E69F00",
    "simba": "#56B4E9",
    "simba_m": "#009E73",
    "simba_eq1": "#D55E00",
    "simba_c_eq_m": "#CC79A7",
}
WIDTHS = {optimizer: 3.6 - 0.5 * i for i, optimizer in enumerate(ROWS)}  # equal lines both show
TITLES = {
    "train/loss": "training loss (lower is better)",
    "valid/NDCG@10": "NDCG@10 on valid (higher is better)",
}
LOOKS = {
    "agreement": "moves the way that Lion would",
    "memory": "moves by its memory",
    "without_gradient": "moves without a gradient",
    "counter": "mean |s| / w of its counters",
}
DRIFT = {
    "absent": "share of an epoch's steps taken\nwhile the item is not in the batch",
    "net": "how far an epoch takes it, of\nall its steps (decay included)",
}


def learning_curves(study: pd.DataFrame, note: bool = False) -> Figure:
    """Loss and valid NDCG@10 over epochs: mean over seeds, from the lowest to the highest.

    ``note`` marks the note's final losses.
    """
    points = curves(study)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, (curve, title) in zip(axes, TITLES.items(), strict=True):
        _bands(axis, points, "epoch", curve)
        axis.set(xlabel="epoch", title=title)
    if note:
        last = points["epoch"].max()
        for optimizer, row in ROWS.items():
            axes[0].plot(last, row.loss, "D", color=COLOURS[optimizer], mfc="white", clip_on=False)
        axes[0].plot([], [], "D", color="gray", mfc="white", label="the note's, at the end")
        axes[0].legend(frameon=False)
    _key(figure, points)
    return figure


def beside_the_note(study: pd.DataFrame) -> Figure:
    """The note's figures and ours, run by run."""
    figure = Figure(figsize=(11, 3), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    labels = [row.label for row in ROWS.values()]
    for i, (axis, (metric, column)) in enumerate(zip(axes, METRICS.items(), strict=True), start=1):
        for y, (optimizer, published) in enumerate(ROWS.items()):
            ours = study.loc[study["optimizer"] == optimizer, column]
            axis.plot(ours, [y] * len(ours), "o", color=COLOURS[optimizer], alpha=0.6)
            axis.plot(published[i], y, "D", color=COLOURS[optimizer], mfc="white", ms=9, zorder=0)
        axis.set(title=f"{metric} ({'lower' if metric == 'Loss' else 'higher'} is better)")
        axis.set_xlim(left=0)
        axis.grid(alpha=0.3)
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].invert_yaxis()
    axes[0].plot([], [], "D", color="gray", mfc="white", ms=9, label="the note")
    axes[0].plot([], [], "o", color="gray", alpha=0.6, label="a run of ours")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def rates(study: pd.DataFrame) -> Figure:
    """Final loss and best valid NDCG@10 of every row over learning rates."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, (curve, title) in zip(axes, TITLES.items(), strict=True):
        _bands(axis, study, "lr", curve, marker="o")
        ticks = sorted(study["lr"].unique())
        axis.set(xscale="log", xlabel="learning rate", title=title)
        axis.set_xticks(ticks, [f"{lr:g}" for lr in ticks])
        axis.minorticks_off()
    _key(figure, study)
    return figure


def why(looks: pd.DataFrame) -> Figure:
    """What the optimizers chose while they trained; see scripts/diagnosis.py."""
    figure = Figure(figsize=(15, 7), layout="constrained")
    axes = figure.subplots(2, 4)
    panels = [(quantity, "items") for quantity in LOOKS]
    panels += [(quantity, "weights") for quantity in ("agreement", "memory")]
    for axis, (quantity, of) in zip(axes.flat, panels, strict=False):
        shown = looks[(looks["quantity"] == quantity) & (looks["of"] == of)]
        _bands(axis, shown, "epoch", "value")
        where = "item embeddings" if of == "items" else "all other weights"
        axis.set(xlabel="epoch", title=f"{LOOKS[quantity]}\n({where})")
    last = last_looks(looks)
    for axis, (quantity, title) in zip(axes[1, 2:], DRIFT.items(), strict=True):
        shown = last[last["quantity"] == quantity].astype({"of": int})
        _bands(axis, shown, "of", "value", marker="o")
        axis.set(xlabel="items by popularity, in fifths", title=title)
        axis.set_xticks(range(1, 6), ["rarest", "2", "3", "4", "most\npopular"])
    for axis in axes.flat:
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.set_ylim(0, max(1.03, axis.get_ylim()[1]))
    _key(figure, looks)
    return figure


def _bands(axis: Axes, points: pd.DataFrame, x: str, y: str, marker: str | None = None) -> None:
    """A line an optimizer: mean over seeds, and from the lowest to the highest."""
    for optimizer in _optimizers(points):
        lines = points[points["optimizer"] == optimizer]
        over = lines.groupby(x)[y].agg(["mean", "min", "max"])
        colour, width = COLOURS[optimizer], WIDTHS[optimizer]
        (line,) = axis.plot(over.index, over["mean"], marker=marker, color=colour, lw=width)
        axis.fill_between(over.index, over["min"], over["max"], color=line.get_color(), alpha=0.2)
    axis.grid(alpha=0.3)


def _optimizers(frame: pd.DataFrame) -> list[str]:
    return [o for o in ROWS if o in set(frame["optimizer"])]


def _key(figure: Figure, points: pd.DataFrame) -> None:
    handles = [
        Line2D([], [], color=COLOURS[o], lw=2, label=ROWS[o].label) for o in _optimizers(points)
    ]
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
