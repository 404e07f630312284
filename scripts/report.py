"""Write results/report.html, one page that tells and shows all: ``python -m scripts.report``.

The page is made from the CSV files and benchmarks of the results folder, and from
configs/experiment. It can be read without a network. Its text is in
scripts/reporting/templates/report.md. Examples:

  python -m scripts.report
  python -m scripts.report results.root=results/reproduced
"""

import sys

from scripts.records.files import write_atomically
from scripts.reporting.collect import load
from scripts.reporting.command_line import one_line_errors, parse, parser
from scripts.reporting.report import report
from scripts.reporting.studies import studies


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    root = parse(parser("scripts.report", __doc__), argv).root
    path = root / "report.html"
    write_atomically(path, report(studies(load(root)), root).encode())
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
