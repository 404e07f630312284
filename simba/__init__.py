"""Optimizers that keep only the signs of gradients. Needs torch, nothing else."""

from simba.base import SignOptimizer
from simba.optimizers import Lion, SignSGD, Simba, SimbaCeqM, SimbaEq1, SimbaEq4, SimbaM

__all__ = [
    "Lion",
    "SignOptimizer",
    "SignSGD",
    "Simba",
    "SimbaCeqM",
    "SimbaEq1",
    "SimbaEq4",
    "SimbaM",
]
