"""What runs belong together: a study is one (experiment, model, dataset)."""

import pandas as pd

from scripts.note import ROWS

STUDY = ["experiment", "model", "dataset"]
RUN = ["dataset", "model", "optimizer", "seed", "experiment"]  # what tells a run
CURVES = ("train/loss", "valid/NDCG@10")
SETTING = ("ablation", "sasrec", "beauty")  # of the note, with these hyperparameters:
HYPERPARAMETERS = {"epochs": 500, "lr": 1e-4, "weight_decay": 0.5}
SEARCH = "search_"  # begins the experiments that depart from it


def swept(study: pd.DataFrame) -> list[str]:
    """The hyperparameters that a study sweeps over beside optimizers and seeds."""
    values = study.groupby(["optimizer", "seed"])[["lr", "weight_decay"]].nunique()
    return [key for key in ("lr", "weight_decay") if (values[key] > 1).any()]


def expected(study: pd.DataFrame) -> list[str]:
    """The optimizers that a study is to have: the note's six if it has no other, else its own."""
    found = set(study["optimizer"])
    return list(ROWS) if found <= ROWS.keys() else sorted(found)


def of_study(frame: pd.DataFrame, keys: tuple[str, ...]) -> pd.DataFrame:
    return frame[(frame[STUDY] == list(keys)).all(axis=1)]


def is_notes(keys: tuple[str, ...], study: pd.DataFrame) -> bool:
    """Whether a study's runs were made in the note's setting."""
    same = (study[list(HYPERPARAMETERS)] == pd.Series(HYPERPARAMETERS)).all(axis=None)
    return keys == SETTING and bool(same)


def fewest_seeds(study: pd.DataFrame) -> int:
    """Of its rows."""
    return int(study.groupby("optimizer")["seed"].nunique().min())


def compared(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs of studies whose rows are compared with each other."""
    return runs[(runs["experiment"] != "single") & ~_is_search(runs)]


def searched(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs of the experiments that depart from the note's setting."""
    return runs[_is_search(runs)]


def curves(runs: pd.DataFrame) -> pd.DataFrame:
    """One line for each run and evaluated epoch: what was run, ``epoch`` and its curves."""
    frames = []
    for _, run in runs.iterrows():
        columns: dict[str, list] = {"epoch": [int(e) for e in str(run["curve/epoch"]).split()]}
        for name in CURVES:
            columns[name] = [float(v) for v in str(run[f"curve/{name}"]).split()]
        frames.append(pd.DataFrame(columns).assign(**{key: run[key] for key in RUN}))
    return pd.concat(frames, ignore_index=True)


def _is_search(runs: pd.DataFrame) -> pd.Series:
    return runs["experiment"].str.startswith(SEARCH)
