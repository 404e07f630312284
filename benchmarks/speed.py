"""Compare training and full ranking on Beauty with every installed peer: ``make bench``.

In a round, all implementations run one after the other, so that other programs slow down all. A
result is the median over the rounds. For two cores, we measure one run with two threads, and two
runs at the same time, whose speeds are added, because a sweep has many runs.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import peers
from benchmarks.report import machine, markdown, parser_of, write
from data.prepare import compose, prepare
from scripts.running.provenance import REPOSITORY

CORES = sorted(os.sched_getaffinity(0))[:2]
OURS = {
    "Simba study, Lion": ["optimizer=lion"],
    "Simba study, Adam": ["optimizer=adam"],
    "Simba study, pre-norm, Adam": ["optimizer=adam", "model=sasrec_prenorm"],
}
MODELS = peers.MODELS | {"Simba study, pre-norm, Adam": "FFN 64→64, BCE"}
REFERENCE = "Simba study, Adam"
MODES = {"one core": (1, 1), "two threads": (1, 2), "two runs": (2, 1)}  # (processes, threads)


def command(name: str, data: Path) -> list[str]:
    """The command that measures an implementation."""
    if name in OURS:
        ours = [sys.executable, "-m", "benchmarks.ours", "data=beauty", *OURS[name]]
        return [*ours, "--spawned", str(time.time())]
    return [str(peers.python(name)), str(peers.HERE / f"with_{name}.py"), str(data), "--steps", "5"]


def measure(name: str, data: Path, processes: int, threads: int) -> dict[str, Any]:
    """Measure an implementation: the sum of its processes' speeds, the maximum of other values."""
    started = []
    folder = tempfile.TemporaryDirectory()  # peers write log files to the working folder
    for process in range(processes):
        cores = (CORES * 2)[process : process + threads]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
        started.append(
            subprocess.Popen(
                ["taskset", "-c", ",".join(map(str, cores)), *command(name, data)],
                env=environment,
                cwd=REPOSITORY if name in OURS else folder.name,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    reports = []
    for running in started:
        out, err = running.communicate()
        if running.returncode:
            raise SystemExit(f"{name}: {err.strip().splitlines()[-1]}")
        reports.append(json.loads(out.splitlines()[-1]))
    folder.cleanup()
    merged = {"version": reports[0]["version"]}
    speeds = [statistics.median(r["targets_per_second"]) for r in reports]
    merged["targets_per_second"] = sum(speeds)
    for key in ("eval_seconds", "peak_rss_mib", "first_step_seconds"):
        values = [r[key] for r in reports if key in r]
        flat = [statistics.median(v) if isinstance(v, list) else v for v in values]
        if flat:
            merged[key] = max(flat)
    return merged


def summarise(rounds: dict[str, dict[str, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """One line per implementation, with medians over rounds."""
    lines = []
    for name, modes in rounds.items():
        versions = dict.fromkeys(r["version"] for reports in modes.values() for r in reports)
        line: dict[str, Any] = {"implementation": name, "version": ", ".join(versions)}
        for mode, reports in modes.items():
            line[mode] = {
                key: statistics.median(r[key] for r in reports)
                for key in reports[0]
                if key != "version"
            }
        lines.append(line)
    return lines


def table(lines: list[dict[str, Any]], targets: int) -> list[list[str]]:
    by_name = {line["implementation"]: line["one core"] for line in lines}
    rows = [
        [
            "implementation",
            "model",
            "targets/s, one core",
            "s per epoch",
            "ours trains faster by",
            "ranking all users, s",
            "ours ranks faster by",
            "peak RSS, MiB",
            "targets/s, two threads",
            "targets/s, two runs",
        ]
    ]
    for line in lines:
        name, one = line["implementation"], line["one core"]
        same = "Simba study, pre-norm, Adam" if "64→64" in MODELS.get(name, "") else REFERENCE
        ours = by_name[same]
        rows.append(
            [
                f"{name} {line['version']}",
                MODELS.get(name, "FFN 64→256, BCE"),
                f"{one['targets_per_second']:,.0f}",
                f"{targets / one['targets_per_second']:.2f}",
                f"{ours['targets_per_second'] / one['targets_per_second']:.1f}×",
                f"{one['eval_seconds']:.2f}",
                f"{one['eval_seconds'] / ours['eval_seconds']:.1f}×",
                f"{one['peak_rss_mib']:,.0f}",
                *(
                    f"{line[mode]['targets_per_second']:,.0f}" if mode in line else "–"
                    for mode in ("two threads", "two runs")
                ),
            ]
        )
    return rows


def main() -> None:
    parser = parser_of("speed", __doc__)
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (default: 3)")
    options = parser.parse_args()
    prepared = prepare(compose("beauty", []))
    data, targets = prepared.path.resolve(), prepared.sequences.num_targets(maxlen=50)
    names = [*OURS, *peers.installed()]
    jobs = [(n, m) for _ in range(options.rounds) for m in MODES for n in names]
    jobs = [(n, m) for n, m in jobs if m != "two runs" or n in OURS]
    rounds: dict[str, dict[str, list[dict[str, Any]]]] = {n: {} for n in names}
    measure(names[0], data, 1, 1)  # fills the compiler cache
    for name, mode in (bar := tqdm(jobs, unit="run")):
        bar.set_postfix_str(f"{name}, {mode}")
        rounds[name].setdefault(mode, []).append(measure(name, data, *MODES[mode]))
    publish(rounds, targets, options.rounds)


def publish(rounds: dict[str, dict[str, list[dict[str, Any]]]], targets: int, count: int) -> None:
    lines = summarise(rounds)
    first = {
        line["implementation"].removeprefix("Simba study, "): line["one core"]["first_step_seconds"]
        for line in lines
        if "first_step_seconds" in line["one core"]
    }
    notes = [
        f"Beauty, batch 512, d = 64, 2 blocks, 1 head; medians of {count} rounds.",
        "Ours from the command to its first step done, data prepared: "
        + ", ".join(f"{seconds:.1f} s with {name}" for name, seconds in first.items())
        + " (torch's own optimizers import its compiler first).",
        "A factor compares with our Adam on one core with the same feed-forward layer.",
    ]
    if len(rounds) == len(OURS):
        notes.append("No peer is installed: python -m benchmarks.peers.")
    text = markdown(table(lines, targets))
    write("speed", {"machine": machine(), "lines": lines, "rounds": rounds}, text, notes)


if __name__ == "__main__":
    main()
