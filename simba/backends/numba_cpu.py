"""Compiled CPU steps, built from the functions of the variants in simba/directions.py.

numba compiles one loop per variant and combination of dtypes. It runs over all tensors of a group
with these dtypes. It applies the operations of the eager step to each coordinate, with the same
order and rounding, so the results are bitwise identical. For bfloat16 and float16 parameters, the
step is computed in float32, as in the eager step.

The loop needs contiguous memory. Non-contiguous tensors, and tensors whose strides differ, are
copied chunk by chunk. The first step compiles the loop in about 2 seconds. The machine code is
cached on disk; loading it takes about 1 second. Only this module of the package needs numba.
"""

import hashlib
import inspect
import os
import sys
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from itertools import pairwise
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from simba import directions, noise, scale, state
from simba.backends.eager import CHUNK_ELEMENTS, chunks, flat
from simba.types import NamedFunction, ParamState, Variant

try:
    import numba
except ModuleNotFoundError as error:
    if error.name != "numba":
        raise
    raise ImportError(
        "fused=True needs numba: pip install 'simba-optim[fused]', or '.[fused]' in a checkout"
    ) from None
from llvmlite import ir
from numba import float32, int32, int64, types, uint16, uint32
from numba.core import cgutils
from numba.core.caching import FunctionCache
from numba.extending import intrinsic, overload, register_jitable

SUPPORTED_TYPES = (Tensor, torch.nn.Parameter)
MIN_ELEMENTS_PER_THREAD = 2**20  # with fewer, starting a thread takes longer than it saves
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
NUMBA_INTEGERS = {torch.int8: numba.int8, torch.int16: numba.int16, torch.uint8: numba.uint8}
# Integers per tensor: the addresses of p, g and two memories; the size; the index of the first
# coordinate; two words of the noise key; two words of the rounding key.
FIELDS = 10
P, G, A, B, SIZE, OFFSET, NOISE_KEY0, NOISE_KEY1, ROUNDING_KEY0, ROUNDING_KEY1 = range(FIELDS)
MAX_SCALED_GRADIENT = float32(scale.MAX_SCALED_GRADIENT)
FRACTION = float32(scale.FRACTION)
# The loop prefetches memory this many elements before it needs it. The prefetchers of CPUs do not
# look far enough ahead of a loop with so many operations per byte.
AHEAD = 2**10
# It does so block by block. Over a block of this many elements, a sum of abs(x) fits in 32 bits.
# The sum of squares is kept as two sums, of the lower and the upper 16 bits. A vector register
# holds twice as many 32-bit as 64-bit sums.
BLOCK = 2**8
CACHE_LINE = 64  # bytes
SUPPORTED_OPERATIONS = (
    "abs, choose, arithmetic, comparisons, torch's add, clamp, floor, round, sign and where"
)


class _Cache(FunctionCache):
    """Caches machine code on disk. A full disk or a damaged file is not an error.

    models/ops/kernels.py has a copy, because ``models`` and ``simba`` do not import each other.
    """

    def load_overload(self, *arguments: Any) -> Any:
        try:
            return super().load_overload(*arguments)
        except Exception:  # unpickling a damaged file can raise any exception
            return None

    def save_overload(self, *arguments: Any) -> None:
        with suppress(Exception):
            super().save_overload(*arguments)


def step(
    variant: Variant, states: Sequence[ParamState], hparams: dict[str, Any]
) -> list[ParamState]:
    """Step CPU tensors of one dtype in place.

    Args:
        hparams: the group's hyperparameters, see ``simba.base.hyperparameters``.

    Returns:
        The states that the compiled loop does not support (for example float64); their step has not
        been taken.

    Raises:
        TypeError: a function of the variant uses an operation that numba does not compile here.
    """
    if numba.config.DISABLE_JIT:
        return list(states)
    dense: dict[tuple[torch.dtype, ...], list[ParamState]] = {}
    unsupported: list[ParamState] = []
    for each in states:
        if not _is_supported(each.tensors):
            unsupported.append(each)
            continue
        view = each if each.p.is_contiguous() else flat(each)
        if all(t.is_contiguous() and not t.is_neg() for t in view.tensors):
            dense.setdefault(tuple(t.dtype for t in view.memory), []).append(view)
        else:
            for chunk in chunks(each, CHUNK_ELEMENTS):
                _step_copied(variant, chunk, hparams)
    for same_dtypes in dense.values():
        run_loop(variant, same_dtypes, hparams)
    return unsupported


