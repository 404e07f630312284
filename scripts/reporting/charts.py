"""The figures of the report, to hover, zoom and toggle: ``CHARTS`` of one study.

They show what plots.py draws for paper. A trace belongs to the variant in its ``legendgroup``; the
report shows a button for each, since plotly's own legend cannot be reached by keyboard.
"""

import math
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy.optimize import isotonic_regression

from scripts.reporting.corrupted import kinds
from scripts.reporting.note import METRICS, NOTE_VALUES
from scripts.reporting.plots import (
    GAINS_LABEL,
    GRID_TITLES,
    GUESSING,
    LOSS_TICKS,
    MEMORIES,
    PARTS_OF_MOVES,
    SHARES_LABEL,
    TITLES,
    axis_label,
    drawn_curves,
    error_bars,
    grid_runs,
    grid_scale,
    group_offset,
    line_styles,
    selection,
    shown_gains,
    step_shares,
)
from scripts.reporting.studies import VARIANT, Study, variant
from scripts.reporting.style import label_of, short, style_of
from scripts.reporting.tables import (
    GROUPED_BY,
    compares_with_note,
    group_name,
    groups_of,
    has_memory_diagnostics,
    last_diagnosed,
)

# What plotly and SVG call matplotlib's DASHES, and what plotly calls its MARKERS.
PLOTLY_DASHES = (
    *("solid", "8px,4px", "2px,2px", "8px,3px,2px,3px", "16px,4px", "16px,3px,4px,3px"),
    *("8px,2px,2px,2px,2px,2px", "2px,8px"),
)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "x", "cross", "star")
LONGEST_LABEL = 40  # characters; beside longer labels, the lines would be too short
PANEL, LABEL = 280, 19  # pixels: of a panel, and from one label at its right to the next
MOST_TICKS = 5  # more do not fit a phone side by side
MARGIN = {"l": 10, "r": 10, "t": 40, "b": 10}


class Key(NamedTuple):
    """What a button shows: the variant that it toggles, and how its traces are drawn."""

    group: str
    label: str
    colour: str
    dash: str = "solid"


class End(NamedTuple):
    """Where a line of a variant ends."""

    label: str
    colour: str
    y: float


class Chart(NamedTuple):
    """A figure, the sentence above it, what a screen reader says, and what buttons toggle."""

    figure: go.Figure
    caption: str
    alt: str
    keys: tuple[Key, ...] = ()
    log_axis: str | None = None  # the axis of its layout that may be logarithmic or linear


def curves(study: Study) -> Chart | None:
    """Loss and validation NDCG@10 over epochs: mean over seeds, and the range over seeds."""
    points = drawn_curves(study)
    if points.empty:
        return None
    figure = _panels(list(TITLES.values()), height=760)
    for row, column in enumerate(TITLES, 1):
        ends = _lines(figure, row, study, points, "epoch", column)
        _label_ends(figure, row, ends, log=row == 1)
    figure.add_hline(GUESSING, line={"dash": "dot", "color": "#808080", "width": 1}, row=1, col=1)
    figure.update_yaxes(type="log", tickvals=LOSS_TICKS, row=1, col=1)
    figure.update_xaxes(title_text="epoch", row=2, col=1)
    if compares_with_note(study):
        last = study.curves["epoch"].max()
        for optimizer, published in NOTE_VALUES.items():
            figure.add_scatter(
                **_named(optimizer),
                x=[last],
                y=[published.loss],
                mode="markers",
                marker={
                    "symbol": "diamond-open",
                    "size": 9,
                    "color": style_of(optimizer).colour,
                },
                hovertemplate="%{y:.4f} in the note",
                row=1,
                col=1,
            )
    diamonds = " Diamonds are the note's losses." if compares_with_note(study) else ""
    caption = (
        f"{_selection(study)}{_lines_are(points)} The dotted line is the loss of guessing: of a "
        f"model that gives every item the score 0.{diamonds}"
    )
    ends = points[points["epoch"] == points["epoch"].max()].groupby("optimizer")
    described = [
        f"{label_of(str(o))} {own['train/loss'].mean():.3f} and {own['valid/NDCG@10'].mean():.4f}"
        for o, own in ends
    ]
    alt = f"Curves over epochs. Last training loss and validation NDCG@10: {'; '.join(described)}."
    return Chart(figure, caption, alt, _keys(study, points), "yaxis")


