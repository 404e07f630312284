"""A step on tensors, without a compiler: whole, in parts that fit a cache, or in lists.

A ``Slot`` is a parameter with its gradient and memory; ``numbers`` are a group's hyperparameters by
the names that formulas use (see SignOptimizer).
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK = 2**16  # elements: enough to hide each call's cost; temporaries too small to be given back
GRAIN = 2**15  # elements: torch gives no thread of a CPU fewer
LIST = 2**22  # elements of tensors that are stepped together on a GPU
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Slot(NamedTuple):
    p: Tensor
    g: Tensor
    m: Tensor | None
    s: Tensor | None


class Rule(NamedTuple):
    """A function of simba/directions.py and the names of what it takes."""

    function: Callable[..., Tensor]
    arguments: tuple[str, ...]

    @classmethod
    def of(cls, function: Callable[..., Tensor]) -> "Rule":
        return cls(function, tuple(signature(function).parameters))

    def __call__(self, g: Tensor, m: Tensor | None, s: Tensor | None, numbers: Any) -> Tensor:
        values = {**numbers, "g": g, "m": m, "s": s}
        return self.function(*(values[name] for name in self.arguments))


def update(rule: Rule, slot: Slot, numbers: dict[str, Any]) -> None:
    """The step of the whole slot at once."""
    p, g, m, s = slot
    if numbers["maximize"]:
        g = -g
    direction = rule(g, m, s, numbers)
    lr = numbers["lr"]
    p.mul_(1 - lr * numbers["weight_decay"])
    if isinstance(lr, Tensor):
        p.sub_(direction * lr)
    else:
        p.add_(direction, alpha=-lr)
    if m is not None:
        m.mul_(numbers["b2"]).add_(g, alpha=1 - numbers["b2"])
    if s is not None:
        count(s, g, numbers["window_size"])


def count(s: Tensor, g: Tensor, window: int) -> None:
    """s <- clamp(s + sign(g), -window, window), though s may have no room for window + 1."""
    s.copy_(s.to(torch.float32).add_(g.sign()).clamp_(-window, window))  # float32 holds them all


def in_chunks(rule: Rule, slot: Slot, numbers: dict[str, Any]) -> None:
    """The same, part by part, on a CPU: no temporary is larger than a part."""
    for part in _chunks(slot):
        update(rule, part, numbers)


def _chunks(slot: Slot) -> Iterator[Slot]:
    size, most = slot.p.numel(), _largest()
    if size <= most or not slot.p.is_cpu or not lies_alike(slot):
        yield slot
        return
    lines = [None if t is None else t.as_strided((size,), (1,)) for t in slot]
    for first in range(0, size, most):
        yield Slot(*(None if t is None else t[first : first + most] for t in lines))  # type: ignore[arg-type]


def _largest() -> int:
    """Elements of a part: enough for every thread. A traced step is not divided."""
    if torch.compiler.is_compiling():
        return sys.maxsize
    return max(CHUNK, GRAIN * torch.get_num_threads())


def lies_alike(slot: Slot) -> bool:
    """Whether its tensors are equally long and lie in memory in one order, without gaps."""
    size = slot.p.numel()
    for t in slot:
        if t is not None and not (t.numel() == size and t.is_contiguous()):
            break
    else:
        return True
    tensors, last = [t for t in slot if t is not None], LAST.get(slot.p.dim())
    return last is not None and all(
        t.numel() == size and t.is_contiguous(memory_format=last) for t in tensors
    )


def in_lists(rule: Rule, slots: Sequence[Slot], numbers: dict[str, Any]) -> None:
    """The same for slots of one device and dtype, in few calls: for a GPU and small tensors.

    A list's temporaries are several times as large as all of it, so lists are not made long.
    """
    most = _largest() if slots and slots[0].p.is_cpu else LIST
    first = size = 0
    for i, slot in enumerate(slots):
        if i > first and size + slot.p.numel() > most:
            _in_list(rule, slots[first:i], numbers)
            first, size = i, 0
        size += slot.p.numel()
    _in_list(rule, slots[first:], numbers)


def _in_list(rule: Rule, slots: Sequence[Slot], numbers: dict[str, Any]) -> None:
    """The rule is evaluated once, on all of them end to end."""
    if len(slots) < 2:
        for slot in slots:
            in_chunks(rule, slot, numbers)
        return
    params, grads = [slot.p for slot in slots], [slot.g for slot in slots]
    ms = [slot.m for slot in slots if slot.m is not None]
    ss = [slot.s for slot in slots if slot.s is not None]
    if numbers["maximize"]:
        grads = list(torch._foreach_neg(grads))
    g, m, s = (_joined(tensors) for tensors in (grads, ms, ss))
    assert g is not None
    direction = rule(g, m, s, numbers)
    lr = numbers["lr"]
    torch._foreach_mul_(params, 1 - lr * numbers["weight_decay"])
    if isinstance(lr, Tensor):
        torch._foreach_sub_(params, _split(direction * lr, params))
    else:
        torch._foreach_add_(params, _split(direction, params), alpha=-lr)
    if ms:
        torch._foreach_mul_(ms, numbers["b2"])
        torch._foreach_add_(ms, grads, alpha=1 - numbers["b2"])
    if s is not None:
        count(s, g, numbers["window_size"])
        torch._foreach_copy_(ss, _split(s, ss))


def _joined(tensors: Sequence[Tensor]) -> Tensor | None:
    return torch.cat([t.reshape(-1) for t in tensors]) if tensors else None


def _split(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = flat.split([t.numel() for t in like])
    return [part.view(t.shape) for part, t in zip(parts, like, strict=True)]
