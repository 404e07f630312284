"""Figures show the figures: lines are means over seeds, bands go from lowest to highest."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from scripts import plots
from scripts.note import ROWS, verdict
from scripts.tables import METRICS


def drawn(axis, optimizer):
    """x and y of a row's line, the lowest and the highest of its band."""
    colour = to_rgb(plots.COLOURS[optimizer])
    line = next(line for line in axis.lines if to_rgb(line.get_color()) == colour)
    band = next(b for b in axis.collections if to_rgb(b.get_facecolor()[0]) == colour)
    heights = band.get_paths()[0].vertices[:, 1]
    return *(list(values) for values in line.get_data()), heights.min(), heights.max()


def study(**columns):
    lines = [
        {"dataset": "d", "model": "m", "experiment": "e", "optimizer": o, "seed": seed}
        | {name: value(i, seed) for name, value in columns.items()}
        for i, o in enumerate(ROWS)
        for seed in (0, 1)
    ]
    return pd.DataFrame(lines)


def test_every_row_has_a_colour_of_its_own():
    assert plots.COLOURS.keys() >= ROWS.keys()
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS)


def test_learning_curves():
    runs = study(
        **{
            "curve/epoch": lambda i, seed: "5 10",
            "curve/train/loss": lambda i, seed: f"{i + 1} {i + 0.5 + seed}",
            "curve/valid/NDCG@10": lambda i, seed: f"0.1 {0.2 + 0.1 * seed}",
        }
    )
    figure = plots.learning_curves(runs, note=True)
    for i, optimizer in enumerate(ROWS):
        x, y, low, high = drawn(figure.axes[0], optimizer)
        assert (x, y) == ([5, 10], [i + 1, i + 1.0])
        assert (low, high) == (i + 0.5, i + 1.5)
    assert drawn(figure.axes[1], "simba")[1] == pytest.approx([0.1, 0.25])
    diamonds = [line for line in figure.axes[0].lines if line.get_marker() == "D"]
    marks = [y for line in diamonds for y in line.get_ydata()]
    assert marks == [row.loss for row in ROWS.values()]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [r.label for r in ROWS.values()]


def test_rates():
    columns = {"train/loss": lambda i, seed: i + seed, "valid/NDCG@10": lambda i, seed: 0.1}
    low, high = study(**columns).assign(lr=1e-4), study(**columns).assign(lr=1e-3)
    high["train/loss"] += 1
    figure = plots.rates(pd.concat([low, high]).assign(epochs=100))
    axis = figure.axes[0]
    assert drawn(axis, "lion")[:2] == ([1e-4, 1e-3], [0.5, 1.5])
    assert [t.get_text() for t in axis.get_xticklabels()] == ["1e-4", "1e-3"]
    assert (
        figure.get_suptitle() == "e: m on d, 100 epochs, mean of 2 seeds (band: lowest to highest)"
    )


def test_beside_the_note():
    columns = {"test/HR@10": lambda i, seed: 0.01 * i, "test/NDCG@10": lambda i, seed: 0.02}
    figure = plots.beside_the_note(study(**columns, **{"train/loss": lambda i, seed: 0.3}))
    points, note = figure.axes[0].lines[2:4]
    assert list(points.get_xdata()) == [0.01, 0.01]
    assert note.get_xdata()[0] == ROWS["sign_sgd"].hr
    assert figure.axes[2].lines[1].get_xdata()[0] == ROWS["lion"].loss


def test_a_bar_crosses_the_notes_figure_if_it_is_reproduced():
    columns = {column: lambda i, seed: 0.02 + 0.001 * seed for column in METRICS.values()}
    runs = study(**columns)
    figure = plots.beside_the_note(runs)
    for axis, (metric, column) in zip(figure.axes[3:], METRICS.items(), strict=True):
        line = axis.lines[list(ROWS).index("simba")]
        low, high = line.get_xdata()
        note = {"HR@10": 0.0195, "NDCG@10": 0.0094, "Loss": 0.872968}[metric]
        ours = runs.loc[runs["optimizer"] == "simba", column]
        reproduced = verdict(ours, note, same_place=False) == "reproduced"
        assert (low <= 0 <= high) == reproduced == (metric == "HR@10")
        assert (1 + low) * note == pytest.approx(0.0205 - 2 * 0.001 / 2**0.5 * 1.5**0.5)


def test_why():
    parts = dict.fromkeys((name for name, _ in plots.LOOKS), ("items", "weights"))
    parts |= dict.fromkeys(["path", *plots.DRIFT], tuple("12345"))
    looks = pd.concat(
        study(value=lambda i, seed: 0.1 * i + 0.1 * seed).assign(
            epoch=epoch, quantity=quantity, of=of
        )
        for epoch in (10, 20)
        for quantity, ofs in parts.items()
        for of in ofs
    ).reset_index(drop=True)
    looks.loc[looks["epoch"] == 10, "value"] /= 2
    against = looks["optimizer"].map(lambda o: 0.02 if o == "simba_m" else 0.06)
    path = looks["quantity"] == "path"  # of fifth k: what agrees and k / 3 of what goes against
    looks.loc[path, "value"] += against * looks.loc[path, "of"].astype(int) / 3
    figure = plots.why(looks)
    x, y, low, high = drawn(figure.axes[1], "simba_m")
    i = list(ROWS).index("simba_m")
    assert x == [10, 20]
    assert y == pytest.approx([0.05 * (i + 0.5), 0.1 * (i + 0.5)])
    assert (low, high) == pytest.approx((0.05 * i, 0.1 * (i + 1)))
    bars = figure.axes[0]
    assert bars.get_yticklabels()[0].get_text() == "Simba + m"
    widths = [bar[0].get_width() for bar in bars.containers]  # as Lion, rests, against
    agrees = 0.1 * (i + 0.5)
    assert widths == pytest.approx([agrees, 1 - agrees - 0.02, 0.02])
    x, y, *_ = drawn(figure.axes[7], "simba_m")  # the last look alone
    assert x == [1, 2, 3, 4, 5]
    assert np.allclose(y, 0.1 * (i + 0.5))


def test_memories_are_those_of_the_last_look():
    last = study(value=lambda i, seed: 0.2 + 0.02 * i * seed).assign(epoch=20, of="items")
    earlier = last.assign(epoch=10, value=0.9)
    looks = pd.concat(
        frame.assign(quantity=quantity) for frame in (earlier, last) for quantity in plots.MEMORIES
    )
    figure = plots.memories(
        looks[(looks["optimizer"] != "lion") | (looks["quantity"] != "astray_s")]
    )
    widths = [[bar.get_width() for bar in axis.patches] for axis in figure.axes]
    assert widths[0] == pytest.approx([0.2 + 0.01 * i for i in range(len(ROWS))])
    assert np.isnan(widths[1][0])  # Lion does not count
    assert widths[1][1:] == pytest.approx(widths[0][1:])
