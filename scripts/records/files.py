"""Atomic writes of files, and file locks that are released when their process dies."""

import errno
import json
import math
import os
import secrets
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from filelock import FileLock, SoftFileLock, Timeout

from scripts.records.errors import UserError

LOCKS = "SIMBA_LOCKS"  # environment variable; the value soft selects locks that need no flock


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees either the old or the new content, never a part of it.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The temporary file is named before it exists, so an interrupt leaves no file behind.
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with open(partial, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)  # an interrupt may come after os.replace
            raise
    except OSError as error:
        raise cannot_write(path, error) from None


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON atomically: NaN and infinite numbers become null.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    write_atomically(path, json.dumps(_strict(value), indent=1).encode() + b"\n")


def remove_partials(path: Path) -> None:
    """Remove temporary files of killed writers of ``path``. The caller must hold its lock."""
    for partial in path.parent.glob(f".{escape(path.name)}.*"):
        partial.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Try to take the lock file ``path``; the context's value is whether this process holds it.

    The file is removed when the context ends. Processes that run the same sweep divide its runs by
    these locks. The system releases the lock of a killed process. With SIMBA_LOCKS=soft, for
    file systems without flock, the file's existence is the lock. The file names its host and
    process, so that a process on the same host detects the lock of a killed one.

    Raises:
        UserError: the file system has no flock, or the lock file cannot be written.
    """
    lock = (SoftFileLock if os.environ.get(LOCKS) == "soft" else FileLock)(path, blocking=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # filelock warns where there is no flock
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            lock.acquire()
    except Timeout:
        yield False
        return
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise UserError(
                f"{path}: no locks in this folder ({error.strerror}); set {LOCKS}=soft for all "
                "processes"
            ) from None
        raise cannot_write(path, error) from None
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)  # before the release; filelock does not remove the file
        lock.release()


def cannot_write(path: Path | str, error: Exception) -> UserError:
    """The error for a file that could not be written."""
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    if getattr(error, "errno", None) == errno.ENOSPC:
        reason = "the disk is full"
    return UserError(f"{path}: cannot be written: {reason}; results.root=DIR sets another folder")


def _strict(value: Any) -> Any:
    """Replace NaN and infinite numbers by None, because JSON has neither."""
    if isinstance(value, Mapping):
        return {key: _strict(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
