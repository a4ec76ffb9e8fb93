"""JupyterLab itself, in Debian's Chromium: what somebody sees who opens a notebook and runs all of it."""

import json
import re
import shutil
from pathlib import Path

import pytest
from labs import CHROMIUM, open_lab

ROOT = Path(__file__).parents[1]
ARTEFACTS = ROOT / ".ci" / "artefacts"
CHARTS, TABLES = 6, 5  # at least so many does 04 show
ALL_READS = "hits of 1,201 requests"  # of the cache that is watched

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"
    ),
]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Open 04, run all of it, and return what was seen meanwhile and what was there in the end."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(ROOT / "notebooks" / "04_hit_rates.ipynb", folder)
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    with open_lab(folder, "04_hit_rates.ipynb") as lab:
        lab.command("Run", "Run All Cells")
        monitor = lab.page.locator(".jp-OutputArea-output .tradecache-monitor").first
        monitor.wait_for(state="attached", timeout=60_000)
        lab.show(monitor)
        seen = [monitor.text_content()]
        for _ in range(12):
            lab.page.wait_for_timeout(250)
            seen.append(monitor.text_content())
        lab.page.screenshot(path=ARTEFACTS / "lab-monitor.png")
        lab.wait_until_idle()
        lab.scroll_through()
        lab.page.screenshot(path=ARTEFACTS / "lab-end.png")
        lab.save()
        counts = {
            "charts": lab.page.locator(".jp-OutputArea-output img").count(),
            "tables": lab.page.locator(".jp-OutputArea-output table.dataframe").count(),
            "errors": lab.page.locator(".jp-OutputArea-output[data-mime-type*=error]").all_inner_texts(),
        }
        stopped = monitor.text_content()
    return seen, counts, stopped, json.loads((folder / "04_hit_rates.ipynb").read_text())


def test_no_cell_failed(ran):
    """Every code cell ran, and none shows an error."""
    _, counts, _, saved = ran
    cells = [cell for cell in saved["cells"] if cell["cell_type"] == "code"]

    assert counts["errors"] == []
    assert [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"] == []
    assert all(cell["execution_count"] for cell in cells)


def test_charts_and_tables(ran):
    """The charts and the tables are in the output areas."""
    _, counts, *_ = ran

    assert counts["charts"] >= CHARTS
    assert counts["tables"] >= TABLES


def test_the_monitor_moved(ran):
    """While the cell with the load was running, the number of requests grew from look to look."""
    seen, *_ = ran
    requests = [int(re.search(r"hits of ([\d,]+) requests", text)[1].replace(",", "")) for text in seen]

    assert requests == sorted(requests)
    assert len(set(requests)) >= 5
    assert "● live" in seen[1]


def test_the_monitor_that_was_saved(ran):
    """What is saved with the notebook is the monitor's last state, as HTML that needs no kernel and no widget."""
    *_, stopped, saved = ran
    places = [
        output["data"]
        for cell in saved["cells"]
        for output in cell.get("outputs", [])
        if "tradecache-monitor" in "".join(output.get("data", {}).get("text/html", ""))
    ]

    assert [list(place) for place in places] == [["text/html", "text/plain"]]
    assert ALL_READS in "".join(places[0]["text/html"])
    assert ALL_READS in stopped
    assert "■ stopped" in stopped
