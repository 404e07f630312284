"""Checks of a model's sizes and rates. A failed check is a ValueError that names the config key."""


def require(valid: bool, name: str, value: object, expected: str) -> None:
    """Raise ValueError unless ``valid``: ``model.NAME must be EXPECTED, got VALUE``."""
    if not valid:
        raise ValueError(f"model.{name} must be {expected}, got {value!r}")


def require_size(name: str, value: object) -> None:
    """Require an integer >= 1."""
    valid = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    require(valid, name, value, "an integer >= 1")


def require_maxlen(maxlen: int) -> None:
    """Require an integer >= 2: an item and the one after it."""
    valid = isinstance(maxlen, int) and maxlen >= 2
    require(valid, "maxlen", maxlen, "an integer >= 2: an item and the one after it")


def require_rate(name: str, value: float) -> None:
    """Require a dropout rate, a number in [0, 1)."""
    require(isinstance(value, int | float) and 0 <= value < 1, name, value, "a number in [0, 1)")
