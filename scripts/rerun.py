"""Run records again by their own commands and compare: ``python -m scripts.rerun RECORD...``.

On the same kind of machine every figure comes out to the bit: losses and valid of all epochs,
figures and ranks on test. On another one they may differ in the last digits. Nothing is written
beside the records; the exit code is 1 if a figure differs.
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.records.errors import UserError
from scripts.records.record import differences, read_record
from scripts.records.stopping import stoppable
from scripts.running.children import run

FIGURES = ("best_epoch", "valid", "test")


def rerun(path: Path) -> list[str]:
    """What came out differently; nothing if all figures are the same to the bit.

    Raises:
        UserError: not a record of a finished run, or its command fails.
    """
    record = read_record(path)
    if record["status"] != "finished":
        raise UserError(f"{path}: the run is {record['status']}; only a finished one can be held")
    words = shlex.split(record["command"])
    overrides = words[words.index("scripts.train") + 1 :]
    with tempfile.TemporaryDirectory() as root:
        overrides += [f"results.root={root}", "tracker.mode=disabled"]
        threads = str(record["device"]["threads"])  # older commands do not set it
        if run(["scripts.train", *overrides], OMP_NUM_THREADS=threads):
            raise UserError(f"{path}: its command failed: {record['command']}")
        (again,) = (Path(root) / "runs").glob("*/*/*.json")
        return compare(record, read_record(again))


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, after = ({key: record[key] for key in FIGURES} for record in (old, new))
    found = differences(before, after)
    for a, b in zip(old["history"], new["history"], strict=False):
        if changed := differences(a, b):
            found.append(f"first in epoch {a['epoch']}: {', '.join(changed)}")
            break
    if len(old["history"]) != len(new["history"]):
        found.append(f"epochs: {len(old['history'])} -> {len(new['history'])}")
    if old["test_ranks"] != new["test_ranks"]:
        found.append("test_ranks")
    return found


@stoppable("interrupted")
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.rerun", description=__doc__)
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORD", help="its JSON file")
    differ = False
    try:
        for path in parser.parse_args(argv).records:
            found = rerun(path)
            differ |= bool(found)
            print(f"{path}: {'; '.join(found) if found else 'the same to the bit'}", flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
