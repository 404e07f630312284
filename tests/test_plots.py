"""Figures show the right values: lines are means over seeds, bands from lowest to highest."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.text import Text

from scripts.make_figures import pictures
from scripts.reporting import charts, plots
from scripts.reporting.collect import load
from scripts.reporting.note import METRICS, NOTE_VALUES, verdict
from scripts.reporting.studies import studies
from scripts.reporting.style import label_of, style_of
from tests.conftest import REPOSITORY
from tests.made_up import EXACT, curves, gains, runs, study

TWO = {o: [row, row] for o, (row,) in EXACT.items()}


def drawn(axis, optimizer):
    """x and y of an optimizer's line, and the lowest and the highest value of its band."""
    colour = to_rgb(style_of(optimizer).colour)
    line = next(line for line in axis.lines if to_rgb(line.get_color()) == colour)
    band = next(b for b in axis.collections if to_rgb(b.get_facecolor()[0]) == colour)
    heights = band.get_paths()[0].vertices[:, 1]
    return *(list(values) for values in line.get_data()), heights.min(), heights.max()


def index_of(run) -> int:
    return list(NOTE_VALUES).index(run["optimizer"])


def diagnostics(values):
    """Lines of diagnostics.csv: ``values`` gives (quantity, part, epoch) -> f(i, seed)."""
    return pd.DataFrame(
        [
            {"dataset": "beauty", "model": "sasrec", "experiment": "ablation", "optimizer": o}
            | {
                "seed": seed,
                "epoch": epoch,
                "quantity": quantity,
                "part": part,
                "value": f(i, seed),
            }
            for (quantity, part, epoch), f in values.items()
            for i, o in enumerate(NOTE_VALUES)
            for seed in (0, 1)
        ]
    )


def test_curves():
    frame = runs(TWO)
    lines = curves(
        frame,
        epochs=(5, 10),
        loss=lambda run, epoch: index_of(run) + (1 if epoch == 5 else 0.5 + run["seed"]),
        valid=lambda run, epoch: 0.1 if epoch == 5 else 0.2 + 0.1 * run["seed"],
    )
    figure = plots.curves(study(frame, lines=lines))
    for i, optimizer in enumerate(NOTE_VALUES):
        x, y, low, high = drawn(figure.axes[0], optimizer)
        assert (x, y) == ([5, 10], [i + 1, i + 1.0])
        assert (low, high) == (i + 0.5, i + 1.5)
    assert drawn(figure.axes[1], "simba")[1] == pytest.approx([0.1, 0.25])
    diamonds = [line for line in figure.axes[0].lines if line.get_marker() == "D"]
    marks = [y for line in diamonds for y in line.get_ydata()]
    assert marks == [row.loss for row in NOTE_VALUES.values()]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        label_of(o) for o in NOTE_VALUES
    ]


def test_unknown_optimizers_are_drawn_and_swept_values_are_distinguished():
    values = {"my_own": [(0.1, 0.1, 0.1)], "lion": [(0.1, 0.1, 0.1)]}
    low, high = (runs(values, "mine", lr=lr, swept=f"lr {lr}") for lr in (1, 2))
    figure = plots.curves(study(low, high))
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == ["Lion, lr 1", "Lion, lr 2", "my own, lr 1", "my own, lr 2"]
    styles = {(line.get_color(), line.get_linestyle()) for line in figure.axes[1].lines}
    assert len(styles) == 4


