"""What can be asked of the cache from async code?"""

import asyncio
import contextlib
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
from key_value.aio.protocols.key_value import AsyncKeyValue

from tradecache import stats
from tradecache.asking import Request
from tradecache.bars import Answer
from tradecache.bridge import in_thread, shared_bridge
from tradecache.clock import TTL, Clock
from tradecache.delivery import hand_out
from tradecache.desk import BarDesk
from tradecache.errors import CacheClosed, InvalidInput
from tradecache.export import checked_path, write_frame
from tradecache.glance import Glance, glance_at
from tradecache.history import History
from tradecache.holdings import expiries_frame, occupancy_frame
from tradecache.layouts import Layout, OnError
from tradecache.models import PriceData, checked_symbol
from tradecache.points import latest_frame
from tradecache.prices import PriceBook
from tradecache.ranges import Moment
from tradecache.settings import Settings
from tradecache.stack import build_stack
from tradecache.stats import Window
from tradecache.stores.local import LocalStore
from tradecache.telemetry import BIN_SECONDS, Telemetry

if TYPE_CHECKING:
    from tradecache.exporter import MetricsServer
    from tradecache.freshness import Freshness
    from tradecache.metrics import CacheCollector
    from tradecache.shelving import Shelving

WARMED_AT_ONCE = 8  # the source has its own limit, and no more need be open than that keeps busy
METRICS_PORT = 9464  # as OpenTelemetry's exporter has it, which is hardly ever on the same machine

Symbols = str | Iterable[str]
"""One symbol, or several: a list, an Index, a Series."""


