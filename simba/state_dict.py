"""The round trip of a state dict: torch's own, but whole numbers stay whole numbers."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from simba.checks import RANGES, SWITCHES, as_python
from simba.state import FOREIGN_KEYS, KNOWN_KEYS, PER_TENSOR, fitted, keys, layout, shape
from simba.types import Variant

Groups = Sequence[dict[str, Any]]


def portable(_: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """The state dict as it is saved, a hook of torch's ``state_dict()``.

    Counters of two bytes are copied to four: collectives do not know int16, and the full state dict
    of a sharded model needs them. Hyperparameters that a scheduler set to NumPy's numbers become
    Python's, which ``torch.load(weights_only=True)`` reads.
    """
    state = dict(state_dict["state"])
    for group in state_dict["param_groups"]:
        group.update(as_python(group))
        for param_id in set(group["params"]) & state.keys():
            wide = {k: v.int() for k, v in state[param_id].items() if _is_counter(k, v)}
            if wide:
                state[param_id] = {**state[param_id], **wide}
    return {**state_dict, "state": state}


def _is_counter(key: Hashable, value: Any) -> bool:
    return key in KNOWN_KEYS and isinstance(value, Tensor) and value.dtype == torch.int16


def check_loaded(
    owner: str, variant: Variant, taken: set[str], groups: Groups, state_dict: dict[str, Any]
) -> None:
    """Refuse the state of an optimizer with other hyperparameters or memories.

    Entries that no optimizer here knows are kept, as torch keeps them.

    Args:
        taken: the names of the hyperparameters that ``owner`` takes.
        groups: the groups that the state is to be loaded into.

    Raises:
        ValueError: with one line that names what differs.
    """
    wrong = []
    for saved in state_dict["param_groups"]:
        wrong += [f"without {key}" for key in sorted(taken - set(SWITCHES) - saved.keys())]
        wrong += [f"with {key}" for key in sorted(RANGES.keys() - taken & saved.keys())]
    states = list(_states(groups, state_dict))
    held = {key for saved, *_, own in states for key in own if key not in keys(variant, saved)}
    wrong += [f"with {key}" for key in sorted(held & (KNOWN_KEYS | FOREIGN_KEYS))]
    if wrong:
        told = ", ".join(dict.fromkeys(wrong))
        raise ValueError(f"{owner}: the state of another optimizer, {told}")
    for saved, p, name, own in states:
        expected = {stored.key: shape(stored, p, saved) for stored in layout(variant.names, saved)}
        for key in expected.keys() & own.keys():
            found = tuple(own[key].shape)
            if found != expected[key]:
                raise ValueError(
                    f"{owner}: {key} of parameter {name} has the shape {found} in the state, "
                    f"the parameter needs {expected[key]}"
                )


def restore(variant: Variant, groups: Groups, state: Any, state_dict: dict[str, Any]) -> None:
    """Put back into ``state`` what torch has cast to the parameters' dtype."""
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
    """(saved group, parameter, its name or number, its saved state) wherever there is one."""
    for saved, group in zip(state_dict["param_groups"], groups, strict=False):  # torch compares
        names = group.get("param_names", saved["params"])
        for key, p, name in zip(saved["params"], group["params"], names, strict=False):
            if state_dict["state"].get(key):
                yield saved, p, name, state_dict["state"][key]
