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
    """A parser whose one argument is ``results.root=DIR``."""
    created = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    created.add_argument(
        "overrides",
        nargs="*",
        metavar="results.root=DIR",
        help="folder of the records, CSV files, tables and figures (default: results)",
    )
    return created


def results_root(overrides: list[str]) -> Path:
    """The results folder that the overrides name; ``results`` by default.

    Raises:
        UserError: there is another override, or the folder does not exist.
    """
    root = Path("results")
    for override in overrides:
        key, _, value = override.partition("=")
        if key != "results.root" or not value:
            raise UserError(f"{override}: expected results.root=DIR")
        root = Path(value)
    if not root.is_dir():
        raise UserError(f"{root}: no such directory (results.root)")
    return root


def told(main: Main) -> Callable[..., int]:
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
