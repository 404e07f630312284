"""The code of each process of a vote: ``python -m tests.vote_worker RANK WORKERS STORE``."""

import copy
import sys
import warnings
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import simba
from simba.distributed import VoteState, vote_hook

STEPS = 4
SIZES = 1, 13, 64, 100_003


def states() -> Iterator[VoteState]:
    for levels, reduction in product((3, 2), ("majority", "mean")):
        feedback = (levels == 3) == (reduction == "mean")  # each with each other
        yield VoteState([], levels, reduction, error_feedback=feedback, seed=7)


def randomly(rank: int, levels: int, size: int) -> Tensor:
    """Votes of a rank."""
    generator = torch.Generator().manual_seed(rank)
    choices = torch.tensor([-1.0, 1.0] if levels == 2 else [-1.0, 0.0, 1.0])
    return choices[torch.randint(levels, (size,), generator=generator)]


def check_reduce(workers: int, rank: int) -> None:
    """Compare with sums that this process computes from all workers' votes."""
    for size, state in product(SIZES, states()):
        state.step, state.bytes_sent = 1, 0
        votes = torch.stack([randomly(r, state.levels, size) for r in range(workers)])
        total = votes.sum(0)
        if state.reduction == "mean":
            expected = total / workers
        elif state.levels == 3:
            expected = total.sign()
        else:
            expected = torch.where(total == 0, votes[1], total.sign())
        for dtype in (torch.float32, torch.bfloat16):
            reduced = state.reduce(votes[rank].to(torch.int8), dtype)
            assert torch.equal(reduced, expected.to(dtype)), (size, vars(state))
        check_bytes(state, size, workers)


def check_bytes(state: VoteState, size: int, workers: int) -> None:
    part = -(-size // workers)
    per_byte = {2: 8, 3: 5, 5: 3, 9: 2}  # the largest k with levels**k <= 256
    back = {"majority": state.levels, "mean": workers * (state.levels - 1) + 1}[state.reduction]
    per_part = sum(-(-part // per_byte[levels]) for levels in (state.levels, back))
    assert state.bytes_sent == 2 * (workers - 1) * per_part  # check_reduce has reduced twice
    if size == SIZES[-1] and state.reduction == "majority":
        ring = 2 * 2 * (workers - 1) / workers * 4 * size
        assert state.bytes_sent <= ring / {3: 15, 2: 30}[state.levels]


def batch(step: int, rank: int) -> Tensor:
    return torch.randn(4, 7, generator=torch.Generator().manual_seed(100 * step + rank))


def model() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv1d(1, 3, 2), nn.Flatten(), nn.Linear(18, 5), nn.Linear(5, 3))


def loss(model: nn.Module, step: int, rank: int) -> Tensor:
    return model(batch(step, rank).unsqueeze(1)).square().sum()


def train(saved: Any, rank: int, steps: range, **settings: Any) -> tuple[Any, list[Tensor]]:
    """Train by votes from a saved state; returns the new state and the parameters."""
    inner = model()
    whole = DistributedDataParallel(inner, bucket_cap_mb=1e-4)  # several buckets
    votes = VoteState(whole.parameters(), **settings)
    whole.register_comm_hook(votes, vote_hook)
    optimizer = simba.TernaryLion(whole.parameters(), lr=0.01)
    parts = inner, optimizer, votes
    for part, state in zip(parts, saved or (), strict=bool(saved)):
        part.load_state_dict(state)
    for step in steps:
        optimizer.zero_grad()
        loss(whole, step, rank).backward()
        optimizer.step()
    saved = copy.deepcopy([part.state_dict() for part in parts])
    return saved, [p.detach() for p in inner.parameters()]


def alone(state: VoteState) -> list[Tensor]:
    """The parameters if one process has all batches, casts all votes and counts them."""
    whole = model()
    params = list(whole.parameters())
    voters = [copy.copy(state) for _ in range(state.workers)]
    optimizer = simba.TernaryLion(params, lr=0.01)
    for step in range(STEPS):
        sums = [torch.zeros_like(p) for p in params]
        for rank, voter in enumerate(voters):
            voter.rank, voter.step = rank, step
            voter.indices = {p: index for index, p in enumerate(params)}
            voter.errors = {} if step == 0 else voter.errors
            whole.zero_grad()
            loss(whole, step, rank).backward()
            own = [voter.vote(p, p.grad) for p in params]
            if rank == step % state.workers:
                deciding = own
            for total, q in zip(sums, own, strict=True):
                total += q
        for p, total, q in zip(params, sums, deciding, strict=True):
            p.grad = total / state.workers
            if state.reduction == "majority":
                p.grad = total.sign()
                if state.levels == 2:
                    p.grad = torch.where(total == 0, q, p.grad)
        optimizer.step()
    return [p.detach() for p in params]


def check_training(workers: int, rank: int) -> None:
    """A resumed training by votes gives one process's bits, on all workers."""
    for state in states():
        names = ("levels", "reduction", "error_feedback", "seed")
        settings = {name: getattr(state, name) for name in names}
        saved, _ = train(None, rank, range(STEPS // 2), **settings)
        _, params = train(saved, rank, range(STEPS // 2, STEPS), **settings)
        flat = torch.cat([p.flatten() for p in params])
        everywhere = [torch.empty_like(flat) for _ in range(workers)]
        dist.all_gather(everywhere, flat)
        assert all(torch.equal(flat, other) for other in everywhere), settings
        assert all(map(torch.equal, params, alone(state))), settings


def check_errors(workers: int, rank: int) -> None:
    whole = DistributedDataParallel(nn.Embedding(5, 3, sparse=True))
    whole.register_comm_hook(VoteState(whole.parameters()), vote_hook)
    with pytest.raises(RuntimeError, match=r"^vote_hook does not support sparse .*$"):
        whole(torch.tensor([1])).sum().backward()
    whole = DistributedDataParallel(nn.Linear(5, 3))
    whole.register_comm_hook(VoteState([whole.module.bias]), vote_hook)
    with pytest.raises(
        ValueError, match=r"^VoteState did not get a parameter of shape \(3, 5\).*$"
    ):
        whole(torch.ones(5)).sum().backward()


def main() -> None:
    warnings.simplefilter("error")
    rank, workers = int(sys.argv[1]), int(sys.argv[2])
    store = f"file://{sys.argv[3]}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=workers)
    for check in (check_reduce, check_training, check_errors):
        check(workers, rank)
        print(check.__name__, flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
