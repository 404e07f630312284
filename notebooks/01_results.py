# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The study so far
# Tables and learning curves, from `results/runs.csv` alone. Nothing is trained here.

# %%
import os
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown, display

root = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "pyproject.toml").exists())
sys.path.insert(0, str(root))
from scripts.curves import COLOURS, CURVES, curves
from scripts.make_tables import STUDY, markdown, table
from scripts.note import ROWS

runs = pd.read_csv(Path(os.environ.get("SIMBA_RESULTS", root / "results")) / "runs.csv")
studies = dict(list(runs[runs["experiment"] != "single"].groupby(STUDY)))
print(f"{len(runs)} runs in {len(studies)} studies")

# %% [markdown]
# ## Tables
# The note's figures are on Beauty, after 500 epochs. Ours are mean ± sample std over n seeds.

# %%
for name, study in studies.items():
    display(Markdown(f"### {', '.join(name)}\n\n{markdown(table(study, list(ROWS)))}"))

# %% [markdown]
# ## Learning curves
# A line is a seed. Left: the training loss (lower is better; 1.386 is chance). Right: NDCG@10 of
# the held-out item on valid (higher is better).

# %%
for name, study in studies.items():
    points = curves(study)
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    figure.suptitle(", ".join(name))
    for axis, curve in zip(axes, CURVES, strict=True):
        for optimizer, published in ROWS.items():
            lines = points[points["optimizer"] == optimizer].groupby("seed")
            for i, (_, line) in enumerate(lines):
                label = published.label if i == 0 else None
                colour = COLOURS[optimizer]
                axis.plot(line["epoch"], line[curve], color=colour, label=label, alpha=0.8)
        axis.set(xlabel="epoch", ylabel=curve)
        axis.grid(alpha=0.3)
    axes[1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    plt.show()
