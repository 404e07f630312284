"""Fetch, verify and read a dataset: ``python -m data.prepare NAME``.

Examples:

  python -m data.prepare beauty
  python -m data.prepare ml-100k data.root=DIR
  python -m data.prepare file data.path=my.csv data.k_core=5
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.cache import Content, cached, sha256
from data.errors import DataError
from data.fetch import locate
from data.files import printable, quoted
from data.sequences import Sequences

if TYPE_CHECKING:
    import pandas as pd

    from data.formats import ReadSettings
    from data.interactions import Interactions

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
READING_KEYS = ("user_column", "item_column", "time_column", "columns", "separator")
KEYS = {  # of the section ``data``
    *(*READING_KEYS, "path", "root", "file", "url", "wheel", "member", "sha256", "k_core"),
    *("licence", "statistics"),
}
SHOWN = 20  # items of the first user


@dataclass(frozen=True)
class Prepared:
    """A dataset that is ready for training, and the file that it comes from."""

    sequences: Sequences
    path: Path
    sha256: str  # the file's hexadecimal SHA-256
    item_ids: list[str]  # of items 1..num_items, as the file writes them
    understood: dict[str, Any]  # how the file was read, in JSON values


def prepare(cfg: Mapping[str, Any]) -> Prepared:
    """Fetch, verify and read the dataset that a config describes.

    Args:
        cfg: the ``data`` section of a config, as in configs/data.

    Raises:
        DataError: the file is missing or damaged, or its content or a key is invalid.
    """
    for key in cfg.keys() - KEYS:
        raise DataError(f"data.{key}: no such key; the keys are {', '.join(sorted(KEYS))}")
    path = locate(cfg)
    try:
        checksum = sha256(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    if cfg.get("sha256") and checksum != cfg["sha256"]:
        raise DataError(
            f"{path}: sha256 is {checksum}, expected {cfg['sha256']}: "
            "the file may be truncated or another version; if data.prepare downloaded it, delete "
            "it to download it again; if it is yours, correct data.sha256"
        )
    content = cached(_cache_key(cfg, checksum), lambda: _parse_unchanged(cfg, path, checksum))
    published = cfg.get("statistics")
    counted = statistics(content.sequences)
    if published and not cfg.get("k_core"):  # ``published`` may lack keys
        if not isinstance(published, Mapping):
            raise DataError(f"data.statistics must be a mapping, got {published!r}")
        for key, value in published.items():
            if counted.get(key) != value:
                raise DataError(
                    f"{path}: data.statistics.{key} is {value}, but the file has "
                    f"{counted.get(key, 'no such number')}: correct data.statistics, or use the "
                    "published file"
                )
    return Prepared(path=path, sha256=checksum, **content._asdict())


def dataset_name(name: str) -> str:
    """``name``, with characters escaped so that it names one folder inside its parent."""
    inside = name.replace("/", "%2F").replace("\\", "%5C").replace("\0", "%00")
    return f"%2E{inside[1:]}" if inside.startswith(".") else inside or "%00"


def _cache_key(cfg: Mapping[str, Any], checksum: str) -> str:
    """A hash of everything that decides how a file is read."""
    choices = [checksum, cfg.get("k_core"), *(cfg.get(key) for key in READING_KEYS)]
    return hashlib.sha256(repr(choices).encode()).hexdigest()[:32]


def _parse_unchanged(cfg: Mapping[str, Any], path: Path, checksum: str) -> Content:
    content = _parse(cfg, path)
    if sha256(path) != checksum:  # the cache would have this content under the old checksum
        raise DataError(f"{path}: changed while it was read; start again")
    return content


def _parse(cfg: Mapping[str, Any], path: Path) -> Content:
    # pandas is slow to import, and cached data does not need it
    from data.interactions import read_interactions

    interactions = read_interactions(path, read_settings(cfg))
    k = 0 if cfg.get("k_core") is None else cfg["k_core"]
    frame = k_core(interactions.frame, k)
    if len(frame) == 0:
        raise DataError(f"{path}: no user is left after data.k_core={k}: set a smaller k")
    sequences = to_sequences(frame)
    if len(sequences.evaluated) == 0:
        raise DataError(
            f"{path}: no user has three interactions or more: nothing to hold out; check "
            "data.user_column and data.item_column"
        )
    if len(sequences.trainable()) == 0:
        raise DataError(
            f"{path}: no user has two training items: nothing to train on; users need two "
            "interactions, or four or more (of three, two are held out)"
        )
    user_ids = [interactions.ids["user"][i] for i in np.unique(frame["user"])]
    _check_negatives(path, sequences, user_ids)
    understood = interactions.understood | _repeats(sequences) | _first_user(interactions, frame)
    item_ids = [str(interactions.ids["item"][i]) for i in np.unique(frame["item"])]
    return Content(sequences, item_ids, understood)


def read_settings(cfg: Mapping[str, Any]) -> "ReadSettings":
    """The settings of ``cfg`` for reading a file.

    Raises:
        DataError: ``data.columns`` is not a list of different names.
    """
    from data.formats import ReadSettings

    columns, separator = cfg.get("columns"), cfg.get("separator")
    if columns is not None:
        names = [str(name) for name in columns] if isinstance(columns, list | tuple) else []
        if len(set(names)) < 2 or len(set(names)) < len(names):
            raise DataError(
                f"data.columns must be a list of different names, got {columns!r}: "
                "data.columns=[user,item,rating,timestamp]"
            )
        columns = tuple(names)
    time = cfg.get("time_column")
    return ReadSettings(
        user=_text(cfg.get("user_column")),
        item=_text(cfg.get("item_column")),
        time=time if time is False else _text(time),
        columns=columns,
        separator=_text(separator),
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _repeats(data: Sequences) -> dict[str, int | float]:
    """The number of interactions that repeat an item of the same user, and the share of repeats
    among the held-out targets (each user's last two items).
    """
    users = np.repeat(np.arange(data.num_users), data.lengths)
    keys = users * (data.num_items + 1) + data.items
    order = np.argsort(keys, kind="stable")
    is_repeat = np.zeros(len(keys), dtype=bool)
    is_repeat[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    last = data.offsets[1:][data.evaluated] - 1
    share = float(is_repeat[np.concatenate([last - 1, last])].mean())
    return {"repeats": int(is_repeat.sum()), "repeated_targets": share}


def _first_user(interactions: "Interactions", frame: "pd.DataFrame") -> dict[str, Any]:
    first = int(frame["user"].min())
    items = frame["item"].to_numpy()[frame["user"].to_numpy() == first]
    return {
        "first_user": str(interactions.ids["user"][first]),
        "first_user_items": [str(interactions.ids["item"][i]) for i in items[:SHOWN]],
        "first_user_length": len(items),
    }


def k_core(frame: "pd.DataFrame", k: int) -> "pd.DataFrame":
    """Drop users and items with fewer than ``k`` interactions until no such user or item is left.

    Raises:
        DataError: k is not an integer >= 0.
    """
    if not isinstance(k, int) or isinstance(k, bool) or k < 0:
        raise DataError(f"data.k_core must be an integer >= 0, got {k!r}")
    size = -1
    while len(frame) != size:
        size = len(frame)
        for role in ("user", "item"):
            frame = frame[frame.groupby(role)[role].transform("size") >= k]
    return frame


def to_sequences(frame: "pd.DataFrame") -> Sequences:
    """Renumber users (from 0) and items (from 1) without gaps; keep each user's time order.

    Args:
        frame: columns ``user`` and ``item``, in time order.
    """
    _, users = np.unique(frame["user"].to_numpy(), return_inverse=True)
    names, items = np.unique(frame["item"].to_numpy(), return_inverse=True)
    order = np.argsort(users, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(users))])
    return Sequences((items[order] + 1).astype(np.int32), offsets, num_items=len(names))


def statistics(data: Sequences) -> dict[str, int]:
    """The numbers of users, items and interactions, and of users with too few items to evaluate or
    to train on.
    """
    return {
        "users": data.num_users,
        "items": data.num_items,
        "interactions": len(data.items),
        "users_not_evaluated": data.num_users - len(data.evaluated),
        "users_not_trained": data.num_users - len(data.trainable()),
    }


def format_reading(understood: Mapping[str, Any]) -> dict[str, str]:
    """How a file was read, as texts to print, by their labels."""
    columns = [f"{role} {name!r}" for role, name in understood["columns"].items() if name]
    compression = f" ({understood['compression']})" if understood["compression"] else ""
    items = " ".join(understood["first_user_items"])
    dots = " ..." if understood["first_user_length"] > len(understood["first_user_items"]) else ""
    lines = {
        "format": understood["format"] + compression,
        "separator": understood["separator"] and repr(understood["separator"]),
        "columns": ", ".join(columns),
        "order": understood["order"],
        "first time": understood["first_time"],
        "last time": understood["last_time"],
        "repeats": f"{understood['repeats']:,} (an earlier item of the same user), "
        f"{understood['repeated_targets']:.1%} of held-out targets",
        "first user": f"{understood['first_user']}: {items}{dots}",
    }
    return {key: printable(value) for key, value in lines.items() if value}


def _check_negatives(path: Path, data: Sequences, user_ids: list[Any]) -> None:
    items_of = np.bincount(data.train_pairs // (data.num_items + 1), minlength=data.num_users)
    if items_of.max() >= data.num_items:
        raise DataError(
            f"{path}: user {quoted(str(user_ids[items_of.argmax()]))} has interacted with all "
            f"{data.num_items} items, so no negative can be drawn"
        )


def compose(name: str, overrides: list[str]) -> Mapping[str, Any]:
    """The resolved ``data`` section of a config.

    Args:
        name: a dataset of configs/data.
        overrides: ``data.key=value`` texts.

    Raises:
        DataError: the dataset is unknown, or an override is invalid.
    """
    known = sorted(path.stem for path in (CONFIGS / "data").glob("*.yaml"))
    if name not in known:
        raise DataError(f"unknown dataset {name!r}: one of {', '.join(known)}")
    return data_section([f"data={name}", *overrides])


def data_section(overrides: list[str]) -> Mapping[str, Any]:
    """The resolved ``data`` section of the config with these overrides.

    Raises:
        DataError: an override is invalid.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            cfg = hydra_compose("train", overrides=overrides)
        section = OmegaConf.to_container(cfg.data, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise DataError(" ".join(str(error).split())) from None
    assert isinstance(section, dict)
    return {str(key): value for key, value in section.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m data.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join(sorted(path.stem for path in (CONFIGS / "data").glob("*.yaml")))
    parser.add_argument("name", metavar="NAME", help=f"one of: {names}")
    parser.add_argument(
        "overrides", nargs="*", metavar="data.KEY=VALUE", help="e.g. data.root=DIR, data.path=PATH"
    )
    args = parser.parse_args(argv)
    try:
        print(report(args.name, compose(args.name, args.overrides)), flush=True)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def report(name: str, cfg: Mapping[str, Any]) -> str:
    """Prepare a dataset, and return lines that say how its file was read.

    Raises:
        DataError: the dataset cannot be used.
    """
    prepared = prepare(cfg)
    lines = [f"{name}: {prepared.path} (sha256 {prepared.sha256})"]
    if "licence" in cfg:
        lines.append(f"  licence: {cfg['licence']}")
    for key, text in format_reading(prepared.understood).items():
        lines.append(f"  {key:<20} {text}")
    for key, count in statistics(prepared.sequences).items():
        lines.append(f"  {key.replace('_', ' '):<20} {count:>10,}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
