"""Votes instead of gradients between workers: ``python -m benchmarks.votes``.

- wire: real processes over gloo exchange the gradients of SASRec's 28 tensors. The bytes are those
  that simba.distributed counts, and those that the kernel counts on the loopback device. The time
  is the CPU time of one worker. The time of a step on slower links is computed from both.
- quality: two small tasks at Lion's best rate and decay for one process (benchmarks.convergence).
- flipped: some workers send their gradient times -1 or -100.

The trainings run in one process (benchmarks/voters.py), bitwise identical to real workers.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import simba
from benchmarks import voters
from benchmarks.convergence import PLANS, losses
from benchmarks.optim import parameters
from benchmarks.report import FOLDER, machine, markdown, parser_of, write
from benchmarks.tasks import TASKS, Task
from simba.distributed import VoteState, vote_hook

TERNARY: dict[str, Any] = {"levels": 3, "error_feedback": False}
BINARY = TERNARY | {"levels": 2}
FEEDBACK, MEAN = {"error_feedback": True}, {"reduction": "mean"}
FLOAT, BEST = "float32", "ternary, majority, error feedback"
EXCHANGES: dict[str, voters.VoteSettings | None] = {
    FLOAT: None,
    "ternary, majority": TERNARY,
    BEST: TERNARY | FEEDBACK,
    "ternary, mean": TERNARY | MEAN,
    "ternary, mean, error feedback": TERNARY | MEAN | FEEDBACK,
    "binary, majority": BINARY,
    "binary, majority, error feedback": BINARY | FEEDBACK,
    "binary, mean": BINARY | MEAN,
}
OPTIMIZERS = {"Lion": simba.Lion, "Ternary Lion": simba.TernaryLion}
SEEDS = range(3)
QUALITY = [
    *(("Lion", exchange, 4) for exchange in EXCHANGES),
    *(("Ternary Lion", exchange, 4) for exchange in (FLOAT, "ternary, majority", BEST)),
    *(("Lion", exchange, workers) for workers in (2, 16) for exchange in (FLOAT, BEST)),
]
FLIPPED = [
    (4, range(4)),
    (32, (0, 8, 12, 15, 16, 20)),
]  # workers, how many of them send a wrong gradient
ROUNDS, STEPS = 5, 4  # of the measurement of bytes and times
LINKS = {"10 Mbit/s": 1e7, "100 Mbit/s": 1e8, "1 Gbit/s": 1e9, "10 Gbit/s": 1e10}  # bits/s


class Weights(nn.Module):
    """Parameters with the same random gradient in every step."""

    def __init__(self) -> None:
        super().__init__()
        params = parameters("0.88 M")
        self.gradients = [p.grad for p in params]
        self.params = nn.ParameterList(nn.Parameter(p.detach()) for p in params)

    def forward(self) -> Tensor:
        products = [(p * g).sum() for p, g in zip(self.params, self.gradients, strict=True)]
        return torch.stack(products).sum()


def loopback_bytes() -> float:
    """The bytes that this machine has sent to itself; NaN where the kernel does not tell."""
    try:
        lines = Path("/proc/net/dev").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((float(line.split()[9]) for line in lines if line.split()[0] == "lo:"), np.nan)


def start_group(rank: int, workers: int, folder: str) -> None:
    where = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=workers)


def data_parallel(
    votes: voters.VoteSettings | None,
) -> tuple[DistributedDataParallel, VoteState | None]:
    """A model whose workers exchange votes, with their state; None: they exchange gradients."""
    model = DistributedDataParallel(Weights())
    if votes is None:
        model.register_comm_hook(None, allreduce_hook)
        return model, None
    state = VoteState(model.parameters(), **votes)
    model.register_comm_hook(state, vote_hook)
    return model, state


def exchange_on(rank: int, workers: int, folder: str) -> None:
    """Measure every exchange as one of several processes; rank 0 writes them to the folder."""
    start_group(rank, workers, folder)
    lines = []
    for name, votes in EXCHANGES.items():
        model, state = data_parallel(votes)
        backward = partial(step, model)
        backward()  # the first one arranges the buckets
        before = 0 if state is None else state.bytes_sent
        seen, seconds = [], []
        for _ in range(ROUNDS):
            dist.barrier()
            first, start = loopback_bytes(), time.process_time()
            for _ in range(STEPS):
                backward()
            seconds.append((time.process_time() - start) / STEPS)
            dist.barrier()
            seen.append((loopback_bytes() - first) / STEPS / workers)
        numel = sum(p.numel() for p in model.parameters())
        sent = 2 * (workers - 1) / workers * 4 * numel  # what a ring all-reduce sends
        if state is not None:
            sent = (state.bytes_sent - before) / (ROUNDS * STEPS)
        start = time.process_time()
        with model.no_sync():
            for _ in range(STEPS):
                backward()
        alone = (time.process_time() - start) / STEPS
        figures = {"bytes": sent, "loopback_bytes": min(seen)}
        figures["seconds"] = max(0.0, float(np.median(seconds)) - alone)
        lines.append({"exchange": name, "workers": workers, "parameters": numel, **figures})
    if rank == 0:
        Path(folder, "lines").write_text(json.dumps(lines))
    dist.destroy_process_group()


def step(model: nn.Module) -> None:
    model.zero_grad()
    model().backward()


def measure_wire(workers: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.votes", "--worker"]
        numbers = [[str(rank), str(workers)] for rank in range(workers)]
        started = [subprocess.Popen([*command, *pair, folder]) for pair in numbers]
        if any(process.wait() for process in started):
            raise SystemExit(f"a worker of {workers} failed")
        lines: list[dict[str, Any]] = json.loads(Path(folder, "lines").read_text())
        return lines


def compute_seconds() -> float:
    """A training step of SASRec on Beauty with 512 users, on one core (benchmarks.speed)."""
    lines = json.loads((FOLDER / "speed.json").read_text())["lines"]
    targets_per_second: float = lines[0]["one core"]["targets_per_second"]
    scale = json.loads((FOLDER / "scale.json").read_text())["lines"]
    beauty = next(line for line in scale if (line["size"], line["batch"]) == ("beauty", 512))
    return float(beauty["targets"] / targets_per_second / -(-beauty["users"] // 512))


def wire_table(lines: list[dict[str, Any]]) -> str:
    head = ["workers", "exchange", "bytes per step", "of float32", "on the loopback", "core ms"]
    rows = [[*head, *(f"step, {name}, ms" for name in LINKS)]]
    compute = compute_seconds()
    for line in lines:
        whole = next(x for x in lines if (x["exchange"], x["workers"]) == (FLOAT, line["workers"]))
        ratio, seen = (whole[key] / line[key] for key in ("bytes", "loopback_bytes"))
        row = [str(line["workers"]), line["exchange"], f"{line['bytes']:,.0f}", f"1/{ratio:.1f}"]
        row += [f"1/{seen:.1f}", f"{1e3 * line['seconds']:.0f}"]
        own = compute / line["workers"] + line["seconds"]
        times = (1e3 * (own + 8 * line["bytes"] / speed) for speed in LINKS.values())
        rows.append([*row, *(f"{t:,.0f}" for t in times)])
    return markdown(rows)


def settings(task: str) -> dict[str, float]:
    """Lion's best rate and decay on a task."""
    lines = json.loads((FOLDER / "convergence.json").read_text())["lines"]
    best = next(x for x in lines if (x["task"], x["optimizer"]) == (task, "Lion"))
    return {key: best[key] for key in ("lr", "weight_decay")}


