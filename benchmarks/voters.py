"""Train a small task data-parallel in one process: all workers' gradients, one after the other.

tests/vote_worker.py checks that real processes give bitwise identical parameters.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.tasks import Task, loss
from simba.distributed import VoteState, decide, to_digits, to_votes

VoteSettings = dict[str, Any]  # the arguments of VoteState: levels, reduction, error_feedback
BATCH_MULTIPLE = 32  # only batches whose size is a multiple of this are used


def train(
    task: Task,
    make: Callable[..., torch.optim.Optimizer],
    votes: VoteSettings | None,
    factors: Sequence[float],
    seed: int,
    steps: int,
    observe: Callable[[int, nn.Module], None] | None = None,
) -> nn.Module:
    """Train a new model on batches that the workers share; returns it in evaluation mode.

    Needs an initialized process group.

    Args:
        make: an optimizer of parameters.
        votes: the arguments of VoteState; None: gradients are averaged.
        factors: one number per worker, by which its gradient is multiplied; -1: a wrong sign.
        observe: called after each step with the number of steps and the model.
    """
    torch.manual_seed(seed)
    model, workers = task.model(), len(factors)
    params = list(model.parameters())
    optimizer = make(params)
    voters = [VoteState(params, **(votes or {})) for _ in factors]
    for rank, voter in enumerate(voters):
        voter.rank = rank
    batches = ((x, y) for x, y in task.batches(seed) if len(x) % BATCH_MULTIPLE == 0)
    for step, (x, y) in zip(range(steps), batches, strict=False):
        gradients = []
        for part_x, part_y, factor in zip(x.chunk(workers), y.chunk(workers), factors, strict=True):
            grads = torch.autograd.grad(loss(model, part_x, part_y), params)
            gradients.append([factor * g for g in grads])
        if votes is None:
            mean = [torch.stack(of_param).mean(0) for of_param in zip(*gradients, strict=True)]
        else:
            mean = reduced_votes(params, voters, gradients, step)
        for p, g in zip(params, mean, strict=True):
            p.grad = g
        optimizer.step()
        if observe:
            observe(step + 1, model)
    return model.eval()


def reduced_votes(
    params: Sequence[Tensor],
    voters: Sequence[VoteState],
    gradients: Sequence[Sequence[Tensor]],
    step: int,
) -> list[Tensor]:
    """The reduced votes of all workers on their gradients, per parameter."""
    cast = []
    for voter, grads in zip(voters, gradients, strict=True):
        voter.step = step
        votes = [voter.vote(p, g).flatten() for p, g in zip(params, grads, strict=True)]
        cast.append(to_digits(torch.cat(votes), voter.levels))
    first = voters[0]
    decided = decide(torch.stack(cast), first.levels, first.reduction, step)
    most = len(voters) * (first.levels - 1)
    levels = first.levels if first.reduction == "majority" else most + 1
    reduced = to_votes(decided, levels, params[0].dtype).split([p.numel() for p in params])
    return [part.view_as(p) for part, p in zip(reduced, params, strict=True)]
