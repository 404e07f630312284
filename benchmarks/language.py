"""A language model trained by votes, by AdamW and by Lion: ``python -m benchmarks.language``.

The text is the source code of Python's standard library, as bytes; every tenth file is held out.
All methods share the batches, whose rows are divided between simulated workers
(benchmarks/voters.py). Each trains at every rate of one grid; the best one has the lowest held-out
loss at the end.

The default takes minutes on one core. A model of 10.8 million parameters takes half an hour with

  python -m benchmarks.language --name language_10m --layers 6 --size 384 --steps 60 \\
    --rates 3e-4 1e-3 --methods "AdamW, float32" "Lion, float32" "Lion, ternary votes"

A GPU is used if there is one; it has not been tried yet.
"""

import argparse
import math
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

import simba
from benchmarks import voters
from benchmarks.report import machine, markdown, write
from benchmarks.tasks import Task, loss
from benchmarks.votes import start_group
from simba.distributed import per_byte

ROWS = voters.BATCH_MULTIPLE  # per batch
HELD_OUT = 64  # rows of each evaluation
NUM_EVALUATIONS = 10
RATES = (3e-4, 1e-3, 3e-3)
LASTING = partial(simba.TernaryLionEF, **simba.presets.TWO_BYTES)
VOTES = {"levels": 3, "error_feedback": True}
METHODS: dict[str, tuple[Callable[..., Any], voters.VoteSettings | None]] = {
    "AdamW, float32": (torch.optim.AdamW, None),
    "Lion, float32": (simba.Lion, None),
    "Ternary Lion EF, float32": (LASTING, None),
    "Lion, ternary votes": (simba.Lion, VOTES),
    "Ternary Lion EF, ternary votes": (LASTING, VOTES),
}


