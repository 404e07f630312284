"""One run, one JSON record: where it lies, what identifies it, how it is written and read."""

import base64
import fcntl
import hashlib
import json
import math
import os
import platform
import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scripts.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "numpy", "numba", "hydra-core", "omegaconf")
# Where a run happens and who watches it; everything else identifies it.
WITHOUT_EFFECT = ("results", "tracker", "device", "force", "together", "diagnose_every")


def identity(config: Mapping[str, Any], data_sha256: str) -> dict[str, Any]:
    """The part of a config that decides a run's figures; a record holds this."""
    kept = {key: value for key, value in config.items() if key not in WITHOUT_EFFECT}
    data = {
        key: value
        for key, value in config["data"].items()
        if key in ("user_column", "item_column", "time_column", "k_core")
        or (key in ("columns", "separator") and value is not None)
    }
    optimizer = {key: value for key, value in config["optimizer"].items() if key != "fused"}
    return kept | {"data": data | {"sha256": data_sha256}, "optimizer": optimizer}


def digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``key: old -> new`` of every leaf that differs."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a} -> {b}")
    return found


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write strict JSON atomically: a reader sees the old file or the new one, never a part."""
    atomically(path, json.dumps(_strict(record), indent=1).encode() + b"\n")


def atomically(path: Path, content: bytes) -> None:
    """Raises ConfigError with one line on a full disk or a folder that cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(partial, 0o644)
            os.replace(partial, path)
        except BaseException:
            os.unlink(partial)
            raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process alone works on ``path`` (a file that is made and then removed).

    Several processes that run one sweep share its runs this way; a killed one lets go.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """Raises ConfigError if the file is not a record."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a record: {error}") from None
    if not isinstance(record, dict) or "status" not in record:
        raise ConfigError(f"{path}: not a record: it has no status")
    return record


def encode_ranks(ranks: np.ndarray) -> dict[str, str]:
    """Ranks of all evaluated users, in user order, compressed."""
    dtype = "uint16" if ranks.max() < 2**16 else "uint32"
    packed = zlib.compress(ranks.astype(f"<{np.dtype(dtype).str[1:]}").tobytes(), 9)
    return {"dtype": dtype, "encoding": "zlib+base64", "data": base64.b64encode(packed).decode()}


def decode_ranks(encoded: Mapping[str, str]) -> np.ndarray:
    packed = zlib.decompress(base64.b64decode(encoded["data"]))
    return np.frombuffer(packed, dtype=np.dtype(encoded["dtype"]).newbyteorder("<"))


@cache
def provenance(device: torch.device) -> dict[str, Any]:
    """Commit, versions and hardware, as they were when this process first asked."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    status = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "device": {"type": device.type, "name": name, "threads": torch.get_num_threads()},
    }


def reset_peak_memory() -> None:
    with suppress(OSError):  # not Linux: the peak is then that of the whole process
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss_mib() -> float:
    """Peak resident memory since ``reset_peak_memory``, MiB."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if platform.system() == "Darwin" else peak / 1024


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None  # not a checkout
    return done.stdout.strip()


def _strict(value: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(value, Mapping):
        return {key: _strict(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
