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
# The note trains one recommender with six optimizers. In a step each of them moves a weight by
# the same small amount, or not at all. They differ only in the *direction* that they choose. Here
# is how well each one learns.
#
# - **HR@10**: how often the item that a user took next is among the ten best guesses, of 12,101
#   items.
# - **NDCG@10**: the same, and a better place counts for more.
# - **Loss**: how wrong the model is on what it trains on; 1.386 is guessing. It is the lowest of
#   all epochs, as in the note.
#
# HR@10 and NDCG@10 are on test, with the weights of the epoch that was best on valid. The note
# names no dataset, model or hyperparameter. Our reading is the setting of its author's public
# benchmark of Lion: SASRec on Amazon Beauty. For the five optimizers other than Lion the weight
# decay is a guess.
#
# Everything here is made from `results/*.csv`; nothing is trained.

# %%
from show import RESULTS, show_figures, show_tables

print(f"{len(RESULTS.runs)} runs")

# %% [markdown]
# ## The six variants
# In our reading of the note's setting its figures stand beside ours (mean ± sample std over n
# seeds), with a **verdict**. A figure is *reproduced* if the note's lies within our mean ± 2 ·
# std · √(1 + 1/n). Else it is of the *same order* if the variant has the note's place among the
# six, else *not reproduced*. A variant gets the worst verdict of its three figures. In other
# settings only the places can be compared.

# %%
show_tables("rows")

# %%
show_figures("note")

# %% [markdown]
# ## What a verdict can tell
# How often would one more run of ours pass the rule? For one figure, for one that is off by three
# stds, and for all three figures of a variant:

# %%
from scripts.reporting.note import pass_probability, replicates
from scripts.reporting.studies import of_study

ablation = of_study(RESULTS.runs, ("ablation", "sasrec", "beauty"))
print(f"one figure: {pass_probability(5):.2f}; off by three stds: {pass_probability(5, 3):.2f}")
print(f"all three figures of a variant: {replicates(ablation):.2f}")

# %% [markdown]
# ## Figure by figure
# The interval is that of one more run of ours (Student's t). It holds 0 in 95 cases of 100 if the
# note's figure came from such a run.

# %%
show_tables("note_1", "note_2", "note_3")

# %% [markdown]
# ## Beside Lion
# Differences over equal seeds, with the interval of Student's t. *Alike within* says how
# different from Lion's the NDCG@10 may still be. Then, user by user: how many have a better or a
# worse NDCG@10 on test than with Lion, and two tests over users. They speak of these runs' users,
# not of seeds.

# %%
show_tables("paired")

# %% [markdown]
# ## Along the curve
# The same differences at earlier epochs, in % of Lion's: a variant may be ahead early and alike
# at the end.

# %%
show_tables("along")

# %% [markdown]
# ## Does the order hold elsewhere?
# Kendall's tau is 1 for the note's order and -1 for its reverse. With six variants a tau below
# 0.87 cannot be told from chance (p > 0.05). Toys is run in the note's setting, ml-100k
# (`reproduce`) in a short one of its own: 50 epochs in batches of 32, at a rate that was chosen
# for Lion.

# %%
show_tables("order")

# %% [markdown]
# ## Which setting comes nearest to the note?
# What else could the note have done? One run of seed 0 was spent on each candidate and on each
# variant that it changes; the window of 100 got a second seed. Candidates were chosen by training
# loss and valid alone. A variant that a setting does not change (–) counts as in the ablation.

# %%
show_tables("search")

# %% [markdown]
# ## Is the pipeline right?
# Adam on the pre-norm SASRec, beside five seeds that the note's author published, one by one.
# Sports got three seeds more after two had lain just outside in HR@10 and NDCG@10. `validate` on
# Toys has the dropout that the author's file has now, `validate_toys` the one that it had until
# five hours before the runs.

# %%
show_tables("published")
