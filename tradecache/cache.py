"""What can be asked of the cache from async code?"""

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd
from key_value.aio.protocols.key_value import AsyncKeyValue

from tradecache import stats
from tradecache.clock import TTL, Clock
from tradecache.errors import CacheClosed, InvalidInput
from tradecache.export import checked_path, write_frame
from tradecache.models import PriceData, checked_symbol
from tradecache.points import latest_frame
from tradecache.prices import PriceBook
from tradecache.ranges import Moment
from tradecache.settings import Settings
from tradecache.stack import build_stack
from tradecache.stats import Window
from tradecache.stores.local import LocalStore
from tradecache.telemetry import Telemetry

Symbols = str | Iterable[str]
"""One symbol, or several: a list, an Index, a Series."""


class TradingDataCache:
    """The async core: price points in memory, else on disk.

    Args:
        cache_dir: The folder of the durable tier; `settings.cache_dir` by default.
        settings: See `Settings`.
        clock: A callable that returns an aware datetime in UTC; the system's clock by default.
        durable: Any py-key-value store to use as the durable tier instead of a folder.

    It may be used from several event loops and threads, and as an async context manager.

    Raises:
        InvalidInput: When an argument is not what it should be.
        StoreReadOnly: When the folder can be neither made nor read.
    """

    def __init__(
        self,
        cache_dir: str | Path | None = None,
        *,
        settings: Settings | None = None,
        clock: Callable[[], datetime] | None = None,
        durable: AsyncKeyValue | None = None,
    ) -> None:
        if not isinstance(settings, (Settings, type(None))):
            raise InvalidInput("settings", settings, "a tradecache.Settings")
        if not isinstance(durable, (AsyncKeyValue, type(None))):
            raise InvalidInput("durable", durable, "a store of py-key-value (an AsyncKeyValue)")
        chosen = settings or Settings()
        if cache_dir is not None:
            chosen = chosen.model_copy(update={"cache_dir": cache_dir})
        self.settings = chosen
        self.clock = Clock(clock)
        self.stack = build_stack(chosen, clock=self.clock, durable=durable)
        self.telemetry = Telemetry(self.clock.epoch)
        self.book = PriceBook(
            self.stack, clock=self.clock, telemetry=self.telemetry, default_ttl=chosen.default_ttl
        )
        self._closed = False

    @property
    def where(self) -> str:
        """The folder of the durable tier, or the kind of store that was passed in instead."""
        store = self.stack.durable
        return str(store.folder) if isinstance(store, LocalStore) else type(store).__name__

    async def store_price(
        self,
        symbol: str,
        price: float,
        volume: float,
        *,
        timestamp: datetime | None = None,
        ttl: TTL | None = None,
    ) -> str:
        """Store one price point and return its id, which is never given twice.

        Args:
            symbol: The instrument's name.
            price: Positive and finite.
            volume: Zero or more; fractions are fine.
            timestamp: Aware; now by default.
            ttl: Seconds (or a timedelta) to live; `settings.default_ttl` by default.

        Raises:
            InvalidPrice, InvalidSymbol, InvalidTTL: Naming the field and the value; nothing was stored.
            StoreError: When the folder could not take it.
        """
        self._check_open()
        return await self.book.store(symbol, price, volume, timestamp=timestamp, ttl=ttl)

    async def store_prices(self, frame: pd.DataFrame, *, ttl: TTL | None = None) -> pd.Index:
        """Store a frame of price points, all or nothing; return their ids in the frame's order.

        Args:
            frame: Columns symbol, price, volume, and timestamp (or an index of timestamps), aware.
            ttl: Seconds (or a timedelta) to live, for every row.

        Raises:
            InvalidPrices: Naming the rows that are no price points; nothing was stored.
        """
        self._check_open()
        return await self.book.store_frame(frame, ttl=ttl)

    async def get_price(self, symbol: str, data_id: str) -> PriceData | None:
        """Return one price point by its id, None when there is none or it has expired."""
        self._check_open()
        return await self.book.get(symbol, data_id)

    async def get_latest_price(self, symbol: str) -> PriceData | None:
        """Return the newest live price point of a symbol (by its timestamp), None when there is none."""
        self._check_open()
        found = await self.book.latest(symbol)
        return found.point if found else None

    async def delete_price(self, symbol: str, data_id: str) -> bool:
        """Delete one price point; return whether there was one."""
        self._check_open()
        return await self.book.delete(symbol, data_id)

    async def latest(self, symbols: Symbols | None = None) -> pd.DataFrame:
        """Return the newest live point of each symbol, as `TradeCache.latest` describes."""
        self._check_open()
        wanted = await self.book.symbols() if symbols is None else listed(symbols)
        found = {symbol: await self.book.latest(symbol) for symbol in wanted}
        return latest_frame(found, now=self.clock.now())

    async def prices(
        self, symbols: Symbols | None = None, start: Moment | None = None, end: Moment | None = None
    ) -> pd.DataFrame:
        """Return the live points of some symbols in a range of time, as `TradeCache.prices` describes."""
        self._check_open()
        return await self.book.frame(None if symbols is None else listed(symbols), start, end)

    async def invalidate(
        self, symbols: Symbols | None = None, start: Moment | None = None, end: Moment | None = None
    ) -> pd.Series:
        """Delete the points of some symbols in a range of time; return how many, by symbol."""
        self._check_open()
        wanted = await self.book.symbols() if symbols is None else listed(symbols)
        return stats.counts_by_symbol(await self.book.invalidate(wanted, start, end), name="deleted")

    async def export(
        self,
        path: str | Path,
        symbols: Symbols | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
    ) -> Path:
        """Write `prices(symbols, start, end)` to a Parquet, CSV or Feather file, by its suffix; return the path."""
        chosen = checked_path(path)
        frame = await self.prices(symbols, start, end)
        return await asyncio.to_thread(write_frame, frame, chosen)

    async def purge(self) -> pd.Series:
        """Delete what has expired and files that nothing names; return counts of what was done."""
        self._check_open()
        await self.stack.memory.cull()
        store = self.stack.durable
        done = await store.purge() if isinstance(store, LocalStore) else await _cull(store)
        return pd.Series(done, name="purged", dtype="int64")

    async def verify(self) -> pd.DataFrame:
        """Read everything on disk; return one row for each damaged entry, which is now in quarantine."""
        self._check_open()
        store = self.stack.durable
        faults = await store.verify() if isinstance(store, LocalStore) else []
        return pd.DataFrame(faults, columns=["collection", "key", "fault"], dtype="str")

    async def info(self) -> pd.Series:
        """Return where the cache is and how much is in it: entries and bytes of each tier, and their bounds."""
        self._check_open()
        store = self.stack.durable
        usage = await store.usage() if isinstance(store, LocalStore) else {}
        return stats.info_series(self.where, self.settings, self.stack.memory.occupancy(), usage)

    def get_cache_statistics(self) -> dict[str, int | float]:
        """Return total_gets, cache_hits, cache_misses, hit_rate_percent, total_puts and total_deletes.

        They count entries read and written by their keys, warming included; questions by time (`prices`,
        `latest`) are in `stats()`. Hits of either tier count as hits. The rate is 0.0 before the first get.
        """
        return stats.totals(self.stack.points)

    def stats(self, by: str = "tier") -> pd.DataFrame:
        """Return requests, hits, misses, hit rate, rows and latencies, as `TradeCache.stats` describes."""
        return stats.stats_frame(self.telemetry, by=by)

    def events(self) -> pd.DataFrame:
        """Return the remembered requests, one to a row, as `TradeCache.events` describes."""
        return stats.events_frame(self.telemetry)

    def hit_rate(self, window: Window | None = None) -> pd.DataFrame:
        """Return the hit rate over time, as `TradeCache.hit_rate` describes."""
        return stats.hit_rate_frame(self.telemetry, window=window)

    def reset_stats(self) -> None:
        """Begin all counters and events anew."""
        self.telemetry.reset()
        self.stack.reset_statistics()

    async def cleanup(self) -> None:
        """Let go of files and memory; the data stays on disk. More than once is fine."""
        if self._closed:
            return
        self._closed = True
        await self.stack.memory.destroy()
        if isinstance(self.stack.durable, LocalStore):
            self.stack.durable.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cleanup()

    def __repr__(self) -> str:
        """Name the folder."""
        return f"TradingDataCache({self.where!r})"

    def _check_open(self) -> None:
        if self._closed:
            raise CacheClosed


