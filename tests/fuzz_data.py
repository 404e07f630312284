"""Run data.prepare on random files: ``python -m tests.fuzz_data N [SEED]`` (make fuzz N=10000).

The files have all formats. They contain odd tokens, are mutated byte by byte, and some are
compressed. A file must either be read, and its sequences pass their check, or give a DataError of
one line. Any other outcome is a failure. Failures are counted and printed with the seed of their
case; the exit code is then 1.
"""

import argparse
import bz2
import csv
import gzip
import io
import json
import lzma
import sys
import tempfile
import traceback
import zipfile
from collections import Counter
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from data import cache
from data.errors import DataError
from data.prepare import format_reading, prepare

ODD = [
    "", " ", "0", "007", "-7", "--4", "1_2", "²", "1.5", "1e999", "nan", "NA", "null", "None",
    '"', '"a', 'a"', '""', "a,b", "a\tb", "a::b", "é", "\ufeff", "\u2028", "\x1f", "\x00", "\\N",
    "x" * 5000, "9" * 5000, "9223372036854775807", "9223372036854775808", "-9223372036854775808",
    "True", "inf", "[1]", "{}", "2020-03-09", "2020-03-09 20:56:38", "2020-03-09T20:56:38+02:00",
    "2020-13-45", "12 12, 2012", "now",
]  # fmt: skip
BYTES = [
    b"\n", b"\r", b"\r\n", b'"', b"\x00", b",", b"\t", b"::", b"\xff", b"\xef\xbb\xbf", b"\n\n",
    b"PAR1", b"\x1f\x8b", b"PK\x03\x04", b"{", b"[[[[", b"[" * 3000, b":token", b"9" * 400,
]  # fmt: skip
COLUMNS = ["user", "item", "timestamp"]


def tokens(rng: np.random.Generator, rows: int, oddness: float, most: int) -> list[str]:
    """Small numbers, mixed with odd tokens."""
    return [
        str(rng.choice(ODD)) if rng.random() < oddness else str(rng.integers(most))
        for _ in range(rows)
    ]


def table(rng: np.random.Generator) -> pd.DataFrame:
    rows, oddness = int(rng.integers(0, 60)), float(rng.choice([0, 0, 0, 0.02, 0.3]))
    values = {"user": tokens(rng, rows, oddness, 5), "item": tokens(rng, rows, oddness, 30)}
    if rng.random() < 0.7:
        values["timestamp"] = tokens(rng, rows, float(rng.choice([0, 0, 0, 0.02, 0.3])), 99)
    if rng.random() < 0.3:
        values["title"] = tokens(rng, rows, 0.5, 9)
    return pd.DataFrame(values, dtype=object)


def delimited(rng: np.random.Generator) -> bytes:
    frame = table(rng)
    separator = str(rng.choice(["\t", "::", ",", ";", "|", " "]))
    if rng.random() < 0.3:
        frame.columns = [f"{'timestamp' if c == 'timestamp' else c + '_id'}:token" for c in frame]
    rows = [*([list(frame.columns)] if rng.random() < 0.7 else []), *frame.to_numpy().tolist()]
    if rng.random() < 0.3 and len(separator) == 1:
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=separator, quoting=int(rng.integers(3))).writerows(rows)
        return text.getvalue().encode()
    return "\n".join(separator.join(map(str, row)) for row in rows).encode()


def lines(rng: np.random.Generator) -> bytes:
    oddness = float(rng.choice([0, 0, 0, 0.02]))
    least, most = [(1, 2), (2, 12), (3, 12), (1, 12)][rng.integers(4)]
    return "\n".join(
        " ".join([str(user), *tokens(rng, int(rng.integers(least, most)), oddness, 30)])
        for user in range(int(rng.integers(1, 12)))
    ).encode()


def json_lines(rng: np.random.Generator) -> bytes:
    odd = [None, [1], {"a": 1}, True, 1.5, 10**30, "\ud800", float("nan")]
    rows = table(rng).to_dict("records")
    for row in rows:
        if rng.random() < 0.05:
            row[str(rng.choice(COLUMNS))] = odd[rng.integers(len(odd))]
        if rng.random() < 0.02:
            row.pop("item")
    return "\n".join(json.dumps(row) for row in rows).encode()


