"""Which tier answers, and what may enter memory?"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat

import pandas as pd
from key_value.aio.protocols.key_value import AsyncKeyValue
from key_value.aio.wrappers.passthrough_cache import PassthroughCacheWrapper

from tradecache.clock import Clock, checked_ttl
from tradecache.stores.hot import HotStore
from tradecache.stores.sizes import bytes_of_arrays
from tradecache.stores.values import FRAME
from tradecache.telemetry import SERVED_BY


class MemoryInFront(PassthroughCacheWrapper):
    """Memory in front of a durable store, which alone tells how long something lives; several keys are read one by one."""

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


class TieredCache(MemoryInFront):
    """Memory in front of a durable store, without the wrapper's known races.

    A value read from the durable store enters memory only if its key was not written meanwhile (each key
    has a generation); a write enters memory once it is durable, unless its frame is larger than `max_copied`. Before memory is asked, `foreign_commits`
    tells whether another process wrote: then everything in memory is looked up anew. `ttl` tells the truth of
    the durable store, which makes a frame anew for each `get`: nobody else has its arrays.

    Args:
        durable: The store that counts.
        memory: The memory tier.
        counted_memory: The memory tier behind its statistics.
        clock: What time it is.
        memory_ttl: Seconds after which memory asks the durable store again.
        foreign_commits: Returns a number that grows when another process has written.
        max_copied: Bytes of the largest frame that a write brings into memory, None for any. Where the durable
            store maps larger ones, their first read copies no numbers, and memory is not taken twice.
    """

    def __init__(
        self,
        durable: AsyncKeyValue,
        memory: HotStore,
        counted_memory: AsyncKeyValue,
        *,
        clock: Clock,
        memory_ttl: float,
        foreign_commits: Callable[[], int],
        max_copied: int | None = None,
    ) -> None:
        super().__init__(durable, counted_memory, maximum_ttl=memory_ttl, missing_ttl=memory_ttl)
        self._memory = memory
        self._counted_memory = counted_memory
        self._clock = clock
        self._memory_ttl = memory_ttl
        self._foreign_commits = foreign_commits
        self._max_copied = max_copied
        self.look()  # what was committed before is no news to an empty memory

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
            self._fill(
                key, value, collection=collection, ttl=ttl, generation=generation, began=began, is_own=True
            )
        return value

    async def put(
        self,
        key: str,
        value: Mapping[str, Any],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store a value durably, then in memory, unless it is a frame that the durable store maps."""
        seconds = checked_ttl(ttl)
        began, generation = self._clock.seconds(), self._memory.invalidate(key, collection=collection)
        filled = False
        try:
            await self.primary_key_value.put(key, value, collection=collection, ttl=seconds)
            if self.enters_memory(value.get(FRAME)):
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

    def enters_memory(self, frame: object) -> bool:
        """Whether a write brings a value with this frame (or none) into memory; if not, its first read does."""
        if self._max_copied is None or not isinstance(frame, pd.DataFrame):
            return True
        return bytes_of_arrays(frame) <= self._max_copied

    def holds_all(self, keys: Iterable[str], *, collection: str) -> bool:
        """Whether memory could serve all of these keys now, without counting the question."""
        self.look()
        return all(self._memory.holds(key, collection=collection) for key in keys)

    def look(self) -> None:
        """Distrust what is in memory if another process has written."""
        epoch = self._foreign_commits()
        if epoch != self._memory.epoch:
            self._memory.distrust(epoch)

    def _writing(self, addresses: Sequence[tuple[str | None, str]]) -> "Invalidating":
        return Invalidating(self._memory, addresses)

    def _fill(
        self,
        key: str,
        value: Mapping[str, Any],
        *,
        collection: str | None,
        ttl: float | None,
        generation: int,
        began: float,
        is_own: bool = False,
    ) -> bool:
        """Put into memory what was read or written since `began`, never for longer than it lives on disk."""
        left = (
            self._memory_ttl if ttl is None else min(ttl - (self._clock.seconds() - began), self._memory_ttl)
        )
        return self._memory.fill(
            key, value, collection=collection, ttl=left, generation=generation, is_own=is_own
        )


@dataclass(frozen=True, slots=True)
class Invalidating:
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
