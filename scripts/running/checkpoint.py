"""Save and load tensors and plain values; a checksum ensures that only an intact file is used."""

import hashlib
import io
import pickle
import sys
from pathlib import Path
from typing import Any

import torch

from scripts.records.errors import UserError
from scripts.records.files import write_atomically

FORMAT = b"simba checkpoint 5\n"  # a checkpoint of another format is ignored


class Unusable(UserError):
    """The file is damaged or of another format, or torch cannot read it."""


def save(path: Path, state: dict[str, Any], format: bytes = FORMAT) -> None:
    """Write the format, the SHA-256 of the content, and the content as torch.save serializes it.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_atomically(path, format + hashlib.sha256(content).digest() + content)


def load(path: Path, device: torch.device, format: bytes = FORMAT) -> dict[str, Any]:
    """The saved state.

    Raises:
        FileNotFoundError: there is no such file.
        Unusable: the file is damaged or of another format, or torch cannot read it.
        UserError: the file exists and cannot be read.
    """
    try:
        file = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    header = len(format) + hashlib.sha256().digest_size
    content = file[header:]
    if file[:header] != format + hashlib.sha256(content).digest():
        raise Unusable(f"{path}: damaged or of another format")
    try:
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:  # another version of torch saved it
        raise Unusable(f"{path}: torch cannot read it ({str(error).splitlines()[0]})") from None


def load_or_none(path: Path, device: torch.device) -> dict[str, Any] | None:
    """``load``, but None for a missing or damaged file; a line on stderr reports a damaged one.

    Raises:
        UserError: the file exists and cannot be read.
    """
    try:
        return load(path, device)
    except FileNotFoundError:
        return None
    except Unusable as error:
        print(f"{error}; the run starts again", file=sys.stderr)
        return None