def runs(
    name: str, task: Task, optimizer: str, exchange: str, factors: Sequence[float], steps: int
) -> list[dict[str, float]]:
    make: Callable[..., Any] = partial(OPTIMIZERS[optimizer], **settings(name))
    votes = EXCHANGES[exchange]
    return [losses(task, voters.train(task, make, votes, factors, seed, steps)) for seed in SEEDS]


def measure_quality() -> list[dict[str, Any]]:
    lines = []
    for name in TASKS:
        task, steps = TASKS[name](), PLANS[name].steps
        cells = [("Lion", FLOAT, 1), ("Ternary Lion", FLOAT, 1), *QUALITY]
        for optimizer, exchange, workers in tqdm(cells, desc=name):
            found = runs(name, task, optimizer, exchange, [1.0] * workers, steps)
            cell = {"optimizer": optimizer, "exchange": exchange, "workers": workers}
            lines.append({"task": name, **cell, "runs": found})
    return lines


def measure_flipped() -> list[dict[str, Any]]:
    lines, task = [], TASKS["digits"]()
    cells = [(n, f, -1.0) for n, counts in FLIPPED for f in counts] + [(4, 1, -100.0)]
    for workers, flipped, factor in tqdm(cells, desc="flipped"):
        for exchange in (FLOAT, BEST):
            factors = [factor] * flipped + [1.0] * (workers - flipped)
            found = runs("digits", task, "Lion", exchange, factors, 400)
            cell = {"workers": workers, "flipped": flipped, "factor": factor}
            lines.append({**cell, "exchange": exchange, "runs": found})
    return lines


