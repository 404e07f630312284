"""Read users' histories from a file, as item ids."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data.prepare import read_settings


def read_histories(path: Path, cfg: Mapping[str, Any]) -> dict[str, list[str]]:
    """Each user's item ids in time order, by user id.

    The file is read as a dataset is: docs/data.md shows the formats.

    Args:
        cfg: the ``data`` section of a config; its columns and separator apply to the file.

    Raises:
        DataError: the file is missing or damaged, or a line, value or key is invalid.
    """
    from data.interactions import read_interactions  # pandas is slow to import

    interactions = read_interactions(path, read_settings(cfg))
    histories: dict[str, list[str]] = {}
    users, items = (interactions.ids[role] for role in ("user", "item"))
    order = np.argsort(interactions.frame["user"], kind="stable")
    for user, item in interactions.frame.iloc[order].itertuples(index=False):
        histories.setdefault(str(users[user]), []).append(str(items[item]))
    return histories
