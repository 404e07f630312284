"""A language model trained by votes, by AdamW and by Lion: ``python -m benchmarks.language``.

The text is the source code of Python's standard library, as bytes; every tenth file is held out.
All methods train on the same batches, whose rows are divided between simulated workers
(benchmarks/voters.py). Each trains at every rate of one grid; the best one has the lowest held-out
loss at the end.

The default takes minutes on one core. A model of 10.8 million parameters takes half an hour with

  python -m benchmarks.language --name language_10m --layers 6 --size 384 --steps 60 \\
    --rates 3e-4 1e-3 --methods "AdamW, float32" "Lion, float32" "Lion, ternary votes"

A GPU is used if there is one; it has not been tried yet.
"""

import math
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

import simba
from benchmarks import voters
from benchmarks.report import machine, markdown, parser_of, write
from benchmarks.tasks import Task, loss
from benchmarks.text import ROWS, source_code
from benchmarks.votes import start_group
from simba.distributed import per_byte

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


def curve(
    text: Task, name: str, lr: float, workers: int, steps: int, context: int
) -> list[dict[str, float]]:
    """The held-out loss over tokens, and over the bytes that a worker has sent."""
    make, votes = METHODS[name]
    points: list[dict[str, float]] = []

    def observe(step: int, model: nn.Module) -> None:
        if step % max(1, steps // NUM_EVALUATIONS) == 0:
            with torch.no_grad():
                value = loss(model, *text.test).item()
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
        value: float = line["curve"][-1]["loss"]
        return value if math.isfinite(value) else math.inf

    return min((line for line in lines if line["method"] == name), key=last)


def table(lines: list[dict[str, Any]]) -> str:
    chosen = [best(lines, name) for name in dict.fromkeys(line["method"] for line in lines)]
    ends = [line["curve"][-1]["loss"] for line in chosen]
    reached = max(filter(math.isfinite, ends), default=math.nan)
    tokens = [point["tokens"] for point in chosen[0]["curve"]]
    quarters = (len(tokens) // 4 - 1, len(tokens) // 2 - 1, len(tokens) - 1)
    shown = sorted({max(0, i) for i in quarters})
    head = ["method", "lr", *(f"loss after {tokens[i] / 1e3:,.0f} k tokens" for i in shown)]
    until = f"until a loss of {reached:.3f}"
    rows = [[*head, "MB sent", f"k tokens {until}", f"MB sent {until}"]]
    for line in chosen:
        points = line["curve"]
        first = next((point for point in points if point["loss"] <= reached), None)
        row = [line["method"], f"{line['lr']:g}", *(f"{points[i]['loss']:.3f}" for i in shown)]
        row.append(f"{points[-1]['bytes'] / 1e6:,.0f}")
        row.append(f"{first['tokens'] / 1e3:,.0f}" if first else "–")  # – : it diverged
        rows.append([*row, f"{first['bytes'] / 1e6:,.0f}" if first else "–"])
    return markdown(rows)


def main() -> None:
    parser = parser_of("language", __doc__)
    parser.add_argument("--layers", type=int, default=2, help="number of layers")
    parser.add_argument("--size", type=int, default=64, help="hidden size, a multiple of 32")
    parser.add_argument("--context", type=int, default=64, help="number of bytes in a row")
    parser.add_argument("--steps", type=int, default=200, help="number of steps")
    parser.add_argument(
        "--workers", type=int, default=4, help="number of simulated workers, a divisor of 32"
    )
    parser.add_argument(
        "--rates", type=float, nargs="+", default=RATES, help="rates to try for each method"
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
    if options.workers < 1 or ROWS % options.workers:
        parser.error(f"--workers: a divisor of {ROWS} is needed, got {options.workers}")
    if options.size < 32 or options.size % 32:
        parser.error(f"--size: a multiple of 32 is needed, got {options.size}")
    for name in ("layers", "context", "steps"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: an integer >= 1 is needed, got {getattr(options, name)}")
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    text = source_code(options.layers, options.size, options.context, device)
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
