"""The popularity of each evaluated user's test item, and the length of the user's history.

A comparison groups users by these two. A training writes them to ``users/DATASET-HASH.csv`` in the
results folder, with the hash of ``config.data`` of its record.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scripts.records.errors import UserError
from scripts.records.files import write_atomically
from scripts.records.record import digest


class Users(NamedTuple):
    """Integers of the evaluated users, (users,) in user order."""

    popularity: np.ndarray  # how often the user's test item occurs in training
    history: np.ndarray  # how many items the user has before the test item


def users_path(root: Path, dataset: str, data: Mapping[str, Any]) -> Path:
    """The file of a dataset's users.

    Args:
        data: ``config.data`` of a record.
    """
    return root / "users" / f"{dataset}-{digest(data)[:8]}.csv"


def write_users(path: Path, users: Users) -> None:
    """Write a dataset's users: a header, and one line per user.

    Raises:
        UserError: the file cannot be written.
    """
    lines = [",".join(Users._fields), *(f"{a},{b}" for a, b in zip(*users, strict=True))]
    write_atomically(path, "\n".join([*lines, ""]).encode())


def read_users(path: Path, count: int) -> Users | None:
    """The users of a file; None if no training has written it.

    Args:
        count: the number of users that there must be.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        columns = np.array([line.split(",") for line in lines], dtype=np.int64).T
        if head != ",".join(Users._fields) or columns.shape != (len(Users._fields), count):
            raise ValueError(f"not {len(Users._fields)} columns of {count} lines")
    except (ValueError, OverflowError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: damaged ({reason}); delete it and train again") from None
    return Users(*columns)
