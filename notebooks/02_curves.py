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
# # How the rows learn
# Everything here is drawn from `results/runs.csv`; nothing is trained. A line is the mean over
# seeds, the band around it goes from the lowest seed to the highest. A row has the same colour
# everywhere.

# %%
# %matplotlib inline
import os
import sys
from pathlib import Path

from IPython.display import display

root = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "pyproject.toml").exists())
sys.path.insert(0, str(root))
from scripts.aggregate import load
from scripts.make_figures import figures

results = Path(os.environ.get("SIMBA_RESULTS", root / "results"))
runs, _, looks = load(results)
drawn = figures(runs, looks)

# %% [markdown]
# ## Learning curves
# Left: the training loss, 1.386 is guessing. Right: how well the held-out item is ranked.

# %%
for name, figure in drawn.items():
    if name.startswith("curves-"):
        display(figure)

# %% [markdown]
# ## Learning rates
# A step moves a weight by the learning rate, however large or small its gradient. Who needs which?
# The note's setting, cut to 100 epochs, one seed: Lion and Simba + m learn most at three times the
# note's 1e-4 and Simba + (c = m) at 1e-4 itself, so a rate chosen for one of the three rows by
# sign(m) need not serve the next. Sign-SGD gains with every rate tried, up to the largest. The two
# rows that follow a count of signs stay below all others at their best rates; Simba + (1) gains
# with the rate, Simba hardly. That is after 100 epochs: after 500, a search in `01_tables` found,
# 3e-4 is no better than 1e-4 for the rows by sign(m).

# %%
for name, figure in drawn.items():
    if name.startswith("rates-"):
        display(figure)
