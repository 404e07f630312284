"""Compare the memory of our optimizers with that of other libraries': ``make bench-optim``.

For SASRec's tensors and for one tensor of 100 M parameters, float32: the optimizer's state, the
size of its ``state_dict()`` in a file, and the peak. The peak is the memory that the first three
steps add to a process which has parameters and gradients. For SASRec's small tensors, the peak is
mostly memory that torch and numba allocate for themselves.
"""

import argparse
import io
import json
import resource
import subprocess
import sys
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.optim import optimizers, parameters, state_bytes
from benchmarks.report import check_extra, machine, markdown, parser_of, write

MEASURED = ("0.88 M", "100 M")  # of SIZES
TITLES = {"state": "state", "in a file": "checkpoint", "peak of a step": "peak"}


def measure(size: str, name: str) -> None:
    """Print the results of one optimizer as JSON."""
    torch.set_num_threads(1)
    make = optimizers()[name]
    make(parameters("0.88 M")).step()  # loads or compiles what a step needs
    params = parameters(size)
    numel = sum(p.numel() for p in params)
    before = peak()
    optimizer = make(params)
    for _ in range(3):
        optimizer.step()
    after = peak()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    results = {
        "state": state_bytes(optimizer) / numel,
        "checkpoint": file.tell() / numel,
        "peak": (after - before) / numel,
    }
    print(json.dumps(results))


def peak() -> int:
    """The largest memory that this process has used so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = parser_of("memory", __doc__)
    parser.add_argument("--one", nargs=2, metavar=("SIZE", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    check_extra(parser)
    if options.one:
        measure(*options.one)
        return
    lines: list[dict[str, Any]] = []
    for name in tqdm(optimizers(), unit="optimizer"):
        line: dict[str, Any] = {"optimizer": name}
        for size in MEASURED:
            command = [sys.executable, "-m", "benchmarks.memory", "--one", size, name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            line[size] = json.loads(done.stdout)
        lines.append(line)
    rows = [["optimizer", *(f"{what}, {size}" for size in MEASURED for what in TITLES)]]
    for line in lines:
        cells = [f"{line[size][key]:.2f}" for size in MEASURED for key in TITLES.values()]
        rows.append([line["optimizer"], *cells])
    notes = [
        "Bytes per parameter, without the parameter and its gradient (8 bytes in float32). The "
        "peak is what the first three steps add to the process, the new state included; for 0.88 M "
        "it is mostly what torch and numba allocate."
    ]
    write("memory", {"machine": machine(), "lines": lines}, markdown(rows), notes)


if __name__ == "__main__":
    main()
