"""The command of every committed record composes to the config in that record."""

import json
import shlex
from functools import cache

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from scripts.records.record import digest, identity
from scripts.running.config import checked
from tests.conftest import REPOSITORY

CONFIGS = REPOSITORY / "configs"
RECORDS = sorted((REPOSITORY / "results" / "runs").glob("*/*/*.json"))


def composed(command: str) -> dict:
    """The config of a command. Commands that differ in plain values alone are composed once."""
    words = shlex.split(command)
    overrides = words[words.index("scripts.train") + 1 :]
    groups = [text for text in overrides if (CONFIGS / text.partition("=")[0]).is_dir()]
    cfg = of_groups(tuple(groups)).copy()
    values = [text for text in overrides if text not in groups]
    for override in OverridesParser.create().parse_overrides(values):  # as Hydra does in the end
        OmegaConf.update(cfg, override.key_or_group, override.value())
    return checked(cfg)


@cache
def of_groups(overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", [*overrides])


def test_there_are_records():
    assert len(RECORDS) >= 126


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: "/".join(p.parts[-3:]))
def test_the_command_of_a_committed_record_gives_its_config_and_hash(path):
    record = json.loads(path.read_text())
    again = identity(composed(record["command"]), record["config"]["data"]["sha256"])
    assert json.loads(json.dumps(again)) == record["config"]
    assert digest(again) == record["config_hash"]
