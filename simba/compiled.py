"""The plain step through torch.compile: what ``fused=True`` does on a GPU.

The first step takes as long as the compiler does. This has not been run on a GPU: tests compile it
for a CPU.
"""

from collections.abc import Callable, Sequence
from functools import cache
from types import FunctionType
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
    kinds = tuple((t.shape, t.stride(), t.dtype) for slot in slots for t in slot if t is not None)
    _compiled_update(rule, kinds)(tuple(slots), numbers | {"lr": lr})


@cache
def _compiled_update(rule: Rule, kinds: Any) -> Callable[..., None]:
    """For one rule and list of tensors: torch compiles the same code eight times at most, and then
    runs it as it is, so each has a copy of its own."""

    def update_all(slots: Sequence[Slot], numbers: dict[str, Any]) -> None:
        for slot in slots:
            update(rule, slot, numbers)

    own = update_all.__code__.replace(co_name=f"{rule.function.__name__}_of_all")
    copy = FunctionType(own, update_all.__globals__, closure=update_all.__closure__)
    # combo kernels: those of all tensors in one launch
    return torch.compile(copy, options={"combo_kernels": True})
