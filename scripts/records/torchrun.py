"""Whether torchrun has started this process, and its rank, from environment variables."""

import os

START = "torchrun --standalone --nproc-per-node={} -m scripts.train"


def started_by_torchrun() -> bool:
    """Whether torchrun, or a launcher that sets the same variables, has started this process."""
    return {"RANK", "WORLD_SIZE"} <= os.environ.keys()


def is_leader() -> bool:
    """Whether this process prints and writes: it has rank 0, or torchrun has not started it."""
    return not started_by_torchrun() or os.environ["RANK"] == "0"
