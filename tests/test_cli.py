import json
import os
import re
import sqlite3
import subprocess
import sys
import sysconfig
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
from scripts import answer, environment, run_command

from tradecache import TradeCache
from tradecache.cli import main
from tradecache.freshness import FixedTTL
from tradecache.sources.files import Files
from tradecache.sources.synthetic import Synthetic

SCRIPT = Path(sysconfig.get_path("scripts")) / "tradecache"
MODULE = [sys.executable, "-m", "tradecache"]


@pytest.fixture
def folder(tmp_path):
    """A folder with three points, one of which has expired."""
    path = tmp_path / "prices"
    with TradeCache(path) as cache:
        cache.store_price("AAPL", 1, 10)
        cache.store_price("MSFT", 2, 20)
        cache.store_price("FB", 3, 30, ttl=1e-6)
    return path


class Provider(Synthetic):
    """Synthetic bars under the name of a provider that has to be installed and asked over the network."""

    name = ""

    def __init__(self, name):
        super().__init__()
        self.name = name


@pytest.fixture
def barred(tmp_path):
    """A folder with three points, ten daily bars of two symbols from a "provider", two of which are stale."""
    path = tmp_path / "bars"
    with TradeCache(path, source=Provider("yfinance")) as cache:
        cache.bars(["AAPL", "BTC/USD"], "2012-01-02", "2012-01-11")
    with TradeCache(path, source=Provider("yfinance"), freshness=FixedTTL(1e-6)) as cache:
        cache.bars("AAPL", "2012-01-10", "2012-01-11", refresh=True)
        cache.store_price("AAPL", 1, 10, timestamp=pd.Timestamp("2012-01-02 10:00", tz="UTC"))
        cache.store_price("AAPL", 2, 10, timestamp=pd.Timestamp("2012-01-03 10:00", tz="UTC"))
        cache.store_price("MSFT", 2, 20, timestamp=pd.Timestamp("2012-01-04 10:00", tz="UTC"))
    return path


def heard(capsys, *arguments, code=0):
    """Run a command with --json in this process; return what it said, having complained of nothing."""
    assert main([*map(str, arguments), "--json"]) == code
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def on_a_terminal(command):
    """Run a command whose standard error is a terminal; return its exit code, its output and what was shown."""
    termios = pytest.importorskip("termios")  # of Windows' terminals nothing is known here
    ours, its = os.openpty()
    termios.tcsetwinsize(its, (24, 80))
    with (
        os.fdopen(ours, "rb", buffering=0) as terminal,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=its, env=environment(), text=True
        ) as process,
    ):
        os.close(its)
        shown = b"".join(iter(lambda: piece_of(terminal), b""))
        out, _ = process.communicate()
    return process.returncode, out, shown.decode()


def piece_of(terminal):
    """Return what a terminal shows next; nothing when the other end is closed, which Linux calls an error."""
    try:
        return terminal.read(65_536)
    except OSError:
        return b""


def damage_a_row(folder):
    """Change a stored price behind the cache's back."""
    with closing(sqlite3.connect(folder / "ledger-1.db")) as ledger, ledger:
        ledger.execute(
            "UPDATE entries SET value = replace(value, '1.0', '9.0') WHERE collection = 'symbol:AAPL'"
        )


def damage_the_ledger(folder):
    """Put random bytes over everything in the ledger but its first page."""
    ledger = folder / "ledger-1.db"
    content = ledger.read_bytes()
    ledger.write_bytes(content[:2048] + os.urandom(len(content) - 2048))


def test_the_console_script(folder):
    """The installed command tells as JSON where the cache is and how much is in it."""
    done = run_command([SCRIPT, "info", "--json", "--cache-dir", folder])
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (told["cache_dir"], told["disk_entries"], told["disk_max_bytes"]) == (str(folder), 3, None)


