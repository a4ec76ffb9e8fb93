"""What has to go from the ledger: replaced, deleted, expired, evicted rows, and which files go with them."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tradecache.stores.ledger import PUT, PUT_PLAIN, Row

Over = Callable[[Iterable[Any]], Iterable[Any]]
"""Goes through rows: `iter`, or what stops when nobody waits for them any more."""

SWEEP_LIMIT = 256  # rows removed in one small step
CHECKPOINT = "PRAGMA wal_checkpoint(TRUNCATE)"

GONE = "DELETE FROM entries WHERE collection = ? AND key = ? RETURNING path, CAST(expires AS INTEGER)"
"""A damaged row may have text where a number belongs."""


def replace(connection: sqlite3.Connection, row: Sequence[Any]) -> list[str]:
    """Enter a row; return the payload path of the one it replaces."""
    gone = connection.execute(GONE, row[:2]).fetchall()
    connection.execute(PUT, row)
    return _paths(gone)


def replace_all(connection: sqlite3.Connection, rows: Sequence[Row], over: Over) -> list[str]:
    """Enter rows without payloads, going `over` them; return the payload paths of those they replace."""
    if connection.executemany(PUT_PLAIN, over(rows)).rowcount == len(rows):
        return []
    return [path for row in over(rows) for path in replace(connection, row)]


def delete(
    connection: sqlite3.Connection, addresses: Sequence[tuple[str, str]], over: Over
) -> list[tuple[str | None, int | None]]:
    """Delete rows, going `over` their addresses; return path and expiry of those that were there."""
    return [row for address in over(addresses) for row in connection.execute(GONE, address).fetchall()]


def delete_where(connection: sqlite3.Connection, condition: str, values: Sequence[Any]) -> list[str | None]:
    """Delete the rows that meet a condition of ours; return their paths, None for those without a payload."""
    query = f"DELETE FROM entries WHERE {condition} RETURNING path"  # noqa: S608 - never a caller's text
    return [row[0] for row in connection.execute(query, values).fetchall()]


def sweep(connection: sqlite3.Connection, now: int) -> list[str]:
    """Delete a few expired rows; return their payload paths."""
    few = "SELECT collection, key FROM entries WHERE expires <= ? LIMIT ?"
    query = f"DELETE FROM entries WHERE (collection, key) IN ({few}) RETURNING path"  # noqa: S608
    return _paths(connection.execute(query, (now, SWEEP_LIMIT)).fetchall())


def evict(
    connection: sqlite3.Connection, bound: int, uses: Iterable[tuple[int, str, str]]
) -> tuple[list[str], int]:
    """Delete the least recently used entries with a payload until those take at most `bound` bytes.

    Args:
        connection: In a transaction.
        bound: Bytes.
        uses: `(when, collection, key)` of reads that are not in the ledger yet, so that reads write nothing.

    Returns:
        The payload paths of what was deleted, and the bytes that entries with a payload take now.
    """
    connection.executemany("UPDATE entries SET used = ? WHERE collection = ? AND key = ?", uses)
    oldest = connection.execute(
        "SELECT collection, key, CAST(size AS INTEGER) FROM entries WHERE path IS NOT NULL ORDER BY used"
    ).fetchall()
    total = sum(size for _, _, size in oldest)
    gone: list[str] = []
    for collection, key, size in oldest:
        if total <= bound:
            break
        gone += _paths(connection.execute(GONE, (collection, key)).fetchall())
        total -= size
    return gone, total


def give_back(connection: sqlite3.Connection) -> None:
    """Return free pages to the disk, as far as others, and the room that this needs itself, allow it now."""
    for step in (CHECKPOINT, "VACUUM", CHECKPOINT):  # the smaller database is in the log first
        try:
            connection.execute(step)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in (
                sqlite3.SQLITE_BUSY,
                sqlite3.SQLITE_LOCKED,
                sqlite3.SQLITE_FULL,
            ):
                raise


def _paths(rows: Iterable[Sequence[Any]]) -> list[str]:
    return [row[0] for row in rows if row[0]]
