"""Compare the time of a step with optimizers of other libraries: ``make bench-optim``.

The parameters are SASRec's 28 tensors (0.88 M parameters), or one tensor of 10 M or 100 M, in
float32 on one thread. Each step alternates with torch's in-place ``add_`` on the same tensors. The
speed of ``add_`` is limited only by moving 12 bytes per parameter. On a machine with other load,
the median ratio to ``add_`` is the most reliable number. What the first step takes longer than the
second is timed in a new process, twice: with an empty compiler cache (cold) and again (warm).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from omegaconf import OmegaConf
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from tqdm import tqdm

import simba
from benchmarks.report import check_extra, machine, markdown, parser_of, write
from scripts.running.provenance import REPOSITORY

SIZES: dict[str, list[tuple[int, ...]]] = {
    "0.88 M": [
        *((12102, 64), (50, 64), *[(64,)] * 2),
        *2 * [(192, 64), (192,), (64, 64), (64,), (64,), (64,), (256, 64), (256,), (64, 256)],
        *6 * [(64,)],
    ],
    "10 M": [(10_000_000,)],
    "100 M": [(100_000_000,)],
}
ROUNDS = {"0.88 M": 60, "10 M": 15, "100 M": 5}


def peers() -> dict[str, Callable[..., Any]]:
    """The implementations of Lion, and optimizers of 8 and 4 bits, in other libraries, by name.

    flashoptim's FlashLion and FlashAdamW are not among them: 0.1.4 needs a CUDA GPU to quantize.
    """
    import bitsandbytes
    import lion_pytorch.foreach
    import optimi
    import pytorch_optimizer
    import torchao

    eight_bit: Any = bitsandbytes.optim  # its types do not export the classes
    return {
        "lion-pytorch Lion": lion_pytorch.Lion,
        "lion-pytorch Lion, foreach": lion_pytorch.foreach.Lion,
        "pytorch-optimizer Lion": lambda p: pytorch_optimizer.Lion(p),
        "pytorch-optimizer Lion, foreach": lambda p: pytorch_optimizer.Lion(p, foreach=True),
        "torch-optimi Lion": lambda p: optimi.Lion(p, lr=1e-4, foreach=False),
        "torch-optimi Lion, foreach": lambda p: optimi.Lion(p, lr=1e-4, foreach=True),
        "bitsandbytes Lion, 8 bits": eight_bit.Lion8bit,
        "bitsandbytes AdamW, 8 bits": eight_bit.AdamW8bit,
        "torchao AdamW, 8 bits": torchao.optim.AdamW8bit,
        "torchao AdamW, 4 bits": torchao.optim.AdamW4bit,
    }


def optimizers() -> dict[str, Callable[..., Any]]:
    """All optimizers to compare, by name."""
    others = {
        "torch SGD fused": lambda p: torch.optim.SGD(p, 1e-4, fused=True),
        "torch AdamW fused": lambda p: torch.optim.AdamW(p, 1e-4, fused=True),
        "torch AdamW foreach": lambda p: torch.optim.AdamW(p, 1e-4, foreach=True),
    }
    return ours() | others | peers()


def ours() -> dict[str, Callable[..., Any]]:
    """Ours, fused and not, by name."""
    variants: dict[str, Callable[..., Any]] = {
        "sign-SGD": simba.SignSGD,
        "Lion": simba.Lion,
        "Simba int8": lambda p, **kw: simba.Simba(p, window_size=127, **kw),
        "Simba int16": simba.Simba,
        "Simba + m int8": lambda p, **kw: simba.SimbaM(p, window_size=127, **kw),
        "Simba + (1) int8": lambda p, **kw: simba.SimbaEq1(p, window_size=127, **kw),
        "Simba + (c = m)": simba.SimbaCeqM,
        "Simba, leaky": simba.SimbaLeaky,
        "Ternary Lion": simba.TernaryLion,
        "Ternary Lion EF, one byte": simba.TernaryLionEF,
        "Ternary Lion EF, two bytes": _from_config("ternary_lion_ef"),
        "Ternary Lion EF, one byte, lasting": _from_config("ternary_lion_byte_lasting"),
        "Ternary Lion EF, one byte, fine": _from_config("ternary_lion_byte_fine"),
        "Ternary Lion EF, one byte, balanced": _from_config("ternary_lion_byte_balanced"),
        "Ternary Lion, carry, one byte": simba.TernaryLionCarry,
        "Ternary Lion EF, two bytes, lasting": _from_config("ternary_lion_ef_lasting"),
        "8-bit Lion": simba.Lion8bit,
        "8-bit Lion, lasting": _from_config("lion_8bit_lasting"),
    }
    named = {f"ours: {name}, fused": _with(make, fused=True) for name, make in variants.items()}
    return named | {f"ours: {name}": make for name, make in variants.items()}


def _from_config(name: str) -> Callable[..., Any]:
    """An optimizer with the settings of ``configs/optimizer/NAME.yaml``, but not ``fused``."""
    section: Any = OmegaConf.load(REPOSITORY / "configs" / "optimizer" / f"{name}.yaml")
    settings = {k: v for k, v in section.items() if not k.startswith("_") and k != "fused"}
    make = getattr(simba, section["_target_"].rpartition(".")[2])
    return lambda p, **options: make(p, **{**settings, **options})


def _with(make: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return lambda p: make(p, **options)


def parameters(size: str) -> list[torch.nn.Parameter]:
    """Random parameters with gradients."""
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in SIZES[size]]
    for p in params:
        p.grad = torch.randn_like(p)
    return params


@torch.no_grad()
def add(params: list[torch.nn.Parameter]) -> None:
    for p in params:
        assert p.grad is not None
        p.add_(p.grad, alpha=1e-9)


def measure(size: str, make: Callable[..., Any]) -> dict[str, float]:
    """Medians over rounds of the time of a step, and of its ratio to the ``add_`` before it."""
    params = parameters(size)
    numel = sum(p.numel() for p in params)
    optimizer = make(params)
    optimizer.step()
    times, ratios = [], []
    for _ in range(ROUNDS[size]):
        add(params)  # so that the caches have the same content before each timed add
        start = time.perf_counter()
        add(params)
        middle = time.perf_counter()
        optimizer.step()
        end = time.perf_counter()
        times.append(end - middle)
        ratios.append((end - middle) / (middle - start))
    state = state_bytes(optimizer)
    ratio = statistics.median(ratios)
    ns = 1e9 * statistics.median(times) / numel
    moved = 12 + 2 * state / numel  # bytes: read and write p, read g, read and write the state
    return {
        "ns": ns,
        "gb_per_second": moved / ns,
        "times_add": ratio,
        "share_of_bandwidth": moved / 12 / ratio,
        "state_bytes": state / numel,
    }


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """The bytes of an optimizer's tensors, without scalars."""
    values = [v for state in optimizer.state.values() for v in state.values()]
    tensors = [part for v in values if torch.is_tensor(v) and v.ndim for part in _parts(v)]
    return sum(t.numel() * t.element_size() for t in tensors)