def test_the_module(folder):
    """`python -m tradecache` is the same command, and finds the folder in the environment."""
    done = run_command([*MODULE, "info"], env={"TRADECACHE_CACHE_DIR": str(folder)})
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(rf"^cache_dir +{re.escape(str(folder))}$", done.stdout, re.MULTILINE)
    assert re.search(r"^disk_entries +3$", done.stdout, re.MULTILINE)


def test_verify_when_all_is_well(folder, capsys):
    """`verify` of an intact cache says so and exits with 0; as JSON it is an empty list."""
    assert main(["verify", "--cache-dir", str(folder)]) == 0
    assert capsys.readouterr() == ("all is well\n", "")
    assert main(["verify", "--json", "--cache-dir", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_verify_when_an_entry_is_damaged(folder, capsys):
    """`verify` exits with 1 and lists what is damaged; the next one finds all well."""
    damage_a_row(folder)
    assert main(["verify", "--json", "--cache-dir", str(folder)]) == 1
    (fault,) = json.loads(capsys.readouterr().out)
    assert (fault["collection"], fault["fault"]) == ("symbol:AAPL", "the checksum of its row differs")
    assert main(["verify", "--cache-dir", str(folder)]) == 0


def test_verify_prints_a_table(folder, capsys):
    """Without --json a row of the table names the damaged entry."""
    damage_a_row(folder)
    assert main(["verify", "--cache-dir", str(folder)]) == 1
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["collection", "key", "fault"]
    assert "symbol:AAPL" in row


def test_verify_when_the_ledger_is_damaged(folder, capsys):
    """`verify` exits with 1 when the ledger itself was damaged, although what is left of it is sound."""
    damage_the_ledger(folder)
    assert main(["verify", "--cache-dir", str(folder)]) == 1
    assert "ledger" in capsys.readouterr().out
    assert len(list((folder / "quarantine").iterdir())) >= 1


def test_purge(folder, capsys):
    """`purge` deletes what has expired, and counts it."""
    assert main(["purge", "--json", "--cache-dir", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out) == {"expired_entries": 1, "orphan_bytes": 0, "orphan_files": 0}
    assert main(["purge", "--cache-dir", str(folder)]) == 0
    assert re.search(r"^expired_entries +0$", capsys.readouterr().out, re.MULTILINE)


def test_version(capsys):
    """`--version` is the installed version."""
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, version("tradecache") + "\n")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["inform"],
        ["info", "--jason"],
        ["info", "prices"],
        ["purge", "--cache-dir"],
        ["warm", "AAPL"],
        ["warm", "--source", "sample"],
        ["export", "bars.csv"],
    ],
)
def test_bad_usage(arguments, capsys):
    """What is no command or option ends with 2 and the usage."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("usage: tradecache ")


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("TRADECACHE_MEMORY_BYTES", "lots", "memory_bytes is 'lots'"),
        ("TRADECACHE_COMPRESSION", "gzip", "compression is 'gzip', but must be 'none', 'lz4' or 'zstd'"),
        ("TRADECACHE_MEMRY_BYTES", "1MiB", "did you mean 'memory_bytes'?"),
        ("TRADECACHE_CACHE_DIR", "", "cache_dir is ''"),
    ],
)
def test_a_bad_variable(variable, value, told, monkeypatch, capsys):
    """A variable that is no setting, or has an impossible value, ends with 2 and one line that says so."""
    monkeypatch.setenv(variable, value)
    assert main(["info"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err.startswith("tradecache: ")) == ("", 1, True)
    assert told in err


def test_no_folder_is_named(capsys):
    """An empty folder name, as from an unset variable of a shell, is refused and not taken for this folder."""
    assert main(["info", "--cache-dir", ""]) == 2
    assert capsys.readouterr().err == "tradecache: cache_dir is '', but must be the path of a folder\n"


def test_a_folder_that_cannot_be(tmp_path, monkeypatch, capsys):
    """Where no folder can be made, one line says what to set; the exit code is 1."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRADECACHE_CACHE_DIR", str(tmp_path / "file" / "prices"))
    assert main(["info"]) == 1
    err = capsys.readouterr().err
    assert (err.count("\n"), "TRADECACHE_CACHE_DIR" in err) == (1, True)


