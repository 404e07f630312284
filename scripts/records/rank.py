"""The torchrun rank of this process, from environment variables."""

import os


def by_torchrun() -> bool:
    """Whether torchrun, or a launcher that sets the same variables, has started this process."""
    return {"RANK", "WORLD_SIZE"} <= os.environ.keys()


def is_rank_zero() -> bool:
    """Whether this process prints and writes: the others of torchrun's processes are silent."""
    return not by_torchrun() or os.environ["RANK"] == "0"
