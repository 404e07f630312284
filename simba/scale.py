"""How large a tensor's gradients are: one number, by which votes are told from noise.

It follows ``sum(g^2) / sum(abs(g))``, the mean of abs(g) in which each coordinate counts by its
size. Half of it is, for gradients as they are met here, the threshold that keeps the most of a
gradient in three levels (Lloyd 1982).

The sums are taken in whole numbers: they are the same in any order, and so the bits are the same in
every backend. Single gradients beyond ``LARGEST`` distances between votes count as that many, so
that one spike does not silence all other coordinates.
"""

from typing import Any

import torch
from torch import Tensor

RATE = 0.1  # of following: a tenth of the way at each step
LARGEST = 128.0
FRACTION = 2.0**12  # whole numbers to one


def scaled(g: Tensor, inv_spacing: Any) -> Tensor:
    """g in distances between votes; 0 where g is 0 or NaN."""
    return torch.where(abs(g) > 0, g * inv_spacing, 0.0)


def sums(x: Tensor) -> Tensor:
    """(2,) int64: the sums of abs(x) and of x^2, in 1 / FRACTION."""
    size = torch.clamp(abs(x), max=LARGEST)
    return torch.stack([_whole(size), _whole(size * size)])


def _whole(size: Tensor) -> Tensor:
    return (size * FRACTION).to(torch.int64).sum()


def first_scale(g: Tensor) -> Tensor:
    """The scale of the first gradient; 0 if all of it is 0, NaN or infinite."""
    g = torch.where(g.isfinite(), g, 0.0).double()
    return torch.nan_to_num(g.square().sum() / g.abs().sum(), nan=0.0).float()


def inverse_spacing(scales: Tensor, spacing: float) -> Tensor:
    """1 / (spacing * scale); 1 while there was no gradient."""
    return torch.where(scales > 0, 1 / (spacing * scales), 1.0)


def followed(scales: Tensor, spacing: float, totals: Tensor) -> Tensor:
    """The scales for the next step, (n,), from this step's ``sums``, (n, 2)."""
    size, squares = totals.double().unbind(-1)
    seen = spacing * scales * (squares / size).float()
    return torch.where(size > 0, scales + RATE * (seen - scales), scales)
