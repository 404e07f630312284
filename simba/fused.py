"""Compiled steps, made from the rows' own functions in simba/directions.py.

On a CPU numba makes one loop a row, which runs over all float32 tensors of a group and does to each
coordinate, in the same order and rounding, what the plain step does: the bits are the same. It is
compiled at the first step, in about a second, and kept on disk for the next process, which takes
half of that to load it. Only for that is numba needed.

Tensors on a GPU are for simba/compiled.py.
"""

import hashlib
import inspect
import os
import sys
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from simba import directions
from simba.update import Rule, Slot, lies_alike

try:
    import numba
except ImportError:
    raise ImportError("fused=True needs numba: pip install numba") from None
from llvmlite import ir
from numba import float32, types
from numba.extending import intrinsic, overload, register_jitable

PLAIN = (Tensor, torch.nn.Parameter)
SHARE = 2**20  # elements: fewer are not worth a thread
COUNTERS = {torch.int8: numba.int8, torch.int16: numba.int16}


def fused_step(rule: Rule, slots: Sequence[Slot], numbers: dict[str, Any]) -> list[Slot]:
    """Take the step of slots of one device and dtype; those it cannot take are returned."""
    taken: list[Slot] = []
    left: list[Slot] = []
    for slot in slots:
        (taken if _is_plain(slot) else left).append(slot)
    if taken:
        on_cpu(rule, taken, numbers)
    return left


def _is_plain(slot: Slot) -> bool:
    """Float32 in memory, all in one order and without gaps: a compiled loop can run over it."""
    for t in slot:
        # a subclass may keep its numbers elsewhere, and a lazy minus is not among them
        if t is not None and (type(t) not in PLAIN or not t.is_cpu or t.is_neg()):
            return False
    p, g, m, _ = slot
    floats = p.dtype == g.dtype == torch.float32 and (m is None or m.dtype == torch.float32)
    return floats and lies_alike(slot)


def on_cpu(rule: Rule, slots: Sequence[Slot], numbers: dict[str, Any]) -> None:
    first = slots[0]
    names = tuple(name for name in rule.arguments if name not in ("g", "m", "s"))
    counter = None if first.s is None else first.s.dtype
    loop = _loop(rule, names, first.m is not None, counter)
    table = array("q")  # five integers a tensor: plain numbers are the quickest to pass
    for slot in slots:
        addresses = [0 if t is None else t.data_ptr() for t in slot]
        table.extend((*addresses, slot.p.numel()))
    torch.autograd.graph.increment_version([slot.p for slot in slots])
    sign = -1.0 if numbers["maximize"] else 1.0
    of_row = tuple(float(numbers[name]) for name in names) or (0.0,)
    lr, b2, window = float(numbers["lr"]), numbers.get("b2", 0.0), numbers.get("window_size", 0)
    scalars = map(float, (lr, 1 - lr * numbers["weight_decay"], b2, 1 - b2, window))
    arguments = sign, of_row, *scalars

    def run(start: int, stop: int) -> None:
        loop(table.buffer_info()[0], len(slots), start, stop, *arguments)

    try:
        _in_threads(run, sum(table[4::5]))
    except numba.errors.TypingError as error:
        raise TypeError(
            f"fused=True cannot compile {rule.function.__name__}: it knows abs, choose, "
            "torch.sign, torch.where, arithmetic, comparisons and functions made of them"
        ) from error


