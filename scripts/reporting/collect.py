"""Write the CSV files from the records, and read them as DataFrames.

``runs.csv`` has one line per run, ``curves.csv`` one per evaluated epoch of a run, ``paired.csv``
one per variant that is compared with its baseline user by user, ``gains.csv`` one per group of
users of such a comparison, and ``diagnostics.csv`` one per quantity, part and epoch of a run
with diagnostics. docs/results.md explains their columns.
"""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from scripts.records.errors import UserError
from scripts.records.files import write_atomically
from scripts.records.record import decode_ranks, digest, read_record
from scripts.records.users import Users, read_users, users_path
from scripts.reporting.statistics import Group, paired_users, user_groups, user_tests
from scripts.reporting.studies import RUN, STUDY, VARIANT, differing, key_columns, short_names
from scripts.reporting.style import short

# Keys whose column has another name. The column epochs has the trained epochs.
COLUMNS = {"optimizer.lr": "lr", "optimizer.weight_decay": "weight_decay", "epochs": "max_epochs"}
SHA256_DIGITS = 8  # of data.sha256, for a label
# Overrides that other columns of runs.csv show, or that change no result.
ELSEWHERE = {
    *("seed", "experiment", "results.name", "results.root", "data.root", "force", "save_best"),
    *("joint", "device"),
}
COST_COLUMNS = {  # columns of a run, with their number of decimals
    "targets_per_second": 0,
    "eval_seconds": 3,
    "peak_rss_mib": 1,
    "state_bytes_per_param": 3,
}


class Results(NamedTuple):
    """The CSV files of a results folder."""

    runs: pd.DataFrame
    curves: pd.DataFrame
    paired: pd.DataFrame
    gains: pd.DataFrame
    diagnostics: pd.DataFrame


def collect(root: Path) -> Results:
    """Read the finished records below ``root/runs`` and write the CSV files.

    Raises:
        UserError: there is no finished record, a file is not a record, or a CSV file cannot be
            written.
    """
    records: dict[Path, dict[str, Any]] = {}
    first: dict[tuple, Path] = {}
    for path in sorted((root / "runs").glob("*/*/*.json")):
        record = read_record(path)
        if record["status"] != "finished":
            print(f"{path}: a failed run, left out", file=sys.stderr)
            continue
        run_of = (*(record[key] for key in RUN), record["config_hash"])
        if first.setdefault(run_of, path) != path:
            print(f"{path}: the same run as {first[run_of].name}, left out", file=sys.stderr)
            continue
        records[path.relative_to(root)] = record
    if not records:
        raise UserError(f"{root / 'runs'}: no finished record; train first")
    order = [*STUDY, "optimizer", "swept", "seed", "record"]
    runs = pd.DataFrame([runs_row(record, path) for path, record in records.items()])
    runs = with_swept(runs, [flattened(record["config"]) for record in records.values()])
    runs = runs.sort_values(order, ignore_index=True)
    ordered = {path: records[Path(path)] for path in runs["record"]}
    curves = [row for path, record in ordered.items() for row in curves_rows(record, path)]
    diagnosed = [row for record in ordered.values() for row in diagnostics_rows(record)]
    pairs = paired_users(runs, ordered)
    results = Results(
        runs,
        pd.DataFrame(curves),
        user_tests(pairs),
        user_groups(pairs, users_of(root, ordered)),
        pd.DataFrame(diagnosed, columns=[*RUN, "epoch", "quantity", "part", "value"]),
    )
    for name, frame in results._asdict().items():
        write_atomically(root / f"{name}.csv", frame.to_csv(index=False).encode())
    return results


def users_of(root: Path, records: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, ...], Users]:
    """The users of each study whose file of users exists."""
    sources = {
        tuple(record[key] for key in STUDY): (
            users_path(root, record["dataset"], record["config"]["data"]),
            len(decode_ranks(record["test_ranks"])),
        )
        for record in records.values()
    }
    read = {source: read_users(*source) for source in set(sources.values())}
    return {study: users for study, source in sources.items() if (users := read[source])}


def load(root: Path) -> Results:
    """Read the CSV files of a results folder.

    Raises:
        UserError: one of them is missing or damaged.
    """
    frames = []
    for name in Results._fields:
        path = root / f"{name}.csv"
        if not path.is_file():
            raise UserError(f"{path} does not exist; run `python -m scripts.aggregate` first")
        try:
            # A dataset may be called NA, so pandas must not read text as a missing value.
            text = dict.fromkeys([*RUN, *TEXTS], str)
            frame = pd.read_csv(path, dtype=text | {"seed": int}, keep_default_na=False)
            lacking = REQUIRED[name] - set(frame.columns)
            if lacking:
                raise ValueError(f"no column {', '.join(sorted(lacking))}")
            for column in NUMBERS & set(frame.columns):
                frame[column] = pd.to_numeric(frame[column])
            for column in key_columns(frame) if name == "runs" else ():
                numbers = pd.to_numeric(frame[column], errors="coerce")
                if numbers[frame[column] != ""].notna().all():
                    frame[column] = numbers
            if (
                name == "gains"
                and (
                    (frame["low"] > frame["difference"]) | (frame["difference"] > frame["high"])
                ).any()
            ):
                raise ValueError("a difference is not within its interval")
            known = {"items", "weights", *map(str, range(1, 6))}
            if name == "diagnostics" and not known.issuperset(frame["part"].astype(str)):
                raise ValueError("column part has another value than items, weights or 1 to 5")
        except (ValueError, OSError, pd.errors.ParserError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path}: damaged ({reason}); run `python -m scripts.aggregate`"
            ) from None
        frames.append(frame)
    return Results(*frames)


