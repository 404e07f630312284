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
# # Your own variant
# You write an optimizer, train a recommendation model with it on MovieLens 100K, and compare it
# with Lion, sign-SGD and Simba. Each of the four trains for 15 epochs, which takes 10 to 20 seconds
# on one core. That is too short for good recommendations, but long enough to see differences.
#
# All files go to a temporary folder. The first training downloads the data. Without a network, put
# the file `ml-100k.inter` in a folder, and start Jupyter with `SIMBA_DATA=FOLDER`.

# %% tags=["parameters"]
from pathlib import Path

from show import Shown, enter_temporary_folder, run, show_tables, write

DATA = "data=ml-100k"
EPOCHS = 15
folder = enter_temporary_folder()

# %% [markdown]
# ## The idea
# Lion keeps an average `m` of the gradients, its memory. In each step it moves every coordinate
# (one number of the parameters) by the learning rate, usually in the direction of the memory, even
# if the latest gradient `g` has the opposite sign. Our variant is more cautious: it moves a
# coordinate only if memory and gradient have the same sign. (Liang et al. propose this for other
# optimizers, too: *Cautious Optimizers*, arXiv 2411.16085.)
#
# ## A function and a class
# A variant is a class with pure functions. `direction` gives the direction of a step, -1, 0 or 1
# for each coordinate. `remember` gives the new value of each memory; `average` is the one of Lion.
# A function receives the values that its parameters name: `g` is the gradient, `m` the memory. The
# base class does the rest: learning rate, weight decay, saving and loading, a compiled step.

# %%
write(
    "cautious.py",
    '''
from typing import ClassVar

import torch
from simba import SignOptimizer
from simba.directions import average


def agreeing(g, m):
    """The common sign of gradient and memory; 0 if their signs differ: no move."""
    return torch.where(torch.sign(g) == torch.sign(m), torch.sign(m), 0.0)


class Cautious(SignOptimizer):
    direction = staticmethod(agreeing)
    remember: ClassVar = {"m": average}

    def __init__(self, params, lr=1e-4, beta2=0.99, weight_decay=0.0, **options):
        defaults = {"lr": lr, "beta2": beta2, "weight_decay": weight_decay}
        super().__init__(params, defaults, **options)
''',
)

# %% [markdown]
# ## A config
# It says which class `optimizer=cautious` means, and its default settings.

# %%
write(
    "optimizer/cautious.yaml",
    """
_target_: cautious.Cautious
_partial_: true
_convert_: all
lr: 1e-4
beta2: 0.99
weight_decay: 0.5
fused: true
""",
)

# %% [markdown]
# ## Training
# `--config-dir=.` adds this folder to the folders with configs. `force=true` replaces the record
# when you run this cell again, for example after a change of the variant. `save_best=true` keeps
# the weights of the best epoch for later.

# %%
SETTING = f"{DATA} epochs={EPOCHS} eval_every=3 batch_size=32 tracker.mode=disabled"
OWN = "--config-dir=. optimizer=cautious force=true save_best=true"
run(f"python -m scripts.train -m {OWN} {SETTING}")

# %% [markdown]
# The same setting for three variants of the repository; `-m` trains one after the other:

# %%
run(f"python -m scripts.train -m optimizer=lion,sign_sgd,simba {SETTING}")

# %% [markdown]
# ## Comparison
# HR@10 and NDCG@10 say how well the model ranks each user's last item, which it has not seen
# (`01_tables` defines them). There is only one seed: another seed may give another order.

# %%
run("python -m scripts.aggregate")
own = Shown(Path("results"))
own.tables("metrics")

# %%
own.figures("curves")

# %% [markdown]
# For comparison, the committed runs on this dataset: the same setting, but 50 epochs and five
# seeds.

# %%
show_tables("reproduce-sasrec-ml-100k/metrics")

# %% [markdown]
# ## The trained model
# What does the model recommend to a user who has had the items 1, 7 and 22? The ids are those of
# the data.

# %%
record, *_ = Path("results").glob("runs/*/cautious/*.json")
run(f"python -m scripts.recommend {record} --items 1,7,22 --top 5")

# %% [markdown]
# ## Your turn
# Change `agreeing`, run its cell, and then all cells below it. For example:
#
# - Move by the gradient where the memory contradicts it: `torch.sign(g)` instead of `0.0`.
# - Count signs instead of averaging gradients: import `saturating_count` instead of `average`, use
#   `s` instead of `m`, `remember = {"s": saturating_count}`, and `window_size=128` instead of
#   `beta2=0.99`, in the class and in the config, as in `simba.Simba`.
#
# To give your variant a place in the repository and in its tests, follow
# [the variants, and how to add one](../docs/variants.md). To train three seeds for 50 epochs and
# compare with the table of the committed runs, set
# `SETTING = f"{DATA} experiment=reproduce seed=0,1,2"`.