def _is_supported(tensors: tuple[Tensor, ...]) -> bool:
    """Whether the loop can read tensors: CPU tensors of one size, no subclasses, known dtypes."""
    p, g, *memory = tensors
    if p.dtype not in FLOATS or g.dtype != p.dtype:
        return False
    size = p.numel()
    for t in tensors:  # a subclass may store its elements elsewhere
        if type(t) not in SUPPORTED_TYPES or not t.is_cpu or t.numel() != size:
            return False
    return all(t.dtype in NUMBA_INTEGERS or t.dtype == p.dtype for t in memory)


def _step_copied(variant: Variant, chunk: ParamState, hparams: dict[str, Any]) -> None:
    copies = [t.resolve_neg().contiguous().view(-1) for t in chunk.tensors]
    copied = ParamState(copies[0], copies[1], tuple(copies[2:]), chunk.step_values)
    run_loop(variant, [copied], hparams)
    for t, copy in zip((chunk.p, *chunk.memory), (copies[0], *copies[2:]), strict=True):
        if t.data_ptr() != copy.data_ptr():
            t.copy_(copy.view(t.shape))


def run_loop(variant: Variant, states: Sequence[ParamState], hparams: dict[str, Any]) -> None:
    """Run the compiled loop over contiguous tensors of the same dtypes and update them in place.

    Raises:
        TypeError: a function of the variant uses an operation that numba does not compile here.
    """
    first = states[0]
    dtypes = (first.p.dtype, *(t.dtype for t in first.memory))
    names = tuple(sorted(variant.arguments & hparams.keys()))
    if state.is_packed(variant.names, first.memory):
        names += ("radix", "half_radix", "inv_radix")
    loop = _loop(variant, names, dtypes, "rounding_key" in first.step_values)
    table, floats = array("q"), array("d")  # numba takes Python numbers with the least overhead
    for p, g, memory, step_values in states:
        pointers = [t.data_ptr() for t in (p, g, *memory)] + [0] * (2 - len(memory))
        words = (*step_values.get("noise_key", (0, 0)), *step_values.get("rounding_key", (0, 0)))
        table.extend((*pointers, p.numel(), step_values.get("offset", 0), *words))
        floats.extend((step_values.get("inv_spacing", 1.0), step_values.get("place", 1.0)))
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
        sums_by_thread = _in_threads(run, sum(table[SIZE::FIELDS]))
    except numba.errors.TypingError as error:
        raise TypeError(
            f"fused=True cannot compile one of {', '.join(names_of(variant))}: they may use only "
            f"{SUPPORTED_OPERATIONS}, and functions of these"
        ) from error
    if variant.scaled:
        # The default device may be another one.
        parts = [torch.tensor(sums, device="cpu").view(-1, 2) for sums in sums_by_thread]
        _add_to_totals(states, torch.stack(parts).sum(0))


def names_of(variant: Variant) -> list[str]:
    """The names of a variant's functions."""
    return list(dict.fromkeys(each.function.__name__ for each in variant.functions))


def _add_to_totals(states: Sequence[ParamState], sums: Tensor) -> None:
    """Add the loop's sums, (states, 2), to ``totals``, with the third column of ``scale.sums``."""

    def is_nonzero(state: ParamState) -> bool:
        x = scale.scaled(state.g.float(), state.step_values["inv_spacing"])
        return bool((x != 0).any())

    # The loop does not compute the third column, because it is seldom needed.
    found = [int(a != 0 or is_nonzero(s)) for a, s in zip(sums[:, 0].tolist(), states, strict=True)]
    rows = torch.tensor([each.step_values["row"] for each in states], device="cpu")
    totals = states[0].step_values["totals"]
    columns = [sums, torch.tensor(found, device="cpu")]
    totals.index_add_(0, rows, torch.column_stack(columns))


