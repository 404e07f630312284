"""The variants as torch optimizers: each pairs functions with their hyperparameters."""

from typing import ClassVar, Unpack

from torch import Tensor
from torch.optim.optimizer import ParamsT

from simba import directions
from simba.base import SignOptimizer, Switches


class SignSGD(SignOptimizer):
    """Moves along ``sign(g)`` and remembers nothing (Bernstein et al. 2018, arXiv 1802.04434).

    State: none.

    Args:
        params: tensors, named tensors or groups of them.
        lr: step of every coordinate, >= 0; a number or a tensor of one element.
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        **switches: keyword arguments of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    direction = staticmethod(directions.sign_sgd)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        weight_decay: float = 0.0,
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay}, **switches)


class Lion(SignOptimizer):
    """Chooses between ``sign(m)`` and ``sign(g)`` by eq. 1 (Chen et al. 2023, arXiv 2302.06675).

    Equal to the published ``sign(b1*m + (1-b1)*g)`` but on exact ties, where that stands still and
    this follows ``sign(g)``. State: m, in the parameter's dtype.

    Args:
        params: tensors, named tensors or groups of them.
        lr: step of every coordinate, >= 0; a number or a tensor of one element.
        betas: (b1, b2), the weight of m in the choice and in its own average, each in [0, 1].
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        **switches: keyword arguments of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    direction = staticmethod(directions.lion)
    remember: ClassVar = {"m": directions.average}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        **switches: Unpack[Switches],
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        super().__init__(params, defaults, **switches)


class Simba(SignOptimizer):
    """Chooses between ``sign(s)`` and ``sign(g)`` by eq. 5: counts signs, keeps no gradient.

    Bit for bit the class printed in the note, whose signature and state names it shares. The note
    speaks of a sliding window, its code is this saturating counter: ``s`` moves by ``sign(g)``
    within ``[-w, w]`` and forgets nothing by itself. State: s, one byte for w <= 127, else two.

    Args:
        params: tensors, named tensors or groups of them.
        lr: step of every coordinate, >= 0; a number or a tensor of one element.
        window_size: w, the bound of the counter, an integer in [1, 32767].
        threshold: gamma, the share of w beyond which ``sign(s)`` is trusted, in [0, 1]; the bound
            in force is ``int(w * gamma)``, exceeded strictly.
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        **switches: keyword arguments of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range.
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
        **switches: Unpack[Switches],
    ) -> None:
        defaults = {"lr": lr, "window_size": window_size, "threshold": threshold}
        super().__init__(params, defaults | {"weight_decay": weight_decay}, **switches)


class SimbaM(SignOptimizer):
    """Simba + m: decides when to use its memory by eq. 5, but then uses ``sign(m)``.

    State: m, in the parameter's dtype, and s, one byte for w <= 127, else two.

    Args:
        params: tensors, named tensors or groups of them.
        lr: step of every coordinate, >= 0; a number or a tensor of one element.
        beta2: decay of m, in [0, 1].
        window_size: w, the bound of the counter, an integer in [1, 32767].
        threshold: gamma, the share of w beyond which ``sign(m)`` is used, in [0, 1].
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        **switches: keyword arguments of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range.
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
        **switches: Unpack[Switches],
    ) -> None:
        defaults = {"lr": lr, "beta2": beta2, "window_size": window_size, "threshold": threshold}
        super().__init__(params, defaults | {"weight_decay": weight_decay}, **switches)


