"""The code of each of two processes: ``python -m tests.distributed_worker RANK STORE``.

Each check trains a small model that torch distributes over both processes. It compares the result
bit by bit with that of one process that gets both batches.
"""

import copy
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import simba
from tests.optimizers import IMPLEMENTATIONS, OPTIMIZERS

SETTINGS = {"lr": 0.1, "weight_decay": 0.1}
CPU = torch.device("cpu")


Make = Callable[..., simba.SignOptimizer]


def every() -> Iterator[tuple[str, Make]]:
    for name, (cls, kwargs, *_) in OPTIMIZERS.items():
        yield name, partial(cls, **SETTINGS, **kwargs)


def sharded() -> Iterator[tuple[str, Make]]:
    """The optimizers that support sharded parameters."""
    for name, make in every():
        if not OPTIMIZERS[name].cls.variant.has_per_tensor_state:
            yield name, make


def refused(params: list[Tensor], match: str) -> None:
    """Check that optimizers with per-tensor state refuse the parameters in one line."""
    for cls, kwargs, *_ in OPTIMIZERS.values():
        for more in ({}, {"stochastic_rounding": True}):
            needs = cls.variant.has_per_tensor_state or (more and params[0].dtype == torch.bfloat16)
            with pytest.raises(ValueError, match=f"^.*{match}.*$") if needs else nullcontext():
                cls(params, **kwargs, **more)


def model(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3)).to(dtype)


def batch(step: int, rank: int, model: nn.Module) -> Tensor:
    x = torch.randn(4, 7, generator=torch.Generator().manual_seed(10 * step + rank))
    return x.to(next(model.parameters()).dtype)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        model(batch(step, dist.get_rank(), model)).sum().backward()
        optimizer.step()


def alone(make: Make, steps: range, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """The parameters after steps of one process that gets the batches of both processes."""
    whole = model(dtype)
    optimizer = make(whole.parameters())
    for step in steps:
        optimizer.zero_grad()
        for rank in (0, 1):
            (whole(batch(step, rank, whole)).sum() / 2).backward()
        optimizer.step()
    return parameters(whole)


def parameters(model: nn.Module) -> list[Tensor]:
    return [p.detach() for p in model.parameters()]


def assert_same(a: list[Tensor], b: list[Tensor], case: object) -> None:
    assert len(a) == len(b)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True)), case


def check_dtensor(mesh: DeviceMesh) -> None:
    torch.manual_seed(0)
    start, grads = torch.randn(101, 6), [torch.randn(101, 6) for _ in range(3)]
    for name, make in sharded():
        for implementation in IMPLEMENTATIONS.values():
            ends = []
            for spread in (False, True):

                def put(t: Tensor, by: Placement, spread: bool = spread) -> Tensor:
                    return distribute_tensor(t, mesh, [by]) if spread else t

                p = nn.Parameter(put(start.clone(), Shard(0)))
                optimizer = make([p], **implementation)
                for g, by in zip(grads, (Shard(0), Replicate(), Shard(1)), strict=True):
                    p.grad = put(g.clone(), by)
                    optimizer.step()
                state = optimizer.state.get(p, {}).values()
                assert all(isinstance(t, DTensor) == spread for t in state)
                whole = (t.float() for t in (p.detach(), *state))  # gloo does not support int16
                ends.append([t.full_tensor() if spread else t for t in whole])
            assert_same(*ends, (name, implementation))
    for dtype in (torch.float32, torch.bfloat16):
        refused([nn.Parameter(distribute_tensor(start.to(dtype), mesh, [Shard(0)]))], "DTensor")


def check_fsdp2(mesh: DeviceMesh) -> None:
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError:  # FSDP2 of torch 2.5 needs CUDA
        return

    def made(make: Make) -> tuple[nn.Module, simba.SignOptimizer]:
        whole = model()
        fully_shard(whole, mesh=mesh)
        return whole, make(whole.parameters())

    for name, make in sharded():
        for full in (False, True):
            if full and name == "SignSGD":
                continue  # torch raises an error without state, for its own SGD, too
            options = StateDictOptions(full_state_dict=full)
            a, b = made(make), made(make)
            train(*a, range(3))
            b[0].load_state_dict(a[0].state_dict())
            saved = copy.deepcopy(get_optimizer_state_dict(*a, options=options))
            set_optimizer_state_dict(*b, saved, options=options)
            train(*b, range(3, 5))
            ours = [p.full_tensor() for p in b[0].parameters()]
            assert_same(ours, alone(make, range(5)), (name, full))
    refused(list(made(simba.SignSGD)[0].parameters()), "DTensor")


def check_fsdp1(mesh: DeviceMesh) -> None:
    for use_orig_params in (False, True):

        def made(use_orig_params: bool = use_orig_params) -> nn.Module:
            return FSDP(model(), device_id=CPU, use_orig_params=use_orig_params)

        for name, make in sharded():
            a, b = made(), made()
            optimizer, other = make(a.parameters()), make(b.parameters())
            train(a, optimizer, range(3))
            # here torch's optim_state_dict exchanges two tensors of a state, AdamW's, too
            if not use_orig_params or len(make([nn.Parameter(torch.ones(1))]).variant.names) < 2:
                b.load_state_dict(a.state_dict())
                saved = FSDP.optim_state_dict(a, optimizer)
                other.load_state_dict(FSDP.optim_state_dict_to_load(b, other, saved))
                a, optimizer = b, other
            train(a, optimizer, range(3, 5))
            with FSDP.summon_full_params(a):
                ours = [p.detach().clone() for p in a.parameters()]
            assert_same(ours, alone(make, range(5)), (name, use_orig_params))
        refused(list(made().parameters()), "FSDP")


def check_zero(mesh: DeviceMesh) -> None:
    for name, make in every():
        whole = DistributedDataParallel(model())
        optimizer = ZeroRedundancyOptimizer(whole.parameters(), optimizer_class=make)
        train(whole, optimizer, range(3))
        for rank in (0, 1):
            optimizer.consolidate_state_dict(to=rank)
            if rank == dist.get_rank():
                saved = copy.deepcopy(optimizer.state_dict())
        other = ZeroRedundancyOptimizer(whole.parameters(), optimizer_class=make)
        other.load_state_dict(saved)
        train(whole, other, range(3, 5))
        if name in dict(sharded()):
            assert_same(parameters(whole), alone(make, range(5)), name)
        else:  # its noise depends on the process's own list: compare the processes
            of_rank_0 = [p.clone() for p in parameters(whole)]
            for p in of_rank_0:
                dist.broadcast(p, src=0)
            assert_same(parameters(whole), of_rank_0, name)


def check_ddp(mesh: DeviceMesh) -> None:
    for name, make in every():
        whole = DistributedDataParallel(model())
        train(whole, make(whole.parameters()), range(3))
        assert_same(parameters(whole), alone(make, range(3)), name)
    make = partial(simba.Lion, lr=0.01, stochastic_rounding=True)
    whole = DistributedDataParallel(model(torch.bfloat16))
    train(whole, make(whole.parameters()), range(3))
    assert_same(parameters(whole), alone(make, range(3), torch.bfloat16), "stochastic rounding")


def main() -> None:
    rank, store = sys.argv[1:]
    warnings.simplefilter("ignore")  # FSDP1 warns that it is deprecated
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    for check in (check_ddp, check_zero, check_dtensor, check_fsdp2, check_fsdp1):
        check(mesh)
        print(check.__name__, flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
