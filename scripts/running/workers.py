"""The workers of one training: the processes that torchrun starts, and what they tell each other.

The worker of rank 0 is the leader: it alone takes locks, writes files and prints, except for the
error of a single worker. The processes of
a sweep are not called workers: each of them trains other runs.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from data.errors import DataError
from scripts.records.errors import RunFailed, UserError
from scripts.records.stopping import WorkerLost
from scripts.records.torchrun import START, is_leader, started_by_torchrun

T = TypeVar("T")
MEMORY_ERRORS = (MemoryError, torch.OutOfMemoryError)
CPU_ALLOCATOR = "DefaultCPUAllocator"  # of torch; without memory, it raises a plain RuntimeError
ERRORS = (UserError, DataError, RunFailed)  # each ends one run; other runs of the command follow


class SingleWorkerError(UserError):
    """A UserError on one worker alone. The others wait for this one, so torchrun must end them."""


@dataclass(frozen=True)
class Workers:
    """All workers, as one of them sees them; by default, a single process without process group.

    Every worker must call the same methods in the same order. The methods raise WorkerLost if
    another worker has ended.

    Args:
        rank: the rank of this worker, 0..count - 1.
        count: the number of workers.
        has_process_group: whether torchrun has started this process.
    """

    rank: int = 0
    count: int = 1
    has_process_group: bool = False

    @property
    def is_leader(self) -> bool:
        """Whether this is the worker that writes and prints."""
        return self.rank == 0

    def on_each(self, function: Callable[[], T]) -> T:
        """Call a function on every worker, on the leader first; returns this worker's value.

        The function must not wait for other workers.

        Raises:
            UserError, DataError, RunFailed: the first of the workers' errors, on all of them.
        """
        value, error = attempt(function) if self.is_leader else (None, None)
        raise_any(self.from_leader(error))
        if not self.is_leader:
            value, error = attempt(function)
        raise_any(*self.gather(error))
        return cast(T, value)  # there was no error

    def on_leader(self, function: Callable[[], T]) -> T:
        """Call a function on the leader; returns its value on every worker.

        Raises:
            UserError, DataError, RunFailed: those of the function, on all workers.
        """
        value, error = self.from_leader(attempt(function) if self.is_leader else (None, None))
        raise_any(error)
        return cast(T, value)

    def from_leader(self, value: T) -> T:
        """The leader's value, on every worker."""
        if not self.has_process_group:
            return value
        values = [value]
        with raising_worker_lost():
            dist.broadcast_object_list(values)
        return values[0]

    def gather(self, value: T) -> list[T]:
        """The values of all workers, by rank."""
        if not self.has_process_group:
            return [value]
        values: list[Any] = [None] * self.count
        with raising_worker_lost():
            dist.all_gather_object(values, value)
        return values

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all workers, and return it; needs a process group.

        The result is bitwise identical on all workers, and in another training with as many
        workers.
        """
        with raising_worker_lost():
            dist.all_reduce(tensor)
        return tensor


@contextmanager
def process_group() -> Iterator[Workers]:
    """Join the other workers if torchrun has started this process; only the leader prints.

    Tensors on a CPU go over gloo, those on a GPU over NCCL.
    """
    if not started_by_torchrun():
        yield Workers()
        return
    with ExitStack() as silence:
        if not is_leader():
            nowhere = silence.enter_context(open(os.devnull, "w"))
            silence.enter_context(redirect_stdout(nowhere))
            silence.enter_context(redirect_stderr(nowhere))
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        try:
            yield Workers(dist.get_rank(), dist.get_world_size(), True)
        finally:
            dist.destroy_process_group()


@contextmanager
def raising_worker_lost() -> Iterator[None]:
    """Replace torch's error about a worker that has ended.

    Raises:
        WorkerLost: another worker has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise WorkerLost from error
        raise


def require_worker_count(config: Mapping[str, Any], workers: Workers) -> None:
    """Check a config for the number of workers there are.

    Raises:
        UserError: the config needs another number of workers, or a single process.
    """
    needed, count = config["workers"], workers.count
    if needed is not None and not workers.has_process_group:
        raise UserError(f"workers={needed}: start them by `{START.format(needed)}`")
    if needed not in (None, count):
        raise UserError(f"workers={needed}: torchrun has started {count} (--nproc-per-node)")
    if not workers.has_process_group:
        return
    if config["joint"]:
        raise UserError(
            "joint=true trains all runs in one process; remove it, or start without torchrun"
        )
    if (every := config["diagnose_every"]) is not None:
        raise UserError(
            f"diagnose_every={every} records the steps of one process; "
            "remove it, or start without torchrun"
        )
    if (size := config["batch_size"]) < count:
        raise UserError(f"batch_size={size} must be at least the number of workers, {count}")


def device_of(name: str) -> torch.device:
    """The device of a name, ``cpu`` or ``cuda``; each worker of a host has its own GPU.

    Raises:
        UserError: there are fewer GPUs than workers on this host.
    """
    if name == "cpu" or not started_by_torchrun():
        return torch.device(name)
    local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= gpus:
        raise UserError(
            f"device=cuda: this host has {gpus} GPUs, but more workers; "
            f"use --nproc-per-node={gpus}, or device=cpu"
        )
    device = torch.device("cuda", local)
    torch.cuda.set_device(device)
    return device


@contextmanager
def out_of_memory_as_user_error() -> Iterator[None]:
    """Replace an error about missing memory by a UserError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MEMORY_ERRORS) or CPU_ALLOCATOR in str(error)):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        advice = "lower batch_size, negatives or model.hidden, or set joint=false"
        raise UserError(f"out of memory: {reason}; {advice}") from None


def attempt(function: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """Call a function: (its value, None), or (None, its error) for one of ERRORS."""
    try:
        with out_of_memory_as_user_error():
            return function(), None
    except ERRORS as error:
        return None, error


def raise_any(*errors: Exception | None) -> None:
    """Raise the first error, if there is one."""
    for error in errors:
        if error is not None:
            raise error
