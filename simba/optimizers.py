"""The variants as torch optimizers: one class per variant, with its functions and defaults."""

from typing import ClassVar, Unpack

from torch import Tensor
from torch.optim.optimizer import ParamsT

from simba import directions
from simba.base import Options, SignOptimizer


class SignSGD(SignOptimizer):
    """Moves by ``-lr * sign(g)`` and stores no memory (Bernstein et al. 2018, arXiv 1802.04434).

    State: none.

    Args:
        params: tensors, named tensors or groups of them.
        lr: how far a step moves a coordinate, >= 0; a number or a tensor of one element.
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        **options: options of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range; and the errors of SignOptimizer.
    """

    direction = staticmethod(directions.sign_sgd)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay}, **options)


class Lion(SignOptimizer):
    """Chooses between ``sign(m)`` and ``sign(g)`` by eq. 1 (Chen et al. 2023, arXiv 2302.06675).

    Equal to the published ``sign(b1*m + (1-b1)*g)`` except where the two terms cancel exactly. The
    published form does not move there, this one follows ``sign(g)``. State: m, in the parameter's
    dtype.

    Args:
        params: tensors, named tensors or groups of them.
        lr: how far a step moves a coordinate, >= 0; a number or a tensor of one element.
        betas: (b1, b2), the weight of m in the choice and in its own average, each in [0, 1].
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        **options: options of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range; and the errors of SignOptimizer.
    """

    direction = staticmethod(directions.lion)
    remember: ClassVar = {"m": directions.average}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        super().__init__(params, defaults, **options)


class Simba(SignOptimizer):
    """Chooses between ``sign(s)`` and ``sign(g)`` by eq. 5; s counts signs of gradients.

    Bitwise identical to the class that the note prints, with the same signature and state names.
    The note's text describes a sliding window, but its listing is this saturating counter: each
    step adds ``sign(g)`` to s and clamps it to ``[-w, w]``; s does not decay. State: s, one byte
    for w <= 127, else two.

    Args:
        params: tensors, named tensors or groups of them.
        lr: how far a step moves a coordinate, >= 0; a number or a tensor of one element.
        window_size: w, the bound of the counter, an integer in [1, 32767].
        threshold: gamma, in [0, 1]: the direction is ``sign(s)`` where abs(s) > int(w * gamma).
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        **options: options of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range; and the errors of SignOptimizer.
    """

    direction = staticmethod(directions.simba)
    remember: ClassVar = {"s": directions.saturating_count}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        window_size: int = 128,
        threshold: float = 0.1,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        defaults = {"lr": lr, "window_size": window_size, "threshold": threshold}
        super().__init__(params, defaults | {"weight_decay": weight_decay}, **options)


class SimbaM(SignOptimizer):
    """Simba + m: chooses between ``sign(m)`` and ``sign(g)`` by eq. 5.

    State: m, in the parameter's dtype, and s, one byte for w <= 127, else two.

    Args:
        params: tensors, named tensors or groups of them.
        lr: how far a step moves a coordinate, >= 0; a number or a tensor of one element.
        beta2: weight of the old m in its average, in [0, 1].
        window_size: w, the bound of the counter, an integer in [1, 32767].
        threshold: gamma, in [0, 1]: the direction is ``sign(m)`` where abs(s) > int(w * gamma).
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        **options: options of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range; and the errors of SignOptimizer.
    """

    direction = staticmethod(directions.simba_m)
    remember: ClassVar = {"m": directions.average, "s": directions.saturating_count}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        beta2: float = 0.99,
        window_size: int = 128,
        threshold: float = 0.1,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        defaults = {"lr": lr, "beta2": beta2, "window_size": window_size, "threshold": threshold}
        super().__init__(params, defaults | {"weight_decay": weight_decay}, **options)


class SimbaEq1(SignOptimizer):
    """Simba + (1): chooses between ``sign(s)`` and ``sign(g)`` by Lion's eq. 1.

    State: m, in the parameter's dtype, and s, one byte for w <= 127, else two.

    Args:
        params: tensors, named tensors or groups of them.
        lr: how far a step moves a coordinate, >= 0; a number or a tensor of one element.
        betas: (b1, b2), the weight of m in the choice and in its own average, each in [0, 1].
        window_size: w, the bound of the counter, an integer in [1, 32767].
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        **options: options of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range; and the errors of SignOptimizer.
    """

    direction = staticmethod(directions.simba_eq1)
    remember: ClassVar = {"m": directions.average, "s": directions.saturating_count}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        window_size: int = 128,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "window_size": window_size}
        super().__init__(params, defaults | {"weight_decay": weight_decay}, **options)


