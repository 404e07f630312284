"""What some variants need of each tensor beside its memory: its scale, noise, place in a window.

They are kept in ``optimizer.state[p]`` as ``step`` (int64) and ``scale`` (float32), and handed to a
step in ``ParamState.own``:

- ``inv_spacing``: 1 / the distance between two votes (simba/scale.py);
- ``totals`` and ``row``: where the step adds the sums of its gradient;
- ``key`` and ``first``: of its noise (simba/noise.py);
- ``rounding``: the key of the noise by which a bfloat16 parameter is rounded;
- ``place``: of the oldest sign in the plane of signs that is in turn.
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
    return bool(group["stochastic_rounding"]) and p.dtype == torch.bfloat16


def needed(variant: Variant, p: Tensor, group: dict[str, Any]) -> bool:
    """Whether a step of p needs numbers of its own."""
    return variant.by_tensor or rounds_at_random(p, group)


def prepared(
    variant: Variant, states: Sequence[ParamState], group: dict[str, Any]
) -> list[ParamState]:
    """The states of one device with their own numbers; made where it is their first step.

    On a GPU and under ``capturable`` the numbers are tensors, which a captured graph reads anew.
    """
    device = states[0].p.device
    as_tensors = group["capturable"] or device.type != "cpu" or torch.compiler.is_compiling()
    found = [dict(state.own) for state in states]
    if variant.scaled:
        totals = torch.zeros(len(states), 2, dtype=torch.int64, device=device)
        for state, own in zip(states, found, strict=True):
            scale = own["kept"].get("scale")
            if scale is None:
                own["kept"]["scale"] = first_scale(state.g)
            elif as_tensors:  # without a look at its value
                scale.copy_(torch.where(scale > 0, scale, first_scale(state.g)))
            elif not scale:  # there was no gradient yet
                scale.copy_(first_scale(state.g))
        inverse = inverse_spacing(_stacked(states, "scale"), group["spacing"])
        values = inverse.unbind() if as_tensors else inverse.tolist()
        for row, (own, value) in enumerate(zip(found, values, strict=True)):
            own |= {"inv_spacing": value, "totals": totals, "row": row}
    for own in found:
        step = own["kept"].setdefault("step", torch.zeros((), dtype=torch.int64, device=device))
        taken = step if as_tensors and not variant.windowed else int(step)
        if variant.random:
            own["key"] = key(group["seed"], taken, own["number"])
        if rounds_at_random(states[0].p, group):  # by words that no variant's noise has
            own["rounding"] = key(group.get("seed", 0), taken, -1 - own["number"])
        if variant.windowed:
            own["plane"], digit = divmod(taken % group["window_size"], SIGNS_PER_BYTE)
            own["place"] = float(3**digit)
    return [
        state._replace(memory=_in_turn(variant, state, own), own=own)
        for state, own in zip(states, found, strict=True)
    ]


def finish(variant: Variant, states: Sequence[ParamState], group: dict[str, Any]) -> None:
    """After the step: it is counted, and the scales follow its gradients."""
    torch._foreach_add_([state.own["kept"]["step"] for state in states], 1)
    if variant.scaled:
        scales = _stacked(states, "scale")
        new = followed(scales, group["spacing"], states[0].own["totals"])
        torch._foreach_copy_([state.own["kept"]["scale"] for state in states], list(new.unbind()))


def _stacked(states: Sequence[ParamState], name: str) -> Tensor:
    return torch.stack([state.own["kept"][name] for state in states])


def _in_turn(variant: Variant, state: ParamState, own: dict[str, Any]) -> tuple[Tensor, ...]:
    """Its memory, with the plane of signs that holds the oldest one."""
    if not variant.windowed:
        return state.memory
    return tuple(
        t[own["plane"]] if name == "signs" else t
        for name, t in zip(variant.names, state.memory, strict=True)
    )