def grid(study: Study) -> Chart | None:
    """Lowest loss and best validation NDCG@10 over the one number that a study sweeps."""
    runs = grid_runs(study)
    if runs is None:
        return None
    (key,) = study.swept
    figure = _panels(list(GRID_TITLES.values()), height=640)
    for row, column in enumerate(GRID_TITLES, 1):
        ends = _lines(figure, row, study, runs, "value", column, mode="lines+markers")
        _label_ends(figure, row, ends)
    ticks = sorted(runs["value"].unique().tolist())
    texts = [short(float(tick)) for tick in ticks]
    figure.update_xaxes(type=grid_scale(ticks), tickvals=ticks, ticktext=texts)
    figure.update_xaxes(title_text=axis_label(key), row=2, col=1)
    if len(ticks) > MOST_TICKS:
        figure.update_xaxes(tickangle=90)
    best = runs.loc[runs.groupby("optimizer")["valid/NDCG@10"].idxmax()]
    described = [
        f"{label_of(o)} {short(float(value))}"
        for o, value in zip(best["optimizer"], best["value"], strict=True)
    ]
    alt = f"Metrics over the {axis_label(key)}. Best by validation NDCG@10: {', '.join(described)}."
    return Chart(figure, _lines_are(runs, "point"), alt, _keys(study, runs))


def gains(study: Study) -> Chart | None:
    """Who gains and who loses: differences to the baseline in groups of users, with intervals."""
    lines = shown_gains(study)
    if lines.empty:
        return None
    figure = _panels([""] * len(GROUPED_BY), height=640, shared=False, between=0.18)
    for row, (quantity, words) in enumerate(GROUPED_BY.items(), 1):
        gains = lines[lines["by"] == quantity]
        variants = line_styles(study, gains)
        for i, ((optimizer, swept), style) in enumerate(variants.items()):
            groups = groups_of(variant(gains, optimizer, swept))
            below, above = error_bars(groups)
            figure.add_scatter(
                **_named(optimizer, swept),
                x=[place + group_offset(i, len(variants)) for place in range(len(groups))],
                y=[_round(group.difference) for group in groups],
                error_y={
                    "symmetric": False,
                    "array": [_round(error) for error in above],
                    "arrayminus": [_round(error) for error in below],
                },
                mode="markers",
                marker={
                    "color": style_of(optimizer).colour,
                    "size": 8,
                    "symbol": SYMBOLS[style],
                },
                customdata=[f"{group.better} users gain, {group.worse} lose" for group in groups],
                hovertemplate="%{y:+.4f}, %{customdata}",
                row=row,
                col=1,
            )
        figure.update_xaxes(
            title_text=words,
            tickvals=list(range(len(groups))),
            ticktext=[group_name(group) for group in groups],
            zeroline=False,
            row=row,
            col=1,
        )
        figure.update_yaxes(title_text=GAINS_LABEL, row=row, col=1)
    base = label_of(study.declared.baseline)
    caption = (
        f"{_selection(study)}NDCG@10 on test minus {base}'s, a mean over the seeds that both have, "
        "in groups of users; bars are 95% intervals over users. Above 0, the users gain compared "
        f"with {base}."
    )
    alt = "Differences in groups of users; the tables nearby have the numbers."
    return Chart(figure, caption, alt, _keys(study, lines))


