"""Write results/report.html, one page that tells and shows all: ``python -m scripts.report``.

It is made from the committed CSV files and benchmarks alone and needs no network to be read. Its
words stand in scripts/reporting/templates/report.md.
"""

import sys

from scripts.records.files import write_atomically
from scripts.reporting.collect import load
from scripts.reporting.command_line import parser, results_root, told
from scripts.reporting.report import report
from scripts.reporting.studies import studies


@told
def main(argv: list[str] | None = None) -> int:
    args = parser("scripts.report", __doc__).parse_args(argv)
    root = results_root(args.overrides)
    path = root / "report.html"
    write_atomically(path, report(studies(load(root)), root).encode())
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
