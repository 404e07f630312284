"""What the six optimizers share: one ``step()``, their state and its round trip."""

import math
from collections.abc import Callable
from typing import Any, ClassVar, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

LARGEST_WINDOW = torch.iinfo(torch.int16).max - 1  # the counter adds before it clamps


class SignOptimizer(Optimizer):
    r"""Moves every coordinate by exactly ``lr``, in the direction that the row chooses.

    .. math::
        \theta &\leftarrow (1 - \eta\lambda)\,\theta - \eta\,\mathrm{direction}(g, m, s) \\
        m &\leftarrow \beta_2 m + (1 - \beta_2)\, g \\
        s &\leftarrow \mathrm{clamp}(s + \mathrm{sign}(g), -w, w)

    with the memory as it was before this gradient. A row is a subclass that names its memory in
    ``memory`` (``"exp_avg"`` for m, ``"sign_counts"`` for s) and returns its direction.

    A memory moves its coordinate even where the gradient is zero. ``sign(NaN)`` is 0 in torch: a
    NaN gradient moves nothing by itself and does not enter ``s``, but it does stay in ``m`` for
    good; check the loss. In bfloat16 an update of ``lr`` is lost on parameters some 256 times
    larger than ``lr``: keep float32 parameters.
    """

    memory: ClassVar[tuple[str, ...]] = ()

    def __init__(self, params: ParamsT, **defaults: Any) -> None:
        _check(type(self).__name__, defaults)
        super().__init__(params, defaults)

    def direction(self, g: Tensor, memory: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
        """-1, 0 or +1 for every coordinate of ``g``; reads ``memory``, writes nothing."""
        raise NotImplementedError

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step; returns the loss of ``closure``, if one is given.

        Raises:
            RuntimeError: a gradient is sparse or complex.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, group)
        return loss

    def _update(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        if g.is_sparse:
            raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")
        if g.is_complex():
            raise RuntimeError(f"{type(self).__name__} does not support complex parameters")
        if group.get("maximize"):
            g = -g
        memory = self.state[p]
        if not memory:
            for name in self.memory:
                dtype = torch.int16 if name == "sign_counts" else p.dtype
                memory[name] = torch.zeros_like(p, dtype=dtype)

        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(self.direction(g, memory, group), alpha=-group["lr"])

        if "exp_avg" in memory:
            beta2 = group["betas"][1] if "betas" in group else group["beta2"]
            memory["exp_avg"].mul_(beta2).add_(g, alpha=1 - beta2)
        if "sign_counts" in memory:
            window = group["window_size"]
            memory["sign_counts"].add_(g.sign().to(torch.int16)).clamp_(-window, window)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; counters stay integers (torch alone would make them floats)."""
        super().load_state_dict(state_dict)
        saved_ids = [i for group in state_dict["param_groups"] for i in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for saved_id, p in zip(saved_ids, params, strict=True):
            for name, value in state_dict["state"].get(saved_id, {}).items():
                if isinstance(value, Tensor) and not value.is_floating_point():
                    self.state[p][name] = value.to(p.device, copy=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_betas(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_share, value))


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lr": (lambda v: _is_number(v) and 0 <= v < math.inf, "a finite number >= 0"),
    "weight_decay": (lambda v: _is_number(v) and 0 <= v < math.inf, "a finite number >= 0"),
    "beta2": (_is_share, "a number in [0, 1]"),
    "betas": (_is_betas, "two numbers in [0, 1]"),
    "threshold": (_is_share, "a number in [0, 1]"),
    "window_size": (
        lambda v: isinstance(v, int) and _is_number(v) and 1 <= v <= LARGEST_WINDOW,
        f"an integer in [1, {LARGEST_WINDOW}]",
    ),
    "maximize": (lambda v: isinstance(v, bool), "true or false"),
}


def _check(owner: str, hyperparameters: dict[str, Any]) -> None:
    """Raise a ValueError that names the hyperparameter, its range and its value."""
    for name, value in hyperparameters.items():
        if name in _RULES:
            valid, expected = _RULES[name]
            if not valid(value):
                raise ValueError(f"{owner}: {name} must be {expected}, got {value!r}")
