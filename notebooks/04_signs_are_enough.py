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
# # Are signs enough?
# The note ends with a shrug: Simba, which counts signs, does not learn. What does the count lack?
# One can go from Simba to Lion by one change at a time, and see which change closes the gap. Here
# is each of these steps, and then how near the best of them come to Lion after 500 epochs.
#
# - A **vote** is what an optimizer sees of a gradient: its sign, or one of -1, 0 and 1 (a
#   **ternary** vote), or the gradient itself.
# - A count **leaks** if an old vote counts less than a new one.
# - **Error feedback** adds what a vote left out of a gradient to the next gradient.

# %%
from show import show_figures, show_tables

# %% [markdown]
# ## From Simba to Lion, one change at a time
# Beauty, 100 of the note's 500 epochs. Half of the gap closes when the count forgets, and about a
# third when small gradients have no vote. Coordinates without a gradient, which only a variant
# with a memory moves, play next to no part.

# %%
show_figures("steps")

# %%
show_tables("steps")

# %% [markdown]
# A sign gives every gradient the same weight. But the gradients of one weight differ in size by
# orders of magnitude: an item is pushed away a little whenever it is drawn as a negative, and
# pulled hard when it is the answer. So many small gradients outvote few large ones. A vote of 0
# for the small ones mends most of this, and error feedback the rest.

# %% [markdown]
# ## How near to Lion?
# 500 epochs in the note's setting: ternary votes in two bytes and in one, and Lion with its
# memory in one byte, beside Lion with its memory in four (from the ablation).

# %%
show_tables("finalists-sasrec-beauty/rows", "finalists-sasrec-beauty/paired")

# %%
show_tables("finalists-sasrec-beauty/along")
