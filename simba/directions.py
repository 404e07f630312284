"""The variants as pure functions: the vote of a gradient, the direction, the new memories.

A step of one coordinate is ``q = vote(g)``, then ``p <- (1 - lr wd) p - lr direction(...)``, then
``memory <- remember(...)``. Vote and direction read the memory as it was *before* this gradient.

The six variants of the note that proposed Simba ("the note") take the gradient itself, not a vote.
Each of them follows, coordinate by coordinate, either the sign of a *memory* or ``sign(g)``:

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

Equation numbers are those of the note that proposed Simba. Eq. 1 is the direction of Chen et al.
2023 (arXiv 2302.06675), rewritten as a choice. ``simba_eq4`` is the note's eq. 4, an earlier form
of eq. 5. Eq. 5 is tested as ``abs(s) > int(w * gamma)``, as in the note's listing.

The other variants test what Simba lacks. "Simba, window" has the direction ``simba_eq4``. The
others have ``sign(s + fresh q)``: Lion's direction with a vote q instead of the gradient and an
integer counter s instead of m. With EF, s is corrected by the error e.

====================  ======================  ======================  ===========================
variant               vote                    remembers s by          and
====================  ======================  ======================  ===========================
Simba, window         --                      ``window_count``        the last w signs
Simba, leaky          sign(g)                 ``leaky_count``         --
Ternary Lion          ``nearest``             ``leaky_count``         --
Ternary Lion EF       ``nearest_with_error``  ``lasting_count``       e: ``rounding_error``
Ternary Lion, carry   ``nearest_with_error``  ``carrying_count``      e: ``carried_error``
8-bit Lion            the scaled gradient     ``lasting_count``       --
====================  ======================  ======================  ===========================

A function receives the values that its arguments name. All tensors have the shape of the model's
parameter.

- ``g``: gradient; ``m``: its exponential moving average; ``s``: counter, an integer;
- ``x``: gradient divided by ``spacing * scale`` (simba/scale.py), 0 where g is 0 or NaN;
- ``q``: vote; ``e``: the sum of earlier rounding errors (of votes, with carry of the decay, too),
  an integer, in units of ``unit = 1 / per_vote`` votes;
- ``signs``: five of the last w signs as the digits of one base-3 number, and ``place``: the value
  3**k of the digit that holds the oldest sign;
- ``noise_s``, ``noise_e``: uniform in [0, 1), new for every step (simba/noise.py);
- ``b1``, ``one_minus_b1``, ``b2``, ``one_minus_b2``: Lion's betas; ``w``: window size;
  ``limit``: int(w * gamma); ``fresh``: weight of the newest vote relative to s.

``largest``, ``unit``, ``gain_of_unit`` and ``error_b2`` are derived from hyperparameters by
``simba.base.hyperparameters``. Any other name is a hyperparameter. simba/backends/numba_cpu.py
compiles these functions into loops over single coordinates. It supports abs, ``choose``,
arithmetic, comparisons, and torch's add, clamp, floor, round, sign and where.
"""

import torch
from torch import Tensor

# ---- directions, with values -1, 0 or +1


def choose(margin: Tensor, memory: Tensor, g: Tensor) -> Tensor:
    """sign(memory) where the memory's margin is above 0, else sign(g); in g's dtype and shape.

    Computed by arithmetic, which is exact on signs. On a CPU, torch does not vectorize torch.where
    and comparisons, so they take several times as long.
    """
    wins = torch.sign(margin).to(g.dtype).clamp_(min=0)
    return torch.lerp(torch.sign(g), torch.sign(memory).to(g.dtype), wins)


def momentum_margin(g: Tensor, m: Tensor, b1: float, one_minus_b1: float) -> Tensor:
    """Eq. 1: above 0 where the weighted average exceeds the weighted gradient in absolute value."""
    return b1 * abs(m) - one_minus_b1 * abs(g)


def counter_margin(s: Tensor, limit: int) -> Tensor:
    """Eq. 5: above 0 where abs(s) exceeds ``limit = int(w * gamma)``."""
    return abs(s) - limit


def sign_sgd(g: Tensor) -> Tensor:
    """The sign of the gradient (Bernstein et al. 2018, arXiv 1802.04434)."""
    return torch.sign(g)


def lion(g: Tensor, m: Tensor, b1: float, one_minus_b1: float) -> Tensor:
    """sign(m) or sign(g), chosen by eq. 1 (Chen et al. 2023, arXiv 2302.06675)."""
    return choose(momentum_margin(g, m, b1, one_minus_b1), m, g)


def simba(g: Tensor, s: Tensor, limit: int) -> Tensor:
    """sign(s) or sign(g), chosen by eq. 5."""
    return choose(counter_margin(s, limit), s, g)


def simba_m(g: Tensor, m: Tensor, s: Tensor, limit: int) -> Tensor:
    """sign(m) or sign(g), chosen by eq. 5."""
    return choose(counter_margin(s, limit), m, g)


def simba_eq1(g: Tensor, m: Tensor, s: Tensor, b1: float, one_minus_b1: float) -> Tensor:
    """sign(s) or sign(g), chosen by eq. 1."""
    return choose(momentum_margin(g, m, b1, one_minus_b1), s, g)


def simba_eq4(g: Tensor, s: Tensor, limit: int) -> Tensor:
    """Eq. 4: the threshold is gamma * sign(abs(g)), so where g = 0 every s != 0 exceeds it."""
    return torch.where(g == 0, torch.sign(s), simba(g, s, limit))


def simba_c_eq_m(m: Tensor) -> Tensor:
    """sign(m), whatever the gradient."""
    return torch.sign(m)


