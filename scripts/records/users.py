"""Two numbers of every evaluated user of a dataset, by which a comparison groups users.

``users/DATASET.json`` in a results folder holds them. A training writes it when it starts.
"""

import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scripts.records.errors import UserError
from scripts.records.files import write_json
from scripts.records.record import decode_integers, encode_integers


class Users(NamedTuple):
    """Integers of the evaluated users, (users,) in user order."""

    popularity: np.ndarray  # how often the user's test item occurs in training
    history: np.ndarray  # how many items the user has before the test item


def write_users(root: Path, dataset: str, sha256: str, users: Users) -> None:
    """Write the users of the data file with this SHA-256.

    Raises:
        UserError: the file cannot be written.
    """
    encoded = {key: encode_integers(values) for key, values in users._asdict().items()}
    write_json(_path(root, dataset), {"sha256": sha256, **encoded})


def read_users(root: Path, dataset: str, sha256: str) -> Users | None:
    """The users of the data file with this SHA-256; None if no training has written them.

    Raises:
        UserError: the file is damaged.
    """
    path = _path(root, dataset)
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["sha256"] != sha256:
            return None
        return Users(*(decode_integers(found[key]) for key in Users._fields))
    except (KeyError, TypeError, ValueError, OSError, zlib.error) as error:
        raise UserError(f"{path}: damaged ({error}); delete it and train again") from None


def _path(root: Path, dataset: str) -> Path:
    return root / "users" / f"{dataset}.json"