class TradingDataCache:
    """The async core: price points and bars in memory, else on disk, else from a source.

    Args:
        cache_dir: The folder of the durable tier; `settings.cache_dir` by default.
        source: Whom to ask for bars: "yfinance", "ccxt:<exchange>", "files:<folder>", "sample", "synthetic",
            a function of (symbol, start, end, interval), or an object with `name` and `async def fetch`.
            Without one, bars are those that were stored with `store_bars`.
        freshness: Until when bars are fresh: a policy of `tradecache.freshness`, `BarClose()` by default.
        settings: See `Settings`.
        clock: A callable that returns an aware datetime in UTC; the system's clock by default.
        durable: Any py-key-value store to use as the durable tier instead of a folder: price points by their id,
            and where it lists its keys, by time; bars need a folder.
        team: Any py-key-value store where a team keeps final bars, instead of `settings.team_url`; it is asked
            before a source is, and stays yours to close.

    It may be used from several event loops and threads, and as an async context manager.

    Raises:
        InvalidInput: When an argument is not what it should be.
        StoreReadOnly: When the folder can be neither made nor read.
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
        if not isinstance(settings, (Settings, type(None))):
            raise InvalidInput("settings", settings, "a tradecache.Settings")
        if not isinstance(durable, (AsyncKeyValue, type(None))):
            raise InvalidInput("durable", durable, "a store of py-key-value (an AsyncKeyValue)")
        if not isinstance(team, (AsyncKeyValue, type(None))):
            raise InvalidInput("team", team, "a store of py-key-value (an AsyncKeyValue)")
        asked = _checked_source(source)  # before a folder is made
        named: dict[str, Any] = {} if cache_dir is None else {"cache_dir": cache_dir}
        if settings is None:
            chosen = Settings(**named)  # made once: each time it reads the environment
        else:
            chosen = settings.model_copy(update=named) if named else settings
        self.settings = chosen
        self.clock = Clock(clock)
        self.stack = build_stack(chosen, clock=self.clock, durable=durable)
        keep = chosen.keep_history
        shelving = _shelving(chosen, clock=self.clock, team=team)
        self.telemetry = Telemetry(
            self.clock.epoch, bin_seconds=None if keep is None else BIN_SECONDS, has_team=bool(shelving)
        )
        self._history = History(self.stack, self.telemetry, clock=self.clock, keep=keep)
        self.book = PriceBook(
            self.stack, clock=self.clock, telemetry=self.telemetry, default_ttl=chosen.default_ttl
        )
        self.desk = BarDesk(
            self.stack,
            clock=self.clock,
            telemetry=self.telemetry,
            source=asked,
            freshness=freshness,
            settings=chosen,
            shelving=shelving,
        )
        self._closed = False
        self._servers: list[MetricsServer] = []
        self._stop_writing: Callable[[], object] = _nothing
        if keep is not None:
            # which writes a last time also when nobody has closed it: the history does not keep it alive
            self._stop_writing = weakref.finalize(
                self, shared_bridge().every(BIN_SECONDS, self._history.write)
            )

    @property
    def where(self) -> str:
        """The folder of the durable tier, or the kind of store that was passed in instead."""
        store = self.stack.durable
        return str(store.folder) if isinstance(store, LocalStore) else type(store).__name__

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

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

    async def bars(
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
        """Return bars, read through the cache, as `TradeCache.bars` describes."""
        self._check_open()
        asked = self.desk.requests(
            listed(symbols), start, end, interval=interval, source=source, refresh=refresh,
            layout=layout, on_error=on_error,
        )  # fmt: skip
        answers = await self.desk.answers(asked, source=source, allow_stale=allow_stale)
        return hand_out(
            answers, self.desk.views, is_alone=isinstance(symbols, str), columns=columns, layout=layout,
            allow_stale=allow_stale, on_error=on_error,
        )  # fmt: skip

    async def store_bars(
        self, symbol: str, frame: pd.DataFrame, *, interval: str = "1d", ttl: TTL | None = None
    ) -> None:
        """Store bars of your own, as `TradeCache.store_bars` describes."""
        self._check_open()
        await self.desk.store(symbol, frame, interval=interval, ttl=ttl)

    async def plan(
        self,
        symbols: Symbols,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        interval: str = "1d",
        refresh: bool = False,
        source: Any = None,
    ) -> pd.DataFrame:
        """Return what `bars` would ask the source for, as `TradeCache.plan` describes."""
        self._check_open()
        asked = self.desk.requests(
            listed(symbols), start, end, interval=interval, source=source, refresh=refresh
        )
        return await self.desk.plan(asked, source=source)

    async def warm(
        self,
        symbols: Symbols,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        interval: str = "1d",
        source: Any = None,
        progress: bool = True,
    ) -> pd.DataFrame:
        """Have bars and price points of some symbols in memory, as `TradeCache.warm` describes."""
        self._check_open()
        from tqdm.auto import tqdm

        asked = self.desk.requests(listed(symbols), start, end, interval=interval, source=source)
        places = asyncio.Semaphore(WARMED_AT_ONCE)
        answers: list[Answer] = []
        with tqdm(total=len(asked), desc="warm", unit="symbol", disable=not progress) as bar:

            async def warmed(request: Request) -> stats.Warmed:
                async with places:
                    report = await self._warmed(request, source, answers)
                bar.update()
                return report

            reports = await asyncio.gather(*map(warmed, asked))
        self.desk.last = [answer.without_bars() for answer in answers]
        return stats.warmed_frame(reports)

    async def _warmed(self, request: Request, source: Any, answers: list[Answer]) -> stats.Warmed:
        began, symbol, points, error = time.perf_counter(), request.series.symbol, 0, ""
        rows = fetched = requests = 0
        if await self.desk.may_have(request):
            answer = await self.desk.warm(request, source=source)
            answers.append(answer)
            rows, fetched, requests = len(answer.frame), answer.fetched, answer.requests
            error = "" if answer.error is None else f"{type(answer.error).__name__}: {answer.error}"
        try:
            points = await self.book.warm(symbol)
        except Exception as fault:  # noqa: BLE001 - one bad symbol does not stop the others; it is in the report
            error = f"{type(fault).__name__}: {fault}"
        seconds = time.perf_counter() - began
        return stats.Warmed(symbol, points, max(0, rows - fetched), fetched, requests, seconds, error)

    async def coverage(
        self,
        symbols: Symbols | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        interval: str | None = None,
        source: Any = None,
    ) -> pd.DataFrame:
        """Return which ranges of bars are stored and in which state, as `TradeCache.coverage` describes."""
        self._check_open()
        wanted = None if symbols is None else listed(symbols)
        return await self.desk.coverage(wanted, start, end, interval=interval, source=source)

    def explain(self) -> pd.DataFrame:
        """Return where the last bars came from, as `TradeCache.explain` describes."""
        return self.desk.explain()

    def failures(self) -> pd.DataFrame:
        """Return which symbols of the last call failed, as `TradeCache.failures` describes."""
        return self.desk.failures()

    async def invalidate(
        self,
        symbols: Symbols | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        interval: str | None = None,
        source: Any = None,
    ) -> pd.Series:
        """Delete points and bars in a range of time; return how many, by symbol (see `TradeCache.invalidate`)."""
        self._check_open()
        listed_ones = None if symbols is None else listed(symbols)
        counts: dict[str, int] = {}
        if interval is None and source is None:
            wanted = await self.book.symbols() if listed_ones is None else listed_ones
            counts = await self.book.invalidate(wanted, start, end)
        if isinstance(self.stack.durable, LocalStore):
            gone = await self.desk.invalidate(listed_ones, start, end, interval=interval, source=source)
            counts = {name: counts.get(name, 0) + gone.get(name, 0) for name in [*counts, *gone]}
        return stats.counts_by_symbol(counts, name="deleted")

    async def export(
        self,
        path: str | Path,
        symbols: Symbols | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        interval: str | None = None,
        source: Any = None,
    ) -> Path:
        """Write points, or with an interval bars, to a file, as `TradeCache.export` describes; return the path."""
        chosen = checked_path(path)
        if interval is None:
            frame = await self.prices(symbols, start, end)
            if frame.empty and symbols is not None and (kinds := await self.desk.intervals(listed(symbols))):
                raise InvalidInput("interval", None, f"{' or '.join(map(repr, kinds))}: only bars are stored")
        elif symbols is None:
            raise InvalidInput("symbols", symbols, "one or several, where bars are exported")
        else:
            frame = await self.bars(
                listed(symbols), start, end, interval=interval, source=source, layout="long",
                on_error="raise",
            )  # fmt: skip
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
        also = self.stack.sealed.fault if self.stack.sealed else None
        faults = await store.verify(also=also) if isinstance(store, LocalStore) else []
        return pd.DataFrame(faults, columns=["collection", "key", "fault"], dtype="str")

    async def info(self) -> pd.Series:
        """Return where the cache is and how much is in it, as `TradeCache.info` describes."""
        self._check_open()
        store = self.stack.durable
        usage = await store.usage() if isinstance(store, LocalStore) else {}
        return stats.info_series(
            self.where, self.settings, self.stack.memory.occupancy(), usage, self.servers()
        )

    def servers(self) -> dict[str, bool]:
        """Return for each shared server ("memory", "team", "archive") whether it is believed to answer."""
        shared = self.stack.shared
        memory = {} if shared is None else {"memory": not shared.outage.is_on}
        return memory | self.desk.shelving.states()

    def get_cache_statistics(self) -> dict[str, int | float]:
        """Return total_gets, cache_hits, cache_misses, hit_rate_percent, total_puts and total_deletes.

        Gets are all reads, of price points and of bars, as `stats(by="dataset")` has them; what memory or disk
        answered is a hit, anything else a miss. Puts and deletes are of price points, each row of a bulk write
        by itself. The rate is 0.0 before the first get.
        """
        return stats.totals(self.telemetry, self.stack.points)

    def stats(self, by: str = "tier") -> pd.DataFrame:
        """Return requests, hits, misses, hit rate, rows and latencies, as `TradeCache.stats` describes."""
        return stats.stats_frame(self.telemetry, by=by)

    def events(self) -> pd.DataFrame:
        """Return the remembered requests, one to a row, as `TradeCache.events` describes."""
        return stats.events_frame(self.telemetry)

    def hit_rate(
        self, window: Window | None = None, *, by: str = "tier", history: pd.DataFrame | None = None
    ) -> pd.DataFrame:
        """Return the hit rate over time, as `TradeCache.hit_rate` describes."""
        return stats.hit_rate_frame(self.telemetry, window=window, by=by, history=history)

    async def history(self) -> pd.DataFrame:
        """Return what this and earlier sessions were asked, as `TradeCache.history` describes."""
        self._check_open()
        return stats.history_frame(await self._history.read())

    async def expiries(self, symbols: Symbols | None = None) -> pd.DataFrame:
        """Return what is stored and until when it lives, as `TradeCache.expiries` describes."""
        self._check_open()
        wanted = None if symbols is None else listed(symbols)
        points = await self.book.lifetimes(wanted)
        is_folder = isinstance(self.stack.durable, LocalStore)
        spans = await self.desk.coverage(wanted, None, None, interval=None) if is_folder else None
        now = pd.Timestamp(self.clock.micros(), unit="us", tz="UTC")  # as expiries are told by
        return expiries_frame(points, spans, now=now)

    async def occupancy(self) -> pd.DataFrame:
        """Return how much each tier holds, as `TradeCache.occupancy` describes."""
        self._check_open()
        store = self.stack.durable
        on_disk = await store.sizes() if isinstance(store, LocalStore) else None
        return occupancy_frame(memory=self.stack.memory.sizes(), disk=on_disk, settings=self.settings)

    def glance(self, *, recent: int = 0) -> Glance:
        """Return what can be seen without asking the folder, with the newest few requests."""
        return glance_at(self.telemetry, self.stack.memory.occupancy, recent=recent)

    def collector(self, *, symbols: bool = False) -> "CacheCollector":
        """Return what a registry of prometheus_client registers, as `TradeCache.collector` describes."""
        self._check_open()
        from tradecache.metrics import CacheCollector

        return CacheCollector(self, symbols=symbols)

    def serve_metrics(
        self, *, port: int = METRICS_PORT, address: str = "127.0.0.1", symbols: bool = False
    ) -> "MetricsServer":
        """Answer Prometheus in the background, as `TradeCache.serve_metrics` describes."""
        collector = self.collector(symbols=symbols)
        from tradecache.exporter import MetricsServer

        server = MetricsServer(collector, port=port, address=address)
        server.end_with(self)
        self._servers = [each for each in self._servers if not each.is_closed] + [server]
        server.begin()
        return server

    def reset_stats(self) -> None:
        """Begin all counters and events anew."""
        self.telemetry.reset()
        self.stack.reset_statistics()

    async def cleanup(self) -> None:
        """Let go of files and memory; the data stays on disk. More than once is fine."""
        if self._closed:
            return
        self._closed = True
        async with contextlib.AsyncExitStack() as parts:  # each is let go of, whatever becomes of the others
            parts.push_async_callback(self.stack.close)
            parts.push_async_callback(self.desk.close)
            for server in self._servers:
                parts.push_async_callback(in_thread, server.close)
            parts.callback(self._stop_writing)
            await self._history.close()

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
    return stats.points_warmed_frame(rows)


def listed(symbols: object) -> list[str]:
    """Return one symbol or several as a list, each checked, each once."""
    if isinstance(symbols, str):
        return [checked_symbol(symbols)]
    if not isinstance(symbols, Iterable) or isinstance(symbols, (bytes, pd.DataFrame)):
        raise InvalidInput("symbols", symbols, "a symbol, or several in a list, an Index or a Series")
    return list(dict.fromkeys(checked_symbol(symbol) for symbol in symbols))


def _checked_source(source: Any) -> Any:
    if source is None or source == "local":
        return None
    from tradecache.sources.catalog import as_source

    return as_source(source)


def _shelving(settings: Settings, *, clock: Clock, team: AsyncKeyValue | None) -> "Shelving | None":
    """Return the shared places of final bars; None where there are none, and nothing need be imported for them."""
    if team is None and settings.team_url is None and settings.archive_url is None:
        return None
    from tradecache.places import shelving_of

    return shelving_of(settings, clock=clock, team=team)


def _nothing() -> None:
    """Stop what was never begun."""


async def _cull(store: Any) -> dict[str, int]:
    if hasattr(store, "cull"):
        await store.cull()
    return {}
