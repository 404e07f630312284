"""Read interactions from files of several formats; the format is detected from the content.

Ids are tokens: their text is not changed. docs/data.md shows an example of each format.
"""

import csv
import io
import json
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import pandas as pd

from data.errors import DataError
from data.files import (
    CHUNK,
    check_readable,
    compression,
    has_quotes,
    one_line,
    open_binary,
    open_text,
    quoted,
    shown,
)

ROLES = ("user", "item", "time")
DEFAULT_COLUMNS = {"user": "user", "item": "item", "time": "timestamp"}
DEFAULT_INTER_COLUMNS = {"user": "user_id", "item": "item_id", "time": "timestamp"}
SEPARATORS = ("\t", "::", ",", ";", "|")
SEPARATOR_WORDS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "space": " "}
UNIT = "\x1f"  # replaces a separator of several characters
INTEGER = re.compile(r"-?[0-9]+")
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]*)?")
TIME_COLUMN_PATTERN = re.compile(r"time|date|stamp|_at$|^year$|^ts$|^t$", re.IGNORECASE)
NAME_COLUMNS = "data.columns=[user,item,rating,timestamp]"


@dataclass(frozen=True)
class ReadSettings:
    """The user's settings for reading a file. None: detect the setting from the content."""

    user: str | None = None  # name of a column
    item: str | None = None
    time: str | bool | None = None  # False: use the order of the file
    columns: tuple[str, ...] | None = None  # the column names of a table without a header
    separator: str | None = None


class Ids(NamedTuple):
    """A column of ids: row ``r`` holds ``tokens[codes[r]]``. The code -1 means a missing id."""

    codes: np.ndarray  # (rows,) int64
    tokens: Sequence[str] | np.ndarray  # distinct; an integer array if the file holds integers


@dataclass(frozen=True)
class Table:
    """The columns of a file that hold interactions, in the order of the file."""

    format: str
    separator: str | None
    columns: dict[str, str | None]  # maps "user", "item" and "time" to column names
    user: Ids
    item: Ids
    time: pd.Series | None  # text, numbers or datetimes
    location: Callable[[int], str]  # maps a row to its location in the file, such as "line 7"


def read(path: Path, settings: ReadSettings) -> Table:
    """The interactions in ``path``, in the order of the file.

    Call it inside ``one_line_errors``, which converts the exceptions of damaged files.

    Raises:
        DataError: the format is unknown, or a line, value or key is invalid.
    """
    with open_binary(path) as file:
        head = file.read(4096)
    check_readable(path, head)
    if head.startswith(b"PAR1"):
        return _read_parquet(path, settings)
    first = _first_line(path)
    if first.lstrip().startswith(("{", "[")):
        return _read_json_lines(path, settings)
    separator = _separator(first, settings)
    if separator is None:
        if INTEGER.fullmatch(first.split()[0]) and not settings.columns:
            return _read_lines(path)
        raise DataError(
            f"{path}: line 1: expected integers 'user item ...' or a header with columns, "
            f"got {quoted(first)}; if the file has no header, set {NAME_COLUMNS}; "
            "if the separator was not found, set data.separator=TEXT"
        )
    return _read_table(path, settings, separator)


def _first_line(path: Path) -> str:
    """The first line that is not blank."""
    with open_text(path) as file:
        while line := file.readline(CHUNK):
            if line.strip():
                return line.rstrip("\r\n")
    raise DataError(f"{path}: the file is empty")


def _separator(first: str, settings: ReadSettings) -> str | None:
    """The separator of values; None for ids separated by whitespace, or if none is found."""
    if settings.separator is not None:
        return SEPARATOR_WORDS.get(settings.separator, settings.separator)
    named = any((settings.user, settings.item, settings.time))
    words = first.split()
    is_table = settings.columns or named or not INTEGER.fullmatch(words[0])
    counts = {s: first.count(s) for s in SEPARATORS}
    if not is_table:
        del counts["\t"]  # ids may be separated by tabs
    separator = max(counts, key=lambda s: counts[s])
    if counts[separator]:
        return separator
    return " " if is_table and " " in first else None


