"""The examples of docs/usage.md and docs/distributed.md run; every optimizer has its page."""

import inspect
import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

import simba
from tests.conftest import REPOSITORY

DOCS, BENCHMARKS = REPOSITORY / "docs", REPOSITORY / "results" / "benchmarks"
SECTIONS = dict(
    re.findall(r"^## (.+?)\n.*?```python\n(.*?)```", (DOCS / "usage.md").read_text(), re.M | re.S)
)
NEEDS = {"A plain loop": "torch", "Lightning": "lightning", "Hugging Face Trainer": "transformers"}


@pytest.mark.parametrize("section", NEEDS)
def test_example_runs(section, tmp_path):
    if find_spec(NEEDS[section]) is None:
        pytest.skip(f"{NEEDS[section]} is not installed: pip install '.[examples]'")
    command = [sys.executable, "-c", SECTIONS[section]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_example_of_voting_workers_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "distributed.md").read_text(), re.S)
    (tmp_path / "mine.py").write_text(code)
    start = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "mine.py"]
    path = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = {"cwd": tmp_path, "env": os.environ | path, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-m", *start], **command)
    assert done.returncode == 0, done.stderr
    ours, theirs = (torch.load(tmp_path / f"worker{rank}.pt") for rank in range(2))
    assert all(map(torch.equal, *(s[0]["state"][0].values() for s in (ours, theirs))))
    assert not torch.equal(*(s[1]["errors"][0] for s in (ours, theirs)))


def rows_of(text: str) -> list[list[str]]:
    """The cells of the tables in a text."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_learning_rates_in_the_docs_are_those_of_the_benchmark():
    benchmark = rows_of((BENCHMARKS / "convergence.md").read_text())
    measured = {(task, name): values for task, name, *values in benchmark}
    section = (DOCS / "variants.md").read_text().split("\n## Learning rates\n")[1]
    rows = rows_of(section.split("\n## ")[0])[2:]
    assert len(rows) == 10
    for name, *cells in rows:
        for task, best, loss in zip(("digits", "characters"), cells[::2], cells[1::2], strict=True):
            lr, decay, exact, *_ = measured[task, name]
            assert [float(lr), float(decay)] == [*map(float, best.split(", "))], name
            assert float(loss) == pytest.approx(float(exact.split()[0]), abs=0.000501), name


@pytest.mark.parametrize("name", sorted({*simba.__all__} - {"SignOptimizer"}))
def test_every_optimizer_has_its_page_with_its_defaults(name):
    pages = " ".join(page.read_text() for page in DOCS.glob("*.md"))
    call = re.search(rf"`simba\.{name}\(params, (.+?)\)`", pages, re.S)
    assert call, f"docs/: no page with `simba.{name}(params, ...)`"
    documented = eval(f"dict({call[1]})")
    known = inspect.signature(getattr(simba, name)).parameters.values()
    has = {p.name: p.default for p in known if p.name not in ("params", "options")}
    assert documented == has
