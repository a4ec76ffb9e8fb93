"""What can be asked of the cache from a notebook? TradeCache: the sync face, which speaks pandas."""

import contextlib
import html
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pandas as pd
from key_value.aio.protocols.key_value import AsyncKeyValue

from tradecache.bridge import Unfinished, finish, shared_bridge
from tradecache.cache import Symbols, TradingDataCache, warm_cache
from tradecache.clock import TTL
from tradecache.errors import CacheClosed
from tradecache.models import PriceData
from tradecache.plots import Plots
from tradecache.ranges import Moment
from tradecache.settings import Settings
from tradecache.stats import Window

T = TypeVar("T")


class TradeCache:
    """A cache of market data for notebooks: memory in front of a folder, pandas in and out.

    Every method is sync and may be called from a script, a Jupyter cell, threads, a forked child, and
    inside async functions. `get_price` is answered in the calling thread; everything else runs on one
    private event loop. Ctrl-C stops the work under way.

    Args:
        cache_dir: The folder; by default the user's cache folder (`settings.cache_dir`).
        settings: See `Settings`.
        clock: A callable that returns an aware datetime in UTC; the system's clock by default.
        durable: Any py-key-value store to use as the durable tier instead of a folder.

    >>> import tempfile
    >>> with TradeCache(tempfile.mkdtemp()) as cache:
    ...     data_id = cache.store_price("AAPL", 189.5, 1_000)
    ...     cache.get_price("AAPL", data_id).price
    189.5
    """

    def __init__(
        self,
        cache_dir: str | Path | None = None,
        *,
        settings: Settings | None = None,
        clock: Callable[[], datetime] | None = None,
        durable: AsyncKeyValue | None = None,
    ) -> None:
        self.core = TradingDataCache(cache_dir, settings=settings, clock=clock, durable=durable)
        self.settings = self.core.settings
        self._closed = False

    @property
    def plot(self) -> Plots:
        """Charts of this cache; each method returns a matplotlib Axes."""
        return Plots(self)

    def store_price(
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
            symbol: The instrument's name, kept as given.
            price: Positive and finite.
            volume: Zero or more; fractions are fine.
            timestamp: Aware; now by default.
            ttl: Seconds (or a timedelta) to live; `settings.default_ttl` by default, and None there means for ever.

        Raises:
            InvalidPrice, InvalidSymbol, InvalidTTL: Naming the field and the value; nothing was stored.
            StoreError: When the folder could not take it; nothing was stored.
        """
        return self._run(self.core.store_price(symbol, price, volume, timestamp=timestamp, ttl=ttl))

    def store_prices(self, frame: pd.DataFrame, *, ttl: TTL | None = None) -> pd.Index:
        """Store a frame of price points, all or nothing; return their ids in the frame's order.

        Args:
            frame: Columns symbol, price, volume, and timestamp (or an index of timestamps), aware.
                Other columns are left out.
            ttl: Seconds (or a timedelta) to live, for every row.

        Raises:
            InvalidPrices: Naming the rows that are no price points; nothing was stored.
            InvalidInput: When a column is missing.
        """
        return self._run(self.core.store_prices(frame, ttl=ttl))

    def get_price(self, symbol: str, data_id: str) -> PriceData | None:
        """Return one price point by its id, None when there is none or it has expired."""
        self._check_open()
        if self.core.book.answers_at_once(symbol, data_id):
            with contextlib.suppress(Unfinished):  # the ledger is locked: wait for it on the private loop
                return finish(self.core.book.get(symbol, data_id))
        return self._run(self.core.get_price(symbol, data_id))

    def get_latest_price(self, symbol: str) -> PriceData | None:
        """Return the newest live price point of a symbol (by its timestamp), None when there is none."""
        return self._run(self.core.get_latest_price(symbol))

    def latest(self, symbols: Symbols | None = None) -> pd.DataFrame:
        """Return the newest live point of each symbol.

        Args:
            symbols: One or several; all that have points by default. Those without one are left out.

        Returns:
            Index symbol; columns price, volume, timestamp (UTC), age (since the timestamp) and ttl (left
            to live, NaT for ever).
        """
        return self._run(self.core.latest(symbols))

    def prices(
        self, symbols: Symbols | None = None, start: Moment | None = None, end: Moment | None = None
    ) -> pd.DataFrame:
        """Return the live price points of some symbols in a range of time.

        Args:
            symbols: One or several; all that have points by default.
            start: The first moment; from the beginning by default. Without a time zone it is UTC.
            end: The last moment, included; a date without a time includes that whole day, as in pandas.

        Returns:
            Index timestamp (UTC, microseconds), sorted; columns symbol, price, volume, expires_at (UTC, NaT
            for ever). An empty answer has the same columns and dtypes.
        """
        return self._run(self.core.prices(symbols, start, end))

    def delete_price(self, symbol: str, data_id: str) -> bool:
        """Delete one price point; return whether there was one."""
        return self._run(self.core.delete_price(symbol, data_id))

    def warm(self, symbols: Symbols) -> pd.DataFrame:
        """Read every live point of some symbols into memory.

        Returns:
            Index symbol; columns rows, seconds, error ("" when all went well).
        """
        self._check_open()
        return self._run(warm_cache(self.core, symbols))

    def invalidate(
        self, symbols: Symbols | None = None, start: Moment | None = None, end: Moment | None = None
    ) -> pd.Series:
        """Delete the price points of some symbols (default: all) in a range of time; return how many, by symbol."""
        return self._run(self.core.invalidate(symbols, start, end))

    def export(
        self,
        path: str | Path,
        symbols: Symbols | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
    ) -> Path:
        """Write `prices(symbols, start, end)` to a .parquet, .csv or .feather file; return the path.

        Raises:
            InvalidInput: For another suffix. An existing file is replaced only by a complete one.
        """
        return self._run(self.core.export(path, symbols, start, end))

    def stats(self, by: str = "tier") -> pd.DataFrame:
        """Return how often the cache was asked and how it answered.

        Args:
            by: "tier", "symbol", "dataset" or "operation". Questions about several symbols at once count
                under the symbol "".

        Returns:
            Index named after `by`; columns requests, hits, misses, errors, hit_rate (0 to 1, NaN before
            the first request), rows, p50_us and p95_us (latency in microseconds).
        """
        return self.core.stats(by=by)

    def events(self) -> pd.DataFrame:
        """Return the last requests (at most 100,000), oldest first.

        Returns:
            Index time (UTC); columns operation, dataset, symbol, tier ("memory", "disk", "none" for a
            miss, "error"), hit, rows, seconds.
        """
        return self.core.events()

    def hit_rate(self, window: Window | None = None) -> pd.DataFrame:
        """Return the hit rate of reads over time.

        Args:
            window: Width of each bin, as seconds, a timedelta or as pandas spells it ("10s"); a hundredth of
                the time by default.

        Returns:
            Index time (UTC); columns requests, memory and disk (share of requests that each served, 0 to
            1), hit_rate (their sum), cumulative (since the beginning).
        """
        return self.core.hit_rate(window)

    def get_cache_statistics(self) -> dict[str, int | float]:
        """Return total_gets, cache_hits, cache_misses, hit_rate_percent, total_puts and total_deletes.

        They count entries read and written by their keys, warming included; questions by time (`prices`,
        `latest`) are in `stats()`. Hits of either tier count as hits. The rate is 0.0 before the first get.
        """
        return self.core.get_cache_statistics()

    def reset_stats(self) -> None:
        """Begin all counters and events anew."""
        self.core.reset_stats()

    def info(self) -> pd.Series:
        """Return where the cache is, and entries and bytes of each tier with their bounds."""
        return self._run(self.core.info())

    def purge(self) -> pd.Series:
        """Delete what has expired and files that nothing names; return counts of what was done."""
        return self._run(self.core.purge())

    def verify(self) -> pd.DataFrame:
        """Read everything on disk; damaged entries go to `quarantine/`.

        Returns:
            One row for each damaged entry: collection, key, fault. No rows: all is well.
        """
        return self._run(self.core.verify())

    def close(self) -> None:
        """Let go of files and memory; the data stays on disk. More than once is fine."""
        if not self._closed:
            self._closed = True
            shared_bridge().run(self.core.cleanup())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        """Name the folder and how often the cache was hit."""
        return f"<TradeCache {self.core.where!r}, {self._state()}>"

    def _repr_html_(self) -> str:
        """Show a small card: folder, memory, hit rate. It reads no file and cannot raise."""
        memory = self.core.stack.memory.occupancy()
        rows = {
            "folder": self.core.where,
            "memory": f"{memory['bytes'] / 1e6:,.1f} of {memory['max_bytes'] / 1e6:,.0f} MB, {memory['entries']:,} entries",
            "requests": self._state(),
        }
        cells = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in rows.items()
        )
        card = f"<table><caption>TradeCache</caption>{cells}</table>"
        return card.encode(errors="replace").decode()  # a folder's name may hold what UTF-8 cannot

    def _state(self) -> str:
        return "closed" if self._closed else _spelt_rate(self.get_cache_statistics())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._closed:
            work.close()
            raise CacheClosed
        return shared_bridge().run(work)

    def _check_open(self) -> None:
        if self._closed:
            raise CacheClosed


def _spelt_rate(totals: dict[str, int | float]) -> str:
    if not totals["total_gets"]:
        return "no requests yet"
    return f"{totals['total_gets']:,} gets, {totals['hit_rate_percent']:.1f}% hits"
