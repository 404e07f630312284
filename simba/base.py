"""What the optimizers share: their switches, one ``step()``, their state and its round trip."""

from collections.abc import Callable, Mapping
from inspect import unwrap
from typing import Any, ClassVar, TypedDict, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from simba import per_tensor
from simba.backends import dispatch, eager
from simba.checks import SWITCHES, as_python, check, check_taken
from simba.state import fitted, in_flat_parameter, layout, new_tensor
from simba.state_dict import check_loaded, portable, restore
from simba.types import ParamState, Variant

HOW = ("foreach", "capturable", "fused")  # how a step is taken, not what it does
# its name before torch 2.13, and since
CAPTURE = "_cuda_graph_capture_health_check", "_accelerator_graph_capture_health_check"
CHECK_CAPTURE: Callable[[Optimizer], None] = [
    getattr(Optimizer, name) for name in CAPTURE if hasattr(Optimizer, name)
][-1]


class Switches(TypedDict, total=False):
    """The keyword arguments that every variant takes; see SignOptimizer."""

    maximize: bool
    foreach: bool | None
    capturable: bool
    differentiable: bool
    fused: bool | None
    stochastic_rounding: bool


class SignOptimizer(Optimizer):
    r"""Moves every coordinate by ``lr`` or not at all, in the direction that the variant chooses.

    .. math::
        q &= \mathrm{vote}(g) \\
        \theta &\leftarrow (1 - \eta\lambda)\,\theta - \eta\,\mathrm{direction}(g, q, m, s, \ldots)
        \\
        (m, s, \ldots) &\leftarrow \mathrm{remember}(g, q, m, s, \ldots)

    with the memory as it was before this gradient. A variant is a subclass with its ``direction``,
    what it ``remember``\ s and perhaps a ``vote``, all of simba/directions.py. What it remembers is
    what the optimizer keeps: m in the parameter's dtype, whole numbers in one byte if they fit one.

    A memory moves its coordinate even where the gradient is zero. ``sign(NaN)`` is 0: a NaN
    gradient moves nothing by itself (decay does) and does not enter whole numbers. An infinite one
    counts by its sign. Either stays in ``m`` for good, and an infinite ``m`` moves its coordinate
    one way from then on: check the loss. A step of bfloat16 or float16 is computed in float32 and
    rounded once. In bfloat16 an update of ``lr`` is then lost on parameters some 256 times larger
    than ``lr``, and so is a decay of ``lr * weight_decay`` below 0.002: keep float32 parameters, or
    round them stochastically.

    Args:
        params: tensors, named tensors or groups of them; float32, bfloat16, float16 or float64.
        defaults: the variant's hyperparameters.
        maximize: ascend instead of descend.
        foreach: take the step of small tensors together; False: one by one. Variants that need a
            number of each tensor always go one by one.
        capturable: allow capture in a CUDA graph; ``lr`` may then be a tensor on the GPU, to be
            written to between replays.
        differentiable: refused; the derivative of a sign is zero.
        fused: take the step in one compiled pass: float32, bfloat16 and float16 on a CPU through
            numba (simba/backends/numba_cpu.py), with the same bits, and any tensor on a CUDA GPU
            through torch.compile (simba/backends/inductor.py). Other tensors take the eager step,
            and so does a step that torch.compile traces.
        stochastic_rounding: round bfloat16 parameters up or down at random, so that they move by
            ``lr`` on average. The random numbers depend on the step, the parameter's place among
            all and the coordinate: the bits are the same however steps are taken, and after a
            checkpoint. Keeps a count of steps per parameter. Other dtypes are rounded as ever.

    Raises:
        ValueError: a hyperparameter is out of its range, a group has one that the variant does
            not take, the variant needs numbers of whole tensors and a parameter is a part of one
            (FSDP, a DTensor), or ``stochastic_rounding`` meets a float16 parameter.
        ImportError: ``fused`` without numba.
    """

    vote: Callable[..., Tensor] | None = None
    direction: Callable[..., Tensor]
    remember: ClassVar[Mapping[str, Callable[..., Tensor]]] = {}
    variant: Variant  # the three, with the names of what they take

    # torch guards its methods against torch.compile by importing the compiler at their first call,
    # which takes over a second of every process: hence unwrap, here and below.
    zero_grad = unwrap(Optimizer.zero_grad)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.variant = Variant(cls.vote, cls.direction, cls.remember)

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
        stochastic_rounding: bool = False,
    ) -> None:
        defaults |= {"maximize": maximize, "foreach": foreach, "capturable": capturable}
        defaults |= {"differentiable": differentiable, "fused": fused}
        defaults |= {"stochastic_rounding": stochastic_rounding}
        defaults |= as_python(defaults)
        check(type(self).__name__, defaults)
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for name in SWITCHES:  # saved before there was such a switch
                group.setdefault(name, None if name in HOW else False)
            group.update(as_python(group))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its own hyperparameters are checked as the constructor's are."""
        unwrap(Optimizer.add_param_group)(self, param_group)
        group = self.param_groups[-1]
        try:
            group.update(as_python(group))
            check_taken(type(self).__name__, group, self.defaults)
            check(type(self).__name__, group)
            if group["fused"] and any(p.is_cpu for p in group["params"]):
                from simba.backends import numba_cpu as _  # noqa: F401  (is numba missing?)
            if group["capturable"] and self.variant.windowed:
                raise ValueError(f"{type(self).__name__}: capturable must be false")
            for p in group["params"]:
                self._check_parameter(p, group)
        except Exception:
            self.param_groups.pop()
            raise

    def _check_parameter(self, p: Tensor, group: dict[str, Any]) -> None:
        owner = type(self).__name__
        if group["stochastic_rounding"]:
            owner += " with stochastic_rounding"
            if p.dtype == torch.float16:
                raise ValueError(f"{owner} rounds to bfloat16, and a parameter is float16")
        if per_tensor.needed(self.variant, p, group):
            # of a sharded parameter there are only parts here: DTensors or FSDP1's flat tensors
            if hasattr(p, "to_local"):
                raise ValueError(f"{owner} does not support DTensor parameters (FSDP2)")
            if in_flat_parameter(p):
                raise ValueError(f"{owner} does not support FSDP's flat parameters")

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
        number, found = 0, []
        for group in self.param_groups:
            states = []
            for p in group["params"]:
                if p.grad is not None:
                    states.append(self.param_state(p, group, number))
                number += 1
            found.append((group, states))
        for group, states in found:  # only once every gradient is one that can be taken
            hparams = hyperparameters(group)
            for alike in _by_device_and_dtype(states):
                by_tensor = per_tensor.needed(self.variant, alike[0].p, group)
                if by_tensor:
                    alike = per_tensor.prepared(self.variant, alike, group)
                dispatch(self.variant, alike, group, hparams)
                if by_tensor:
                    per_tensor.finish(self.variant, alike, group)
        return loss

    def param_state(self, p: Tensor, group: dict[str, Any], number: int = 0) -> ParamState:
        """A parameter with its gradient and memory, which is made when first asked for.

        Of a DTensor, the local shard: a step needs no other.
        """
        g = p.grad
        assert g is not None
        if g.is_sparse:
            raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")
        if p.is_complex():
            raise RuntimeError(f"{type(self).__name__} does not support complex parameters")
        by_tensor = per_tensor.needed(self.variant, p, group)
        tensors, memory = layout(self.variant.names, group), []
        state = self.state[p] if tensors or by_tensor else {}
        for stored in tensors:
            if stored.key not in state:
                state[stored.key] = new_tensor(stored, p, group)
            elif stored.bound is not None and state[stored.key].dtype != stored.dtype:
                state[stored.key] = fitted(state[stored.key], stored.bound)  # made for another
            memory.append(state[stored.key])
        own: dict[str, Any] = {}
        if by_tensor:
            own = {"kept": state, "number": number, "first": 0}
        found = ParamState(p, g, tuple(memory), own)
        return _local(found) if hasattr(p, "to_local") else found

    def state_dict(self) -> dict[str, Any]:
        """The state, as torch's; counters of two bytes are copied to four (simba/state_dict.py)."""
        first = self.register_state_dict_post_hook(portable, prepend=True)
        try:
            return unwrap(Optimizer.state_dict)(self)
        finally:
            first.remove()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; whole numbers stay integers (torch alone would make them floats).

        How steps are taken (``foreach``, ``capturable``, ``fused``) stays as it is here.

        Raises:
            ValueError: it is the state of an optimizer with other hyperparameters or memories, or
                of a parameter of another shape.
        """
        kept = [{key: group[key] for key in HOW} for group in self.param_groups]
        loaded: list[dict[str, Any]] = []

        def look(_: Optimizer, state_dict: dict[str, Any]) -> None:
            taken = set(self.defaults)
            check_loaded(type(self).__name__, self.variant, taken, self.param_groups, state_dict)
            loaded.append(state_dict)

        def put_back(_: Optimizer) -> None:
            restore(self.variant, self.param_groups, self.state, loaded[0])
            for group, how in zip(self.param_groups, kept, strict=True):
                group.update(how)

        # after the hooks that may rewrite what is loaded, before those that look at the outcome
        last = self.register_load_state_dict_pre_hook(look)
        first = self.register_load_state_dict_post_hook(put_back, prepend=True)
        try:
            unwrap(Optimizer.load_state_dict)(self, state_dict)
        finally:
            last.remove()
            first.remove()

    def look(self, p: Tensor, group: dict[str, Any], g: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Where a step by the gradient g would move p, and its memories by name; takes no step.

        Returns:
            The direction, -1, 0 or 1, and m, s, ... as they are now; all of p's shape.
        """
        state = self.param_state(p, group)._replace(g=g)
        if self.variant.by_tensor:
            (state,) = per_tensor.prepared(self.variant, [state], group)
        values = hyperparameters(group) | state.own
        values |= eager.seen(self.variant, g, state.memory, values)
        return self.variant.direction(values), {name: values[name] for name in self.variant.names}


