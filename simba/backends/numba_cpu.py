"""Compiled steps on a CPU, made from the variants' own functions in simba/directions.py.

numba makes one loop a variant, which runs over all float32 tensors of a group and does to each
coordinate, in the same order and rounding, what the eager step does: the bits are the same. It is
compiled at the first step, in about a second, and kept on disk for the next process, which takes
half of that to load it. Only for that is numba needed.
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

from simba import directions, noise, scale, state
from simba.backends.eager import same_order
from simba.types import Function, ParamState, Variant

try:
    import numba
except ImportError:
    raise ImportError("fused=True needs numba: pip install numba") from None
from llvmlite import ir
from numba import float32, int32, int64, types, uint32
from numba.extending import intrinsic, overload, register_jitable

PLAIN = (Tensor, torch.nn.Parameter)
MIN_SHARE = 2**20  # elements: fewer are not worth a thread
DTYPES = {
    torch.float32: numba.float32,
    torch.int8: numba.int8,
    torch.int16: numba.int16,
    torch.uint8: numba.uint8,
}
FIELDS = 8  # integers a tensor: addresses of p, g, two memories; size; first and key of its noise
LARGEST, FRACTION = float32(scale.LARGEST), float32(scale.FRACTION)
KNOWS = "abs, choose, arithmetic, comparisons, torch's add, clamp, floor, round, sign and where"


def step(
    variant: Variant, states: Sequence[ParamState], hparams: dict[str, Any]
) -> list[ParamState]:
    """Take the step of tensors of one device and dtype; those it cannot take are returned."""
    taken: dict[tuple[torch.dtype, ...], list[ParamState]] = {}
    left: list[ParamState] = []
    for each in states:
        if _is_plain(each):
            taken.setdefault(tuple(t.dtype for t in each.memory), []).append(each)
        else:
            left.append(each)
    for dtypes, alike in taken.items():
        on_cpu(variant, dtypes, alike, hparams)
    return left


def _is_plain(each: ParamState) -> bool:
    """Float32 in memory, all in one order and without gaps: a compiled loop can run over it."""
    for t in each.tensors:
        # a subclass may keep its numbers elsewhere, and a lazy minus is not among them
        if type(t) not in PLAIN or not t.is_cpu or t.is_neg():
            return False
    if not each.p.dtype == each.g.dtype == torch.float32:
        return False
    return all(t.dtype in DTYPES for t in each.memory) and same_order(each)


def on_cpu(
    variant: Variant,
    dtypes: tuple[torch.dtype, ...],
    states: Sequence[ParamState],
    hparams: dict[str, Any],
) -> None:
    names = tuple(sorted(variant.arguments & hparams.keys()))
    packed = len(dtypes) < len(variant.names)
    if packed:
        names += ("radix", "half_radix", "inv_radix")
    loop = _loop(variant, names, dtypes)
    table, floats = array("q"), array("d")  # plain numbers are the quickest to pass
    for p, g, memory, own in states:
        pointers = [t.data_ptr() for t in (p, g, *memory)] + [0] * (2 - len(memory))
        words = own["key"] if variant.random else (0, 0)
        table.extend((*pointers, p.numel(), own.get("first", 0), *words))
        floats.extend((own.get("inv_spacing", 1.0), own.get("place", 1.0)))
    torch.autograd.graph.increment_version([each.p for each in states])
    sign = -1.0 if hparams["maximize"] else 1.0
    numbers = tuple(float(hparams[name]) for name in names) or (0.0,)
    lr = float(hparams["lr"])
    arguments = sign, numbers, lr, 1 - lr * hparams["weight_decay"]
    addresses = table.buffer_info()[0], floats.buffer_info()[0]

    def run(start: int, stop: int) -> array:
        sums = array("q", bytes(16 * len(states)))
        loop(*addresses, sums.buffer_info()[0], len(states), start, stop, *arguments)
        return sums

    try:
        shares = _in_threads(run, sum(table[4::FIELDS]))
    except numba.errors.TypingError as error:
        raise TypeError(
            f"fused=True cannot compile {variant.direction.function.__name__}: it knows {KNOWS} "
            "and functions made of them"
        ) from error
    if variant.scaled:
        rows = torch.tensor([each.own["row"] for each in states])
        for share in shares:
            states[0].own["totals"].index_add_(0, rows, torch.tensor(share).view(-1, 2))


def _in_threads(run: Callable[[int, int], array], total: int) -> list[array]:
    """All of range(total), each of torch's threads its share if that is worth it."""
    shares = max(1, min(torch.get_num_threads(), total // MIN_SHARE))
    bounds = [total * k // shares for k in range(shares + 1)]
    others = [
        _threads(torch.get_num_threads(), os.getpid()).submit(run, *bound)
        for bound in pairwise(bounds[1:])
    ]
    return [run(*bounds[:2]), *(other.result() for other in others)]


@cache
def _threads(count: int, pid: int) -> ThreadPoolExecutor:  # a fork has none of its parent's
    return ThreadPoolExecutor(count)


@cache
def _loop(
    variant: Variant, names: tuple[str, ...], dtypes: tuple[torch.dtype, ...]
) -> Callable[..., None]:
    """The loop of a variant over (addresses of a table of integers, one of floats, one for sums;
    the number of tensors; the first and last of all their elements; ...)."""
    vote = _on_numbers(variant, variant.vote or Function.of(directions.exact), names)
    direction = _on_numbers(variant, variant.direction, names)
    remember = [_on_numbers(variant, f, names) for f in variant.remember]
    version = _version(_parts([f.function for f in variant.functions]))
    packed = len(dtypes) < len(variant.names)
    two = len(variant.names) > 1
    remember_a = remember[0] if remember else direction
    remember_b = remember[1] if two else direction
    has_a, has_b = len(dtypes) > 0, len(dtypes) > 1
    scaled, random = variant.scaled, variant.random
    type_a, type_b = ([DTYPES[dtype] for dtype in dtypes] + [numba.int8] * 2)[:2]
    width_a, width_b = type_a.bitwidth // 8, type_b.bitwidth // 8
    radix_at = len(names) - 3

    def loop(table, floats, sums, length, start_all, stop_all, sign, n, lr, decay):
        if version < 0:  # never: it makes the version part of what the cache goes by
            return
        sign, lr, decay = float32(sign), float32(lr), float32(decay)
        radix, half_radix = float32(0), float32(0)
        inv_radix = float32(0)
        if packed:
            radix, half_radix = float32(n[radix_at]), float32(n[radix_at + 1])
            inv_radix = float32(n[radix_at + 2])
        rows = numba.carray(_pointer(table), (length, FIELDS), numba.int64)
        own = numba.carray(_pointer(floats), (length, 2), numba.float64)
        totals = numba.carray(_pointer(sums), (length, 2), numba.int64)
        for k in range(length):
            start, stop = max(start_all, 0), min(stop_all, rows[k, 4])
            start_all, stop_all = start_all - rows[k, 4], stop_all - rows[k, 4]
            size = max(stop - start, 0)
            p = numba.carray(_pointer(rows[k, 0] + 4 * start), size, float32)
            g = numba.carray(_pointer(rows[k, 1] + 4 * start), size, float32)
            a = numba.carray(_pointer(rows[k, 2] + width_a * start), size, type_a)
            b = numba.carray(_pointer(rows[k, 3] + width_b * start), size, type_b)
            number = uint32(rows[k, 5] + start)
            word, word2 = uint32(rows[k, 6]), uint32(rows[k, 7])
            inv_spacing, place = float32(own[k, 0]), float32(own[k, 1])
            total, total2 = int64(0), int64(0)
            for i in range(size):
                gi = sign * g[i]
                ra = float32(a[i]) if has_a else float32(0)
                rb = float32(b[i]) if has_b else float32(0)
                if packed:
                    ra, rb = state.unpack(ra, radix, half_radix, inv_radix)
                x = float32(0)
                if scaled:
                    x = scale.scaled(gi, inv_spacing)
                    distance = min(abs(x), LARGEST)
                    total += int64(int32(distance * FRACTION))
                    total2 += int64(int32(distance * distance * FRACTION))
                u, v = float32(0), float32(0)
                if random:
                    bits = _mix(number + uint32(i), word, word2)
                    u = float32(int32(bits >> uint32(16))) * float32(2**-16)
                    v = float32(int32(bits & uint32(0xFFFF))) * float32(2**-16)
                q = vote(gi, x, float32(0), ra, rb, u, v, place, n)
                p[i] = p[i] * decay - lr * direction(gi, x, q, ra, rb, u, v, place, n)
                if packed:
                    na = remember_a(gi, x, q, ra, rb, u, v, place, n)
                    nb = remember_b(gi, x, q, ra, rb, u, v, place, n)
                    a[i] = type_a(state.pack(na, nb, radix))
                else:
                    if has_a:
                        na = remember_a(gi, x, q, ra, rb, u, v, place, n)
                    if has_b:
                        b[i] = type_b(remember_b(gi, x, q, ra, rb, u, v, place, n))
                    if has_a:
                        a[i] = type_a(na)
            if scaled:
                totals[k, 0], totals[k, 1] = total, total2

    def compiled(cache: bool) -> Callable[..., None]:
        return numba.njit(error_model="numpy", nogil=True, cache=cache)(loop)

    try:
        return compiled(cache=version > 0)
    except RuntimeError:  # there is no folder to keep it in
        return compiled(cache=False)


def _on_numbers(variant: Variant, function: Function, names: tuple[str, ...]) -> Callable[..., Any]:
    """A function on single numbers: (g, x, q, both memories, noise, place, hyperparameters)."""
    for part in _parts([function.function]):
        register_jitable(part)
    values = {name: f"float32(n[{k}])" for k, name in enumerate(names)}
    values |= dict(zip(variant.names, ("a", "b"), strict=False))
    values |= {name: name for name in ("g", "x", "q", "place")}
    values |= {"noise_s": "u", "noise_e": "v"}
    given = ", ".join(values[name] for name in function.arguments)
    call = f"lambda g, x, q, a, b, u, v, place, n: function({given})"
    return register_jitable(eval(call, {"function": function.function, "float32": float32}))


def _parts(functions: Sequence[Callable[..., Any]]) -> list[FunctionType]:
    """Functions and the functions that they are made of."""
    found: list[FunctionType] = []
    for function in functions:
        assert isinstance(function, FunctionType)
        found += [function] if function not in found else []
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
        modules = {f.__module__ for f in functions} | {m.__name__ for m in (noise, scale, state)}
        source = [inspect.getsource(sys.modules[module]) for module in sorted(modules)]
    except (OSError, TypeError):
        return 0
    return int(hashlib.sha256("\n".join(source + constants).encode()).hexdigest()[:15], 16)


for helper in (scale.scaled, state.unpack, state.pack):
    register_jitable(helper)


@register_jitable
def _mix(number, word, word2):
    """simba/noise.py's mix, in words of 32 bits."""
    x = uint32(number ^ word)
    x = uint32(uint32(x ^ (x >> uint32(16))) * uint32(0x7FEB352D))
    x = uint32(uint32(x ^ word2 ^ (x >> uint32(15))) * uint32(0x846CA68B))
    return uint32(x ^ (x >> uint32(16)))


@overload(torch.sign)
def _sign(x):
    if isinstance(x, types.Float):
        return lambda x: float32(1 if x > 0 else -1 if x < 0 else 0)


@overload(torch.clamp)
def _clamp(x, low, high):
    return lambda x, low, high: float32(min(max(x, low), high))


@overload(torch.add)
def _add(a, b, alpha):
    return lambda a, b, alpha: _fma(b, alpha, a)


@overload(torch.floor)
def _floor(x):
    return lambda x: _rounded_down(x)


@overload(torch.round)
def _round(x):
    return lambda x: _rounded(x)


@overload(directions.choose)
def _choose(margin, memory, g):
    return lambda margin, memory, g: torch.sign(memory if margin > 0 else g)


@overload(torch.where)
def _where(condition, a, b):
    if isinstance(condition, types.Boolean):
        return lambda condition, a, b: float32(a) if condition else float32(b)


@intrinsic
def _fma(typing_context, a, b, c):
    """a * b + c, rounded once, as torch's own add with alpha does it."""
    return a(a, b, c), lambda context, builder, sig, args: builder.fma(*args)


@intrinsic
def _rounded_down(typing_context, x):
    return x(x), _llvm("llvm.floor")


@intrinsic
def _rounded(typing_context, x):
    """To the nearest whole number, halves to even ones."""
    return x(x), _llvm("llvm.rint")


def _llvm(name):
    def generate(context, builder, sig, args):
        function = builder.module.declare_intrinsic(name, [args[0].type])
        return builder.call(function, args)

    return generate


@intrinsic
def _pointer(typing_context, address):
    byte = ir.IntType(8).as_pointer()
    make = lambda context, builder, sig, args: builder.inttoptr(args[0], byte)  # noqa: E731
    return types.voidptr(address), make