TEXTS = ("swept", "record", "commit", "setting_hash", "overrides")
NUMBERS = {
    *("epochs", "lr", "weight_decay", "best_epoch", "test/HR@10", "test/NDCG@10", "valid/NDCG@10"),
    *("train/loss", "train/min_loss", "epoch", "value", "seeds", "users", "better", "worse"),
    *("p_t", "p_wilcoxon", *Group._fields, *COST_COLUMNS),
}
REQUIRED = {
    "runs": {
        *(*RUN, "swept", "lr", "test/HR@10", "test/NDCG@10", "train/loss", "train/min_loss"),
        *("record", "commit", "setting_hash", "overrides", "epochs", "weight_decay", "best_epoch"),
        *("valid/NDCG@10", "state_bytes_per_param"),
    },
    "curves": {"record", "epoch", "train/loss", "valid/NDCG@10"},
    "paired": {*STUDY, "optimizer", "swept", "seeds", "users", "better", "worse", "p_t"},
    "gains": {*STUDY, *VARIANT, "seeds", "by", *Group._fields},
    "diagnostics": {*RUN, "epoch", "quantity", "part", "value"},
}


def runs_row(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """The row of runs.csv for a record."""
    config, history = record["config"], record["history"]
    losses = [entry["train/loss"] for entry in history]
    setting = {key: value for key, value in config.items() if key != "seed"}
    return (
        {key: record[key] for key in RUN}
        | {
            "epochs": len(history),
            "lr": config["optimizer"].get("lr"),
            "weight_decay": config["optimizer"].get("weight_decay"),
            "best_epoch": record["best_epoch"],
            "test/HR@10": record["test"]["HR@10"],
            "test/NDCG@10": record["test"]["NDCG@10"],
            "valid/NDCG@10": record["valid"]["NDCG@10"],
            "train/loss": losses[-1],
            "train/min_loss": min(losses),
        }
        | {key: round(record[key], digits) for key, digits in COST_COLUMNS.items()}
        | {
            "record": path.as_posix(),
            "commit": record.get("commit"),
            "setting_hash": digest(setting),
            "overrides": overrides(record["command"]),
        }
    )


def overrides(command: str) -> str:
    """The overrides in a record's command that train the same run with any seed and folder."""
    words = shlex.split(command)
    given = words[words.index("scripts.train") + 1 :]
    return shlex.join(word for word in given if word.partition("=")[0] not in ELSEWHERE)


def with_swept(runs: pd.DataFrame, configs: list[dict[str, Any]]) -> pd.DataFrame:
    """Add to runs a column for every key that a study sweeps over, and the column ``swept``.

    ``swept`` has the short names of these keys and their values as text, such as ``lr 3e-4``. A
    study sweeps over the keys that ``differing`` returns. The seed does not count.

    Args:
        configs: the flattened config of each run, in the order of ``runs``.
    """
    config_frame = pd.DataFrame(configs, index=runs.index, dtype=object)
    config_frame = config_frame[sorted(map(str, config_frame))].rename(columns=COLUMNS)
    if "data.sha256" in config_frame:
        config_frame["data.sha256"] = config_frame["data.sha256"].str[:SHA256_DIGITS]
    swept: dict[Any, str] = {}
    columns: dict[str, dict[Any, Any]] = {}
    for _, study in runs.groupby(STUDY):
        configured = config_frame.loc[study.index]
        names = short_names(differing(configured, study["optimizer"]))
        configured = configured[list(names)]
        for i, values in configured.iterrows():
            known = {str(key): value for key, value in values.items() if not is_missing(value)}
            swept[i] = ", ".join(f"{names[key]} {short(value)}" for key, value in known.items())
            for key, value in known.items():
                columns.setdefault(key, {})[i] = value
    runs = runs.assign(swept=pd.Series(swept))
    for key in sorted(columns.keys() - {"lr", "weight_decay"}):
        runs[key] = pd.Series(columns[key], dtype=object)
    return runs


def is_missing(value: Any) -> bool:
    """Whether a value is None or NaN."""
    return value is None or (isinstance(value, float) and value != value)


def flattened(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config as one flat mapping, such as ``optimizer.lr: 0.0001``, without the seed."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{key}.")
        elif prefix or key != "seed":
            flat[f"{prefix}{key}"] = value
    return flat


def curves_rows(record: dict[str, Any], path: str) -> list[dict[str, Any]]:
    """The rows of curves.csv for a record, one per evaluated epoch."""
    return [
        {
            "record": path,
            "epoch": entry["epoch"],
            "train/loss": round(entry["train/loss"], 7),
            "valid/NDCG@10": round(entry["valid/NDCG@10"], 7),
        }
        for entry in record["history"]
        if "valid/NDCG@10" in entry
    ]


def diagnostics_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of diagnostics.csv for a record; scripts/running/diagnostics.py defines them."""
    start = {key: record[key] for key in RUN}
    return [
        start
        | {"epoch": entry["epoch"], "quantity": quantity, "part": part, "value": round(value, 5)}
        for entry in record["history"]
        for key, value in entry.items()
        if key.startswith("why/") and value is not None
        for _, quantity, part in [key.split("/")]
    ]
