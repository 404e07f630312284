"""The examples of docs/usage.md run, and every optimizer has a page with its defaults."""

import inspect
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

import simba
from tests.conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
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


@pytest.mark.parametrize("name", sorted({*simba.__all__} - {"SignOptimizer"}))
def test_every_optimizer_has_its_page_with_its_defaults(name):
    pages = " ".join(page.read_text() for page in DOCS.glob("*.md"))
    call = re.search(rf"`simba\.{name}\(params, (.+?)\)`", pages, re.S)
    assert call, f"docs/: no page with `simba.{name}(params, ...)`"
    documented = eval(f"dict({call[1]})")
    known = inspect.signature(getattr(simba, name)).parameters.values()
    has = {p.name: p.default for p in known if p.name not in ("params", "switches")}
    assert documented == has
