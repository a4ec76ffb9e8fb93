"""How is the key-value stack put together: statistics, memory in front of disk, logging, retry?"""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from key_value.aio.protocols.key_value import AsyncKeyValue

from tradecache.clock import Clock
from tradecache.credentials import SecretURL
from tradecache.errors import MissingDependency, UnknownKey
from tradecache.redisclient import Runs, redis_client, redis_errors, redis_faults, redis_lost, redis_store
from tradecache.servers import Connected
from tradecache.settings import Settings
from tradecache.sharedmemory import Before, Server, SharedMemory
from tradecache.stores.abilities import Item, Ordered
from tradecache.stores.hot import HotStore
from tradecache.stores.local import LocalStore
from tradecache.stores.safenames import SafeNames
from tradecache.stores.trust import TrustMark
from tradecache.tiers import Invalidating, TieredCache
from tradecache.wrappers import TRANSIENT, OperationLog, Retry, SizeLimit, TierStatistics

if TYPE_CHECKING:
    from tradecache.sealing import Sealed
    from tradecache.stores.keyring import Keyring

log = logging.getLogger("tradecache")


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
    """The durable store itself, for what the protocol has no word for: keeping house."""
    listed: AsyncKeyValue
    """The durable store as values are read from it, opened where they are sealed: for what is listed in order."""
    sealed: "Sealed | None"
    """The same where values are sealed, else None."""
    retrying: Retry
    disk: AsyncKeyValue
    """The durable tier as small values are written to it: limit of size, statistics, log, retry, store."""
    disk_statistics: TierStatistics
    wrappers: tuple[TierStatistics, ...] = field(repr=False)
    shared: SharedMemory | None = None
    """The memory tier of small values where it is on a server."""
    connections: tuple[Connected, ...] = field(default=(), repr=False)
    """What has to be let go of at the end."""

    @property
    def points_at_once(self) -> bool:
        """Whether small values can be had without waiting for a server."""
        return self.shared is None and isinstance(self.durable, LocalStore)

    async def put_all(self, items: Sequence[Item], *, ttl: float | None) -> None:
        """Store values of several collections: all or none."""
        addresses = [(collection, key) for collection, key, _ in items]
        before = None if self.shared is None else self.shared.before()
        with Invalidating(self.memory, addresses):
            if isinstance(self.listed, Ordered):
                await self.retrying.call(self.listed.put_all, items, ttl=ttl)
            else:
                await self._put_or_undo(items, ttl=ttl)
        if self.shared is not None and before is not None:
            await self._copied(self.shared, items, ttl=ttl, before=before)
        for collection, _, _ in items:
            self.points.statistics.get_collection(collection).put.increment()

    async def _put_or_undo(self, items: Sequence[Item], *, ttl: float | None) -> None:
        """Do with single puts what a store without transactions cannot do at once."""
        done: list[tuple[str, str]] = []
        try:
            for collection, key, value in items:
                await self.disk.put(key, value, collection=collection, ttl=ttl)
                done.append((collection, key))
        except BaseException:
            for collection, key in done:
                await self.disk.delete(key, collection=collection)
            raise

    async def _copied(
        self, shared: SharedMemory, items: Sequence[Item], *, ttl: float | None, before: Before
    ) -> None:
        by_collection: dict[str, dict[str, Mapping[str, Any]]] = {}
        for collection, key, value in items:
            by_collection.setdefault(collection, {})[key] = value
        for collection, values in by_collection.items():
            await shared.copied(
                list(values), list(values.values()), collection=collection, ttl=ttl, before=before
            )

    async def close(self) -> None:
        """Let go of memory, of connections to servers, and of the folder."""
        async with contextlib.AsyncExitStack() as parts:
            if isinstance(self.durable, LocalStore):
                parts.callback(self.durable.close)
            for connected in self.connections:
                parts.push_async_callback(connected.close)
            await self.memory.destroy()

    def reset_statistics(self) -> None:
        """Begin to count at zero in every tier."""
        for wrapper in self.wrappers:
            wrapper.reset()


