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
# # Why the variants fall where they do
# A step moves a weight by the learning rate, or not at all; all that an optimizer decides is the
# direction. So one can look over its shoulder. In some epochs of a diagnosed run, before each
# step, these shares were recorded (`scripts/running/diagnostics.py`):
#
# - how often a weight **moves as Lion would** have it, had Lion seen the same gradients; how
#   often it moves **against Lion**, and how often it **rests**;
# - how often it **moves by its memory**: it would move the same way with the opposite gradient;
# - how often it **moves without a gradient** at all;
# - how full the **counters** of signs are (|s| / w), in the variants that count.
#
# Most weights of this model are item embeddings, and in a step most items are not in the batch:
# they have no gradient. What an optimizer does with these is most of what it does.
#
# One run of each variant was looked at, with seed 0 in the note's setting. What follows is a
# reading of what was recorded. Whether it is the cause, only an intervention can show: see
# `causes` in `01_tables`.

# %%
from show import show_figures, show_tables

# %% [markdown]
# ## The looks
# The bars say most of it: how much goes **against Lion** (dark). The second figure sorts the
# items by how often they occur in training: in what share of an epoch's steps does an item move
# while it is not in the batch, and how far does an epoch take it from where it was? 100% is a
# weight that moved the same way in every step; weight decay pulls at it, too.

# %%
show_figures("why")
show_figures("drift")

# %% [markdown]
# ## At the last look

# %%
show_tables("choices")

# %% [markdown]
# ## In words
# **Going against Lion goes with learning little.** At the last look the variants that follow
# sign(m) move an item weight against Lion in 6 cases of 100, sign-SGD in 9, Simba + (1) in 39 and
# Simba in 45, where a coin would have 50. That is their order by NDCG@10 on test, too. It is not
# the whole story: at epoch 60 sign-SGD goes against Lion least of these three and has the higher
# loss than Simba + (1).
#
# **Sign-SGD stands still.** Without a gradient it does not move, and most item weights have none
# in most steps. So it goes Lion's way least of all and yet learns more than the variants that
# count: resting harms less than going astray. Where it does move, it turns so often that an epoch
# takes it nowhere near as far as the others.
#
# **Variants with a memory hardly rest, and are alike in that.** They move item weights without a
# gradient in more than half of all cases, by their memory far more often than not, and a rare
# item goes an equally long way in each of them; how much of it is undone by turns differs less
# between them than from sign-SGD. *When* a variant that follows sign(m) trusts its memory, by eq.
# 1, by eq. 5 or always, matters early and hardly at the end (`along` in `01_tables`): on item
# embeddings the counter of Simba + m is soon so full that eq. 5 nearly always says yes. For
# variants that follow sign(s) it matters at the end, too: Simba + (1), which listens to the
# gradient more often, learns more than Simba.
#
# **What this does not tell.** On all other weights the variants fall otherwise: there Simba + (1)
# and sign-SGD go Lion's way more often than the two variants that learn as well as Lion does.
# These are few weights of many, and one seed; and agreement with Lion explains a variant only as
# far as Lion is right.

# %% [markdown]
# ## What the memories hold
# Why does a count of signs go astray? In some runs (`short`: the first 60 epochs of the same
# runs) the memories themselves were looked at. At an epoch's end, take every weight of an item
# that had a gradient in this epoch: the sum of its gradients is where the epoch's data would have
# it go. How often does a memory point the other way?

# %%
show_figures("memories")
show_tables("memories")

# %% [markdown]
# **A count remembers little of what the gradients add up to.** Simba + m shows it best, for it
# keeps both memories, of the same gradients, on a path as good as Lion's: its m points against
# the epoch's sum in two cases of ten, its counter in nearly five, as a coin would. So it is with
# every counter and every m here. (m is itself a sum of gradients, so it is no wonder that it
# comes nearer; the wonder is how far off the count is.) Two things add up:
#
# - **The sum is outvoted.** A count gives each gradient one vote, whatever its size. The signs of
#   a single epoch, fresh and counted exactly, contradict its sum in two to three cases of ten.
# - **The counter lags.** It forgets nothing: as many opposite votes as went into it must come to
#   turn it. In two to three cases of ten it points against even the epoch's own count.
#
# So a counter that forgets could mend the second at most. The experiment `causes` does both: it
# lets the count forget, and it gives small gradients no vote.
