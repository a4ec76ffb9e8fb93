"""How is the key-value stack put together: statistics, memory in front of disk, logging, retry?"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, SupportsFloat, TypeVar, runtime_checkable

from key_value.aio._utils.constants import DEFAULT_COLLECTION_NAME
from key_value.aio.protocols.key_value import AsyncKeyValue
from key_value.aio.wrappers.limit_size import LimitSizeWrapper
from key_value.aio.wrappers.logging import LoggingWrapper
from key_value.aio.wrappers.passthrough_cache import PassthroughCacheWrapper
from key_value.aio.wrappers.retry import RetryWrapper
from key_value.aio.wrappers.statistics import StatisticsWrapper
from key_value.aio.wrappers.statistics.wrapper import (
    BaseHitMissStatistics,
    DeleteStatistics,
    GetStatistics,
    KVStoreCollectionStatistics,
    KVStoreStatistics,
    PutStatistics,
    TTLStatistics,
)

from tradecache.clock import Clock, checked_ttl
from tradecache.errors import StoreBusy, StoreFault
from tradecache.settings import Settings
from tradecache.stores.hot import HotStore
from tradecache.stores.local import LocalStore
from tradecache.telemetry import SERVED_BY

T = TypeVar("T")

log = logging.getLogger("tradecache")

TRANSIENT: tuple[type[Exception], ...] = (StoreBusy, StoreFault, ConnectionError, TimeoutError)
"""What is worth another try: ours name what SQLite and the system report, the others are every client's."""

Item = tuple[str, str, Mapping[str, Any]]
"""Collection, key and value."""


@runtime_checkable
class AtomicStore(Protocol):
    """A store that can enter values of several collections in one transaction."""

    async def put_all(self, items: Sequence[Item], *, ttl: float | None) -> None:
        """Store all of `items` or none."""