@pytest.mark.parametrize(
    "command", [["info"], ["verify"], ["purge"], ["coverage"], ["stats"], ["export", "a.csv", "AAPL"]]
)
def test_a_slip_in_the_folder_makes_no_new_one(tmp_path, command, capsys):
    """A folder that is named and not there is bad usage; nothing is made in its place."""
    assert main([*command, "--cache-dir", str(tmp_path / "pirces")]) == 2
    assert "must be a folder that is there" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_seen_enough(folder):
    """When whoever reads the output goes away, the command ends without a traceback."""
    readable, writable = os.pipe()
    os.close(readable)
    done = subprocess.run(
        [*MODULE, "info", "--cache-dir", folder],
        stdout=writable,
        stderr=subprocess.PIPE,
        env=environment(),
        check=False,
    )
    os.close(writable)
    assert (done.returncode, done.stderr) == (1, b"")


def test_warm(tmp_path):
    """`warm` stores bars in a folder that it makes; run again, it finds them there."""
    command = [*MODULE, "warm", "AAPL", "IBM", "--source", "sample", "--start", "2012-01", "--end", "2012-01"]
    for rows in ((0, 20), (20, 0)):
        done = run_command([*command, "--json", "--cache-dir", tmp_path / "new"])
        reports = json.loads(done.stdout)
        assert (done.returncode, done.stderr) == (0, "")
        assert [report["symbol"] for report in reports] == ["AAPL", "IBM"]
        assert {(each["rows_cached"], each["rows_fetched"], each["error"]) for each in reports} == {
            (*rows, "")
        }


def test_warm_with_a_bad_symbol(tmp_path, capsys):
    """A symbol that fails is in the report and makes the exit code 1; the others are stored nevertheless."""
    command = ["warm", "NOPE", "AAPL", "--source", "sample", "--start", "2012", "--end", "2012"]
    assert main([*command, "--cache-dir", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    heading, bad, good = out.splitlines()
    assert (heading.split()[0], bad.split()[0], good.split()[:4]) == (
        "symbol",
        "NOPE",
        ["AAPL", "0", "0", "250"],
    )
    assert "UnknownSymbol: sample knows no symbol 'NOPE'" in bad
    assert err == ""


def test_warm_another_interval(tmp_path, capsys):
    """`--interval` says how long the bars are, `--end` is included."""
    where = ["--cache-dir", tmp_path]
    asked = ["--start", "2012-01-01T00:00", "--end", "2012-01-01T01:00", "--interval", "15m"]
    (report,) = heard(capsys, "warm", "A", "--source", "synthetic", *asked, *where)
    assert report["rows_fetched"] == 5
    assert [row["dataset"] for row in heard(capsys, "stats", *where)] == ["bars 15m"]


@pytest.mark.parametrize(("extra", "is_shown"), [([], True), (["--json"], False)])
def test_progress_on_a_terminal(tmp_path, extra, is_shown):
    """A progress bar is shown where somebody sees it, and not beside JSON; what is printed stays free of it."""
    command = [*MODULE, "warm", "A", "B", "--source", "synthetic", "--start", "2024", "--end", "2024"]
    code, out, shown = on_a_terminal([*command, "--cache-dir", tmp_path, *extra])
    assert (code, "2/2" in shown, "2/2" in out) == (0, is_shown, False)
    assert is_shown or shown == ""


def test_no_progress_into_a_file(tmp_path):
    """Where standard error is no terminal there is no progress bar."""
    command = [*MODULE, "warm", "A", "--source", "synthetic", "--start", "2024", "--end", "2024"]
    done = run_command([*command, "--cache-dir", tmp_path])
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("yahoo", "--source is 'yahoo', but must be 'yfinance', 'ccxt:<exchange>'"),
        ("local", "--source is 'local', but must be 'yfinance'"),
        ("", "--source is '', but must be 'yfinance'"),
        ("files:/no/such/folder", "folder is '/no/such/folder', but must be a folder that is there"),
    ],
)
def test_a_bad_source(tmp_path, source, told, capsys):
    """What is no source ends with 2 and one line that says which ones there are; no folder is made."""
    assert main(["warm", "AAPL", "--source", source, "--cache-dir", str(tmp_path / "new")]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err.startswith(f"tradecache: {told}")) == ("", 1, True)
    assert list(tmp_path.iterdir()) == []


