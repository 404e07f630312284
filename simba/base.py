"""What the six optimizers share: one ``step()``, their state and its round trip."""

import math
from collections.abc import Callable, Iterator
from inspect import signature, unwrap
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

LARGEST_WINDOW = torch.iinfo(torch.int16).max - 1  # the counter adds before it clamps
CHUNK = 2**16  # elements whose temporaries stay in a core's cache


class SignOptimizer(Optimizer):
    r"""Moves every coordinate by exactly ``lr``, in the direction that the row chooses.

    .. math::
        \theta &\leftarrow (1 - \eta\lambda)\,\theta - \eta\,\mathrm{rule}(g, m, s) \\
        m &\leftarrow \beta_2 m + (1 - \beta_2)\, g \\
        s &\leftarrow \mathrm{clamp}(s + \mathrm{sign}(g), -w, w)

    with the memory as it was before this gradient. A row is a subclass with its ``rule``, one of
    simba/directions.py; what the rule takes (m, s) is what the optimizer keeps.

    A memory moves its coordinate even where the gradient is zero. ``sign(NaN)`` is 0 in torch: a
    NaN gradient moves nothing by itself and does not enter ``s``, but it does stay in ``m`` for
    good; check the loss. In bfloat16 an update of ``lr`` is lost on parameters some 256 times
    larger than ``lr``: keep float32 parameters.
    """

    rule: Callable[..., Tensor]

    # torch guards these against torch.compile by importing the compiler at their first call, which
    # takes over a second of every process; these are the same without the guard.
    add_param_group = unwrap(Optimizer.add_param_group)
    state_dict = unwrap(Optimizer.state_dict)
    zero_grad = unwrap(Optimizer.zero_grad)

    def __init__(self, params: ParamsT, **defaults: Any) -> None:
        _check(type(self).__name__, defaults)
        self.arguments = tuple(signature(self.rule).parameters)
        if defaults["fused"]:
            from simba import fused  # numba is asked for only here

            self.kernel = fused.kernel(self.rule, self.arguments)
        super().__init__(params, defaults)

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
            numbers = self._numbers(group)
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, group, numbers)
        return loss

    def _numbers(self, group: dict[str, Any]) -> dict[str, float]:
        """A group's hyperparameters by the names that formulas use."""
        numbers = dict(group)
        if "betas" in group:
            b1, numbers["b2"] = group["betas"]
            numbers |= {"b1": b1, "rest": 1 - b1}
        elif "beta2" in group:
            numbers["b2"] = group["beta2"]
        if "threshold" in group:  # the note's integer bound: 12 for w = 128, gamma = 0.1
            numbers["limit"] = int(group["window_size"] * group["threshold"])
        return numbers

    def _update(self, p: Tensor, g: Tensor, group: dict[str, Any], numbers: dict[str, Any]) -> None:
        if g.is_sparse:
            raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")
        if g.is_complex():
            raise RuntimeError(f"{type(self).__name__} does not support complex parameters")
        if group["maximize"]:
            g = -g
        state = self.state[p]
        if not state:
            if "m" in self.arguments:
                state["exp_avg"] = torch.zeros_like(p)
            if "s" in self.arguments:
                state["sign_counts"] = torch.zeros_like(p, dtype=torch.int16)
        m, s = state.get("exp_avg"), state.get("sign_counts")
        if group["fused"] and _is_plain(p, g, m, s):
            self.kernel(p, g, m, s, numbers)
        else:
            for part in _chunks(p, g, m, s):
                self._plain_update(*part, numbers)

    def _plain_update(
        self, p: Tensor, g: Tensor, m: Tensor | None, s: Tensor | None, numbers: dict[str, Any]
    ) -> None:
        lr, decay = numbers["lr"], 1 - numbers["lr"] * numbers["weight_decay"]
        values = {**numbers, "g": g, "m": m, "s": s}
        p.mul_(decay).add_(self.rule(*(values[name] for name in self.arguments)), alpha=-lr)
        if m is not None:
            m.mul_(numbers["b2"]).add_(g, alpha=1 - numbers["b2"])
        if s is not None:
            window = numbers["window_size"]
            s.add_(g.sign().to(s.dtype)).clamp_(-window, window)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; counters stay integers (torch alone would make them floats)."""
        fused = [group["fused"] for group in self.param_groups]
        unwrap(Optimizer.load_state_dict)(self, state_dict)
        saved_ids = [i for group in state_dict["param_groups"] for i in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for saved_id, p in zip(saved_ids, params, strict=True):
            for name, value in state_dict["state"].get(saved_id, {}).items():
                if isinstance(value, Tensor) and not value.is_floating_point():
                    self.state[p][name] = value.to(p.device, copy=True)
        for group, kept in zip(self.param_groups, fused, strict=True):
            group["fused"] = kept  # how a step is taken is this process's choice


Chunk = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


def _chunks(p: Tensor, g: Tensor, m: Tensor | None, s: Tensor | None) -> Iterator[Chunk]:
    """Views of cache-sized parts, or the whole tensors where they do not lie alike in memory."""
    tensors = (p, g, m, s)
    if p.numel() <= CHUNK or not all(t is None or t.is_contiguous() for t in tensors):
        yield tensors
        return
    for first in range(0, p.numel(), CHUNK):
        part = slice(first, first + CHUNK)
        p_part, g_part, m_part, s_part = (None if t is None else t.view(-1)[part] for t in tensors)
        assert p_part is not None
        assert g_part is not None
        yield p_part, g_part, m_part, s_part


def _is_plain(*tensors: Tensor | None) -> bool:
    """Contiguous numbers in memory, which a compiled loop can run over."""
    p, g, m, _ = tensors
    floats = all(t is None or t.dtype == torch.float32 for t in (p, g, m))
    return floats and all(t is None or (t.is_cpu and t.is_contiguous()) for t in tensors)


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
    "fused": (lambda v: isinstance(v, bool), "true or false"),
}


def _check(owner: str, hyperparameters: dict[str, Any]) -> None:
    """Raise a ValueError that names the hyperparameter, its range and its value."""
    for name, value in hyperparameters.items():
        if name in _RULES:
            valid, expected = _RULES[name]
            if not valid(value):
                raise ValueError(f"{owner}: {name} must be {expected}, got {value!r}")
