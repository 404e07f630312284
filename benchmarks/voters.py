"""Train a small task data-parallel in one process: all workers' gradients, one after the other.

tests/vote_worker.py checks that real processes give bitwise identical parameters.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.tasks import Task, loss
from simba.distributed import VoteState, decide, to_digits, to_votes

Votes = dict[str, Any]  # the settings of VoteState: levels, reduction, error_feedback
FULL = 32  # a batch is used only if up to this many workers can share it


def train(
    task: Task,
    make: Callable[..., torch.optim.Optimizer],
    votes: Votes | None,
    weights: Sequence[float],
    seed: int,
    steps: int,
    look: Callable[[int, nn.Module], None] | None = None,
) -> nn.Module:
    """Train a new model on batches that the workers share; returns it in evaluation mode.

    Needs an initialized process group.

    Args:
        make: an optimizer of parameters.
        votes: the settings of votes; None: gradients are averaged.
        weights: one number per worker. Its gradient is multiplied by it: -1 flips its votes.
        look: called after each step with the number of steps and the model.
    """
    torch.manual_seed(seed)
    model, workers = task.model(), len(weights)
    params = list(model.parameters())
    optimizer = make(params)
    voters = [VoteState(params, **(votes or {})) for _ in weights]
    for rank, voter in enumerate(voters):
        voter.rank = rank
    batches = ((x, y) for x, y in task.batches(seed) if len(x) % FULL == 0)
    for step, (x, y) in zip(range(steps), batches, strict=False):
        gradients = []
        for part_x, part_y, weight in zip(x.chunk(workers), y.chunk(workers), weights, strict=True):
            grads = torch.autograd.grad(loss(model, part_x, part_y), params)
            gradients.append([weight * g for g in grads])
        if votes is None:
            mean = [torch.stack(of_param).mean(0) for of_param in zip(*gradients, strict=True)]
        else:
            mean = counted(params, voters, gradients, step)
        for p, g in zip(params, mean, strict=True):
            p.grad = g
        optimizer.step()
        if look:
            look(step + 1, model)
    return model.eval()


def counted(
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
