"""What do the child processes of the survival tests do with a cache folder?"""

import contextlib
import itertools
import logging
import os
import random
import resource
import signal
import sqlite3
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from children import orders, say

from tradecache import Settings, TradeCache, TradeCacheError
from tradecache.bridge import finish

BULK = 20
NOBODY = 65534
EPOCH = datetime(2024, 6, 3, tzinfo=UTC)


def frame_of(number: int, rows: int = 50) -> pd.DataFrame:
    """Return a frame that tells its number in every row."""
    index = pd.DatetimeIndex(np.arange(rows), dtype="M8[us]", name="timestamp")
    columns = {"close": np.full(rows, float(number)), "volume": np.arange(rows) + number}
    return pd.DataFrame(columns, index=index)


def bulk_of(number: int) -> pd.DataFrame:
    """Return price points of several symbols that belong together: their volume is the number."""
    return pd.DataFrame(
        {
            "symbol": [f"BULK{n % 3}" for n in range(BULK)],
            "price": np.arange(1.0, BULK + 1),
            "volume": float(number),
            "timestamp": [EPOCH + timedelta(seconds=n) for n in range(BULK)],
        }
    )


def put_frame(cache: TradeCache, key: str, number: int, rows: int = 50) -> None:
    """Store `frame_of(number)` through the whole stack."""
    value = {"number": number, "frame": frame_of(number, rows)}
    cache._run(cache.core.stack.frames.put(key, value, collection="bars/test"))


def get_frame(cache: TradeCache, key: str) -> dict[str, Any] | None:
    """Return what `put_frame` stored, through the whole stack."""
    return cache._run(cache.core.stack.frames.get(key, collection="bars/test"))


def get_frame_here(cache: TradeCache, key: str) -> dict[str, Any] | None:
    """Return what `put_frame` stored, in the calling thread, as `TradeCache.get_price` does."""
    return finish(cache.core.stack.frames.get(key, collection="bars/test"))


def write_until_killed(folder: str, life: int) -> None:
    """Store points, bulks and frames and delete points, for ever, saying what was done after each call.

    Only a deletion is also announced before it, since it may have happened when nobody could say so.
    """
    rng = random.Random(life)
    cache = TradeCache(folder)
    mine: list[str] = []
    for number in itertools.count(life * 1_000_000):
        match rng.choice(["price", "price", "price", "bulk", "frame", "frame", "delete"]):
            case "price":
                mine.append(cache.store_price("ONE", number + 1, number))
                say(["price", mine[-1], number])
            case "bulk":
                cache.store_prices(bulk_of(number))
                say(["bulk", "", number])
            case "frame":
                key = f"frame {rng.randrange(6)}"
                put_frame(cache, key, number)
                say(["frame", key, number])
            case "delete" if mine:
                data_id = mine.pop(rng.randrange(len(mine)))
                say(["deleting", data_id, number])
                cache.delete_price("ONE", data_id)
                say(["deleted", data_id, number])


def put_one_frame(folder: str, key: str, number: int, rows: int, limit: int | None = None) -> None:
    """Store one frame; with a limit, be killed by the system while writing beyond so many bytes of a file."""
    cache = TradeCache(folder)
    say("open")
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    put_frame(cache, key, number, rows)
    say("done")


def share(folder: str, process: int, threads: int, rounds: int) -> None:
    """Use one cache from several threads at once, for reading, writing and deleting; say what came of it."""
    with TradeCache(folder) as cache, ThreadPoolExecutor(threads) as pool:
        say("open")
        next(orders())  # all processes begin together
        work = [pool.submit(_share, cache, process * threads + n, rounds) for n in range(threads)]
        for each in work:
            say(each.result())


def _share(cache: TradeCache, thread: int, rounds: int) -> dict[str, Any]:
    kept: dict[str, tuple[str, float]] = {}
    gone: list[str] = []
    bulks: list[int] = []
    for n in range(rounds):
        symbol, price = f"S{n % 5}", thread * rounds + n + 1.0
        data_id = cache.store_price(symbol, price, n)
        kept[data_id] = (symbol, price)
        assert cache.get_price(symbol, data_id).price == price
        match n % 6:
            case 1:
                old = next(iter(kept))
                (symbol, _) = kept.pop(old)
                assert cache.delete_price(symbol, old) is True
                assert cache.get_price(symbol, old) is None
                gone.append(old)
            case 2:
                bulks.append(thread * rounds + n)
                cache.store_prices(bulk_of(bulks[-1]))
                assert "BULK0" in cache.latest().index
            case 3:
                put_frame(cache, f"shared {n}", n)
                found = get_frame(cache, f"shared {n}")
                assert found["frame"].equals(frame_of(found["number"]))
            case 4:
                assert price in cache.prices(symbol)["price"].tolist()
                assert cache.get_latest_price(symbol) is not None
    return {"kept": kept, "gone": gone, "bulks": bulks}


