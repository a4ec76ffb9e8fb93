"""Which numbers of a cache does Prometheus get, and under which names?"""

import functools
import importlib.metadata
import itertools
import logging
import os
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from key_value.aio.protocols.key_value import AsyncKeyValue

from tradecache.bridge import Unfinished, finish
from tradecache.clock import Clock
from tradecache.desk import BarDesk
from tradecache.errors import InvalidInput, MissingDependency, StoreError, TradeCacheError, WrongKey
from tradecache.history import Sums
from tradecache.settings import Settings
from tradecache.stack import Stack
from tradecache.stats import asked_of
from tradecache.stores.disk import QUARANTINE
from tradecache.stores.ledger import newest_number
from tradecache.stores.local import LocalStore
from tradecache.stores.tags import CARD
from tradecache.telemetry import HITS, LATENCIES, Group, Kind, Telemetry, Totals, outcome_of

try:
    from prometheus_client import CollectorRegistry, make_wsgi_app
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        InfoMetricFamily,
        Metric,
    )
    from prometheus_client.registry import Collector
    from prometheus_client.utils import floatToGoString
except ModuleNotFoundError as error:
    if error.name != "prometheus_client":
        raise
    raise MissingDependency("prometheus_client", "metrics") from error

T = TypeVar("T")

log = logging.getLogger("tradecache")

Labels = tuple[str, ...]
Counted = Mapping[Labels, Sequence[int]]
"""Requests, rows and bytes, by labels."""

BOUNDS = (*map(floatToGoString, LATENCIES), "+Inf")
"""How the bounds of the buckets are spelt."""
BY = ("operation", "dataset", "tier", "outcome")
LOOK_EVERY = 1.0  # seconds, at least, between two looks at the folder
SHARE = 0.01  # of the time that may be spent on looking at it
PATIENCE = 60.0  # seconds after which somebody else looks, where who began to has not ended
RESULTS = {"hits": "hit", "fetches": "fetch", "misses": "miss", "errors": "error"}
"""How the columns of `stats` are called as a label."""

OF_REQUESTS = {
    "tradecache_requests": (
        "Requests, by the tier that answered (of bars the slowest that had a part in it; none: nobody had it; error: "
        "it failed) and by what became of them."
    ),
    "tradecache_rows": "Rows that requests gave or took, by labels of their request.",
    "tradecache_bytes": "Bytes of those rows, at eight for each value and label.",
}
OF_MEMORY = {
    "bytes": "Bytes that the memory tier holds.",
    "limit_bytes": "Bytes that it may hold.",
    "entries": "Entries of the memory tier.",
}
OF_MEMORY_EVER = {
    "evictions": "Entries that had to go from the memory tier, or did not get in, for want of room.",
    "expirations": "Entries of the memory tier that were freed because their time was over.",
}
OF_DISK = {
    "up": "Whether the folder could be read when it was last looked at (1) or not (0).",
    "look_timestamp_seconds": "When the folder was last looked at: seldom, where there is much in it.",
    "entries": "Entries of the durable tier, expired ones that are not freed yet among them.",
    "payloads": "Entries of the durable tier that have a file of their own.",
    "bytes": "Bytes of all entries of the durable tier.",
    "ledger_bytes": "Bytes of the ledger's file.",
    "limit_bytes": "Bytes of frames that the durable tier may hold; absent: no bound.",
    "quarantine_files": "Damaged files that were put into the folder's quarantine, by whomever.",
}
OF_DISK_EVER = {"quarantined": "Damaged entries and ledgers that this process has put aside."}


class Watched(Protocol):
    """What is asked of a cache: a `TradingDataCache` has it."""

    telemetry: Telemetry
    stack: Stack
    desk: BarDesk
    settings: Settings
    clock: Clock

    def servers(self) -> dict[str, bool]:
        """Return for each shared server by its role, "memory", "team" or "archive", whether it is believed to answer."""