def test_coverage(barred, capsys):
    """`coverage` has one row for each span; as JSON with moments in ISO 8601, and null where there is none."""
    spans = heard(capsys, "coverage", "AAPL", "--cache-dir", barred)
    assert [(span["state"], span["start"], span["end"], span["rows"]) for span in spans] == [
        ("final", "2012-01-02T00:00:00+00:00", "2012-01-10T00:00:00+00:00", 8),
        ("stale", "2012-01-10T00:00:00+00:00", "2012-01-12T00:00:00+00:00", 2),
    ]
    assert spans[0]["fresh_until"] is None
    assert pd.Timestamp(spans[1]["fresh_until"]) > pd.Timestamp(spans[0]["fetched_at"])


def test_coverage_of_a_range(barred, capsys):
    """Symbols, a range, an interval and a source narrow it down; what is asked for and not stored is missing."""
    asked = ["--start", "2012-01-11", "--end", "2012-01-15", "--interval", "1d", "--source", "yfinance"]
    spans = heard(capsys, "coverage", "BTC/USD", *asked, "--cache-dir", barred)
    assert [(span["symbol"], span["state"], span["rows"]) for span in spans] == [
        ("BTC/USD", "final", 1),
        ("BTC/USD", "missing", 0),
    ]
    assert heard(capsys, "coverage", "--interval", "1h", "--cache-dir", barred) == []
    assert heard(capsys, "coverage", "--source", "ccxt:nobody", "--cache-dir", barred) == []


