"""The one table of optimizers: every battery of tests goes over it."""

from typing import Any, NamedTuple

import pytest

import simba


class Entry(NamedTuple):
    """Hyperparameters under which every branch is taken, and bytes of state a parameter.

    ``decides_alone``: the first step already moves by its gradient, any gradient.
    """

    cls: type[simba.SignOptimizer]
    hparams: dict[str, Any]
    state_bytes: float
    decides_alone: bool = True


SMALL = {"window_size": 8, "threshold": 0.3}
OPTIMIZERS = {
    "SignSGD": Entry(simba.SignSGD, {}, 0),
    "Lion": Entry(simba.Lion, {}, 4),
    "Simba int8": Entry(simba.Simba, SMALL, 1),
    "Simba int8 full": Entry(simba.Simba, {"window_size": 127, "threshold": 0.02}, 1),
    "Simba int16": Entry(simba.Simba, {"window_size": 128, "threshold": 0.02}, 2),
    "SimbaM": Entry(simba.SimbaM, SMALL, 5),
    "SimbaEq1": Entry(simba.SimbaEq1, {"window_size": 8}, 5),
    "SimbaEq4": Entry(simba.SimbaEq4, SMALL, 1),
    "SimbaCeqM": Entry(simba.SimbaCeqM, {}, 4, decides_alone=False),
    "SimbaWindow": Entry(simba.SimbaWindow, SMALL, 1 + 2),
    "SimbaLeaky": Entry(simba.SimbaLeaky, {}, 1),
    "TernaryLion": Entry(simba.TernaryLion, {}, 1, decides_alone=False),
    "TernaryLionEF one byte": Entry(simba.TernaryLionEF, {}, 1, decides_alone=False),
    "TernaryLionEF two bytes": Entry(
        simba.TernaryLionEF,
        {"gain": 16.0, "bound": 127, "error_bound": 64, "per_vote": 64},
        2,
        decides_alone=False,
    ),
    "TernaryLionEF wide": Entry(
        simba.TernaryLionEF, {"gain": 300.0, "bound": 3000}, 3, decides_alone=False
    ),
    "Lion8bit": Entry(simba.Lion8bit, {}, 1),
}
every_optimizer = pytest.mark.parametrize(
    ("cls", "kwargs"), [entry[:2] for entry in OPTIMIZERS.values()], ids=OPTIMIZERS
)


def moves_by_any_gradient(cls: type[simba.SignOptimizer]) -> bool:
    return all(entry.decides_alone for entry in OPTIMIZERS.values() if entry.cls is cls)


def test_every_class_is_in_the_table():
    assert {entry.cls.__name__ for entry in OPTIMIZERS.values()} == {
        name for name in simba.__all__ if name not in ("SignOptimizer", "__version__")
    }
