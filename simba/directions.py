"""The variants as pure functions: what is seen of a gradient, where to move, what to remember.

A step of one coordinate is ``q = vote(g)``, then ``p <- (1 - lr wd) p - lr direction(...)``, then
``memory <- remember(...)``. Vote and direction read the memory as it was *before* this gradient.

The note's six variants see the gradient itself. Each of them but the last chooses, coordinate by
coordinate, a *memory* or ``sign(g)``:

==============  ====================================  ==========  ===============================
variant         uses its memory when                  memory      remembers
==============  ====================================  ==========  ===============================
sign-SGD        never                                 --          --
Lion            b1*abs(m) > (1-b1)*abs(g)   (eq. 1)   sign(m)     m: ``average``
Simba           abs(s)/w > gamma            (eq. 5)   sign(s)     s: ``saturating_count``
Simba + m       abs(s)/w > gamma            (eq. 5)   sign(m)     m and s, as above
Simba + (1)     b1*abs(m) > (1-b1)*abs(g)   (eq. 1)   sign(s)     m and s, as above
Simba + (c=m)   always                                sign(m)     m: ``average``
==============  ====================================  ==========  ===============================

Equation numbers are those of the note that proposed Simba; eq. 1 is Chen et al. 2023
(arXiv 2302.06675), rewritten as a choice. ``simba_eq4`` is the form in which the note first has its
idea.

The other variants ask what Simba lacks. They move by ``sign(s + fresh q)``: Lion's own rule with
votes for gradients and an integer for m.

====================  ======================  ======================  ===========================
variant               vote                    remembers s by          and
====================  ======================  ======================  ===========================
Simba, window         sign(g)                 ``window_count``        the last w signs
Simba, leaky          sign(g)                 ``leaky_count``         --
Ternary Lion          ``nearest``             ``leaky_count``         --
Ternary Lion, EF      ``nearest_with_error``  ``lasting_count``       e: ``rounding_error``
8-bit Lion            the scaled gradient     ``lasting_count``       --
====================  ======================  ======================  ===========================

An argument's name says what it is. All tensors have the parameter's shape.

- ``g``: gradient; ``m``: its exponential moving average; ``s``: counter, whole numbers;
- ``x``: gradient divided by the distance between two votes (simba/scale.py), 0 where g is 0 or NaN;
- ``q``: vote; ``e``: what earlier votes left out, in whole ``unit`` of a vote;
- ``signs``: five of the last signs as one number, and ``place`` of the oldest in it (3**k);
- ``noise_s``, ``noise_e``: uniform in [0, 1), new for every step (simba/noise.py);
- ``b1``, ``one_minus_b1``, ``b2``, ``one_minus_b2``: Lion's betas; ``w``: window size;
  ``limit``: int(w * gamma); ``fresh``: weight of the current vote beside s.

Any other name is a hyperparameter. simba/backends/numba_cpu.py compiles these very functions into
loops over numbers: it knows abs, ``choose``, arithmetic, comparisons, and torch's add, clamp,
floor, round, sign and where.
"""

import torch
from torch import Tensor

# ---- directions: -1, 0 or +1


def choose(margin: Tensor, memory: Tensor, g: Tensor) -> Tensor:
    """sign(memory) where the memory's margin is above 0, else sign(g).

    By arithmetic, exact on signs: on a CPU, torch.where and comparisons take one coordinate at a
    time, several times longer.
    """
    wins = torch.sign(margin).to(g.dtype).clamp_(min=0)
    return torch.lerp(torch.sign(g), torch.sign(memory).to(g.dtype), wins)


def momentum_margin(g: Tensor, m: Tensor, b1: float, one_minus_b1: float) -> Tensor:
    """Eq. 1: above 0 where the averaged gradient weighs more than the current one."""
    return b1 * abs(m) - one_minus_b1 * abs(g)


def counter_margin(s: Tensor, limit: int) -> Tensor:
    """Eq. 5: above 0 where there are more than ``limit = int(w * gamma)`` signs of surplus."""
    return abs(s) - limit


def sign_sgd(g: Tensor) -> Tensor:
    return torch.sign(g)


def lion(g: Tensor, m: Tensor, b1: float, one_minus_b1: float) -> Tensor:
    return choose(momentum_margin(g, m, b1, one_minus_b1), m, g)


def simba(g: Tensor, s: Tensor, limit: int) -> Tensor:
    return choose(counter_margin(s, limit), s, g)


def simba_m(g: Tensor, m: Tensor, s: Tensor, limit: int) -> Tensor:
    return choose(counter_margin(s, limit), m, g)


