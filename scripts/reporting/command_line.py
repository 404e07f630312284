"""The command line of the reporting commands: ``results.root=DIR``, and one-line errors."""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path

from scripts.records.errors import UserError
from scripts.records.stopping import stoppable

Main = Callable[[list[str] | None], int]


def parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """A parser that prints a command's docstring as its help."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def parse(arguments: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Parse a command line that may end with ``results.root=DIR``; the folder is in ``root``.

    Raises:
        UserError: there is another override, or the folder does not exist.
    """
    arguments.add_argument(
        "overrides",
        nargs="*",
        metavar="results.root=DIR",
        help="folder of the records, CSV files, tables and figures (default: results)",
    )
    args = arguments.parse_intermixed_args(argv)
    args.root = Path("results")
    for override in args.overrides:
        key, _, value = override.partition("=")
        if key != "results.root" or not value:
            raise UserError(f"{override}: expected results.root=DIR")
        args.root = Path(value)
    if not args.root.is_dir():
        raise UserError(f"{args.root}: no such directory (results.root)")
    return args


def one_line_errors(main: Main) -> Callable[..., int]:
    """Decorate a main function: print a UserError in one line, and ignore a closed output pipe."""

    @functools.wraps(main)
    @stoppable("interrupted")
    def wrapped(argv: list[str] | None = None) -> int:
        try:
            return main(argv)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except BrokenPipeError:  # as in `... | head`, if Python does not buffer its output
            return 0

    return wrapped
