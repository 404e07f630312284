"""Open a file of interactions, compressed or not, with one-line errors for unreadable files."""

import bz2
import csv
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

from data.errors import DataError

COMPRESSED: dict[bytes, tuple[str, Callable[..., Any]]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"BZh": ("bzip2", bz2.open),
    b"\xfd7zXZ\x00": ("xz", lzma.open),
}
ZIP = b"PK\x03\x04"
UNSUPPORTED = {
    b"\x28\xb5\x2f\xfd": "zstd is not supported: decompress the file",
    b"7z\xbc\xaf\x27\x1c": "7z is not supported: decompress the file",
    b"Rar!": "RAR is not supported: decompress the file",
    b"\x89HDF": "HDF5 is not supported: convert the file to CSV or Parquet",
    b"SQLite format 3": "SQLite is not supported: convert the file to CSV or Parquet",
    b"\x93NUMPY": "NumPy's format is not supported: convert the file to CSV or Parquet",
    b"ARROW1": "Feather is not supported: convert the file to CSV or Parquet",
    b"\x80": "pickle is not supported: convert the file to CSV or Parquet",
    b"\xff\xfe": "UTF-16 is not supported: convert the file to UTF-8",
    b"\xfe\xff": "UTF-16 is not supported: convert the file to UTF-8",
}
CHUNK = 1 << 20  # bytes


def compression(path: Path) -> str | None:
    """``gzip``, ``bzip2``, ``xz`` or ``zip``, detected from the first bytes; else None."""
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(ZIP):
        return "zip"
    return next((name for magic, (name, _) in COMPRESSED.items() if head.startswith(magic)), None)


def open_binary(path: Path) -> IO[bytes]:
    """Open ``path`` as bytes, decompressed.

    Raises:
        DataError: the file is a zip archive that does not hold exactly one file.
    """
    kind = compression(path)
    if kind is None:
        return path.open("rb")
    if kind == "zip":
        archive = zipfile.ZipFile(path)
        names = [n for n in archive.namelist() if not n.endswith("/") and "__MACOSX" not in n]
        if len(names) != 1:
            raise DataError(
                f"{path}: the archive contains {len(names)} files instead of one "
                f"({shown(names)}): unpack it and give the file by data.path=PATH"
            )
        return archive.open(names[0])
    return next(opener for name, opener in COMPRESSED.values() if name == kind)(path, "rb")


def open_text(path: Path) -> TextIO:
    """Open ``path`` as UTF-8 text without a byte order mark; newlines are not translated."""
    return io.TextIOWrapper(open_binary(path), encoding="utf-8-sig", newline="")


def check_readable(path: Path, head: bytes) -> None:
    """Refuse unsupported formats, detected from the first bytes of the content.

    Raises:
        DataError: the content is empty or of such a format; the error names it.
    """
    if not head.removeprefix(b"\xef\xbb\xbf").strip():
        raise DataError(f"{path}: the file is empty")
    for magic, reason in UNSUPPORTED.items():
        if head.startswith(magic):
            raise DataError(f"{path}: {reason}")
    if head[257:262] == b"ustar":
        raise DataError(f"{path}: tar is not supported: unpack the archive and give one file")
    if head.startswith((ZIP, *COMPRESSED)):
        raise DataError(f"{path}: the file is compressed twice: decompress it once")


def has_quotes(path: Path) -> bool:
    """Whether a text file holds a double quote.

    Raises:
        DataError: the file holds a NUL byte; the error names its line.
    """
    quotes, line = False, 1
    with open_binary(path) as file:
        while chunk := file.read(CHUNK):
            if b"\0" in chunk:
                line += chunk[: chunk.index(b"\0")].count(b"\n")
                raise DataError(f"{path}: line {line}: a NUL byte: damaged, or not a text file")
            line += chunk.count(b"\n")
            quotes = quotes or b'"' in chunk
    return quotes


@contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Turn exceptions from reading a missing, damaged or unknown file into a DataError."""
    try:
        yield
    except DataError:
        raise
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(
            f"{path}: neither UTF-8 text nor Parquet (byte 0x{byte:02x}); "
            "if it is text in another encoding, convert it, for example by "
            "iconv -f latin1 -t utf-8 OLD > NEW"
        ) from None
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: damaged or cut short: {one_line(error)}") from None
    except OSError as error:
        # errors of bz2 and gzip have no strerror
        damaged = f"damaged or cut short: {one_line(error)}"
        raise DataError(f"{path}: {error.strerror or damaged}") from None
    except csv.Error as error:  # a value longer than the csv module's limit
        raise DataError(f"{path}: not a table: {one_line(error)}") from None
    except (RuntimeError, NotImplementedError) as error:  # zipfile: encrypted or unknown method
        raise DataError(f"{path}: cannot be unpacked: {one_line(error)}") from None


def one_line(error: BaseException) -> str:
    """An exception's message in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def shown(values: list[str], most: int = 8) -> str:
    """The first ``most`` values, quoted, for an error message."""
    total = f", … ({len(values)} in all)" if len(values) > most else ""
    return ", ".join(quoted(value) for value in values[:most]) + total


def quoted(value: object, most: int = 60) -> str:
    """A value's repr, cut to ``most`` characters, for an error message."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def printable(text: str) -> str:
    """Escape control characters, so that a file cannot send them to a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