class CacheCollector(Collector):
    """What one cache of this process does, for a `prometheus_client.CollectorRegistry`.

    A scrape may come from any thread, and costs the same however many symbols there are, unless they are a label. To
    count what is on disk takes the longer the more there is, and whoever reads from disk meanwhile waits: it is done
    for a hundredth of the time at most, else the last figures are told. The cache is not kept alive; once it is gone
    there is nothing to tell. Of several caches each needs a registry of its own.

    Args:
        cache: Whose.
        symbols: Whether requests, rows and bytes have the symbol as a label: one more series for each.
        monotonic: Seconds of a clock that never runs backwards.

    Raises:
        InvalidInput: When `symbols` is no bool.
    """

    def __init__(
        self, cache: Watched, *, symbols: bool = False, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        if not isinstance(symbols, bool):
            raise InvalidInput("symbols", symbols, "True or False")
        self._cache = weakref.ref(cache)
        self._symbols = symbols
        self._disk: Paced[dict[str, float]] = Paced({}, monotonic=monotonic)

    def collect(self) -> Iterator[Metric]:
        """Return what there is to tell now."""
        cache = self._cache()
        return iter(()) if cache is None else _families(self._seen(cache), by=self._by)

    def describe(self) -> Iterator[Metric]:
        """Return the names, without looking."""
        return _families(Seen({}, {}, {}, {}, {}, {}, {}), by=self._by)

    @property
    def _by(self) -> Labels:
        return (*BY, "symbol") if self._symbols else BY

    def _seen(self, cache: Watched) -> "Seen":
        totals = cache.telemetry.totals()
        return Seen(
            counts=_by_symbol(cache.telemetry) if self._symbols else _counted(totals),
            lookups=_lookups(totals, has_team=cache.telemetry.has_team),
            latencies=totals,
            sources=cache.desk.source_requests(),
            memory=cache.stack.memory.occupancy(),
            disk=self._disk.now(lambda: _disk(cache)),
            servers=cache.servers(),
        )

    def __repr__(self) -> str:
        """Say what it has as labels."""
        return f"<CacheCollector by {', '.join(self._by)}>"


class FolderCollector(Collector):
    """What all processes have counted that use one folder, and what is on disk, seen from a process of its own.

    The counts are those of the folder's history: only processes whose `Settings.keep_history` is on are in it, a minute
    late, and without latencies. They never fall while this lives, though entries of the history expire, the folder be
    gone, or its keys be others now. It makes no folder and no ledger: where there are none, it says so.

    Args:
        cache: A cache of the folder, which is kept.
        monotonic: Seconds of a clock that never runs backwards.
    """

    def __init__(self, cache: Watched, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._cache = cache
        self._sums = Sums(cache.stack, clock=cache.clock)
        self._counting = threading.Lock()  # else older sums might be told after newer ones
        self._history: Paced[dict[Group, Totals]] = Paced({}, monotonic=monotonic)
        self._disk: Paced[dict[str, float]] = Paced({}, monotonic=monotonic)

    def collect(self) -> Iterator[Metric]:
        """Return what there is to tell now."""
        with self._counting:
            totals = self._history.now(self._counts)
        disk = self._disk.now(lambda: _disk(self._cache))
        if disk and self._history.failed:
            disk = {**disk, "up": 0}
        has_team = any(group.tier == "team" for group in totals)
        lookups = _lookups(totals, has_team=has_team)
        return _families(Seen(_counted(totals), lookups, disk=disk), by=BY)

    def _counts(self) -> dict[Group, Totals]:
        _check_readable(self._cache.stack.durable)
        return finish(self._sums.look())

    def describe(self) -> Iterator[Metric]:
        """Return the names, without looking."""
        return _families(Seen({}, {}, disk={}), by=BY)

    def __repr__(self) -> str:
        """Name the folder."""
        return f"<FolderCollector of {self._cache.settings.cache_dir}>"


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to tell at one moment; None: what cannot be known from here."""

    counts: Counted
    lookups: Mapping[Labels, int]
    latencies: Mapping[Group, Totals] | None = None
    sources: Mapping[str, int] | None = None
    memory: Mapping[str, int] | None = None
    disk: Mapping[str, float] | None = None
    servers: Mapping[str, bool] | None = None


class Paced(Generic[T]):
    """What was seen at the last look; the next one is begun only after a hundred times as long as that took.

    Args:
        first: What is told before anything was seen.
        monotonic: Seconds of a clock that never runs backwards.
    """

    def __init__(self, first: T, *, monotonic: Callable[[], float]) -> None:
        self._last = first
        self.failed = False
        """Whether there was nothing to be seen at the last look, for another reason than that somebody is at work."""
        self._monotonic = monotonic
        self._due = -float("inf")

    def now(self, look: Callable[[], T]) -> T:
        """Return what `look` sees, or where it cannot, or would have to wait for others, what it saw last."""
        began = self._monotonic()
        if began >= self._due:
            self._due = began + PATIENCE  # whoever comes meanwhile is told what was seen last
            try:
                self._last = look()
                self.failed = False
            except Unfinished:
                return self._last
            except TradeCacheError as error:
                log.debug("nothing to be seen for Prometheus: %s", error)
                self.failed = True
            finally:
                ended = self._monotonic()
                self._due = ended + max(LOOK_EVERY, (ended - began) / SHARE)
        return self._last


def app_of(collector: Collector) -> Callable[..., Any]:
    """Return a WSGI application that answers with what a collector, and nobody else, has to tell."""
    registry = CollectorRegistry()
    registry.register(collector)
    app: Callable[..., Any] = make_wsgi_app(registry)
    return app


def _disk(cache: Watched) -> dict[str, float]:
    """Return what is in the folder; nothing where a store was passed in, which does not tell."""
    store = cache.stack.durable
    if not isinstance(store, LocalStore):
        return {}
    try:
        _check_readable(store)
        found = finish(store.usage())
    except TradeCacheError:
        return {"up": 0}
    more = {"quarantine_files": _files_in(store.folder / QUARANTINE), "up": 1}
    if cache.settings.disk_bytes is not None:
        more["limit_bytes"] = cache.settings.disk_bytes
    return {"look_timestamp_seconds": cache.clock.epoch(), **found, **more}


def _check_readable(store: AsyncKeyValue) -> None:
    """See that a folder and its ledger are there, before they are made by being looked at.

    Raises:
        StoreError: When one of them is gone.
        WrongKey: When it was encrypted meanwhile.
    """
    if not isinstance(store, LocalStore):
        return
    try:
        is_there = bool(newest_number(store.folder))
    except OSError as error:
        raise StoreError(store.folder, error) from error
    if not is_there:
        raise StoreError(store.folder, "there is no ledger")
    if store.card is None and (store.folder / CARD).exists():
        raise WrongKey(store.folder, "is encrypted by now")


def _files_in(folder: Path) -> int:
    try:
        return len(os.listdir(folder))  # noqa: PTH208 - one call
    except OSError:  # it is made when it is needed, and may be removed by hand
        return 0


def _counted(totals: Mapping[Group, Totals]) -> Counted:
    found: defaultdict[Labels, list[int]] = defaultdict(lambda: [0, 0, 0])
    for group, counts in totals.items():
        _add(found[group.operation, group.dataset, group.tier, group.outcome], counts[:3])
    return found


def _by_symbol(telemetry: Telemetry) -> Counted:
    found: defaultdict[Labels, list[int]] = defaultdict(lambda: [0, 0, 0])
    for kind, counts in telemetry.counts().items():
        outcome = outcome_of(kind.operation, kind.tier, is_stale=kind.is_stale)
        _add(found[kind.operation, kind.dataset, kind.tier, outcome, kind.symbol], counts[:3])
    return found


def _add(sums: list[int], counts: tuple[int, int, int]) -> None:
    for place, number in enumerate(counts):
        sums[place] += number


def _lookups(totals: Mapping[Group, Totals], *, has_team: bool) -> Mapping[Labels, int]:
    """Return how often each tier was asked by reads, and with which result, as `stats` counts it."""
    found: defaultdict[Labels, int] = defaultdict(int)
    for group, counts in totals.items():
        kind = Kind(group.operation, group.dataset, "", group.tier, group.is_stale)
        for tier, column in asked_of(kind, has_team=has_team):
            of_tier = group.operation, group.dataset, tier
            if tier in HITS:
                found[*of_tier, RESULTS["hits"]] += 0  # a rate of nothing is zero, and not unknown
            found[*of_tier, RESULTS.get(column, column)] += counts.requests
    return found


def _families(seen: Seen, *, by: Labels) -> Iterator[Metric]:
    yield InfoMetricFamily("tradecache_build", "The version of tradecache.", {"version": _version()})
    yield from _of_requests(seen.counts, by)
    yield _of_lookups(seen.lookups)
    if seen.latencies is not None:
        yield _of_latencies(seen.latencies)
    if seen.sources is not None:
        yield _of_sources(seen.sources)
    if seen.memory is not None:
        yield from _gauges("memory", OF_MEMORY, {**seen.memory, "limit_bytes": seen.memory.get("max_bytes")})
        yield from _counters("memory", OF_MEMORY_EVER, seen.memory)
    if seen.disk is not None:
        yield from _gauges("disk", OF_DISK, seen.disk)
        yield from _counters("disk", OF_DISK_EVER, seen.disk)
    if seen.servers is not None:
        yield _of_servers(seen.servers)


def _of_requests(counts: Counted, by: Labels) -> Iterator[Metric]:
    for place, (name, text) in enumerate(OF_REQUESTS.items()):
        family = CounterMetricFamily(name, text, labels=by)
        for labels, numbers in counts.items():
            family.add_metric(labels, numbers[place])
        yield family


def _of_lookups(lookups: Mapping[Labels, int]) -> Metric:
    text = "How often reads came to a tier, because those before it could not answer, and with which result."
    labels = ("operation", "dataset", "tier", "result")
    family = CounterMetricFamily("tradecache_tier_lookups", text, labels=labels)
    for values, number in lookups.items():
        family.add_metric(values, number)
    return family


def _of_latencies(totals: Mapping[Group, Totals]) -> Metric:
    text = "How long requests took, by the tier that answered."
    family = HistogramMetricFamily("tradecache_request_duration_seconds", text, labels=BY[:3])
    for labels, parts in _together(totals).items():
        numbers = map(sum, zip(*(part.latencies for part in parts), strict=True))
        buckets = list(zip(BOUNDS, itertools.accumulate(numbers), strict=True))
        family.add_metric(labels, buckets, sum(part.seconds for part in parts))
    return family


def _together(totals: Mapping[Group, Totals]) -> Mapping[Labels, Sequence[Totals]]:
    """Return what is told of as one, whether it was stale or not."""
    found: defaultdict[Labels, list[Totals]] = defaultdict(list)
    for group, counts in totals.items():
        found[group.operation, group.dataset, group.tier].append(counts)
    return found


def _of_sources(requests: Mapping[str, int]) -> Metric:
    text = "How often a source of bars was asked, retries included."
    family = CounterMetricFamily("tradecache_source_requests", text, labels=("source",))
    for source, number in requests.items():
        family.add_metric((source,), number)
    return family


def _of_servers(servers: Mapping[str, bool]) -> Metric:
    text = "Whether a shared server answered when it was last asked (1) or not (0); absent: there is none."
    family = GaugeMetricFamily("tradecache_server_up", text, labels=("server",))
    for server, is_up in servers.items():
        family.add_metric((server,), is_up)
    return family


def _gauges(room: str, texts: Mapping[str, str], values: Mapping[str, float | None]) -> Iterator[Metric]:
    for name, text in texts.items():
        family = GaugeMetricFamily(f"tradecache_{room}_{name}", text, labels=())
        if (value := values.get(name)) is not None:
            family.add_metric((), value)
        yield family


def _counters(room: str, texts: Mapping[str, str], values: Mapping[str, float]) -> Iterator[Metric]:
    for name, text in texts.items():
        family = CounterMetricFamily(f"tradecache_{room}_{name}", text, labels=())
        if name in values:
            family.add_metric((), values[name])
        yield family


@functools.cache
def _version() -> str:
    """Return the installed version; in a source tree that is not installed there is none."""
    try:
        return importlib.metadata.version("tradecache")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
