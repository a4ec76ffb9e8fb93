"""What can still be read of a damaged ledger, and where does the damaged file go?"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tradecache.stores.payloads import quarantined

STEP = 64  # rows read at a time: at most so many intact ones are lost with a damaged page


@contextlib.contextmanager
def only_one_process(folder: Path) -> Iterator[None]:
    """Hold a lock that is let go of even when the process dies: SQLite's own, on a file beside the ledger."""
    lock = sqlite3.connect(folder / "rebuild.lock", timeout=60, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        lock.close()


def hold_writers(connection: sqlite3.Connection | None) -> None:
    """Take the write lock of a damaged ledger if it still has one to give; closing it gives the lock back."""
    if connection is not None:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("BEGIN IMMEDIATE")


def readable_rows(connection: sqlite3.Connection | None, path: Path, columns: str) -> list[tuple[Any, ...]]:
    """Return the rows that a damaged ledger still yields, walked from both ends to the damage.

    Rows are as they stand, unchecked. An unreadable file gives an empty list.
    """
    found: dict[tuple[Any, Any], tuple[Any, ...]] = {}
    try:
        source = connection or sqlite3.connect(path, timeout=1, isolation_level=None)
    except sqlite3.Error:
        return []
    for order, beyond in (("ASC", ">"), ("DESC", "<")):
        with contextlib.suppress(sqlite3.Error):  # here the damage begins
            for row in _walk(source, columns, order, beyond):
                found.setdefault((row[0], row[1]), row)
    if source is not connection:
        source.close()
    return list(found.values())


def _walk(source: sqlite3.Connection, columns: str, order: str, beyond: str) -> Iterator[tuple[Any, ...]]:
    query = f"SELECT {columns} FROM entries WHERE (collection, key) {beyond} (?, ?) ORDER BY collection {order}, key {order} LIMIT {STEP}"  # noqa: S608
    first = f"SELECT {columns} FROM entries ORDER BY collection {order}, key {order} LIMIT {STEP}"  # noqa: S608
    rows = _fetch(source.execute(first))
    while True:
        last = None
        for last in rows:
            yield last
        if last is None:
            return
        rows = _fetch(source.execute(query, last[:2]))


def _fetch(cursor: sqlite3.Cursor) -> Iterator[tuple[Any, ...]]:
    """Yield rows one by one, so that those before a damaged page are not lost with it."""
    while (row := cursor.fetchone()) is not None:
        yield row


def write_ledger(path: Path, schema: str, put: str, rows: Iterable[tuple[Any, ...]], version: int) -> None:
    """Write a new ledger with `rows` under a temporary name and move it to `path`."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    connection = sqlite3.connect(temporary, isolation_level=None)
    try:
        connection.executescript(schema)
        connection.execute("BEGIN")
        connection.executemany(put, rows)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    finally:
        connection.close()
    temporary.chmod(0o600)
    temporary.rename(path)


def set_aside(folder: Path, ledger: Path) -> Path:
    """Move a ledger and what belongs to it into `quarantine/`; return where the ledger is."""
    for tail in ("-wal", "-shm"):
        companion = ledger.with_name(ledger.name + tail)
        if companion.exists():
            quarantined(folder, companion)
    if not ledger.exists():
        return ledger
    return quarantined(folder, ledger)
