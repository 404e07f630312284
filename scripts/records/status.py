"""How far a run is: a small file beside its checkpoint, which other processes read."""

import json
import os
import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from scripts.records.files import write_json


@dataclass
class Status:
    """What a run says of itself, at its start, after each evaluation and when it fails.

    Times are Unix times in seconds.
    """

    command: str  # trains this run alone
    epochs: int
    epoch: int = 0
    loss: float | None = None
    ends: float | None = None  # when the run will have trained all epochs, at its pace so far
    error: str | None = None  # why the run failed, in one line
    host: str = field(default_factory=platform.node)
    pid: int = field(default_factory=os.getpid)
    born: str = field(default_factory=lambda: _born(os.getpid()))
    updated: float = field(default_factory=time.time)

    def write(self, path: Path) -> None:
        """Write the file atomically.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        self.updated = time.time()
        write_json(path, asdict(self))

    def may_be_alive(self) -> bool:
        """Whether the process that wrote this still exists; True for one on another host."""
        return self.host != platform.node() or _born(self.pid) == self.born


def _born(pid: int) -> str:
    """When a process started, in ticks since the boot; empty for one that has ended.

    A process id alone may soon be that of another process.
    """
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _exists(pid)
    return "" if words[0] == "Z" else words[19]


def _exists(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:  # another user's process
        pass
    return "unknown"


def read_status(path: Path) -> Status | None:
    """The status in a file; None if there is none, or if it is damaged or of another version."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        fits = values.keys() == TYPES.keys() and all(
            isinstance(values[key], kind) and not isinstance(values[key], bool)
            for key, kind in TYPES.items()
        )
        return Status(**values) if fits and values["pid"] > 0 else None
    except (OSError, ValueError, AttributeError):
        return None


NUMBER = int | float
TYPES = {
    **dict.fromkeys(("command", "host", "born"), str),
    **dict.fromkeys(("epochs", "epoch", "pid"), int),
    **dict.fromkeys(("loss", "ends"), NUMBER | None),
    "error": str | None,
    "updated": NUMBER,
}
