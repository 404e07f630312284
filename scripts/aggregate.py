"""Write the CSV files from all records: ``python -m scripts.aggregate``.

It writes runs.csv, curves.csv, paired.csv, gains.csv and diagnostics.csv; docs/results.md explains
their columns.
"""

import sys

from scripts.reporting.collect import collect
from scripts.reporting.command_line import parser, results_root, told


@told
def main(argv: list[str] | None = None) -> int:
    args = parser("scripts.aggregate", __doc__).parse_args(argv)
    root = results_root(args.overrides)
    print(f"{root / 'runs.csv'}: {len(collect(root).runs)} runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
