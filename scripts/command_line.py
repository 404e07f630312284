"""The one argument that the scripts after training share: ``results.root=DIR``."""

import argparse
from pathlib import Path

from scripts.errors import ConfigError


def parser(module: str, description: str | None) -> argparse.ArgumentParser:
    created = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    created.add_argument(
        "overrides",
        nargs="*",
        metavar="results.root=DIR",
        help="folder of the records, CSV, tables and figures (default: results)",
    )
    return created


def results_root(overrides: list[str]) -> Path:
    """Raises ConfigError for any other override, or a folder that is not there."""
    root = Path("results")
    for override in overrides:
        key, _, value = override.partition("=")
        if key != "results.root" or not value:
            raise ConfigError(f"{override}: expected results.root=DIR")
        root = Path(value)
    if not root.is_dir():
        raise ConfigError(f"{root}: no such directory (results.root)")
    return root
