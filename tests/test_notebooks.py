"""The notebooks: their two halves agree, what they show is current, and the guided one runs."""

import re

import jupytext
import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient

from tests.conftest import REPOSITORY
from tests.forked import python

NOTEBOOKS = REPOSITORY / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("0*.py"))
TRAINS = "05_your_own_variant"
pytestmark = pytest.mark.filterwarnings("ignore")


def read(name: str):
    return nbformat.read(str(NOTEBOOKS / f"{name}.ipynb"), as_version=4)


def execute(notebook) -> None:
    NotebookClient(notebook, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def shown_by(notebook) -> list[str]:
    """A notebook's tables and a placeholder per figure, as its bits depend on matplotlib."""
    data = [output["data"] for output in outputs(notebook) if "data" in output]
    assert all("text/markdown" in d or "image/png" in d for d in data)
    return [d.get("text/markdown", "a figure") for d in data]


def printed_by(notebook) -> str:
    return "".join(o["text"] for o in outputs(notebook) if o["output_type"] == "stream")


@pytest.mark.parametrize("name", NAMES)
def test_both_halves_of_a_notebook_have_the_same_cells(name):
    script = jupytext.read(NOTEBOOKS / f"{name}.py")
    cells = [cell.source for cell in read(name).cells]
    assert cells == [cell.source for cell in script.cells], "run make notebooks"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*NAMES} - {TRAINS}))
def test_notebooks_show_the_committed_results(name):
    notebook = read(name)
    committed = shown_by(notebook)
    execute(notebook)
    assert committed, "it shows nothing: run make notebooks"
    assert committed == shown_by(notebook), "run make notebooks"


def with_data(data: str):
    """The guided notebook on other data, with the fewest epochs."""
    notebook = read(TRAINS)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    (cell,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    cell.source = cell.source.replace("data=ml-100k", data).replace("EPOCHS = 15", "EPOCHS = 3")
    forked = f"import sys; sys.executable = {python()!r}"  # starts the commands
    notebook.cells.insert(0, nbformat.v4.new_code_cell(forked))
    return notebook


@pytest.mark.slow
def test_the_guided_notebook_trains_a_variant_and_shows_it_beside_others(toy):
    notebook = with_data(f"data=file data.path={toy}")
    execute(notebook)
    table, figure, committed = shown_by(notebook)
    labels = [line.split("|")[1].strip() for line in table.splitlines()[4:]]
    assert labels == ["Lion", "sign-SGD", "Simba", "cautious"]
    assert figure == "a figure"
    assert "reproduce-sasrec-ml-100k" in committed
    recommended = re.findall(r"│ +(\d) │ +(\d+) │", printed_by(notebook))
    assert [rank for rank, _ in recommended] == list("12345")
    assert not {"1", "7", "22"} & {item for _, item in recommended}


def test_what_the_guided_notebook_shows_is_committed():
    notebook = read(TRAINS)
    assert len(shown_by(notebook)) == 3
    assert not re.search(r"(^|\s)/\w", printed_by(notebook)), "a path of one machine"


@pytest.mark.slow
def test_a_command_that_fails_is_shown_without_a_traceback(monkeypatch, capsys):
    monkeypatch.syspath_prepend(NOTEBOOKS)
    monkeypatch.chdir(REPOSITORY)
    shell = InteractiveShell(history_manager=None)
    command = "python -m scripts.train data=file data.path=none.txt"
    assert not shell.run_cell(f"from show import run; run({command!r})").success
    output = capsys.readouterr().out.splitlines()
    assert output == [
        "error: none.txt: no such file (data.path)",
        f"the command failed: {command}",
    ]
