"""Synthetic results: the CSV files of runs whose figures a test chooses."""

import pandas as pd

from scripts.records.users import Users
from scripts.reporting.collect import Results
from scripts.reporting.note import METRICS, NOTE_VALUES
from scripts.reporting.statistics import user_groups, user_tests
from scripts.reporting.studies import RUN, Study, studies

EXACT = {
    optimizer: [tuple(row)] for optimizer, row in NOTE_VALUES.items()
}  # the note's own figures
DIAGNOSTICS = [*RUN, "epoch", "quantity", "part", "value"]


def runs(values, experiment="ablation", dataset="beauty", model="sasrec", **more):
    """Runs with ``values[optimizer] = [(HR, NDCG, loss) of seed 0, of seed 1, ...]``."""
    setting = {"epochs": 500, "lr": 1e-4, "weight_decay": 0.5, "swept": "", "overrides": ""}
    setting |= {"setting_hash": "same"}
    lines = []
    for optimizer, seeds in values.items():
        for seed, figures in enumerate(seeds):
            line = {"dataset": dataset, "model": model, "experiment": experiment}
            line |= {"optimizer": optimizer, "seed": seed, **setting}
            line |= {
                "state_bytes_per_param": 4.0,
                "valid/NDCG@10": 0.03,
                "best_epoch": 5 * (seed + 1),
            }
            line |= dict(zip(METRICS.values(), figures, strict=True))
            line["train/loss"] = figures[2]
            line |= more
            line.setdefault("record", "-".join(map(str, line.values())))
            lines.append(line)
    return pd.DataFrame(lines)


def curves(frame, epochs=(200, 500), loss=lambda run, epoch: 0.5, valid=lambda run, epoch: 0.03):
    """Lines of curves.csv for each run."""
    return pd.DataFrame(
        [
            {"record": run["record"], "epoch": epoch}
            | {"train/loss": loss(run, epoch), "valid/NDCG@10": valid(run, epoch)}
            for _, run in frame.iterrows()
            for epoch in epochs
        ]
    )


def gains(optimizer, differences, experiment="ablation"):
    """Lines of gains.csv: a variant's difference in each group of users, the interval ± 0.1."""
    groups = [(0, 0), *((1 + 10 * i, 9 + 10 * i) for i in range(len(differences) - 1))]
    lines = [
        {"experiment": experiment, "model": "sasrec", "dataset": "beauty", "optimizer": optimizer}
        | {"swept": "", "seeds": 2, "by": by, "least": least, "most": most, "users": 100}
        | {"better": 1, "worse": 2, "baseline": 0.4}
        | {"difference": d, "low": d - 0.1, "high": d + 0.1}
        for by in Users._fields
        for (least, most), d in zip(groups, differences, strict=True)
    ]
    return pd.DataFrame(lines)


def results(*frames, lines=None, diagnostics=None, gains=None) -> Results:
    """The ``Results`` that contain these runs."""
    whole = pd.concat(frames, ignore_index=True)
    diagnostics = pd.DataFrame(columns=DIAGNOSTICS) if diagnostics is None else diagnostics
    lines = curves(whole) if lines is None else lines
    gains = user_groups([], {}) if gains is None else gains
    return Results(whole, lines, user_tests([]), gains, diagnostics)


def study(*frames, **more) -> Study:
    """The study of these runs, which must belong to one study."""
    (only,) = studies(results(*frames, **more))
    return only
