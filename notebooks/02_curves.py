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
# # How the model learns with each variant
# A line is the mean over seeds; the band around it extends from the lowest seed to the highest. A
# variant has the same colour in all figures.

# %% [markdown]
# ## Learning curves
# Above: the training loss; 1.386 is the loss if all scores are 0. Below: NDCG@10 on validation.

# %%
from show import show_figures, show_tables

show_figures("curves")

# %% [markdown]
# ## Learning rates
# A step of the note's variants moves a coordinate by the learning rate, whatever the size of its
# gradient. Which rate does each variant need? The runs have the note's setting (AdamW: a weight
# decay of 0.05) with 100 epochs and one seed. If the best rate is at the edge of the grid, a rate
# beyond it may be better. Weight decay shrinks a coordinate by the factor 1 − lr · wd per step, so
# its effect changes with the learning rate.

# %%
show_tables("lr-sasrec-beauty/grid", "lr_adamw-sasrec-beauty/grid")

# %%
show_figures("grid", "lr-sasrec-beauty", "lr_adamw-sasrec-beauty")
