"""The rows as torch optimizers: each pairs a rule with its hyperparameters."""

from typing import Unpack

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
        **switches: ``maximize``, ``foreach``, ``capturable``, ``fused``; see SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    rule = staticmethod(directions.sign_sgd)

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
        **switches: ``maximize``, ``foreach``, ``capturable``, ``fused``; see SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    rule = staticmethod(directions.lion)

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
        **switches: ``maximize``, ``foreach``, ``capturable``, ``fused``; see SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    rule = staticmethod(directions.simba)

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
        **switches: ``maximize``, ``foreach``, ``capturable``, ``fused``; see SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    rule = staticmethod(directions.simba_m)

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
        **switches: ``maximize``, ``foreach``, ``capturable``, ``fused``; see SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    rule = staticmethod(directions.simba_eq1)

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
        **switches: ``maximize``, ``foreach``, ``capturable``, ``fused``; see SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    rule = staticmethod(directions.simba_eq4)

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
        **switches: ``maximize``, ``foreach``, ``capturable``, ``fused``; see SignOptimizer.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    rule = staticmethod(directions.simba_c_eq_m)

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
