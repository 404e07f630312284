"""The scale of a tensor's gradients: one number, in units of which votes are rounded.

The scale is a moving average of ``sum(g^2) / sum(abs(g))``, the mean of abs(g) weighted by abs(g).
For the gradients of this study, half of this mean is about the threshold at which three levels
represent a gradient with the least squared error (Lloyd 1982).

The sums are computed in integers. They do not depend on the order of summation, so every backend
gives the same bits. A gradient beyond ``LARGEST`` distances between votes counts as ``LARGEST``, so
that one outlier does not turn the votes of all other coordinates into 0.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

RATE = 0.1  # the weight of a step's gradients in the moving average
LARGEST = 128.0
PART, GPU_PART = 2**16, 2**22  # elements of a gradient that ``first_scale`` takes at once
FRACTION = 2.0**12  # the sums count in units of 1 / FRACTION


def scaled(g: Tensor, inv_spacing: Any) -> Tensor:
    """g divided by the distance between two votes; 0 where g is 0 or NaN."""
    return torch.where(abs(g) > 0, g * inv_spacing, 0.0)


def sums(x: Tensor) -> Tensor:
    """(2,) int64: the sums of abs(x) and of x^2, in units of 1 / FRACTION."""
    size = torch.clamp(abs(x), max=LARGEST)
    return torch.stack([_whole(size), _whole(size * size)])


def _whole(size: Tensor) -> Tensor:
    return (size * FRACTION).to(torch.int64).sum()


def first_scale(g: Tensor) -> Tensor:
    """The scale from the first gradient, a float32 scalar; 0 if all of it is 0, NaN or infinite.

    It goes through the gradient in parts, because the temporaries of ``moments`` take 29 bytes an
    element. A traced step is not divided.
    """
    size = PART if g.is_cpu else GPU_PART
    if torch.compiler.is_compiling():
        size = max(1, g.numel())
    return scale_of(g.flatten().split(size))


def scale_of(parts: Sequence[Tensor]) -> Tensor:
    """The scale of one gradient, which is given in parts."""
    return size_biased_mean(torch.stack([moments(part) for part in parts]).sum(0))


def moments(g: Tensor) -> Tensor:
    """(2,) float64: ``sum(g^2)`` and ``sum(abs(g))`` without NaN and infinity."""
    g = torch.where(g.isfinite(), g, 0.0).double()
    return torch.stack([g.square().sum(), g.abs().sum()])


def size_biased_mean(moments: Tensor) -> Tensor:
    """``sum(g^2) / sum(abs(g))``, a float32 scalar; 0 if both sums are 0."""
    squares, size = moments.unbind()
    return torch.nan_to_num(squares / size, nan=0.0).float()


def inverse_spacing(scales: Tensor, spacing: float) -> Tensor:
    """1 / (spacing * scale), of the shape of ``scales``; 1 where a scale is still 0."""
    return torch.where(scales > 0, 1 / (spacing * scales), 1.0)


def followed(scales: Tensor, spacing: float, totals: Tensor) -> Tensor:
    """The scales (n,) for the next step, from this step's scales (n,) and ``sums`` (n, 2)."""
    size, squares = totals.double().unbind(-1)
    seen = spacing * scales * (squares / size).float()
    return torch.where(size > 0, scales + RATE * (seen - scales), scales)
