"""Random numbers as a function of (seed, step, tensor, coordinate): the same bits in every backend,
in any order, and after a checkpoint. No generator is touched.
"""

from typing import Any

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
GOLDEN = 0x9E3779B9  # 2**32 / golden ratio: neighbouring steps and tensors get distant keys


def mix(x: Any, word: Any = 0) -> Any:
    """A bijection of 32-bit words, on int64 tensors or ints.

    The constants are those of Wellons's "lowbias32" (github.com/skeeto/hash-prospector); ``word``
    enters halfway.
    """
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & WORD
    x = ((x ^ word ^ (x >> 15)) * 0x846CA68B) & WORD
    return x ^ (x >> 16)


def key(seed: int, step: Any, tensor: int) -> tuple[Any, Any]:
    """The two words of a tensor's noise at a step; ``step`` is an int or an int64 tensor."""
    return mix((step * GOLDEN + seed) & WORD), mix((tensor * GOLDEN + (seed >> 32) + 1) & WORD)


def bits(first: int, like: Tensor, words: tuple[Any, Any]) -> Tensor:
    """32 random bits for each coordinate of ``like``; its first one has number ``first``."""
    index = torch.arange(first, first + like.numel(), device=like.device)
    return mix((index ^ words[0]) & WORD, words[1]).view(like.shape)


def uniforms(first: int, like: Tensor, words: tuple[Any, Any]) -> tuple[Tensor, Tensor]:
    """Two numbers in [0, 1) for each coordinate of ``like``, from its ``bits``.

    Returns:
        Two tensors of the shape of ``like``, float32, multiples of 2**-16.
    """
    word = bits(first, like, words)
    return (word >> 16).float() * 2**-16, (word & 0xFFFF).float() * 2**-16


def rounded(x: Tensor, word: Tensor) -> Tensor:
    """float32 in bfloat16, its upper half: up or down, so that the mean is x.

    Args:
        word: random, of the shape of x; the lower 16 bits are used.
    """
    raised = x.view(torch.int32) + (word & 0xFFFF).to(torch.int32)
    return (raised & ~0xFFFF).view(torch.float32).bfloat16()