def _in_threads(run: Callable[[int, int], None], total: int) -> None:
    """All of range(total), each of torch's threads its share if that is worth it."""
    shares = max(1, min(torch.get_num_threads(), total // SHARE))
    bounds = [total * k // shares for k in range(shares + 1)]
    others = [
        _threads(torch.get_num_threads(), os.getpid()).submit(run, *bound)
        for bound in pairwise(bounds[1:])
    ]
    run(*bounds[:2])
    for other in others:
        other.result()


@cache
def _threads(count: int, pid: int) -> ThreadPoolExecutor:  # a fork has none of its parent's
    return ThreadPoolExecutor(count)


@cache
def _loop(
    rule: Rule, names: tuple[str, ...], has_m: bool, counter: torch.dtype | None
) -> Callable[..., None]:
    """The loop of a rule over (a table of the addresses of p, g, m, s and their size, its length;
    the first and last of all its elements; ...)."""
    direction = _on_numbers(rule, names)
    version = _version(_parts(rule.function))
    has_s, count = counter is not None, COUNTERS[counter or torch.int8]
    width = count.bitwidth // 8

    def loop(table, length, first, last, sign, n, lr, decay, b2, rest2, window):
        if version < 0:  # never: it makes the version part of what the cache goes by
            return
        sign, lr, decay = float32(sign), float32(lr), float32(decay)
        b2, rest2, window = float32(b2), float32(rest2), float32(window)
        w, low = count(window), count(-window)
        rows = numba.carray(_pointer(table), (length, 5), numba.int64)
        for k in range(length):
            start, stop = max(first, 0), min(last, rows[k, 4])
            first, last = first - rows[k, 4], last - rows[k, 4]
            size = max(stop - start, 0)
            p = numba.carray(_pointer(rows[k, 0] + 4 * start), size, float32)
            g = numba.carray(_pointer(rows[k, 1] + 4 * start), size, float32)
            m = numba.carray(_pointer(rows[k, 2] + 4 * start), size, float32)
            s = numba.carray(_pointer(rows[k, 3] + width * start), size, count)
            for i in range(size):
                gi = sign * g[i]
                mi = m[i] if has_m else float32(0)
                si = float32(s[i]) if has_s else float32(0)
                p[i] = p[i] * decay - lr * direction(gi, mi, si, n)
                if has_m:
                    m[i] = _fma(gi, rest2, mi * b2)
                if has_s:
                    # in whole numbers, which is quicker; there may be no room for w + 1
                    up, down = (gi > 0) & (s[i] < w), (gi < 0) & (s[i] > -w)
                    s[i] = max(min(count(s[i] + count(up) - count(down)), w), low)

    def compiled(cache: bool) -> Callable[..., None]:
        return numba.njit(error_model="numpy", nogil=True, cache=cache)(loop)

    try:
        return compiled(cache=version > 0)
    except RuntimeError:  # there is no folder to keep it in
        return compiled(cache=False)


def _on_numbers(rule: Rule, names: tuple[str, ...]) -> Callable[..., float]:
    """The rule on single numbers: (g, m, s, its other arguments as a tuple)."""
    for part in _parts(rule.function):
        register_jitable(part)
    taken = {name: f"float32(n[{k}])" for k, name in enumerate(names)}
    call = f"lambda g, m, s, n: rule({', '.join(taken.get(a, a) for a in rule.arguments)})"
    return register_jitable(eval(call, {"rule": rule.function, "float32": float32}))


def _parts(function: Callable[..., Tensor]) -> list[FunctionType]:
    """A rule and the functions that it is made of."""
    assert isinstance(function, FunctionType)
    found = [function]
    for part in found:  # which grows
        for name in part.__code__.co_names:
            new = part.__globals__.get(name)
            if isinstance(new, FunctionType) and new not in (*found, directions.choose):
                found.append(new)
    return found


def _version(functions: Sequence[FunctionType]) -> int:
    """A number that changes with the source of the functions' modules and with the constants that
    they use; 0 where it cannot be told."""
    constants = []
    for function in functions:
        used = inspect.getclosurevars(function)
        for name, value in sorted([*used.globals.items(), *used.nonlocals.items()]):
            if isinstance(value, int | float | tuple):
                constants.append(f"{name} = {value!r}")
            elif not callable(value) and not inspect.ismodule(value):
                return 0
    try:
        modules = sorted({f.__module__ for f in functions})
        source = [inspect.getsource(sys.modules[module]) for module in modules]
    except (OSError, TypeError):
        return 0
    return int(hashlib.sha256("\n".join(source + constants).encode()).hexdigest()[:15], 16)


@overload(torch.sign)
def _sign(x):
    if isinstance(x, types.Float):
        return lambda x: float32(1 if x > 0 else -1 if x < 0 else 0)


@overload(directions.choose)
def _choose(lead, memory, g):
    return lambda lead, memory, g: torch.sign(memory if lead > 0 else g)


@overload(torch.where)
def _where(condition, a, b):
    if isinstance(condition, types.Boolean):
        return lambda condition, a, b: a if condition else b


@intrinsic
def _fma(typing_context, a, b, c):
    """a * b + c, rounded once, as torch's own add with alpha does it."""
    return a(a, b, c), lambda context, builder, sig, args: builder.fma(*args)


@intrinsic
def _pointer(typing_context, address):
    byte = ir.IntType(8).as_pointer()
    make = lambda context, builder, sig, args: builder.inttoptr(args[0], byte)  # noqa: E731
    return types.voidptr(address), make
