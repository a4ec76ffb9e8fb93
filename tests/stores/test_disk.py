import os
import sqlite3
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tradecache.stores.disk import create_private, quarantined, replace_private, sync_folder
from tradecache.stores.salvage import leftovers

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux lists locks in /proc")


def locks_on(path: Path) -> list[str]:
    """Return the locks that processes have on a file, without the numbers that the system counts them by."""
    lines = Path("/proc/locks").read_text().splitlines()
    return [line.partition(": ")[2] for line in lines if f":{path.stat().st_ino} " in line]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_a_private_file_is_its_owners(tmp_path):
    """A new file is empty, of mode 0600 whatever the umask, and alone in its folder."""
    before = os.umask(0)
    try:
        create_private(tmp_path / "ledger.db")
    finally:
        os.umask(before)
    assert list(tmp_path.iterdir()) == [tmp_path / "ledger.db"]
    status = (tmp_path / "ledger.db").stat()
    assert (status.st_size, stat.S_IMODE(status.st_mode), status.st_nlink) == (0, 0o600, 1)


def test_a_file_that_is_there_stays(tmp_path):
    """A file that is already there keeps its content."""
    (tmp_path / "ledger.db").write_text("mine")
    create_private(tmp_path / "ledger.db")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_folder_that_is_not_there_is_no_error(tmp_path):
    """Where no file can be made, whoever opens it finds out."""
    create_private(tmp_path / "absent" / "ledger.db")
    assert list(tmp_path.iterdir()) == []


def test_threads_that_create_one_file(tmp_path):
    """Of threads that create the same file at once none fails, and nothing else is left."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: create_private(tmp_path / "ledger.db"), range(50)))
    assert list(tmp_path.iterdir()) == [tmp_path / "ledger.db"]


@on_linux
def test_locks_are_kept(tmp_path):
    """Creating a database that is in use takes no lock away from this process, as opening and closing it would."""
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE entries (key)")
        before = locks_on(path)
        create_private(path)
        assert before
        assert locks_on(path) == before


def test_quarantine(tmp_path):
    """A file is moved to quarantine/ under its name and the time; two of one name get two places."""
    targets = []
    for content in ("one", "two"):
        (tmp_path / "k.arrow").write_text(content)
        targets.append(quarantined(tmp_path, tmp_path / "k.arrow"))
    assert [target.read_text() for target in targets] == ["one", "two"]
    assert {target.parent for target in targets} == {tmp_path / "quarantine"}
    assert [path.name for path in tmp_path.iterdir()] == ["quarantine"]
    with pytest.raises(FileNotFoundError):
        quarantined(tmp_path, tmp_path / "k.arrow")


def test_a_folder_can_be_synced(tmp_path):
    """Syncing a folder is no error where there is one."""
    sync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "absent")


@pytest.mark.parametrize("fsync", [False, True])
def test_a_replaced_file_is_all_of_the_new_one(tmp_path, fsync):
    """A file is replaced by another one for its owner only; where that fails the old one stays, alone."""
    path = tmp_path / "card.json"
    replace_private(path, b"old and longer", fsync=fsync)
    replace_private(path, b"new", fsync=fsync)
    with pytest.raises(TypeError):
        replace_private(path, "text", fsync=fsync)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("card.json", b"new")]
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_leftovers_of_processes_that_died(tmp_path):
    """Other ledgers than the one in use, new ones and temporary files are found; the one in use and others' are not."""
    left = [
        ".0123456789abcdef.card.json",
        "ledger-2.db",
        "ledger-2.db-wal",
        "ledger-4.new",
        "ledger-4.new-journal",
    ]
    kept = ["ledger-3.db", "ledger-3.db-wal", "ledger-old.db", "ledger-2.db.txt", "other.new", ".0123.x"]
    for name in (*left, *kept):
        (tmp_path / name).touch()
    (tmp_path / "ledger-1.db").mkdir()
    assert [path.name for path in leftovers(tmp_path, 3)] == left
