"""Show the state of each run of a sweep: done, running, failed or to do.

It reads records, status files and locks. It changes nothing, so it may run while any number of
processes, on this machine or on others, train the sweep.
"""

import argparse
import sys
from contextlib import suppress

EXAMPLES = """\
examples:
  python -m scripts.status                               all runs below results/
  python -m scripts.status results.root=/tmp/mine        all runs below another folder
  python -m scripts.status experiment=ablation seed=0,1  the runs of this sweep, also those to do
  python -m scripts.status --watch experiment=ablation   again and again, until all have ended

The overrides are those of python -m scripts.train -m. Below the table, each run whose training
failed has a command that trains this run alone.
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.status",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--watch", action="store_true", help="show it live; Ctrl-C ends it")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE[,VALUE...]")
    args = parser.parse_intermixed_args(argv)

    from scripts.running.config import is_user_error, one_line
    from scripts.running.status import show, state_reader

    try:
        with suppress(KeyboardInterrupt):
            show(state_reader(args.overrides), args.watch)
    except Exception as error:
        if not is_user_error(error):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
