"""What do py-key-value's logging, retry, size and statistics wrappers need to keep their promises?"""

import asyncio
import functools
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, SupportsFloat, TypeVar

from key_value.aio._utils.constants import DEFAULT_COLLECTION_NAME
from key_value.aio.errors import EntryTooLargeError
from key_value.aio.protocols.key_value import AsyncKeyValue
from key_value.aio.wrappers.limit_size import LimitSizeWrapper
from key_value.aio.wrappers.logging import LoggingWrapper
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

from tradecache.errors import EntryTooLarge, StoreBusy, StoreError, StoreFault
from tradecache.forks import fork_safe_lock

T = TypeVar("T")

log = logging.getLogger("tradecache")

TRANSIENT: tuple[type[Exception], ...] = (StoreBusy, StoreFault, ConnectionError, TimeoutError)
"""What is worth another try: ours name what SQLite and the system report, the others are every client's."""


class OperationLog(LoggingWrapper):
    """Logs each operation by name, collection, key and outcome; never a value.

    While nobody listens, reads and writes pass by without being spelt out.
    """

    def __init__(self, key_value: AsyncKeyValue, *, logger: logging.Logger, log_level: int) -> None:
        super().__init__(key_value, logger=logger, log_level=log_level)
        # asked once here, logging remembers the answer: a Ctrl-C in a first question would leave its lock locked
        logger.isEnabledFor(log_level)

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

    The first try of the operations that matter is a plain call, which costs a fifth of the wrapper's.

    Args:
        is_quiet: Whether somebody else says what is wrong, once and not with each try.
        on_fault: Called with each first try that fails.
    """

    def __init__(
        self,
        key_value: AsyncKeyValue,
        *,
        is_quiet: bool = False,
        on_fault: Callable[[], object] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(key_value, **options)
        self._on_fault = on_fault
        self._level = logging.DEBUG if is_quiet else logging.WARNING

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

    async def get(self, key: str, *, collection: str | None = None) -> dict[str, Any] | None:
        """Return a value."""
        try:
            return await self.key_value.get(key, collection=collection)
        except self.retry_on as fault:
            return await self.again(fault, self.key_value.get, key, collection=collection)

    async def get_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[dict[str, Any] | None]:
        """Return values."""
        return await self.call(self.key_value.get_many, keys, collection=collection)

    async def ttl_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[tuple[dict[str, Any] | None, float | None]]:
        """Return values and TTLs."""
        return await self.call(self.key_value.ttl_many, keys, collection=collection)

    async def put_many(
        self,
        keys: Sequence[str],
        values: Sequence[Mapping[str, Any]],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store values."""
        await self.call(self.key_value.put_many, keys, values, collection=collection, ttl=ttl)

    async def delete(self, key: str, *, collection: str | None = None) -> bool:
        """Delete a key; True also where it was gone only because a try had deleted it whose reply was lost."""
        try:
            return await self.key_value.delete(key, collection=collection)
        except self.retry_on as fault:
            found = await self.again(fault, self.key_value.delete, key, collection=collection)
            return found or not isinstance(fault, StoreError)  # after one of ours, nothing was changed

    async def delete_many(self, keys: Sequence[str], *, collection: str | None = None) -> int:
        """Delete keys; return how many, as `delete` counts them."""
        try:
            return await self.key_value.delete_many(keys, collection=collection)
        except self.retry_on as fault:
            found = await self.again(fault, self.key_value.delete_many, keys, collection=collection)
            return found if isinstance(fault, StoreError) else len(keys)

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
        if self._on_fault is not None:
            self._on_fault()
        for attempt in range(self.max_retries):
            delay = self._calculate_delay(attempt)
            tries = attempt + 1, self.max_retries
            log.log(self._level, "%s; trying again in %.2f s (%d of %d)", fault, delay, *tries)
            await asyncio.sleep(delay)
            try:
                return await operation(*args, **options)
            except self.retry_on as next_fault:
                fault = next_fault
        raise fault


class SizeLimit(LimitSizeWrapper):
    """Refuses values that are too large with an error of ours, which says how large they are."""

    async def put(
        self,
        key: str,
        value: Mapping[str, Any],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store a value, unless it is too large."""
        try:
            await super().put(key, value, collection=collection, ttl=ttl)
        except EntryTooLargeError as error:
            raise _too_large(error) from None

    async def put_many(
        self,
        keys: Sequence[str],
        values: Sequence[Mapping[str, Any]],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store values, unless one of them is too large."""
        try:
            await super().put_many(keys, values, collection=collection, ttl=ttl)
        except EntryTooLargeError as error:
            raise _too_large(error) from None


def _too_large(error: EntryTooLargeError) -> EntryTooLarge:
    if isinstance(error, EntryTooLarge):
        return error
    about: dict[str, Any] = dict(error.extra_info or {})
    return EntryTooLarge(**about)


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
        with _COUNTING:
            found = [getattr(each, operation) for each in list(self.statistics.collections.values())]
            return tuple(sum(getattr(each, name, 0) for each in found) for name in ("count", "hit", "miss"))  # type: ignore[return-value]  # three names, three sums


@functools.lru_cache(maxsize=4096)
def _dataset(collection: str) -> str:
    """Return what a collection belongs to: "symbol" for `symbol:AAPL`, "bars" for `bars/sample/AAPL/1d`."""
    return re.split("[:/]", collection, maxsplit=1)[0]


_COUNTING = fork_safe_lock()


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
        dataset = _dataset(collection)
        found = self.collections.get(dataset)
        if found is None:
            found = KVStoreCollectionStatistics(
                get=_ExactGet(), ttl=_ExactTTL(), put=_ExactPut(), delete=_ExactDelete()
            )
            found = self.collections.setdefault(dataset, found)
        return found