class SimbaEq1(SignOptimizer):
    """Simba + (1): decides when to use its memory by Lion's eq. 1, but then uses ``sign(s)``.

    State: m, in the parameter's dtype, and s, one byte for w <= 127, else two.

    Args:
        params: tensors, named tensors or groups of them.
        lr: step of every coordinate, >= 0; a number or a tensor of one element.
        betas: (b1, b2), the weight of m in the choice and in its own average, each in [0, 1].
        window_size: w, the bound of the counter, an integer in [1, 32767].
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        **switches: keyword arguments of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range.
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
        **switches: Unpack[Switches],
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "window_size": window_size}
        super().__init__(params, defaults | {"weight_decay": weight_decay}, **switches)


class SimbaEq4(SignOptimizer):
    """Simba by eq. 4, the note's first idea: without a gradient it follows ``sign(s)`` at once.

    With one it is Simba, whose bar gamma is here ``(1 - b1) / b1`` of Lion's b1 = 0.9 by default.
    State: s, one byte for w <= 127, else two.

    Args:
        params: tensors, named tensors or groups of them.
        lr: step of every coordinate, >= 0; a number or a tensor of one element.
        window_size: w, the bound of the counter, an integer in [1, 32767].
        threshold: gamma, the share of w beyond which ``sign(s)`` is trusted against a gradient, in
            [0, 1]; the bound in force is ``int(w * gamma)``, exceeded strictly.
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        **switches: keyword arguments of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range.
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
        **switches: Unpack[Switches],
    ) -> None:
        defaults = {"lr": lr, "window_size": window_size, "threshold": threshold}
        super().__init__(params, defaults | {"weight_decay": weight_decay}, **switches)


class SimbaCeqM(SignOptimizer):
    """Simba + (c = m): always ``sign(m)``, never the current gradient; Lion with b1 -> 1.

    State: m, in the parameter's dtype. The first step stands still: m is still zero.

    Args:
        params: tensors, named tensors or groups of them.
        lr: step of every coordinate, >= 0; a number or a tensor of one element.
        beta2: decay of m, in [0, 1].
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        **switches: keyword arguments of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    direction = staticmethod(directions.simba_c_eq_m)
    remember: ClassVar = {"m": directions.average}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        beta2: float = 0.99,
        weight_decay: float = 0.0,
        **switches: Unpack[Switches],
    ) -> None:
        defaults = {"lr": lr, "beta2": beta2, "weight_decay": weight_decay}
        super().__init__(params, defaults, **switches)


class SimbaWindow(SignOptimizer):
    """Simba as the note's text has it: s is the sum of the last w signs, by eq. 4.

    The listing's counter never forgets; this forgets a sign after w steps. State: s, one byte for
    w <= 127, and the signs themselves, five a byte: 21 bytes in all for w = 100.

    Args:
        params: tensors, named tensors or groups of them; whole ones, no parts (FSDP).
        lr: step of every coordinate, >= 0; a number or a tensor of one element.
        window_size: w, an integer in [1, 32767].
        threshold: gamma, the share of w beyond which ``sign(s)`` is trusted against a gradient, in
            [0, 1]; the bound in force is ``int(w * gamma)``, exceeded strictly.
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        **switches: keyword arguments of SignOptimizer; ``capturable`` is refused.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    direction = staticmethod(directions.simba_eq4)
    remember: ClassVar = {"s": directions.window_count, "signs": directions.newest_sign}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        window_size: int = 100,
        threshold: float = 1 / 9,
        weight_decay: float = 0.0,
        **switches: Unpack[Switches],
    ) -> None:
        defaults = {"lr": lr, "window_size": window_size, "threshold": threshold}
        super().__init__(params, defaults | {"weight_decay": weight_decay}, **switches)


class SimbaLeaky(SignOptimizer):
    """Simba that forgets: Lion's rule with ``sign(g)`` for g and a leaky integer counter for m.

    ``s <- clamp(round(b2 s + gain sign(g)), -bound, bound)``, rounded stochastically. State: s, one
    byte for bounds <= 127, else two, and two numbers a tensor.

    Args:
        params: tensors, named tensors or groups of them.
        lr: step of every coordinate, >= 0; a number or a tensor of one element.
        betas: Lion's (b1, b2) with b1 in (0, 1], b2 in [0, 1).
        gain: what a vote adds to s, > 0.
        bound: of abs(s), an integer in [1, 32767].
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        seed: of the stochastic rounding, an integer >= 0.
        **switches: keyword arguments of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range.
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
        **switches: Unpack[Switches],
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "gain": gain, "bound": bound}
        super().__init__(
            params, defaults | {"weight_decay": weight_decay, "seed": seed}, **switches
        )


class TernaryLion(SignOptimizer):
    """Lion that sees a gradient as votes of -1, 0 or 1, and counts them in one byte.

    The vote is the nearest of ``levels`` whole numbers to ``g / (spacing * scale)``; the scale is
    one number a tensor that follows ``sum(g^2) / sum(abs(g))`` (simba/scale.py). The memory is
    SimbaLeaky's. State: s, one byte for bounds <= 127, else two, and two numbers a tensor.

    Args:
        params: tensors, named tensors or groups of them.
        lr: step of every coordinate, >= 0; a number or a tensor of one element.
        betas: Lion's (b1, b2) with b1 in (0, 1], b2 in [0, 1).
        levels: how many votes there are, odd, >= 3.
        spacing: the distance between two votes, in scales, > 0.
        gain: what a vote of 1 adds to s, > 0.
        bound: of abs(s), an integer in [1, 32767].
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        seed: of the stochastic rounding, an integer >= 0.
        **switches: keyword arguments of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range.
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
        **switches: Unpack[Switches],
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "levels": levels, "spacing": spacing, "gain": gain}
        defaults |= {"bound": bound, "weight_decay": weight_decay, "seed": seed}
        super().__init__(params, defaults, **switches)


