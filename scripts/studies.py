"""What runs belong together: a study is one (experiment, model, dataset)."""

import pandas as pd

STUDY = ["experiment", "model", "dataset"]
SETTING = ("ablation", "sasrec", "beauty")  # of the note, with these hyperparameters:
HYPERPARAMETERS = {"epochs": 500, "lr": 1e-4, "weight_decay": 0.5}
SEARCH = "search_"  # begins the experiments that change one thing of it


def of_study(frame: pd.DataFrame, keys: tuple[str, ...]) -> pd.DataFrame:
    return frame[(frame[STUDY] == list(keys)).all(axis=1)]


def is_notes(keys: tuple[str, ...], study: pd.DataFrame) -> bool:
    """Whether a study's runs were made in the note's setting."""
    same = (study[list(HYPERPARAMETERS)] == pd.Series(HYPERPARAMETERS)).all(axis=None)
    return keys == SETTING and bool(same)


def compared(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs of studies whose rows are compared with each other."""
    alone = (runs["experiment"] == "single") | runs["experiment"].str.startswith(SEARCH)
    return runs[~alone]
