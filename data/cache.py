"""Prepared sequences in a binary form that is mapped into memory; all that is read is checked."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from data.sequences import Sequences

FOLDER = Path(__file__).resolve().parent / "prepared"
VERSION = 2  # of the parser: a change of what it makes of a file needs another number
ARRAYS = ("items", "offsets")
Content = tuple[Sequences, dict[str, Any]]  # with what was understood of the file


def cached(key: str, build: Callable[[], Content]) -> Content:
    """What is kept under ``key``; built and kept if there is nothing, or it is not intact."""
    folder = FOLDER / key
    found = _read(folder)
    if found is None:
        found = build()
        with suppress(OSError):  # a full disk or a read-only checkout: it works without a cache
            _write(folder, found)
    return found


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(folder: Path) -> Content | None:
    try:
        about = json.loads((folder / "about.json").read_text())
        if about["version"] != VERSION:
            return None
        if about["checksum"] != _checksum(about):
            raise ValueError("about.json")
        for name in ARRAYS:
            if sha256(folder / f"{name}.npy") != about[name]:
                raise ValueError(f"{name}.npy")
        items, offsets = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS)
        sequences = Sequences(items, offsets, about["num_items"])
        sequences.check()
        return sequences, about["understood"]
    except (FileNotFoundError, NotADirectoryError):
        if not folder.is_dir():
            return None
        reason = "a file is missing"
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError) as error:
        reason = str(error)
    print(f"{folder}: not intact ({reason}): prepared anew", file=sys.stderr)
    return None


def _checksum(about: dict[str, Any]) -> str:
    rest = {key: value for key, value in about.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _write(folder: Path, content: Content) -> None:
    """All files or none: they are written elsewhere and moved into place."""
    sequences, understood = content
    FOLDER.mkdir(exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=FOLDER, prefix=".partial-"))
    try:
        about = {"version": VERSION, "num_items": sequences.num_items, "understood": understood}
        for name in ARRAYS:
            np.save(partial / f"{name}.npy", getattr(sequences, name))
            about[name] = sha256(partial / f"{name}.npy")
        about["checksum"] = _checksum(about)
        (partial / "about.json").write_text(json.dumps(about))
        shutil.rmtree(folder, ignore_errors=True)  # not intact, or it would have been read
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
