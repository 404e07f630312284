"""Prepared sequences in a binary form that is mapped into memory, each array with its checksum."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from data.sequences import Sequences

FOLDER = Path(__file__).resolve().parent / "prepared"
ARRAYS = ("items", "offsets")


def cached(key: str, build: Callable[[], Sequences]) -> Sequences:
    """The sequences kept under ``key``; built and kept if there are none, or not intact."""
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


def _read(folder: Path) -> Sequences | None:
    try:
        about = json.loads((folder / "about.json").read_text())
        for name in ARRAYS:
            if sha256(folder / f"{name}.npy") != about[name]:
                return None
        items, offsets = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS)
        return Sequences(items, offsets, about["num_items"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(folder: Path, sequences: Sequences) -> None:
    """All files or none: they are written elsewhere and moved into place."""
    FOLDER.mkdir(exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=FOLDER, prefix=".partial-"))
    try:
        about: dict[str, str | int] = {"num_items": sequences.num_items}
        for name in ARRAYS:
            np.save(partial / f"{name}.npy", getattr(sequences, name))
            about[name] = sha256(partial / f"{name}.npy")
        (partial / "about.json").write_text(json.dumps(about))
        shutil.rmtree(folder, ignore_errors=True)  # not intact, or it would have been read
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
