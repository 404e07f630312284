"""Parameters that are spread over processes (FSDP2, tensor parallel) step as whole ones do."""

import subprocess
import sys

from tests.conftest import REPOSITORY

WORK = """
import sys
import torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
import simba

rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
torch.manual_seed(0)
start, grads = torch.randn(701, 400), [torch.randn(701, 400) for _ in range(3)]
rows = {"Lion": {}, "Simba": {"window_size": 20}, "SimbaEq1": {"window_size": 300}}
for name, more in rows.items():
    for how in ({}, {"foreach": True}, {"fused": True}):
        ends = []
        for spread in (False, True):
            put = lambda t: distribute_tensor(t, mesh, [Shard(0)]) if spread else t
            p = torch.nn.Parameter(put(start.clone()))
            optimizer = getattr(simba, name)([p], lr=0.1, weight_decay=0.1, **more, **how)
            for g in grads:
                p.grad = put(g.clone())
                optimizer.step()
            state = optimizer.state[p].values()
            assert all(isinstance(t, DTensor) == spread for t in state)
            whole = (t.float() for t in (p.detach(), *state))  # gloo knows no int16
            whole = (t.full_tensor() if spread else t for t in whole)
            ends.append(list(whole))
        assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True)), (name, how)
dist.destroy_process_group()
print("equal")
"""


def test_a_sharded_step_is_the_whole_one(tmp_path):
    commands = [[sys.executable, "-c", WORK, str(rank), str(tmp_path / "store")] for rank in (0, 1)]
    running = [
        subprocess.Popen(c, cwd=REPOSITORY, stdout=-1, stderr=-1, text=True) for c in commands
    ]
    for process in running:
        out, error = process.communicate(timeout=120)
        assert out.strip() == "equal", error
