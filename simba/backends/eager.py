"""The eager step, in torch operations.

It steps one tensor (whole or chunk by chunk), or many tensors together.

``hparams`` maps the names that formulas use to a group's hyperparameters (simba/base.py).
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from simba.noise import bits, round_stochastically, uniforms
from simba.scale import scaled, sums
from simba.state import read_memories, upcast, write_memories
from simba.types import ParamState, Variant

# Large enough to amortize the overhead of a torch call; small enough that malloc reuses the memory
# of temporaries instead of returning it to the system.
CHUNK_ELEMENTS = 2**16
GRAIN_SIZE = 2**15  # torch gives a CPU thread at least this many elements
MAX_FOREACH_ELEMENTS_GPU = 2**22  # the most elements of one foreach call on a GPU, over all tensors


def update(variant: Variant, state: ParamState, hparams: dict[str, Any]) -> None:
    """Step one tensor in place.

    For bfloat16 and float16 parameters, the step is computed in float32 and rounded once.
    """
    p, g, memory, step_values = state
    g = -g if hparams["maximize"] else g
    values = hparams | step_values
    values |= function_arguments(variant, g, memory, values)
    if variant.scaled:
        step_values["totals"][step_values["row"]] += sums(values["x"])
    direction = variant.direction(values)
    lr = hparams["lr"]
    new = upcast(p)
    new.mul_(1 - lr * hparams["weight_decay"])
    if isinstance(lr, Tensor):
        new.sub_(direction * lr)
    else:
        new.add_(direction.to(new.dtype), alpha=-lr)
    if new is not p:
        words = step_values.get("rounding_key")
        if words:
            new = round_stochastically(new, bits(step_values["offset"], new, words))
        p.copy_(new)
    write_memories(memory, [function(values) for function in variant.remember], hparams)


def function_arguments(
    variant: Variant, g: Tensor, memory: tuple[Tensor, ...], values: dict[str, Any]
) -> dict[str, Tensor]:
    """The tensors that a variant's functions take, by the names of their arguments.

    Args:
        g: the gradient.
        memory: the stored memories, each of the gradient's shape.
        values: hyperparameters and ``ParamState.step_values``.

    Returns:
        ``g``, the memories, and what the variant uses of ``x`` (scaled gradient), ``noise_s``,
        ``noise_e`` and ``q`` (vote), all of the gradient's shape; bfloat16, float16 and integers
        are converted to float32.
    """
    g = upcast(g)
    arguments = {"g": g, **read_memories(variant.names, memory, values)}
    if variant.scaled:
        arguments["x"] = scaled(g, values["inv_spacing"])
    if variant.random:
        noise = uniforms(values["offset"], g, values["noise_key"])
        arguments["noise_s"], arguments["noise_e"] = noise
    if variant.vote is not None:
        arguments["q"] = variant.vote(values | arguments)
    return arguments


def step_chunked(variant: Variant, state: ParamState, hparams: dict[str, Any]) -> None:
    """Step one tensor in place; on a CPU chunk by chunk, so that temporaries stay small."""
    small = state.p.is_contiguous() and state.p.numel() <= _max_chunk_elements()
    for chunk in [state] if small or not state.p.is_cpu else chunks(state, _max_chunk_elements()):
        update(variant, chunk, hparams)


def chunks(state: ParamState, max_elements: int) -> Iterator[ParamState]:
    """Divide a state into chunks in the parameter's memory order.

    A chunk has at most ``max_elements``, or one slice along the outermost dimension if that is
    larger.
    """
    state = flat(state)
    length = state.p.shape[0] if state.p.dim() else 1
    row = max(1, state.p.numel() // max(1, length))
    rows = max(1, max_elements // row)
    for first in range(0, length, rows):
        p, g, *memory = (t[first : first + rows] for t in state.tensors)
        step_values = state.step_values
        if step_values:
            step_values = step_values | {"offset": step_values["offset"] + first * row}
        yield ParamState(p, g, tuple(memory), step_values)


def flat(state: ParamState) -> ParamState:
    """Views of a state's tensors, with dimensions in the parameter's memory order.

    The views have one dimension if all tensors are contiguous in that order.
    """
    p, tensors = state.p, list(state.tensors)
    if not p.is_contiguous():
        order = sorted(range(p.dim()), key=p.stride, reverse=True)
        tensors = [t.permute(order) for t in tensors]
    if all(t.numel() == p.numel() and t.is_contiguous() for t in tensors):
        tensors = [t.view(-1) for t in tensors]
    return ParamState(tensors[0], tensors[1], tuple(tensors[2:]), state.step_values)


def _max_chunk_elements() -> int:
    """The most elements of a chunk, enough for every thread. A traced step is not divided."""
    if torch.compiler.is_compiling():
        return sys.maxsize
    return max(CHUNK_ELEMENTS, GRAIN_SIZE * torch.get_num_threads())


def step_foreach(variant: Variant, states: Sequence[ParamState], hparams: dict[str, Any]) -> None:
    """Step tensors of one device and dtype in place, in few calls, as torch's foreach does.

    Temporaries are several times as large as the tensors of one call, so calls are limited in size.
    """
    on_cpu = states and states[0].p.is_cpu
    max_elements = _max_chunk_elements() if on_cpu else MAX_FOREACH_ELEMENTS_GPU
    first = size = 0
    for i, state in enumerate(states):
        if i > first and size + state.p.numel() > max_elements:
            _step_joined(variant, states[first:i], hparams)
            first, size = i, 0
        size += state.p.numel()
    _step_joined(variant, states[first:], hparams)


def _step_joined(variant: Variant, states: Sequence[ParamState], hparams: dict[str, Any]) -> None:
    """Evaluate the variant's functions once, on the concatenation of all tensors."""
    if len(states) < 2:
        for state in states:
            step_chunked(variant, state, hparams)
        return
    params, grads = [state.p for state in states], [state.g for state in states]
    if hparams["maximize"]:
        grads = list(torch._foreach_neg(grads))
    memories = list(zip(*(state.memory for state in states), strict=True))
    joined = tuple(_concatenate(tensors) for tensors in memories)
    values = hparams | function_arguments(variant, _concatenate(grads), joined, hparams)
    direction = variant.direction(values)
    lr = hparams["lr"]
    new = [upcast(p) for p in params]
    torch._foreach_mul_(new, 1 - lr * hparams["weight_decay"])
    if isinstance(lr, Tensor):
        torch._foreach_sub_(new, _split_like(direction * lr, params))
    else:
        torch._foreach_add_(new, _split_like(direction, params), alpha=-lr)
    if new[0] is not params[0]:
        torch._foreach_copy_(params, new)
    write_memories(joined, [function(values) for function in variant.remember], hparams)
    for tensors, whole in zip(memories, joined, strict=True):
        torch._foreach_copy_(list(tensors), _split_like(whole, tensors))


def _concatenate(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def _split_like(whole: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    slices = whole.split([t.numel() for t in like])
    return [part.view(t.shape) for part, t in zip(slices, like, strict=True)]