def parquet(rng: np.random.Generator) -> bytes:
    frame = table(rng)
    for name in frame.columns:
        kind = rng.integers(10)
        numbers = rng.integers(-5, 30, len(frame))
        if kind < 4:
            frame[name] = numbers
        elif kind == 4:
            frame[name] = numbers / rng.choice([1, 2])
        elif kind == 5:
            frame[name] = pd.to_datetime(numbers, unit="D")
        elif kind == 6:
            frame[name] = pd.Series([[1, 2]] * len(frame), dtype=object)
        elif kind == 7:
            frame[name] = pd.Series(frame[name], dtype="category")
        elif kind == 8:
            frame[name] = pd.Series([b"\xff"] * len(frame), dtype=object)
    file = io.BytesIO()
    frame.to_parquet(file)
    return file.getvalue()


def noise(rng: np.random.Generator) -> bytes:
    return rng.bytes(int(rng.integers(0, 300)))


MAKERS = [*[delimited] * 4, *[lines] * 2, *[json_lines] * 2, *[parquet] * 2, noise]


def mutated(rng: np.random.Generator, content: bytes) -> bytes:
    for _ in range(int(rng.choice([0, 0, 0, 0, 0, 1, 1, 2, 5]))):
        at, end = sorted(int(i) for i in rng.integers(0, len(content) + 1, 2))
        kind = rng.integers(5)
        if kind == 0:
            byte = rng.bytes(1) if rng.random() < 0.3 else bytes([rng.integers(32, 127)])
            content = content[:at] + byte + content[at + 1 :]
        elif kind == 1:
            content = content[:at] + content[min(end, at + 20) :]
        elif kind == 2:
            content = content[:at] + BYTES[rng.integers(len(BYTES))] + content[at:]
        elif kind == 3:
            content = content[:at] if rng.random() < 0.5 else content[at:]
        else:
            content = content[:end] + content[at:]
    return content


def compressed(rng: np.random.Generator, content: bytes) -> bytes:
    kind = rng.integers(16)
    if kind == 0:
        return gzip.compress(content)
    if kind == 1:
        return bz2.compress(content)
    if kind == 2:
        return lzma.compress(content)
    if kind == 3:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(int(rng.choice([1, 1, 1, 2]))):
                archive.writestr(f"{number}.csv", content)
        return file.getvalue()
    return content


def keys(rng: np.random.Generator) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    if rng.random() < 0.2:
        chosen["columns"] = [*COLUMNS, "title"][: rng.integers(1, 5)]
    if rng.random() < 0.1:
        chosen["separator"] = str(rng.choice(["tab", "::", ",", " ", "", '"', "\n", "ab", "\x1f"]))
    if rng.random() < 0.2:
        chosen["time_column"] = [False, "title", "nothing"][rng.integers(3)]
    if rng.random() < 0.1:
        role = str(rng.choice(["user", "item", "time"]))
        chosen[f"{role}_column"] = str(
            rng.choice(["user", "item", "timestamp", "user_id", "item_id"])
        )
    if rng.random() < 0.1:
        chosen["k_core"] = int(rng.integers(4))
    return chosen


def run_case(seed: int, folder: Path) -> str:
    """Run one case; returns ``read`` or ``refused``, and raises any other outcome."""
    rng = np.random.default_rng(seed)
    make = MAKERS[rng.integers(len(MAKERS))]
    packed = compressed(rng, mutated(rng, make(rng)))
    content = mutated(rng, packed) if rng.random() < 0.1 else packed
    path = folder / "case"
    path.write_bytes(content)
    try:
        prepared = prepare({"path": path} | keys(rng))
    except DataError as error:
        line = str(error)
        if len(line.splitlines()) != 1 or len(line) > 1500:
            raise AssertionError(f"not one line: {line}") from error
        if str(path) not in line and "data." not in line:
            raise AssertionError(f"neither file nor key is named: {line}") from error
        return "refused"
    prepared.sequences.check()
    assert all(text.isprintable() for text in format_reading(prepared.understood).values())
    return "read"


def run(cases: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Run cases; returns the counts of read and refused files, and the failures with seeds."""
    cache.FOLDER = folder / "prepared"
    outcomes: Counter[str] = Counter()
    failures = []
    for case in tqdm(range(seed, seed + cases), unit="file", disable=None):
        try:
            with redirect_stderr(io.StringIO()):
                outcomes[run_case(case, folder)] += 1
        except Exception:
            failures.append(f"seed {case}: {traceback.format_exc()[-3000:]}")
    return outcomes, failures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_data", description=__doc__)
    parser.add_argument("cases", type=int, nargs="?", default=10_000)
    parser.add_argument("seed", type=int, nargs="?", default=0, help="seed of the first case")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcomes, failures = run(args.cases, args.seed, Path(folder))
    for failure in failures[:20]:
        print(failure)
    print(f"{outcomes['read']} read, {outcomes['refused']} refused, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