def test_coverage_prints_a_table(barred, capsys):
    """Without --json there is a table, and a sentence when there is nothing to put into one."""
    assert main(["coverage", "--cache-dir", str(barred)]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split()[:6] == ["symbol", "source", "interval", "start", "end", "state"]
    assert [row.split()[:3] for row in rows] == [
        [name, "yfinance", "1d"] for name in ("AAPL", "AAPL", "BTC/USD")
    ]
    assert main(["coverage", "NOPE", "--cache-dir", str(barred)]) == 0
    assert capsys.readouterr() == ("no such bars are stored\n", "")


def test_stats(barred, capsys):
    """`stats` has one row for each symbol, dataset and source, in order, with what is stored of it."""
    rows = heard(capsys, "stats", "--cache-dir", barred)
    counts = ("symbol", "dataset", "source", "entries", "rows", "final", "fresh", "stale")
    assert [tuple(row[name] for name in counts) for row in rows] == [
        ("AAPL", "bars 1d", "yfinance", 2, 10, 8, 0, 2),
        ("AAPL", "prices", "local", 2, 2, None, None, None),
        ("BTC/USD", "bars 1d", "yfinance", 1, 10, 10, 0, 0),
        ("MSFT", "prices", "local", 1, 1, None, None, None),
    ]
    assert [(row["first"][:13], row["last"][:13]) for row in rows] == [
        ("2012-01-02T00", "2012-01-11T00"),
        ("2012-01-02T10", "2012-01-03T10"),
        ("2012-01-02T00", "2012-01-11T00"),
        ("2012-01-04T10", "2012-01-04T10"),
    ]
    assert all(row["bytes"] >= 24 * row["rows"] for row in rows)


def test_stats_where_a_source_had_nothing(tmp_path, capsys):
    """That a source had no bars is stored too: a row without bars, and so without a first and a last one."""
    asked = ["--source", "sample", "--start", "2014", "--end", "2014", "--cache-dir", tmp_path]
    heard(capsys, "warm", "AAPL", *asked)
    rows = heard(capsys, "stats", "--cache-dir", tmp_path)
    assert [(row["entries"], row["rows"], row["first"], row["last"]) for row in rows] == [(1, 0, None, None)]


def test_stats_of_bars_with_a_gap(barred, capsys):
    """What is missing between two spans is no entry."""
    with TradeCache(barred, source=Provider("yfinance")) as cache:
        for day in ("2012-01-03", "2012-02-03"):
            cache.store_bars("GAP", cache.bars("AAPL", day, day))
    (row,) = heard(capsys, "stats", "GAP", "--cache-dir", barred)
    assert (row["source"], row["entries"], row["rows"]) == ("local", 2, 2)
    assert (row["first"][:10], row["last"][:10]) == ("2012-01-03", "2012-02-03")


def test_stats_prints_a_table(barred, capsys):
    """Without --json there is a table of the symbols asked for, blank where a column says nothing of points."""
    assert main(["stats", "MSFT", "--cache-dir", str(barred)]) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split()[-3:] == ["final", "fresh", "stale"]
    assert (row.split()[:5], row[-12:].strip()) == (["MSFT", "prices", "local", "1", "1"], "")
    assert main(["stats", "NOPE", "--cache-dir", str(barred)]) == 0
    assert capsys.readouterr() == ("nothing is stored for NOPE\n", "")


def test_stats_help_says_what_it_counts(capsys):
    """The help of `stats` says that it is about what is stored, not about requests."""
    with pytest.raises(SystemExit):
        main(["stats", "--help"])
    assert "so here it is what is stored" in " ".join(capsys.readouterr().out.split())


def test_export_points(barred, tmp_path, capsys):
    """Without an interval `export` writes price points, and tells the path and how many they are."""
    path = tmp_path / "points.csv"
    asked = [path, "AAPL", "MSFT", "--start", "2012-01-03", "--cache-dir", barred]
    assert heard(capsys, "export", *asked) == {"path": str(path), "rows": 2}
    assert pd.read_csv(path)["symbol"].tolist() == ["AAPL", "MSFT"]


def test_export_bars(barred, tmp_path, capsys):
    """With an interval it writes the bars of that range, stale ones as well, and prints the path."""
    path = tmp_path / "bars.parquet"
    command = ["export", str(path), "BTC/USD", "AAPL", "--interval", "1d", "--end", "2012-01-31"]
    assert main([*command, "--cache-dir", str(barred)]) == 0
    assert capsys.readouterr() == (f"{path}\n", "")
    with TradeCache(barred, source=Provider("yfinance")) as cache:
        bars = cache.bars(["BTC/USD", "AAPL"], "2012-01-02", "2012-01-11", layout="long")
    pd.testing.assert_frame_equal(pd.read_parquet(path), bars)


@pytest.mark.parametrize("extra", [[], ["--source", "yfinance"]])
def test_export_asks_nobody(barred, tmp_path, extra):
    """Of a wider range than is stored, what is stored is written; the provider's library is not even loaded."""
    code = """
        import contextlib, io, json, sys
        from tradecache.cli import main
        with contextlib.redirect_stdout(io.StringIO()) as said:
            code = main(sys.argv[1:])
        print(json.dumps([code, json.loads(said.getvalue())["rows"], "yfinance" in sys.modules]))
    """
    asked = ["AAPL", "--interval", "1d", "--start", "2011", "--end", "2013", "--json", "--cache-dir", barred]
    before = sorted((barred / "bars").rglob("*"))
    assert answer(code, "export", tmp_path / "bars.csv", *asked, *extra) == [0, 10, False]
    assert sorted((barred / "bars").rglob("*")) == before


def test_export_of_one_of_several_sources(barred, tmp_path, capsys):
    """Where several sources have such bars, `--source` has to say which; another source's never stand in."""
    where = ["--interval", "1d", "--cache-dir", str(barred)]
    with TradeCache(barred) as cache:
        mine = cache.bars("AAPL", source=Provider("yfinance"), start="2012-01-02", end="2012-01-04")
        cache.store_bars("AAPL", mine)
    command = ["export", str(tmp_path / "bars.csv"), "AAPL", *where]
    assert main(command) == 2
    assert "must be one of 'local', 'yfinance', which all have such bars" in capsys.readouterr().err
    rows = {name: heard(capsys, *command, "--source", name)["rows"] for name in ("local", "yfinance")}
    assert rows == {"local": 3, "yfinance": 10}
    assert main([*command, "--source", "sample"]) == 1


def test_export_where_another_source_had_nothing(tmp_path, capsys):
    """A source that was asked and had no bars is not one to choose from."""
    where = ["--cache-dir", tmp_path / "cache"]
    heard(capsys, "warm", "AAPL", "--source", "sample", "--start", "2014", "--end", "2014", *where)
    heard(capsys, "warm", "AAPL", "--source", "synthetic", "--start", "2012", "--end", "2012", *where)
    assert heard(capsys, "export", tmp_path / "a.csv", "AAPL", "--interval", "1d", *where)["rows"] == 366


def test_export_of_files(tmp_path, capsys):
    """`files:<folder>` is the same source in each command, although its bars are kept under another name."""
    folder, cache_dir = tmp_path / "csv", tmp_path / "cache"
    folder.mkdir()
    index = pd.DatetimeIndex(["2012-01-03", "2012-01-04"], name="timestamp")
    columns = {"open": 1.0, "high": 2.0, "low": 1.0, "close": 2.0, "volume": 3.0}
    pd.DataFrame(columns, index=index).to_csv(folder / "AAPL.csv")
    asked = ["--source", f"files:{folder}", "--start", "2012", "--end", "2012", "--cache-dir", cache_dir]
    assert heard(capsys, "warm", "AAPL", *asked)[0]["rows_fetched"] == 2
    assert {span["source"] for span in heard(capsys, "coverage", *asked)} == {Files(folder).name}
    done = heard(capsys, "export", tmp_path / "out.csv", "AAPL", "--interval", "1d", *asked)
    assert done["rows"] == 2


def test_export_of_nothing(barred, tmp_path, capsys):
    """When nothing of it is stored no file is written, an old one stays, and the exit code is 1."""
    path = tmp_path / "old.csv"
    path.write_text("old")
    for extra in ([], ["--interval", "1d"], ["--interval", "1d", "--source", "yfinance"]):
        assert main(["export", str(path), "NOPE", *extra, "--cache-dir", str(barred)]) == 1
        out, err = capsys.readouterr()
        assert (out, err) == ("", "tradecache: nothing of that is stored, so no file was written\n")
    assert path.read_text() == "old"


def test_export_where_one_symbol_has_nothing(barred, tmp_path, capsys):
    """A symbol of which nothing is stored is named, with exit code 1; the others are written."""
    path = tmp_path / "bars.csv"
    command = ["export", str(path), "AAPL", "NOPE", "--interval", "1d", "--cache-dir", str(barred)]
    assert main(command) == 1
    assert capsys.readouterr() == (f"{path}\n", "tradecache: nothing of that is stored for NOPE\n")
    assert len(pd.read_csv(path)) == 10


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["bars.txt", "AAPL"], "path is 'bars.txt'"),
        (["bars.csv", "AAPL", "--interval", "1q"], "interval is '1q'"),
        (["bars.csv", "AAPL", "--start", "soon"], "start is 'soon'"),
        (
            ["bars.csv", "AAPL", "--source", "yfinance"],
            "--source is 'yfinance', but must be given with --interval",
        ),
        (["bars.csv", "AAPL", "--interval", "1d", "--start", "2014", "--end", "2012"], "start is '2014'"),
    ],
)
def test_export_of_what_cannot_be(barred, tmp_path, arguments, told, monkeypatch, capsys):
    """A suffix, an interval or a range that cannot be ends with 2 and one line; no file is written."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert main(["export", *arguments, "--cache-dir", str(barred)]) == 2
    err = capsys.readouterr().err
    assert (err.count("\n"), err.startswith(f"tradecache: {told}")) == (1, True)
    assert sorted(tmp_path.iterdir()) == before
