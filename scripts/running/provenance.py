"""The provenance of a run: commit, package versions and hardware."""

import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from llvmlite.binding import get_host_cpu_name

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("torch", "numpy", "numba", "hydra-core", "omegaconf")


@cache
def provenance(device: torch.device) -> dict[str, Any]:
    """Commit, versions and hardware. The first call in a process decides; later ones repeat it."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    status = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
    return {
        "commit": commit(),
        "dirty": None if status is None else bool(status),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "device": {
            "type": device.type,
            "name": name,
            "cpu": get_host_cpu_name(),  # LLVM's; one model name may stand for several of them
            "threads": torch.get_num_threads(),
        },
    }


def commit() -> str | None:
    """The commit that is checked out; None outside a checkout."""
    return _git("rev-parse", "HEAD")


def processor() -> str:
    """The name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    try:
        # git status would lock the index to refresh it; a killed run would leave the lock behind
        command = ["git", "--no-optional-locks", *arguments]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # not a checkout
    return done.stdout.strip()
