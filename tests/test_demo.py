import contextlib
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

import pytest
from scripts import environment, run_command, run_script, without_package

from tradecache.cli import main

DEMO = [sys.executable, "-m", "tradecache", "demo"]
POINTS, FLEETING = 12_154, 196


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One run of the demo, its output read by a program: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "here").mkdir()
    (folder / "temporary").mkdir()
    done = run_command(DEMO, cwd=folder / "here", env={"TMPDIR": str(folder / "temporary")})
    assert (done.returncode, done.stderr) == (0, "")
    return folder, done.stdout


def steps_of(output):
    """Return the rows of the demo's first table: points, and those from memory, from disk and missed."""
    row = re.compile(r"^(\S.*?) {2,}(\d+) +(\d+) +(\d+) +(\d+) +[\d.]+ +[\d.]+ *$", re.MULTILINE)
    return {name: tuple(map(int, numbers)) for name, *numbers in row.findall(output)}


def test_each_read_is_served_from_the_tier_it_should_be(demo):
    """Cold reads come from disk, repeated ones from memory, all survive a restart, and expired points are missed."""
    assert steps_of(demo[1].partition("daily bars")[0]) == {
        "store all, in one transaction": (POINTS, 0, 0, 0),
        "read each, cold": (POINTS, 0, POINTS, 0),
        "read each again": (POINTS, POINTS, 0, 0),
        "a new process: all as one frame": (POINTS, 0, POINTS, 0),
        "store FB again, to live 2 s": (FLEETING, 0, 0, 0),
        "read these": (FLEETING, 0, FLEETING, 0),
        "read these after 2 s": (FLEETING, 0, 0, FLEETING),
    }


def test_bars_are_read_through(demo):
    """Only the difference is asked for, a restart asks for nothing, and one gap opens when today's bar expires."""
    row = re.compile(r"^(\S.*?) {2,}(\d+) +(\d+) +(\d+) +(\d+) +(\d+) +[\d.]+ *$", re.MULTILINE)
    table = demo[1][demo[1].index("daily bars") :]
    assert {name: tuple(map(int, numbers)) for name, *numbers in row.findall(table)} == {
        "half a year, cold": (625, 0, 0, 625, 5),
        "the whole year: the other half": (1155, 625, 0, 530, 5),
        "the whole year again": (1155, 1155, 0, 0, 0),
        "up to now, while the market is open": (1350, 1155, 0, 195, 5),
        "a new process: the whole year": (1155, 0, 1155, 0, 0),
        "ten minutes later: today's bar": (1350, 1345, 0, 5, 5),
    }
    assert table.count("2013-02-27 00:00:00+00:00 2013-02-28 00:00:00+00:00") == 6


def test_the_statistics_are_shown(demo):
    """The statistics frame and the totals agree with the steps."""
    reads = 2 * POINTS + 2 * FLEETING
    hits = 2 * POINTS + FLEETING
    latest = 5  # one of each stock
    assert re.search(rf"^memory +{reads} +{POINTS} +0 +{reads - POINTS} +0 ", demo[1], re.MULTILINE)
    totals = f"'total_gets': {reads + latest}, 'cache_hits': {hits + latest}, 'cache_misses': {FLEETING}"
    assert totals in demo[1]


def test_the_picture(demo):
    """A PNG of a sensible size is saved where the last line says."""
    folder, output = demo
    picture = folder / "here" / "tradecache-hit-rate.png"
    content = picture.read_bytes()
    assert output.splitlines()[-1] == f"hit rate over time: {picture.resolve()}"
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (1080, 540)
    assert 10_000 < len(content) < 300_000


def test_nothing_else_is_left(demo):
    """The demo cleans up: no cache folder remains, and beside the picture nothing is written."""
    folder, _ = demo
    assert [path.name for path in (folder / "here").iterdir()] == ["tradecache-hit-rate.png"]
    assert list((folder / "temporary").iterdir()) == []


def test_progress_and_ctrl_c(tmp_path):
    """On a terminal a progress bar is shown; Ctrl-C ends the demo with 130, no traceback and no picture."""
    terminal, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = subprocess.Popen(DEMO, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    while b"read each, cold: " not in shown:
        shown += os.read(terminal, 4096)
    process.send_signal(signal.SIGINT)
    process.communicate()
    with contextlib.suppress(OSError):  # the end of a terminal that nobody writes to any more
        while more := os.read(terminal, 4096):
            shown += more
    os.close(terminal)
    assert (process.returncode, b"Traceback" in shown, list(tmp_path.iterdir())) == (130, False, [])


@pytest.mark.parametrize("output", ["chart.pdf", "chart", "missing/chart.png"])
def test_a_picture_that_cannot_be(output, tmp_path, capsys):
    """Where no picture can be saved, that is said before the work and not after it."""
    assert main(["demo", "--output", str(tmp_path / output)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err.startswith("tradecache: output is ")) == ("", 1, True)


def test_a_folder_that_may_not_be_written(tmp_path):
    """In a read-only folder it says at once, in one line, what to do."""
    code = """
        import os, sys
        import matplotlib.backends.backend_agg, tradecache.demo  # soon they may be out of reach
        from tradecache.cli import main

        os.chdir(sys.argv[1])
        if not os.getuid():
            os.setuid(65534)  # root may write anywhere
        sys.exit(main(["demo"]))
    """
    tmp_path.chmod(0o555)
    done = run_script(code, tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "tradecache: output is 'tradecache-hit-rate.png', but must be a file that may be written; choose one with --output\n"
    )


def test_without_the_sample_prices(tmp_path):
    """Where bokeh_sampledata is not installed, the one line holds the command that installs it."""
    code = "import sys; from tradecache.cli import main; sys.exit(main(['demo']))"
    done = run_script(code, cwd=tmp_path, **without_package("bokeh_sampledata", tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == "tradecache: this needs bokeh_sampledata; install it with: pip install 'tradecache[demo]'\n"
    )
