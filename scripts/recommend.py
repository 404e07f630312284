"""Recommend items with a trained model: ``python -m scripts.recommend RECORD --items ID,ID,...``.

  python -m scripts.recommend RECORD --items 50,181,172 --top 5
  python -m scripts.recommend RECORD --histories users.csv --csv > top.csv

RECORD is the JSON file of a run with save_best=true. --items gives one user's past items, oldest
first; they are not recommended. Scores are comparable only among the items of one user.
"""

import argparse
import csv
import os
import sys
from pathlib import Path

from scripts.records.stopping import stoppable


@stoppable("interrupted")
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.recommend",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("record", type=Path, metavar="RECORD", help="the JSON file of a record")
    given = parser.add_mutually_exclusive_group(required=True)
    text = "one user's items, oldest first; quote an id that has a comma"
    given.add_argument("--items", type=ids, metavar="ID,ID,...", help=text)
    given.add_argument(
        "--histories", type=Path, metavar="FILE", help="users and items in a format of docs/data.md"
    )
    parser.add_argument("--top", type=int, default=10, metavar="K", help="items per user (10)")
    parser.add_argument("--csv", action="store_true", help="print CSV instead of a table")
    parser.add_argument(
        "overrides", nargs="*", metavar="data.KEY=VALUE", help="e.g. data.root=DIR, data.path=PATH"
    )
    args = parser.parse_intermixed_args(argv)
    if args.top < 1:
        parser.error(f"--top: an integer >= 1 is needed, got {args.top}")

    from data.errors import DataError
    from scripts.records.errors import UserError
    from scripts.running.recommend import Recommender, show, write_csv

    try:
        recommender = Recommender(args.record, args.overrides)
        histories = recommender.histories(args.histories) if args.histories else {"": args.items}
        tops = recommender.top([*histories.values()], args.top)
    except (UserError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    lines = [
        (*([user] if args.histories else []), str(rank), item, f"{score:.7g}")
        for user, top in zip(histories, tops, strict=True)
        for rank, (item, score) in enumerate(top, 1)
    ]
    columns = (*(["user"] if args.histories else []), "rank", "item", "score")
    try:
        write_csv(columns, lines) if args.csv else show(columns, lines)
        sys.stdout.flush()
    except BrokenPipeError:  # as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def ids(text: str) -> list[str]:
    """The ids in ``text``, one line of CSV."""
    try:
        (items,) = csv.reader([text])
    except (csv.Error, ValueError):
        items = []
    if not items or not all(items):
        raise argparse.ArgumentTypeError(f"ids separated by commas are needed, got {text!r}")
    return items


if __name__ == "__main__":
    sys.exit(main())