def hyperparameters(group: dict[str, Any]) -> dict[str, Any]:
    """A group's hyperparameters by the names that formulas use; see simba/directions.py."""
    hparams = {key: value for key, value in group.items() if key != "params"}
    if isinstance(lr := group["lr"], Tensor):
        hparams["lr"] = lr.reshape(()) if group["capturable"] else lr.item()
    if "betas" in group:
        b1, b2 = group["betas"]
        hparams |= {"b1": b1, "one_minus_b1": 1 - b1, "b2": b2, "one_minus_b2": 1 - b2}
    elif "beta2" in group:
        hparams |= {"b2": group["beta2"], "one_minus_b2": 1 - group["beta2"]}
    if "window_size" in group:
        hparams["w"] = group["window_size"]
    if "threshold" in group:  # the note's integer bound: 12 for w = 128, gamma = 0.1
        hparams["limit"] = int(group["window_size"] * group["threshold"])
    if "gain" in group:
        hparams["fresh"] = group["gain"] * (1 - b1) / (b1 * (1 - b2))
    if "levels" in group:
        hparams["largest"] = (group["levels"] - 1) // 2
    if "per_vote" in group:
        hparams["unit"] = 1 / group["per_vote"]
        hparams["gain_of_unit"] = group["gain"] / group["per_vote"]
        hparams["error_b2"] = b2 if group["leaky_error"] else 1.0
        radix = 2 * group["error_bound"] + 1
        hparams |= {"radix": radix, "half_radix": radix / 2, "inv_radix": 1 / radix}
    return hparams


def _local(state: ParamState) -> ParamState:
    """The local shards of DTensors."""
    p: Any = state.p
    g: Any = state.g
    memory: Any = state.memory
    if g.placements != p.placements:
        g = g.redistribute(placements=p.placements)
    return ParamState(p.to_local(), g.to_local(), tuple(t.to_local() for t in memory), state.own)


def _by_device_and_dtype(states: list[ParamState]) -> list[list[ParamState]]:
    found: dict[tuple[torch.device, torch.dtype], list[ParamState]] = {}
    for state in states:
        found.setdefault((state.p.device, state.p.dtype), []).append(state)
    return list(found.values())
