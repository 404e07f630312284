"""Draw the figures from the CSV files, as PNG and PDF: ``python -m scripts.make_figures``.

Each study has, in results/figures, those that apply: curves, grid (over the one key that it
sweeps), why and memories (of diagnosed runs), and note (our figures beside the note's).
"""

import io
import sys

from scripts.records.files import write_atomically
from scripts.reporting.collect import load
from scripts.reporting.command_line import parser, results_root, told
from scripts.reporting.plots import figures
from scripts.reporting.studies import studies

# Without a date or a version the same figure is the same bytes.
KINDS = {"png": {"Software": None}, "pdf": {"CreationDate": None}}


@told
def main(argv: list[str] | None = None) -> int:
    args = parser("scripts.make_figures", __doc__).parse_args(argv)
    root = results_root(args.overrides)
    for name, figure in figures(studies(load(root))).items():
        for kind, metadata in KINDS.items():
            picture = io.BytesIO()
            figure.savefig(picture, format=kind, dpi=110, metadata=metadata)
            path = root / "figures" / f"{name}.{kind}"
            write_atomically(path, picture.getvalue())
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