def steps(study: Study) -> Chart | None:
    """From the first optimizer to the last: what each change does to the loss."""
    if not study.declared.steps:
        return None
    figure = go.Figure(layout={"height": 90 + 92 * len(study.declared.steps)})
    described = []
    for optimizer, change in study.declared.steps.items():
        losses = study.of(optimizer)["train/min_loss"]
        if losses.empty:
            continue
        label = f"<b>{label_of(optimizer)}</b><br>{_wrapped(change)}"
        colour = style_of(optimizer).colour
        mean = _round(losses.mean())
        figure.add_bar(
            x=[mean],
            y=[label],
            orientation="h",
            marker={"color": colour, "opacity": 0.3},
            text=[f"{mean:.3f}"],
            textposition="inside",
            insidetextanchor="start",
            textfont={"color": "#222222"},
            hovertemplate=f"{label_of(optimizer)}: {mean:.4f}<extra></extra>",
        )
        figure.add_scatter(
            x=[_round(x) for x in losses],
            y=[label] * len(losses),
            mode="markers",
            marker={"color": colour, "size": 7},
            hovertemplate="a run: %{x:.4f}<extra></extra>",
        )
        described.append(f"{label_of(optimizer)} {mean:.3f}")
    if not described:
        return None
    figure.update_yaxes(autorange="reversed", ticklabelstandoff=6)
    largest = float(study.runs["train/min_loss"].max())
    figure.update_xaxes(range=[0, 1.05 * largest], title_text=GRID_TITLES["train/min_loss"])
    each = "one run" if study.runs["seed"].nunique() == 1 else "a mean, each point a run"
    caption = (
        f"The lowest training loss: each bar is {each}. "
        "Below a variant's name stands its change against the variant above it."
    )
    return Chart(_styled(figure), caption, f"Bars of lowest training loss: {', '.join(described)}.")


def note_figure(study: Study) -> Chart | None:
    """The note's results and ours, run by run."""
    if not compares_with_note(study):
        return None
    titles = [
        f"{metric} ({'lower' if metric == 'Loss' else 'higher'} is better)" for metric in METRICS
    ]
    figure = _panels(titles, height=760, shared=False)
    for row, (metric, column) in enumerate(METRICS.items(), 1):
        for optimizer, published in NOTE_VALUES.items():
            ours, theirs = study.of(optimizer)[column], published[row - 1]
            colour, label = style_of(optimizer).colour, label_of(optimizer)
            figure.add_scatter(
                **_named(optimizer),
                x=[_round(x) for x in ours],
                y=[label] * len(ours),
                mode="markers",
                marker={"color": colour, "size": 8, "opacity": 0.6},
                hovertemplate=f"{label}: {metric} %{{x:.4f}}, a run of ours<extra></extra>",
                row=row,
                col=1,
            )
            figure.add_scatter(
                **_named(optimizer),
                x=[theirs],
                y=[label],
                mode="markers",
                marker={"color": colour, "size": 13, "symbol": "diamond-open"},
                hovertemplate=f"{label}: {metric} %{{x:.4f}} in the note<extra></extra>",
                row=row,
                col=1,
            )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(rangemode="tozero")
    caption = "Points are our runs, diamonds the note's values."
    alt = (
        "Our runs and the note's values, by variant; the table next to this figure has the numbers."
    )
    return Chart(
        figure, caption, alt, _keys(study, study.runs[study.runs["optimizer"].isin(NOTE_VALUES)])
    )


def moves(study: Study) -> Chart | None:
    """How a variant's steps of item embeddings relate to Lion's in the last diagnosed epoch."""
    if study.diagnostics.empty:
        return None
    shares = step_shares(last_diagnosed(study.diagnostics))
    bars = {
        label: (colour, [_round(x) for x in shares[part]])
        for part, (colour, label) in PARTS_OF_MOVES.items()
    }
    described = [f"{label_of(str(o))} {against:z.0%}" for o, against in shares["against"].items()]
    caption = (
        f"All steps of item embeddings in epoch {study.diagnostics['epoch'].max()}, the last "
        "diagnosed one, as shares of coordinates. Lion's step is what Lion would do with the same "
        "gradients."
    )
    alt = f"Stacked bars. Share of steps against Lion: {', '.join(described)}."
    return _bars(bars, [label_of(str(o)) for o in shares.index], "stack", caption, alt)


