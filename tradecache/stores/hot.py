"""Which values are worth keeping in memory, within a bound in bytes?"""

import heapq
import math
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import pandas as pd
from key_value.aio._utils.constants import DEFAULT_COLLECTION_NAME
from key_value.aio.protocols.key_value import AsyncKeyValue

from tradecache.clock import MICRO, Clock, checked_ttl, lifetime
from tradecache.errors import InvalidInput
from tradecache.forks import fork_safe_lock
from tradecache.stores.frequency import CEILING, Frequency
from tradecache.stores.names import checked_address, checked_keys, checked_limit
from tradecache.stores.sizes import ENTRY_BYTES, compact, size_of
from tradecache.stores.values import FRAME, copied_value, normal_value

Address = tuple[str, str]

WINDOW_SHARE = 0.05  # of the bytes, for what is new
STRIPES = 1024
SPARE_HEAP = 64  # expiries that may outlive their entries, beside as many as there are entries
FEW = 32  # with fewer entries, fame is halved no more often than with so many


class _Entry:
    """A value, how long it lives, and how often it was asked for."""

    __slots__ = ("age", "epoch", "expires", "flat", "requests", "size", "value")

    def __init__(self, value: dict[str, Any], *, flat: bool, size: int, expires: float, epoch: int) -> None:
        self.value = value
        self.flat = flat
        self.expires = expires
        self.epoch = epoch
        self.size = size
        self.requests = 0
        self.age = 0