async def warm_cache(cache: TradingDataCache, symbols: Symbols) -> pd.DataFrame:
    """Read every live price point of some symbols once, so that later reads by id come from memory.

    Returns:
        One row for each symbol: rows (points read), seconds, error ("" when all went well).
    """
    cache._check_open()  # noqa: SLF001 - one module, two halves of one thing
    rows = []
    for symbol in listed(symbols):
        began, count, error = time.perf_counter(), 0, ""
        try:
            count = await cache.book.warm(symbol)
        except Exception as fault:  # noqa: BLE001 - one bad symbol does not stop the others; it is in the report
            error = f"{type(fault).__name__}: {fault}"
        rows.append((symbol, count, time.perf_counter() - began, error))
    return stats.warm_frame(rows)


def listed(symbols: object) -> list[str]:
    """Return one symbol or several as a list, each checked, each once."""
    if isinstance(symbols, str):
        return [checked_symbol(symbols)]
    if not isinstance(symbols, Iterable) or isinstance(symbols, (bytes, pd.DataFrame)):
        raise InvalidInput("symbols", symbols, "a symbol, or several in a list, an Index or a Series")
    return list(dict.fromkeys(checked_symbol(symbol) for symbol in symbols))


async def _cull(store: Any) -> dict[str, int]:
    if hasattr(store, "cull"):
        await store.cull()
    return {}
