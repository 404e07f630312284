"""Per-tensor state that some variants need beside their memories: a step count and a scale.

``optimizer.state[p]`` holds them as ``step`` (int64) and ``scale`` (float32). A step gets them in
``ParamState.step_values``, with values that this module derives from them (``stored``,
``param_index`` and ``offset`` come from ``SignOptimizer.param_state``):

- ``stored``: ``optimizer.state[p]``; ``param_index``: the parameter's index;
- ``inv_spacing``: 1 / the distance between two votes (simba/scale.py);
- ``totals``: (parameters, 3) int64, to which the step adds ``simba.scale.sums`` of each x;
  ``row``: the row of this parameter in it;
- ``noise_key``: the key of the tensor's noise (simba/noise.py); ``offset``: the index of its first
  coordinate, which is above 0 for a chunk of a tensor;
- ``rounding_key``: the key of the noise that rounds a bfloat16 parameter;
- ``plane``: the index of the plane of ``signs`` that holds the oldest sign; ``place``: the value
  3**k of its digit there.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from simba.noise import key
from simba.scale import first_scale, inverse_spacing, updated_scales
from simba.state import SIGNS_PER_BYTE
from simba.types import ParamState, Variant


def rounds_at_random(p: Tensor, group: dict[str, Any]) -> bool:
    """Whether a step of p rounds it stochastically: only bfloat16 parameters are."""
    return bool(group["stochastic_rounding"]) and p.dtype == torch.bfloat16


def needs_state(variant: Variant, p: Tensor, group: dict[str, Any]) -> bool:
    """Whether a step of p needs per-tensor state."""
    return variant.has_per_tensor_state or rounds_at_random(p, group)


def prepare_step(
    variant: Variant, states: Sequence[ParamState], group: dict[str, Any]
) -> list[ParamState]:
    """Compute ``ParamState.step_values`` for the coming step.

    The first call creates the per-tensor state. On a GPU, under ``capturable`` and in a traced
    step, the numbers are tensors: reading a number would synchronize with the GPU, and a CUDA graph
    would replay Python numbers of the captured step. SimbaWindow cannot be captured, so its plane
    and place are always Python numbers.

    Args:
        states: parameters of one device and dtype.

    Returns:
        Copies of the states with ``step_values`` and, for SimbaWindow, with only the plane of
        ``signs`` that the step changes.
    """
    device = states[0].p.device
    as_tensors = group["capturable"] or device.type != "cpu" or torch.compiler.is_compiling()
    all_values = [dict(state.step_values) for state in states]
    if variant.scaled:
        totals = torch.zeros(len(states), 3, dtype=torch.int64, device=device)
        for state, values in zip(states, all_values, strict=True):
            scale = values["stored"].get("scale")
            if scale is None:
                values["stored"]["scale"] = first_scale(state.g)
            elif as_tensors:  # reading the value would synchronize with the GPU
                scale.copy_(torch.where(scale > 0, scale, first_scale(state.g)))
            elif not scale:  # all gradients so far were 0, NaN or infinite
                scale.copy_(first_scale(state.g))
        inverse = inverse_spacing(_stacked(states, "scale"), group["spacing"])
        inverses = inverse.unbind() if as_tensors else inverse.tolist()
        for row, (values, inv_spacing) in enumerate(zip(all_values, inverses, strict=True)):
            values |= {"inv_spacing": inv_spacing, "totals": totals, "row": row}
    for values in all_values:
        stored = values["stored"]
        if "step" not in stored:
            stored["step"] = torch.zeros((), dtype=torch.int64, device=device)
        step = stored["step"]
        step_count = step if as_tensors and not variant.windowed else int(step)
        if variant.random:
            values["noise_key"] = key(group["seed"], step_count, values["param_index"])
        if rounds_at_random(states[0].p, group):  # the negative index gives a key of its own
            values["rounding_key"] = key(
                group.get("seed", 0), step_count, -1 - values["param_index"]
            )
        if variant.windowed:
            values["plane"], digit = divmod(step_count % group["window_size"], SIGNS_PER_BYTE)
            values["place"] = float(3**digit)
    return [
        state._replace(memory=_current_memory(variant, state, values), step_values=values)
        for state, values in zip(states, all_values, strict=True)
    ]


def finish_step(variant: Variant, states: Sequence[ParamState], group: dict[str, Any]) -> None:
    """Update the per-tensor state after a step: increment ``step`` and move ``scale``."""
    torch._foreach_add_([state.step_values["stored"]["step"] for state in states], 1)
    if variant.scaled:
        scales = _stacked(states, "scale")
        new = updated_scales(scales, group["spacing"], states[0].step_values["totals"])
        stored = [state.step_values["stored"]["scale"] for state in states]
        torch._foreach_copy_(stored, list(new.unbind()))


def _stacked(states: Sequence[ParamState], name: str) -> Tensor:
    return torch.stack([state.step_values["stored"][name] for state in states])


def _current_memory(
    variant: Variant, state: ParamState, values: dict[str, Any]
) -> tuple[Tensor, ...]:
    """A parameter's memories, with only that plane of ``signs`` that holds the oldest sign."""
    if not variant.windowed:
        return state.memory
    return tuple(
        t[values["plane"]] if name == "signs" else t
        for name, t in zip(variant.names, state.memory, strict=True)
    )
