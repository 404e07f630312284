"""Corrupt gradients before an optimizer gets them, to see what it needs of a gradient.

The config's ``corrupt`` is ``KIND-STRENGTH``, such as ``flip-0.1``. A strength x means:

- ``flip``: each element changes its sign with probability x.
- ``noise``: a normal random number is added. Its standard deviation is x times the root mean
  square (RMS) of the tensor's gradient.
- ``scramble``: each element is multiplied by exp(x z), z a standard normal number. Its sign stays.
- ``levels``: each element is rounded to the nearest of x equidistant values from -a to a, where a
  is the largest absolute value of the tensor. x is odd: 3 values are -a, 0 and a.
- ``top``: the elements of the largest absolute value stay, a share x of all; the others become 0.
- ``spike``: each element becomes 1,000 times the tensor's RMS with probability x, of a random sign.
- ``scale``: the whole gradient of a step is multiplied by exp(x z), one z for all tensors.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from scripts.records.errors import UserError

SPIKE = 1000.0  # in units of a tensor's RMS
STREAM = 7  # makes the random numbers differ from those of batches


class Kind(NamedTuple):
    """A way to corrupt a gradient.

    Args:
        corrupt: maps a tensor's gradient, the strength, a generator and z (one normal random number
            per step) to the corrupted gradient.
        is_valid: whether a strength is valid.
        expected: the valid strengths, as text.
    """

    corrupt: Callable[[Tensor, float, Generator, float], Tensor]
    is_valid: Callable[[float], bool]
    expected: str


def flip(g: Tensor, x: float, generator: Generator, _: float) -> Tensor:
    return torch.where(_uniform(g, generator) < x, -g, g)


def noise(g: Tensor, x: float, generator: Generator, _: float) -> Tensor:
    return g + x * _rms(g) * _normal(g, generator)


def scramble(g: Tensor, x: float, generator: Generator, _: float) -> Tensor:
    return g * torch.exp(x * _normal(g, generator))


def levels(g: Tensor, x: float, generator: Generator, _: float) -> Tensor:
    spacing = 2 * g.abs().max() / (x - 1)
    return torch.where(spacing > 0, torch.round(g / spacing) * spacing, g)


def top(g: Tensor, x: float, generator: Generator, _: float) -> Tensor:
    kept = max(1, round(x * g.numel()))
    threshold = g.abs().flatten().kthvalue(g.numel() - kept + 1).values
    return torch.where(g.abs() >= threshold, g, 0.0)


def spike(g: Tensor, x: float, generator: Generator, _: float) -> Tensor:
    struck = _uniform(g, generator) < x
    return torch.where(struck, SPIKE * _rms(g) * torch.sign(_normal(g, generator)), g)


def scale(g: Tensor, x: float, generator: Generator, z: float) -> Tensor:
    return g * float(np.exp(x * z))


def _is_probability(x: float) -> bool:
    return 0 <= x <= 1


def _is_at_least_0(x: float) -> bool:
    return 0 <= x < float("inf")


KINDS = {
    "flip": Kind(flip, _is_probability, "from 0 to 1"),
    "noise": Kind(noise, _is_at_least_0, "a finite number >= 0"),
    "scramble": Kind(scramble, _is_at_least_0, "a finite number >= 0"),
    "levels": Kind(levels, lambda x: x >= 3 and x % 2 == 1, "an odd integer >= 3"),
    "top": Kind(top, lambda x: 0 < x <= 1, "above 0, at most 1"),
    "spike": Kind(spike, _is_probability, "from 0 to 1"),
    "scale": Kind(scale, _is_at_least_0, "a finite number >= 0"),
}


class Corruption:
    """Corrupts the gradients of parameters as the config's ``corrupt`` says.

    Raises:
        UserError: the text is not a known kind and a valid strength.
    """

    def __init__(self, text: str) -> None:
        name, _, strength = text.partition("-")
        if name not in KINDS:
            raise UserError(
                f"corrupt must be KIND-STRENGTH, KIND one of {', '.join(KINDS)}, got {text!r}"
            )
        self.kind = KINDS[name]
        try:
            self.strength = float(strength)
            valid = self.kind.is_valid(self.strength)
        except ValueError:
            valid = False
        if not valid:
            raise UserError(
                f"corrupt: the strength of {name} must be {self.kind.expected}, got {strength!r}"
            )

    def __call__(self, params: Iterable[Tensor], seed: tuple[int, ...]) -> None:
        """Replace each parameter's gradient.

        Args:
            seed: selects the random numbers: the run's seed, the epoch and the batch.
        """
        rng = np.random.default_rng([*seed, STREAM])
        z, number = float(rng.standard_normal()), int(rng.integers(2**63))
        generator: Generator | None = None
        for p in params:
            if p.grad is None:
                continue
            if generator is None:
                generator = Generator(p.device).manual_seed(number)
            p.grad.copy_(self.kind.corrupt(p.grad, self.strength, generator, z))


def _uniform(g: Tensor, generator: Generator) -> Tensor:
    return torch.rand(g.shape, generator=generator, device=g.device)


def _normal(g: Tensor, generator: Generator) -> Tensor:
    return torch.randn(g.shape, generator=generator, device=g.device, dtype=g.dtype)


def _rms(g: Tensor) -> Tensor:
    return g.square().mean().sqrt()