def _parts(t: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that a tensor consists of: torchao's states have codes and scales."""
    if not is_traceable_wrapper_subclass(t):
        return [t]
    names, _ = t.__tensor_flatten__()
    return [getattr(t, name) for name in names]


def first_step(name: str, folder: str) -> float:
    """The seconds by which the first step takes longer than the second, in a new process."""
    environment = os.environ | {"NUMBA_CACHE_DIR": folder, "TORCHINDUCTOR_CACHE_DIR": folder}
    command = [sys.executable, "-m", "benchmarks.optim", "--first", name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def time_first_step(name: str) -> None:
    params, make = parameters("0.88 M"), optimizers()[name]
    start = time.perf_counter()
    optimizer = make(params)
    optimizer.step()
    middle = time.perf_counter()
    optimizer.step()
    print(json.dumps(max(0.0, 2 * middle - start - time.perf_counter())))


def main() -> None:
    parser = parser_of("optim", __doc__)
    parser.add_argument("--first", help=argparse.SUPPRESS)
    parser.add_argument(
        "--sizes",
        nargs="+",
        default=list(SIZES),
        choices=SIZES,
        help="parameters to step (default: all); with fewer, the table is printed and not written",
    )
    options = parser.parse_args()
    check_extra(parser)
    torch.set_num_threads(1)
    if options.first:
        time_first_step(options.first)
        return
    lines = []
    for name, make in tqdm(optimizers().items(), unit="optimizer"):
        line: dict[str, Any] = {"optimizer": name}
        with tempfile.TemporaryDirectory() as folder:
            line["first_step_cold"] = first_step(name, folder)
            line["first_step_warm"] = first_step(name, folder)
        line |= {size: measure(size, make) for size in options.sizes}
        lines.append(line)
    head = ["optimizer", "state, bytes per parameter", "first step cold / warm, s"]
    for size in options.sizes:
        head += [f"ns per parameter, {size}", "× add_", "GB/s", "of bandwidth"]
    rows = [head]
    for line in lines:
        sizes = [line[size] for size in options.sizes]
        first = f"{line['first_step_cold']:.2f} / {line['first_step_warm']:.2f}"
        row = [line["optimizer"], f"{sizes[0]['state_bytes']:.2f}", first]
        for figures in sizes:
            row += [f"{figures['ns']:.2f}", f"{figures['times_add']:.2f}"]
            row += [f"{figures['gb_per_second']:.0f}", f"{figures['share_of_bandwidth']:.0%}"]
        rows.append(row)
    notes = ["One thread; bandwidth relative to that of add_, which moves 12 bytes per parameter."]
    if len(options.sizes) < len(SIZES):
        print(markdown(rows))
        return
    write("optim", {"machine": machine(), "lines": lines}, markdown(rows), notes)


if __name__ == "__main__":
    main()