def count_and_vote(s: Tensor, q: Tensor, fresh: float) -> Tensor:
    """Lion's ``sign(b1 m + (1 - b1) g)`` with s instead of m and q instead of g.

    ``fresh = gain (1 - b1) / (b1 (1 - b2))``, because a vote adds ``gain q`` to s, whereas a
    gradient adds ``(1 - b2) g`` to m.
    """
    return torch.sign(s + fresh * q)


def count_error_and_vote(
    s: Tensor, e: Tensor, q: Tensor, gain_of_unit: float, fresh: float
) -> Tensor:
    """``count_and_vote`` with s corrected by the error e of earlier votes."""
    return torch.sign(s + gain_of_unit * e + fresh * q)


# ---- votes


def sign_vote(g: Tensor) -> Tensor:
    """The sign of the gradient."""
    return torch.sign(g)


def exact(x: Tensor) -> Tensor:
    """The scaled gradient, not rounded."""
    return x


def nearest(x: Tensor, largest: float) -> Tensor:
    """The integer in [-largest, largest] that is nearest to x: a ternary vote for largest = 1."""
    return torch.round(torch.clamp(x, -largest, largest))


def nearest_with_error(x: Tensor, e: Tensor, unit: float, largest: float) -> Tensor:
    """``nearest`` of the scaled gradient plus the error e of earlier votes; 0 where x is 0."""
    return torch.where(x != 0, nearest(x + unit * e, largest), 0.0)


# ---- memories


def average(m: Tensor, g: Tensor, b2: float, one_minus_b2: float) -> Tensor:
    """``b2 m + (1 - b2) g``, an exponential moving average."""
    return torch.add(m * b2, g, alpha=one_minus_b2)


def saturating_count(s: Tensor, g: Tensor, w: int) -> Tensor:
    """``clamp(s + sign(g), -w, w)``, the counter of the note's listing; it does not decay."""
    return torch.clamp(s + torch.sign(g), -w, w)


def leaky_count(
    s: Tensor, q: Tensor, b2: float, gain: float, bound: float, noise_s: Tensor
) -> Tensor:
    """``b2 s + gain q``, an exponential moving sum of votes, rounded stochastically.

    Rounding to nearest would never decay a small s: for b2 = 0.99, ``0.01 s`` is below one half.
    """
    return torch.clamp(torch.floor(b2 * s + gain * q + noise_s), -bound, bound)


def lasting_count(
    s: Tensor, q: Tensor, b2: float, gain: float, bound: float, least: float, noise_s: Tensor
) -> Tensor:
    """``leaky_count``, but where q is 0, a nonzero s keeps abs(s) >= ``least``.

    With ``least`` = 1, s keeps its sign, as Lion's m does: m decays but never becomes 0.
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
    """``per_vote (x - q) + error_b2 e``, rounded stochastically: the new error, in units of e.

    Error feedback (Karimireddy et al. 2019, arXiv 1901.09847). With ``error_b2`` = b2 the error
    decays as s does. Apart from rounding and bounds, ``s + gain e / per_vote`` is then the moving
    sum that 8-bit Lion stores; a vote moves a part of it from e to s.
    """
    rounded = torch.floor((x - q) * per_vote + error_b2 * e + noise_e)
    return torch.clamp(rounded, -error_bound, error_bound)


def exact_sum(x: Tensor, s: Tensor, e: Tensor, b2: float, unit: float) -> Tensor:
    """``b2 (s + e / per_vote) + x``: the moving sum of scaled gradients, not yet rounded."""
    return x + b2 * (s + unit * e)


def carrying_count(
    x: Tensor, s: Tensor, e: Tensor, b2: float, unit: float, largest: float, bound: float
) -> Tensor:
    """s, moved towards the exact sum by the nearest integer in [-largest, largest].

    So s moves by -1, 0 or 1 for ``largest`` = 1, for the gradient and the decay together. What this
    rounding leaves is in e, which carries into s as soon as it exceeds half a vote.
    """
    move = nearest(exact_sum(x, s, e, b2, unit) - s, largest)
    return torch.clamp(s + move, -bound, bound)


def carried_error(
    x: Tensor,
    s: Tensor,
    e: Tensor,
    b2: float,
    unit: float,
    largest: float,
    bound: float,
    per_vote: float,
    error_bound: float,
    least: float,
    noise_e: Tensor,
) -> Tensor:
    """The exact sum minus the new s, rounded stochastically, in units of e.

    Where the new s is 0 and the exact sum is not, abs(e) is at least ``least`` (or
    ``error_bound``): with ``least`` = 1, a sum is never rounded to 0 and keeps its sign, as Lion's
    m does.
    """
    count = carrying_count(x, s, e, b2, unit, largest, bound)
    total = exact_sum(x, s, e, b2, unit)
    rounded = torch.floor((total - count) * per_vote + noise_e)
    lasting = torch.where(abs(rounded) < least, torch.sign(total) * least, rounded)
    error = torch.where(count == 0, lasting, rounded)
    return torch.clamp(error, -error_bound, error_bound)


def oldest_sign(signs: Tensor, place: float) -> Tensor:
    """The sign stored at ``place`` of the base-3 number ``signs``, whose digits are sign + 1."""
    shifted = torch.floor((signs + 0.5) / place)
    return shifted - 3 * torch.floor((shifted + 0.5) / 3) - 1


def window_count(s: Tensor, g: Tensor, signs: Tensor, place: float) -> Tensor:
    """The sum of the last w signs, as the note's text (not its listing) defines s."""
    return s + torch.sign(g) - oldest_sign(signs, place)


def replace_oldest_sign(signs: Tensor, g: Tensor, place: float) -> Tensor:
    """``signs`` with its oldest sign replaced by sign(g)."""
    return signs + place * (torch.sign(g) - oldest_sign(signs, place))
