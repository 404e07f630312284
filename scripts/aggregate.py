"""Gather all records into CSV: ``python -m scripts.aggregate``.

runs.csv has one line a record, paired.csv every row of a study beside Lion user by user,
diagnosis.csv the looks that diagnosed runs took at their optimizer.
"""

import sys
from pathlib import Path
from typing import Any

import pandas as pd

from scripts import run_record
from scripts.command_line import parser, results_root
from scripts.errors import ConfigError
from scripts.paired import user_tests
from scripts.studies import CURVES, RUN

# Whatever may differ between the runs of one row: the rest is the row's setting.
NOT_A_SETTING = ("seed",)


def aggregate(root: Path) -> pd.DataFrame:
    """Write the CSV files from the finished records below ``root/runs``; returns runs.csv.

    Raises:
        ConfigError: there is no finished record, or a file is not a record.
    """
    rows, looks, failed = [], [], []
    for path in sorted((root / "runs").glob("*/*/*.json")):
        record = run_record.read(path)
        if record["status"] == "finished":
            rows.append(row(record, path.relative_to(root)))
            looks += diagnosis(record)
        else:
            failed.append(path)
    for path in failed:
        print(f"{path}: a failed run, left out", file=sys.stderr)
    if not rows:
        raise ConfigError(f"{root / 'runs'}: no finished record; train first")
    keys = ["dataset", "model", "experiment", "optimizer", "seed", "record"]
    runs = pd.DataFrame(rows).sort_values(keys, ignore_index=True)
    files = {"runs": runs, "paired": user_tests(root, runs)}
    files["diagnosis"] = pd.DataFrame(looks, columns=[*RUN, "epoch", "quantity", "of", "value"])
    for name, frame in files.items():
        run_record.atomically(root / f"{name}.csv", frame.to_csv(index=False).encode())
    return runs


def load(root: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """runs.csv, paired.csv and diagnosis.csv of a results folder.

    Raises:
        ConfigError: one of them is missing.
    """
    paths = [root / f"{name}.csv" for name in ("runs", "paired", "diagnosis")]
    for path in paths:
        if not path.is_file():
            raise ConfigError(f"{path}: not there; run `python -m scripts.aggregate` first")
    text = dict.fromkeys(("dataset", "model", "optimizer", "experiment", "setting"), str)
    runs, users, looks = (  # "NA" and "007" are names of data sets
        pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""]) for path in paths
    )
    return runs, users, looks


def row(record: dict[str, Any], path: Path) -> dict[str, Any]:
    config = record["config"]
    history = record["history"]
    evaluated = [entry for entry in history if "valid/NDCG@10" in entry]
    setting = {key: value for key, value in config.items() if key not in NOT_A_SETTING}
    start = {key: record[key] for key in RUN}
    return (
        start
        | {
            "epochs": len(history),
            "lr": config["optimizer"]["lr"],
            "weight_decay": config["optimizer"]["weight_decay"],
            "best_epoch": record["best_epoch"],
            "test/HR@10": record["test"]["HR@10"],
            "test/NDCG@10": record["test"]["NDCG@10"],
            "valid/NDCG@10": record["valid"]["NDCG@10"],
            "train/loss": history[-1]["train/loss"],
        }
        | {
            key: round(record[key], digits)
            for key, digits in (
                ("targets_per_second", 0),
                ("eval_seconds", 3),
                ("peak_rss_mib", 1),
                ("state_bytes_per_param", 3),
            )
        }
        | {"record": path.as_posix(), "setting": run_record.digest(setting)}
        # at the evaluated epochs, separated by blanks
        | {"curve/epoch": " ".join(str(entry["epoch"]) for entry in evaluated)}
        | {f"curve/{k}": " ".join(f"{entry[k]:.7f}" for entry in evaluated) for k in CURVES}
    )


def diagnosis(record: dict[str, Any]) -> list[dict[str, Any]]:
    """One line a look and quantity; see scripts/diagnosis.py."""
    start = {key: record[key] for key in RUN}
    return [
        start | {"epoch": e["epoch"], "quantity": quantity, "of": of, "value": round(value, 5)}
        for e in record["history"]
        for why, quantity, of in (key.split("/") for key in e if key.startswith("why/"))
        for value in [e[f"{why}/{quantity}/{of}"]]
    ]


def main(argv: list[str] | None = None) -> int:
    args = parser("scripts.aggregate", __doc__).parse_args(argv)
    try:
        root = results_root(args.overrides)
        runs = aggregate(root)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{root / 'runs.csv'}: {len(runs)} runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
