"""Read interactions from the formats people have; the format is told from the content.

A frame of interactions has columns ``user``, ``item`` and, where its source has one, ``time``.
Order: by time where there is one, and interactions of equal time keep the order of the file.
"""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from data.errors import DataError

INTER_COLUMNS = {"user": "user_id:token", "item": "item_id:token", "time": "timestamp:float"}
CSV_COLUMNS = {"user": "user", "item": "item", "time": "timestamp"}


def read(path: Path, columns: dict[str, str | None]) -> pd.DataFrame:
    """Interactions in ``path``, user by user in time order.

    ``columns`` names the user, item and time columns of a table with a header; None means the
    format's usual name, and a time column that is not there means the order of the file.

    Raises:
        DataError: the file is missing, not of a known format, or holds a value it must not hold.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    if not head.strip():
        raise DataError(f"{path}: the file is empty")
    if head.startswith(b"PAR1"):
        frame = _named_columns(path, _read_parquet(path), columns, CSV_COLUMNS)
    else:
        try:
            first = head.decode("utf-8", errors="strict" if len(head) < 4096 else "ignore")
        except UnicodeDecodeError:
            raise DataError(f"{path}: neither UTF-8 text nor Parquet") from None
        first = first.lstrip("\ufeff").splitlines()[0]
        if ":token" in first:
            frame = _named_columns(path, _read_table(path, "\t"), columns, INTER_COLUMNS)
        elif _is_integers(first):
            return _read_lines(path)
        else:
            separator = max(",\t;|", key=first.count)
            if first.count(separator) == 0:
                raise DataError(
                    f"{path}: line 1: expected integers 'user item ...' or a header with columns"
                )
            frame = _named_columns(path, _read_table(path, separator), columns, CSV_COLUMNS)
    return _in_order(path, frame)


def _is_integers(line: str) -> bool:
    tokens = line.replace(",", " ").replace(";", " ").split()
    return bool(tokens) and all(t.lstrip("-").replace(".", "", 1).isdigit() for t in tokens)


def _read_lines(path: Path) -> pd.DataFrame:
    """S3-Rec (``user item item ...``) or, where each line has two ids, SASRec pairs."""
    users: list[int] = []
    counts: list[int] = []
    items: list[int] = []
    listed: dict[int, int] = {}
    repeated: tuple[int, int] | None = None
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            tokens = line.split()
            if not tokens:
                raise DataError(f"{path}: line {number}: empty line")
            try:
                ids = [int(token) for token in tokens]
            except ValueError:
                bad = next(t for t in tokens if not t.lstrip("-").isdigit())
                raise DataError(
                    f"{path}: line {number}: {bad!r} is not an integer id "
                    "(ids are separated by blanks)"
                ) from None
            if min(ids) < 0:
                raise DataError(f"{path}: line {number}: negative id {min(ids)}")
            if len(ids) == 1:
                raise DataError(f"{path}: line {number}: user {ids[0]} has an empty sequence")
            if repeated is None and listed.setdefault(ids[0], number) != number:
                repeated = number, ids[0]
            users.append(ids[0])
            counts.append(len(ids) - 1)
            items.extend(ids[1:])
    if repeated is not None and max(counts) > 1:
        raise DataError(
            f"{path}: line {repeated[0]}: user {repeated[1]} has a line already "
            f"(line {listed[repeated[1]]}); pairs need two ids on every line"
        )
    return pd.DataFrame({"user": np.repeat(users, counts), "item": items})


def _read_table(path: Path, separator: str) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                path, sep=separator, dtype=str, index_col=False, encoding="utf-8-sig"
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {' '.join(str(error).split())}") from None


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError:
        raise DataError(f"{path}: Parquet needs pyarrow: pip install '.[parquet]'") from None
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: {' '.join(str(error).split())}") from None


def _named_columns(
    path: Path, table: pd.DataFrame, columns: dict[str, str | None], usual: dict[str, str]
) -> pd.DataFrame:
    found = {}
    for role, name in columns.items():
        wanted = name or usual[role]
        if wanted in table.columns:
            found[role] = table[wanted]
        elif name or role != "time":
            raise DataError(
                f"{path}: no column {wanted!r} (set data.{role}_column); "
                f"it has {', '.join(map(repr, table.columns))}"
            )
    frame = pd.DataFrame(found)
    for role in ("user", "item"):
        missing = frame[role].isna()
        if missing.any():
            raise DataError(f"{path}: line {_line(missing)}: {role} is missing")
        numbers = pd.to_numeric(frame[role], errors="coerce")
        if numbers.notna().all():  # ids may be any tokens; numbers among numbers are checked
            bad = (numbers < 0) | (numbers % 1 != 0)
            if bad.any():
                value = frame[role].to_numpy()[bad.argmax()]
                raise DataError(
                    f"{path}: line {_line(bad)}: {role} id {value} is not an integer >= 0"
                )
            frame[role] = numbers.astype(np.int64)
    return frame


def _in_order(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    if len(frame) == 0:
        raise DataError(f"{path}: no interactions below the header")
    if "time" in frame:
        times = frame["time"]
        if not pd.api.types.is_datetime64_any_dtype(times):
            times = pd.to_numeric(times, errors="coerce")
            bad = times.isna() | ~np.isfinite(times) | (times < 0)
        else:
            bad = times.isna()
        if bad.any():
            value = frame["time"].to_numpy()[bad.argmax()]
            raise DataError(f"{path}: line {_line(bad)}: timestamp {value} is not a number >= 0")
        frame = frame.assign(time=times).sort_values("time", kind="stable")
    return frame


def _line(bad: pd.Series) -> int:
    return int(np.flatnonzero(bad)[0]) + 2  # the header is line 1
