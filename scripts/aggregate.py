"""Write the CSV files from all finished records: ``python -m scripts.aggregate``.

It writes runs.csv, curves.csv, paired.csv, gains.csv and diagnostics.csv; docs/results.md explains
their columns. Examples:

  python -m scripts.aggregate
  python -m scripts.aggregate results.root=results/reproduced
"""

import sys

from scripts.reporting.collect import collect
from scripts.reporting.command_line import one_line_errors, parse, parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    root = parse(parser("scripts.aggregate", __doc__), argv).root
    count = len(collect(root).runs)
    print(f"{root / 'runs.csv'}: {count} {'run' if count == 1 else 'runs'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