def _read_lines(path: Path) -> Table:
    """Read lines ``user item item ...`` (S3-Rec's format).

    If every line has two ids, they are interactions ``user item`` (SASRec's format).
    """
    user_codes, item_codes = _numbering(), _numbering()
    users: list[int] = []
    counts: list[int] = []
    items: list[int] = []
    lines: list[int] = []  # the line at which each user first occurs
    repeated: tuple[int, str] | None = None
    blank = 0
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            tokens = line.split()
            if not tokens:
                blank = blank or number
                continue
            if blank:
                raise DataError(f"{path}: line {blank} is empty: delete it")
            if len(tokens) == 1:
                _check_integers(path, number, tokens)
                raise DataError(
                    f"{path}: line {number}: user {quoted(tokens[0])} has an empty sequence: "
                    "delete the line, or add items"
                )
            user = user_codes[tokens[0]]
            if user == len(lines):
                lines.append(number)
                _check_integers(path, number, tokens[:1])
            elif repeated is None:
                repeated = number, tokens[0]
            known = len(item_codes)
            items.extend(map(item_codes.__getitem__, tokens[1:]))
            if len(item_codes) > known:
                _check_integers(path, number, tokens)
            users.append(user)
            counts.append(len(tokens) - 1)
    if repeated is not None and max(counts) > 1:
        number, user_id = repeated
        raise DataError(
            f"{path}: line {number}: user {user_id} has a line already "
            f"(line {lines[user_codes[user_id]]}); pairs need two ids on every line; "
            f"if the file is a table without a header, set {NAME_COLUMNS}"
        )
    ends = np.cumsum(counts)
    return Table(
        format="pairs: user item" if max(counts) == 1 else "lines: user item item ...",
        separator="whitespace",
        columns={"user": None, "item": None, "time": None},
        user=Ids(np.repeat(users, counts), list(user_codes)),
        item=Ids(np.array(items), list(item_codes)),
        time=None,
        location=lambda row: f"line {int(np.searchsorted(ends, row, side='right')) + 1}",
    )


def _check_integers(path: Path, number: int, tokens: list[str]) -> None:
    for token in tokens:
        if not INTEGER.fullmatch(token):
            raise DataError(
                f"{path}: line {number}: {quoted(token)} is not an integer id "
                "(ids are separated by whitespace; text ids need a table with named columns)"
            )


def _read_table(path: Path, settings: ReadSettings, separator: str) -> Table:
    """Read a table with a header or ``settings.columns``, with or without CSV quotes."""
    if not separator or separator in '\r\n"':
        raise DataError(
            f"data.separator must not be empty, a line break or a double quote, got {separator!r}"
        )
    is_quoted = has_quotes(path) and len(separator) == 1 and _is_quoted(path, separator)
    with _open_rows(path, separator) as rows:
        first = _next_row(rows, separator, is_quoted)
        names = list(settings.columns or first)
        chosen = _choose_columns(path, names, settings, may_lack_header=not settings.columns)
    if settings.columns:
        _check_first_row(path, first, settings.columns)
    with _open_rows(path, separator) as rows:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)
                table = pd.read_csv(
                    rows,
                    sep=separator if len(separator) == 1 else UNIT,
                    header=None if settings.columns else 0,
                    names=[str(number) for number in range(len(names))],
                    index_col=False,
                    dtype=str,
                    na_filter=False,
                    quoting=csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE,
                )
        except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
            raise _width_error(path, separator, is_quoted, len(names), error) from None
    skipped = 0 if settings.columns else 1
    values = {role: table.pop(str(names.index(name))) for role, name in chosen.items() if name}
    del table
    if settings.columns:
        _check_no_header(path, first, [values["user"], values["item"]])
    inter = any(":token" in name for name in names)
    without_inter = "table" if settings.columns else "table with a header"
    return Table(
        format="RecBole .inter" if inter else without_inter,
        separator=separator,
        columns=chosen,
        user=_ids(values.pop("user")),
        item=_ids(values.pop("item")),
        time=values.get("time"),
        location=lambda row: f"line {_line(path, separator, is_quoted, row + skipped)}",
    )


def _ids(column: pd.Series) -> Ids:
    codes, tokens = pd.factorize(column)
    codes = codes.astype(np.int64, copy=False)
    distinct = [str(token) for token in tokens]
    if "" in distinct:
        codes = np.where(codes == distinct.index(""), -1, codes)
    return Ids(codes, distinct)


