"""The record of a run, one JSON file: what identifies the run, how a record is read and checked."""

import base64
import hashlib
import json
import shlex
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scripts.records.errors import UserError

# Keys that are no part of a run's identity. ``identity`` also leaves out parts of data, optimizer.
WITHOUT_EFFECT = (
    *("results", "tracker", "device", "force", "save_best", "joint", "diagnose_every", "study"),
)

# Keys added after the first records, with their defaults. A record omits such a key at its default.
LATER_KEYS = {"mask_seen": "others", "corrupt": None, "gradients": "float32"}


def identity(config: Mapping[str, Any], data_sha256: str) -> dict[str, Any]:
    """The part of a config that decides a run's results, as a record holds it under ``config``.

    Args:
        config: a checked config.
        data_sha256: the SHA-256 of the data file.
    """
    identifying = {key: value for key, value in config.items() if key not in WITHOUT_EFFECT}
    for key, value in LATER_KEYS.items():
        if identifying.get(key, value) == value:
            identifying.pop(key, None)
    if "gradients" not in identifying:  # with float32, ``workers`` change results by rounding only
        identifying.pop("workers", None)
    data = {
        key: value
        for key, value in config["data"].items()
        if key in ("user_column", "item_column", "time_column", "k_core")
        or (key in ("columns", "separator") and value is not None)
    }
    optimizer = {key: value for key, value in config["optimizer"].items() if key != "fused"}
    return identifying | {"data": data | {"sha256": data_sha256}, "optimizer": optimizer}


def digest(value: Any) -> str:
    """A hash of a JSON value: 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``key: old -> new`` for every leaf of two nested mappings that differs."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {a} -> {b}")
    return lines


def read_record(path: Path) -> dict[str, Any]:
    """Read a record and check the keys that reporting uses.

    Raises:
        UserError: the file cannot be read, is not a record, or is damaged.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a record: {' '.join(str(error).split())}") from None
    fault = _fault(record)
    if fault:
        raise UserError(
            f"{path}: not a record: {fault}; if a training wrote it, delete it and train again"
        )
    return record


def encode_ranks(ranks: np.ndarray) -> dict[str, str]:
    """Compress the ranks (users,) of all evaluated users, in user order, to a JSON value."""
    dtype = "uint16" if ranks.max() < 2**16 else "uint32"
    packed = zlib.compress(ranks.astype(f"<{np.dtype(dtype).str[1:]}").tobytes(), 9)
    return {"dtype": dtype, "encoding": "zlib+base64", "data": base64.b64encode(packed).decode()}


def decode_ranks(encoded: Mapping[str, str]) -> np.ndarray:
    """(users,) uint16 or uint32: the rank of each evaluated user's test item; 1 is the best."""
    packed = zlib.decompress(base64.b64decode(encoded["data"]))
    return np.frombuffer(packed, dtype=np.dtype(encoded["dtype"]).newbyteorder("<"))


def ndcg_at_10(ranks: np.ndarray) -> np.ndarray:
    """(users,) float64: the NDCG@10 of each user, from the rank of the one relevant item."""
    return np.where(ranks <= 10, 1 / np.log2(ranks + 1.0), 0.0)


LARGEST_INTEGER = 2**63 - 1  # the largest integer that torch and NumPy take
LARGEST_FLOAT = 1e100  # so that sums and ratios are finite
NAMES = ("dataset", "model", "optimizer", "experiment")
IN_ALL_RECORDS: dict[str, Any] = {
    **dict.fromkeys((*NAMES, "command", "config_hash"), str),
    "seed": int,
    "config": dict,
    "device": dict,
    "history": list,
}
IN_FINISHED_RECORDS: dict[str, Any] = {
    **dict.fromkeys(("valid", "test", "test_ranks"), dict),
    "best_epoch": int,
    **dict.fromkeys(
        ("targets_per_second", "eval_seconds", "peak_rss_mib", "state_bytes_per_param"),
        (int, float),
    ),
}


def _fault(record: Any) -> str | None:
    """The reason why a JSON value is not a valid record; None for a valid one."""
    if not isinstance(record, dict) or record.get("status") not in ("finished", "failed"):
        return "its status is neither finished nor failed"
    finished = record["status"] == "finished"
    for key, kind in (IN_ALL_RECORDS | (IN_FINISHED_RECORDS if finished else {})).items():
        if not isinstance(record.get(key), kind) or isinstance(record[key], bool):
            return f"{key} is missing or is not {_type_name(kind)}"
    for key in NAMES:
        if not _is_name(record[key]):
            return f"{key} cannot be used as a folder name"
    if not 0 <= record["seed"] <= LARGEST_INTEGER:
        return "seed is out of range"
    if digest(record["config"]) != record["config_hash"]:
        return "config_hash is not that of its config"
    try:
        words = shlex.split(record["command"])
    except ValueError as error:
        return f"its command: {error}"
    if "scripts.train" not in words or "\0" in record["command"]:
        return "its command does not run scripts.train"
    if not isinstance(record["device"].get("threads"), int):
        return "device.threads is missing or is not an integer"
    if not isinstance(record["config"].get("optimizer"), dict):
        return "config.optimizer is missing or is not an object"
    return _fault_of_finished(record) if finished else None


def _type_name(kind: Any) -> str:
    """A Python type by its name in JSON."""
    return {str: "text", int: "an integer", dict: "an object", list: "an array"}.get(
        kind, "a number"
    )


def _fault_of_finished(record: Mapping[str, Any]) -> str | None:
    numbers = {key: record[key] for key, kind in IN_FINISHED_RECORDS.items() if kind is not dict}
    history = record["history"]
    for values in (numbers, record["valid"], record["test"], *history):
        if not isinstance(values, dict):
            return "valid, test or an epoch of history is not an object"
        for key, value in values.items():
            if not _is_number(key, value):
                return f"{key} is not a finite number"
    for key in (key for entry in history for key in entry):
        if key.startswith("why/") and key.count("/") != 2:
            return f"{key}: the name of a diagnostic must be why/QUANTITY/PART"
    if record["best_epoch"] not in range(1, len(history) + 1):
        return "best_epoch is none of its epochs"
    if not history or any(entry.get("epoch") != i for i, entry in enumerate(history, start=1)):
        return "its epochs are not 1, 2, ..."
    if any("train/loss" not in entry for entry in history):
        return "an epoch has no train/loss"
    if missing := {"HR@10", "NDCG@10"} - (record["valid"].keys() & record["test"].keys()):
        return f"{', '.join(sorted(missing))} is missing in valid or test"
    try:
        ranks = decode_ranks(record["test_ranks"])
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        return f"test_ranks: {type(error).__name__}: {error}"
    if ranks.dtype not in (np.uint16, np.uint32) or len(ranks) == 0 or ranks.min() < 1:
        return "test_ranks: no ranks >= 1"
    from_ranks = {"HR@10": np.mean(ranks <= 10), "NDCG@10": ndcg_at_10(ranks).mean()}
    if any(abs(value - record["test"][key]) > 1e-9 for key, value in from_ranks.items()):
        return "HR@10 or NDCG@10 on test does not follow from test_ranks"
    return None


def _is_number(key: str, value: Any) -> bool:
    """Whether a value is a finite number; null, for 0 / 0, only in diagnostics."""
    if value is None:
        return key.startswith("why/")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) < LARGEST_FLOAT  # false for NaN and infinity


def _is_name(text: str) -> bool:
    """Whether a text may be a folder's name; it stands in paths of tables and figures."""
    return text not in ("", ".", "..") and not {"/", "\0"} & set(text) and len(text.encode()) < 256
