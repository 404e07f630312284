"""Kill a launcher's processes at random: ``python -m benchmarks.launchers joblib 200 --kills 5``.

A sweep of short runs is started by a launcher, and started again until it ends without an error.
Meanwhile, processes that train are killed by SIGKILL; with submitit, some get the signal after
which submitit requeues them. The records must be bitwise identical to those of one process, and
each must be written once.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np

from benchmarks.report import parser_of
from benchmarks.torture import SMALL_RUN, leftovers, records, run_to_end, toy
from scripts.records.status import Status, read_status
from scripts.running.progress import bar

POLL = 0.1  # seconds
FAULTS = ("lost", "written twice", "differences", "leftovers")
CHECKPOINTS = "checkpoints/toy/"  # scripts.sweep also leaves tables, which are no leftovers
COMMANDS = {
    "sweep": ["scripts.sweep", "--jobs", "2"],
    "joblib": ["scripts.train", "-m", "launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit": [
        *("scripts.train", "-m", "hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=2"),
        "hydra.launcher.submitit_folder={folder}/jobs",
    ],
    "ray": ["scripts.train", "-m", "launcher=ray", "hydra.launcher.ray.init.address={address}"],
}


@contextmanager
def two_nodes() -> Iterator[str]:
    """The address of a Ray cluster of two nodes with one core each, on this machine."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    cluster.add_node(**node)
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


class KilledSweep:
    """A sweep whose training processes are killed."""

    def __init__(self, root: Path, kills: Sequence[tuple[int, int]]) -> None:
        self.root, self.kills = root, list(kills)  # (after so many records, the signal), in order
        self.done: Counter[str] = Counter()
        self.written: dict[Path, set[tuple[int, int]]] = {}
        self.hit: set[int] = set()  # process ids, which may belong to others later

    def run(self, command: Sequence[str], log: Path) -> int:
        """Run the sweep once; returns its exit code."""
        with log.open("ab") as file:
            process = subprocess.Popen([sys.executable, "-m", *command], stdout=file, stderr=file)
        while process.poll() is None or self.training():  # submitit's jobs outlive it
            time.sleep(POLL)
            self.observe()
        self.done["commands"] += 1
        return process.returncode

    def observe(self) -> None:
        """Note new records, and kill a process if it is time."""
        for path in self.root.glob("runs/*/*/*.json"):
            stat = path.stat()
            self.written.setdefault(path, set()).add((stat.st_ino, stat.st_mtime_ns))
        if self.kills and len(self.written) >= self.kills[0][0] and (running := self.training()):
            _, number = self.kills.pop(0)
            self.hit.add(running[0].pid)
            os.kill(running[0].pid, number)
            self.done["kills" if number == signal.SIGKILL else "requeues"] += 1

    def training(self) -> list[Status]:
        """Processes that train, the one that wrote its status last first."""
        found = [read_status(path) for path in self.root.glob("checkpoints/*/*/*.status.json")]
        alive = [
            s for s in found if s and not s.error and s.pid not in self.hit and s.may_be_alive()
        ]
        return sorted(alive, key=lambda status: -status.updated)


def main() -> int:
    parser = parser_of("launchers", __doc__)
    parser.add_argument("launcher", choices=COMMANDS, help="what starts the runs")
    parser.add_argument(
        "runs", type=int, nargs="?", default=200, help="number of runs (default: 200)"
    )
    parser.add_argument("--kills", type=int, default=5, help="number of kills (default: 5)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the moments of the kills (default: 0)"
    )
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    signals = [signal.SIGKILL, *([signal.SIGUSR2] if args.launcher == "submitit" else [])]
    moments = sorted(rng.integers(args.runs, size=args.kills).tolist())
    kills = [(moment, signals[i % len(signals)]) for i, moment in enumerate(moments)]
    cluster = two_nodes() if args.launcher == "ray" else nullcontext("")
    with tempfile.TemporaryDirectory() as name, cluster as address:
        folder = Path(name)
        toy(folder / "toy.txt")
        runs = [*SMALL_RUN, f"data.path={folder / 'toy.txt'}", "epochs=2", "eval_every=1"]
        runs.append(f"seed=range(0,{args.runs})")
        run_to_end(["-m", *runs, f"results.root={folder / 'whole'}"], 1, folder / "whole.log")
        command = [word.format(folder=folder, address=address) for word in COMMANDS[args.launcher]]
        killed = KilledSweep(folder / "killed", kills)
        done, code = killed.done, 1
        with bar(total=args.runs, desc=args.launcher, unit="run") as shown:
            while code != 0 and done["commands"] <= args.kills + 1:
                code = killed.run([*command, *runs, f"results.root={killed.root}"], folder / "log")
                shown.update(len(killed.written) - shown.n)
        expected, found = records(folder / "whole"), records(killed.root)
        done["records"] = len(found)
        done["lost"] = len(expected.keys() - found.keys())
        done["written twice"] = sum(len(seen) > 1 for seen in killed.written.values())
        done["differences"] = sum(found[name] != expected.get(name) for name in found)
        done["leftovers"] = len(
            [n for n in leftovers(killed.root, folder / "whole") if n.startswith(CHECKPOINTS)]
        )
        done["exit code"] = code
        if code or any(done[name] for name in FAULTS):
            print((folder / "log").read_text()[-5000:])
    for name in ("commands", "kills", "requeues", "records", *FAULTS, "exit code"):
        print(f"{name:<15} {done[name]:>6}")
    return int(any(done[name] for name in (*FAULTS, "exit code")))


if __name__ == "__main__":
    sys.exit(main())