class SimbaEq4(SignOptimizer):
    """Simba by the note's eq. 4: ``sign(s)`` where the gradient is zero, else Simba.

    The default gamma is ``(1 - b1) / b1`` for Lion's b1 = 0.9. State: s, one byte for w <= 127,
    else two.

    Args:
        params: tensors, named tensors or groups of them.
        lr: how far a step moves a coordinate, >= 0; a number or a tensor of one element.
        window_size: w, the bound of the counter, an integer in [1, 32767].
        threshold: gamma, in [0, 1]: the direction is ``sign(s)`` where abs(s) > int(w * gamma), and
            where g = 0.
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        **options: options of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range; and the errors of SignOptimizer.
    """

    direction = staticmethod(directions.simba_eq4)
    remember: ClassVar = {"s": directions.saturating_count}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        window_size: int = 128,
        threshold: float = 1 / 9,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        defaults = {"lr": lr, "window_size": window_size, "threshold": threshold}
        super().__init__(params, defaults | {"weight_decay": weight_decay}, **options)


class SimbaCeqM(SignOptimizer):
    """Simba + (c = m): always ``sign(m)``, never the current gradient; Lion with b1 -> 1.

    State: m, in the parameter's dtype. m is zero in the first step, so only weight decay moves
    parameters there.

    Args:
        params: tensors, named tensors or groups of them.
        lr: how far a step moves a coordinate, >= 0; a number or a tensor of one element.
        beta2: weight of the old m in its average, in [0, 1].
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        **options: options of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range; and the errors of SignOptimizer.
    """

    direction = staticmethod(directions.simba_c_eq_m)
    remember: ClassVar = {"m": directions.average}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        beta2: float = 0.99,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        defaults = {"lr": lr, "beta2": beta2, "weight_decay": weight_decay}
        super().__init__(params, defaults, **options)


class SimbaWindow(SignOptimizer):
    """Simba as the note's text defines it: s is the sum of the last w signs; moves by eq. 4.

    The listing's counter never drops a sign by its age; this variant does so after w steps. State:
    s, one byte for w <= 127, else two, and the last w signs, five per byte: 21 bytes in all for w =
    100; and a step count per tensor. On a GPU, the step is eager also with ``fused=True``.

    Args:
        params: tensors, named tensors or groups of them; not sharded (FSDP).
        lr: how far a step moves a coordinate, >= 0; a number or a tensor of one element.
        window_size: w, an integer in [1, 32767]; it must not change after the first step.
        threshold: gamma, in [0, 1]: the direction is ``sign(s)`` where abs(s) > int(w * gamma), and
            where g = 0.
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        **options: options of SignOptimizer; ``capturable`` must be False.

    Raises:
        ValueError: a hyperparameter is out of its range; and the errors of SignOptimizer.
    """

    direction = staticmethod(directions.simba_eq4)
    remember: ClassVar = {"s": directions.window_count, "signs": directions.replace_oldest_sign}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        window_size: int = 100,
        threshold: float = 1 / 9,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        defaults = {"lr": lr, "window_size": window_size, "threshold": threshold}
        super().__init__(params, defaults | {"weight_decay": weight_decay}, **options)


class SimbaLeaky(SignOptimizer):
    """Lion with ``sign(g)`` instead of g and a decaying integer counter instead of m.

    ``s <- clamp(floor(b2 s + gain sign(g) + noise), -bound, bound)`` with noise uniform in [0, 1).
    State: s, one byte for bounds <= 127, else two, and a step count per tensor.

    Args:
        params: tensors, named tensors or groups of them; not sharded (FSDP).
        lr: how far a step moves a coordinate, >= 0; a number or a tensor of one element.
        betas: Lion's (b1, b2) with b1 in (0, 1], b2 in [0, 1).
        gain: the amount that a vote of 1 adds to s, > 0.
        bound: the largest abs(s), an integer in [1, 32767].
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        seed: selects the random numbers of the stochastic rounding, an integer >= 0.
        **options: options of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range; and the errors of SignOptimizer.
    """

    vote = staticmethod(directions.sign_vote)
    direction = staticmethod(directions.count_and_vote)
    remember: ClassVar = {"s": directions.leaky_count}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        gain: float = 1.0,
        bound: int = 127,
        weight_decay: float = 0.0,
        seed: int = 0,
        **options: Unpack[Options],
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "gain": gain, "bound": bound}
        super().__init__(params, defaults | {"weight_decay": weight_decay, "seed": seed}, **options)


