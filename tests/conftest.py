import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.forked import REPOSITORY, SHARED, python

SMALL = [
    "epochs=2",
    "eval_every=1",
    "batch_size=16",
    "model.hidden=16",
    "model.maxlen=10",
    "tracker.mode=disabled",
]
RunsCommand = Callable[..., subprocess.CompletedProcess[str]]


def pytest_configure(config: pytest.Config) -> None:
    # A shell lets a command in the background ignore SIGINT, and nohup lets it ignore SIGHUP.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if config.getoption("numprocesses", None):  # before pytest-xdist starts its processes
        os.environ[SHARED] = python()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The slow tests come first, so that no process waits long for another in the end.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def write_toy(path: Path) -> Path:
    """Write a file of S3-Rec lines with 60 users and 40 items."""
    rng = np.random.default_rng(0)
    lines = []
    for user in range(1, 61):
        items = rng.choice(np.arange(1, 41), size=rng.integers(3, 16), replace=False)
        lines.append(" ".join(map(str, [user, *items])))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A file of S3-Rec lines with 60 users and 40 items."""
    return write_toy(tmp_path / "toy.txt")


@pytest.fixture(scope="session")
def run_module() -> RunsCommand:
    """A function that runs ``python -m NAME ARGUMENTS`` in the repository, as a user does.

    The process is a fork, see tests/forked.py; with ``fresh=True``, it is a new interpreter.
    """

    def run(
        name: str, *arguments: str | Path, fresh: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "SIMBA"))}
        return subprocess.run(
            [sys.executable if fresh else python(), "-m", name, *arguments],
            cwd=REPOSITORY,
            env=inherited | {"OMP_NUM_THREADS": "1"} | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def train(run_module: RunsCommand, toy: Path, tmp_path: Path) -> RunsCommand:
    """A function that runs scripts.train with a small model on the toy data.

    It writes to tmp_path/results.
    """

    def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        flags = [a for a in arguments if a.startswith("-")]
        settings = [a for a in arguments if not a.startswith("-")]
        where = ["data=file", f"data.path={toy}", f"results.root={tmp_path / 'results'}"]
        return run_module("scripts.train", *flags, *where, *SMALL, *settings, **more)

    return run