def _open_rows(path: Path, separator: str) -> TextIO:
    """Open a table as text; UNIT replaces a separator of several characters."""
    file = open_text(path)
    if len(separator) == 1:
        return file
    with file:
        text = file.read()
    if UNIT in text:
        raise DataError(
            f"{path}: the file contains the control character 0x1f, which a separator of several "
            f"characters ({separator!r}) does not allow; use a separator of one character"
        )
    return io.StringIO(text.replace(separator, UNIT), newline="")


def _reader(rows: Iterator[str], separator: str, is_quoted: bool) -> Any:
    return csv.reader(
        rows,
        delimiter=separator if len(separator) == 1 else UNIT,
        quoting=csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE,
        strict=True,
    )


def _next_row(rows: TextIO, separator: str, is_quoted: bool) -> list[str]:
    """Read ``rows`` up to and including the first row that is not blank, and return its values."""
    lines = iter(lambda: rows.readline(), "")
    rows_with_values = (row for row in _reader(lines, separator, is_quoted) if not _is_blank(row))
    return next(rows_with_values, [])


def _is_blank(row: list[str]) -> bool:
    return not row or (len(row) == 1 and not row[0].strip())


def _is_quoted(path: Path, separator: str) -> bool:
    """Whether double quotes enclose values, or are characters of values.

    They enclose values if the file can be parsed with quotes to rows of equal width. Exception: if
    all lines have equal width without quotes, too, and there are more lines than rows, the quotes
    are characters.
    """
    with open_text(path) as file:
        widths = [line.count(separator) for line in file if line.strip()]
    try:
        with open_text(path) as file:
            quoted_widths = [len(row) - 1 for row in _reader(file, separator, True) if row]
    except csv.Error:
        return False
    return len(set(quoted_widths)) == 1 and not (
        len(set(widths)) == 1 and len(widths) > len(quoted_widths)
    )


def _line(path: Path, separator: str, is_quoted: bool, row: int) -> int:
    """The line in the file of row number ``row``, counted from 0 without blank rows."""
    with _open_rows(path, separator) as rows:
        reader = _reader(rows, separator, is_quoted)
        for values in reader:
            if not _is_blank(values):
                row -= 1
                if row < 0:
                    break
        return int(reader.line_num)


def _width_error(
    path: Path, separator: str, is_quoted: bool, width: int, error: Exception
) -> DataError:
    """The error for the first line with too many values; without such a line, ``error``."""
    with _open_rows(path, separator) as rows:
        reader = _reader(rows, separator, is_quoted)
        try:
            for values in reader:
                if len(values) > width:
                    return DataError(
                        f"{path}: line {reader.line_num}: {len(values)} values, "
                        f"but {width} columns (separator {separator!r})"
                    )
        except csv.Error as csv_error:
            error = csv_error
        return DataError(f"{path}: line {reader.line_num}: {one_line(error)}")


def _choose_columns(
    path: Path, names: list[str], settings: ReadSettings, may_lack_header: bool = False
) -> dict[str, str | None]:
    """Choose the columns of user, item and time.

    Without a time column, a column whose name suggests a time is an error.
    """
    inter = any(":token" in name for name in names)
    sequences = [name for name in names if name.endswith(":token_seq")]
    if inter and sequences:
        raise DataError(
            f"{path}: column {quoted(sequences[0])}: RecBole's sequence files are not supported: "
            "give the .inter file that has one interaction per line"
        )
    short = [name.split(":")[0] for name in names] if inter else names
    defaults = DEFAULT_INTER_COLUMNS if inter else DEFAULT_COLUMNS
    chosen: dict[str, str | None] = {}
    for role in ROLES:
        name = getattr(settings, role)
        expected = defaults[role] if name is None else name
        matches = [full for full, s in zip(names, short, strict=True) if expected in (full, s)]
        if len(matches) > 1:
            raise DataError(
                f"{path}: {len(matches)} columns are named {quoted(expected)}: rename one"
            )
        if matches:
            chosen[role] = matches[0]
        elif role == "time" and name is False:
            chosen[role] = None
        elif role == "time" and name is None:
            chosen[role] = None
            _check_no_time(path, short, expected, list(chosen.values()))
        else:
            raise DataError(
                f"{path}: no column {quoted(expected)} (set data.{role}_column=NAME); "
                f"it has {shown(names)}{_no_header(names) if may_lack_header else ''}"
            )
    for one, other in combinations(ROLES, 2):
        if chosen[one] == chosen[other]:
            raise DataError(
                f"{path}: {one} and {other} are one column, {quoted(chosen[one])}; "
                f"set data.{other}_column=NAME"
            )
    return chosen


