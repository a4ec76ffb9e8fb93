"""What can be asked of the cache from a notebook? TradeCache: the sync face, which speaks pandas."""

import contextlib
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import pandas as pd
from key_value.aio.protocols.key_value import AsyncKeyValue

from tradecache import cards
from tradecache.bridge import Unfinished, finish, shared_bridge
from tradecache.cache import METRICS_PORT, Symbols, TradingDataCache, listed
from tradecache.clock import TTL
from tradecache.delivery import hand_out
from tradecache.errors import CacheClosed, MissingDependency
from tradecache.layouts import Layout, OnError
from tradecache.models import PriceData
from tradecache.plots import Plots
from tradecache.ranges import Moment
from tradecache.settings import Settings
from tradecache.stats import Window

if TYPE_CHECKING:
    from tradecache.exporter import MetricsServer
    from tradecache.freshness import Freshness
    from tradecache.metrics import CacheCollector
    from tradecache.monitor import Monitor

T = TypeVar("T")


class TradeCache:
    """A cache of market data for notebooks: memory in front of a folder, pandas in and out.

    Every method is sync and may be called from a script, a Jupyter cell, threads, a forked child, and
    inside async functions. `get_price` is answered in the calling thread; everything else runs on one
    private event loop. Ctrl-C stops the work under way.

    Args:
        cache_dir: The folder; by default the user's cache folder (`settings.cache_dir`).
        source: Whom to ask for bars: "yfinance", "ccxt:<exchange>", "files:<folder>", "sample", "synthetic",
            a function of (symbol, start, end, interval) that returns a DataFrame, or an object with `name`
            and `async def fetch`. Without one, bars are those that you stored with `store_bars`.
        freshness: Until when bars are fresh: a policy of `tradecache.freshness`, `BarClose()` by default.
        settings: See `Settings`.
        clock: A callable that returns an aware datetime in UTC; the system's clock by default.
        durable: Any py-key-value store to use as the durable tier instead of a folder: price points by their id,
            and where it lists its keys, by time; bars need a folder.
        team: Any py-key-value store where a team keeps final bars, instead of `settings.team_url`; it is asked
            before a source is, and stays yours to close.

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
        source: Any = None,
        freshness: "Freshness | None" = None,
        settings: Settings | None = None,
        clock: Callable[[], datetime] | None = None,
        durable: AsyncKeyValue | None = None,
        team: AsyncKeyValue | None = None,
    ) -> None:
        self.core = TradingDataCache(
            cache_dir, source=source, freshness=freshness, settings=settings, clock=clock, durable=durable,
            team=team,
        )  # fmt: skip
        self.settings = self.core.settings
        self._closed = False

    @property
    def plot(self) -> Plots:
        """Charts of this cache; each method returns a matplotlib Axes."""
        return Plots(self)

    def bars(
        self,
        symbols: Symbols,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        interval: str = "1d",
        columns: Sequence[str] | None = None,
        layout: Layout = "wide",
        refresh: bool = False,
        allow_stale: bool = True,
        on_error: OnError = "warn",
        source: Any = None,
    ) -> pd.DataFrame:
        """Return bars from memory, else from disk; only what is missing or no longer fresh is fetched.

        Args:
            symbols: One as a str, or several.
            start: The first moment; by default the beginning of what the source has. Without a time zone it
                is UTC, for daily and longer bars the date that it shows.
            end: The last moment, included; a date without a time includes that whole day, as in pandas. Up to
                now by default; of your own bars, up to the last one.
            interval: "1m", "5m", "1h", "1d", "1wk", "1mo" and the like.
            columns: Which columns, in which order; all by default.
            layout: "wide" or "long", see below.
            refresh: Ask the source for all of it, fresh or not.
            allow_stale: Hand out bars that are no longer fresh, with a `StaleDataWarning`, when the source fails.
            on_error: With several symbols: "warn" leaves out those that failed (see `failures`), "ignore"
                does so silently, "raise" raises the first error. A symbol asked for alone raises its error.
            source: Another source than the cache's own; "local" is what you stored with `store_bars`.

        Returns:
            Index `timestamp`: in UTC (microseconds) and the start of each bar for intervals within a day, else
            dates without a time zone. One symbol as a str: columns open, high, low, close (float64), volume and
            what else the source gives. Several: columns (field, symbol), so that `bars["close"]` has a column
            for each symbol. With layout="long": index (symbol, timestamp).

        Raises:
            SourceError: `RateLimited`, `SourceUnavailable` or `UnknownSymbol`.
            InvalidBars: When what the source gave cannot be bars; nothing of it is stored.
            InvalidInput: Naming the argument.
        """
        self._check_open()
        desk = self.core.desk
        asked = desk.requests(
            listed(symbols), start, end, interval=interval, source=source, refresh=refresh,
            layout=layout, on_error=on_error,
        )  # fmt: skip
        answers = None
        if desk.answers_at_once(asked, source=source):
            with contextlib.suppress(Unfinished):  # it went out of memory this instant
                answers = finish(desk.answers_in_turn(asked, source=source, allow_stale=allow_stale))
        if answers is None:
            answers = self._run(desk.answers(asked, source=source, allow_stale=allow_stale))
        return hand_out(
            answers, desk.views, is_alone=isinstance(symbols, str), columns=columns, layout=layout,
            allow_stale=allow_stale, on_error=on_error,
        )  # fmt: skip

    def store_bars(
        self, symbol: str, frame: pd.DataFrame, *, interval: str = "1d", ttl: TTL | None = None
    ) -> None:
        """Store bars of your own, which `bars(symbol, source="local")` returns.

        Where there is a bar of the same label already, the new one takes its place (with a `ttl`, until it
        expires); the others stay. Holes of up to a week between one's own bars, as over a holiday, count as
        stored in `coverage`.

        Args:
            symbol: The instrument's name.
            frame: Columns open, high, low, close, volume, and others if you like; an index of timestamps, or
                a column timestamp, datetime, date or time. Bars within a day without a time zone are taken as UTC.
            interval: How long each bar is.
            ttl: Seconds (or a timedelta) to live; for ever by default.

        Raises:
            InvalidBars: Naming the rows that are no bars; nothing was stored.
        """
        self._run(self.core.desk.store(symbol, frame, interval=interval, ttl=ttl, copy=False))

    def plan(
        self,
        symbols: Symbols,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        interval: str = "1d",
        refresh: bool = False,
        source: Any = None,
    ) -> pd.DataFrame:
        """Return what `bars` would ask the source for, without asking.

        Returns:
            One row for each request: symbol, source, interval, start, end (UTC; end is not included). No rows:
            all of it is stored and fresh, or there is no source to ask.
        """
        return self._run(
            self.core.plan(symbols, start, end, interval=interval, refresh=refresh, source=source)
        )

    def coverage(
        self,
        symbols: Symbols | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        interval: str | None = None,
        source: Any = None,
    ) -> pd.DataFrame:
        """Return which ranges of bars are stored, and in which state they are.

        Returns:
            One row for each span: symbol, source, interval, start, end (UTC; end is not included), state
            ("final", "fresh", "stale", "missing", "closed"), outcome ("bars", or why there are none), rows,
            bytes, fetched_at and fresh_until (UTC; NaT: for ever).
        """
        return self._run(self.core.coverage(symbols, start, end, interval=interval, source=source))

    def explain(self) -> pd.DataFrame:
        """Return where the bars of the last call came from.

        Returns:
            One row for each span: symbol, source, interval, start, end (UTC; end is not included), tier
            ("memory", "disk", "team": its store or the archive, "source", "none"), why, rows, seconds (of a source's spans
            with the request that they came with). `why` is "final" (kept for ever), "fresh"
            (until its time is up), "stale" (a source failed), "no_trades" and the like (the source's answer that
            there are no bars, and its state), "closed" (no session by the calendar), "in the future", "before the
            source begins", "not stored", or "failed" and the error.
        """
        return self.core.explain()

    def failures(self) -> pd.DataFrame:
        """Return which symbols of the last call the source could not give.

        Returns:
            Index symbol; columns error (its class), message, is_left_out (False: older bars were handed out).
        """
        return self.core.failures()

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

    def warm(
        self,
        symbols: Symbols,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        interval: str = "1d",
        source: Any = None,
        progress: bool = True,
    ) -> pd.DataFrame:
        """Have the bars of some symbols in a range, and all their price points, in memory.

        What is stored already is not fetched, so a second call goes on where the first was stopped. One bad
        symbol does not stop the others.

        Args:
            symbols: One or several.
            start: As in `bars`.
            end: As in `bars`.
            interval: As in `bars`.
            source: As in `bars`.
            progress: Whether to show a progress bar.

        Returns:
            Index symbol; columns points, rows_cached, rows_fetched, requests, seconds (its turn included: a few
            symbols are fetched at once, the others wait), error ("" when all went well).
        """
        return self._run(
            self.core.warm(symbols, start, end, interval=interval, source=source, progress=progress)
        )

    def invalidate(
        self,
        symbols: Symbols | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        interval: str | None = None,
        source: Any = None,
    ) -> pd.Series:
        """Delete price points and bars of some symbols (default: all) in a range of time.

        Args:
            symbols: One or several; all by default.
            start: The first moment; from the beginning by default.
            end: The last moment, included as in `bars`.
            interval: Only bars of this interval, and no price points.
            source: Only bars of this source, and no price points; by default bars of the cache's own source,
                or without one those that you stored.

        Returns:
            How many points and bars were deleted, by symbol.
        """
        return self._run(self.core.invalidate(symbols, start, end, interval=interval, source=source))

    def export(
        self,
        path: str | Path,
        symbols: Symbols | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        interval: str | None = None,
        source: Any = None,
    ) -> Path:
        """Write price points, or bars, to a .parquet, .csv or .feather file; return the path.

        Without an interval these are `prices(symbols, start, end)`, else
        `bars(symbols, start, end, interval=interval, layout="long")`.

        Raises:
            InvalidInput: For another suffix. An existing file is replaced only by a complete one.
        """
        return self._run(self.core.export(path, symbols, start, end, interval=interval, source=source))

    def stats(self, by: str = "tier") -> pd.DataFrame:
        """Return how often the cache was asked and how it answered.

        In each row, requests = hits + fetches + misses + errors. A hit is a request of which memory and disk had all;
        one bar that had to be fetched makes it a fetch, and `rows_cached` says how much of it was there. Warming up
        and writing are no reads: they are in by="operation" alone. Counts are exact since the cache was made or
        `reset_stats`.

        Args:
            by: "tier", "symbol", "dataset" or "operation". Questions about several symbols at once count
                under the symbol "", but bars under each. By tier, a request that one could not serve is a miss of
                it and a request to the next, so the rows of all tiers together count it more than once. Bars and
                points by their id are looked for in memory first; `prices` and `latest` ask the disk, which has
                them in order. The tier "source" is there once one was asked.

        Returns:
            Index named after `by`; columns requests; hits (memory or disk answered; of writes: done), fetches
            (a source was asked, and answered), misses (nobody had it), errors; stale (how many were answered
            with bars that are no longer fresh, because the source failed); hit_rate (hits / requests, 0 to 1, NaN before the first
            request, for what is no read and for sources); rows given or taken, rows_cached (how many of the rows
            read were in memory or on disk already), bytes (eight for each value and label); p50_us and p95_us
            (latency of the events remembered, waiting included, in microseconds).

        Raises:
            InvalidInput: For another `by`.
        """
        return self.core.stats(by=by)

    def events(self) -> pd.DataFrame:
        """Return the last requests (at most 100,000), oldest first.

        Returns:
            Index time (UTC, the request's end); columns operation ("get", "latest", "prices", "bars"; and what is no
            read: "warm", "put", "delete"), dataset ("prices", or "bars" and their interval), symbol ("" for several),
            tier that served it ("memory", "disk", "source", of bars the slowest that had a part; "none": nobody had
            it; "error"), outcome ("hit"; "stale": a part of it is no longer fresh; "miss": memory and disk did not have
            all of it, and `tier` says whether a source did; "error"; of writes and warm-ups "done"), rows,
            rows_cached (how many of the rows read were in memory or on disk already), bytes (eight for each value
            and label), seconds.
        """
        return self.core.events()

    def hit_rate(
        self, window: Window | None = None, *, by: str = "tier", history: pd.DataFrame | None = None
    ) -> pd.DataFrame:
        """Return the hit rate of reads over time.

        Args:
            window: Width of each bin, as seconds, a timedelta or as pandas spells it ("10s"); a hundredth of
                the time by default.
            by: "tier" for one row a bin, "symbol" for one row a bin and symbol, with a column `symbol`.
            history: What `history()` returned, to be counted instead of the requests of this session.

        Returns:
            Index time (UTC, each bin's start); columns requests; memory, disk, source, none and error: shares of
            the requests by who answered (0 to 1, NaN in a bin without any), which add up to 1; hit_rate, the share
            of memory and disk together; cumulative, the hit rate since the beginning.

        Raises:
            InvalidInput: For another `by`, and for a window that is none or too narrow.
        """
        return self.core.hit_rate(window, by=by, history=history)

    def history(self) -> pd.DataFrame:
        """Return the requests of this and of earlier sessions by the minute, as far as they were kept.

        They are kept while `settings.keep_history` says so: in the folder, every minute, when the cache is closed
        and when the interpreter ends. What was counted since is lost when the process is killed, or ends by
        `os._exit`, as workers of `multiprocessing` do.

        Returns:
            One row for each minute and kind of request, of all sessions together: index time (UTC, each minute's
            start); columns operation, dataset, tier, outcome (as in `events`), requests, rows, bytes. `hit_rate` and
            `plot.hit_rate` take it as `history=`.

        Raises:
            CacheClosed: When it was closed.
            NotEnumerable: When a store was passed in that cannot list its keys.
        """
        return self._run(self.core.history())

    def expiries(self, symbols: Symbols | None = None) -> pd.DataFrame:
        """Return what is stored and until when it lives; this is not counted as a request.

        Args:
            symbols: One or several; all by default.

        Returns:
            One row for each price point and each span of bars, numbered: symbol, dataset, source, rows, expires_at (UTC; of
            bars, until when they are fresh; NaT: for ever) and ttl (what is left, negative for stale bars).
        """
        return self._run(self.core.expiries(symbols))

    def occupancy(self) -> pd.DataFrame:
        """Return how much each tier holds of what.

        Returns:
            One row for each tier ("memory", "disk") and dataset ("prices", "bars", "views": frames put together
            from several, "history", "other"; "" where the tier is empty): tier, dataset, entries, bytes, max_bytes
            (of the tier, NA: no bound; that of the disk is for bars alone). A store that was passed in does not tell
            what it holds, and has no row.
        """
        return self._run(self.core.occupancy())

    def monitor(self, *, every: float = 0.25, recent: int = 8) -> "Monitor":
        """Return a widget that shows hit rate, tiers and the last requests while cells run.

        It stops with the cache, or by its `stop()`; in a saved notebook its last state stays.

        Args:
            every: Seconds between two looks, 0.05 to 60.
            recent: How many of the last requests are shown, 0 to 50.

        Raises:
            MissingDependency: Without anywidget, which the extra `notebook` brings.
            InvalidInput: Naming the argument.
            CacheClosed: When it was closed.
        """
        self._check_open()
        try:
            from tradecache.monitor import Monitor
        except ModuleNotFoundError as error:
            if error.name != "anywidget":
                raise
            raise MissingDependency("anywidget", "notebook") from error
        return Monitor(self.core, every=every, recent=recent)

    def collector(self, *, symbols: bool = False) -> "CacheCollector":
        """Return the counters of this cache for a registry of prometheus_client: `REGISTRY.register(cache.collector())`.

        Args:
            symbols: Whether requests, rows and bytes have the symbol as a label: one more series for each.

        Raises:
            MissingDependency: Without prometheus_client, which the extra `metrics` brings.
            InvalidInput: When `symbols` is no bool.
            CacheClosed: When it was closed.
        """
        self._check_open()
        return self.core.collector(symbols=symbols)

    def serve_metrics(
        self, *, port: int = METRICS_PORT, address: str = "127.0.0.1", symbols: bool = False
    ) -> "MetricsServer":
        """Let Prometheus scrape this cache: answer in the background, until the cache is closed or let go of.

        Args:
            port: 0 to 65535; 0 chooses a free one, see the `port` of what is returned.
            address: At which address of this machine; by default only this machine itself is answered.
            symbols: As in `collector`.

        Returns:
            The server: `url`, `port`, `close()`.

        Raises:
            MissingDependency, CacheClosed: As `collector`.
            InvalidInput: When it cannot listen there, naming the port or the address.
        """
        self._check_open()
        return self.core.serve_metrics(port=port, address=address, symbols=symbols)

    def get_cache_statistics(self) -> dict[str, int | float]:
        """Return total_gets, cache_hits, cache_misses, hit_rate_percent, total_puts and total_deletes.

        Gets are all reads, of price points and of bars, as `stats(by="dataset")` has them; what memory or disk
        answered is a hit, anything else a miss. Puts and deletes are of price points, each row of a bulk write
        by itself. The rate is 0.0 before the first get.
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
        """Show a small card: folder, tiers, hit rate. It reads no file and cannot raise."""
        return cards.cache_card(
            self.core.where,
            source=self.core.desk.source_name,
            seen=self.core.glance(),
            is_closed=self._closed,
        )

    def _state(self) -> str:
        return "closed" if self._closed else self.core.glance().rate

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._closed:
            work.close()
            raise CacheClosed
        return shared_bridge().run(work)

    def _check_open(self) -> None:
        if self._closed:
            raise CacheClosed
