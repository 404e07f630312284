"""What the optimizers share: their switches, one ``step()``, their state and its round trip."""

import math
from collections.abc import Callable
from inspect import unwrap
from numbers import Integral, Real
from typing import Any, TypedDict, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from simba.update import Rule, Slot, in_chunks, in_lists

ONE_BYTE, LARGEST_WINDOW = torch.iinfo(torch.int8).max, torch.iinfo(torch.int16).max
MEMORY = {"exp_avg", "sign_counts"}  # what a state may hold
HOW = ("foreach", "capturable", "fused")  # how a step is taken, not what it does
# its name before torch 2.13, and since
CAPTURE = "_cuda_graph_capture_health_check", "_accelerator_graph_capture_health_check"
CHECK_CAPTURE: Callable[[Optimizer], None] = [
    getattr(Optimizer, name) for name in CAPTURE if hasattr(Optimizer, name)
][-1]


class Switches(TypedDict, total=False):
    """The keyword arguments that every row takes; see SignOptimizer."""

    maximize: bool
    foreach: bool | None
    capturable: bool
    differentiable: bool
    fused: bool | None


class SignOptimizer(Optimizer):
    r"""Moves every coordinate by ``lr`` or not at all, in the direction that the row chooses.

    .. math::
        \theta &\leftarrow (1 - \eta\lambda)\,\theta - \eta\,\mathrm{rule}(g, m, s) \\
        m &\leftarrow \beta_2 m + (1 - \beta_2)\, g \\
        s &\leftarrow \mathrm{clamp}(s + \mathrm{sign}(g), -w, w)

    with the memory as it was before this gradient. A row is a subclass with its ``rule``, one of
    simba/directions.py; what the rule takes (m, s) is what the optimizer keeps: m in the
    parameter's dtype, s in one byte for a window of at most 127 and in two above.

    A memory moves its coordinate even where the gradient is zero. ``sign(NaN)`` is 0: a NaN
    gradient moves nothing by itself (decay does) and does not enter ``s``. An infinite one counts
    by its sign. Either stays in ``m`` for good, and an infinite ``m`` moves its coordinate one way
    from then on: check the loss. In bfloat16 an update of ``lr`` is lost on parameters some 256
    times larger than ``lr``, and so is a decay of ``lr * weight_decay`` below 0.002: keep float32
    parameters.

    Args:
        params: tensors, named tensors or groups of them; float32, bfloat16, float16 or float64.
        defaults: the row's hyperparameters.
        maximize: ascend instead of descend.
        foreach: take the step of small tensors together; False: one by one.
        capturable: allow capture in a CUDA graph; ``lr`` may then be a tensor on the GPU, to be
            written to between replays.
        differentiable: refused; the derivative of a sign is zero.
        fused: take the step in one compiled pass: float32 without gaps on a CPU through numba
            (simba/fused.py), with the same bits, and any tensor on a CUDA GPU through torch.compile
            (simba/compiled.py). Tensors that it cannot take are left to the plain step.

    Raises:
        ValueError: a hyperparameter is out of its range.
        ImportError: ``fused`` without numba.
    """

    rule: Callable[..., Tensor]
    row: Rule  # the rule with the names of what it takes

    # torch guards its methods against torch.compile by importing the compiler at their first call,
    # which takes over a second of every process: hence unwrap, here and below.
    zero_grad = unwrap(Optimizer.zero_grad)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.row = Rule.of(cls.rule)

    def __init__(
        self,
        params: ParamsT,
        defaults: dict[str, Any],
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        defaults |= {"maximize": maximize, "foreach": foreach, "capturable": capturable}
        defaults |= {"differentiable": differentiable, "fused": fused}
        _check(type(self).__name__, defaults)
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # saved before there was such a switch
            for name in Switches.__annotations__:
                group.setdefault(name, False if name == "maximize" else None)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its own hyperparameters are checked as the constructor's are."""
        unwrap(Optimizer.add_param_group)(self, param_group)
        group = self.param_groups[-1]
        try:
            _check(type(self).__name__, group)
            if group["fused"] and any(p.is_cpu for p in group["params"]):
                from simba import fused as _  # noqa: F401  (says now whether numba is missing)
        except (ValueError, RuntimeError, ImportError):
            self.param_groups.pop()
            raise

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
        CHECK_CAPTURE(self)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found = [
            (group, [self.slot(p, group) for p in group["params"] if p.grad is not None])
            for group in self.param_groups
        ]
        for group, slots in found:  # only once every gradient is one that can be taken
            numbers = numbers_of(group)
            for alike in _alike(slots):
                _take(self.row, alike, group, numbers)
        return loss

    def slot(self, p: Tensor, group: dict[str, Any]) -> Slot:
        """A parameter with its gradient and memory, which is made when first asked for.

        Of a DTensor, the part that lies here: a step needs no other.
        """
        g = p.grad
        assert g is not None
        if g.is_sparse:
            raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")
        if p.is_complex():
            raise RuntimeError(f"{type(self).__name__} does not support complex parameters")
        state, m, s = self.state[p], None, None
        if "m" in self.row.arguments:
            if "exp_avg" not in state:
                state["exp_avg"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            m = state["exp_avg"]
        if "s" in self.row.arguments:
            window = group["window_size"]
            dtype = counter_dtype(window)
            if "sign_counts" not in state:
                state["sign_counts"] = torch.zeros_like(
                    p, dtype=dtype, memory_format=torch.preserve_format
                )
            elif state["sign_counts"].dtype != dtype:  # made for another window
                state["sign_counts"] = _fitted(state["sign_counts"], window)
            s = state["sign_counts"]
        return _local(p, g, m, s) if hasattr(p, "to_local") else Slot(p, g, m, s)

    def state_dict(self) -> dict[str, Any]:
        """The state, as torch's; counters of two bytes are copied to four.

        Collectives do not know int16, and full state dicts of sharded models need them.
        """
        found: dict[str, Any] = unwrap(Optimizer.state_dict)(self)
        for key, state in found["state"].items():
            counts = state.get("sign_counts")
            if counts is not None and counts.dtype == torch.int16:
                found["state"][key] = {**state, "sign_counts": counts.to(torch.int32)}
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; counters stay integers (torch alone would make them floats).

        How steps are taken (``foreach``, ``capturable``, ``fused``) stays as it is here.

        Raises:
            ValueError: it is the state of an optimizer with other hyperparameters or memory.
        """
        kept = [{key: group[key] for key in HOW} for group in self.param_groups]
        loaded: list[dict[str, Any]] = []

        def look(_: Optimizer, state_dict: dict[str, Any]) -> None:
            switches = Switches.__annotations__.keys()
            own, known = self.defaults.keys() - switches, _RULES.keys() - switches
            for group in state_dict["param_groups"]:
                wrong = [f"without {key}" for key in sorted(own - group.keys())]
                wrong += [f"with {key}" for key in sorted((known - own) & group.keys())]
                held = {name for state in state_dict["state"].values() for name in state}
                wrong += [f"with {name}" for name in sorted(held - MEMORY)]
                if wrong:
                    raise ValueError(
                        f"{type(self).__name__}: the state of another optimizer, {', '.join(wrong)}"
                    )
            loaded.append(state_dict)

        def restore(_: Optimizer) -> None:
            self._restore_counts(loaded[0])
            for group, how in zip(self.param_groups, kept, strict=True):
                group.update(how)

        # after the hooks that may rewrite what is loaded, before those that look at the outcome
        last = self.register_load_state_dict_pre_hook(look)
        first = self.register_load_state_dict_post_hook(restore, prepend=True)
        try:
            unwrap(Optimizer.load_state_dict)(self, state_dict)
        finally:
            last.remove()
            first.remove()

    def _restore_counts(self, state_dict: dict[str, Any]) -> None:
        for saved, group in zip(state_dict["param_groups"], self.param_groups, strict=True):
            for saved_id, p in zip(saved["params"], group["params"], strict=True):
                counts = state_dict["state"].get(saved_id, {}).get("sign_counts")
                if counts is not None:
                    fitted = _fitted(counts, group["window_size"])
                    self.state[p]["sign_counts"] = fitted.to(p.device)


def counter_dtype(window_size: int) -> torch.dtype:
    return torch.int8 if window_size <= ONE_BYTE else torch.int16


def _fitted(counts: Tensor, window_size: int) -> Tensor:
    whole = counts.to(torch.int32, copy=True).clamp_(-window_size, window_size)
    return whole.to(counter_dtype(window_size))


def numbers_of(group: dict[str, Any]) -> dict[str, Any]:
    """A group's hyperparameters by the names that formulas use."""
    numbers = {key: value for key, value in group.items() if key != "params"}
    if isinstance(lr := group["lr"], Tensor):
        numbers["lr"] = lr.reshape(()) if group["capturable"] else lr.item()
    if "betas" in group:
        b1, numbers["b2"] = group["betas"]
        numbers |= {"b1": b1, "rest": 1 - b1}
    elif "beta2" in group:
        numbers["b2"] = group["beta2"]
    if "threshold" in group:  # the note's integer bound: 12 for w = 128, gamma = 0.1
        numbers["limit"] = int(group["window_size"] * group["threshold"])
    return numbers


def _local(p: Any, g: Any, m: Any, s: Any) -> Slot:
    """What lies here of DTensors."""
    if g.placements != p.placements:
        g = g.redistribute(placements=p.placements)
    m, s = (None if t is None else t.to_local() for t in (m, s))
    return Slot(p.to_local(), g.to_local(), m, s)


def _alike(slots: list[Slot]) -> list[list[Slot]]:
    """Slots of one device and one dtype each."""
    found: dict[tuple[torch.device, torch.dtype], list[Slot]] = {}
    for slot in slots:
        found.setdefault((slot.p.device, slot.p.dtype), []).append(slot)
    return list(found.values())


def _take(rule: Rule, slots: list[Slot], group: dict[str, Any], numbers: dict[str, Any]) -> None:
    """The step of slots that are alike, in the way that their group asks for."""
    if group["fused"] and slots[0].p.is_cuda:
        from simba.compiled import compiled_step

        return compiled_step(rule, slots, numbers)
    if group["fused"]:
        from simba.fused import fused_step

        slots = fused_step(rule, slots, numbers)
    if group["foreach"] is False:
        for slot in slots:
            in_chunks(rule, slot, numbers)
    else:
        in_lists(rule, slots, numbers)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_rate(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_cpu or bool(((value >= 0) & (value < math.inf)).all())
    return _is_nonnegative(value)


def _is_nonnegative(value: Any) -> bool:
    return _is_number(value) and 0 <= value < math.inf


def _is_betas(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_share, value))


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_switch(value: Any) -> bool:
    return value is None or isinstance(value, bool)


_SWITCH = (_is_switch, "true, false or None")
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lr": (_is_rate, "a finite number >= 0"),
    "weight_decay": (_is_nonnegative, "a finite number >= 0"),
    "beta2": (_is_share, "a number in [0, 1]"),
    "betas": (_is_betas, "two numbers in [0, 1]"),
    "threshold": (_is_share, "a number in [0, 1]"),
    "window_size": (
        lambda v: isinstance(v, Integral) and _is_number(v) and 1 <= int(v) <= LARGEST_WINDOW,
        f"an integer in [1, {LARGEST_WINDOW}]",
    ),
    **dict.fromkeys(Switches.__annotations__, _SWITCH),
}


def _check(owner: str, hyperparameters: dict[str, Any]) -> None:
    """Raise a ValueError that names the hyperparameter, its range and its value."""
    for name, value in hyperparameters.items():
        if name in _RULES:
            valid, expected = _RULES[name]
            if not valid(value):
                raise ValueError(f"{owner}: {name} must be {expected}, got {value!r}")
    lr = hyperparameters["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if hyperparameters["differentiable"]:
        raise ValueError("differentiable=True: the derivative of a sign is zero")
    if hyperparameters["foreach"] and hyperparameters["fused"]:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
