"""Which package may import which; docs/architecture.md has the picture."""

import ast
import importlib
import re
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.conftest import REPOSITORY

COMMANDS = sorted(p.stem for p in (REPOSITORY / "scripts").glob("*.py") if p.stem != "__init__")
OURS = ("simba", "models", "data", "scripts", "benchmarks", "tests")
REPORTING = {"scripts.records", "scripts.reporting"}
MAY_IMPORT = {  # packages of this repository
    "simba": {"simba"},
    "models": {"models"},
    "data": {"data"},
    "scripts/records": {"scripts.records"},
    "scripts/reporting": REPORTING,
    "scripts/running": {"scripts.running", "scripts.records", "models", "data", "simba"},
    "notebooks": REPORTING,
    "benchmarks": {
        *("benchmarks", "scripts.train", "scripts.running", "scripts.records"),
        "scripts.reporting.render",
        *("models", "data", "simba"),
    },
    **{f"scripts/{command}.py": {"scripts.running", *REPORTING, "data"} for command in COMMANDS},
}
NEVER = {  # packages of others
    "simba": ("hydra", "pandas", "numpy"),
    "data": ("torch",),
    "scripts/records": ("torch", "pandas", "hydra"),
    "scripts/reporting": ("torch", "hydra"),
    "notebooks": ("torch", "hydra"),
}


def imports(path):
    """The modules that a file imports, at any level."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("place", MAY_IMPORT)
def test_imports_go_one_way(place):
    where = REPOSITORY / place
    files = sorted(where.rglob("*.py")) if where.is_dir() else [where]
    assert files
    for path in files:
        if "peers" in path.parts:
            continue
        for module in imports(path):
            start = module.split(".")[0]
            assert start not in NEVER.get(place, ()), f"{path} imports {module}"
            if start in OURS:
                allowed = any(f"{module}.".startswith(f"{own}.") for own in MAY_IMPORT[place])
                assert allowed, f"{path} imports {module}"


def test_a_command_imports_either_running_or_reporting():
    for command in COMMANDS:
        modules = set(imports(REPOSITORY / "scripts" / f"{command}.py"))
        halves = {m.split(".")[1] for m in modules if m.startswith("scripts.")} - {"records"}
        assert len(halves) <= 1, f"scripts/{command}.py imports both halves"


def test_commands_are_short():
    for command in COMMANDS:
        lines = (REPOSITORY / "scripts" / f"{command}.py").read_text().splitlines()
        assert len(lines) <= 80, f"scripts/{command}.py: put its parts into running or reporting"


@pytest.mark.parametrize("module", [*(f"scripts.{c}" for c in COMMANDS), "data.prepare"])
def test_help_has_an_example_and_fits_100_columns(module, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with suppress(SystemExit):
        importlib.import_module(module).main()
    output = capsys.readouterr().out
    assert re.search(rf"^ +python -m {module}( [^-\[].*)?$", output, re.M)
    if module != "scripts.train":  # Hydra prints a whole config
        assert max(map(len, output.splitlines())) <= 100


STARTS = """
import importlib, sys
for command in ("aggregate", "make_tables", "make_figures", "report", "compare", "running.status"):
    importlib.import_module(f"scripts.{command}")
    if "torch" in sys.modules:
        sys.exit(f"scripts.{command} imports torch")
"""


def test_reporting_and_status_start_without_torch():
    done = subprocess.run(
        [sys.executable, "-c", STARTS], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
