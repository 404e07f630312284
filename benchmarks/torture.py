"""Kill trainings at random and compare: ``python -m benchmarks.torture N`` (make torture N=200).

A case is an optimizer, a model, with or without diagnostics, and one run or a sweep in two
processes. It is trained once without a kill. Then it is started two to seven times and killed by
SIGKILL at random moments; the last start is left to finish. The records must be bitwise identical,
except for times and memory, and the folder must hold no other files. Processes are forked, so that
no time is lost on imports.
"""

import io
import itertools
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stderr
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.report import parser_of
from scripts.running.config import CONFIGS
from scripts.running.progress import bar
from scripts.train import main as train

VARIANTS = sorted(path.stem for path in (Path(CONFIGS) / "optimizer").glob("*.yaml"))
MODELS = ("sasrec", "sasrec_prenorm")
SMALL_RUN = (
    *("data=file", "epochs=12", "eval_every=2", "batch_size=16", "model.hidden=16"),
    *("model.maxlen=10", "device=cpu", "tracker.mode=disabled"),
)
MEASURED = ("started", "train_seconds", "targets_per_second", "eval_seconds", "peak_rss_mib")
FORK = multiprocessing.get_context("fork")


class Case(NamedTuple):
    variant: str
    model: str
    diagnosed: bool
    processes: int  # 2 share a sweep of two runs; 1 trains a single run

    def words(self, data: Path, root: Path) -> list[str]:
        """The command line of scripts.train."""
        sweep = ["-m", "seed=0,1"] if self.processes > 1 else []
        diagnosed = ["diagnose_every=3"] if self.diagnosed else []
        where = [f"data.path={data}", f"results.root={root}"]
        return [
            *sweep,
            f"optimizer={self.variant}",
            f"model={self.model}",
            *SMALL_RUN,
            *diagnosed,
            *where,
        ]


def cases() -> list[Case]:
    diagnosable = {name for name in VARIANTS if name not in ("adam", "adamw", "sgd")}
    return [
        Case(variant, model, diagnosed, processes)
        for variant, model, diagnosed, processes in itertools.product(
            VARIANTS, MODELS, (False, True), (1, 2)
        )
        if not diagnosed or variant in diagnosable
    ]


def toy(path: Path) -> None:
    """Write a dataset of 60 users and 40 items."""
    rng = np.random.default_rng(0)
    items = [rng.choice(40, size=rng.integers(3, 16), replace=False) + 1 for _ in range(60)]
    path.write_text("".join(f"{u} {' '.join(map(str, i))}\n" for u, i in enumerate(items, 1)))


def start(words: Sequence[str], log: Path) -> BaseProcess:
    """A process that is ``python -m scripts.train WORDS`` after its imports."""
    process = FORK.Process(target=_train, args=(words, log))
    process.start()
    return process


def _train(words: Sequence[str], log: Path) -> None:
    with log.open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    tqdm.set_lock(threading.RLock())  # forked processes share tqdm's own; a killed one may hold it
    sys.exit(_main(words))


def _main(words: Sequence[str]) -> int:
    sys.argv = ["train", *words]
    return train()


def run_to_end(words: Sequence[str], processes: int, log: Path) -> None:
    """Start the processes and let them end.

    Raises:
        RuntimeError: one has another exit code than 0.
    """
    running = [start(words, log) for _ in range(processes)]
    for process in running:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"{' '.join(words)}: exit {process.exitcode}\n{log.read_text()}")


def kill(
    words: Sequence[str], processes: int, after: float, which: Sequence[int], log: Path
) -> int:
    """Kill some of the processes after a time; returns how many had not ended yet."""
    running = [start(words, log) for _ in range(processes)]
    time.sleep(after)
    for number in which:
        running[number].kill()
    for process in running:
        process.join()
    return sum(process.exitcode == -9 for process in running)


def records(root: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in (root / "runs").rglob("*.json"):
        record = json.loads(path.read_text())
        name = str(path.relative_to(root))
        found[name] = {key: value for key, value in record.items() if key not in MEASURED}
    return found


def leftovers(root: Path, whole: Path) -> list[str]:
    """The files that the uninterrupted runs do not have."""
    there, expected = (
        {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        for folder in (root, whole)
    )
    return sorted(str(path) for path in there - expected)


def torture(kills: int, seed: int, folder: Path, done: Counter[str], faults: list[str]) -> None:
    """Count in ``done`` what was done; ``faults`` gets a line for each fault."""
    rng = np.random.default_rng(seed)
    data = folder / "toy.txt"
    toy(data)
    for model in MODELS:  # load and compile once, before forking
        warm = Case("simba_m", model, False, 1).words(data, folder / "warm")
        with redirect_stderr(io.StringIO()):
            _main(warm)
    order: list[Case] = []
    with bar(total=kills, desc="torture", unit="kill") as shown:
        while done["kills"] < kills:
            order = order or [cases()[i] for i in rng.permutation(len(cases()))]
            case = order.pop()
            case_folder = folder / str(done["cases"])
            log = folder / f"{case_folder.name}.log"
            whole, root = case_folder / "whole", case_folder / "killed"
            began = time.monotonic()
            run_to_end(case.words(data, whole), case.processes, log)
            took = time.monotonic() - began
            for _ in range(rng.integers(2, 8)):
                if records(root).keys() == records(whole).keys():
                    break
                which = rng.permutation(case.processes)[: rng.integers(1, 3)].tolist()
                after = float(rng.uniform(0, took))
                killed = kill(case.words(data, root), case.processes, after, which, log)
                done["kills"] += killed
                done["found in the middle of a save"] += bool(list(root.rglob("checkpoints/**/.*")))
                shown.update(killed)
            run_to_end(case.words(data, root), case.processes, log)
            expected, found = records(whole), records(root)
            done["cases"] += 1
            done["of them sweeps"] += case.processes > 1
            done["records"] += len(found)
            if expected != found:
                done["differences"] += 1
                faults.append(f"{case}: the records differ: {whole}, {root}")
            if left := leftovers(root, whole):
                done["leftovers"] += len(left)
                faults.append(f"{case}: left over: {', '.join(left)}")


def main() -> int:
    parser = parser_of("torture", __doc__)
    parser.add_argument(
        "kills", type=int, nargs="?", default=200, help="number of kills (default: 200)"
    )
    parser.add_argument(
        "seed", type=int, nargs="?", default=0, help="seed of the moments (default: 0)"
    )
    args = parser.parse_args()
    done: Counter[str] = Counter()
    faults: list[str] = []
    interrupted = False
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory() as folder:
            torture(args.kills, args.seed, Path(folder), done, faults)
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted; so far:")
    for fault in faults:
        print(fault)
    for name in ("cases", "of them sweeps", "kills", "found in the middle of a save"):
        print(f"{name:<30} {done[name]:>6}")
    for name in ("records", "differences", "leftovers"):
        print(f"{name:<30} {done[name]:>6}")
    return 1 if faults else 130 if interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
