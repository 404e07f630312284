"""How a step is taken: torch's operations (eager), numba's loops (CPU) or torch.compile (GPU).

All take the same step; eager and numba have the same bits.
"""

from collections.abc import Sequence
from typing import Any

import torch

from simba.backends import eager
from simba.types import ParamState, Variant


def dispatch(
    variant: Variant, states: Sequence[ParamState], group: dict[str, Any], hparams: dict[str, Any]
) -> None:
    """Take the step of tensors of one device and dtype in the way that their group asks for."""
    fused = group["fused"] and not torch.compiler.is_compiling()  # which traces the eager step
    if fused and states[0].p.is_cuda and not variant.windowed:
        from simba.backends import inductor

        return inductor.step(variant, states, hparams)
    if fused and states[0].p.is_cpu:
        from simba.backends import numba_cpu

        states = numba_cpu.step(variant, states, hparams)
    if not states:
        return
    if group["foreach"] is False or states[0].own:
        for state in states:
            eager.step_chunked(variant, state, hparams)
    else:
        eager.step_foreach(variant, states, hparams)
