import os
import sqlite3
import stat
import sys
from pathlib import Path

import pytest

from tradecache.errors import StoreError
from tradecache.stores.ledger import PUT, Ledger, Row, newest_number, row_checksum


@pytest.fixture
def open_ledger(tmp_path):
    """Open ledgers of one folder, and close them at the end."""
    ledgers = []

    def opened():
        ledgers.append(Ledger(tmp_path, sync="normal"))
        return ledgers[-1]

    yield opened
    for ledger in ledgers:
        ledger.close()


@pytest.fixture
def ledger(open_ledger):
    return open_ledger()


def row(key: str = "k", *, collection: str = "c", value: bytes = b"{}", path: str | None = None) -> Row:
    payload = None if path is None else 7
    checksum = row_checksum(collection, key, 1, None, value, path, payload)
    return Row(collection, key, 1, None, 1, len(value), checksum, value, path, payload)


def count(ledger: Ledger) -> int:
    return ledger.run(lambda connection: connection.execute("SELECT COUNT(*) FROM entries").fetchone()[0])


def test_put_then_get(ledger):
    """A row that was put is got as it was; what was not put is None."""
    assert ledger.put(row()) is True
    assert ledger.get("c", "k") == row()
    assert ledger.get("c", "l") is None


def test_a_plain_row_replaces_a_plain_row(ledger):
    """A row without a payload replaces another one."""
    ledger.put(row())
    assert ledger.put(row(value=b'{"n":1}')) is True
    assert ledger.get("c", "k") == row(value=b'{"n":1}')


def test_a_plain_row_does_not_replace_one_with_a_payload(ledger):
    """A row whose file would have to go as well stays, and the caller is told."""
    with_payload = row(path="c/k.arrow")
    ledger.write(lambda connection: connection.execute(PUT, with_payload))
    assert ledger.put(row(value=b'{"n":1}')) is False
    assert ledger.get("c", "k") == with_payload


def test_a_write_is_all_or_nothing(ledger):
    """What was done before an error is undone, and the ledger goes on."""

    def half(connection):
        connection.execute(PUT, row("a"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ledger.write(half)
    assert count(ledger) == 0
    ledger.write(lambda connection: connection.executemany(PUT, [row("a"), row("b")]))
    assert count(ledger) == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"collection": "d"},
        {"key": "l"},
        {"created": 2},
        {"expires": 5},
        {"value": b'{"n":2}'},
        {"path": "elsewhere.arrow"},
        {"payload": 8},
        {"size": "2"},
    ],
    ids=repr,
)
def test_the_checksum_is_bound_to_everything_that_is_served(changed):
    """A row is intact as it was written, and no longer once anything in it has changed."""
    assert row(path="c/k.arrow").is_intact
    assert not row(path="c/k.arrow")._replace(**changed).is_intact


def test_another_connection_is_seen(open_ledger):
    """What one connection commits, another one reads at once."""
    one, other = open_ledger(), open_ledger()
    one.put(row())
    assert other.get("c", "k") == row()


def test_own_commits_are_not_foreign(open_ledger):
    """The count of foreign commits stays through reads and own writes, and grows with each foreign one."""
    one, other = open_ledger(), open_ledger()
    one.put(row())
    before = one.foreign_commits()
    one.put(row("l"))
    one.write(lambda connection: connection.execute(PUT, row("m")))
    one.get("c", "k")
    other.get("c", "k")
    assert one.foreign_commits() == before
    other.put(row("n"))
    grown = one.foreign_commits()
    assert grown > before
    other.write(lambda connection: connection.execute("DELETE FROM entries"))
    assert one.foreign_commits() > grown


def test_a_lock_is_not_waited_for(open_ledger):
    """A locked ledger is an error at once: waiting is the caller's, who can do it without blocking."""
    one, other = open_ledger(), open_ledger()
    other.put(row())
    one.run(lambda connection: connection.execute("BEGIN IMMEDIATE"))
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.put(row("l"))
    one.run(lambda connection: connection.execute("ROLLBACK"))
    assert other.put(row("l")) is True


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_every_file_is_the_owners(open_ledger, tmp_path):
    """The database and all that SQLite puts beside it have mode 0600 from their first moment."""
    before = os.umask(0)
    try:
        open_ledger().put(row())
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}
    assert {"ledger-1.db", "ledger-1.db-wal", "ledger-1.db-shm"} <= modes.keys()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux lists locks in /proc")
def test_another_connection_takes_no_lock_away(open_ledger, tmp_path):
    """A second ledger on the folder, opened and closed in this process, leaves the locks of the first."""

    def locks():
        inode = (tmp_path / "ledger-1.db").stat().st_ino
        return [line for line in Path("/proc/locks").read_text().splitlines() if f":{inode} " in line]

    one = open_ledger()
    one.put(row())
    before = locks()
    assert before
    other = open_ledger()
    other.put(row("l"))
    assert locks() == before
    other.close()
    assert locks() == before


def test_a_newer_format_is_refused(open_ledger, ledger):
    """A ledger of a later version is an error that says so, and is left alone."""
    ledger.put(row())
    ledger.run(lambda connection: connection.execute("PRAGMA user_version = 99"))
    ledger.close()
    with pytest.raises(StoreError, match="newer tradecache"):
        open_ledger().put(row("l"))


def test_the_newest_ledger_is_the_one(tmp_path):
    """Of several ledgers the highest number counts; other names are no ledgers."""
    assert newest_number(tmp_path) == 0
    for name in ("ledger-2.db", "ledger-10.db", "ledger-x.db", "ledger-99.db-wal", "other-100.db"):
        (tmp_path / name).touch()
    assert newest_number(tmp_path) == 10


def test_rebuild_keeps_what_is_intact(ledger, tmp_path):
    """A new ledger takes over the intact rows; the damaged one is in quarantine."""
    for n in range(500):
        ledger.put(row(f"{n:03d}"))
    ledger.run(lambda connection: connection.execute("UPDATE entries SET value = X'00' WHERE key = '250'"))
    kept, where = ledger.rebuild(1)
    assert (kept, ledger.number, count(ledger)) == (499, 2, 499)
    assert where.parent == tmp_path / "quarantine"
    assert newest_number(tmp_path) == 2


def test_rebuild_happens_once(open_ledger):
    """Who comes second with the same damage finds it mended, and goes on with the new ledger."""
    one, other = open_ledger(), open_ledger()
    one.put(row())
    other.put(row("l"))
    assert one.rebuild(1) is not None
    assert other.rebuild(1) is None
    assert other.number == 2
    other.put(row("m"))
    assert count(one) == 3


def test_others_follow_a_rebuild(open_ledger):
    """A ledger that was replaced by another process is let go of at the next write, which is not lost."""
    one, other = open_ledger(), open_ledger()
    other.put(row())
    one.rebuild(1)
    other.put(row("l"))
    other.write(lambda connection: connection.execute(PUT, row("m")))
    assert (other.number, count(one)) == (2, 3)


def test_a_closed_ledger(ledger):
    """After `close` there is no connection, and using it is an error."""
    ledger.put(row())
    ledger.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        ledger.get("c", "k")
