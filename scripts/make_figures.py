"""Draw the figures from the CSV files: ``python -m scripts.make_figures``.

They go to results/figures: NAME.pdf for a paper, NAME.png for a light page and NAME-dark.png for a
dark one. Each study gets the figures that apply to it:

- curves: training loss and validation NDCG@10 over epochs;
- grid: both over the values of the one key that the study sweeps over;
- steps: what each change adds, for an experiment that declares steps;
- gains: differences to the baseline for groups of users;
- note: our results and the note's;
- moves: how often a coordinate moves (or rests) as Lion would, against Lion, or not at all;
- moves_by_epoch: these shares over the epochs;
- distances: how far items move in an epoch, by their popularity;
- memories: how often a memory contradicts the gradients. It needs ``diagnose_every``, as the three
  before it do;
- corrupted: NDCG@10 by how gradients were corrupted.

Examples:

  python -m scripts.make_figures
  python -m scripts.make_figures results.root=results/reproduced
"""

import io
import sys
from collections.abc import Iterator

from matplotlib.figure import Figure

from scripts.records.files import write_atomically
from scripts.reporting.collect import load
from scripts.reporting.command_line import one_line_errors, parse, parser
from scripts.reporting.plots import darkened, figures
from scripts.reporting.studies import studies

# Files without a date and a version are equal byte for byte when they are drawn again.
METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None}}


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    root = parse(parser("scripts.make_figures", __doc__), argv).root
    drawn = figures(studies(load(root)))
    for name, figure in drawn.items():
        for suffix, picture in pictures(figure):
            write_atomically(root / "figures" / f"{name}{suffix}", picture)
    print(f"{root / 'figures'}: {len(drawn)} figures")
    return 0


def pictures(figure: Figure) -> Iterator[tuple[str, bytes]]:
    """The files of a figure: the end of each name, and its content. The last darkens the figure."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the layout is computed once for all formats
    yield ".png", saved(figure, "png")
    yield ".pdf", saved(figure, "pdf")
    yield "-dark.png", saved(darkened(figure), "png")


def saved(figure: Figure, kind: str) -> bytes:
    """A figure in a format."""
    picture = io.BytesIO()
    figure.savefig(picture, format=kind, metadata=METADATA[kind])
    return picture.getvalue()


if __name__ == "__main__":
    sys.exit(main())
