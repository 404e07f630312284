"""How commands end early: by Ctrl-C, SIGTERM, SIGHUP, their parent's death, or a closed pipe."""

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from scripts.records.torchrun import is_leader

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_SECONDS = 10.0  # for a process to clean up before it is killed
# Set for a child process: it must end when its parent closes the pipe at its stdin.
WATCH_PARENT = "SIMBA_WATCH_PARENT"


class Stopped(KeyboardInterrupt):
    """Raised by the signal handler, so that ``finally`` blocks and contexts clean up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


class WorkerLost(KeyboardInterrupt):
    """Another of torchrun's processes has ended. The run can be resumed, as after a signal."""

    code = 1
    line = "another worker has ended; the same command resumes from the last evaluation"


def stoppable(line: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Decorate a main function: after a signal, it prints ``line`` to stderr and returns a code.

    The exit code is 130 (Ctrl-C), 143 (SIGTERM), 129 (SIGHUP), or 1 if another of torchrun's
    workers has ended (``WorkerLost``, which has a line of its own).

    A second signal ends the process at once, which is as safe as ``kill -9``. A signal that is
    ignored at the start, as SIGHUP under nohup, remains ignored.
    """

    def decorate(main: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(main)
        def wrapped(*arguments: Any) -> int:
            handled = [s for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
            before = {number: signal.signal(number, _stop) for number in handled}
            try:
                if os.environ.pop(WATCH_PARENT, None):
                    threading.Thread(target=_end_with_parent, daemon=True).start()
                return main(*arguments)
            except KeyboardInterrupt as stop:
                if is_leader():
                    print(getattr(stop, "line", line), file=sys.stderr)
                return getattr(stop, "code", 130)
            finally:
                flush()
                for number, handler in before.items():
                    signal.signal(number, handler)

        return wrapped

    return decorate


def flush() -> None:
    """Flush stdout; ignore that nobody reads it any longer, as in ``... | head``."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    for other in SIGNALS:
        if signal.getsignal(other) is _stop:
            signal.signal(other, _exit)
    raise Stopped(number)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)


def _end_with_parent() -> None:
    """End when the pipe at stdin closes: the kernel closes it however the parent dies."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(128 + signal.SIGTERM)
