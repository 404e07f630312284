"""The rows, one pure function each: which way does a coordinate move?

Each of the six but the last chooses, coordinate by coordinate, a *memory* or ``sign(g)``:

==============  ====================================  ===========  ======
row             uses its memory when                  memory       state
==============  ====================================  ===========  ======
sign-SGD        never                                 --           --
Lion            b1*abs(m) > (1-b1)*abs(g)   (eq. 1)   sign(m)      m
Simba           abs(s)/w > gamma            (eq. 5)   sign(s)      s
Simba + m       abs(s)/w > gamma            (eq. 5)   sign(m)      m, s
Simba + (1)     b1*abs(m) > (1-b1)*abs(g)   (eq. 1)   sign(s)      m, s
Simba + (c=m)   always                                sign(m)      m
==============  ====================================  ===========  ======

``g`` is the gradient, ``m`` its exponential moving average and ``s`` the sign counter, all of one
shape and all as they were *before* this gradient entered them. The result is -1, 0 or +1. Equation
numbers are those of the note that proposed Simba; eq. 1 is Chen et al. 2023 (arXiv 2302.06675),
rewritten as a choice. Beside the six stands ``simba_eq4``, the form in which the note first has its
idea.

An argument's name says what it is: ``g``, ``m``, ``s``; ``b1`` and ``rest`` are beta1 and
1 - beta1, ``limit`` is int(w * gamma), and any other name is a hyperparameter of the row.
simba/fused.py compiles these very functions into loops over numbers: it knows abs, ``choose``,
torch.sign, torch.where, arithmetic and comparisons.
"""

import torch
from torch import Tensor


def choose(lead: Tensor, memory: Tensor, g: Tensor) -> Tensor:
    """sign(memory) where the memory's lead is above 0, else sign(g).

    By arithmetic, exact on signs: on a CPU, torch.where and comparisons take one coordinate at a
    time, several times longer.
    """
    wins = torch.sign(lead).to(g.dtype).clamp_(min=0)
    return torch.lerp(torch.sign(g), torch.sign(memory).to(g.dtype), wins)


def lead_over_gradient(g: Tensor, m: Tensor, b1: float, rest: float) -> Tensor:
    """Eq. 1: above 0 where the averaged gradient weighs more than the current one."""
    return b1 * abs(m) - rest * abs(g)


def lead_of_counter(s: Tensor, limit: int) -> Tensor:
    """Eq. 5: above 0 where there are more than ``limit = int(w * gamma)`` signs of surplus."""
    return abs(s) - limit


def sign_sgd(g: Tensor) -> Tensor:
    return torch.sign(g)


def lion(g: Tensor, m: Tensor, b1: float, rest: float) -> Tensor:
    return choose(lead_over_gradient(g, m, b1, rest), m, g)


def simba(g: Tensor, s: Tensor, limit: int) -> Tensor:
    return choose(lead_of_counter(s, limit), s, g)


def simba_m(g: Tensor, m: Tensor, s: Tensor, limit: int) -> Tensor:
    return choose(lead_of_counter(s, limit), m, g)


def simba_eq1(g: Tensor, m: Tensor, s: Tensor, b1: float, rest: float) -> Tensor:
    return choose(lead_over_gradient(g, m, b1, rest), s, g)


def simba_eq4(g: Tensor, s: Tensor, limit: int) -> Tensor:
    """Eq. 4: the bar is gamma * sign(abs(g)), so without a gradient any surplus is above it."""
    return torch.where(g == 0, torch.sign(s), simba(g, s, limit))


def simba_c_eq_m(m: Tensor) -> Tensor:
    return torch.sign(m)
