"""The eager step through torch.compile: what ``fused=True`` does on a GPU.

The first step takes as long as the compiler does. This has not been run on a GPU: tests compile it
for a CPU.
"""

from collections.abc import Callable, Sequence
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from simba.backends.eager import flat, update
from simba.types import ParamState, Variant


def step(variant: Variant, states: Sequence[ParamState], hparams: dict[str, Any]) -> None:
    """Take the step of tensors of one device and dtype."""
    lr, p = hparams["lr"], states[0].p
    if not isinstance(lr, Tensor):  # a number would be compiled in, and every new one anew
        dtype = torch.float64 if p.dtype == torch.float64 else torch.float32
        lr = torch.full((), lr, dtype=dtype, device=p.device)
    states = [flat(state)._replace(own=_as_tensors(state.own, p.device)) for state in states]
    kinds = tuple((t.shape, t.stride(), t.dtype) for state in states for t in state.tensors)
    _compiled_update(variant, kinds)(tuple(states), hparams | {"lr": lr})


def _as_tensors(own: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """A tensor's numbers, which change at each step, as tensors."""
    found = {name: value for name, value in own.items() if name not in ("kept", "number")}
    for name in {"key", "rounding"} & own.keys():
        found[name] = tuple(torch.as_tensor(word, device=device) for word in own[name])
    if "inv_spacing" in own:
        inverse = torch.as_tensor(own["inv_spacing"], dtype=torch.float32, device=device)
        found["inv_spacing"] = inverse
    return found


@cache
def _compiled_update(variant: Variant, kinds: Any) -> Callable[..., None]:
    """For one variant and list of tensors: torch compiles the same code eight times at most, and
    then runs it as it is, so each has a copy of its own."""

    def update_all(states: Sequence[ParamState], hparams: dict[str, Any]) -> None:
        for state in states:
            update(variant, state, hparams)

    name = f"{variant.direction.function.__name__}_of_all"
    own = update_all.__code__.replace(co_name=name)
    copy = FunctionType(own, update_all.__globals__, closure=update_all.__closure__)
    # combo kernels: those of all tensors in one launch
    return torch.compile(copy, options={"combo_kernels": True})