class Servant:
    """Does to a cache what a test in another process asks for."""

    def __init__(self, cache: TradeCache) -> None:
        self.cache = cache

    def store_price(self, symbol: str, price: float) -> str:
        return self.cache.store_price(symbol, price, 0)

    def get_price(self, symbol: str, data_id: str) -> float | None:
        point = self.cache.get_price(symbol, data_id)
        return None if point is None else point.price

    def served_by(self) -> str:
        return str(self.cache.events()["tier"].iloc[-1])

    def delete_price(self, symbol: str, data_id: str) -> bool:
        return self.cache.delete_price(symbol, data_id)

    def latest(self) -> dict[str, float]:
        return self.cache.latest()["price"].to_dict()

    def prices(self, symbol: str) -> list[float]:
        return self.cache.prices(symbol)["price"].tolist()

    def put_frame(self, key: str, number: int, rows: int = 50) -> None:
        put_frame(self.cache, key, number, rows)

    def get_frame(self, key: str) -> int | None:
        found = get_frame(self.cache, key)
        if found is None:
            return None
        pd.testing.assert_frame_equal(found["frame"], frame_of(found["number"], len(found["frame"])))
        return int(found["number"])

    def store_prices(self, number: int) -> None:
        self.cache.store_prices(bulk_of(number))

    def fill_disk(self, spare: int = 0) -> None:
        """Leave so many bytes of the disk free, in a file beside the folder."""
        with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        with self._ballast.open("r+b") as file:
            file.truncate(max(0, self._ballast.stat().st_size - spare))

    def make_room(self) -> None:
        """Take back what `fill_disk` has done."""
        self._ballast.unlink()

    @property
    def _ballast(self) -> Path:
        return self.cache.settings.cache_dir.parent / "ballast"

    def files(self) -> list[str]:
        """Name the payload files, temporary ones among them."""
        return sorted(path.name for path in self.cache.settings.cache_dir.glob("bars/**/*.arrow*"))

    def delete_frame(self, key: str) -> bool:
        return self.cache._run(self.cache.core.stack.frames.delete(key, collection="bars/test"))

    def close(self) -> None:
        self.cache.close()

    def open_another(self) -> None:
        """Make a cache in another folder of the same disk."""
        TradeCache(self.cache.settings.cache_dir.with_name("another")).close()

    def damage(self) -> None:
        """Overwrite two pages in the middle of the ledger."""
        path = self.cache.settings.cache_dir / "ledger-1.db"
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(random.Random(1).randbytes(4096))

    def invalidate(self, symbol: str) -> int:
        return int(self.cache.invalidate(symbol).sum())

    def purge(self) -> dict[str, int]:
        return self.cache.purge().to_dict()

    def verify(self) -> int:
        return len(self.cache.verify())


def serve(folder: str, settings: dict[str, Any] | None = None) -> None:
    """Carry out orders, `[method of Servant, *arguments]`; answer with the result, or name the error's classes."""
    try:
        cache = TradeCache(folder, settings=Settings(**(settings or {})))
    except TradeCacheError as error:
        say(_told(error))
        return
    with cache:
        say("open")
        for method, *args in orders():
            try:
                say(getattr(Servant(cache), method)(*args))
            except TradeCacheError as error:
                say(_told(error))


def _told(error: Exception) -> dict[str, Any]:
    return {"error": type(error).__name__, "text": str(error)}


def hold_the_lock(folder: str) -> None:
    """Begin to write a point and never end."""
    with contextlib.closing(sqlite3.connect(Path(folder, "ledger-1.db"), isolation_level=None)) as ledger:
        ledger.execute("BEGIN IMMEDIATE")
        ledger.execute("UPDATE entries SET collection = 'symbol:HELD'")
        say("locked")
        next(orders())


def serve_as_nobody(folder: str, settings: dict[str, Any] | None = None) -> None:
    """Do as `serve` does, without the rights of root to write where nobody may."""
    if not os.getuid():
        _load_everything()
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    serve(folder, settings)


def _load_everything() -> None:
    """Have each module loaded that is loaded only when it is first needed: soon they may be out of reach."""
    with tempfile.TemporaryDirectory() as folder, TradeCache(folder) as cache:
        servant = Servant(cache)
        servant.store_prices(1)
        servant.put_frame("frame", 1)
        servant.get_frame("frame")
        servant.latest()
        servant.prices("AAPL")
        servant.purge()
        servant.verify()


def mount(*arguments: str) -> None:
    """Mount a disk, or mount it anew, where only this process and its kin see it."""
    subprocess.run(["mount", *arguments], check=True)
    say("done")


def write_under_a_limit(folder: str, what: str) -> None:
    """Write while no file may grow, until it was tried again twice; say each line about that."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with TradeCache(folder) as cache:
        servant = Servant(cache)
        servant.store_price("AAPL", 1.0)
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = Path(folder, "ledger-1.db-wal").stat().st_size if what == "store_price" else 100
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
        logging.getLogger("tradecache").addHandler(_Retries(most))
        if what == "store_price":
            servant.store_price("AAPL", 2.0)
        else:
            servant.put_frame("frame", 1)
        say("done")


class _Retries(logging.Handler):
    """Says what is logged before a new try, and lifts the limit at the second."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._seen, self._most = 0, most

    def emit(self, record: logging.LogRecord) -> None:
        if "trying again" in record.getMessage():
            self._seen += 1
            if self._seen > 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (self._most, self._most))
            say(record.getMessage())
