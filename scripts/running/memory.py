"""Settings of this process's memory allocator, and its peak memory."""

import ctypes
import platform
from contextlib import suppress
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """Make glibc keep freed memory instead of returning it to the kernel.

    Each training step allocates and frees the same megabytes. If they were returned, the kernel
    would clear the pages at each step, which takes a tenth of the step's time. Without glibc, this
    function does nothing.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        # glibc may refuse more than 32 MiB
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30) or libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def reset_peak_memory() -> None:
    """Reset the peak of ``peak_rss_mib``. On other systems than Linux, this does nothing."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss_mib() -> float:
    """The peak resident memory since ``reset_peak_memory``, in MiB."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if platform.system() == "Darwin" else peak / 1024