def memories(study: Study) -> Chart | None:
    """How often what a variant remembers contradicts the gradients of the last diagnosed epoch."""
    if not has_memory_diagnostics(study):
        return None
    last = last_diagnosed(study.diagnostics)
    shares = last.pivot_table(index="optimizer", columns="quantity", values="value")
    rows = [o for o, _ in study.variants if o in shares.index]
    shares = shares.reindex(rows, columns=list(MEMORIES))
    colours = ("#0072B2", "#E69F00", "#009E73")
    bars = {}
    for colour, (quantity, title) in zip(colours, MEMORIES.items(), strict=True):
        values = [None if pd.isna(x) else _round(x) for x in shares[quantity]]
        bars[title.replace("\n", " ")] = (colour, values)
    caption = (
        "Half, 50%, is chance level. Lion's m was computed for every variant, "
        "for comparison; where s has no bar, the variant keeps no counter."
    )
    alt = "Bars: how often each memory contradicts the epoch; the table has the numbers."
    return _bars(bars, [label_of(str(o)) for o in shares.index], "group", caption, alt)


def corrupted(study: Study) -> Chart | None:
    """NDCG@10 on test over the strength of each kind of corruption, at the left without it."""
    shown = kinds(study)
    if not shown:
        return None
    figure = _panels(
        [kind.name for kind in shown], 250 * len(shown), shared=False, between=0.3 / len(shown)
    )
    for row, kind in enumerate(shown, 1):
        _lines(figure, row, study, kind.runs, "x", METRICS["NDCG@10"], mode="lines+markers")
        places = list(range(len(kind.strengths)))
        figure.update_xaxes(tickvals=places, ticktext=kind.strengths, row=row, col=1)
    figure.update_yaxes(rangemode="tozero")
    runs = pd.concat([kind.runs for kind in shown])
    caption = (
        "NDCG@10 on test over the strength of the corruption, from the weakest to the strongest; "
        f"at the left, exact gradients. {_lines_are(runs, 'point')} Strengths may have different "
        "numbers of seeds; the table has percentages over equal seeds."
    )
    alt = "NDCG@10 with corrupted gradients, by kind; the table nearby has the numbers."
    return Chart(figure, caption, alt, _keys(study, runs))


CHARTS: dict[str, Callable[[Study], Chart | None]] = {
    "curves": curves,
    "grid": grid,
    "gains": gains,
    "steps": steps,
    "note": note_figure,
    "moves": moves,
    "memories": memories,
    "corrupted": corrupted,
}


def _panels(
    titles: list[str], height: int, shared: bool = True, between: float = 0.09
) -> go.Figure:
    """One panel below the other, so that they fit a phone."""
    figure = make_subplots(
        rows=len(titles),
        cols=1,
        shared_xaxes=shared,
        subplot_titles=titles,
        vertical_spacing=between,
    )
    figure.update_layout(height=height, hovermode="x unified" if shared else "closest")
    return _styled(figure)


