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

import pytest
from scripts import environment, run_command

from tradecache import TradeCache
from tradecache.cli import main

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
    "arguments", [[], ["inform"], ["info", "--jason"], ["info", "prices"], ["purge", "--cache-dir"]]
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


@pytest.mark.parametrize("command", ["info", "verify", "purge"])
def test_a_slip_in_the_folder_makes_no_new_one(tmp_path, command, capsys):
    """A folder that is named and not there is bad usage; nothing is made in its place."""
    assert main([command, "--cache-dir", str(tmp_path / "pirces")]) == 2
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
