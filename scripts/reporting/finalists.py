"""Tables of the benchmarks, and the finalists compared with Lion, Simba and AdamW.

A finalist is a variant of an experiment that takes its baseline from the study in the note's
setting. ``results/benchmarks/*.json`` come from ``make bench`` and ``make bench-optim``.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from scripts.records.errors import UserError
from scripts.reporting.cells import MISSING, OPTIMIZER, Table, mean_and_std, seeds, with_interval
from scripts.reporting.note import METRICS
from scripts.reporting.statistics import differences
from scripts.reporting.studies import Study
from scripts.reporting.style import label_of
from scripts.reporting.tables import compares_with_note

SIZE = "10 M"  # of the benchmark: parameters in one tensor
TIMED_AS = {"simba": "ours: Simba int16, fused", "adamw": "torch AdamW fused"}
OTHERS = ("simba", "adamw")  # compared with the finalists
DIFFERENCE, TUNED = "NDCG@10 − Lion's", "validation NDCG@10, best rate"
BYTES, NANOSECONDS = "state, bytes per parameter", "step, ns per parameter"


class BestRate(NamedTuple):
    """The best NDCG@10 on validation of an optimizer over learning rates."""

    valid: float
    rates: int
    epochs: int
    seeds: int


def benchmark_lines(root: Path, name: str) -> list[dict[str, Any]]:
    """The lines of a benchmark; none where it was not run.

    Raises:
        UserError: its file is damaged.
    """
    return _benchmark(root, name, "lines", [])


def machine(root: Path, name: str) -> str:
    """What a benchmark ran on, such as ``processor X, cores 2``; nothing where it was not run."""
    about: dict[str, Any] = _benchmark(root, name, "machine", {})
    return ", ".join(f"{key} {value}" for key, value in about.items())


def _benchmark(root: Path, name: str, key: str, absent: Any) -> Any:
    path = root / "benchmarks" / f"{name}.json"
    if not path.is_file():
        return absent
    try:
        return json.loads(path.read_text())[key]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); run `make bench bench-optim`") from None


def state_bytes(studies: Sequence[Study], optimizer: str) -> float | None:
    """Bytes of optimizer state per parameter, in the first study of it; None without a run."""
    for study in studies:
        selected = study.runs.loc[study.runs["optimizer"] == optimizer, "state_bytes_per_param"]
        if len(selected):
            return float(selected.iloc[0])
    return None


def step_time(root: Path, optimizer: str) -> float | None:
    """Nanoseconds per parameter of a fused step of ``SIZE``; None if it was not measured."""
    name = TIMED_AS.get(optimizer, f"ours: {label_of(optimizer)}, fused")
    for line in benchmark_lines(root, "optim"):
        if line["optimizer"] == name and SIZE in line:
            return float(line[SIZE]["ns"])
    return None


def note_study_and_finalists(studies: Sequence[Study]) -> tuple[Study | None, list[Study]]:
    """The study in the note's setting, and those that take its baseline, on the same dataset."""
    base = next(filter(compares_with_note, studies), None)
    if base is None:
        return None, []
    return base, [
        s
        for s in studies
        if s.declared.baseline_from == base.experiment and s.dataset == base.dataset
    ]


def rate_grids(studies: Sequence[Study], base: Study) -> list[Study]:
    """The studies that tune rates alone, with the model and the dataset of ``base``.

    Other sweeps over rates may have other decays.
    """
    return [
        s
        for s in studies
        if (s.model, s.dataset) == (base.model, base.dataset)
        if s.declared.tuning and s.grid_key == "lr"
    ]


def finalists_table(studies: Sequence[Study], root: Path) -> Table | None:
    """The finalists, Lion, Simba and AdamW: bytes of state, results and speed."""
    base, finalists = note_study_and_finalists(studies)
    if base is None or not finalists:
        return None
    lion = base.of(base.declared.baseline)
    tuned = best_of_rates(studies, base)
    runs = pd.concat([base.runs, *(s.runs for s in finalists)])
    finalist = dict.fromkeys(o for s in finalists for o, _ in s.variants)
    trained = set(pd.concat([s.runs for s in studies])["optimizer"])
    rows = []
    for optimizer in [base.declared.baseline, *finalist, *OTHERS]:
        if optimizer not in trained:
            continue
        selected = runs[runs["optimizer"] == optimizer]
        time = step_time(root, optimizer)
        line = {OPTIMIZER: label_of(optimizer), BYTES: f"{state_bytes(studies, optimizer):g}"}
        line |= {metric: mean_and_std(selected[column]) for metric, column in METRICS.items()}
        line |= {
            "n": str(len(selected)),
            DIFFERENCE: MISSING,
            TUNED: MISSING,
            NANOSECONDS: MISSING,
        }
        d = differences(selected, lion, METRICS["NDCG@10"])
        if len(d) and optimizer != base.declared.baseline:
            line[DIFFERENCE] = with_interval(d)
        if optimizer in tuned:
            line[TUNED] = f"{tuned[optimizer].valid:.4f}"
        if time is not None:
            line[NANOSECONDS] = f"{time:.2f}"
        rows.append(line)
    epochs = int(base.runs["epochs"].max())
    caption = (
        f"Bytes of optimizer state. HR@10 and NDCG@10 on test and the lowest training loss "
        f"of {epochs} epochs, mean ± sample std over n seeds; differences over equal seeds, with "
        f"the 95% interval of Student's t. Then {_rates_in_words(rate_grids(studies, base))}the "
        f"time of a step of {SIZE} parameters, compiled into one pass (fused), on one thread."
    )
    return Table(pd.DataFrame(rows), caption)


