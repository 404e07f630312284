"""Draw the figures from the CSV files: ``python -m scripts.make_figures``.

They go to results/figures as NAME.pdf for a paper, NAME.png for a light page and NAME-dark.png for a
dark one. Each study gets the figures that apply to it:

- curves: training loss and valid NDCG@10 over epochs;
- grid: both over the values of the one key that the study sweeps over;
- steps: what each change adds, for an experiment that declares steps;
- gains: which users gain and lose beside the baseline;
- note: our results and the note's;
- parts, looks, drift, memories: diagnostics, of runs with ``diagnose_every``.
"""

import io
import sys
from pathlib import Path

from matplotlib.figure import Figure

from scripts.records.files import write_atomically
from scripts.reporting.collect import load
from scripts.reporting.command_line import parser, results_root, told
from scripts.reporting.plots import darkened, figures
from scripts.reporting.studies import studies

# Files without a date and a version are equal byte for byte when they are drawn again.
METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None}}


@told
def main(argv: list[str] | None = None) -> int:
    args = parser("scripts.make_figures", __doc__).parse_args(argv)
    root = results_root(args.overrides)
    for name, figure in figures(studies(load(root))).items():
        stem = root / "figures" / name
        for suffix in (".png", ".pdf"):
            save(figure, stem.with_name(f"{name}{suffix}"))
        save(darkened(figure), stem.with_name(f"{name}-dark.png"))
    return 0


def save(figure: Figure, path: Path) -> None:
    """Write a figure and print its path."""
    kind, picture = path.suffix[1:], io.BytesIO()
    figure.savefig(picture, format=kind, metadata=METADATA[kind])
    write_atomically(path, picture.getvalue())
    print(path)


if __name__ == "__main__":
    sys.exit(main())
