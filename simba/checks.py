"""The valid ranges of hyperparameters, and the errors for other values."""

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

from torch import Tensor

from simba.state import INT16

OPTIONS = ("maximize", "foreach", "capturable", "differentiable", "fused", "stochastic_rounding")


def check(owner: str, hyperparameters: Mapping[str, Any]) -> None:
    """Check hyperparameters against their ranges.

    Args:
        owner: the optimizer's name, for the error.
        hyperparameters: a complete group, without ``params``; names without a range are ignored.

    Raises:
        ValueError: a value is out of its range; ``differentiable`` is set; with ``gain``, b1 is 0
            or b2 is 1; or ``least`` exceeds ``bound``. The error names the hyperparameter and its
            value.
        RuntimeError: both ``fused`` and ``foreach`` are set.
    """
    for name, value in hyperparameters.items():
        if name in RANGES:
            valid, expected = RANGES[name]
            if not valid(value):
                raise ValueError(f"{owner}: {name} must be {expected}, got {value!r}")
    lr = hyperparameters["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")  # torch's message
    if hyperparameters["differentiable"]:
        raise ValueError(
            f"{owner}: differentiable must be false, because the derivative of a sign is zero"
        )
    if hyperparameters["foreach"] and hyperparameters["fused"]:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")  # torch's message
    if "gain" in hyperparameters or "per_vote" in hyperparameters:
        b1, b2 = hyperparameters["betas"]
        if b1 == 0 or b2 == 1:
            raise ValueError(f"{owner}: betas must satisfy b1 > 0 and b2 < 1, got {(b1, b2)!r}")
    if hyperparameters.get("least", 0) > hyperparameters.get("bound", INT16):
        least, bound = hyperparameters["least"], hyperparameters["bound"]
        raise ValueError(f"{owner}: least must be <= bound={bound!r}, got {least!r}")


def check_no_foreign(owner: str, group: Mapping[str, Any], accepted: Mapping[str, Any]) -> None:
    """Check that a group has no hyperparameter of another variant.

    Args:
        owner: the optimizer's name, for the error.
        accepted: the hyperparameters that the optimizer takes.

    Raises:
        ValueError: the group has a hyperparameter of another variant; the error names it.
    """
    foreign = sorted(RANGES.keys() & group.keys() - accepted.keys())
    if foreign:
        raise ValueError(f"{owner} does not take {', '.join(foreign)}: remove this from the group")


def as_python(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters as Python numbers: NumPy scalars are converted, ``betas`` becomes a tuple.

    Tensors are returned unchanged, except ``betas``. Names without a range are left out.
    """
    numbers: dict[str, Any] = {}
    for name in RANGES.keys() & hyperparameters.keys():
        value = hyperparameters[name]
        if name == "betas" and _is_sequence(value):
            numbers[name] = tuple(map(_as_number, value))
        else:
            numbers[name] = value if isinstance(value, Tensor) else _as_number(value)
    return numbers


def _as_number(value: Any) -> Any:
    if getattr(value, "ndim", None) == 0:  # a scalar of NumPy or torch
        value = value.item()
    if not _is_number(value):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_rate(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_cpu or bool(((value >= 0) & (value < math.inf)).all())
    return _is_nonnegative(value)


def _is_nonnegative(value: Any) -> bool:
    return _is_number(value) and 0 <= value < math.inf


def _is_positive(value: Any) -> bool:
    return _is_nonnegative(value) and value > 0


def _is_sequence(value: Any) -> bool:
    """Whether a value is a sequence: no text, no mapping, no array without a dimension."""
    listed = hasattr(value, "__getitem__") and not isinstance(value, str | Mapping)
    return listed and getattr(value, "ndim", 1) > 0


def _is_betas(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_fraction, value))


def _is_fraction(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_optional_bool(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _is_levels(value: Any) -> bool:
    return (
        isinstance(value, Integral)
        and _is_number(value)
        and int(value) >= 3
        and int(value) % 2 == 1
    )


def _integer_range(low: int, high: int) -> tuple[Callable[[Any], bool], str]:
    """The test and the description of a range; see ``RANGES``."""
    return (
        lambda v: isinstance(v, Integral) and _is_number(v) and low <= int(v) <= high,
        f"an integer in [{low}, {high}]",
    )


_POSITIVE = (_is_positive, "a finite number > 0")
# Each hyperparameter's test of a value, and the description of valid values.
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lr": (_is_rate, "a finite number >= 0"),
    "weight_decay": (_is_nonnegative, "a finite number >= 0"),
    "beta2": (_is_fraction, "a number in [0, 1]"),
    "betas": (_is_betas, "two numbers in [0, 1]"),
    "threshold": (_is_fraction, "a number in [0, 1]"),
    "window_size": _integer_range(1, INT16),
    "levels": (_is_levels, "an odd integer >= 3"),
    "spacing": _POSITIVE,
    "gain": _POSITIVE,
    "bound": _integer_range(1, INT16),
    "least": _integer_range(0, INT16),
    "leaky_error": (lambda value: isinstance(value, bool), "true or false"),
    "error_bound": _integer_range(1, INT16),
    "per_vote": _integer_range(1, INT16),
    "seed": _integer_range(0, 2**63 - 1),
    **dict.fromkeys(OPTIONS, (_is_optional_bool, "true, false or None")),
}