def simba_eq1(g: Tensor, m: Tensor, s: Tensor, b1: float, one_minus_b1: float) -> Tensor:
    return choose(momentum_margin(g, m, b1, one_minus_b1), s, g)


def simba_eq4(g: Tensor, s: Tensor, limit: int) -> Tensor:
    """Eq. 4: the bar is gamma * sign(abs(g)), so without a gradient any surplus is above it."""
    return torch.where(g == 0, torch.sign(s), simba(g, s, limit))


def simba_c_eq_m(m: Tensor) -> Tensor:
    return torch.sign(m)


def count_and_vote(s: Tensor, q: Tensor, fresh: float) -> Tensor:
    """Lion's ``sign(b1 m + (1 - b1) g)`` with s for m and q for g.

    ``fresh = gain (1 - b1) / (b1 (1 - b2))``, as one vote adds ``gain`` to s where one gradient
    adds ``(1 - b2) g`` to m.
    """
    return torch.sign(s + fresh * q)


def count_error_and_vote(
    s: Tensor, e: Tensor, q: Tensor, gain_of_unit: float, fresh: float
) -> Tensor:
    """The same, where s is to get what earlier votes left out as well."""
    return torch.sign(s + gain_of_unit * e + fresh * q)


# ---- votes


def sign_vote(g: Tensor) -> Tensor:
    return torch.sign(g)


def exact(x: Tensor) -> Tensor:
    return x


def nearest(x: Tensor, largest: float) -> Tensor:
    """The nearest of the whole numbers from -largest to largest: with 1, a ternary vote."""
    return torch.round(torch.clamp(x, -largest, largest))


def nearest_with_error(x: Tensor, e: Tensor, unit: float, largest: float) -> Tensor:
    """``nearest`` of gradient and what earlier votes left out; no vote without a gradient."""
    return torch.where(x != 0, nearest(x + unit * e, largest), 0.0)


# ---- memories


def average(m: Tensor, g: Tensor, b2: float, one_minus_b2: float) -> Tensor:
    return torch.add(m * b2, g, alpha=one_minus_b2)


def saturating_count(s: Tensor, g: Tensor, w: int) -> Tensor:
    """The note's listing: forgets nothing by itself."""
    return torch.clamp(s + torch.sign(g), -w, w)


def leaky_count(
    s: Tensor, q: Tensor, b2: float, gain: float, bound: float, noise_s: Tensor
) -> Tensor:
    """``b2 s + gain q``, an exponential moving sum of votes, rounded stochastically.

    Rounding to nearest would never forget a small s: ``0.01 s`` is below one half.
    """
    return torch.clamp(torch.floor(b2 * s + gain * q + noise_s), -bound, bound)


def lasting_count(
    s: Tensor, q: Tensor, b2: float, gain: float, bound: float, least: float, noise_s: Tensor
) -> Tensor:
    """``leaky_count``, but without a vote s does not leak below ``least``.

    With ``least`` 1 its sign lasts, as that of Lion's m does, which never becomes 0.
    """
    left = leaky_count(s, q, b2, gain, bound, noise_s)
    lasting = torch.where(abs(left) < least, torch.sign(s) * least, left)
    return torch.where(q == 0, lasting, left)


def rounding_error(
    x: Tensor,
    e: Tensor,
    q: Tensor,
    per_vote: float,
    error_b2: float,
    error_bound: float,
    noise_e: Tensor,
) -> Tensor:
    """Error feedback (Karimireddy et al. 2019, arXiv 1901.09847): ``e + x - q`` in whole units.

    With ``error_b2`` = b2 it leaks as s does. Then ``s + gain e`` is the sum that 8-bit Lion keeps:
    a vote only moves a part of it from e to s.
    """
    left_out = torch.floor((x - q) * per_vote + error_b2 * e + noise_e)
    return torch.clamp(left_out, -error_bound, error_bound)


def oldest_sign(signs: Tensor, place: float) -> Tensor:
    """The sign at ``place`` in a number of base 3, whose digits are signs + 1."""
    shifted = torch.floor((signs + 0.5) / place)
    return shifted - 3 * torch.floor((shifted + 0.5) / 3) - 1


def window_count(s: Tensor, g: Tensor, signs: Tensor, place: float) -> Tensor:
    """The note's text: the sum of the last w signs."""
    return s + torch.sign(g) - oldest_sign(signs, place)


def newest_sign(signs: Tensor, g: Tensor, place: float) -> Tensor:
    """``signs`` with that of g in place of the oldest one."""
    return signs + place * (torch.sign(g) - oldest_sign(signs, place))
