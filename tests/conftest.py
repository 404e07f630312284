import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.forked import run_module

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL = [
    "epochs=2",
    "eval_every=1",
    "batch_size=16",
    "model.hidden=16",
    "model.maxlen=10",
    "tracker.mode=disabled",
]
Run = Callable[..., subprocess.CompletedProcess[str]]


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
def module(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A function that runs ``python -m NAME ARGUMENTS`` in the repository, as a user does.

    It forks a process that has imported torch, which saves 3 s. A command that starts Python
    processes by itself needs ``fresh=True``: a new interpreter.
    """
    output = tmp_path_factory.mktemp("output")

    def run(
        name: str, *arguments: str, fresh: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "SIMBA"))}
        given = inherited | {"OMP_NUM_THREADS": "1"} | environment
        if not fresh:
            return run_module(name, *arguments, cwd=REPOSITORY, env=given, output=output)
        command = [sys.executable, "-m", name, *arguments]
        return subprocess.run(command, cwd=REPOSITORY, env=given, capture_output=True, text=True)

    return run


@pytest.fixture
def train(module: Run, toy: Path, tmp_path: Path) -> Run:
    """A function that runs scripts.train with a small model on the toy data.

    It writes to tmp_path/results.
    """

    def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        flags = [a for a in arguments if a.startswith("-")]
        settings = [a for a in arguments if not a.startswith("-")]
        where = ["data=file", f"data.path={toy}", f"results.root={tmp_path / 'results'}"]
        return module("scripts.train", *flags, *where, *SMALL, *settings, **more)

    return run
