"""The plain step through torch.compile: what ``fused=True`` does on a GPU.

The first step takes as long as the compiler does. This has not been run on a GPU: tests compile it
for a CPU.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from simba.update import Rule, Slot, update


def compiled_step(rule: Rule, slots: Sequence[Slot], numbers: dict[str, Any]) -> None:
    """Take the step of slots of one device and dtype."""
    lr, p = numbers["lr"], slots[0].p
    if not isinstance(lr, Tensor):  # a number would be compiled in, and every new one anew
        dtype = torch.float64 if p.dtype == torch.float64 else torch.float32
        lr = torch.full((), lr, dtype=dtype, device=p.device)
    _compiled_update(rule)(tuple(slots), numbers | {"lr": lr})


@cache
def _compiled_update(rule: Rule) -> Callable[..., None]:
    def update_all(slots: Sequence[Slot], numbers: dict[str, Any]) -> None:
        for slot in slots:
            update(rule, slot, numbers)

    # combo kernels: those of all tensors in one launch
    return torch.compile(update_all, options={"combo_kernels": True})
