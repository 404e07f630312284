"""The code of each of two workers that talk: ``python -m tests.worker_talk``."""

import os
import sys
from functools import partial

import pytest
import torch

from scripts.records.errors import RunFailed, UserError
from scripts.records.stopping import WorkerLost
from scripts.running.workers import Workers, process_group


def fails(workers: Workers, rank: int, error: Exception) -> str:
    if workers.rank == rank:
        raise error
    return f"of {workers.rank}"


def talk(workers: Workers) -> None:
    me = workers.rank
    assert workers.from_leader(me) == 0
    assert workers.gather(me) == [0, 1]
    assert workers.all_reduce(torch.tensor([1.0, me])).tolist() == [2.0, 1.0]
    assert workers.on_leader(lambda: fails(workers, 1, UserError("never called"))) == "of 0"
    with pytest.raises(RunFailed, match=r"^of the first$"):
        workers.on_leader(lambda: fails(workers, 0, RunFailed("of the first")))
    assert workers.on_each(lambda: me) == me
    for rank in range(2):
        error = UserError(f"of worker {rank} alone")
        with pytest.raises(UserError, match=f"^{error}$"):
            workers.on_each(partial(fails, workers, rank, error))
    with pytest.raises(UserError, match=r"^out of memory: "):
        workers.on_each(lambda: fails(workers, 1, MemoryError("")))
    with pytest.raises(KeyError):  # not a user's mistake, so not for the others
        fails(workers, me, KeyError(me))


if __name__ == "__main__":
    with process_group() as workers:
        talk(workers)
        say = partial(print, file=sys.__stdout__, flush=True)
        say("talked")
        print("only the first is heard", flush=True)
        if workers.rank == 1:
            os._exit(9)
        with pytest.raises(WorkerLost):
            workers.gather(0)
        say("noticed")
        os._exit(0)  # the group is broken
