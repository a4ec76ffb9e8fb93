"""An encrypted folder as its owner sees it, and as somebody does who can write to it."""

import base64
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
from framecases import bars
from loops import run

from tradecache import Settings
from tradecache.stores.ledger import COLUMNS, Row, row_checksum

KEYS = [base64.urlsafe_b64encode(bytes([number] * 32)).decode() for number in range(1, 5)]
ONE, TWO, THREE, OTHER = KEYS
SYMBOL = "ZANZIBAR"
PRICE = 123.456789
WHERE = "mine"
VALUE = {"price": PRICE, "note": "plain words"}


def chosen(folder: Path, *keys: str, hashed: bool = False, **more) -> Settings:
    return Settings(cache_dir=folder, encryption_key=keys, hashed_names=hashed, **more)


def ledger_of(folder: Path) -> sqlite3.Connection:
    (path,) = folder.glob("ledger-*.db")
    return sqlite3.connect(path, isolation_level=None)


def rows_of(folder: Path) -> list[Row]:
    with closing(ledger_of(folder)) as ledger:
        return [
            Row._make(row)
            for row in ledger.execute(f"SELECT {COLUMNS} FROM entries ORDER BY collection, key")
        ]


def row_of(folder: Path, key: str) -> Row:
    (found,) = [row for row in rows_of(folder) if row.key == key]
    return found


def plant(folder: Path, row: Row) -> None:
    """Enter a row as somebody does who can write to the folder and knows how checksums are made."""
    checksum = row_checksum(
        row.collection, row.key, row.created, row.expires, row.value, row.path, row.payload
    )
    with closing(ledger_of(folder)) as ledger:
        (guard,) = ledger.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'").fetchone() or (
            None,
        )
        ledger.execute("DROP TRIGGER IF EXISTS sealed")
        marks = ", ".join("?" * len(row))
        ledger.execute(
            f"INSERT OR REPLACE INTO entries ({COLUMNS}) VALUES ({marks})", row._replace(checksum=checksum)
        )
        if guard:
            ledger.execute(guard)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def content_of(folder: Path) -> dict[str, bytes]:
    """Return what is in every file but those that change by themselves when a folder is opened."""
    by_themselves = ("-wal", "-shm", ".lock", "changes")
    return {
        str(path): path.read_bytes() for path in files_of(folder) if not path.name.endswith(by_themselves)
    }


def holders(folder: Path, *needles: bytes) -> list[str]:
    """Return the files of a folder that hold one of these in their name or in any of their bytes."""
    return [
        str(path.relative_to(folder))
        for path in [folder, *folder.rglob("*")]
        if any(n in path.name.encode() or (path.is_file() and n in path.read_bytes()) for n in needles)
    ]


def flipped(content: bytes, place: int, bit: int = 0) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    return bytes(changed)


def put(store, key="k", value=VALUE, *, ttl=None, where=WHERE):
    run(store.put(key, value, collection=where, ttl=ttl))


def get(store, key="k", *, where=WHERE):
    return run(store.get(key, collection=where))


def market(rows: int) -> pd.DataFrame:
    """Return bars that a market can have had."""
    return bars(rows).assign(high=200.0, low=1.0)


BIG = market(50_000)  # three chunks


def snapshot(folder):
    return content_of(folder), rows_of(folder)


def fill(cache, count=60):
    """Store points, bars and counts of requests; return the needles that must be found nowhere."""
    for number in range(count):
        cache.store_price(SYMBOL, PRICE + number, 7)
    frame = market(3000).assign(close=PRICE)
    cache.store_bars(SYMBOL, frame, interval="1m")
    return [
        str(PRICE).encode(), struct.pack("<d", PRICE), struct.pack(">d", PRICE), b"ARROW1", b'"price"',
        np.full(3, PRICE).tobytes(),
    ]  # fmt: skip
