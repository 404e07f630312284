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
# # Why the variants differ
# A step moves a coordinate by the learning rate, or not at all. An optimizer decides only the
# direction, so these decisions can be counted. Some epochs of a run were diagnosed: before each
# step, the run recorded these statistics (`scripts/running/diagnostics.py`):
#
# - how often a coordinate moves, or rests, **as Lion would** with the same gradients, how often it
#   moves **against Lion**, and how often it **rests**, that is, does not move;
# - how often it **moves by its memory**: it would move the same way with the opposite gradient;
# - how often it **moves without a gradient**, that is, although its gradient is zero;
# - the mean |s| / w of the **counters** of signs, in the variants with a counter.
#
# Most parameters of this model are item embeddings. In a step, most items are not in the batch, so
# their gradient is zero. An optimizer's moves are therefore mostly moves of such items.
#
# One run of each variant was diagnosed, with seed 0 in the note's setting. The following is an
# interpretation of these records. Only an experiment can show a cause: see `causes` in
# `04_signs_are_enough`.

# %% [markdown]
# ## The main result
# A bar shows how a variant's steps divide: as Lion would, no move, **against Lion** (dark).

# %%
from show import show_figures, show_tables

show_figures("moves")

# %% [markdown]
# ## Over the epochs

# %%
show_figures("moves_by_epoch")

# %% [markdown]
# ## By the popularity of items
# The items are sorted by how often they occur in training. The figure shows the share of an epoch's
# steps in which an item moves while it is not in the batch, and the net distance that an item moves
# in an epoch. 100% is the distance of a coordinate that moves the same way in every step, without
# weight decay.

# %%
show_figures("distances")

# %% [markdown]
# ## In the last diagnosed epoch

# %%
show_tables("moves")

# %% [markdown]
# ## Interpretation
# **At the end, the more often a variant moves against Lion, the less it has learned.** In the last
# diagnosed epoch, Simba + m and Simba + (c = m) move a coordinate of an item against Lion in 6% of
# all steps, sign-SGD in 9%, Simba + (1) in 39% and Simba in 45%; random directions would give 50%.
# This is also their order by NDCG@10 on test. It does not explain everything: at epoch 60, of
# sign-SGD, Simba + (1) and Simba, sign-SGD moves against Lion least, but its loss is higher than
# that of Simba + (1). Until about epoch 150 it moves against Lion less than Simba + m and Simba +
# (c = m), too, and learns far less.
#
# **Sign-SGD often does not move.** It does not move a coordinate without a gradient, and most
# coordinates of items have no gradient in most steps. It therefore agrees with Lion least of all,
# and yet it learns more than Simba and Simba + (1): not moving seems to harm less than a wrong
# direction. The coordinates that it moves change their direction so often that they move a much
# smaller distance per epoch than with the other variants.
#
# **Variants with a memory nearly always move.** They move coordinates without a gradient in more
# than half of all steps, mostly by their memory. With all of them, a rare item moves in about the
# same share of steps. Their net distances are
# similar; that of sign-SGD is far smaller.
# For variants that move by sign(m), the choice between memory and gradient (by eq. 1, by eq. 5, or
# always the memory) matters early, and hardly at the end (`by_epoch` in `01_tables`). On item
# embeddings, the counter of Simba + m soon nearly always exceeds the threshold of eq. 5. For
# variants by sign(s), the choice matters at the end, too: Simba + (1) uses the gradient more often
# than Simba, and learns more.
#
# **Limits.** On all other parameters the order is different: Simba + (1) and sign-SGD agree with
# Lion more often than the two variants that learn as well as Lion. These are few of the model's
# parameters, and there is only one seed. Agreement with Lion explains a variant's result only if
# Lion's directions are good.

# %% [markdown]
# ## The content of the memories
# Why does a counter of signs move coordinates in a wrong direction? Some runs (`short`: 60 epochs
# with the same setting and seed) also recorded statistics of the memories. At an epoch's end, they
# compare each memory with the sum of the epoch's gradients, for all coordinates of items that had a
# gradient in the epoch. How often do the two have opposite signs?

# %%
show_figures("memories")
show_tables("memories")

# %% [markdown]
# **A counter that does not decay says little about the sum of the gradients.** Simba + m shows this
# best: it learns as well as Lion and stores both memories of the same gradients. Its m contradicts
# the epoch's sum in two of ten cases, its counter in nearly five, as random signs would. The
# counters of Simba and Simba + (1) contradict the sum about as often as its counter, and their m as
# often as its m. (m is itself a weighted sum of gradients, so it must be closer to the sum. But the
# counter is surprisingly far from it.) Two reasons for these contradictions were measured:
#
# - **The sum is outvoted.** A counter gives every gradient the same weight, whatever its size. The
#   sum of the signs of a single epoch contradicts the sum of its gradients in two to three of ten
#   cases.
# - **The counter lags.** It does not decay: to change its sign, it needs as many opposite signs as
#   it has counted. In two to three of ten cases it contradicts even the sum of the epoch's signs.
#
# A counter that decays can therefore correct only the lag. The counters of 8-bit Lion and Ternary
# Lion EF also give large gradients more weight. They contradict the sum in about two of ten cases,
# as m does. The experiment `causes` lets the counter decay, and gives small gradients the vote 0.
