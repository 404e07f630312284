"""Run a record's command again and compare the results."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.records.errors import UserError
from scripts.records.record import differences, read_record
from scripts.running.children import module_of, run_module

RESULT_KEYS = ("best_epoch", "valid", "test")
MACHINE_KEYS = ("device", "versions")


def rerun(path: Path) -> list[str]:
    """Run a record's command again and return the differences; none if all results are equal.

    Raises:
        UserError: the file is not a record of a finished run, or its command fails.
    """
    record = read_record(path)
    if record["status"] != "finished":
        raise UserError(f"{path}: the run is {record['status']}; only a finished one can be rerun")
    command = module_of(record["command"])
    with tempfile.TemporaryDirectory() as root:
        command += [f"results.root={root}", "tracker.mode=disabled"]
        threads = str(record["device"]["threads"])  # older commands do not set OMP_NUM_THREADS
        if run_module(command, OMP_NUM_THREADS=threads):
            raise UserError(f"{path}: its command failed: {record['command']}")
        if len(again := list((Path(root) / "runs").glob("*/*/*.json"))) != 1:
            raise UserError(
                f"{path}: its command wrote {len(again)} records instead of one: "
                f"{record['command']}"
            )
        return compare(record, read_record(again[0]))


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """How the configs and results of two records differ, in words.

    If they do, how the machines differ, too. The configs differ if the data file or a config file
    has changed since.
    """
    changes = differences(old["config"], new["config"], "config.")
    old_results, new_results = ({key: r[key] for key in RESULT_KEYS} for r in (old, new))
    changes += differences(old_results, new_results)
    for old_epoch, new_epoch in zip(old["history"], new["history"], strict=False):
        if changed := differences(old_epoch, new_epoch):
            epoch = old_epoch["epoch"]
            changes.append(f"histories first differ in epoch {epoch}: {', '.join(changed)}")
            break
    if len(old["history"]) != len(new["history"]):
        changes.append(f"epochs: {len(old['history'])} -> {len(new['history'])}")
    if old["test_ranks"] != new["test_ranks"]:
        changes.append("test_ranks")
    old_machine, new_machine = ({key: r[key] for key in MACHINE_KEYS} for r in (old, new))
    return changes + differences(old_machine, new_machine) if changes else []
