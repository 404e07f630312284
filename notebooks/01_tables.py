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
# # The note's tables, and ours
# The note trains one recommender (SASRec, on Amazon Beauty) with six optimizers. All of them move
# every weight by the same small amount and differ only in the *direction* that they choose; here
# is how well each one learns. **HR@10**: how often the item that a user took next is among the ten
# best guesses, of 12,101. **NDCG@10**: the same, and more for a better place. **Loss**: how wrong
# it is on what it trains on; 1.386 is guessing.
#
# Everything here is made from `results/*.csv`; nothing is trained.

# %%
# %matplotlib inline
import os
import sys
from pathlib import Path

from IPython.display import Markdown, display

root = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "pyproject.toml").exists())
sys.path.insert(0, str(root))
from scripts import plots
from scripts.aggregate import load
from scripts.make_tables import markdown, page, tables
from scripts.note import SETTING
from scripts.tables import of_study

results = Path(os.environ.get("SIMBA_RESULTS", root / "results"))
runs, users, looks = load(results)
made = tables(runs, users, looks, partial=True)
print(f"{len(runs)} runs")

# %% [markdown]
# ## The six rows
# In the note's own setting its figures stand beside ours (mean ± sample std over n seeds) with a
# **verdict**, by a rule written down before the runs were in: *reproduced* if the note's figure
# lies within our mean ± 2 · std · √(1 + 1/n), as one more run of ours would; else *same order* if
# the row has the note's place among the six; else *not reproduced*. A row gets the worst verdict
# of its three figures. In other settings only the places can be compared.

# %%
display(Markdown(page(made, "rows")))

# %%
if len(note := of_study(runs, SETTING)):
    display(plots.beside_the_note(note))

# %% [markdown]
# ## Figure by figure
# The 95% interval is that of one more run's distance from our mean (Student's t).

# %%
display(Markdown(page(made, "note_1", "note_2", "note_3")))

# %% [markdown]
# ## Beside Lion
# Differences over equal seeds, with a 95% bootstrap interval from three seeds on; and, user by
# user, how many are served better or worse in test NDCG@10 than with Lion, with a paired t-test
# over users (Holm's correction for five rows). Five seeds alone could not get below p = 0.06 in a
# two-sided sign-flip test; thousands of users can tell, but only for these runs.

# %%
display(Markdown(page(made, "paired")))

# %% [markdown]
# ## Does the order hold elsewhere?

# %%
display(Markdown(markdown(made["order"])))

# %% [markdown]
# ## Is the pipeline right?
# Adam on the pre-norm SASRec, beside the figures that the note's author published for it.

# %%
display(Markdown(page(made, "published")))
