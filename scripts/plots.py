"""The figures of a study, from the CSV files alone; a row has one colour everywhere."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from scripts.note import ROWS, spread
from scripts.studies import HYPERPARAMETERS, STUDY, curves
from scripts.tables import METRICS, label_of, label_of_rate, last_looks

# Okabe and Ito's palette, safe for the colour-blind.
COLOURS = {
    "lion": "#000000",
    "sign_sgd": "#E69F00",
    "simba": "#56B4E9",
    "simba_m": "#009E73",
    "simba_eq1": "#D55E00",
    "simba_c_eq_m": "#CC79A7",
    # the variants that ask what Simba lacks
    "simba_eq4": "#88CCEE",
    "simba_window": "#332288",
    "simba_leaky": "#117733",
    "ternary_lion": "#999933",
    "ternary_lion_byte": "#CC3311",
    "ternary_lion_ef": "#AA4499",
    "lion_8bit": "#777777",
}
WIDTHS = {optimizer: 3.6 - 0.5 * i for i, optimizer in enumerate(ROWS)}  # equal lines both show
GUESSING = 2 * math.log(2)  # loss of a model to which every item is equally likely
TITLES = {
    "train/loss": "training loss (lower is better)",
    "valid/NDCG@10": "NDCG@10 on valid (higher is better)",
}
PARTS = {  # of a step
    "agreement": ("#0072B2", "as Lion would"),
    "rests": ("#DDDDDD", "rests"),
    "against": ("#661100", "against Lion"),
}
LOOKS = {  # over the epochs
    ("agreement", "items"): "moves as Lion would\n(item embeddings)",
    ("agreement", "weights"): "moves as Lion would\n(all other weights)",
    ("memory", "items"): "moves by its memory, whatever\nthe gradient (item embeddings)",
    ("without_gradient", "items"): "moves without a gradient\n(item embeddings)",
    ("counter", "items"): "how full its counters are,\nmean |s| / w (item embeddings)",
}
DRIFT = {  # over the items by popularity, at the last look
    "absent": "share of an epoch's steps an item\nmakes while not in the batch",
    "net": "how far an epoch takes an item\n(100%: it never turns)",
}


MEMORIES = {
    "astray_m": "Lion's m points against\nthe epoch's sum of gradients",
    "astray_s": "the counter s does",
    "outvoted": "the epoch's own count\nof signs does",
}


def learning_curves(study: pd.DataFrame, note: bool = False) -> Figure:
    """Loss and valid NDCG@10 over epochs: mean over seeds, from the lowest to the highest.

    ``note`` marks the note's final losses.
    """
    points = curves(study)
    figure, axes = _pair(study)
    for axis, (curve, title) in zip(axes, TITLES.items(), strict=True):
        _bands(axis, points, "epoch", curve)
        axis.set(xlabel="epoch", title=title)
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
    if note:
        last = points["epoch"].max()
        for optimizer, row in ROWS.items():
            axes[0].plot(last, row.loss, "D", color=COLOURS[optimizer], mfc="white", clip_on=False)
        axes[0].plot([], [], "D", color="gray", mfc="white", label="the note's, at the end")
        axes[0].legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 0.93))
    return figure


def rates(study: pd.DataFrame) -> Figure:
    """Final loss and best valid NDCG@10 of every row over learning rates."""
    figure, axes = _pair(study, f", {study['epochs'].max()} epochs")
    ticks = sorted(study["lr"].unique())
    for axis, (curve, title) in zip(axes, TITLES.items(), strict=True):
        _bands(axis, study, "lr", curve, marker="o")
        axis.set(xscale="log", xlabel="learning rate", title=title)
        axis.set_xticks(ticks, [label_of_rate(lr) for lr in ticks])
        axis.minorticks_off()
        axis.axvline(HYPERPARAMETERS["lr"], color="gray", ls=":", label="the note's")
    axes[0].legend(frameon=False)
    return figure


def beside_the_note(study: pd.DataFrame) -> Figure:
    """The note's figures and ours, run by run; and where one more run would lie, beside the note's.

    The rule of scripts/note.py: a figure is reproduced if the note's is within two spreads of ours.
    """
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    figure.suptitle(f"{study['dataset'].iloc[0]}, on test: the note's figures and ours")
    axes = figure.subplots(2, 3, sharey=True)
    for i, (metric, column) in enumerate(METRICS.items(), start=1):
        runs, relative = axes[:, i - 1]
        for y, (optimizer, published) in enumerate(ROWS.items()):
            ours = study.loc[study["optimizer"] == optimizer, column]
            note = float(published[i])
            mean, half = ours.mean() / note - 1, 2 * spread(ours, len(ours)) / note
            colour = COLOURS[optimizer]
            runs.plot(ours, [y] * len(ours), "o", color=colour, alpha=0.6)
            runs.plot(note, y, "D", color=colour, mfc="white", ms=9, zorder=0)
            relative.plot([mean - half, mean + half], [y, y], color=colour, lw=4)
        runs.set(title=f"{metric} ({'lower' if metric == 'Loss' else 'higher'} is better)")
        runs.set_xlim(left=0)
        relative.set(xlabel=f"{metric} beside the note's")
        relative.xaxis.set_major_formatter(lambda x, _: f"{100 * x:+.0f}%" if x else "equal")
        relative.axvline(0, color="gray", ls=":")
        for axis in (runs, relative):
            axis.grid(alpha=0.3)
    axes[0, 0].set_yticks(range(len(ROWS)), [row.label for row in ROWS.values()])
    axes[0, 0].invert_yaxis()
    handles = [
        Line2D([], [], ls="", marker="D", color="gray", mfc="white", ms=9, label="the note"),
        Line2D([], [], ls="", marker="o", color="gray", alpha=0.6, label="a run of ours"),
        Line2D(
            [], [], color="gray", lw=4, label="our mean ± 2 spreads:\nso would one more run lie"
        ),
        Line2D([], [], color="gray", ls=":", label="the note: reproduced\nif the bar crosses it"),
    ]
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    return figure


def why(looks: pd.DataFrame) -> Figure:
    """What the optimizers chose while they trained; see scripts/diagnosis.py."""
    figure = Figure(figsize=(15, 7.5), layout="constrained")
    _title(figure, looks)
    axes = figure.subplots(2, 4)
    last = last_looks(looks)
    _beside_lion(axes[0, 0], last)
    for axis, ((quantity, of), title) in zip(axes.flat[1:], LOOKS.items(), strict=False):
        shown = looks[(looks["quantity"] == quantity) & (looks["of"] == of)]
        _bands(axis, shown, "epoch", "value")
        axis.set(xlabel="epoch", title=title)
    for axis, (quantity, title) in zip(axes[1, 2:], DRIFT.items(), strict=True):
        shown = last[last["quantity"] == quantity].astype({"of": int})
        _bands(axis, shown, "of", "value", marker="o")
        axis.set(xlabel="items by popularity, in fifths", title=title)
        axis.set_xticks(range(1, 6), ["rarest", "2", "3", "4", "most\npopular"])
    for axis in axes.flat[1:]:
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.set_ylim(0, max(1.03, axis.get_ylim()[1]))
    _key(figure, looks)
    return figure


def memories(looks: pd.DataFrame) -> Figure:
    """How often what an optimizer remembers contradicts the gradients of the last look's epoch."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    _title(figure, looks, ", item embeddings")
    last = last_looks(looks)
    rows = _optimizers(last)
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    for axis, (quantity, title) in zip(axes, MEMORIES.items(), strict=True):
        shown = last[last["quantity"] == quantity].groupby("optimizer")["value"].mean()
        axis.barh(range(len(rows)), shown.reindex(rows), color=[COLOURS[o] for o in rows])
        axis.axvline(0.5, color="gray", ls=":")
        axis.set(title=title, xlim=(0, 0.6))
    axes[0].text(0.49, 0, "a coin", ha="right", va="center", color="gray")
    axes[0].xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[0].set_yticks(range(len(rows)), [label_of(o) for o in rows])
    axes[0].invert_yaxis()
    return figure


