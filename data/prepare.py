"""Fetch a dataset, verify it, read it: ``python -m data.prepare NAME [data.root=DIR ...]``."""

import argparse
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.cache import cached, sha256
from data.errors import DataError
from data.fetch import locate
from data.sequences import Sequences

if TYPE_CHECKING:
    import pandas as pd

    from data.formats import Keys
    from data.interactions import Interactions

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
KEYS = ("user_column", "item_column", "time_column", "columns", "separator")
SHOWN = 20  # items of the first user


@dataclass(frozen=True)
class Prepared:
    sequences: Sequences
    path: Path
    sha256: str
    understood: dict[str, Any]  # how the file was read, in values that JSON takes


def prepare(cfg: Mapping[str, Any]) -> Prepared:
    """Sequences of the dataset that ``cfg`` (a file of configs/data) describes.

    Raises:
        DataError: one line on what is wrong with the file, its contents or a key.
    """
    path = locate(cfg)
    try:
        checksum = sha256(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    if cfg.get("sha256") and checksum != cfg["sha256"]:
        raise DataError(
            f"{path}: sha256 is {checksum}, expected {cfg['sha256']}: "
            "truncated or another version; delete it to fetch it again"
        )
    sequences, understood = cached(_cache_key(cfg, checksum), lambda: _parse(cfg, path))
    published = cfg.get("statistics")
    found = statistics(sequences)
    if published and not cfg.get("k_core") and not _agree(published, found):
        raise DataError(f"{path}: data.statistics is {published}, the file holds {found}")
    return Prepared(sequences, path, checksum, understood)


def _agree(published: Any, found: Mapping[str, int]) -> bool:
    return isinstance(published, Mapping) and published.items() <= found.items()


def dataset_name(name: str) -> str:
    """``name`` as the name of a folder that stays inside its parent."""
    inside = name.replace("/", "%2F").replace("\\", "%5C").replace("\0", "%00")
    return f"%2E{inside[1:]}" if inside.startswith(".") else inside or "%00"


def _cache_key(cfg: Mapping[str, Any], checksum: str) -> str:
    """Names all that decides what is made of a file."""
    choices = [checksum, cfg.get("k_core"), *(cfg.get(key) for key in KEYS)]
    return hashlib.sha256(repr(choices).encode()).hexdigest()[:32]


def _parse(cfg: Mapping[str, Any], path: Path) -> tuple[Sequences, dict[str, Any]]:
    # pandas is slow to import and not needed for what is cached
    from data.interactions import read_interactions

    interactions = read_interactions(path, reading_keys(cfg))
    k = 0 if cfg.get("k_core") is None else cfg["k_core"]
    frame = k_core(interactions.frame, k)
    if len(frame) == 0:
        raise DataError(f"{path}: zero users left after data.k_core={k}")
    sequences = to_sequences(frame)
    if len(sequences.evaluated) == 0:
        raise DataError(f"{path}: zero users with three interactions or more: nothing to hold out")
    if len(sequences.trainable()) == 0:
        raise DataError(f"{path}: zero users with two training items: nothing to train on")
    _check_negatives(path, sequences)
    return sequences, interactions.understood | _repeats(sequences) | _first_user(
        interactions, frame
    )


def reading_keys(cfg: Mapping[str, Any]) -> "Keys":
    """The keys of ``cfg`` that say how to read a file, checked."""
    from data.formats import Keys

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
    return Keys(
        user=_text(cfg.get("user_column")),
        item=_text(cfg.get("item_column")),
        time=time if time is False else _text(time),
        columns=columns,
        separator=_text(separator),
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _repeats(data: Sequences) -> dict[str, int | float]:
    """Interactions whose user has had the item before; their share of what is held out."""
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
    """Drop users and items with fewer than ``k`` interactions until none is left."""
    if not isinstance(k, int) or isinstance(k, bool) or k < 0:
        raise DataError(f"data.k_core must be an integer >= 0, got {k!r}")
    size = -1
    while len(frame) != size:
        size = len(frame)
        for role in ("user", "item"):
            frame = frame[frame.groupby(role)[role].transform("size") >= k]
    return frame


def to_sequences(frame: "pd.DataFrame") -> Sequences:
    """Number users and items from their ids in ascending order; keep each user's order."""
    _, users = np.unique(frame["user"].to_numpy(), return_inverse=True)
    names, items = np.unique(frame["item"].to_numpy(), return_inverse=True)
    order = np.argsort(users, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(users))])
    return Sequences((items[order] + 1).astype(np.int32), offsets, num_items=len(names))


