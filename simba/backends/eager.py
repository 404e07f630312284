"""The reference step, by torch's own operations: whole, in parts that fit a cache, or in lists.

``hparams`` are a group's hyperparameters by the names that formulas use (simba/base.py).
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from simba.noise import uniforms
from simba.scale import scaled, sums
from simba.state import read, write
from simba.types import ParamState, Variant

CHUNK = 2**16  # elements: enough to hide each call's cost; temporaries too small to be given back
GRAIN = 2**15  # elements: torch gives no thread of a CPU fewer
LIST = 2**22  # elements of tensors that are stepped together on a GPU
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def update(variant: Variant, state: ParamState, hparams: dict[str, Any]) -> None:
    """The step of one tensor, whole."""
    p, g, memory, own = state
    g = -g if hparams["maximize"] else g
    values = hparams | own
    values |= seen(variant, g, memory, values)
    if variant.scaled:
        own["totals"][own["row"]] += sums(values["x"])
    direction = variant.direction(values)
    lr = hparams["lr"]
    p.mul_(1 - lr * hparams["weight_decay"])
    if isinstance(lr, Tensor):
        p.sub_(direction * lr)
    else:
        p.add_(direction.to(p.dtype), alpha=-lr)
    write(memory, [function(values) for function in variant.remember], hparams)


def seen(
    variant: Variant, g: Tensor, memory: tuple[Tensor, ...], values: dict[str, Any]
) -> dict[str, Tensor]:
    """What direction and memories are made of: gradient, vote, noise and the memories by name.

    Args:
        values: hyperparameters and the tensor's own numbers.
    """
    found = {"g": g, **read(variant.names, memory, values)}
    if variant.scaled:
        g = g.float() if g.dtype.itemsize < 4 else g
        found["x"] = scaled(g, values["inv_spacing"])
    if variant.random:
        noise = uniforms(values["first"], g, values["key"])
        found["noise_s"], found["noise_e"] = noise
    if variant.vote is not None:
        found["q"] = variant.vote(values | found)
    return found


def step_chunked(variant: Variant, state: ParamState, hparams: dict[str, Any]) -> None:
    """The same, part by part, on a CPU: no temporary is larger than a part."""
    for part in _chunks(state):
        update(variant, part, hparams)


def _chunks(state: ParamState) -> Iterator[ParamState]:
    size, most = state.p.numel(), _largest()
    if not state.p.is_cpu or not same_order(state) or (size <= most and state.p.is_contiguous()):
        yield state
        return
    p, g, memory, _ = flat(state)
    for first in range(0, size, most):
        part = slice(first, first + most)
        own = state.own | {"first": state.own["first"] + first} if state.own else state.own
        yield ParamState(p[part], g[part], tuple(t[part] for t in memory), own)


def flat(state: ParamState) -> ParamState:
    """Its tensors of one order as lines, as they lie in memory."""
    p, g, *memory = (t.as_strided((t.numel(),), (1,)) for t in state.tensors)
    return ParamState(p, g, tuple(memory), state.own)


def _largest() -> int:
    """Elements of a part: enough for every thread. A traced step is not divided."""
    if torch.compiler.is_compiling():
        return sys.maxsize
    return max(CHUNK, GRAIN * torch.get_num_threads())


def same_order(state: ParamState) -> bool:
    """Whether its tensors are equally long and lie in memory in one order, without gaps."""
    tensors, size = state.tensors, state.p.numel()
    if all(t.numel() == size and t.is_contiguous() for t in tensors):
        return True
    last = LAST.get(state.p.dim())
    return last is not None and all(
        t.numel() == size and t.is_contiguous(memory_format=last) for t in tensors
    )


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
    torch._foreach_mul_(params, 1 - lr * hparams["weight_decay"])
    if isinstance(lr, Tensor):
        torch._foreach_sub_(params, _split(direction * lr, params))
    else:
        torch._foreach_add_(params, _split(direction, params), alpha=-lr)
    write(joined, [function(values) for function in variant.remember], hparams)
    for tensors, flat in zip(memories, joined, strict=True):
        torch._foreach_copy_(list(tensors), _split(flat, tensors))


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def _split(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = flat.split([t.numel() for t in like])
    return [part.view(t.shape) for part, t in zip(parts, like, strict=True)]
