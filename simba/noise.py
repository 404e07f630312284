"""Random numbers as a pure function of (seed, step, parameter, coordinate).

They are therefore bitwise identical in every backend, in any order of evaluation, and after loading
a checkpoint. torch's generators are not used.
"""

from typing import Any

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
GOLDEN = 0x9E3779B9  # 2**32 / golden ratio: consecutive steps and parameters get distant keys


def mix(x: Any, word: Any = 0) -> Any:
    """A bijection of 32-bit words, for int64 tensors or ints. numba_cpu.py and models/ops copy it.

    This is Wellons's "lowbias32" (github.com/skeeto/hash-prospector, source of the constants),
    except that ``word`` is mixed in at the second step.
    """
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & WORD
    x = ((x ^ word ^ (x >> 15)) * 0x846CA68B) & WORD
    return x ^ (x >> 16)


def key(seed: int, step: Any, param_index: int) -> tuple[Any, Any]:
    """The two 32-bit words that select a parameter's noise at a step.

    Args:
        seed: an int >= 0.
        step: steps taken so far, an int or an int64 tensor.
        param_index: the parameter's index over all groups. ``VoteState`` uses indices from 2**20,
            stochastic rounding negative ones.
    """
    second = mix((param_index * GOLDEN + (seed >> 32) + 1) & WORD)
    return mix((step * GOLDEN + seed) & WORD), second


def bits(offset: int, like: Tensor, words: tuple[Any, Any]) -> Tensor:
    """32 random bits per coordinate, int64, of the shape of ``like``.

    Args:
        offset: the index of the first coordinate of ``like`` in its parameter.
        words: the key that ``key`` returns.
    """
    index = torch.arange(offset, offset + like.numel(), device=like.device)
    return mix((index ^ words[0]) & WORD, words[1]).view(like.shape)


def uniforms(offset: int, like: Tensor, words: tuple[Any, Any]) -> tuple[Tensor, Tensor]:
    """Two random numbers in [0, 1) per coordinate, from the upper and lower 16 bits of ``bits``.

    Args:
        offset, like, words: see ``bits``.

    Returns:
        Two float32 tensors of the shape of ``like``; their values are multiples of 2**-16.
    """
    word = bits(offset, like, words)
    return (word >> 16).float() * 2**-16, (word & 0xFFFF).float() * 2**-16


def round_stochastically(x: Tensor, word: Tensor) -> Tensor:
    """Round float32 to bfloat16 stochastically, so that the expected value is x.

    Args:
        x: float32.
        word: random bits, int64, of the shape of x; the lower 16 bits are used.
    """
    raised = x.view(torch.int32) + (word & 0xFFFF).to(torch.int32)
    return (raised & ~0xFFFF).view(torch.float32).bfloat16()
