"""The status file of a run, next to its checkpoint: the run's progress, for other processes."""

import json
import os
import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from scripts.records.files import write_json


@dataclass
class Status:
    """The content of the file, written at the start, after each evaluation and when the run fails.

    Times are Unix times in seconds.
    """

    command: str  # trains this run alone
    epochs: int
    epoch: int = 0
    loss: float | None = None
    expected_end: float | None = None  # at the speed of the epochs so far
    error: str | None = None  # why the run failed, in one line
    host: str = field(default_factory=platform.node)
    pid: int = field(default_factory=os.getpid)
    process_start: str = field(default_factory=lambda: _process_start(os.getpid()))
    updated: float = field(default_factory=time.time)

    def write(self, path: Path) -> None:
        """Write the file atomically.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        self.updated = time.time()
        write_json(path, asdict(self))

    def is_of_this_process(self) -> bool:
        """Whether this process has written the file."""
        return self.is_on_this_host() and self.pid == os.getpid()

    def may_be_alive(self) -> bool:
        """Whether the writer of the file may still exist; True if it is on another host."""
        return not self.is_on_this_host() or _process_start(self.pid) == self.process_start

    def is_on_this_host(self) -> bool:
        """Whether the writer of the file ran on this host."""
        return self.host == platform.node()


def _process_start(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty if it has ended.

    With the process id, it identifies a process: the system uses ids again.
    """
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _start_without_proc(pid)
    return "" if words[0] == "Z" else words[19]


def _start_without_proc(pid: int) -> str:
    """``unknown`` if a process exists, empty if not: a system without /proc tells no start time."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:  # another user's process
        pass
    return "unknown"


def read_status(path: Path) -> Status | None:
    """The status in a file; None if the file is missing, damaged, or of another version."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        types = get_type_hints(Status)
        fits = values.keys() == types.keys() and all(
            _has_type(values[key], kind) for key, kind in types.items()
        )
        return Status(**values) if fits and values["pid"] > 0 else None
    except (OSError, ValueError, AttributeError):
        return None


def _has_type(value: Any, kind: Any) -> bool:
    """Whether a JSON value has the type ``kind``; an integer counts as a float, too."""
    if isinstance(value, bool):
        return False
    return isinstance(value, kind) or (isinstance(value, int) and isinstance(0.0, kind))
