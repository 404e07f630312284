"""Saving and loading a state dict as torch does, except that counters stay integers."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from simba.checks import RANGES, SWITCHES, as_python
from simba.state import (
    COUNTERS,
    FOREIGN_KEYS,
    KNOWN_KEYS,
    PER_TENSOR,
    fitted,
    in_flat_parameter,
    keys,
    layout,
    shape,
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
    for _, p, param_id, own in _states(optimizer.param_groups, state_dict):
        counters = {k: v for k, v in own.items() if k in COUNTERS and isinstance(v, Tensor)}
        if in_flat_parameter(p):
            state[param_id] = {**own, **{k: v.float() for k, v in counters.items()}}
        elif any(v.dtype == torch.int16 for v in counters.values()):
            wide = {k: v.int() for k, v in counters.items() if v.dtype == torch.int16}
            state[param_id] = {**own, **wide}
    for group in state_dict["param_groups"]:
        group.update(as_python(group))
    return {**state_dict, "state": state}


def check_loaded(
    owner: str, variant: Variant, taken: set[str], groups: Groups, state_dict: dict[str, Any]
) -> None:
    """Check that a state dict fits an optimizer's hyperparameters, memories and parameter shapes.

    Entries of the state that no optimizer of this package has are allowed, as in torch.

    Args:
        owner: the optimizer's name, for the error.
        taken: the names of the hyperparameters that the optimizer takes.
        groups: the parameter groups to load into.

    Raises:
        ValueError: it does not fit; one line names the difference.
    """
    wrong = []
    for saved in state_dict["param_groups"]:
        wrong += [f"without {key}" for key in sorted(taken - set(SWITCHES) - saved.keys())]
        wrong += [f"with {key}" for key in sorted(RANGES.keys() - taken & saved.keys())]
    states = list(_states(groups, state_dict))
    held = {key for saved, *_, own in states for key in own if key not in keys(variant, saved)}
    wrong += [f"with {key}" for key in sorted(held & (KNOWN_KEYS | FOREIGN_KEYS))]
    if wrong:
        reasons = ", ".join(dict.fromkeys(wrong))
        raise ValueError(f"{owner}: the state of another optimizer, {reasons}")
    for saved, p, param_id, own in states:
        expected = {stored.key: shape(stored, p, saved) for stored in layout(variant.names, saved)}
        for key in expected.keys() & own.keys():
            given = tuple(getattr(own[key], "shape", ()))
            if given != expected[key]:
                raise ValueError(
                    f"{owner}: {key} of parameter {param_id} has the shape {given} in the state, "
                    f"the parameter needs {expected[key]}"
                )


def restore(variant: Variant, groups: Groups, state: Any, state_dict: dict[str, Any]) -> None:
    """Write counters and per-tensor state into ``state`` in their own dtypes.

    torch has loaded them in the parameters' dtype.
    """
    for saved, p, _, own in _states(groups, state_dict):
        for stored in layout(variant.names, saved):
            if stored.key in own and stored.bound is not None:
                state[p][stored.key] = fitted(own[stored.key], stored.bound).to(p.device)
            elif stored.key in own and stored.dtype is not None:
                state[p][stored.key] = own[stored.key].to(p.device, stored.dtype, copy=True)
        for key in PER_TENSOR.keys() & own.keys() & keys(variant, saved):
            value = torch.as_tensor(own[key])
            state[p][key] = value.to(p.device, PER_TENSOR[key], copy=True)


def _states(
    groups: Groups, state_dict: dict[str, Any]
) -> Iterator[tuple[dict[str, Any], Tensor, Hashable, Mapping[str, Any]]]:
    """(saved group, parameter, its id, its saved state) of each parameter with a saved state."""
    # torch checks that the groups have equal lengths
    for saved, group in zip(state_dict["param_groups"], groups, strict=False):
        for param_id, p in zip(saved["params"], group["params"], strict=False):
            if state_dict["state"].get(param_id):
                yield saved, p, param_id, state_dict["state"][param_id]
