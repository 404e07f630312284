"""Train a sweep in several processes, then make its tables and figures.

    python -m scripts.sweep --jobs 4 experiment=ablation
    python -m scripts.sweep optimizer=lion,simba seed=0,1,2

The overrides are those of ``python -m scripts.train -m``. Ctrl-C ends all processes; the same
command resumes.
"""

import argparse
import os
import shlex
import sys

from scripts.records.stopping import stoppable


@stoppable("interrupted; the same command resumes")
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count(),
        help="number of processes (default: one per core)",
    )
    parser.add_argument(
        "--args", default="", help="more overrides as one text, quoted as in a shell"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE[,VALUE...]")
    args = parser.parse_intermixed_args(argv)
    if args.jobs < 1:
        parser.error(f"--jobs: an integer >= 1 is needed, got {args.jobs}")

    from scripts.running.config import is_user_error, one_line
    from scripts.running.supervisor import sweep

    try:
        more = shlex.split(args.args)
    except ValueError as error:
        parser.error(f"--args: {error}")
    try:
        return sweep([*args.overrides, *more], args.jobs)
    except Exception as error:
        if not is_user_error(error):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