class TernaryLion(SignOptimizer):
    """Lion with votes instead of gradients and a counter of votes instead of m.

    The vote is ``g / (spacing * scale)``, rounded to the nearest integer and clamped to [-k, k]
    with ``k = (levels - 1) / 2``: -1, 0 or 1 by default. The scale is one number per tensor, a
    moving average of ``sum(g^2) / sum(abs(g))`` (simba/scale.py). The counter is SimbaLeaky's.
    State: s, one byte for bounds <= 127, else two, and a step count and a scale per tensor.

    Args:
        params: tensors, named tensors or groups of them; not sharded (FSDP).
        lr: how far a step moves a coordinate, >= 0; a number or a tensor of one element.
        betas: Lion's (b1, b2) with b1 in (0, 1], b2 in [0, 1).
        levels: the number of possible votes, odd, >= 3.
        spacing: gradients are divided by ``spacing`` times the scale before rounding, > 0.
        gain: the amount that a vote of 1 adds to s, > 0.
        bound: the largest abs(s), an integer in [1, 32767].
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        seed: selects the random numbers of the stochastic rounding, an integer >= 0.
        **options: options of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range; and the errors of SignOptimizer.
    """

    vote = staticmethod(directions.nearest)
    direction = staticmethod(directions.count_and_vote)
    remember: ClassVar = {"s": directions.leaky_count}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        levels: int = 3,
        spacing: float = 1.0,
        gain: float = 16.0,
        bound: int = 127,
        weight_decay: float = 0.0,
        seed: int = 0,
        **options: Unpack[Options],
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "levels": levels, "spacing": spacing, "gain": gain}
        defaults |= {"bound": bound, "weight_decay": weight_decay, "seed": seed}
        super().__init__(params, defaults, **options)


class TernaryLionEF(SignOptimizer):
    """Ternary Lion with error feedback: a rounding error is added to the next scaled gradient.

    Error feedback is by Karimireddy et al. 2019 (arXiv 1901.09847). The error e is an integer in
    [-error_bound, error_bound], in units of ``1 / per_vote`` votes, rounded stochastically. A
    coordinate whose gradient is zero does not vote. State: s and e, **together in one byte** if
    ``bound * (2 * error_bound + 1) + error_bound <= 127`` (so by default), else in one byte each
    for bounds <= 127; and a step count and a scale per tensor.

    Args:
        params: tensors, named tensors or groups of them; not sharded (FSDP).
        lr: how far a step moves a coordinate, >= 0; a number or a tensor of one element.
        betas: Lion's (b1, b2) with b1 in (0, 1], b2 in [0, 1).
        levels: the number of possible votes, odd, >= 3.
        spacing: gradients are divided by ``spacing`` times the scale before rounding, > 0.
        gain: the amount that a vote of 1 adds to s, > 0.
        bound: the largest abs(s), an integer in [1, 32767].
        least: where the vote is 0, abs(s) does not decay below ``least``, an integer in [0, bound].
            With 1, s keeps its sign, as Lion's m does.
        error_bound: the largest abs(e), an integer in [1, 32767].
        per_vote: the number of units of e per vote, an integer in [1, 32767].
        leaky_error: whether e decays by the factor b2 per step, as s does.
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        seed: selects the random numbers of the stochastic rounding, an integer >= 0.
        **options: options of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range; and the errors of SignOptimizer.
    """

    vote = staticmethod(directions.nearest_with_error)
    direction = staticmethod(directions.count_error_and_vote)
    remember: ClassVar = {"s": directions.lasting_count, "e": directions.rounding_error}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        levels: int = 3,
        spacing: float = 1.25,
        gain: float = 2.0,
        bound: int = 15,
        least: int = 0,
        error_bound: int = 3,
        per_vote: int = 4,
        leaky_error: bool = False,
        weight_decay: float = 0.0,
        seed: int = 0,
        **options: Unpack[Options],
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "levels": levels, "spacing": spacing, "gain": gain}
        defaults |= {"bound": bound, "least": least, "error_bound": error_bound}
        defaults |= {"per_vote": per_vote, "leaky_error": leaky_error}
        super().__init__(params, defaults | {"weight_decay": weight_decay, "seed": seed}, **options)


