"""The examples of docs/usage.md run; every optimizer has its page."""

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


def test_every_optimizer_has_its_page():
    pages = " ".join(page.read_text() for page in DOCS.glob("*.md"))
    for name in simba.__all__:
        assert name == "SignOptimizer" or f"`simba.{name}(" in pages


def test_no_page_holds_a_placeholder():
    for page in (REPOSITORY / "README.md", *DOCS.glob("*.md")):
        assert not re.search(r"^[A-Z]+_[A-Z_]+$|MEASURED_", page.read_text(), re.M), page
