"""The notebooks: they run from a clean kernel, whole or all at once, and are committed without outputs."""

import re
import time
from pathlib import Path

import nbformat
import pytest
from kernels import running_kernel
from nbclient import NotebookClient
from scripts import environment

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
LONGEST = 60  # seconds that a notebook may take
QUIET = {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_of(path: Path) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == "code"]


def test_there_are_six():
    """Each of the six notebooks that the README names is there, and no other."""
    named = re.findall(r"\]\(notebooks/(\w+)\.ipynb\)", (FOLDER.parent / "README.md").read_text())
    assert named == NAMES
    assert len(NAMES) == 6


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=NAMES)
def executed(request, tmp_path_factory):
    """Return an executed notebook and how long it took."""
    folder, notebook = tmp_path_factory.mktemp("notebook"), read(request.param)
    client = NotebookClient(
        notebook, timeout=LONGEST, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    began = time.monotonic()
    client.execute(env=environment(QUIET | {"IPYTHONDIR": str(folder / "ipython")}), cwd=str(folder))
    return notebook, time.monotonic() - began


class TestExecuted:
    """From a clean kernel, one cell after the other."""

    def test_runs_in_a_minute(self, executed):
        """It runs to its end within a minute."""
        _, seconds = executed
        assert seconds < LONGEST

    def test_complains_of_nothing(self, executed):
        """No cell warns, or writes to stderr anything but a progress bar."""
        notebook, _ = executed
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        said = [output.text for output in outputs if output.get("name") == "stderr"]

        assert [text for text in said if not text.lstrip("\r").startswith("warm:")] == []
        assert [output for output in outputs if output.output_type == "error"] == []

    def test_charts_are_shown_once(self, executed):
        """A cell with a chart shows one picture, and no text of the Axes beside it."""
        notebook, _ = executed
        shown = [
            [output.output_type for output in cell.outputs if output.output_type != "stream"]
            for cell in notebook.cells
            if "picture" in str(cell.metadata.get("tags", ""))
        ]
        assert shown
        assert all(kinds == ["display_data"] for kinds in shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
class TestAtOnce:
    """All cells queued before the first answer, as "Run All" does."""

    def test_run_all(self, path, tmp_path):
        """No cell is lost, and none fails."""
        with running_kernel(tmp_path) as kernel:
            cells = kernel.run_all(*code_of(path))

        assert [(n, cell.error) for n, cell in enumerate(cells) if cell.status != "ok"] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
class TestCommitted:
    """What lies in the repository."""

    def test_valid(self, path):
        """It is a valid notebook whose cells have ids of their own."""
        notebook = read(path)
        nbformat.validate(notebook)
        ids = [cell.id for cell in notebook.cells]
        assert len(set(ids)) == len(ids)

    def test_no_outputs(self, path):
        """It holds no outputs, no execution counts, and nothing of the machine that it was written on."""
        for cell in read(path).cells:
            assert not cell.get("outputs")
            assert cell.get("execution_count") is None
        assert set(read(path).metadata) == {"kernelspec", "language_info"}
        assert read(path).metadata["kernelspec"]["name"] == "python3"

    def test_teaches(self, path):
        """It begins with a title, and has prose for at least each second cell of code."""
        cells = read(path).cells
        prose = [cell for cell in cells if cell.cell_type == "markdown"]
        assert cells[0].source.startswith("# ")
        assert len(prose) >= len(code_of(path)) / 2

    def test_links(self, path):
        """Each link to another notebook leads to one that is there."""
        links = re.findall(r"\]\(([^)]*\.ipynb)\)", path.read_text())
        assert links
        assert [link for link in links if not (FOLDER / link).is_file()] == []

    def test_no_network(self, path):
        """Neither of the providers is named in the code, and chance has a seed."""
        text = "\n".join(code_of(path))
        assert not re.search("yfinance|ccxt", text, re.IGNORECASE)
        assert not re.search(r"np\.random\.(?!default_rng)|default_rng\(\)", text)