class LanguageModel(nn.Module):
    """A transformer that predicts the next byte: pre-norm, GELU, learned positions."""

    def __init__(self, layers: int, size: int, context: int) -> None:
        super().__init__()
        self.byte = nn.Embedding(256, size)
        self.position = nn.Parameter(0.02 * torch.randn(context, size))
        self.blocks = nn.ModuleList(Block(size) for _ in range(layers))
        self.norm = nn.LayerNorm(size)
        nn.init.normal_(self.byte.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.byte(x) + self.position
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.byte.weight.T


class Block(nn.Module):
    """Causal attention and a feed-forward layer, with heads of 32 columns."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.heads = size // 32
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.widen, self.narrow = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.widen(self.feed_forward_norm(x))))


def sources() -> tuple[Tensor, Tensor]:
    """The bytes of the files to train on and of those that are held out, uint8."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(p for p in folder.rglob("*.py") if "site-packages" not in p.parts)
    parts = [[p for i, p in enumerate(files) if (i % 10 == 0) == held] for held in (False, True)]
    train, held_out = (b"\n".join(path.read_bytes() for path in part) for part in parts)
    return torch.frombuffer(bytearray(train), dtype=torch.uint8), torch.frombuffer(
        bytearray(held_out), dtype=torch.uint8
    )


def task(layers: int, size: int, context: int, device: torch.device) -> Task:
    """The text as a task of batches of ``ROWS`` rows of ``context`` bytes."""
    train, held_out = (part.to(device) for part in sources())
    span = torch.arange(context, device=device)

    def rows(text: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        at = first.to(device) + span
        return text[at].long(), text[at + 1].long()

    def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield rows(
                train,
                torch.randint(len(train) - context - 1, (ROWS, 1), generator=generator),
            )

    evenly = torch.linspace(0, len(held_out) - context - 2, HELD_OUT).long().unsqueeze(1)
    valid = rows(held_out, evenly)
    counts = torch.bincount(train.long(), minlength=256) + 1.0
    floor = F.nll_loss(
        (counts / counts.sum()).log().expand(valid[1].numel(), -1), valid[1].flatten()
    )
    model = partial(LanguageModel, layers, size, context)
    return Task(lambda: model().to(device), batches, valid, valid, floor.item())


def curve(
    text: Task, name: str, lr: float, workers: int, steps: int, context: int
) -> list[dict[str, float]]:
    """The held-out loss against tokens and against the bytes that a worker has sent."""
    make, votes = METHODS[name]
    points: list[dict[str, float]] = []

    def observe(step: int, model: nn.Module) -> None:
        if step % max(1, steps // NUM_EVALUATIONS) == 0:
            with torch.no_grad():
                value = loss(model, *text.valid).item()
            sent = step * bytes_per_step(model, votes, workers)
            points.append({"tokens": step * ROWS * context, "bytes": sent, "loss": value})

    voters.train(text, partial(make, lr=lr), votes, [1.0] * workers, 0, steps, observe)
    return points


def bytes_per_step(model: nn.Module, votes: voters.VoteSettings | None, workers: int) -> float:
    """What a worker sends: a ring all-reduce of float32, or packed votes there and back."""
    numel = sum(p.numel() for p in model.parameters())
    size = 4.0 if votes is None else 1 / per_byte(votes["levels"])
    return 2 * (workers - 1) / workers * size * numel


def best(lines: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The line of a method at its best rate."""

    def last(line: dict[str, Any]) -> float:
        value = line["curve"][-1]["loss"]
        return value if value is not None and math.isfinite(value) else math.inf

    return min((line for line in lines if line["method"] == name), key=last)


def table(lines: list[dict[str, Any]]) -> str:
    chosen = [best(lines, name) for name in dict.fromkeys(line["method"] for line in lines)]
    reached = max(line["curve"][-1]["loss"] for line in chosen)
    tokens = [point["tokens"] for point in chosen[0]["curve"]]
    shown = [len(tokens) // 4 - 1, len(tokens) // 2 - 1, len(tokens) - 1]
    head = ["method", "lr", *(f"loss after {tokens[i] / 1e3:,.0f} k tokens" for i in shown)]
    until = f"until a loss of {reached:.3f}"
    rows = [[*head, "MB sent", f"k tokens {until}", f"MB sent {until}"]]
    for line in chosen:
        points = line["curve"]
        first = next(point for point in points if point["loss"] <= reached)
        row = [line["method"], f"{line['lr']:g}", *(f"{points[i]['loss']:.3f}" for i in shown)]
        row += [f"{points[-1]['bytes'] / 1e6:,.0f}", f"{first['tokens'] / 1e3:,.0f}"]
        rows.append([*row, f"{first['bytes'] / 1e6:,.0f}"])
    return markdown(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.language",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--size", type=int, default=64, help="a multiple of 32")
    parser.add_argument("--context", type=int, default=64, help="bytes of a row")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4, help="simulated; a divisor of 32")
    parser.add_argument(
        "--rates", type=float, nargs="+", default=RATES, help="to try for each method"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=[*METHODS],
        metavar="METHOD",
        help="methods to train (default: all)",
    )
    parser.add_argument("--name", default="language", help="name of the result files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    text = task(options.layers, options.size, options.context, device)
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        start_group(0, 1, folder)
        for name in options.methods:
            for lr in tqdm(options.rates, desc=name):
                points = curve(text, name, lr, options.workers, options.steps, options.context)
                lines.append({"method": name, "lr": lr, "curve": points})
        dist.destroy_process_group()
    numel = sum(p.numel() for p in text.model().parameters())
    figures = {
        "machine": machine(),
        **vars(options),
        "parameters": numel,
        "floor": text.floor,
    }
    notes = [
        f"{numel:,} parameters ({options.layers} layers of {options.size}), rows of "
        f"{options.context} bytes, {ROWS} rows a batch, {options.workers} simulated workers, one "
        f"seed, on {device.type}. Loss in nats per byte; byte frequencies alone: {text.floor:.3f}.",
        f"Each method at the best of the rates {', '.join(f'{lr:g}' for lr in options.rates)}. "
        "A worker sends a ring all-reduce of float32, or packed votes there and back.",
    ]
    write(options.name, {**figures, "lines": lines}, table(lines), notes)


if __name__ == "__main__":
    main()
