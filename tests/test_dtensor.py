"""Parameters that are spread over processes (FSDP2, tensor parallel) step as whole ones do."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

ROWS = """
rows = {
    "SignSGD": {},
    "Lion": {},
    "Simba": {"window_size": 20},
    "SimbaM": {"window_size": 128},
    "SimbaEq1": {"window_size": 300},
    "SimbaEq4": {"window_size": 300},
    "SimbaCeqM": {},
}
"""
START = (
    """
import copy, sys
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
import simba

rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
torch.manual_seed(0)
"""
    + ROWS
)
STEPS = """
start, grads = torch.randn(701, 40), [torch.randn(701, 40) for _ in range(3)]
for name, more in rows.items():
    for how in ({}, {"foreach": True}, {"fused": True}):
        ends = []
        for spread in (False, True):
            put = lambda t, by=Shard(0): distribute_tensor(t, mesh, [by]) if spread else t
            p = nn.Parameter(put(start.clone()))
            optimizer = getattr(simba, name)([p], lr=0.1, weight_decay=0.1, **more, **how)
            for g, by in zip(grads, (Shard(0), Replicate(), Shard(1))):
                p.grad = put(g.clone(), by)
                optimizer.step()
            state = optimizer.state[p].values()
            assert all(isinstance(t, DTensor) == spread for t in state)
            whole = (t.float() for t in (p.detach(), *state))  # gloo knows no int16
            whole = (t.full_tensor() if spread else t for t in whole)
            ends.append(list(whole))
        assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True)), (name, how)
"""
STATES = """
def made(name, more):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3))
    fully_shard(model, mesh=mesh)
    return model, getattr(simba, name)(model.parameters(), lr=0.1, **more)

def steps(model, optimizer, seed):
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 7, generator=torch.Generator().manual_seed(seed))).sum().backward()
        optimizer.step()

for name, more in rows.items():
    for full in (False, True):
        if full and name == "SignSGD":
            continue  # torch refuses this where there is no state, to its own SGD as well
        options = StateDictOptions(full_state_dict=full)
        a, b = made(name, more), made(name, more)
        steps(*a, 0)
        b[0].load_state_dict(a[0].state_dict())
        saved = copy.deepcopy(get_optimizer_state_dict(*a, options=options))
        set_optimizer_state_dict(*b, saved, options=options)
        steps(*a, 1)
        steps(*b, 1)
        for p, q in zip(a[0].parameters(), b[0].parameters(), strict=True):
            assert torch.equal(p.to_local(), q.to_local()), (name, full)
"""
END = """
dist.destroy_process_group()
print("equal")
"""


@pytest.mark.parametrize("work", [STEPS, STATES], ids=["steps", "states"])
def test_what_is_sharded_is_as_the_whole(work, tmp_path):
    code = START + work + END
    commands = [[sys.executable, "-c", code, str(rank), str(tmp_path / "store")] for rank in (0, 1)]
    running = [
        subprocess.Popen(c, cwd=REPOSITORY, stdout=-1, stderr=-1, text=True) for c in commands
    ]
    for process in running:
        out, error = process.communicate(timeout=120)
        assert out.strip() == "equal", error
