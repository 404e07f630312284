"""Convert the columns of a file to interactions: number the ids and sort by time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.errors import DataError
from data.files import compression, one_line_errors, quoted
from data.formats import Ids, ReadSettings, Table, read

CANONICAL = r"0|-?[1-9][0-9]{0,18}"  # integers without leading zeros; int64 has 19 digits
LONGEST_TIME = 64  # characters
LARGEST_EXACT = 2**53  # a float represents all integers up to this one exactly
WHOLE = r"^(\s*-?[0-9]+)\.0*\s*$"  # a whole number with a decimal point


@dataclass(frozen=True)
class Interactions:
    """Interactions in time order; those of equal time keep the order of the file.

    Users and items are numbered by the sorted order of their ids. Ids sort as numbers if all ids of
    the column are canonical integers of 64 bits, else as text.
    """

    frame: pd.DataFrame  # columns user and item: number n stands for ids[role][n]
    ids: dict[str, Sequence[str] | np.ndarray]
    understood: dict[str, Any]  # how the file was read: format, separator, columns, order, ...


def read_interactions(path: Path, settings: ReadSettings) -> Interactions:
    """Interactions in ``path``, in time order.

    Raises:
        DataError: the file is missing or damaged, its format is unknown, or a line, value or key is
            invalid.
    """
    with one_line_errors(path):
        return _numbered(path, read(path, settings), settings)


def _numbered(path: Path, table: Table, settings: ReadSettings) -> Interactions:
    if len(table.user.codes) == 0:
        raise DataError(f"{path}: the file has no interactions")
    numbers, ids = {}, {}
    for role in ("user", "item"):
        numbers[role], ids[role] = _number(path, role, getattr(table, role), table)
    frame = pd.DataFrame(numbers)
    understood: dict[str, Any] = {
        "format": table.format,
        "compression": compression(path),
        "separator": table.separator,
        "columns": table.columns,
        "order": _order(table, settings),
        "first_time": None,
        "last_time": None,
    }
    if table.time is not None:
        times = _times(path, table.time, table)
        understood["first_time"] = str(times.min())
        understood["last_time"] = str(times.max())
        frame = frame.take(np.argsort(times.to_numpy(), kind="stable"))
    return Interactions(frame, ids, understood)


def _order(table: Table, settings: ReadSettings) -> str:
    if table.time is not None:
        return f"by time, column {quoted(table.columns['time'])}"
    if table.columns["user"] is None:
        return "of the file"
    if settings.time is False:
        return "of the file (data.time_column=false)"
    return "of the file (no column holds a time; data.time_column=NAME names one)"


def _number(
    path: Path, role: str, ids: Ids, table: Table
) -> tuple[np.ndarray, Sequence[str] | np.ndarray]:
    if ids.codes.min() < 0:
        raise DataError(f"{path}: {table.location(int(ids.codes.argmin()))}: {role} is missing")
    values = _sortable(ids.tokens)
    order = np.argsort(values, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[ids.codes], values[order]


def _sortable(tokens: Sequence[str] | np.ndarray) -> np.ndarray:
    """Integers if all tokens are canonical and fit int64, else text."""
    if isinstance(tokens, np.ndarray):
        return tokens
    text = pd.Series(tokens, dtype=object)
    if text.str.fullmatch(CANONICAL).all():
        numbers = pd.to_numeric(text)
        if numbers.dtype == np.int64:
            return numbers.to_numpy()
    return text.to_numpy()


def _large_numbers(path: Path, times: pd.Series) -> pd.Series:
    """Convert text to integers (if all are whole) or floats; NaN for a text that is no number.

    Raises:
        DataError: different times are one float.
    """
    converted = pd.to_numeric(times.str.replace(WHOLE, r"\1", regex=True), errors="coerce")
    if converted.dtype == np.float64 and converted.nunique() < times.nunique():
        raise DataError(
            f"{path}: timestamps have more digits than a float holds: write whole numbers below "
            "2**63, or set data.time_column=false for the file's order"
        )
    return converted


def _times(path: Path, times: pd.Series, table: Table) -> pd.Series:
    """Convert a column to numbers or datetimes; its first value decides which."""
    if pd.api.types.is_datetime64_any_dtype(times):
        converted, bad = times, times.isna()
    else:
        is_text = not pd.api.types.is_numeric_dtype(times)
        if is_text:  # Python refuses to convert thousands of digits
            times = times.where(times.str.len() < LONGEST_TIME, "")
        converted = pd.to_numeric(times, errors="coerce")
        if is_text and (converted.abs() > LARGEST_EXACT).any():
            converted = _large_numbers(path, times)
        bad = converted.isna() | ~np.isfinite(converted)
        if bad.iloc[0] and is_text:
            dates = times.where(times.str.match(r"\s*[0-9]{4}-"), "")
            converted = pd.to_datetime(dates, format="ISO8601", utc=True, errors="coerce")
            bad = converted.isna()
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise DataError(
            f"{path}: {table.location(row)}: timestamp {quoted(times.iloc[row])} is neither a "
            "number nor an ISO date (2020-03-09 20:56:38), or its type differs from the first; "
            "correct it, set data.time_column=NAME, or data.time_column=false for the file's order"
        )
    return converted