class TernaryLionEF(SignOptimizer):
    """Ternary Lion with error feedback: what a vote leaves out of a gradient enters the next one.

    After Karimireddy et al. 2019 (arXiv 1901.09847). What is left out, e, is a whole number of
    ``1 / per_vote`` votes in [-error_bound, error_bound], rounded stochastically. A coordinate
    without a gradient does not vote. State: s and e, **together in one byte** where
    ``bound * (2 * error_bound + 1) + error_bound <= 127`` (as by default), else a byte each for
    bounds <= 127; and two numbers a tensor.

    Args:
        params: tensors, named tensors or groups of them.
        lr: step of every coordinate, >= 0; a number or a tensor of one element.
        betas: Lion's (b1, b2) with b1 in (0, 1], b2 in [0, 1).
        levels: how many votes there are, odd, >= 3.
        spacing: the distance between two votes, in scales, > 0.
        gain: what a vote of 1 adds to s, > 0.
        bound: of abs(s), an integer in [1, 32767].
        least: without a vote abs(s) does not leak below it, an integer in [0, bound]; 1 keeps the
            sign of s, as Lion keeps that of m.
        error_bound: of abs(e), an integer in [1, 32767].
        per_vote: how many units of e make a vote, an integer in [1, 32767].
        leaky_error: whether e leaks as s does, by b2 a step.
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        seed: of the stochastic rounding, an integer >= 0.
        **switches: keyword arguments of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range.
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
        **switches: Unpack[Switches],
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "levels": levels, "spacing": spacing, "gain": gain}
        defaults |= {"bound": bound, "least": least, "error_bound": error_bound}
        defaults |= {"per_vote": per_vote, "leaky_error": leaky_error}
        super().__init__(
            params, defaults | {"weight_decay": weight_decay, "seed": seed}, **switches
        )


class Lion8bit(SignOptimizer):
    """Lion with m in one byte: whole numbers, one scale a tensor, stochastic rounding.

    It sees the gradient as it is, in units of the tensor's scale (simba/scale.py). State: s, one
    byte for bounds <= 127, else two, and two numbers a tensor.

    Args:
        params: tensors, named tensors or groups of them.
        lr: step of every coordinate, >= 0; a number or a tensor of one element.
        betas: Lion's (b1, b2) with b1 in (0, 1], b2 in [0, 1).
        spacing: the unit of gradients, in scales, > 0.
        gain: what a gradient of one unit adds to s, > 0.
        bound: of abs(s), an integer in [1, 32767].
        least: without a vote abs(s) does not leak below it, an integer in [0, bound]; 1 keeps the
            sign of s, as Lion keeps that of m.
        weight_decay: decoupled decay; each step scales parameters by ``1 - lr * weight_decay``.
        seed: of the stochastic rounding, an integer >= 0.
        **switches: keyword arguments of SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range.
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
        **switches: Unpack[Switches],
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "spacing": spacing, "gain": gain, "bound": bound}
        defaults |= {"least": least, "weight_decay": weight_decay, "seed": seed}
        super().__init__(params, defaults, **switches)