class OperationLog(LoggingWrapper):
    """Logs each operation by name, collection, key and outcome; never a value.

    While nobody listens, reads and writes pass by without being spelt out.
    """

    async def ttl(
        self, key: str, *, collection: str | None = None
    ) -> tuple[dict[str, Any] | None, float | None]:
        """Return value and TTL."""
        if self.logger.isEnabledFor(self.log_level):
            return await super().ttl(key, collection=collection)
        return await self.key_value.ttl(key, collection=collection)

    async def put(
        self,
        key: str,
        value: Mapping[str, Any],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store a value."""
        if self.logger.isEnabledFor(self.log_level):
            return await super().put(key, value, collection=collection, ttl=ttl)
        return await self.key_value.put(key, value, collection=collection, ttl=ttl)

    def _log(
        self,
        state: Literal["start", "finish"],
        action: str,
        keys: Sequence[str] | str,
        collection: str | None,
        values: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,  # noqa: ARG002 - never shown
        extra: dict[str, Any] | None = None,
    ) -> None:
        if state == "finish" and self.logger.isEnabledFor(self.log_level):
            shown = keys if isinstance(keys, str) else f"{len(keys)} keys"
            self.logger.log(self.log_level, "%s %r in %r: %s", action, shown, collection, extra)


class Retry(RetryWrapper):
    """Tries again what failed for a passing reason, with exponential back-off.

    The first try of the two operations that matter is a plain call, which costs a fifth of the wrapper's.
    """

    async def ttl(
        self, key: str, *, collection: str | None = None
    ) -> tuple[dict[str, Any] | None, float | None]:
        """Return value and TTL."""
        try:
            return await self.key_value.ttl(key, collection=collection)
        except self.retry_on as fault:
            return await self.again(fault, self.key_value.ttl, key, collection=collection)

    async def put(
        self,
        key: str,
        value: Mapping[str, Any],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store a value."""
        try:
            await self.key_value.put(key, value, collection=collection, ttl=ttl)
        except self.retry_on as fault:
            await self.again(fault, self.key_value.put, key, value, collection=collection, ttl=ttl)

    async def call(self, operation: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
        """Run an operation of the store that the protocol has no word for."""
        try:
            return await operation(*args, **options)
        except self.retry_on as fault:
            return await self.again(fault, operation, *args, **options)

    async def again(
        self, fault: Exception, operation: Callable[..., Awaitable[T]], *args: Any, **options: Any
    ) -> T:
        """Go on after a first try that failed with `fault`: wait, try, and wait longer each time."""
        await asyncio.sleep(0)  # where no loop runs (`bridge.finish`), the work is given up here
        for attempt in range(self.max_retries):
            delay = self._calculate_delay(attempt)
            log.warning("%s; trying again in %.2f s (%d of %d)", fault, delay, attempt + 1, self.max_retries)
            await asyncio.sleep(delay)
            try:
                return await operation(*args, **options)
            except self.retry_on as next_fault:
                fault = next_fault
        raise fault


class TierStatistics(StatisticsWrapper):
    """Counts exactly under threads, by dataset instead of by collection, so that symbols do not pile up.

    The three operations that matter are spelt out, without the run-time type checks of the library's own.
    """

    def __init__(self, key_value: AsyncKeyValue) -> None:
        super().__init__(key_value)
        self._statistics = _ByDataset()

    async def get(self, key: str, *, collection: str | None = None) -> dict[str, Any] | None:
        """Return a value, counting a hit or a miss."""
        value = await self.key_value.get(key, collection=collection)
        counted = self._statistics.get_collection(collection or DEFAULT_COLLECTION_NAME).get
        if value is None:
            counted.increment_miss()
        else:
            counted.increment_hit()
        return value

    async def ttl(
        self, key: str, *, collection: str | None = None
    ) -> tuple[dict[str, Any] | None, float | None]:
        """Return a value and its TTL, counting a hit or a miss."""
        found = await self.key_value.ttl(key, collection=collection)
        counted = self._statistics.get_collection(collection or DEFAULT_COLLECTION_NAME).ttl
        if found[0] is None:
            counted.increment_miss()
        else:
            counted.increment_hit()
        return found

    async def put(
        self,
        key: str,
        value: Mapping[str, Any],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store a value, counting it."""
        await self.key_value.put(key, value, collection=collection, ttl=ttl)
        self._statistics.get_collection(collection or DEFAULT_COLLECTION_NAME).put.increment()

    def reset(self) -> None:
        """Begin to count at zero."""
        self._statistics = _ByDataset()

    def totals(self, operation: Literal["get", "ttl", "put", "delete"]) -> tuple[int, int, int]:
        """Return count, hits and misses of an operation over all datasets; a put has neither of the last two."""
        found = [getattr(each, operation) for each in list(self.statistics.collections.values())]
        return tuple(sum(getattr(each, name, 0) for each in found) for name in ("count", "hit", "miss"))  # type: ignore[return-value]  # three names, three sums


_COUNTING = threading.Lock()


class _Exact(BaseHitMissStatistics):
    """Counts that no two threads can add to at once."""

    def increment(self, *, increment: int = 1) -> None:
        with _COUNTING:
            self.count += increment

    def increment_hit(self, *, increment: int = 1) -> None:
        with _COUNTING:
            self.count += increment
            self.hit += increment

    def increment_miss(self, *, increment: int = 1) -> None:
        with _COUNTING:
            self.count += increment
            self.miss += increment


class _ExactGet(_Exact, GetStatistics):
    pass


class _ExactTTL(_Exact, TTLStatistics):
    pass


class _ExactPut(_Exact, PutStatistics):
    pass


class _ExactDelete(_Exact, DeleteStatistics):
    pass


class _ByDataset(KVStoreStatistics):
    def get_collection(self, collection: str) -> KVStoreCollectionStatistics:
        dataset = collection.partition(":")[0]
        found = self.collections.get(dataset)
        if found is None:
            found = KVStoreCollectionStatistics(
                get=_ExactGet(), ttl=_ExactTTL(), put=_ExactPut(), delete=_ExactDelete()
            )
            found = self.collections.setdefault(dataset, found)
        return found


class TieredCache(PassthroughCacheWrapper):
    """Memory in front of a durable store, without the wrapper's known races.

    A value read from the durable store enters memory only if its key was not written meanwhile (each key
    has a generation); a write enters memory once it is durable. Before memory is asked, `changed` tells
    whether another process wrote: then everything in memory is looked up anew. `ttl` tells the truth of
    the durable store.
    """

    def __init__(
        self,
        durable: AsyncKeyValue,
        memory: HotStore,
        counted_memory: AsyncKeyValue,
        *,
        clock: Clock,
        memory_ttl: float,
        changed: Callable[[], bool],
    ) -> None:
        super().__init__(durable, counted_memory, maximum_ttl=memory_ttl, missing_ttl=memory_ttl)
        self._memory = memory
        self._counted_memory = counted_memory
        self._clock = clock
        self._memory_ttl = memory_ttl
        self._changed = changed

    async def get(self, key: str, *, collection: str | None = None) -> dict[str, Any] | None:
        """Return the value from memory, else from the durable store, which fills memory."""
        self.look()
        value = await self._counted_memory.get(key, collection=collection)
        if value is not None:
            SERVED_BY.set("memory")
            return value
        began, generation = self._clock.seconds(), self._memory.generation(key, collection=collection)
        value, ttl = await self.primary_key_value.ttl(key, collection=collection)
        SERVED_BY.set("none" if value is None else "disk")
        if value is not None:
            self._fill(key, value, collection=collection, ttl=ttl, generation=generation, began=began)
        return value

    async def get_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[dict[str, Any] | None]:
        """Return one value for each key, in order."""
        return [await self.get(key, collection=collection) for key in keys]

    async def ttl(
        self, key: str, *, collection: str | None = None
    ) -> tuple[dict[str, Any] | None, float | None]:
        """Return the value and the seconds it has left in the durable store."""
        return await self.primary_key_value.ttl(key, collection=collection)

    async def ttl_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[tuple[dict[str, Any] | None, float | None]]:
        """Return value and seconds left for each key, in order."""
        return await self.primary_key_value.ttl_many(keys, collection=collection)

    async def put(
        self,
        key: str,
        value: Mapping[str, Any],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store a value durably, then in memory."""
        seconds = checked_ttl(ttl)
        began, generation = self._clock.seconds(), self._memory.invalidate(key, collection=collection)
        filled = False
        try:
            await self.primary_key_value.put(key, value, collection=collection, ttl=seconds)
            filled = self._fill(
                key, value, collection=collection, ttl=seconds, generation=generation, began=began
            )
        finally:
            if not filled:
                self._memory.invalidate(key, collection=collection)

    async def put_many(
        self,
        keys: Sequence[str],
        values: Sequence[Mapping[str, Any]],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store values durably; memory is not filled, so that a bulk load does not push out what is hot."""
        seconds = checked_ttl(ttl)
        addresses = [(collection, key) for key in keys]
        with self._writing(addresses):
            await self.primary_key_value.put_many(keys, values, collection=collection, ttl=seconds)

    async def delete(self, key: str, *, collection: str | None = None) -> bool:
        """Delete a key from both tiers."""
        with self._writing([(collection, key)]):
            return await self.primary_key_value.delete(key, collection=collection)

    async def delete_many(self, keys: Sequence[str], *, collection: str | None = None) -> int:
        """Delete keys from both tiers; return how many the durable one had."""
        with self._writing([(collection, key) for key in keys]):
            return await self.primary_key_value.delete_many(keys, collection=collection)

    def holds(self, key: str, *, collection: str) -> bool:
        """Whether memory could serve this key now, without counting the question."""
        self.look()
        return self._memory.holds(key, collection=collection)

    def look(self) -> None:
        """Distrust what is in memory if another process has written."""
        if self._changed():
            self._memory.distrust()

    def _writing(self, addresses: Sequence[tuple[str | None, str]]) -> "_Invalidating":
        return _Invalidating(self._memory, addresses)

    def _fill(
        self,
        key: str,
        value: Mapping[str, Any],
        *,
        collection: str | None,
        ttl: float | None,
        generation: int,
        began: float,
    ) -> bool:
        """Put into memory what was read or written since `began`, never for longer than it lives on disk."""
        left = (
            self._memory_ttl if ttl is None else min(ttl - (self._clock.seconds() - began), self._memory_ttl)
        )
        return self._memory.fill(key, value, collection=collection, ttl=left, generation=generation)


@dataclass(frozen=True, slots=True)
class _Invalidating:
    """Keeps keys out of memory from before a write until after it, whether it succeeds or not."""

    memory: HotStore
    addresses: Sequence[tuple[str | None, str]]

    def __enter__(self) -> None:
        self._invalidate()

    def __exit__(self, *_: object) -> None:
        self._invalidate()

    def _invalidate(self) -> None:
        for collection, key in self.addresses:
            self.memory.invalidate(key, collection=collection)


@dataclass(frozen=True, slots=True)
class Stack:
    """The parts of the stack that the rooms above use."""

    points: TierStatistics
    """The whole stack for small JSON values, outermost: statistics."""
    frames: TierStatistics
    """The whole stack for values with a DataFrame under "frame"."""
    tiers: TieredCache
    memory: HotStore
    memory_statistics: TierStatistics
    durable: AsyncKeyValue
    """The durable store itself, for what the protocol has no word for: order, keeping house."""
    retrying: Retry
    disk_statistics: TierStatistics
    wrappers: tuple[TierStatistics, ...] = field(repr=False)

    async def put_all(self, items: Sequence[Item], *, ttl: float | None) -> None:
        """Store values of several collections: all or none."""
        addresses = [(collection, key) for collection, key, _ in items]
        with _Invalidating(self.memory, addresses):
            if isinstance(self.durable, AtomicStore):
                await self.retrying.call(self.durable.put_all, items, ttl=ttl)
            else:
                await self._put_or_undo(items, ttl=ttl)
        for collection, _, _ in items:
            self.points.statistics.get_collection(collection).put.increment()

    async def _put_or_undo(self, items: Sequence[Item], *, ttl: float | None) -> None:
        """Do with single puts what a store without transactions cannot do at once."""
        done: list[tuple[str, str]] = []
        try:
            for collection, key, value in items:
                await self.retrying.put(key, value, collection=collection, ttl=ttl)
                done.append((collection, key))
        except BaseException:
            for collection, key in done:
                await self.retrying.delete(key, collection=collection)
            raise

    def reset_statistics(self) -> None:
        """Begin to count at zero in every tier."""
        for wrapper in self.wrappers:
            wrapper.reset()


def build_stack(settings: Settings, *, clock: Clock, durable: AsyncKeyValue | None = None) -> Stack:
    """Build the stack that `settings` describe, over a `LocalStore` or over the store passed in."""
    store = durable or LocalStore(
        settings.cache_dir,
        clock=clock,
        compression=settings.compression,
        sync=settings.sync,
        lock_wait=settings.lock_wait,
        disk_bytes=settings.disk_bytes,
        max_entry_bytes=settings.max_entry_bytes,
    )
    memory = HotStore(max_bytes=settings.memory_bytes, clock=clock)
    counted_memory = TierStatistics(memory)
    changed = store.changed_by_others if isinstance(store, LocalStore) else _never
    retrying = Retry(
        store,
        max_retries=settings.retries,
        initial_delay=settings.retry_delay,
        max_delay=settings.retry_max_delay,
        retry_on=TRANSIENT,
    )
    counted_disk = TierStatistics(
        OperationLog(retrying, logger=log, log_level=logging.getLevelNamesMapping()[settings.log_level])
    )
    limited = (
        LimitSizeWrapper(counted_disk, max_size=settings.max_entry_bytes)
        if settings.max_entry_bytes
        else None
    )

    def tiered(bottom: AsyncKeyValue) -> TieredCache:
        return TieredCache(
            bottom, memory, counted_memory, clock=clock, memory_ttl=settings.memory_ttl, changed=changed
        )

    tiers = tiered(limited or counted_disk)
    points = TierStatistics(tiers)
    frames = TierStatistics(tiered(counted_disk))
    return Stack(
        points=points,
        frames=frames,
        tiers=tiers,
        memory=memory,
        memory_statistics=counted_memory,
        durable=store,
        retrying=retrying,
        disk_statistics=counted_disk,
        wrappers=(points, frames, counted_memory, counted_disk),
    )


def _never() -> bool:
    return False
