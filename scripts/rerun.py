"""Run records again by their own commands and compare: ``python -m scripts.rerun RECORD...``.

On the same CPU model, with the same versions and threads, all results are bitwise identical.
Elsewhere their last digits may differ, and the difference grows during training. The exit code is 1
if a result differs. Example:
  python -m scripts.rerun results/runs/ml-100k/*/reproduce-sasrec-seed0.json
"""

import argparse
import sys
from pathlib import Path

from scripts.records.errors import UserError
from scripts.records.stopping import stoppable
from scripts.running.rerun import rerun


@stoppable("interrupted")
def main(argv: list[str] | None = None) -> int:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m scripts.rerun", None, __doc__, formatter_class=formatter
    )
    parser.add_argument(
        "records", nargs="+", type=Path, metavar="RECORD", help="the JSON file of a record"
    )
    differ = False
    try:
        for path in parser.parse_args(argv).records:
            changes = rerun(path)
            differ |= bool(changes)
            print(f"{path}: {'; '.join(changes) if changes else 'bitwise identical'}", flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
