"""SequenceModel: the example in docs/models.md trains; a class that lacks a method is an error."""

import json
import re
import sys

import pytest
import torch

from models.contract import SequenceModel
from scripts.recommend import main
from scripts.records.errors import UserError
from scripts.running.training import build_model
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "models.md").read_text()
CODE, CONFIG = (re.search(rf"```{kind}\n(.*?)```", PAGE, re.S)[1] for kind in ("python", "yaml"))


@pytest.fixture
def train_mine(train, tmp_path):
    """A function that runs scripts.train with given model code and the config of docs/models.md."""

    def run(code: str, *settings: str):
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "last_item.yaml").write_text(CONFIG)
        (tmp_path / "last_item.py").write_text(code)
        own = (f"--config-dir={tmp_path}", "model=last_item")
        return train(*own, *settings, PYTHONPATH=str(tmp_path))

    return run


@pytest.mark.parametrize("joint", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_example_of_the_page_trains(train_mine, tmp_path, joint):
    done = train_mine(CODE, "epochs=20", "optimizer=adam", f"joint={joint}")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "results").rglob("*.json")
    history = json.loads(path.read_text())["history"]
    assert history[-1]["train/loss"] < history[0]["train/loss"]


@pytest.mark.parametrize("name", ["loss", "hidden_states", "item_weight"])
def test_a_model_without_a_method_is_a_one_line_error(train_mine, tmp_path, name):
    done = train_mine(CODE.replace(f"def {name}(", f"def not_{name}("))
    assert_one_line(done, "abstract method", name)
    assert not list((tmp_path / "results" / "runs").rglob("*.json"))


def test_a_module_that_is_no_model_is_a_one_line_error(train, tmp_path):
    done = train("model._target_=torch.nn.Identity")
    assert_one_line(done, "torch.nn.Identity is not a models.contract.SequenceModel")
    assert not list((tmp_path / "results" / "runs").rglob("*.json"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("def loss(self, items,", "def loss(self, inputs,", "LastItem.loss must take items, pa"),
        ("def item_weight(self", "def item_weight(self, x", "item_weight must take no argument"),
        (
            "super().__init__(maxlen, num_dropout_keys=1)",
            "nn.Module.__init__(self)",
            "does not call super",
        ),
    ],
)
def test_a_model_that_breaks_the_contract_is_an_error(monkeypatch, tmp_path, old, new, message):
    assert old in CODE
    (tmp_path / "broken.py").write_text(CODE.replace(old, new))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    section = {"_target_": "broken.LastItem", "maxlen": 5, "hidden": 4}
    with pytest.raises(UserError, match=f"{message}.*docs/models.md"):
        build_model(section, num_items=9)


def test_a_model_of_ones_own_is_trained_again_and_recommends(
    train_mine, run_module, monkeypatch, tmp_path, capsys
):
    assert train_mine(CODE, "save_best=true").returncode == 0
    (record,) = map(str, (tmp_path / "results").rglob("*.json"))
    again = run_module("scripts.rerun", record, PYTHONPATH=str(tmp_path))
    assert again.stdout.endswith("bitwise identical\n"), again.stderr

    def recommend() -> int:
        monkeypatch.delitem(sys.modules, "last_item", raising=False)
        return main([record, "--items", "1,2", "--csv", "--top", "3"])

    assert recommend() == 2
    assert "'last_item.LastItem'" in capsys.readouterr().err  # it is not on the Python path
    monkeypatch.syspath_prepend(tmp_path)
    assert recommend() == 0
    assert capsys.readouterr().out.count("\n") == 4
    other = CODE.replace("(SequenceModel)", "(nn.Module)").replace("maxlen, num_dropout_keys=1", "")
    (tmp_path / "last_item.py").write_text(other)
    assert recommend() == 2
    output = capsys.readouterr().err
    assert "last_item.LastItem is not a models.contract.SequenceModel" in output
    assert output.count("\n") == 1


def test_a_model_that_cannot_be_diagnosed_is_a_one_line_error(train_mine):
    assert_one_line(train_mine(CODE, "diagnose_every=1"), "diagnose_every", "models.sasrec")


def assert_one_line(done, *messages: str):
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for message in messages:
        assert message in done.stderr


def test_the_page_names_all_members_of_the_base_class():
    named = set(re.findall(r"^\| `(?:SequenceModel\.)?(\w+)", PAGE, re.M))
    assert named == {"__init__", "backend", *SequenceModel.__abstractmethods__}
    with pytest.raises(TypeError, match=r"hidden_states'?, '?item_weight"):
        SequenceModel(1, 1)
    assert issubclass(SequenceModel, torch.nn.Module)
