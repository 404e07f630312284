"""The base class of all optimizers: their options, ``step()``, state, saving and loading."""

from collections.abc import Callable, Mapping
from inspect import unwrap
from typing import Any, ClassVar, TypedDict, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from simba import per_tensor
from simba.backends import dispatch, eager
from simba.checks import OPTIONS, as_python, check, check_no_foreign
from simba.state import PER_TENSOR, clamp_counter, in_flat_parameter, new_tensor, state_layout
from simba.state_dict import check_loaded, portable, restore
from simba.types import ParamState, Variant

# These options do not change the results; ``load_state_dict`` keeps this optimizer's values.
IMPLEMENTATION_OPTIONS = ("foreach", "capturable", "fused")
# torch's check that a step may run during the capture of a CUDA graph; torch 2.13 renamed it.
CAPTURE = "_cuda_graph_capture_health_check", "_accelerator_graph_capture_health_check"
CHECK_CAPTURE: Callable[[Optimizer], None] = [
    getattr(Optimizer, name) for name in CAPTURE if hasattr(Optimizer, name)
][-1]


class Options(TypedDict, total=False):
    """The keyword arguments that every variant takes; see SignOptimizer."""

    maximize: bool
    foreach: bool | None
    capturable: bool
    differentiable: bool
    fused: bool | None
    stochastic_rounding: bool