class TernaryLionCarry(SignOptimizer):
    """TernaryLionEF whose error also keeps what the decay of the counter rounds away.

    In TernaryLionEF, s is rounded stochastically to whole votes when it decays. Here s and e are
    two digits of one number ``s + e / per_vote``, the moving sum of scaled gradients: s moves by at
    most one vote a step (``levels=3``) towards the exact sum, and the rest is e. State: s and e,
    **together in one byte** if ``bound * (2 * error_bound + 1) + error_bound <= 127`` (so by
    default), else in one byte each for bounds <= 127; and a step count and a scale per tensor.

    Args:
        params: tensors, named tensors or groups of them; not sharded (FSDP).
        lr: how far a step moves a coordinate, >= 0; a number or a tensor of one element.
        betas: Lion's (b1, b2) with b1 in (0, 1], b2 in [0, 1).
        levels: the number of possible votes, odd, >= 3.
        spacing: gradients are divided by ``spacing`` times the scale before rounding, > 0.
        bound: the largest abs(s), an integer in [1, 32767].
        least: where s is 0 and the sum is not, abs(e) is at least ``least``, an integer in [0,
            bound] (or ``error_bound``). With 1, a sum is never rounded to 0 and keeps its sign, as
            Lion's m does.
        error_bound: the largest abs(e), an integer in [1, 32767]; half of ``per_vote``, rounded up,
            holds all that rounding leaves, unless the move of s was clamped.
        per_vote: the number of units of e per vote, an integer in [1, 32767].
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        seed: selects the random numbers of the stochastic rounding, an integer >= 0.
        **options: options of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range; and the errors of SignOptimizer.
    """

    vote = staticmethod(directions.nearest_with_error)
    direction = staticmethod(directions.count_error_and_vote)
    remember: ClassVar = {"s": directions.carrying_count, "e": directions.carried_error}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        levels: int = 3,
        spacing: float = 1.25,
        bound: int = 7,
        least: int = 1,
        error_bound: int = 8,
        per_vote: int = 16,
        weight_decay: float = 0.0,
        seed: int = 0,
        **options: Unpack[Options],
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "levels": levels, "spacing": spacing}
        defaults |= {"bound": bound, "least": least, "error_bound": error_bound}
        defaults |= {"per_vote": per_vote, "weight_decay": weight_decay, "seed": seed}
        super().__init__(params, defaults, **options)


class Lion8bit(SignOptimizer):
    """Lion with a counter s of one byte instead of m: ``s <- clamp(round(b2 s + gain x))``.

    x is the gradient, divided by ``spacing`` times the tensor's scale (simba/scale.py). The sum is
    rounded stochastically and clamped to [-bound, bound]; x itself is not rounded. State: s, one
    byte for bounds <= 127, else two, and a step count and a scale per tensor.

    Args:
        params: tensors, named tensors or groups of them; not sharded (FSDP).
        lr: how far a step moves a coordinate, >= 0; a number or a tensor of one element.
        betas: Lion's (b1, b2) with b1 in (0, 1], b2 in [0, 1).
        spacing: gradients are divided by ``spacing`` times the scale, > 0.
        gain: the amount that a scaled gradient ``g / (spacing * scale)`` of 1 adds to s, > 0.
        bound: the largest abs(s), an integer in [1, 32767].
        least: where the gradient is 0, abs(s) does not decay below ``least``, an integer in
            [0, bound]. With 1, s keeps its sign, as Lion's m does.
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        seed: selects the random numbers of the stochastic rounding, an integer >= 0.
        **options: options of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range; and the errors of SignOptimizer.
    """

    vote = staticmethod(directions.exact)
    direction = staticmethod(directions.count_and_vote)
    remember: ClassVar = {"s": directions.lasting_count}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        spacing: float = 1.25,
        gain: float = 12.0,
        bound: int = 127,
        least: int = 0,
        weight_decay: float = 0.0,
        seed: int = 0,
        **options: Unpack[Options],
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "spacing": spacing, "gain": gain, "bound": bound}
        defaults |= {"least": least, "weight_decay": weight_decay, "seed": seed}
        super().__init__(params, defaults, **options)
