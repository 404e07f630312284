"""The scale of a tensor's gradients: gradients are rounded to votes in units of spacing * scale.

The scale is a moving average of ``sum(g^2) / sum(abs(g))``, the mean of abs(g) weighted by abs(g).
If gradients are rounded to -c, 0 or c, where c is this mean, and those below c / 2 become 0, the
squared error is about the smallest for the gradients of SASRec (Lloyd 1982).

The sums of a step are computed in integers, so they do not depend on the order of summation and are
bitwise identical in every backend. Scaled gradients are clamped to ``MAX_SCALED_GRADIENT`` first,
so that one outlier does not turn the votes of all other coordinates into 0. The first scale is
computed in float64, always by torch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

WEIGHT = 0.1  # the weight of a step's gradients in the moving average
MAX_SCALED_GRADIENT = 128.0
CHUNK_ELEMENTS, GPU_CHUNK_ELEMENTS = 2**16, 2**22  # ``first_scale`` takes this many at once
FRACTION = 2.0**12  # the sums count in units of 1 / FRACTION


def scaled(g: Tensor, inv_spacing: Any) -> Tensor:
    """``g * inv_spacing`` with ``inv_spacing = 1 / (spacing * scale)``; 0 where g is 0 or NaN."""
    return torch.where(abs(g) > 0, g * inv_spacing, 0.0)


def sums(x: Tensor) -> Tensor:
    """(3,) int64: the sums of abs(x) and x^2 in units of 1 / FRACTION; 1 if any x is not 0, else 0.

    If all values are below a unit, the sums are 0, but the third number is 1.
    """
    magnitude = torch.clamp(abs(x), max=MAX_SCALED_GRADIENT)
    both = _integer_sum(magnitude), _integer_sum(magnitude * magnitude)
    return torch.stack([*both, (x != 0).any().to(torch.int64)])


def _integer_sum(values: Tensor) -> Tensor:
    return (values * FRACTION).to(torch.int64).sum()


def first_scale(g: Tensor) -> Tensor:
    """The scale from the first gradient, a float32 scalar; 0 if all of it is 0, NaN or infinite.

    The gradient is split into chunks, because the temporaries of ``moments`` take 29 bytes per
    element. In a traced step it is not split.
    """
    size = CHUNK_ELEMENTS if g.is_cpu else GPU_CHUNK_ELEMENTS
    if torch.compiler.is_compiling():
        size = max(1, g.numel())
    return scale_of(g.flatten().split(size))


def scale_of(chunks: Sequence[Tensor]) -> Tensor:
    """The scale of a gradient given in 1-d chunks, a float32 scalar; see ``first_scale``."""
    # One tensor for all moments: small tensors that are kept between large temporaries would
    # fragment the heap, and the process would grow by up to 8 bytes per element.
    found = torch.empty(len(chunks), 2, dtype=torch.float64, device=chunks[0].device)
    for i, chunk in enumerate(chunks):
        found[i] = moments(chunk)
    abs_sum, square_sum = found.sum(0).unbind()
    return torch.nan_to_num(square_sum / abs_sum, nan=0.0).float()  # 0 / 0 is 0


def moments(g: Tensor) -> Tensor:
    """(2,) float64: the sums of abs(g) and of g^2, without NaN and infinity."""
    g = torch.where(g.isfinite(), g, 0.0).double()
    return torch.stack([g.abs().sum(), g.square().sum()])


def inverse_spacing(scales: Tensor, spacing: float) -> Tensor:
    """1 / (spacing * scale), of the shape of ``scales``; 1 where a scale is still 0."""
    return torch.where(scales > 0, 1 / (spacing * scales), 1.0)


def updated_scales(scales: Tensor, spacing: float, totals: Tensor) -> Tensor:
    """The scales of the next step: ``scale + WEIGHT * (measured - scale)``.

    ``measured`` is ``spacing * scale * sum(x^2) / sum(abs(x))``. The scale of a tensor whose x is 0
    stays. If x is too small for the sums, 0 / 0 counts as 0.

    Args:
        scales: (n,) the scales of this step.
        totals: (n, 3) the ``sums`` of each tensor's x, added up over its parts.
    """
    abs_sum, square_sum, nonzero = totals.double().unbind(-1)
    measured = spacing * scales * torch.where(abs_sum > 0, square_sum / abs_sum, 0.0).float()
    return torch.where(nonzero > 0, scales + WEIGHT * (measured - scales), scales)
