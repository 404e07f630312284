"""Per-tensor state that some variants need beside their memories: a step count and a scale.

``optimizer.state[p]`` holds them as ``step`` (int64) and ``scale`` (float32). For each step, this
module derives numbers from them and passes them in ``ParamState.own``:

- ``state``: ``optimizer.state[p]``; ``number``: the parameter's index;
- ``inv_spacing``: 1 / the distance between two votes (simba/scale.py);
- ``totals`` and ``row``: the tensor, and its row, that the step adds the gradient's sums to;
- ``key``: the key of the tensor's noise (simba/noise.py); ``first``: the number of its first
  coordinate, which is above 0 for a chunk of a tensor;
- ``rounding``: the key of the noise that rounds a bfloat16 parameter;
- ``plane``: the index of the plane of ``signs`` that holds the oldest sign; ``place``: the value
  3**k of its digit there.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from simba.noise import key
from simba.scale import first_scale, followed, inverse_spacing
from simba.state import SIGNS_PER_BYTE
from simba.types import ParamState, Variant


def rounds_at_random(p: Tensor, group: dict[str, Any]) -> bool:
    """Whether ``stochastic_rounding`` applies to p: it does to bfloat16 alone."""
    return bool(group["stochastic_rounding"]) and p.dtype == torch.bfloat16


def needed(variant: Variant, p: Tensor, group: dict[str, Any]) -> bool:
    """Whether a step of p needs per-tensor state."""
    return variant.by_tensor or rounds_at_random(p, group)


def prepared(
    variant: Variant, states: Sequence[ParamState], group: dict[str, Any]
) -> list[ParamState]:
    """Fill in ``ParamState.own`` for the coming step; the first step creates the per-tensor state.

    Args:
        states: parameters of one device and dtype.

    On a GPU and under ``capturable`` the numbers are tensors, because a captured graph would repeat
    Python numbers.
    """
    device = states[0].p.device
    as_tensors = group["capturable"] or device.type != "cpu" or torch.compiler.is_compiling()
    owns = [dict(state.own) for state in states]
    if variant.scaled:
        totals = torch.zeros(len(states), 2, dtype=torch.int64, device=device)
        for state, own in zip(states, owns, strict=True):
            scale = own["state"].get("scale")
            if scale is None:
                own["state"]["scale"] = first_scale(state.g)
            elif as_tensors:  # reading the value would synchronize with the GPU
                scale.copy_(torch.where(scale > 0, scale, first_scale(state.g)))
            elif not scale:  # all gradients so far were 0, NaN or infinite
                scale.copy_(first_scale(state.g))
        inverse = inverse_spacing(_stacked(states, "scale"), group["spacing"])
        values = inverse.unbind() if as_tensors else inverse.tolist()
        for row, (own, value) in enumerate(zip(owns, values, strict=True)):
            own |= {"inv_spacing": value, "totals": totals, "row": row}
    for own in owns:
        step = own["state"].setdefault("step", torch.zeros((), dtype=torch.int64, device=device))
        taken = step if as_tensors and not variant.windowed else int(step)
        if variant.random:
            own["key"] = key(group["seed"], taken, own["number"])
        if rounds_at_random(states[0].p, group):  # negative index: no variant's noise has this key
            own["rounding"] = key(group.get("seed", 0), taken, -1 - own["number"])
        if variant.windowed:
            own["plane"], digit = divmod(taken % group["window_size"], SIGNS_PER_BYTE)
            own["place"] = float(3**digit)
    return [
        state._replace(memory=_current_memory(variant, state, own), own=own)
        for state, own in zip(states, owns, strict=True)
    ]


def finish(variant: Variant, states: Sequence[ParamState], group: dict[str, Any]) -> None:
    """Update the per-tensor state after a step: increment ``step`` and move ``scale``."""
    torch._foreach_add_([state.own["state"]["step"] for state in states], 1)
    if variant.scaled:
        scales = _stacked(states, "scale")
        new = followed(scales, group["spacing"], states[0].own["totals"])
        torch._foreach_copy_([state.own["state"]["scale"] for state in states], list(new.unbind()))


def _stacked(states: Sequence[ParamState], name: str) -> Tensor:
    return torch.stack([state.own["state"][name] for state in states])


def _current_memory(variant: Variant, state: ParamState, own: dict[str, Any]) -> tuple[Tensor, ...]:
    """A parameter's memories, with only that plane of ``signs`` that holds the oldest sign."""
    if not variant.windowed:
        return state.memory
    return tuple(
        t[own["plane"]] if name == "signs" else t
        for name, t in zip(variant.names, state.memory, strict=True)
    )
