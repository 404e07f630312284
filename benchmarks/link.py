"""The time of an exchange on slow links, measured: ``python -m benchmarks.link``, as root on Linux.

Two workers have a network namespace each (``ip netns``). A pair of virtual interfaces joins them,
and ``tc`` limits what each of them sends. They exchange the gradients of SASRec's 28 tensors. The
time includes a backward pass, which costs almost nothing here.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from benchmarks.report import machine, markdown, parser_of, write
from benchmarks.votes import BEST, EXCHANGES, FLOAT, data_parallel, start_group, step

WORKERS = 2
LINKS = {  # rate and burst of tc (bits per second, bytes)
    "10 Mbit/s": ("10mbit", "8kb"),
    "100 Mbit/s": ("100mbit", "32kb"),
    "1 Gbit/s": ("1gbit", "256kb"),
}
MEASURED = (FLOAT, BEST, "binary, majority, error feedback")
STEPS = 10


def name(rank: int) -> str:
    """The name of a worker's network namespace, and of its interface."""
    return f"simba{rank}"


@contextmanager
def network(rate: str, burst: str) -> Iterator[None]:
    """Two namespaces joined by a link with this rate and burst, in tc's notation."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    with ExitStack() as created:
        for rank in range(WORKERS):
            ip("netns", "add", name(rank))
            created.callback(ip, "netns", "delete", name(rank))
        link = ["link", "add", name(0), "netns", name(0), "type", "veth"]
        ip(*link, "peer", "name", name(1), "netns", name(1))
        for rank in range(WORKERS):
            own = ["-n", name(rank)]
            ip(*own, "address", "add", f"10.99.0.{rank + 1}/24", "dev", name(rank))
            ip(*own, "link", "set", name(rank), "up")
            limit = ["rate", rate, "burst", burst, "latency", "200ms"]
            limited = ["tc", *own, "qdisc", "add", "dev", name(rank), "root", "tbf", *limit]
            subprocess.run(limited, check=True)
        yield


def measure(rank: int, folder: str) -> None:
    """Measure the exchanges as one of the workers; rank 0 writes the seconds to the folder."""
    start_group(rank, WORKERS, folder)
    found = {}
    for exchange in MEASURED:
        model, _ = data_parallel(EXCHANGES[exchange])
        step(model)  # the first one arranges the buckets
        seconds = []
        for _ in range(STEPS):
            dist.barrier()
            start = time.perf_counter()
            step(model)
            seconds.append(time.perf_counter() - start)
        found[exchange] = float(np.median(seconds))
    if rank == 0:
        Path(folder, "seconds").write_text(json.dumps(found))
    dist.destroy_process_group()


def seconds_on(rate: str, burst: str) -> dict[str, float]:
    """The median time of each exchange, in seconds."""
    worker = [sys.executable, "-m", "benchmarks.link", "--worker"]
    with tempfile.TemporaryDirectory() as folder, network(rate, burst):
        started = [
            subprocess.Popen(
                ["ip", "netns", "exec", name(rank), *worker, str(rank), folder],
                env=os.environ | {"GLOO_SOCKET_IFNAME": name(rank)},
            )
            for rank in range(WORKERS)
        ]
        if any(process.wait() for process in started):
            raise SystemExit("a worker failed")
        found: dict[str, float] = json.loads(Path(folder, "seconds").read_text())
        return found


def table(lines: list[dict[str, Any]]) -> str:
    rows = [["exchange", *(f"{line['link']}, ms" for line in lines)]]
    for exchange in MEASURED:
        times = (line["seconds"][exchange] for line in lines)
        rows.append([exchange, *(f"{1e3 * seconds:,.0f}" for seconds in times)])
    return markdown(rows)


def main() -> None:
    parser = parser_of("link", __doc__)
    parser.add_argument("--worker", nargs=2, metavar=("RANK", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.worker:
        measure(int(options.worker[0]), options.worker[1])
        return
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("tc")):
        raise SystemExit("error: benchmarks.link needs ip and tc (iproute2), as root on Linux")
    lines = [{"link": link, "seconds": seconds_on(*limit)} for link, limit in tqdm(LINKS.items())]
    notes = [
        f"The time of an exchange over a link, median of {STEPS}, {WORKERS} workers, one core each."
    ]
    write("link", {"machine": machine(), "lines": lines}, table(lines), notes)


if __name__ == "__main__":
    main()