def statistics(data: Sequences) -> dict[str, int]:
    """Users, items and interactions; and who is too short to train on or to evaluate."""
    return {
        "users": data.num_users,
        "items": data.num_items,
        "interactions": len(data.items),
        "users_not_evaluated": data.num_users - len(data.evaluated),
        "users_not_trained": data.num_users - len(data.trainable()),
    }


def described(understood: Mapping[str, Any]) -> dict[str, str]:
    """What was understood of a file, in words."""
    columns = [f"{role} {name!r}" for role, name in understood["columns"].items() if name]
    packed = f" ({understood['compression']})" if understood["compression"] else ""
    items = " ".join(understood["first_user_items"])
    rest = " ..." if understood["first_user_length"] > len(understood["first_user_items"]) else ""
    words = {
        "format": understood["format"] + packed,
        "separator": understood["separator"] and repr(understood["separator"]),
        "columns": ", ".join(columns),
        "order": understood["order"],
        "first time": understood["first_time"],
        "last time": understood["last_time"],
        "repeats": f"{understood['repeats']:,} (a user's same item again), "
        f"{understood['repeated_targets']:.1%} of held-out targets",
        "first user": f"{understood['first_user']}: {items}{rest}",
    }
    return {key: _printable(value) for key, value in words.items() if value}


def _printable(text: str) -> str:
    """Control characters of a file do not reach a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _check_negatives(path: Path, data: Sequences) -> None:
    had = np.bincount(data.train_pairs // (data.num_items + 1), minlength=data.num_users)
    if had.max() >= data.num_items:
        raise DataError(
            f"{path}: user number {int(had.argmax()) + 1} has had every one of the "
            f"{data.num_items} items: no negative can be drawn"
        )


def compose(name: str, overrides: list[str]) -> Mapping[str, Any]:
    """The resolved ``data`` section for a dataset of configs/data and ``data.key=value``s."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    known = sorted(path.stem for path in (CONFIGS / "data").glob("*.yaml"))
    if name not in known:
        raise DataError(f"unknown dataset {name!r}: one of {', '.join(known)}")
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            cfg = hydra_compose("train", overrides=[f"data={name}", *overrides])
        section = OmegaConf.to_container(cfg.data, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise DataError(" ".join(str(error).split())) from None
    assert isinstance(section, dict)
    return {str(key): value for key, value in section.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m data.prepare", description=__doc__)
    names = ", ".join(sorted(path.stem for path in (CONFIGS / "data").glob("*.yaml")))
    parser.add_argument("name", metavar="NAME", help=f"one of: {names}")
    parser.add_argument(
        "overrides", nargs="*", metavar="data.KEY=VALUE", help="e.g. data.root=DIR, data.path=PATH"
    )
    args = parser.parse_args(argv)
    try:
        cfg = compose(args.name, args.overrides)
        prepared = prepare(cfg)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.name}: {prepared.path} (sha256 {prepared.sha256})")
    if "licence" in cfg:
        print(f"  licence: {cfg['licence']}")
    for key, words in described(prepared.understood).items():
        print(f"  {key:<20} {words}")
    for key, count in statistics(prepared.sequences).items():
        print(f"  {key.replace('_', ' '):<20} {count:>10,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