def _in_threads(run: Callable[[int, int], array], total: int) -> list[array]:
    """Call ``run`` on range(total), divided among torch's threads if that is large enough."""
    count = max(1, min(torch.get_num_threads(), total // MIN_ELEMENTS_PER_THREAD))
    bounds = [total * k // count for k in range(count + 1)]
    others = [
        _threads(torch.get_num_threads(), os.getpid()).submit(run, *bound)
        for bound in pairwise(bounds[1:])
    ]
    return [run(*bounds[:2]), *(other.result() for other in others)]


@cache
def _threads(count: int, pid: int) -> ThreadPoolExecutor:  # a forked process needs its own pool
    return ThreadPoolExecutor(count)


@cache
def _loop(
    variant: Variant,
    names: tuple[str, ...],
    dtypes: tuple[torch.dtype, ...],
    stochastic_rounding: bool,
) -> Callable[..., None]:
    """Compile the loop of a variant for a parameter and memories of these dtypes.

    The loop takes the addresses of three arrays (integers, floats, sums), the number of tensors,
    and the range of elements, counted over all tensors, that this thread computes.
    """
    vote = _on_numbers(variant, variant.vote or NamedFunction.of(directions.exact), names)
    direction = _on_numbers(variant, variant.direction, names)
    remember = [_on_numbers(variant, f, names) for f in variant.remember]
    version = _version(_called_functions([f.function for f in variant.functions]))
    packed = state.is_packed(variant.names, dtypes[1:])
    two = len(variant.names) > 1
    remember_a = remember[0] if remember else direction
    remember_b = remember[1] if two else direction
    has_a, has_b = len(dtypes) > 1, len(dtypes) > 2
    scaled, random = variant.scaled, variant.random
    (type_p, read_p, write_p), (type_a, read_a, write_a), (type_b, read_b, write_b) = [
        _numba_type(dtype) for dtype in (*dtypes, torch.int8, torch.int8)[:3]
    ]
    width_p, width_a, width_b = (t.bitwidth // 8 for t in (type_p, type_a, type_b))
    radix_at = len(names) - 3

    def loop(table, floats, sums, length, start_all, stop_all, sign, n, lr, decay):
        if version < 0:  # never true: it makes the version a part of the cache key
            return
        _prefer_512_bit_vectors()
        sign, lr, decay = float32(sign), float32(lr), float32(decay)
        radix, half_radix = float32(0), float32(0)
        inv_radix = float32(0)
        if packed:
            radix, half_radix = float32(n[radix_at]), float32(n[radix_at + 1])
            inv_radix = float32(n[radix_at + 2])
        rows = numba.carray(_pointer(table), (length, FIELDS), numba.int64)
        values = numba.carray(_pointer(floats), (length, 2), numba.float64)
        totals = numba.carray(_pointer(sums), (length, 2), numba.int64)
        for k in range(length):
            row = rows[k]
            start, stop = max(start_all, 0), min(stop_all, row[SIZE])
            start_all, stop_all = start_all - row[SIZE], stop_all - row[SIZE]
            noise_key0, noise_key1 = uint32(row[NOISE_KEY0]), uint32(row[NOISE_KEY1])
            rounding_key0, rounding_key1 = uint32(row[ROUNDING_KEY0]), uint32(row[ROUNDING_KEY1])
            inv_spacing, place = float32(values[k, 0]), float32(values[k, 1])
            abs_sum, square_sum = int64(0), int64(0)
            for first in range(start, stop, BLOCK):
                size = min(BLOCK, stop - first)
                _prefetch_ahead(row[P], first, width_p)
                _prefetch_ahead(row[G], first, width_p)
                if has_a:
                    _prefetch_ahead(row[A], first, width_a)
                if has_b:
                    _prefetch_ahead(row[B], first, width_b)
                p = numba.carray(_pointer(row[P] + width_p * first), size, type_p)
                g = numba.carray(_pointer(row[G] + width_p * first), size, type_p)
                a = numba.carray(_pointer(row[A] + width_a * first), size, type_a)
                b = numba.carray(_pointer(row[B] + width_b * first), size, type_b)
                index = uint32(row[OFFSET] + first)
                abs_units, low_units, high_units = uint32(0), uint32(0), uint32(0)
                # a, b: the stored tensors; ra, rb: the old memories in float32; na, nb: the new
                # ones; u, v: noise_s and noise_e; n: all hyperparameters
                for i in range(size):
                    gi = sign * read_p(g[i])
                    ra = read_a(a[i]) if has_a else float32(0)
                    rb = read_b(b[i]) if has_b else float32(0)
                    if packed:
                        ra, rb = state.unpack(ra, radix, half_radix, inv_radix)
                    x = float32(0)
                    if scaled:
                        x = scale.scaled(gi, inv_spacing)
                        magnitude = min(abs(x), MAX_SCALED_GRADIENT)
                        abs_units = uint32(abs_units + uint32(int32(magnitude * FRACTION)))
                        units = uint32(int32(magnitude * magnitude * FRACTION))
                        low_units = uint32(low_units + uint32(units & uint32(0xFFFF)))
                        high_units = uint32(high_units + uint32(units >> uint32(16)))
                    u, v = float32(0), float32(0)
                    if random:
                        bits = _mix(index + uint32(i), noise_key0, noise_key1)
                        u = float32(int32(bits >> uint32(16))) * float32(2**-16)
                        v = float32(int32(bits & uint32(0xFFFF))) * float32(2**-16)
                    q = vote(gi, x, float32(0), ra, rb, u, v, place, n)
                    new = read_p(p[i]) * decay - lr * direction(gi, x, q, ra, rb, u, v, place, n)
                    if stochastic_rounding:
                        bits = _mix(index + uint32(i), rounding_key0, rounding_key1) & uint32(
                            0xFFFF
                        )
                        p[i] = uint16(uint32(_bits(new) + bits) >> uint32(16))
                    else:
                        p[i] = write_p(new)
                    if packed:
                        na = remember_a(gi, x, q, ra, rb, u, v, place, n)
                        nb = remember_b(gi, x, q, ra, rb, u, v, place, n)
                        a[i] = write_a(state.pack(na, nb, radix))
                    else:
                        if has_a:
                            na = remember_a(gi, x, q, ra, rb, u, v, place, n)
                        if has_b:
                            b[i] = write_b(remember_b(gi, x, q, ra, rb, u, v, place, n))
                        if has_a:
                            a[i] = write_a(na)
                if scaled:
                    abs_sum += int64(abs_units)
                    square_sum += int64(low_units) + (int64(high_units) << 16)
            if scaled:
                totals[k, 0], totals[k, 1] = abs_sum, square_sum

    compiled = numba.njit(error_model="numpy", nogil=True)(loop)
    if version > 0:
        with suppress(RuntimeError):  # no folder can be written
            compiled._cache = _Cache(loop)
    return compiled


def _numba_type(dtype: torch.dtype) -> tuple[Any, Any, Any]:
    """The numba type of a dtype, and its conversions to float32 and from float32."""
    if dtype == torch.bfloat16:
        return uint16, _from_bfloat16, _to_bfloat16
    if dtype == torch.float16:
        return uint16, _from_float16, _to_float16
    numba_type = NUMBA_INTEGERS.get(dtype, float32)
    return numba_type, float32, numba_type


def _on_numbers(
    variant: Variant, function: NamedFunction, names: tuple[str, ...]
) -> Callable[..., Any]:
    """Compile a variant's function for one coordinate.

    The compiled function takes the numbers g, x, q, the two memories, ``noise_s``, ``noise_e`` and
    ``place``, and the tuple of hyperparameters.
    """
    for called in _called_functions([function.function]):
        register_jitable(called)
    values = {name: f"float32(n[{k}])" for k, name in enumerate(names)}
    values |= dict(zip(variant.names, ("a", "b"), strict=False))
    values |= {name: name for name in ("g", "x", "q", "place")}
    values |= {"noise_s": "u", "noise_e": "v"}
    arguments = ", ".join(values[name] for name in function.arguments)
    call = f"lambda g, x, q, a, b, u, v, place, n: function({arguments})"
    return register_jitable(eval(call, {"function": function.function, "float32": float32}))


def _called_functions(functions: Sequence[Callable[..., Any]]) -> list[FunctionType]:
    """The given functions and, recursively, the functions that they call."""
    called: list[FunctionType] = []
    for function in functions:
        assert isinstance(function, FunctionType)
        called += [function] if function not in called else []
    for caller in called:  # the list grows during the loop
        for name in caller.__code__.co_names:
            new = caller.__globals__.get(name)
            if isinstance(new, FunctionType) and new not in (*called, directions.choose):
                called.append(new)
    return called


def _version(functions: Sequence[FunctionType]) -> int:
    """A hash of the source of the functions' modules and of the constants that they use.

    0 if the source or a constant cannot be read; the loop is then not cached on disk.
    """
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
def _mix(index, key0, key1):
    """``simba.noise.bits`` of one coordinate, in uint32."""
    x = uint32(index ^ key0)
    x = uint32(uint32(x ^ (x >> uint32(16))) * uint32(0x7FEB352D))
    x = uint32(uint32(x ^ key1 ^ (x >> uint32(15))) * uint32(0x846CA68B))
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
    return lambda x: _floor_intrinsic(x)


@overload(torch.round)
def _round(x):
    return lambda x: _rint_intrinsic(x)


@overload(directions.choose)
def _choose(margin, memory, g):
    return lambda margin, memory, g: torch.sign(memory if margin > 0 else g)


@overload(torch.where)
def _where(condition, a, b):
    if isinstance(condition, types.Boolean):
        return lambda condition, a, b: float32(a) if condition else float32(b)


@intrinsic
def _prefer_512_bit_vectors(typing_context):
    """Compile the calling function with 512-bit vectors if the CPU has them.

    Without this, LLVM uses 256 bits on many of these CPUs. The results are bitwise identical: each
    element is computed alone, and only integers are summed over elements. Other compiled functions
    stay as they are.
    """

    def generate(context, builder, sig, args):
        # The ``add`` of llvmlite's own set rejects attributes that have a value.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), generate


@register_jitable
def _prefetch_ahead(address, first, width):
    """Start to load the block of elements that begins AHEAD of ``first``.

    It may lie beyond the tensor: a prefetch of memory that is not allocated does nothing.

    Args:
        width: the bytes of an element.
    """
    start = address + width * (first + AHEAD)
    for offset in range(0, width * BLOCK, CACHE_LINE):
        _prefetch(start + offset)


@intrinsic
def _prefetch(typing_context, address):
    def generate(context, builder, sig, args):
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        name = "llvm.prefetch.p0"
        prefetch = cgutils.get_or_insert_function(builder.module, function_type, name)
        read, into_l2, data = word(0), word(2), word(1)
        builder.call(prefetch, [builder.inttoptr(args[0], byte), read, into_l2, data])
        return context.get_dummy_value()

    return types.none(address), generate


@intrinsic
def _fma(typing_context, a, b, c):
    """a * b + c, rounded once, as torch.add with alpha computes it."""
    return a(a, b, c), lambda context, builder, sig, args: builder.fma(*args)


@intrinsic
def _bits(typing_context, x):
    """The bits of a float32 as a uint32."""
    to = ir.IntType(32)
    return types.uint32(x), lambda context, builder, sig, args: builder.bitcast(args[0], to)


@intrinsic
def _float_from_bits(typing_context, x):
    """The float32 with the bits of a uint32."""
    to = ir.FloatType()
    return types.float32(x), lambda context, builder, sig, args: builder.bitcast(args[0], to)


@register_jitable
def _from_bfloat16(x):
    """The float32 of a bfloat16, which is given by its bits: they are the upper 16 bits."""
    return _float_from_bits(uint32(uint32(x) << uint32(16)))


@register_jitable
def _to_bfloat16(x):
    """The bits of a float32 rounded to bfloat16, to nearest, ties to even."""
    bits = _bits(x)
    odd = uint32(uint32(bits >> uint32(16)) & uint32(1))
    nearest = uint16(uint32(uint32(bits + uint32(0x7FFF)) + odd) >> uint32(16))
    return nearest if x == x else uint16(0x7FC0)


# numba hashes the functions in a loop's closure for its cache key. An intrinsic has another hash in
# each process, so the loop has functions that call intrinsics.


@register_jitable
def _from_float16(x):
    """The float32 of a float16, which is given by its bits."""
    return _float_from_half_bits(x)


@register_jitable
def _to_float16(x):
    """The bits of a float32 rounded to float16."""
    return _half_bits(x)


@intrinsic
def _float_from_half_bits(typing_context, x):
    """The float32 of a float16, which is given by its bits."""

    def generate(context, builder, sig, args):
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(x), generate


@intrinsic
def _half_bits(typing_context, x):
    """The bits of a float32 rounded to float16."""

    def generate(context, builder, sig, args):
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(x), generate


@intrinsic
def _floor_intrinsic(typing_context, x):
    """The largest integer that is at most x."""
    return x(x), _llvm("llvm.floor")


@intrinsic
def _rint_intrinsic(typing_context, x):
    """Round to the nearest integer, ties to even."""
    return x(x), _llvm("llvm.rint")


def _llvm(name):
    def generate(context, builder, sig, args):
        function = builder.module.declare_intrinsic(name, [args[0].type])
        return builder.call(function, args)

    return generate


@intrinsic
def _pointer(typing_context, address):
    """The pointer to an address."""
    byte = ir.IntType(8).as_pointer()
    make = lambda context, builder, sig, args: builder.inttoptr(args[0], byte)  # noqa: E731
    return types.voidptr(address), make