def build_stack(settings: Settings, *, clock: Clock, durable: AsyncKeyValue | None = None) -> Stack:
    """Build the stack that `settings` describe, over a `LocalStore` or over the store passed in."""
    ring = keyring_of(settings)
    store = _local_store(settings, clock=clock, ring=ring) if durable is None else durable
    sealing = None if ring is None else _sealed(store, settings, clock=clock, ring=ring)
    listed = store if sealing is None else sealing
    memory = HotStore(max_bytes=settings.memory_bytes, clock=clock)
    counted_memory = TierStatistics(memory)
    foreign_commits = store.foreign_commits if isinstance(store, LocalStore) else _never
    retrying = Retry(
        listed,
        max_retries=settings.retries,
        initial_delay=settings.retry_delay,
        max_delay=settings.retry_max_delay,
        retry_on=TRANSIENT,
    )
    counted_disk = TierStatistics(
        OperationLog(retrying, logger=log, log_level=logging.getLevelNamesMapping()[settings.log_level])
    )
    disk: AsyncKeyValue = counted_disk
    if settings.max_entry_bytes and durable is not None:  # a LocalStore checks the true bytes itself
        disk = SizeLimit(counted_disk, max_size=settings.max_entry_bytes)

    def tiered(bottom: AsyncKeyValue) -> TieredCache:
        return TieredCache(
            bottom,
            memory,
            counted_memory,
            clock=clock,
            memory_ttl=settings.memory_ttl,
            foreign_commits=foreign_commits,
            max_copied=store.mapped_from if isinstance(store, LocalStore) else None,
        )

    tiers = tiered(disk)
    far = None
    if settings.memory_url is not None:
        far = _on_server(settings.memory_url, disk, settings, clock=clock, ring=ring, store=store)
    points = TierStatistics(tiers if far is None else far.memory)
    frames = TierStatistics(tiered(counted_disk))
    return Stack(
        points=points,
        frames=frames,
        tiers=tiers,
        memory=memory,
        memory_statistics=counted_memory,
        durable=store,
        listed=listed,
        sealed=sealing,
        retrying=retrying,
        disk=disk,
        disk_statistics=counted_disk,
        wrappers=(points, frames, counted_memory, counted_disk, *([] if far is None else [far.copies])),
        shared=None if far is None else far.memory,
        connections=() if far is None else (far.connected,),
    )


class _OnServer(NamedTuple):
    """A memory tier on a server, its copies behind their statistics, and what they are connected by."""

    memory: SharedMemory
    copies: TierStatistics
    connected: Connected


def _on_server(
    url: SecretURL,
    disk: AsyncKeyValue,
    settings: Settings,
    *,
    clock: Clock,
    ring: "Keyring | None",
    store: AsyncKeyValue,
) -> _OnServer:
    """Return the memory tier on a server, sealed where there is a key.

    What is no URL of a server is refused now, and not with the first read. A lost connection is tried anew once.
    """
    redis_client(url)
    runs, folder = Runs(), store if isinstance(store, LocalStore) else None
    mark = TrustMark(None if folder is None else folder.folder)
    connected = redis_store(partial(redis_client, url, runs=runs))
    again = Retry(
        connected,
        is_quiet=True,
        on_fault=mark.renew,
        max_retries=1,
        initial_delay=0.01,
        retry_on=redis_lost(),
    )
    named = SafeNames(again)
    copies = TierStatistics(named if ring is None else sealed_by(named, settings, clock=clock, ring=ring))
    errors = (*redis_errors(), UnknownKey)
    memory = SharedMemory(
        disk,
        copies,
        Server(f"the memory tier at {url}", redis_faults(), errors, lambda: runs.last),
        clock=clock,
        memory_ttl=settings.memory_ttl,
        mark=mark,
        foreign_commits=_never if folder is None else folder.foreign_commits,
    )
    return _OnServer(memory, copies, connected)


def _local_store(settings: Settings, *, clock: Clock, ring: "Keyring | None" = None) -> LocalStore:
    return LocalStore(
        settings.cache_dir,
        clock=clock,
        compression=settings.compression,
        sync=settings.sync,
        lock_wait=settings.lock_wait,
        disk_bytes=settings.disk_bytes,
        max_entry_bytes=settings.max_entry_bytes,
        ring=ring,
        hashed=settings.hashed_names,
    )


def keyring_of(settings: Settings) -> "Keyring | None":
    """Return the keys, None where there are none; what encrypts is imported only for the first."""
    if not settings.encryption_key:
        return None
    try:
        from tradecache.stores.keyring import Keyring
    except ImportError as error:
        raise MissingDependency("cryptography", "encryption") from error
    return Keyring(settings.encryption_key)


def _sealed(store: AsyncKeyValue, settings: Settings, *, clock: Clock, ring: "Keyring") -> "Sealed":
    """Return the durable store, sealed; a folder has a secret of its own for names, and knows its keys."""
    if not isinstance(store, LocalStore) or store.card is None:
        return sealed_by(store, settings, clock=clock, ring=ring)
    from tradecache.sealing import sealed
    from tradecache.seals import Seal, names_of

    names = names_of(ring, store.card.secret(ring)) if settings.hashed_names else None
    return sealed(store, seal=Seal(ring, names, wrong_key=store.wrong_key), clock=clock, with_frames=True)


def sealed_by(
    store: AsyncKeyValue, settings: Settings, *, clock: Clock, ring: "Keyring", with_frames: bool = False
) -> "Sealed":
    """Return a store that several share, sealed with the keys of `settings`.

    It raises UnknownKey for what is sealed with another one, so that nobody takes that for nothing, and writes over it.
    """
    from tradecache.sealing import sealed
    from tradecache.seals import Seal, names_of

    seal = Seal(ring, names_of(ring) if settings.hashed_names else None, wrong_key=UnknownKey)
    return sealed(store, seal=seal, clock=clock, with_frames=with_frames)


def _never() -> int:
    return 0