def test_curves_of_many_variants_show_the_best_and_say_so():
    def of(optimizer, i):
        more = {"levels": i % 4, "lr": i // 4, "valid/NDCG@10": 0.01 * i}
        swept = f"levels {i % 4}, lr {i // 4}"
        return runs({optimizer: [(0.1, 0.1, 0.1)]}, "mine", swept=swept, **more)

    made = study(*(of(o, i) for o in ("lion", "adamw") for i in range(9 if o == "lion" else 5)))
    figure, chart = plots.curves(made), charts.curves(made)
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert [label.split(",")[0] for label in labels] == ["Lion"] * 8 + ["AdamW"] * 4
    assert not {"Lion, levels 0, lr 0", "AdamW, levels 0, lr 0"} & set(labels)
    styles = {(line.get_color(), str(line._dash_pattern)) for line in figure.axes[1].lines}
    assert len(styles) == len(chart.keys) == 12
    traces = {(trace.line.color, trace.line.dash) for trace in chart.figure.data}
    assert len(traces) == 12
    said = "12 of 14 variants: the best by NDCG@10 on validation, at most 8 per optimizer"
    assert said in figure.get_suptitle().replace("\n", " ")
    assert said in chart.caption
    assert "variants" not in charts.curves(study(*(of("lion", i) for i in range(8)))).caption


@pytest.mark.filterwarnings("error")
def test_curves_of_a_loss_of_zero():
    frame = runs(TWO, "mine")
    made = study(frame, lines=curves(frame, loss=lambda run, epoch: 0.0))
    assert min(plots.curves(made).axes[0].lines[0].get_ydata()) > 0
    assert charts.curves(made).figure.data


def test_grid():
    low = runs(
        {o: [(0, 0, i), (0, 0, i + 1)] for i, o in enumerate(NOTE_VALUES)}, "mine", swept="lr 1e-4"
    )
    high = low.assign(lr=1e-3, swept="lr 1e-3", record=low["record"] + "b")
    high["train/min_loss"] += 1
    axis = plots.grid(study(low, high)).axes[0]
    assert drawn(axis, "lion")[:2] == ([1e-4, 1e-3], [0.5, 1.5])
    assert [t.get_text() for t in axis.get_xticklabels()] == ["1e-4", "1e-3"]
    assert axis.get_xscale() == "log"
    assert plots.grid(study(runs(TWO, "mine"))) is None


def test_beside_the_note():
    values = {o: [(0.01 * i, 0.02, 0.3)] * 2 for i, o in enumerate(NOTE_VALUES)}
    figure = plots.note_figure(study(runs(values)))
    note, points = figure.axes[0].lines[2:4]  # of sign-SGD
    assert list(points.get_xdata()) == [0.01, 0.01]
    assert note.get_xdata()[0] == NOTE_VALUES["sign_sgd"].hr
    assert figure.axes[4].lines[0].get_xdata()[0] == NOTE_VALUES["lion"].loss
    assert plots.note_figure(study(runs(values, "short"))) is None
    without_lion = study(runs({o: v for o, v in values.items() if o != "lion"}))
    assert plots.note_figure(without_lion).axes[0].lines[0].get_xdata()[0] == NOTE_VALUES["lion"].hr


def test_a_bar_crosses_the_notes_figure_if_it_is_reproduced():
    values = {o: [(0.02 + 0.001 * seed,) * 3 for seed in (0, 1)] for o in NOTE_VALUES}
    made = study(runs(values))
    figure = plots.note_figure(made)
    for axis, (metric, column) in zip(figure.axes[1::2], METRICS.items(), strict=True):
        line = axis.lines[list(NOTE_VALUES).index("simba")]
        low, high = line.get_xdata()
        note = {"HR@10": 0.0195, "NDCG@10": 0.0094, "Loss": 0.872968}[metric]
        reproduced = verdict(made.of("simba")[column], note, same_rank=False) == "reproduced"
        assert (low <= 0 <= high) == reproduced == (metric == "HR@10")
        assert (1 + low) * note == pytest.approx(0.0205 - 2 * 0.001 / 2**0.5 * 1.5**0.5)


def test_diagnostics_over_epochs_in_the_last_diagnosed_epoch_and_by_popularity():
    def value(i, seed):
        return 0.1 * i + 0.1 * seed

    values = {}
    for quantity, part in [*plots.MOVES_BY_EPOCH, ("agreement", "items")]:
        values[quantity, part, 20] = value
        values[quantity, part, 10] = lambda i, seed: value(i, seed) / 2
    for fifth in "12345":
        for quantity in plots.DISTANCES:
            values[quantity, fifth, 20] = value
            values[quantity, fifth, 10] = lambda i, seed: 0.9
        # the share that agrees plus, averaged over the fifths, the share that moves against Lion
        values["path", fifth, 20] = lambda i, seed, k=int(fifth): (
            value(i, seed) + (0.02 if i == 3 else 0.06) * k / 3
        )
    made = study(runs(TWO), diagnostics=diagnostics(values))
    moves = plots.moves_by_epoch(made)
    i = list(NOTE_VALUES).index("simba_m")
    x, y, low, high = drawn(moves.axes[0], "simba_m")
    assert x == [10, 20]
    assert y == pytest.approx([0.05 * (i + 0.5), 0.1 * (i + 0.5)])
    assert (low, high) == pytest.approx((0.05 * i, 0.1 * (i + 1)))
    (bars,) = plots.moves(made).axes
    assert bars.get_yticklabels()[0].get_text() == "Simba + m"
    widths = [bar[0].get_width() for bar in bars.containers]  # agrees, rests, against
    agrees = 0.1 * (i + 0.5)
    assert widths == pytest.approx([agrees, 1 - agrees - 0.02, 0.02])
    x, y, *_ = drawn(plots.distances(made).axes[1], "simba_m")  # only the last diagnosed epoch
    assert x == [1, 2, 3, 4, 5]
    assert np.allclose(y, 0.1 * (i + 0.5))
    for draw in (plots.moves_by_epoch, plots.moves, plots.distances):
        assert draw(study(runs(TWO))) is None


def test_memories_are_those_of_the_last_diagnosed_epoch():
    values = {}
    for quantity in plots.MEMORIES:
        values[quantity, "items", 20] = lambda i, seed: 0.2 + 0.02 * i * seed
        values[quantity, "items", 10] = lambda i, seed: 0.9
    values |= {("agreement", "items", 20): lambda i, seed: 0.5}
    values |= {("path", "1", 20): lambda i, seed: 0.5}
    frame = diagnostics(values)
    frame = frame[(frame["optimizer"] != "lion") | (frame["quantity"] != "astray_s")]
    figure = plots.memories(study(runs(TWO), diagnostics=frame))
    widths = [[bar.get_width() for bar in axis.patches] for axis in figure.axes]
    assert widths[0] == pytest.approx([0.2 + 0.01 * i for i in range(len(NOTE_VALUES))])
    assert np.isnan(widths[1][0])  # Lion has no counter: a dash, not 0%
    assert "–" in [text.get_text() for text in figure.axes[1].texts]
    assert widths[1][1:] == pytest.approx(widths[0][1:])
    of_lion = study(runs({"lion": TWO["lion"]}), diagnostics=frame[frame["optimizer"] == "lion"])
    assert charts.memories(of_lion) is not None  # no variant has a counter


def test_a_sweep_over_settings_has_no_diagnostics_of_its_mean():
    values = {(quantity, "items", 10): lambda i, seed: 0.9 for quantity in plots.MEMORIES}
    rates = [runs(TWO, lr=lr, swept=f"lr {lr:g}", record=f"{lr}") for lr in (1e-4, 3e-4)]
    rates = [frame.assign(record=frame["record"] + frame.index.map(str)) for frame in rates]
    assert plots.memories(study(*rates, diagnostics=diagnostics(values))) is None


def test_gains_are_drawn_with_their_intervals():
    two = {"simba": EXACT["simba"] * 2, "lion": EXACT["lion"] * 2}
    figure = plots.gains(study(runs(two), gains=gains("simba", [0.1, -0.2])))
    for axis in figure.axes:
        (points,) = axis.containers
        line, _, (bars,) = points.lines
        assert line.get_ydata().tolist() == [0.1, -0.2]
        ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
        assert np.allclose(ends, [[0.0, 0.2], [-0.3, -0.1]])
        assert [t.get_text() for t in axis.get_xticklabels()] == ["0", "1 to 9"]
    one_seed = gains("simba", [0.1, -0.2]).assign(seeds=1)
    assert plots.gains(study(runs(two), gains=one_seed)) is None


@pytest.mark.parametrize("kind", ["curves", "gains", "note"])
def test_a_figure_for_a_dark_page_shows_through_it_and_has_no_dark_lines(kind):
    frame = runs(TWO)
    lines = gains("simba", [0.1, -0.2])
    figure = plots.darkened(plots.FIGURES[kind](study(frame, gains=lines)))
    assert figure.patch.get_alpha() == figure.axes[0].patch.get_alpha() == 0
    drawn = [a for a in figure.findobj(Line2D) if a.get_linestyle() != "None"]
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert drawn
    assert texts
    for artist in (*drawn, *texts):
        assert sum(to_rgb(artist.get_color())) > 0.9, artist


@pytest.fixture(scope="module")
def committed():
    """The committed figures, drawn again, and their files."""
    drawn = plots.figures(studies(load(REPOSITORY / "results")))
    return [(name, figure, dict(pictures(figure))) for name, figure in drawn.items()]


@pytest.mark.slow
def test_committed_figures_come_from_the_committed_csv_files(committed):
    folder = REPOSITORY / "results" / "figures"
    files = {f"{name}{end}": file for name, _, made in committed for end, file in made.items()}
    assert files.keys() == {p.name for p in folder.iterdir()}, "run make figures"
    for name, content in files.items():
        assert content == (folder / name).read_bytes(), name


@pytest.mark.slow
def test_titles_and_labels_of_the_committed_figures_are_whole(committed):
    """No text is cut by the figure's edge, and no title runs into another."""
    assert {name.partition("-")[0] for name, *_ in committed} == set(plots.FIGURES)
    for name, figure, _ in committed:
        (width, height), needed = figure.get_size_inches(), figure.get_tightbbox()
        assert needed.x0 > -0.01, name
        assert needed.y0 > -0.01, name
        assert needed.x1 < width + 0.01, name
        assert needed.y1 < height + 0.01, name
        titles = [axis.title.get_window_extent() for axis in figure.axes if axis.get_title()]
        for one, other in itertools.combinations(titles, 2):
            assert not one.overlaps(other), name