def figure(found: list[dict[str, float]], key: str) -> str:
    values = np.array([run[key] for run in found], dtype=float)
    if not np.isfinite(values).all():
        return "diverged"
    return f"{values.mean():.4f} ± {values.std(ddof=1):.4f}"


def quality_table(lines: list[dict[str, Any]]) -> str:
    rows = [["task", "optimizer", "workers", "exchange", "test loss", "test accuracy"]]
    for line in lines:
        cells = line["task"], line["optimizer"], str(line["workers"]), line["exchange"]
        figures = (figure(line["runs"], key) for key in ("test/loss", "test/accuracy"))
        rows.append([*cells, *figures])
    return markdown(rows)


def flipped_table(lines: list[dict[str, Any]]) -> str:
    rows = [["workers", "of them send", "times", *(f"accuracy, {e}" for e in (FLOAT, BEST))]]
    cells = dict.fromkeys((x["workers"], x["flipped"], x["factor"]) for x in lines)
    for workers, flipped, factor in cells:
        found = [
            figure(x["runs"], "test/accuracy")
            for x in lines
            if (x["workers"], x["flipped"], x["factor"]) == (workers, flipped, factor)
        ]
        rows.append([str(workers), str(flipped), f"{factor:g}", *found])
    return markdown(rows)


def main() -> None:
    parser = parser_of("votes", __doc__)
    parser.add_argument(
        "--worker", nargs=3, metavar=("RANK", "WORKERS", "FOLDER"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.worker:
        rank, workers, folder = options.worker
        exchange_on(int(rank), int(workers), folder)
        return
    wire = [line for workers in (2, 4) for line in measure_wire(workers)]
    with tempfile.TemporaryDirectory() as folder:
        start_group(0, 1, folder)
        quality, flipped = measure_quality(), measure_flipped()
        dist.destroy_process_group()
    figures = {"machine": machine(), "wire": wire, "quality": quality, "flipped": flipped}
    tables = wire_table(wire), quality_table(quality), flipped_table(flipped)
    notes = [
        "Bytes are those that one worker sends in a step; float32 is a ring all-reduce.",
        f"A step on a link is computed: {1e3 * compute_seconds():.0f} ms of training (SASRec on "
        "Beauty, 512 users, one core) divided by the workers, the core's time for the exchange, "
        "and the bytes divided by the link's speed, one after the other.",
        "Mean ± sample std over three seeds, at Lion's best rate and decay for one process.",
    ]
    write("votes", figures, "\n".join(tables), notes)


if __name__ == "__main__":
    main()
