"""Processes that never outlive this one."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from scripts.records.stopping import GRACE_SECONDS, WATCH_PARENT


@contextmanager
def children(
    commands: Sequence[Sequence[str]], environment: dict[str, str], output: int | None = None
) -> Iterator[list[subprocess.Popen[str]]]:
    """Start ``python -m COMMAND`` for each command; at the context's end, end those that still run.

    Ctrl-C on a terminal sends SIGINT to the whole process group. Children ignore it; only this
    process handles it, and sends them SIGTERM. If this process is killed (kill -9), the kernel
    closes the pipes at the children's stdin, which scripts/records/stopping.py watches. Linux's
    prctl(PR_SET_PDEATHSIG) would end a child as soon as the thread that started it ends.

    Args:
        output: the children's stdout and stderr, as for Popen; None: those of this process.
    """
    started: list[subprocess.Popen[str]] = []
    try:
        for command in commands:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", *command],
                    env=os.environ | environment | {WATCH_PARENT: "1"},
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=None if output is None else subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
                )
            )
        yield started
    finally:
        for process in started:
            process.terminate()  # does nothing to one that has ended
        for process in started:
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def module_of(command: str) -> list[str]:
    """The module that a record's command runs, with its arguments."""
    words = shlex.split(command)
    if "torchrun" in words:
        return ["torch.distributed.run", *words[words.index("torchrun") + 1 :]]
    return words[words.index("scripts.train") :]


def run_module(command: Sequence[str], **environment: str) -> int:
    """Run ``python -m COMMAND`` and return its exit code."""
    with children([command], environment) as (process,):
        return process.wait()
