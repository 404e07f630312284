"""File systems that one command sees: small disks, and folders that even root cannot write."""

import shutil
import subprocess
from pathlib import Path
from shlex import quote

import pytest


def within(*mounts: str) -> list[str]:
    """The start of a command that runs the rest of it after the shell commands ``mounts``."""
    script = " && ".join([*mounts, 'exec "$@"'])
    return ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh"]


def small_disk(folder: Path, options: str) -> str:
    return f"mount -t tmpfs -o {options} tmpfs {quote(str(folder))}"


def read_only(folder: Path) -> str:
    name = quote(str(folder))
    return f"mount --bind {name} {name} && mount -o remount,bind,ro {name}"


def _may_mount() -> bool:
    command = [*within(small_disk(Path("/mnt"), "size=8k")), "true"]
    return (
        bool(shutil.which("unshare"))
        and not subprocess.run(command, capture_output=True).returncode
    )


needs_mounts = pytest.mark.skipif(not _may_mount(), reason="file systems cannot be mounted here")