class SignOptimizer(Optimizer):
    r"""Updates each coordinate by ``-lr * direction``; the variant's direction is -1, 0 or 1.

    .. math::
        q &= \mathrm{vote}(g) \\
        \theta &\leftarrow (1 - \eta\lambda)\,\theta - \eta\,\mathrm{direction}(g, q, m, s, \ldots)
        \\
        (m, s, \ldots) &\leftarrow \mathrm{remember}(g, q, m, s, \ldots)

    Vote and direction read the memories (m, s, ...) as they were before this gradient. A variant is
    a subclass that sets ``direction``, ``remember`` and perhaps ``vote`` to functions of
    simba/directions.py. The optimizer stores one state tensor per memory: m in the parameter's
    dtype, a counter in int8 if its bound fits, else in int16.

    A memory can move its coordinate even if the gradient is zero. ``sign(NaN)`` is 0: with a
    NaN gradient, a coordinate moves by its memory or not at all (not at all with sign-SGD, Lion and
    Simba + (1)), and a counter gets no vote, but still decays if it is a decaying one. An infinite
    gradient counts by its sign. NaN and infinity stay in ``m`` for all later steps, and an infinite
    ``m`` moves its coordinate in one direction from then on: check the loss.

    For bfloat16 and float16 parameters, the step is computed in float32 and rounded once. A
    bfloat16 coordinate whose absolute value exceeds about ``256 * lr`` does not move, because its
    update is lost in rounding; so is a decay of ``lr * weight_decay`` below 0.002. Use float32
    parameters or ``stochastic_rounding`` there.

    Args:
        params: tensors, named tensors or groups of them; float32, bfloat16, float16 or float64.
        defaults: the variant's hyperparameters.
        maximize: ascend instead of descend.
        foreach: None or True: step small tensors together; False: tensor by tensor. Variants with
            per-tensor state (simba/per_tensor.py) always step tensor by tensor, and so does
            stochastic rounding.
        capturable: allow capture in a CUDA graph. An ``lr`` that is a tensor on the GPU may then be
            changed in place between replays.
        differentiable: must be False; the derivative of a sign is zero.
        fused: True: take the step in one compiled pass; None or False: the eager step. On a CPU,
            numba compiles float32, bfloat16 and float16 (simba/backends/numba_cpu.py); the results
            are bitwise those of the eager step on CPUs with AVX2 or newer. On a CUDA GPU,
            torch.compile compiles every dtype (simba/backends/inductor.py); this is untested on a
            GPU. Other tensors, SimbaWindow on a GPU, and a step that torch.compile traces take the
            eager step.
        stochastic_rounding: round bfloat16 parameters up or down at random, so that they move by
            ``lr`` on average. The random numbers are a function of the step, the parameter's index
            and the coordinate, so results are bitwise identical in the eager and the numba step and
            after loading a checkpoint. Stores a step count per tensor. It changes nothing for
            float32 and float64.

    Raises:
        ValueError: a hyperparameter is out of its range; a group has a hyperparameter that the
            variant does not take; ``differentiable`` is true, or ``capturable`` for SimbaWindow; a
            variant with per-tensor state, or ``stochastic_rounding`` in bfloat16, gets a sharded
            parameter (FSDP, a DTensor); or ``stochastic_rounding`` is set for a float16 parameter.
        RuntimeError: both ``fused`` and ``foreach`` are true.
        ImportError: ``fused`` is set for a CPU parameter and numba is not installed.
    """

    vote: Callable[..., Tensor] | None = None
    direction: Callable[..., Tensor]
    remember: ClassVar[Mapping[str, Callable[..., Tensor]]] = {}
    variant: Variant  # ``vote``, ``direction`` and ``remember``, with their arguments' names

    # torch wraps its methods so that their first call imports the compiler, which takes over a
    # second. ``unwrap`` gives the methods without that wrapper, here and below.
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
            for name in OPTIONS:  # older states lack newer options
                group.setdefault(name, None if name in IMPLEMENTATION_OPTIONS else False)
            group.update(as_python(group))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group.

        Raises:
            ValueError, RuntimeError: as the constructor; the group is then not added.
            ImportError: ``fused`` is set for a CPU parameter and numba is not installed.
        """
        unwrap(Optimizer.add_param_group)(self, param_group)
        group = self.param_groups[-1]
        try:
            group.update(as_python(group))
            check_no_foreign(type(self).__name__, group, self.defaults)
            check(type(self).__name__, group)
            if group["fused"] and any(p.is_cpu for p in group["params"]):
                from simba.backends import numba_cpu as _  # noqa: F401  (raises without numba)
            if group["capturable"] and self.variant.windowed:
                raise ValueError(
                    f"{type(self).__name__}: capturable must be false, because each step writes "
                    "another part of the stored signs, which a CUDA graph cannot select"
                )
            for p in group["params"]:
                self._check_parameter(p, group)
        except Exception:
            self.param_groups.pop()
            raise

    def _check_parameter(self, p: Tensor, group: dict[str, Any]) -> None:
        owner = type(self).__name__
        if group["stochastic_rounding"]:
            if p.dtype == torch.float16:
                raise ValueError(
                    f"{owner}: stochastic_rounding does not support float16 parameters"
                )
            if not self.variant.has_per_tensor_state:
                owner += " with stochastic_rounding"
        if per_tensor.needs_state(self.variant, p, group):
            use = "it has state per whole tensor; use DistributedDataParallel"
            # A sharded parameter is a DTensor (FSDP2) or a view of a flat parameter (FSDP1).
            if hasattr(p, "to_local"):
                raise ValueError(f"{owner} does not support DTensor parameters (FSDP2): {use}")
            if in_flat_parameter(p):
                raise ValueError(f"{owner} does not support FSDP's flat parameters: {use}")

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step.

        Args:
            closure: recomputes the loss and the gradients.

        Returns:
            The loss that ``closure`` returns; None without one.

        Raises:
            RuntimeError: a gradient is sparse or a parameter complex, or a CUDA graph captures a
                step without ``capturable``; no parameter is then changed.
            TypeError: ``fused`` is set, and numba cannot compile the variant's functions.
        """
        CHECK_CAPTURE(self)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        param_index, states_by_group = 0, []
        for group in self.param_groups:
            states = []
            for p in group["params"]:
                if p.grad is not None:
                    states.append(self.param_state(p, group, param_index))
                param_index += 1
            states_by_group.append((group, states))
        for group, states in states_by_group:  # every gradient has been checked by now
            hparams = hyperparameters(group)
            for batch in _by_device_and_dtype(states):
                has_per_tensor_state = per_tensor.needs_state(self.variant, batch[0].p, group)
                if has_per_tensor_state:
                    batch = per_tensor.prepare_step(self.variant, batch, group)
                dispatch(self.variant, batch, group, hparams)
                if has_per_tensor_state:
                    per_tensor.finish_step(self.variant, batch, group)
        return loss

    def param_state(self, p: Tensor, group: dict[str, Any], param_index: int = 0) -> ParamState:
        """A parameter with its gradient and memories; the first call creates the memories.

        Args:
            p: a parameter with a gradient. For a DTensor, the result holds its local shard.
            group: the parameter group of p.
            param_index: the parameter's index over all groups; it selects the random numbers of the
                new memories.

        Raises:
            RuntimeError: the gradient is sparse or p is complex.
        """
        g = p.grad
        assert g is not None
        if g.is_sparse:
            raise RuntimeError(
                f"{type(self).__name__} does not support sparse gradients: create nn.Embedding "
                "with sparse=False"
            )
        if p.is_complex():
            raise RuntimeError(f"{type(self).__name__} does not support complex parameters")
        has_per_tensor_state = per_tensor.needs_state(self.variant, p, group)
        tensors, memory = state_layout(self.variant.names, group), []
        state = self.state[p] if tensors or has_per_tensor_state else {}
        for stored in tensors:
            if stored.key not in state:
                state[stored.key] = new_tensor(stored, p, group)
            elif stored.bound is not None and state[stored.key].dtype != stored.dtype:
                # the state was created with another bound
                state[stored.key] = clamp_counter(state[stored.key], stored.bound)
            memory.append(state[stored.key])
        values: dict[str, Any] = {}
        if has_per_tensor_state:
            values = {"stored": state, "param_index": param_index, "offset": 0}
        param_state = ParamState(p, g, tuple(memory), values)
        return _local(param_state) if hasattr(p, "to_local") else param_state

    def state_dict(self) -> dict[str, Any]:
        """The state dict, as torch's Optimizer returns it, with int16 counters copied to int32.

        simba/state_dict.py gives the reason.
        """
        hook = self.register_state_dict_post_hook(portable, prepend=True)
        try:
            return unwrap(Optimizer.state_dict)(self)
        finally:
            hook.remove()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict. Counters stay integers; torch alone would convert them to floats.

        ``foreach``, ``capturable`` and ``fused`` keep this optimizer's values.

        Raises:
            ValueError: the state belongs to an optimizer with other hyperparameters or memories, or
                to a parameter of another shape.
        """
        current = [
            {key: group[key] for key in IMPLEMENTATION_OPTIONS} for group in self.param_groups
        ]
        loaded: list[dict[str, Any]] = []

        def check_before_load(_: Optimizer, state_dict: dict[str, Any]) -> None:
            accepted = set(self.defaults)
            check_loaded(type(self).__name__, self.variant, accepted, self.param_groups, state_dict)
            loaded.append(state_dict)

        def restore_after_load(_: Optimizer) -> None:
            restore(self.variant, self.param_groups, self.state, loaded[0])
            for group, options in zip(self.param_groups, current, strict=True):
                group.update(options)

        # The user's pre-hooks may change the state dict, so they run before check_before_load. The
        # user's post-hooks may read the loaded state, so they run after restore_after_load.
        pre_hook = self.register_load_state_dict_pre_hook(check_before_load)
        post_hook = self.register_load_state_dict_post_hook(restore_after_load, prepend=True)
        try:
            unwrap(Optimizer.load_state_dict)(self, state_dict)
        finally:
            pre_hook.remove()
            post_hook.remove()

    def preview(
        self, p: Tensor, group: dict[str, Any], g: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The direction d of a step ``p <- (1 - lr wd) p - lr d`` with the gradient g.

        ``maximize`` is ignored. p and its memories do not change; the first call creates the
        memories.

        Args:
            p: a parameter whose ``grad`` is not None; it must be one that ``step`` accepts.
            group: the parameter group that contains p.
            g: the gradient to use instead of ``p.grad``, of p's shape.

        Returns:
            The direction (-1, 0 or 1) and the current memories by name, all of p's shape. Their
            dtype is p's, or float32 for bfloat16 and float16; that of counters is float32.

        Raises:
            RuntimeError: ``p.grad`` is sparse or p is complex.
        """
        state = self.param_state(p, group)._replace(g=g)
        if self.variant.has_per_tensor_state:
            # on a copy of the step count and the scale, because g may set the scale
            own = state.step_values["stored"].items()
            copied = {key: t.clone() if key in PER_TENSOR else t for key, t in own}
            state = state._replace(step_values=state.step_values | {"stored": copied})
            (state,) = per_tensor.prepare_step(self.variant, [state], group)
        values = hyperparameters(group) | state.step_values
        values |= eager.function_arguments(self.variant, g, state.memory, values)
        return self.variant.direction(values), {name: values[name] for name in self.variant.names}


