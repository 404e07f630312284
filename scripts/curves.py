"""Learning curves out of runs.csv."""

import pandas as pd

CURVES = ("train/loss", "valid/NDCG@10")
# One colour a row everywhere: Okabe and Ito's palette, safe for the colour-blind.
COLOURS = {
    "lion": "#000000",
    "sign_sgd": "#E69F00",
    "simba": "#56B4E9",
    "simba_m": "#009E73",
    "simba_eq1": "#D55E00",
    "simba_c_eq_m": "#CC79A7",
}


def curves(runs: pd.DataFrame) -> pd.DataFrame:
    """One line for each run and evaluated epoch: what was run, ``epoch`` and its curves."""
    frames = []
    for _, run in runs.iterrows():
        columns: dict[str, list] = {"epoch": [int(e) for e in str(run["curve/epoch"]).split()]}
        for name in CURVES:
            columns[name] = [float(v) for v in str(run[f"curve/{name}"]).split()]
        keys = run[["dataset", "model", "experiment", "optimizer", "seed"]].to_dict()
        frames.append(pd.DataFrame(columns).assign(**{str(k): v for k, v in keys.items()}))
    return pd.concat(frames, ignore_index=True)