def _beside_lion(axis: Axes, last: pd.DataFrame) -> None:
    """A bar an optimizer, in parts: how its steps relate to Lion's at the last look."""
    last = last[(last["of"] == "items") & last["quantity"].isin(PARTS)]
    shares = last.pivot_table(index="optimizer", columns="quantity", values="value")
    shares = shares[list(PARTS)].sort_values("against", kind="stable")
    labels, starts = [label_of(str(o)) for o in shares.index], shares.cumsum(axis=1) - shares
    for part, (colour, label) in PARTS.items():
        axis.barh(labels, shares[part], left=starts[part], color=colour, label=label)
    axis.set(title="all steps of item embeddings,\nat the last look")
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.invert_yaxis()
    axis.legend(loc="upper center", bbox_to_anchor=(0.4, -0.08), ncols=3, frameon=False)


def _pair(study: pd.DataFrame, of: str = "") -> tuple[Figure, list[Axes]]:
    """Two panels with a title and a key."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    _title(figure, study, of)
    _key(figure, study)
    return figure, figure.subplots(1, 2)


def _title(figure: Figure, frame: pd.DataFrame, of: str = "") -> None:
    experiment, model, dataset = (frame[key].iloc[0] for key in STUDY)
    n = frame["seed"].nunique()
    seeds = f"mean of {n} seeds (band: lowest to highest)" if n > 1 else "one seed"
    figure.suptitle(f"{experiment}: {model} on {dataset}{of}, {seeds}")


def _bands(axis: Axes, points: pd.DataFrame, x: str, y: str, marker: str | None = None) -> None:
    """A line an optimizer: mean over seeds, and from the lowest to the highest."""
    for optimizer in _optimizers(points):
        lines = points[points["optimizer"] == optimizer]
        over = lines.groupby(x)[y].agg(["mean", "min", "max"])
        colour, width = COLOURS[optimizer], WIDTHS.get(optimizer, 2.0)
        (line,) = axis.plot(over.index, over["mean"], marker=marker, color=colour, lw=width)
        axis.fill_between(over.index, over["min"], over["max"], color=line.get_color(), alpha=0.2)
    axis.grid(alpha=0.3)


def _optimizers(frame: pd.DataFrame) -> list[str]:
    return [o for o in COLOURS if o in set(frame["optimizer"])]


def _key(figure: Figure, points: pd.DataFrame) -> None:
    handles = [
        Line2D([], [], color=COLOURS[o], lw=2, label=label_of(o)) for o in _optimizers(points)
    ]
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
