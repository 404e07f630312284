"""Saving and loading a state dict as torch does, except that counters stay integers."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from simba.checks import OPTIONS, RANGES, as_python
from simba.state import (
    COUNTERS,
    FOREIGN_KEYS,
    KEYS,
    KNOWN_KEYS,
    PACKED,
    PER_TENSOR,
    WRAPPER_KEYS,
    clamp_counter,
    in_flat_parameter,
    keys,
    shape,
    state_layout,
)
from simba.types import Variant

Groups = Sequence[dict[str, Any]]


def portable(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """A hook of torch's ``state_dict()`` that returns the state dict to save.

    int16 counters are copied to int32: the full state dict of a sharded model needs collectives,
    which do not support int16. FSDP1 gathers no integers at all, so its counters become float32.
    Hyperparameters that a scheduler set to NumPy scalars become Python numbers, because
    ``torch.load(weights_only=True)`` refuses NumPy scalars.
    """
    state = dict(state_dict["state"])
    for _, p, param_id, saved in _states(optimizer.param_groups, state_dict):
        counters = {k: v for k, v in saved.items() if k in COUNTERS and isinstance(v, Tensor)}
        if in_flat_parameter(p):
            state[param_id] = {**saved, **{k: v.float() for k, v in counters.items()}}
        elif any(v.dtype == torch.int16 for v in counters.values()):
            wide = {k: v.int() for k, v in counters.items() if v.dtype == torch.int16}
            state[param_id] = {**saved, **wide}
    for group in state_dict["param_groups"]:
        group.update(as_python(group))
    return {**state_dict, "state": state}


def check_loaded(
    owner: str, variant: Variant, accepted: set[str], groups: Groups, state_dict: dict[str, Any]
) -> None:
    """Check that a state dict fits an optimizer's hyperparameters, memories and parameter shapes.

    Unknown entries are allowed, as in torch, except the memories of Adam, Adamax and torch's SGD.

    Args:
        owner: the optimizer's name, for the error.
        accepted: the names of the hyperparameters that the optimizer takes.
        groups: the parameter groups to load into.

    Raises:
        ValueError: the state dict does not fit; the message names the difference.
    """
    reasons = []
    for group in state_dict["param_groups"]:
        reasons += [f"it has no {key}" for key in sorted(accepted - set(OPTIONS) - group.keys())]
        reasons += [f"it has {key}" for key in sorted((RANGES.keys() - accepted) & group.keys())]
    states = list(_states(groups, state_dict))
    unused = set[str]()
    for group, *_, saved in states:
        # Keys that show that another optimizer wrote this state. Keys that wrappers use, too, show
        # nothing if the state has all memories of this variant.
        suspicious = KNOWN_KEYS | FOREIGN_KEYS
        memories = {KEYS[name] for name in variant.names}
        if memories and (memories <= saved.keys() or PACKED in saved):
            suspicious -= WRAPPER_KEYS
        unused |= saved.keys() & (suspicious - keys(variant, group))
    _raise_if(owner, reasons + [f"it has {key}" for key in sorted(unused)])
    for group, p, param_id, saved in states:
        expected = {
            stored.key: shape(stored, p, group) for stored in state_layout(variant.names, group)
        }
        common = expected.keys() & saved.keys()
        if common:
            _raise_if(owner, [f"it has no {key}" for key in sorted(expected.keys() - common)])
        for key in common:
            saved_shape = tuple(getattr(saved[key], "shape", ()))
            if saved_shape != expected[key]:
                raise ValueError(
                    f"{owner}: {key} of parameter {param_id} has the shape {saved_shape} in the "
                    f"state dict, but the parameter needs {expected[key]}"
                )


def _raise_if(owner: str, reasons: Sequence[str]) -> None:
    if reasons:
        listed = ", ".join(dict.fromkeys(reasons))
        raise ValueError(f"{owner}: cannot load the state dict of another optimizer: {listed}")


def restore(variant: Variant, groups: Groups, state: Any, state_dict: dict[str, Any]) -> None:
    """Write counters, signs and per-tensor state into an optimizer's ``state``, in their dtypes.

    torch's ``load_state_dict`` has changed the dtypes of most of them.
    """
    for group, p, _, saved in _states(groups, state_dict):
        for stored in state_layout(variant.names, group):
            if stored.key in saved and stored.bound is not None:
                state[p][stored.key] = clamp_counter(saved[stored.key], stored.bound).to(p.device)
            elif stored.key in saved and stored.dtype is not None:
                state[p][stored.key] = saved[stored.key].to(p.device, stored.dtype, copy=True)
        for key in PER_TENSOR.keys() & saved.keys() & keys(variant, group):
            value = torch.as_tensor(saved[key])
            state[p][key] = value.to(p.device, PER_TENSOR[key], copy=True)


def _states(
    groups: Groups, state_dict: dict[str, Any]
) -> Iterator[tuple[dict[str, Any], Tensor, Hashable, Mapping[str, Any]]]:
    """(saved group, parameter, its id, its saved state) of each parameter with a saved state."""
    # torch checks that the groups have equal lengths
    for saved_group, group in zip(state_dict["param_groups"], groups, strict=False):
        for param_id, p in zip(saved_group["params"], group["params"], strict=False):
            if state_dict["state"].get(param_id):
                yield saved_group, p, param_id, state_dict["state"][param_id]