def steps_timed(root: Path) -> Table | None:
    """A step of every optimizer that ``make bench-optim`` measures."""
    rows = [
        {
            "optimizer": line["optimizer"],
            BYTES: f"{line[SIZE]['state_bytes']:g}",
            NANOSECONDS: f"{line[SIZE]['ns']:.2f}",
            "times an in-place add": f"{line[SIZE]['times_add']:.2f}",
            "first step, warm, s": f"{line['first_step_warm']:.2f}",
        }
        for line in benchmark_lines(root, "optim")
        if SIZE in line
    ]
    caption = (
        f"One step of {SIZE} parameters in one tensor, float32, one thread of a processor. Fused: "
        "compiled into one pass. int8 and int16 are the dtypes of Simba's counter; our runs have "
        "int16. "
        "First step, warm: the time of the first step if the compiled code is already on disk. "
        "Medians of rounds; the ratio to an in-place add is taken within each round."
    )
    return Table(pd.DataFrame(rows), caption) if rows else None


def training_timed(root: Path) -> Table | None:
    """Training and ranking compared with other libraries."""
    rows = []
    for line in benchmark_lines(root, "speed"):
        one = line["one core"]
        rows.append(
            {
                "implementation": f"{line['implementation']} {line['version']}",
                "targets per second": f"{one['targets_per_second']:,.0f}",
                "ranking all users, s": f"{one['eval_seconds']:.2f}",
                "memory, MiB": f"{one['peak_rss_mib']:,.0f}",
            }
        )
    caption = (
        "Training and ranking of Amazon Beauty on one core of the machine, medians over rounds. A "
        "target is an item that the model learns to predict."
    )
    return Table(pd.DataFrame(rows), caption) if rows else None


def scale(root: Path) -> Table | None:
    """How training and ranking grow with the data."""
    rows = [
        {
            "data": line["size"],
            "batch": f"{line['batch']:,}",
            "users": f"{line['users']:,}",
            "items": f"{line['items']:,}",
            "epoch, s": f"{line['epoch_seconds']:,.1f}",
            "users ranked per second": f"{line['ranked_users_per_second']:,.0f}",
            "memory, MiB": f"{line['peak_rss_mib']:,.0f}",
        }
        for line in benchmark_lines(root, "scale")
    ]
    caption = (
        "One epoch and one ranking of all users on one core of the machine, as data and batches "
        "grow."
    )
    return Table(pd.DataFrame(rows), caption) if rows else None


# Name, the function, the command that makes the file that it reads, and this file.
BENCHMARKS = {
    "steps": (steps_timed, "make bench-optim", "optim"),
    "training": (training_timed, "make bench", "speed"),
    "scale": (scale, "make bench", "scale"),
}


def _rates_in_words(grids: Sequence[Study]) -> str:
    """How the best rate was found, in words; nothing without a grid."""
    if not grids:
        return ""
    runs = pd.concat([study.runs for study in grids])
    rates = runs.groupby("optimizer")["lr"].nunique()
    low, high = rates.min(), rates.max()
    n = f"{low}" if low == high else f"{low} to {high}"
    return (
        f"the best validation NDCG@10 of {n} rates, {runs['epochs'].max()} epochs, "
        f"{seeds(runs['seed'].nunique())}; "
    )


def best_of_rates(studies: Sequence[Study], base: Study) -> dict[str, BestRate]:
    """How good each optimizer in ``rate_grids`` is at its best learning rate."""
    best: dict[str, BestRate] = {}
    for study in rate_grids(studies, base):
        for optimizer, selected in study.runs.groupby("optimizer"):
            means = selected.groupby("lr")["valid/NDCG@10"].mean()
            run = len(means), int(selected["epochs"].max()), selected["seed"].nunique()
            best[str(optimizer)] = BestRate(float(means.max()), *run)
    return best
