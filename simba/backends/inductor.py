"""The eager step compiled by torch.compile: what ``fused=True`` does on a GPU.

The first step waits for the compiler. This module is untested on a GPU: tests compile it for a CPU.
"""

from collections.abc import Callable, Sequence
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from simba.backends.eager import flat, update
from simba.types import ParamState, Variant

# combo_kernels: one launch runs the kernels of all tensors. torch 2.5 cannot compile them.
COMBO_KERNELS = not torch.__version__.startswith("2.5.")


def step(variant: Variant, states: Sequence[ParamState], hparams: dict[str, Any]) -> None:
    """Step tensors of one device and dtype in place.

    Args:
        hparams: the group's hyperparameters, see ``simba.base.hyperparameters``.
    """
    lr, p = hparams["lr"], states[0].p
    if not isinstance(lr, Tensor):  # a Python number is a constant: each new lr would recompile
        dtype = torch.float64 if p.dtype == torch.float64 else torch.float32
        lr = torch.full((), lr, dtype=dtype, device=p.device)
    states = [
        flat(state)._replace(step_values=_as_tensors(state.step_values, p.device))
        for state in states
    ]
    layouts = tuple((t.shape, t.stride(), t.dtype) for state in states for t in state.tensors)
    _compiled_update(variant, layouts)(tuple(states), hparams | {"lr": lr})


def _as_tensors(values: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """``ParamState.step_values`` without ``stored`` and ``param_index``.

    Numbers that change at each step become tensors.
    """
    tensors = {
        name: value for name, value in values.items() if name not in ("stored", "param_index")
    }
    for name in {"noise_key", "rounding_key"} & values.keys():
        tensors[name] = tuple(torch.as_tensor(word, device=device) for word in values[name])
    if "inv_spacing" in values:
        inverse = torch.as_tensor(values["inv_spacing"], dtype=torch.float32, device=device)
        tensors["inv_spacing"] = inverse
    return tensors


@cache
def _compiled_update(variant: Variant, layouts: Any) -> Callable[..., None]:
    """The compiled step of one variant for tensors of these shapes, strides and dtypes.

    torch.compile recompiles one code object at most eight times and then runs it uncompiled. Each
    variant and each list of tensors therefore gets its own copy of the code.
    """

    def update_all(states: Sequence[ParamState], hparams: dict[str, Any]) -> None:
        for state in states:
            update(variant, state, hparams)

    name = f"{variant.direction.function.__name__}_of_all"
    code = update_all.__code__.replace(co_name=name)
    copy = FunctionType(code, update_all.__globals__, closure=update_all.__closure__)
    return torch.compile(copy, options={"combo_kernels": COMBO_KERNELS})