def hyperparameters(group: dict[str, Any]) -> dict[str, Any]:
    """A group's hyperparameters by the names that formulas use (simba/directions.py).

    Returns:
        The group's entries without ``params``, and those derived from them:

        - ``b1``, ``one_minus_b1``, ``b2``, ``one_minus_b2``: ``betas`` or ``beta2``;
        - ``w``: ``window_size``; ``limit``: int(w * threshold);
        - ``fresh``: the weight of the newest vote, ``gain (1 - b1) / (b1 (1 - b2))``; a variant
          without ``gain`` has the gain 1;
        - ``largest``: the largest vote, ``(levels - 1) / 2``;
        - ``unit``: ``1 / per_vote``; ``gain_of_unit``: ``gain / per_vote``; ``error_b2``: the
          decay of e per step, b2 or 1;
        - ``radix``, ``half_radix``, ``inv_radix``: ``2 * error_bound + 1``, its half and its
          inverse, see ``simba.state.pack``.
    """
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
    if "threshold" in group:  # the note's integer threshold, 12 for w = 128, gamma = 0.1
        hparams["limit"] = int(group["window_size"] * group["threshold"])
    gain = group.get("gain", 1)
    if "gain" in group or "per_vote" in group:
        hparams["fresh"] = gain * (1 - b1) / (b1 * (1 - b2))
    if "levels" in group:
        hparams["largest"] = (group["levels"] - 1) // 2
    if "per_vote" in group:
        hparams["unit"] = 1 / group["per_vote"]
        hparams["gain_of_unit"] = gain / group["per_vote"]
        radix = 2 * group["error_bound"] + 1
        hparams |= {"radix": radix, "half_radix": radix / 2, "inv_radix": 1 / radix}
    if "leaky_error" in group:
        hparams["error_b2"] = b2 if group["leaky_error"] else 1.0
    return hparams


def _local(state: ParamState) -> ParamState:
    """Replace DTensors by their local shards."""
    p: Any = state.p
    g: Any = state.g
    memory: Any = state.memory
    if g.placements != p.placements:
        g = g.redistribute(placements=p.placements)
    local = tuple(t.to_local() for t in memory)
    return ParamState(p.to_local(), g.to_local(), local, state.step_values)


def _by_device_and_dtype(states: list[ParamState]) -> list[list[ParamState]]:
    batches: dict[tuple[torch.device, torch.dtype], list[ParamState]] = {}
    for state in states:
        batches.setdefault((state.p.device, state.p.dtype), []).append(state)
    return list(batches.values())
