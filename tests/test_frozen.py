"""The command of every committed record composes to the config in that record."""

import json
import shlex
from functools import cache

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from scripts.records.record import digest, identity
from scripts.running.config import checked
from tests.conftest import REPOSITORY

RECORDS = sorted((REPOSITORY / "results" / "runs").glob("*/*/*.json"))


def composed(command: str) -> dict:
    """The config of a command. Commands that differ in seed and name alone are composed once."""
    words = shlex.split(command)
    overrides = words[words.index("scripts.train") + 1 :]
    (seed,) = (o.partition("=")[2] for o in overrides if o.startswith("seed="))
    shared = [o for o in overrides if not o.startswith(("seed=", "results.name="))]
    cfg = of_overrides(tuple(shared)).copy()
    cfg.seed = int(seed)
    return checked(cfg)


@cache
def of_overrides(overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(REPOSITORY / "configs"), version_base="1.3"):
        return compose("train", [*overrides])


def test_there_are_records():
    assert len(RECORDS) >= 126


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: "/".join(p.parts[-3:]))
def test_the_command_of_a_committed_record_gives_its_config_and_hash(path):
    record = json.loads(path.read_text())
    again = identity(composed(record["command"]), record["config"]["data"]["sha256"])
    assert json.loads(json.dumps(again)) == record["config"]
    assert digest(again) == record["config_hash"]
