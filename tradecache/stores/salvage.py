"""What can still be read of a damaged ledger, and where does the damaged file go?"""

import contextlib
import re
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tradecache.stores.disk import TEMPORARY, create_private, quarantined

STEP = 64  # rows read at a time: at most so many intact ones are lost with a damaged page
NEW = ".new"  # how a ledger's file ends until all of it is written
LEDGER = re.compile(r"ledger-(\d+)\.(db|new)(-journal|-wal|-shm)?")
PATIENCE = 10_000  # milliseconds to wait for a transaction that is under way in a damaged ledger


@contextlib.contextmanager
def only_one_process(folder: Path) -> Iterator[None]:
    """Hold a lock that is let go of even when the process dies: SQLite's own, on a file beside the ledger."""
    create_private(folder / "rebuild.lock")
    lock = sqlite3.connect(folder / "rebuild.lock", timeout=60, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        lock.close()


@contextlib.contextmanager
def held(connection: sqlite3.Connection | None, path: Path) -> Iterator[sqlite3.Connection]:
    """Give a connection to a damaged ledger that has its write lock, if it still has one to give.

    Whoever is writing is waited for, so that nothing is acknowledged that the new ledger would lack.

    Args:
        connection: One that is open; None for a new one. It is closed at the end.
        path: Of the ledger.
    """
    source = connection or sqlite3.connect(path, isolation_level=None)
    with contextlib.closing(source):
        source.text_factory = _any_text
        for wish in (
            f"PRAGMA busy_timeout = {PATIENCE}",
            "PRAGMA writable_schema = ON",  # read on where pages or indexes are missing
            "BEGIN IMMEDIATE",
        ):
            with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
                source.execute(wish)
        yield source


def readable_rows(source: sqlite3.Connection, columns: str) -> list[tuple[Any, ...]]:
    """Return the rows that a damaged ledger still yields, walked from both ends to the damage.

    Rows are as they stand, unchecked. An unreadable file gives an empty list.
    """
    found: dict[tuple[Any, Any], tuple[Any, ...]] = {}
    for order, beyond in (("ASC", ">"), ("DESC", "<")):
        with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):  # here the damage begins
            for row in _walk(source, columns, order, beyond):
                found.setdefault((row[0], row[1]), row)
    return list(found.values())


def _any_text(raw: bytes) -> str:
    """Read text that damage may have made unreadable; its row is not intact then, but no end of the walk."""
    return raw.decode(errors="replace")


def _walk(source: sqlite3.Connection, columns: str, order: str, beyond: str) -> Iterator[tuple[Any, ...]]:
    query = f"SELECT {columns} FROM entries WHERE (collection, key) {beyond} (?, ?) ORDER BY collection {order}, key {order} LIMIT {STEP}"  # noqa: S608
    first = f"SELECT {columns} FROM entries ORDER BY collection {order}, key {order} LIMIT {STEP}"  # noqa: S608
    rows, ends = _fetch(source.execute(first)), set()
    while True:
        last = None
        for last in rows:
            yield last
        if last is None or last[:2] in ends:  # rows that damage has put out of order lead in a circle
            return
        ends.add(last[:2])
        rows = _fetch(source.execute(query, last[:2]))


def _fetch(cursor: sqlite3.Cursor) -> Iterator[tuple[Any, ...]]:
    """Yield rows one by one, so that those before a damaged page are not lost with it."""
    while (row := cursor.fetchone()) is not None:
        yield row


def write_ledger(
    path: Path, schema: str, put: str, rows: Iterable[tuple[Any, ...]], version: int, *, trigger: str = ""
) -> None:
    """Write a new ledger with `rows` under a temporary name and move it to `path`; a `trigger` is there by then."""
    temporary = path.with_suffix(NEW)
    temporary.unlink(missing_ok=True)
    create_private(temporary)
    connection = sqlite3.connect(temporary, isolation_level=None)
    try:
        connection.executescript(schema)
        connection.execute("BEGIN")
        connection.executemany(put, rows)
        connection.execute(trigger)  # after the rows: it may refuse what a `rekey` has still to do
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    finally:
        connection.close()
    temporary.rename(path)


def leftovers(folder: Path, number: int) -> list[Path]:
    """Return what processes left that died over a file: ledgers other than `number`, new ones, temporary files."""
    return [path for path in sorted(folder.iterdir()) if _is_left_over(path.name, number) and path.is_file()]


def _is_left_over(name: str, number: int) -> bool:
    ledger = LEDGER.fullmatch(name)
    if ledger is None:
        return TEMPORARY.fullmatch(name) is not None
    return ledger[2] == NEW[1:] or int(ledger[1]) != number


def set_aside(folder: Path, ledger: Path) -> Path:
    """Move a ledger and what belongs to it into `quarantine/`; return where the ledger is."""
    for tail in ("-wal", "-shm"):
        companion = ledger.with_name(ledger.name + tail)
        if companion.exists():
            quarantined(folder, companion)
    if not ledger.exists():
        return ledger
    return quarantined(folder, ledger)
