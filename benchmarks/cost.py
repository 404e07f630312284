"""What training large models data-parallel would cost, an estimate: ``python -m benchmarks.cost``.

A step computes 6 FLOP per parameter and token, exchanges gradients or votes, and updates the
weights, one after the other. docs/scale.md shows the tables and says what the model leaves out.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report import FOLDER, markdown
from scripts.records.files import write_atomically
from simba.distributed import per_byte

# Assumed, for one GPU (NVIDIA H100 SXM, data sheet): dense bfloat16 and memory bandwidth.
PEAK, MEMORY_BANDWIDTH = 989e12, 3.35e12  # FLOP/s, bytes/s
# Of PEAK: Llama 3 reached 0.38 to 0.43 on 8,192 to 16,384 H100 (arXiv 2407.21783).
UTILIZATION = 0.4
LINKS = {
    "400 Gbit/s": 50e9,
    "1 Gbit/s": 125e6,
}  # bytes/s: of each GPU in a cluster, of each replica
WARMUP = 0.15  # of 1-bit Adam's steps exchange bfloat16 (BERT-Large: 23k of 152k, arXiv 2102.02888)
REPLICAS = (8, 64, 512, 4096)


@dataclass(frozen=True)
class Model:
    """A model in data-parallel training."""

    name: str
    parameters: float
    tokens: float  # of a global batch
    gpus: int  # of a replica


MODELS = (Model("1 B", 1e9, 1e6, 1), Model("70 B", 70e9, 4e6, 32))


@dataclass(frozen=True)
class Method:
    """An optimizer and what its replicas exchange. Bytes are per parameter, on each replica."""

    name: str
    bits: float  # of a coordinate, in each of the two directions
    state: float  # of the optimizer
    errors: float  # rounding errors of a compressed exchange, which differ between replicas


VOTE = 8 / per_byte(3)  # simba.distributed packs five ternary votes in a byte
METHODS = (
    Method("AdamW, float32", 32, 8, 0),
    Method("8-bit Lion, bfloat16", 16, 1, 0),
    Method("1-bit Adam", WARMUP * 16 + (1 - WARMUP) * 1, 8, 4),
    Method("ternary votes", VOTE, 2, 4),
)
WEIGHTS = 2 + 4 + 4  # bytes: bfloat16 weights, float32 weights, float32 gradient


def sent(model: Model, method: Method, replicas: int) -> float:
    """The bytes that a replica sends in a step, in a ring or by all-to-all and all-gather."""
    return 2 * (replicas - 1) / replicas * model.parameters * method.bits / 8


def compute_seconds(model: Model, replicas: int) -> float:
    """Forward and backward pass of a replica's part of the batch."""
    flop = 6 * model.parameters * model.tokens / replicas
    return flop / (model.gpus * PEAK * UTILIZATION)


def update_seconds(model: Model, method: Method) -> float:
    """The optimizer's step, which is limited by moving gradient, weights and state.

    The share of the memory's bandwidth is that of our fused Lion on a CPU.
    """
    moved = 4 + 2 * 4 + 2 * (method.state + method.errors)  # read, or read and written
    return moved * model.parameters / (model.gpus * MEMORY_BANDWIDTH * share_of_bandwidth())


def exchange_seconds(model: Model, method: Method, replicas: int, link: str) -> float:
    """Sending the bytes. Over 400 Gbit/s, the GPUs of a replica share them."""
    links = model.gpus if link == "400 Gbit/s" else 1
    return sent(model, method, replicas) / (links * LINKS[link])


def memory(model: Model, method: Method) -> float:
    """Bytes on each GPU of a replica, without activations."""
    return (WEIGHTS + method.state + method.errors) * model.parameters / model.gpus


def share_of_bandwidth() -> float:
    """The share of the memory bandwidth that our fused Lion reaches (benchmarks.optim, 10 M)."""
    lines = json.loads((FOLDER / "optim.json").read_text())["lines"]
    lion = next(line for line in lines if line["optimizer"] == "ours: Lion, fused")
    return float(lion["10 M"]["share_of_bandwidth"])


def methods_table() -> list[list[str]]:
    """Bytes sent and memory of each method, for one number of replicas."""
    head = [
        "method",
        "bits, each way",
        "of float32",
        "optimizer state + errors, bytes per parameter",
    ]
    own = "{}: GB sent per step", "{}: GB of memory per GPU"
    rows = [[*head, *(name.format(model.name) for model in MODELS for name in own)]]
    for method in METHODS:
        kept = f"{method.state:g} + {method.errors:g}"
        row = [method.name, f"{method.bits:.2f}", f"1/{32 / method.bits:.1f}", kept]
        for model in MODELS:
            row.append(f"{sent(model, method, max(REPLICAS)) / 1e9:,.1f}")
            row.append(f"{memory(model, method) / 1e9:,.0f}")
        rows.append(row)
    return rows


def steps_table() -> list[list[str]]:
    """Seconds per step and the share of it that computes, for every size."""
    head = ["model", "replicas", "GPUs", "link", "compute, s"]
    rows = [[*head, *(f"{method.name}, s" for method in METHODS)]]
    for model in MODELS:
        for link in LINKS:
            for replicas in REPLICAS:
                compute = compute_seconds(model, replicas)
                sizes = [model.name, f"{replicas:,}", f"{replicas * model.gpus:,}", link]
                row = [*sizes, figures(compute)]
                for method in METHODS:
                    exchange = exchange_seconds(model, method, replicas, link)
                    whole = compute + exchange + update_seconds(model, method)
                    row.append(f"{figures(whole)} ({compute / whole:.0%})")
                rows.append(row)
    return rows


def figures(seconds: float) -> str:
    """Three significant digits, or all digits before the decimal point."""
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def as_csv(tables: Sequence[Sequence[Sequence[str]]]) -> str:
    """Tables one below the other, with an empty line behind each."""
    text = io.StringIO()
    for rows in tables:
        csv.writer(text, lineterminator="\n").writerows(rows)
        text.write("\n")
    return text.getvalue()


def main() -> None:
    tables = methods_table(), steps_table()
    shown = "\n".join(markdown(rows) for rows in tables)
    write_atomically(FOLDER / "cost.csv", as_csv(tables).encode())
    write_atomically(FOLDER / "cost.md", shown.encode())
    print(shown)


if __name__ == "__main__":
    main()
