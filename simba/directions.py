"""The six rows, one pure function each: which way does a coordinate move?

Every row but the last chooses, coordinate by coordinate, between a *memory* and ``sign(g)``:

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
rewritten as a choice.
"""

import torch
from torch import Tensor


def memory_outweighs_gradient(g: Tensor, m: Tensor, beta1: float) -> Tensor:
    """Eq. 1: the averaged gradient weighs more than the current one."""
    return beta1 * m.abs() > (1 - beta1) * g.abs()


def counter_is_decided(s: Tensor, limit: int) -> Tensor:
    """Eq. 5: more than ``limit = int(w * gamma)`` signs of surplus, strictly."""
    return s.abs() > limit


def sign_sgd(g: Tensor) -> Tensor:
    return g.sign()


def lion(g: Tensor, m: Tensor, beta1: float) -> Tensor:
    return torch.where(memory_outweighs_gradient(g, m, beta1), m.sign(), g.sign())


def simba(g: Tensor, s: Tensor, limit: int) -> Tensor:
    return torch.where(counter_is_decided(s, limit), s.sign(), g.sign())


def simba_m(g: Tensor, m: Tensor, s: Tensor, limit: int) -> Tensor:
    return torch.where(counter_is_decided(s, limit), m.sign(), g.sign())


def simba_eq1(g: Tensor, m: Tensor, s: Tensor, beta1: float) -> Tensor:
    return torch.where(memory_outweighs_gradient(g, m, beta1), s.sign(), g.sign())


def simba_c_eq_m(m: Tensor) -> Tensor:
    return m.sign()
