"""The command of every committed record composes to the config in that record."""

import json
import shlex

import pytest
from hydra import compose, initialize_config_dir

from scripts.records.record import digest, identity
from scripts.running.config import checked
from tests.conftest import REPOSITORY

RECORDS = sorted((REPOSITORY / "results" / "runs").glob("*/*/*.json"))


def composed(command: str) -> dict:
    words = shlex.split(command)
    overrides = words[words.index("scripts.train") + 1 :]
    with initialize_config_dir(str(REPOSITORY / "configs"), version_base="1.3"):
        return checked(compose("train", overrides))


def test_there_are_records():
    assert len(RECORDS) >= 126


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: "/".join(p.parts[-3:]))
def test_the_command_of_a_committed_record_gives_its_config_and_hash(path):
    record = json.loads(path.read_text())
    again = identity(composed(record["command"]), record["config"]["data"]["sha256"])
    assert json.loads(json.dumps(again)) == record["config"]
    assert digest(again) == record["config_hash"]