class HotStore(AsyncKeyValue):
    """The memory tier: live values, bounded in true bytes, safe from scans and to use from any thread.

    Frames are kept and handed out as copy-on-write shallow copies, so a hit costs microseconds whatever
    their size, and what the caller writes to his never reaches the cache. Its coroutines never wait.

    What stays is decided as in W-TinyLFU (Einziger, Friedman and Manes, 2017): new entries live in a small
    window; who leaves it gets a place only if it was asked for more often, lately, than each entry that
    would have to go. So one pass over a universe does not flush what is hot, and a loop over slightly more
    than fits keeps most of it instead of missing every time.

    Args:
        max_bytes: Bound of all values and their overhead.
        clock: Tells when entries expire.
    """

    _main: OrderedDict[Address, _Entry]
    _window: OrderedDict[Address, _Entry]
    _heap: list[tuple[float, Address]]
    _frequency: Frequency

    def __init__(self, *, max_bytes: int, clock: Clock) -> None:
        self.max_bytes = int(max_bytes)
        self._clock = clock
        self._window_bytes = 0
        self._window_max = int(self.max_bytes * WINDOW_SHARE)
        self._epoch = 0
        self._generations = [0] * STRIPES
        self._evictions = self._expirations = 0
        self._bytes = self._age = self._asked = 0
        self._old_at = 0
        self._lock = fork_safe_lock()
        self._clear()

    async def get(self, key: str, *, collection: str | None = None) -> dict[str, Any] | None:
        """Return a copy of the live value of `key`, None when there is none."""
        entry = self._find(key, collection, self._clock.micros())
        return None if entry is None else copied_value(entry.value, flat=entry.flat)

    async def ttl(
        self, key: str, *, collection: str | None = None
    ) -> tuple[dict[str, Any] | None, float | None]:
        """Return a copy of the live value of `key` and the seconds it has left (None: for ever)."""
        now = self._clock.micros()
        entry = self._find(key, collection, now)
        if entry is None:
            return None, None
        left = None if entry.expires == math.inf else (entry.expires - now) / MICRO
        return copied_value(entry.value, flat=entry.flat), left

    async def get_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[dict[str, Any] | None]:
        """Return a copy of the live value of each key, in order."""
        return [await self.get(key, collection=collection) for key in checked_keys(keys)]

    async def ttl_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[tuple[dict[str, Any] | None, float | None]]:
        """Return a copy of the live value and the seconds left of each key, in order."""
        return [await self.ttl(key, collection=collection) for key in checked_keys(keys)]

    async def put(
        self,
        key: str,
        value: Mapping[str, Any],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Keep a value, as long as there is room for it.

        Raises:
            NotStorable, InvalidTTL: Before anything has changed.
        """
        address = checked_address(collection, key)
        seconds = checked_ttl(ttl)
        now = self._clock.micros()
        entry = self._entry(address, value, seconds, now)
        with self._lock:
            self._generations[hash(address) % STRIPES] += 1
            self._insert(address, entry, now)

    async def put_many(
        self,
        keys: Sequence[str],
        values: Sequence[Mapping[str, Any]],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Keep several values, all checked before the first is kept."""
        if len(checked_keys(keys)) != len(values):
            raise InvalidInput("values", f"{len(values)} values for {len(keys)} keys", "as many as the keys")
        seconds = checked_ttl(ttl)
        addresses = [checked_address(collection, key) for key in keys]
        now = self._clock.micros()
        entries = [
            (address, self._entry(address, value, seconds, now))
            for address, value in zip(addresses, values, strict=True)
        ]
        with self._lock:
            for address, entry in entries:
                self._generations[hash(address) % STRIPES] += 1
                self._insert(address, entry, now)

    async def delete(self, key: str, *, collection: str | None = None) -> bool:
        """Let go of a value; return whether there was a live one."""
        address = checked_address(collection, key)
        now = self._clock.micros()
        with self._lock:
            self._generations[hash(address) % STRIPES] += 1
            entry = self._drop(address)
        return entry is not None and entry.epoch == self._epoch and entry.expires > now

    async def delete_many(self, keys: Sequence[str], *, collection: str | None = None) -> int:
        """Let go of several values; return how many were live."""
        return sum([await self.delete(key, collection=collection) for key in checked_keys(keys)])

    async def keys(self, collection: str | None = None, *, limit: int | None = None) -> list[str]:
        """Return the keys of the live entries of a collection."""
        wanted, _ = checked_address(collection, "")
        most = checked_limit(limit)
        return [key for where, key in self._live_addresses() if where == wanted][:most]

    async def collections(self, *, limit: int | None = None) -> list[str]:
        """Return the names of the collections that have live entries."""
        most = checked_limit(limit)
        return list(dict.fromkeys(where for where, _ in self._live_addresses()))[:most]

    async def destroy(self) -> bool:
        """Let go of everything."""
        with self._lock:
            self._bump_all()
            self._clear()
        return True

    async def destroy_collection(self, collection: str) -> bool:
        """Let go of a collection; return whether there was anything."""
        with self._lock:
            found = [
                address for part in (self._main, self._window) for address in part if address[0] == collection
            ]
            self._bump_all()
            for address in found:
                self._drop(address)
        return bool(found)

    async def cull(self) -> None:
        """Free what has expired, and what is distrusted."""
        now = self._clock.micros()
        with self._lock:
            self._free_expired(now)
            parts = (self._main, self._window)
            for address in [a for part in parts for a, entry in part.items() if entry.epoch != self._epoch]:
                self._drop(address)

    def holds(self, key: str, *, collection: str | None = None) -> bool:
        """Whether `get` would return a value now; asking does not count as a request."""
        address = (collection or DEFAULT_COLLECTION_NAME, key)
        with self._lock:
            entry = self._main.get(address) or self._window.get(address)
        return entry is not None and entry.epoch == self._epoch and entry.expires > self._clock.micros()

    def generation(self, key: str, *, collection: str | None = None) -> int:
        """Return a number that changes whenever this key (or, rarely, another) is written or distrusted."""
        return self._generations[hash((collection or DEFAULT_COLLECTION_NAME, key)) % STRIPES]

    def invalidate(self, key: str, *, collection: str | None = None) -> int:
        """Let go of a value that is about to be written; return the key's new generation."""
        address = checked_address(collection, key)
        with self._lock:
            self._generations[hash(address) % STRIPES] += 1
            self._drop(address)
            return self._generations[hash(address) % STRIPES]

    def fill(
        self,
        key: str,
        value: Mapping[str, Any],
        *,
        collection: str | None,
        ttl: float | None,
        generation: int,
        is_own: bool = False,
    ) -> bool:
        """Keep a value unless its key was written since `generation`; return whether it may be kept.

        A `ttl` of zero or less (it expired on its way) is no error, and nothing is kept.

        Args:
            key: Its name.
            value: What to keep.
            collection: Where.
            ttl: Seconds that it has left; None: it lives for ever.
            generation: What `generation` or `invalidate` returned before it was read or written.
            is_own: Whether it is normal already, and the arrays of its frame are nobody else's to write to.
        """
        if ttl is not None and ttl <= 0:
            return False
        address = checked_address(collection, key)
        now = self._clock.micros()
        entry = self._entry(address, value, ttl, now, is_own=is_own)
        with self._lock:
            if self._generations[hash(address) % STRIPES] != generation:
                return False
            self._generations[hash(address) % STRIPES] += 1  # so that whoever read before this comes too late
            self._insert(address, entry, now)
        return True

    @property
    def epoch(self) -> int:
        """The number last given to `distrust`."""
        return self._epoch

    def distrust(self, epoch: int) -> None:
        """Treat what was filled in before `epoch` (a number that grows) as a miss until it is filled again."""
        with self._lock:
            if epoch > self._epoch:
                self._epoch = epoch
                self._bump_all()

    def occupancy(self) -> dict[str, int]:
        """Return entries, bytes, max_bytes, and how many were evicted and have expired."""
        with self._lock:
            return {
                "entries": len(self),
                "bytes": self._bytes,
                "max_bytes": self.max_bytes,
                "evictions": self._evictions,
                "expirations": self._expirations,
            }

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return how many entries and bytes there are of each collection."""
        sizes: dict[str, tuple[int, int]] = {}
        with self._lock:
            for part in (self._main, self._window):
                for (collection, _), entry in part.items():
                    entries, size = sizes.get(collection, (0, 0))
                    sizes[collection] = entries + 1, size + entry.size
        return sizes

    def __len__(self) -> int:
        """Count the entries, expired ones that are not freed yet among them."""
        return len(self._main) + len(self._window)

    def __repr__(self) -> str:
        """Show entries and bytes."""
        return f"<HotStore {len(self):,} entries, {self._bytes:,} of {self.max_bytes:,} bytes>"

    def _find(self, key: str, collection: str | None, now: int) -> _Entry | None:
        """Return the live entry of a key, and remember that it was asked for."""
        if type(key) is not str:
            checked_address(collection, key)
        address = (collection or DEFAULT_COLLECTION_NAME, key)
        with self._lock:
            entry = self._main.get(address)
            part = self._main
            if entry is None:
                entry = self._window.get(address)
                part = self._window
            if entry is None or entry.expires <= now or entry.epoch != self._epoch:
                if self._frequency.add(hash(address)):  # a scan's first misses make nothing grow old
                    self._asked += 1
                return None
            part.move_to_end(address)
            if entry.requests < CEILING:
                entry.requests += 1
            self._asked += 1
            return entry

    def _entry(
        self, address: Address, value: Mapping[str, Any], ttl: float | None, now: int, *, is_own: bool = False
    ) -> _Entry:
        if is_own and isinstance(value.get(FRAME), pd.DataFrame):
            normal, flat = copied_value(dict(value), flat=False), False
        else:
            normal, flat = normal_value(value)
            if not flat and isinstance(normal.get(FRAME), pd.DataFrame):
                normal[FRAME] = compact(normal[FRAME])
        names = 2 * sum(map(sys.getsizeof, address))  # the heap knows them, too, for a while after they went
        size = ENTRY_BYTES + names + size_of(normal, flat=flat)
        expires = math.inf if ttl is None else now + lifetime(ttl)
        return _Entry(normal, flat=flat, size=size, expires=expires, epoch=self._epoch)

    def _insert(self, address: Address, entry: _Entry, now: int) -> None:
        old = self._drop(address)
        if self._heap and self._heap[0][0] <= now:
            self._free_expired(now)
        if entry.size > self.max_bytes:
            return
        entry.requests = self._fame(old) if old else 0
        entry.age = self._age
        self._window[address] = entry
        self._bytes += entry.size
        self._window_bytes += entry.size
        if entry.expires != math.inf:
            self._remember_expiry(entry.expires, address)
        while self._window_bytes > self._window_max or self._bytes > self.max_bytes:
            if not self._window:
                break
            self._graduate()
        if self._asked > self._old_at:
            self._grow_old()

    def _graduate(self) -> None:
        """Move the oldest entry of the window to the main part, or let go of it."""
        address, candidate = self._window.popitem(last=False)
        self._window_bytes -= candidate.size
        over = self._bytes - self.max_bytes
        if over > 0:  # misses before it came count too
            candidate.requests = max(self._fame(candidate), self._frequency.count(hash(address)))
        fame = candidate.requests
        victims: list[Address] = []
        for victim, entry in self._main.items():
            if over <= 0:
                break
            if entry.epoch == self._epoch and self._fame(entry) >= fame:
                self._bytes -= candidate.size
                self._evictions += 1
                return
            victims.append(victim)
            over -= entry.size
        for victim in victims:
            self._drop(victim)
            self._evictions += 1
        self._main[address] = candidate

    def _fame(self, entry: _Entry) -> int:
        """Return how often an entry was asked for, halved for each age since."""
        if entry.age != self._age:
            entry.requests >>= self._age - entry.age
            entry.age = self._age
        return entry.requests

    def _grow_old(self) -> None:
        self._asked = 0
        self._old_at = SAMPLES_PER_ENTRY * max(len(self), FEW)
        self._age += 1
        self._frequency.halve()
        wanted = 1 << len(self).bit_length()
        if wanted > self._frequency.width:
            self._frequency = Frequency(wanted)

    def _drop(self, address: Address) -> _Entry | None:
        entry = self._main.pop(address, None)
        if entry is None:
            entry = self._window.pop(address, None)
            if entry is None:
                return None
            self._window_bytes -= entry.size
        self._bytes -= entry.size
        return entry

    def _remember_expiry(self, expires: float, address: Address) -> None:
        if len(self._heap) > 2 * (len(self._main) + len(self._window)) + SPARE_HEAP:
            parts = (self._main, self._window)
            self._heap = [(e.expires, a) for part in parts for a, e in part.items() if e.expires != math.inf]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (expires, address))

    def _free_expired(self, now: int) -> None:
        while self._heap and self._heap[0][0] <= now:
            _, address = heapq.heappop(self._heap)
            entry = self._main.get(address) or self._window.get(address)
            if entry is not None and entry.expires <= now:
                self._drop(address)
                self._expirations += 1

    def _live_addresses(self) -> list[Address]:
        now = self._clock.micros()
        with self._lock:
            found = [*self._main.items(), *self._window.items()]
        return [address for address, entry in found if entry.expires > now and entry.epoch == self._epoch]

    def _bump_all(self) -> None:
        self._generations = [generation + 1 for generation in self._generations]

    def _clear(self) -> None:
        self._main = OrderedDict()
        self._window = OrderedDict()
        self._heap = []
        self._frequency = Frequency()
        self._bytes = self._window_bytes = 0
        self._age = self._asked = 0
        self._old_at = SAMPLES_PER_ENTRY * FEW


SAMPLES_PER_ENTRY = 10  # requests per entry until all fame is halved