def _no_header(names: list[str]) -> str:
    if names == [str(number) for number in range(len(names))]:
        columns = "data.user_column=0 data.item_column=1 data.time_column=2"
        return (
            f"; if the file has no header, set {NAME_COLUMNS}; if the columns are named 0, 1, 2, "
            f"set {columns}"
        )
    numbers = any(NUMBER.fullmatch(name) for name in names)
    hint = "line 1 contains numbers: " if numbers else ""
    return f"; {hint}if the file has no header, set {NAME_COLUMNS}"


def _check_no_time(path: Path, names: list[str], default: str, chosen: list[str | None]) -> None:
    for name in names:
        if TIME_COLUMN_PATTERN.search(name) and name not in chosen:
            value = name if name.isidentifier() and len(name) < 60 else "NAME"
            raise DataError(
                f"{path}: no column {quoted(default)}, but {quoted(name)} looks like a time: set "
                f"data.time_column={value}, or data.time_column=false to take the order of the file"
            )


def _check_no_new_time(path: Path, number: int, names: set[str]) -> None:
    """Refuse keys of a later JSON line that look like a time, if the first line has none."""
    for name in sorted(names):
        if TIME_COLUMN_PATTERN.search(name):
            raise DataError(
                f"{path}: line {number}: {quoted(name)} looks like a time, but the first line has "
                "none: set data.time_column=false to take the order of the file"
            )


def _check_first_row(path: Path, first: list[str], columns: tuple[str, ...]) -> None:
    if len(first) != len(columns):
        raise DataError(
            f"{path}: line 1 has {len(first)} values, but data.columns names {len(columns)}: "
            f"{shown(first)}"
        )
    if {value.lower() for value in first} & {name.lower() for name in columns}:
        raise _header_error(path, first)


def _check_no_header(path: Path, first: list[str], ids: list[pd.Series]) -> None:
    """Refuse a first row of words where all other ids of a column are numbers."""
    for column in ids:
        words = len(column) > 1 and not INTEGER.fullmatch(column.iloc[0])
        if words and column.iloc[1:].str.fullmatch(INTEGER).all():
            raise _header_error(path, first)


def _header_error(path: Path, first: list[str]) -> DataError:
    return DataError(
        f"{path}: line 1 is a header ({shown(first)}): leave data.columns out "
        "and set data.user_column, data.item_column, data.time_column"
    )


def _read_json_lines(path: Path, settings: ReadSettings) -> Table:
    """Read one JSON object per line. Numbers are kept as text, as they are written."""
    chosen: dict[str, str | None] = {}
    numberings = {"user": _numbering(), "item": _numbering()}
    codes: dict[str, list[int]] = {"user": [], "item": []}
    times: list[str] = []
    known: set[str] = set()
    lines: list[int] = []
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            entry = _json_object(path, number, line)
            chosen = chosen or _choose_columns(path, list(entry), settings)
            if chosen["time"] is None and settings.time is None:
                _check_no_new_time(path, number, entry.keys() - known)
                known |= entry.keys()
            for role, name in chosen.items():
                if name is None:
                    continue
                value = entry.get(name)
                if value is None or value == "":
                    raise DataError(f"{path}: line {number}: {role} is missing ({quoted(name)})")
                if not isinstance(value, str):
                    raise DataError(
                        f"{path}: line {number}: {role} is {quoted(value)}: "
                        "expected text or a number"
                    )
                if role == "time":
                    times.append(value)
                else:
                    codes[role].append(numberings[role][value])
            lines.append(number)
    return Table(
        format="JSON lines",
        separator=None,
        columns=chosen,
        user=Ids(np.array(codes["user"]), list(numberings["user"])),
        item=Ids(np.array(codes["item"]), list(numberings["item"])),
        time=pd.Series(times, dtype=object) if chosen["time"] else None,
        location=lambda row: f"line {lines[row]}",
    )


def _numbering() -> defaultdict[str, int]:
    """A dict that gives each new token the next number: 0, 1, ..."""
    numbering: defaultdict[str, int] = defaultdict()
    numbering.default_factory = numbering.__len__
    return numbering


