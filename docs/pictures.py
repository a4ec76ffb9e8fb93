"""Which pictures does the README show? Those that the notebooks draw: run this after a notebook has changed.

Each cell with a tag "picture:<name>" is executed with its notebook, and what it draws becomes docs/<name>.png,
drawn with few colours so that the repository stays small.
"""

import base64
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[1]
WANTED = ("coverage", "warming", "ttl", "hit-rate", "latency", "memory-choice")
COLOURS = 64


def main() -> None:
    """Draw the wanted pictures anew.

    Raises:
        LookupError: When no cell draws one of them.
    """
    missing = set(WANTED)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if not any(_name(cell) in WANTED for cell in notebook.cells):
            continue
        with tempfile.TemporaryDirectory() as folder:
            NotebookClient(notebook, resources={"metadata": {"path": folder}}).execute()
        for name, picture in _pictures(notebook):
            picture.save(ROOT / "docs" / f"{name}.png", optimize=True)
            missing.remove(name)
    if missing:
        raise LookupError(f"no cell has a tag for {', '.join(sorted(missing))}")


def _pictures(notebook: nbformat.NotebookNode) -> Iterator[tuple[str, Image.Image]]:
    for cell in notebook.cells:
        if _name(cell) in WANTED:
            (drawn,) = [
                each.data["image/png"] for each in cell.outputs if "image/png" in each.get("data", {})
            ]
            picture = Image.open(io.BytesIO(base64.b64decode(drawn))).convert("RGB")
            yield _name(cell), picture.quantize(COLOURS, dither=Image.Dither.NONE)


def _name(cell: nbformat.NotebookNode) -> str:
    """Return the name of the picture that a cell draws, "" where it draws none."""
    tags = cell.metadata.get("tags", [])
    return next((tag.removeprefix("picture:") for tag in tags if tag.startswith("picture:")), "")


if __name__ == "__main__":
    main()