def _styled(figure: go.Figure) -> go.Figure:
    """Transparent, so that the page's colours show; buttons of the page are its legend."""
    figure.update_layout(
        template="plotly_white",
        showlegend=False,
        margin=MARGIN,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"size": 13, "color": "#222222"},
        hoverlabel={"bgcolor": "#FFFFFF", "font": {"color": "#222222"}},
    )
    axis = {
        "automargin": True,
        "gridcolor": "#CCCCCC",
        "zerolinecolor": "#999999",
        "title_font_size": 12,  # the longest title fits a phone
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def _lines(
    figure: go.Figure,
    row: int,
    study: Study,
    points: pd.DataFrame,
    x: str,
    y: str,
    mode: str = "lines",
) -> list[End]:
    """A line for each variant, and a band from its lowest seed to its highest; where they end."""
    ends = []
    for (optimizer, swept), style in line_styles(study, points).items():
        selected = variant(points, optimizer, swept)
        over = selected.groupby(x)[y].agg(["mean", "min", "max"])
        xs = over.index.tolist()
        colour = style_of(optimizer).colour
        if selected["seed"].nunique() > 1:
            figure.add_scatter(
                **_named(optimizer, swept),
                x=[*xs, *reversed(xs)],
                y=[_round(v) for v in [*over["max"], *reversed(over["min"].tolist())]],
                fill="toself",
                fillcolor=colour,
                opacity=0.2,
                mode="lines",
                line={"width": 0},
                hoverinfo="skip",
                row=row,
                col=1,
            )
        figure.add_scatter(
            **_named(optimizer, swept),
            x=xs,
            y=[_round(v) for v in over["mean"]],
            mode=mode,
            line={"color": colour, "dash": PLOTLY_DASHES[style], "width": 2},
            hovertemplate="%{y:.4f}",
            row=row,
            col=1,
        )
        ends.append(End(label_of(optimizer, swept), colour, float(over["mean"].iloc[-1])))
    return ends


def _label_ends(figure: go.Figure, row: int, ends: list[End], log: bool = False) -> None:
    """Write the name of each line near its end, one below the other where lines end together.

    If a name is too long, none is written: the buttons above a figure have all names.
    """
    longest = max(len(end.label) for end in ends)
    if longest > LONGEST_LABEL:
        return
    axis = str(row) if row > 1 else ""
    scale = math.log10 if log else float
    drawn = [scale(y) for trace in figure.data if trace.yaxis == f"y{axis}" for y in trace.y]
    pixels = PANEL / ((max(drawn) - min(drawn)) or 1)
    ends = sorted(ends, key=lambda end: -end.y)
    ends_at = np.array([scale(end.y) * pixels for end in ends])
    # the positions next to the lines' ends, LABEL apart
    steps = LABEL * np.arange(len(ends))
    positions = isotonic_regression(ends_at + steps, increasing=False).x - steps
    for end, shift in zip(ends, positions - ends_at, strict=True):
        figure.add_annotation(
            x=1,
            xref=f"x{axis} domain",
            y=_round(scale(end.y)),
            yref=f"y{axis}",
            yshift=round(shift),
            text=f'<span style="color: {end.colour}">━</span> {end.label}',
            name=end.label,
            showarrow=False,
            xanchor="left",
        )
    figure.update_layout(margin={"r": 30 + 7 * longest})


def _bars(
    bars: dict[str, tuple[str, list[Any]]], labels: list[str], mode: str, caption: str, alt: str
) -> Chart:
    figure = go.Figure(layout={"barmode": mode, "height": 110 + 45 * len(labels)})
    for name, (colour, values) in bars.items():
        figure.add_bar(
            x=values,
            y=labels,
            orientation="h",
            name=name,
            legendgroup=name,
            marker={"color": colour},
            hovertemplate=f"%{{y}}: %{{x:.0%}} {name}<extra></extra>",
        )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(tickformat=".0%", title_text=SHARES_LABEL)
    keys = tuple(Key(name, name, colour) for name, (colour, _) in bars.items())
    return Chart(_styled(figure), caption, alt, keys)


def _lines_are(points: pd.DataFrame, mark: str = "line") -> str:
    """What the lines and bands of these points show; ``mark`` is what stands for one run."""
    seeds = points.groupby(VARIANT)["seed"].nunique()
    if seeds.max() == 1:
        return f"Each {mark} is one run, so there is no band."
    single = f" A {mark} without a band is one run." if seeds.min() == 1 else ""
    return f"Lines are means over seeds, bands go from the lowest to the highest.{single}"


def _keys(study: Study, points: pd.DataFrame) -> tuple[Key, ...]:
    return tuple(
        Key(label_of(o, swept), label_of(o, swept), style_of(o).colour, PLOTLY_DASHES[style])
        for (o, swept), style in line_styles(study, points).items()
    )


def _selection(study: Study) -> str:
    """A sentence that says which variants a chart shows; empty if it shows all."""
    return f"Shown are {variants}. " if (variants := selection(study)) else ""


def _named(optimizer: str, swept: str = "") -> dict[str, str]:
    label = label_of(optimizer, swept)
    return {"name": label, "legendgroup": label}


def _round(value: float) -> float:
    """Five digits: more cannot be seen, and a rounded number is the same everywhere."""
    return float(f"{value:.5g}")


def _wrapped(text: str) -> str:
    return "<br>".join(textwrap.wrap(text, 28))