def _json_object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line, parse_int=str, parse_float=str, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        advice = ""
        if line.lstrip().startswith("{'"):
            advice = "; a Python dict: write it with json.dumps(ast.literal_eval(line))"
        elif line.lstrip().startswith("["):
            advice = "; a JSON array: write one JSON object per line"
        raise DataError(f"{path}: line {number}: not JSON: {one_line(error)}{advice}") from None
    if not isinstance(entry, dict):
        raise DataError(
            f"{path}: line {number}: expected one JSON object per line, got "
            f"{'an array' if isinstance(entry, list) else 'one value'}: write JSON lines"
        )
    return entry


def _read_parquet(path: Path, settings: ReadSettings) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(f"{path}: Parquet needs pyarrow: pip install '.[parquet]'") from None
    with open_binary(path) as file:
        content = pa.BufferReader(file.read()) if compression(path) else path
    try:
        with pq.ParquetFile(content) as source:
            chosen = _choose_columns(path, source.schema_arrow.names, settings)
            names = [name for name in chosen.values() if name]
            table = source.read(columns=names, use_threads=False)
        table.validate(full=True)
        columns = {role: table.column(name) for role, name in chosen.items() if name}
        user, item = (_parquet_ids(path, role, columns[role]) for role in ("user", "item"))
        time = _parquet_times(path, columns["time"]) if "time" in columns else None
    except DataError:
        raise
    except (pa.ArrowException, MemoryError, KeyError, ValueError, OSError) as error:
        raise DataError(f"{path}: damaged Parquet: {one_line(error)}") from None
    return Table(
        format="Parquet",
        separator=None,
        columns=chosen,
        user=user,
        item=item,
        time=time,
        location=lambda row: f"row {row + 1}",
    )


def _parquet_ids(path: Path, role: str, column: Any) -> Ids:
    """Read ids: signed integers and whole floats as integers, all others as text."""
    import pyarrow as pa

    dtype = column.type
    if pa.types.is_dictionary(dtype):
        dtype = dtype.value_type
        column = column.cast(dtype)
    if pa.types.is_nested(dtype) or pa.types.is_null(dtype):
        raise DataError(f"{path}: the {role} column holds {dtype}: ids are text or whole numbers")
    encoded = column.dictionary_encode().unify_dictionaries().chunks
    if not encoded:
        return Ids(np.empty(0, np.int64), [])
    codes = np.concatenate([part.indices.fill_null(-1).to_numpy() for part in encoded])
    distinct = encoded[0].dictionary
    if pa.types.is_floating(dtype):
        numbers = distinct.to_numpy(zero_copy_only=False).astype(np.float64)
        bad = ~(np.abs(numbers) < 2**53) | (numbers % 1 != 0)
        if bad.any():
            row = int(np.isin(codes, np.flatnonzero(bad)).argmax())
            raise DataError(
                f"{path}: row {row + 1}: {role} id {numbers[codes[row]]} ({dtype}) is not a whole "
                "number whose absolute value is below 2**53; convert the column to text or integers"
            )
        again, integers = pd.factorize(numbers.astype(np.int64))  # 0.0 and -0.0 are one id
        return Ids(np.where(codes < 0, -1, again[codes]), integers)
    if pa.types.is_signed_integer(dtype):
        return Ids(codes.astype(np.int64), distinct.to_numpy().astype(np.int64))
    text = distinct.cast(pa.string()).to_pylist()
    empty = [i for i, value in enumerate(text) if value == ""]  # missing, as in a CSV file
    return Ids(np.where(np.isin(codes, empty), -1, codes).astype(np.int64), text)


def _parquet_times(path: Path, column: Any) -> pd.Series:
    import pyarrow as pa

    dtype = column.type
    if pa.types.is_dictionary(dtype):
        dtype = dtype.value_type
        column = column.cast(dtype)
    if pa.types.is_date(dtype):
        column = column.cast(pa.timestamp("ms"))
    elif pa.types.is_decimal(dtype):
        column = column.cast(pa.float64())
    elif not (
        pa.types.is_integer(dtype)
        or pa.types.is_floating(dtype)
        or pa.types.is_timestamp(dtype)
        or pa.types.is_string(dtype)
        or pa.types.is_large_string(dtype)
    ):
        raise DataError(f"{path}: the time column holds {dtype}: a time is a number or a date")
    return column.to_pandas()
