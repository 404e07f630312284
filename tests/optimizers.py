"""The table of optimizers. Tests that apply to all optimizers run over this table."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import simba
from simba import directions, optimizers
from tests.conftest import REPOSITORY


class Entry(NamedTuple):
    """An optimizer with hyperparameters that make the tests reach all its branches.

    Args:
        state_bytes: bytes of state per parameter, without per-tensor state.
        moves_in_first_step: False if the direction is sign(m), which is 0 in the first step.
    """

    cls: type[simba.SignOptimizer]
    hparams: dict[str, Any]
    state_bytes: float
    moves_in_first_step: bool = True


SMALL_WINDOW = {"window_size": 8, "threshold": 0.3}
OPTIMIZERS = {
    "SignSGD": Entry(simba.SignSGD, {}, 0),
    "Lion": Entry(simba.Lion, {}, 4),
    "Simba int8": Entry(simba.Simba, SMALL_WINDOW, 1),
    "Simba int8 full": Entry(simba.Simba, {"window_size": 127, "threshold": 0.02}, 1),
    "Simba int16": Entry(simba.Simba, {"window_size": 128, "threshold": 0.02}, 2),
    "SimbaM": Entry(simba.SimbaM, SMALL_WINDOW, 5),
    "SimbaEq1": Entry(simba.SimbaEq1, {"window_size": 8}, 5),
    "SimbaEq4": Entry(simba.SimbaEq4, SMALL_WINDOW, 1),
    "SimbaCeqM": Entry(simba.SimbaCeqM, {}, 4, moves_in_first_step=False),
    "SimbaWindow": Entry(simba.SimbaWindow, SMALL_WINDOW, 1 + 2),
    "SimbaLeaky": Entry(simba.SimbaLeaky, {}, 1),
    "TernaryLion": Entry(simba.TernaryLion, {}, 1),
    "TernaryLionEF one byte": Entry(simba.TernaryLionEF, {}, 1),
    "TernaryLionEF two bytes": Entry(simba.TernaryLionEF, simba.presets.TWO_BYTES, 2),
    "TernaryLionEF wide": Entry(
        simba.TernaryLionEF, {"levels": 5, "gain": 300.0, "bound": 3000}, 3
    ),
    "TernaryLionEF fine": Entry(simba.TernaryLionEF, simba.presets.ONE_BYTE, 1),
    "TernaryLionEF lasting": Entry(simba.TernaryLionEF, {"least": 1, "leaky_error": True}, 1),
    "TernaryLionCarry": Entry(simba.TernaryLionCarry, {}, 1),
    "TernaryLionCarry two bytes": Entry(
        simba.TernaryLionCarry, {"bound": 8, "error_bound": 32, "per_vote": 64}, 2
    ),
    "Lion8bit": Entry(simba.Lion8bit, {}, 1),
    "Lion8bit lasting": Entry(simba.Lion8bit, {"least": 1}, 1),
}
every_optimizer = pytest.mark.parametrize(
    ("cls", "kwargs"), [entry[:2] for entry in OPTIMIZERS.values()], ids=OPTIMIZERS
)


def moves_in_first_step(cls: type[simba.SignOptimizer]) -> bool:
    return all(entry.moves_in_first_step for entry in OPTIMIZERS.values() if entry.cls is cls)


def takes_names() -> bool:
    """Whether torch's optimizers take named parameters, which they do since 2.6."""
    try:
        torch.optim.SGD(torch.nn.Linear(1, 1).named_parameters(), lr=0.1)
    except TypeError:
        return False
    return True


# The implementations of a step.
IMPLEMENTATIONS = {
    "forloop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
every_implementation = pytest.mark.parametrize(
    "implementation", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS
)


def missing_parts(cls: type[simba.SignOptimizer], root: Path = REPOSITORY) -> list[str]:
    """The parts of the recipe in docs/variants.md that an optimizer lacks."""
    name = cls.__name__
    configs = [path.read_text() for path in root.glob("configs/optimizer/*.yaml")]
    pages = [path.read_text() for path in root.glob("docs/*.md")]
    own = [function.function for function in cls.variant.functions]
    parts = {
        f"simba/directions.py: lacks a function that {name} uses": all(
            getattr(directions, function.__name__, None) is function for function in own
        ),
        f"simba/__init__.py: no {name}": name in simba.__all__,
        f"configs/optimizer/: no YAML with `_target_: simba.{name}`": any(
            f"_target_: simba.{name}\n" in config for config in configs
        ),
        f"docs/: no page with `simba.{name}(params, ...)`": any(
            f"`simba.{name}(params, " in page for page in pages
        ),
        f"tests/optimizers.py: no line for {name}": any(
            entry.cls is cls for entry in OPTIMIZERS.values()
        ),
    }
    return [part for part, present in parts.items() if not present]


CLASSES = [
    cls
    for cls in vars(optimizers).values()
    if isinstance(cls, type) and cls.__module__ == optimizers.__name__
]


@pytest.mark.parametrize("cls", CLASSES)
def test_no_optimizer_lacks_a_part(cls):
    assert not missing_parts(cls), f"{cls.__name__} lacks a part"


def example(g, m):
    return directions.choose(abs(m), m, g)


@pytest.mark.parametrize("lacks", [None, "directions", "__init__", "configs", "docs", "tests"])
def test_a_missing_part_is_named(lacks, tmp_path, monkeypatch):
    """Follow the recipe completely, or leave out one part."""
    parts = {"directions", "__init__", "configs", "docs", "tests"} - {lacks}
    if "directions" in parts:
        monkeypatch.setattr(directions, "example", example, raising=False)

    class Example(simba.SignOptimizer):
        direction = staticmethod(example)
        remember = {"m": directions.average}  # noqa: RUF012

    if "__init__" in parts:
        monkeypatch.setattr(simba, "__all__", [*simba.__all__, "Example"])
    for part, path, text in (
        ("configs", "configs/optimizer/example.yaml", "_target_: simba.Example\n_partial_: true\n"),
        ("docs", "docs/example.md", "# Example\n\n`simba.Example(params, lr=1e-4)`\n"),
    ):
        if part in parts:
            (tmp_path / path).parent.mkdir(parents=True)
            (tmp_path / path).write_text(text)
    if "tests" in parts:
        monkeypatch.setitem(OPTIMIZERS, "Example", Entry(Example, {}, 4))
    missing = missing_parts(Example, tmp_path)
    assert len(missing) == (lacks is not None)
    assert all(lacks in part for part in missing)
