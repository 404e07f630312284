"""Draw the figures from the CSV files, as PNG and PDF: ``python -m scripts.make_figures``.

They go to results/figures. Each study gets the figures that apply to it:

- curves: training loss and valid NDCG@10 over epochs;
- grid: both over the values of the one key that the study sweeps over;
- steps: what each change adds, for an experiment that declares steps;
- note: our results and the note's;
- why, drift, memories: diagnostics, of runs with ``diagnose_every``.
"""

import io
import sys

from scripts.records.files import write_atomically
from scripts.reporting.collect import load
from scripts.reporting.command_line import parser, results_root, told
from scripts.reporting.plots import figures
from scripts.reporting.studies import studies

# Files without a date and a version are equal byte for byte when they are drawn again.
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
