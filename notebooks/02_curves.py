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
# # How the variants learn
# A line is the mean over seeds; the band around it goes from the lowest seed to the highest. A
# variant has the same colour everywhere.

# %%
from show import show_figures, show_tables

# %% [markdown]
# ## Learning curves
# Left: the training loss; 1.386 is guessing. Right: how well the held-out item is ranked.

# %%
show_figures("curves")

# %% [markdown]
# ## Learning rates
# A step moves a weight by the learning rate, however large or small its gradient. So which rate
# does a variant need? The note's setting, cut to 100 epochs, one seed. A best rate at the edge of
# the grid may not be the best there is. Weight decay shrinks a weight by lr times wd a step, so
# it moves with the rate.

# %%
show_tables("grid")

# %%
show_figures("grid")
