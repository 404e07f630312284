"""Cache of prepared data: checksummed files; sequences are mapped into memory."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.sequences import Sequences

FOLDER = Path(__file__).resolve().parent / "prepared"
VERSION = 4  # increase it when the files below or the parser's results change
ARRAYS = ("items", "offsets")
ITEM_IDS = "item_ids.json"
FILES = (*(f"{name}.npy" for name in ARRAYS), ITEM_IDS)


class Content(NamedTuple):
    """The cached content of a data file."""

    sequences: Sequences
    item_ids: list[str]  # of items 1..num_items, as the file writes them
    understood: dict[str, Any]  # how the file was read: format, separator, columns, order, ...


def cached(key: str, build: Callable[[], Content]) -> Content:
    """The content cached under ``key``. If it is missing or damaged, build and cache it."""
    folder = FOLDER / key
    content = _read(folder)
    if content is None:
        content = build()
        with suppress(OSError):  # a full disk or a read-only checkout: go on without a cache
            _write(folder, content)
    return content


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(folder: Path) -> Content | None:
    try:
        about = json.loads((folder / "about.json").read_text())
        if about["version"] != VERSION:
            return None
        if about["checksum"] != _checksum(about):
            raise ValueError("about.json")
        for name in FILES:
            if sha256(folder / name) != about[name]:
                raise ValueError(name)
        items, offsets = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS)
        sequences = Sequences(items, offsets, about["num_items"])
        sequences.check()
        item_ids = json.loads((folder / ITEM_IDS).read_text())
        if len(item_ids) != sequences.num_items:
            raise ValueError(ITEM_IDS)
        return Content(sequences, item_ids, about["understood"])
    except (FileNotFoundError, NotADirectoryError):
        if not folder.is_dir():
            return None
        reason = "a file is missing"
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError) as error:
        reason = str(error)
    print(
        f"{folder}: the cache is damaged ({reason}); the data file is read again", file=sys.stderr
    )
    return None


def _checksum(about: dict[str, Any]) -> str:
    others = {key: value for key, value in about.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def _write(folder: Path, content: Content) -> None:
    """Write all files or none: write them to a temporary folder and rename it."""
    sequences, item_ids, understood = content
    FOLDER.mkdir(exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=FOLDER, prefix=".partial-"))
    try:
        about = {"version": VERSION, "num_items": sequences.num_items, "understood": understood}
        for name in ARRAYS:
            np.save(partial / f"{name}.npy", getattr(sequences, name))
        (partial / ITEM_IDS).write_text(json.dumps(item_ids))
        about |= {name: sha256(partial / name) for name in FILES}
        about["checksum"] = _checksum(about)
        (partial / "about.json").write_text(json.dumps(about))
        shutil.rmtree(folder, ignore_errors=True)  # an existing folder is damaged or outdated
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
