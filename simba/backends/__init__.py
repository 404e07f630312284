"""Three implementations of a step: torch operations (eager), numba (CPU) and torch.compile (GPU).

All three compute the same step. On a CPU with AVX2 or newer, the results of eager and numba are
bitwise identical.
"""

from collections.abc import Sequence
from typing import Any

import torch

from simba.backends import eager
from simba.types import ParamState, Variant


def dispatch(
    variant: Variant, states: Sequence[ParamState], group: dict[str, Any], hparams: dict[str, Any]
) -> None:
    """Step parameters of one device and dtype with the backend that their group selects.

    Args:
        states: the parameters with their gradients and memories; the step updates them in place.
        group: the optimizer's parameter group.
        hparams: the group's hyperparameters, see ``simba.base.hyperparameters``.
    """
    fused = group["fused"] and not torch.compiler.is_compiling()  # torch.compile traces eager
    if fused and states[0].p.is_cuda and not variant.windowed:
        from simba.backends import inductor

        return inductor.step(variant, states, hparams)
    if fused and states[0].p.is_cpu:
        from simba.backends import numba_cpu

        states = numba_cpu.step(variant, states, hparams)
    if not states:
        return
    # foreach=None means True here; the foreach step does not support per-tensor state
    if group["foreach"] is False or states[0].step_values:
        for state in states:
            eager.step_chunked(variant, state, hparams)
    else:
        eager.step_foreach(variant, states, hparams)
