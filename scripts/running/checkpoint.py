"""Save and load a training's state; a checksum ensures that only an intact file is used."""

import hashlib
import io
import pickle
import sys
from pathlib import Path
from typing import Any

import torch

from scripts.records.errors import UserError
from scripts.records.files import write_atomically

FORMAT = b"simba checkpoint 4\n"  # a checkpoint of another format is ignored
HEADER = len(FORMAT) + hashlib.sha256().digest_size


def save(path: Path, state: dict[str, Any]) -> None:
    """Write FORMAT, the content's SHA-256 and the content, which torch.save gives.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_atomically(path, FORMAT + hashlib.sha256(content).digest() + content)


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The saved state; None without a usable file. One line on stderr reports a damaged one.

    Raises:
        UserError: the file exists and cannot be read.
    """
    try:
        whole = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    content = whole[HEADER:]
    if whole[:HEADER] != FORMAT + hashlib.sha256(content).digest():
        print(f"{path}: damaged or of another version; the run starts again", file=sys.stderr)
        return None
    try:
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:  # another version of torch saved it
        reason = str(error).splitlines()[0]
        print(f"{path}: torch cannot read it ({reason}); the run starts again", file=sys.stderr)
        return None
