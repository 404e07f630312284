"""The reference step, by torch's own operations: whole, in parts that fit a cache, or in lists.

``hparams`` are a group's hyperparameters by the names that formulas use (simba/base.py).
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from simba.noise import bits, rounded, uniforms
from simba.scale import scaled, sums
from simba.state import read, upcast, write
from simba.types import ParamState, Variant

CHUNK = 2**16  # elements: enough to hide each call's cost; temporaries too small to be given back
GRAIN = 2**15  # elements: torch gives no thread of a CPU fewer
LIST = 2**22  # elements of tensors that are stepped together on a GPU


def update(variant: Variant, state: ParamState, hparams: dict[str, Any]) -> None:
    """The step of one tensor, whole; halves are computed in float32 and rounded once."""
    p, g, memory, own = state
    g = -g if hparams["maximize"] else g
    values = hparams | own
    values |= seen(variant, g, memory, values)
    if variant.scaled:
        own["totals"][own["row"]] += sums(values["x"])
    direction = variant.direction(values)
    lr = hparams["lr"]
    new = upcast(p)
    new.mul_(1 - lr * hparams["weight_decay"])
    if isinstance(lr, Tensor):
        new.sub_(direction * lr)
    else:
        new.add_(direction.to(new.dtype), alpha=-lr)
    if new is not p:
        words = own.get("rounding")
        p.copy_(rounded(new, bits(own["first"], new, words)) if words else new)
    write(memory, [function(values) for function in variant.remember], hparams)


def seen(
    variant: Variant, g: Tensor, memory: tuple[Tensor, ...], values: dict[str, Any]
) -> dict[str, Tensor]:
    """What direction and memories are made of: gradient, vote, noise and the memories by name.

    Args:
        values: hyperparameters and the tensor's own numbers.
    """
    g = upcast(g)
    found = {"g": g, **read(variant.names, memory, values)}
    if variant.scaled:
        found["x"] = scaled(g, values["inv_spacing"])
    if variant.random:
        noise = uniforms(values["first"], g, values["key"])
        found["noise_s"], found["noise_e"] = noise
    if variant.vote is not None:
        found["q"] = variant.vote(values | found)
    return found


def step_chunked(variant: Variant, state: ParamState, hparams: dict[str, Any]) -> None:
    """The same, part by part, on a CPU: no temporary is larger than a part."""
    small = state.p.is_contiguous() and state.p.numel() <= _largest()
    for part in [state] if small or not state.p.is_cpu else parts(state, _largest()):
        update(variant, part, hparams)


def parts(state: ParamState, most: int) -> Iterator[ParamState]:
    """The state in parts of at most ``most`` elements (or one row), as the parameter lies."""
    state = flat(state)
    length = state.p.shape[0] if state.p.dim() else 1
    row = max(1, state.p.numel() // max(1, length))
    rows = max(1, most // row)
    for first in range(0, length, rows):
        p, g, *memory = (t[first : first + rows] for t in state.tensors)
        own = state.own | {"first": state.own["first"] + first * row} if state.own else state.own
        yield ParamState(p, g, tuple(memory), own)


def flat(state: ParamState) -> ParamState:
    """Views with their dimensions in the order in which the parameter lies in memory.

    They are lines where no tensor has gaps or an order of its own.
    """
    p, tensors = state.p, list(state.tensors)
    if not p.is_contiguous():
        order = sorted(range(p.dim()), key=p.stride, reverse=True)
        tensors = [t.permute(order) for t in tensors]
    if all(t.numel() == p.numel() and t.is_contiguous() for t in tensors):
        tensors = [t.view(-1) for t in tensors]
    return ParamState(tensors[0], tensors[1], tuple(tensors[2:]), state.own)


def _largest() -> int:
    """Elements of a part: enough for every thread. A traced step is not divided."""
    if torch.compiler.is_compiling():
        return sys.maxsize
    return max(CHUNK, GRAIN * torch.get_num_threads())


def step_foreach(variant: Variant, states: Sequence[ParamState], hparams: dict[str, Any]) -> None:
    """The same for tensors of one device and dtype, in few calls: for a GPU and small tensors.

    A list's temporaries are several times as large as all of it, so lists are not made long.
    """
    most = _largest() if states and states[0].p.is_cpu else LIST
    first = size = 0
    for i, state in enumerate(states):
        if i > first and size + state.p.numel() > most:
            _in_list(variant, states[first:i], hparams)
            first, size = i, 0
        size += state.p.numel()
    _in_list(variant, states[first:], hparams)


def _in_list(variant: Variant, states: Sequence[ParamState], hparams: dict[str, Any]) -> None:
    """The variant is evaluated once, on all tensors end to end."""
    if len(states) < 2:
        for state in states:
            step_chunked(variant, state, hparams)
        return
    params, grads = [state.p for state in states], [state.g for state in states]
    if hparams["maximize"]:
        grads = list(torch._foreach_neg(grads))
    memories = list(zip(*(state.memory for state in states), strict=True))
    joined = tuple(_joined(tensors) for tensors in memories)
    values = hparams | seen(variant, _joined(grads), joined, hparams)
    direction = variant.direction(values)
    lr = hparams["lr"]
    new = [upcast(p) for p in params]
    torch._foreach_mul_(new, 1 - lr * hparams["weight_decay"])
    if isinstance(lr, Tensor):
        torch._foreach_sub_(new, _split(direction * lr, params))
    else:
        torch._foreach_add_(new, _split(direction, params), alpha=-lr)
    if new[0] is not params[0]:
        torch._foreach_copy_(params, new)
    write(joined, [function(values) for function in variant.remember], hparams)
    for tensors, whole in zip(memories, joined, strict=True):
        torch._foreach_copy_(list(tensors), _split(whole, tensors))


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def _split(whole: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    lines = whole.split([t.numel() for t in like])
    return [line.view(t.shape) for line, t in zip(lines, like, strict=True)]
