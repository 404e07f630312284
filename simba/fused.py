"""One compiled loop a row, made by numba from the row's own function in simba/directions.py.

The loop does to each coordinate, in the same order and rounding, what the plain step does to whole
tensors: the bits are the same. Only here is numba needed: ``pip install 'simba-optim[fused]'``.
"""

import hashlib
import inspect
import sys
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

try:
    import numba
except ImportError:
    raise ImportError("fused=True needs numba: pip install 'simba-optim[fused]'") from None
from numba import float32, types
from numba.extending import intrinsic, overload, register_jitable


@overload(torch.sign)
def _sign(x):
    if isinstance(x, types.Float):
        return lambda x: float32(x > 0) - float32(x < 0)


@overload(torch.where)
def _where(condition, a, b):
    if isinstance(condition, types.Boolean):
        return lambda condition, a, b: a if condition else b


@intrinsic
def _fma(typing_context, a, b, c):
    """a * b + c, rounded once, as torch's own add with alpha does it."""
    return a(a, b, c), lambda context, builder, sig, args: builder.fma(*args)


@cache
def kernel(rule: Callable[..., Tensor], arguments: tuple[str, ...]) -> Callable[..., None]:
    """A function (p, g, m, s, numbers) that takes the step of ``rule`` in place.

    It is compiled at the first step, in a fraction of a second, and kept on disk for the next
    process (numba's cache).
    """
    names = [name for name in arguments if name not in ("g", "m", "s")]
    choose = _on_numbers(rule, arguments, names)
    version = _version(rule)

    def loop(p, g, m, s, n, lr, decay, b2, rest2, window):
        if version < 0:  # never: it makes the version part of what the cache goes by
            return
        for i in range(p.size):
            gi = g[i]
            mi = float32(0) if m is None else m[i]
            si = float32(0) if s is None else float32(s[i])
            p[i] = p[i] * decay - lr * choose(gi, mi, si, n)
            if m is not None:
                m[i] = _fma(gi, rest2, mi * b2)
            if s is not None:
                s[i] = min(max(si + torch.sign(gi), -window), window)

    run: Any = numba.njit(error_model="numpy", nogil=True, cache=version > 0)(loop)

    def step(
        p: Tensor, g: Tensor, m: Tensor | None, s: Tensor | None, numbers: dict[str, Any]
    ) -> None:
        lr, b2 = numbers["lr"], numbers.get("b2", 0.0)
        scalars = lr, 1 - lr * numbers["weight_decay"], b2, 1 - b2, numbers.get("window_size", 0)
        run(
            *(None if t is None else t.detach().view(-1).numpy() for t in (p, g, m, s)),
            tuple(float32(numbers[name]) for name in names) or (float32(0),),
            *map(float32, scalars),
        )

    return step


def _on_numbers(
    rule: Callable[..., Tensor], arguments: tuple[str, ...], names: list[str]
) -> Callable[..., float]:
    """``rule`` on single numbers: (g, m, s, its other arguments as a tuple)."""
    for name in rule.__code__.co_names:  # the functions that the rule is made of
        if isinstance(part := rule.__globals__.get(name), FunctionType):
            register_jitable(part)
    taken = (f"n[{names.index(name)}]" if name in names else name for name in arguments)
    call = f"lambda g, m, s, n: rule({', '.join(taken)})"
    return register_jitable(eval(call, {"rule": register_jitable(rule)}))


def _version(rule: Callable[..., Tensor]) -> int:
    """A number that changes with the source of the rule's module; 0 where there is none."""
    try:
        source = inspect.getsource(sys.modules[rule.__module__])
    except (OSError, TypeError):
        return 0
    return int(hashlib.sha256(source.encode()).hexdigest()[:15], 16)
