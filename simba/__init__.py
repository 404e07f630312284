"""Optimizers that move by the signs of gradients. The package needs torch only."""

from simba import presets as presets
from simba.base import SignOptimizer
from simba.optimizers import (
    Lion,
    Lion8bit,
    SignSGD,
    Simba,
    SimbaCeqM,
    SimbaEq1,
    SimbaEq4,
    SimbaLeaky,
    SimbaM,
    SimbaWindow,
    TernaryLion,
    TernaryLionCarry,
    TernaryLionEF,
)

__version__ = "0.2.0"

__all__ = [
    "Lion",
    "Lion8bit",
    "SignOptimizer",
    "SignSGD",
    "Simba",
    "SimbaCeqM",
    "SimbaEq1",
    "SimbaEq4",
    "SimbaLeaky",
    "SimbaM",
    "SimbaWindow",
    "TernaryLion",
    "TernaryLionCarry",
    "TernaryLionEF",
]
