"""How do processes and machines share one memory tier on a server that may be away at any time?"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, SupportsFloat, TypeVar

from key_value.aio.protocols.key_value import AsyncKeyValue
from pydantic import ValidationError

from tradecache.clock import Clock, checked_ttl, lifetime
from tradecache.outage import Outage
from tradecache.stores.trust import Stamp, TrustMark
from tradecache.stores.values import FRAME
from tradecache.telemetry import SERVED_BY
from tradecache.tiers import MemoryInFront

T = TypeVar("T")

log = logging.getLogger("tradecache")

SPARE = 1.0  # seconds that a server keeps a copy longer: whether it still counts is told by the copy itself
AT_ONCE = 500  # copies of one round trip


class Server(NamedTuple):
    """What is known of a server and of its client.

    Attributes:
        where: The server, as a sentence names it, without secrets.
        faults: What the client raises when the server does not answer.
        errors: What it raises at all.
        run: Returns which run of the server was connected to last; "" before there was a connection.
    """

    where: str
    faults: tuple[type[Exception], ...]
    errors: tuple[type[Exception], ...]
    run: Callable[[], str] = str


class Before(NamedTuple):
    """How things were before an entry was written, or read, of which a copy is to be made.

    Attributes:
        now: Microseconds since the epoch: from then on the copy's time runs.
        stamp: The folder's mark.
        changes: Numbers that are others once somebody may have deleted something.
    """

    now: int
    stamp: Stamp
    changes: tuple[int, int]


class SharedMemory(MemoryInFront):
    """A server's memory in front of a durable store, for entries that are written once and then only deleted.

    What one process writes or deletes, others see with their next read. A copy carries when it expires, so that
    a server's own coarse times do not matter, and the mark of the folder that it was made of (see `TrustMark`).
    When the server is away, slow or full, nothing raises: the durable store is asked, and told, as if there were
    no server. What could not be deleted from it then is distrusted at once by all who use the folder, and
    deleted when it is back.

    Args:
        durable: The store that counts.
        shared: A store on the server.
        server: What is known of it.
        clock: What time it is.
        memory_ttl: Seconds after which a copy counts for nothing.
        mark: Which copies of the folder are trusted.
        foreign_commits: Returns a number that grows when another process has written to the durable store.
    """

    def __init__(
        self,
        durable: AsyncKeyValue,
        shared: AsyncKeyValue,
        server: Server,
        *,
        clock: Clock,
        memory_ttl: float,
        mark: TrustMark,
        foreign_commits: Callable[[], int],
    ) -> None:
        super().__init__(durable, shared, maximum_ttl=memory_ttl, missing_ttl=memory_ttl)
        self._shared = shared
        self._server = server
        # what is no text, and all else that is wrong with one copy
        self._unreadable: tuple[type[Exception], ...] = (*server.errors, ValueError)
        self._clock = clock
        self._memory_ttl = memory_ttl
        self._mark = mark
        self._foreign_commits = foreign_commits
        self._deletes = 0
        self._owed: dict[str | None, set[str]] = {}
        self.outage = Outage(server.where, instead="reads and writes go on from disk")
        """Whether the server answers."""
        self.refusal = Outage(f"a write to {server.where}", instead="what is written is on disk only")
        """Whether it takes values."""
        self.denial = Outage(f"a read from {server.where}", instead="it is read from disk")
        """Whether it lets values be read, and they are ours."""

    async def get(self, key: str, *, collection: str | None = None) -> dict[str, Any] | None:
        """Return the value from the server, else from the durable store, of which the server then has a copy."""
        value = await self._copy(key, collection)
        if value is not None:
            SERVED_BY.set("memory")
            return value
        before = self.before()
        value, ttl = await self.primary_key_value.ttl(key, collection=collection)
        SERVED_BY.set("none" if value is None else "disk")
        if value is not None:
            await self.copied([key], [value], collection=collection, ttl=ttl, before=before)
        return value

    async def put(
        self,
        key: str,
        value: Mapping[str, Any],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store a value durably, then on the server."""
        seconds, before = checked_ttl(ttl), self.before()
        await self.primary_key_value.put(key, value, collection=collection, ttl=seconds)
        await self.copied([key], [value], collection=collection, ttl=seconds, before=before)

    async def put_many(
        self,
        keys: Sequence[str],
        values: Sequence[Mapping[str, Any]],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store values durably, then on the server."""
        seconds, before = checked_ttl(ttl), self.before()
        await self.primary_key_value.put_many(keys, values, collection=collection, ttl=seconds)
        await self.copied(keys, values, collection=collection, ttl=seconds, before=before)

    async def delete(self, key: str, *, collection: str | None = None) -> bool:
        """Delete a key from both."""
        return bool(await self.delete_many([key], collection=collection))

    async def delete_many(self, keys: Sequence[str], *, collection: str | None = None) -> int:
        """Delete keys from both; return how many the durable store had."""
        self._deletes += 1
        try:
            return await self.primary_key_value.delete_many(keys, collection=collection)
        finally:  # whether or not it went well: an entry that is still there will be copied again
            self._deletes += 1
            await self._forget(keys, collection)

    def before(self) -> Before:
        """Return how things are, for `copied` to be told of after a write."""
        return Before(self._clock.micros(), self._mark.stamp(), self._changes())

    async def copied(
        self,
        keys: Sequence[str],
        values: Sequence[Mapping[str, Any]],
        *,
        collection: str | None,
        ttl: float | None,
        before: Before,
    ) -> None:
        """Have the server keep copies of values that are stored durably; of none that was deleted meanwhile."""
        plain = [(key, value) for key, value in zip(keys, values, strict=True) if FRAME not in value]
        for some in _in_parts(plain):
            if not await self._fill(some, collection=collection, ttl=ttl, before=before):
                break  # one that is slow, or full, is not sent the rest
        if plain and self._changes() != before.changes:
            await self._forget_deleted([key for key, _ in plain], collection)

    async def _forget_deleted(self, keys: Sequence[str], collection: str | None) -> None:
        found = await self.primary_key_value.get_many(keys, collection=collection)
        gone = [key for key, value in zip(keys, found, strict=True) if value is None]
        if gone:
            await self._forget(gone, collection)

    def _changes(self) -> tuple[int, int]:
        """Return numbers that differ once somebody may have deleted something."""
        return self._deletes, self._foreign_commits()

    async def _copy(self, key: str, collection: str | None) -> dict[str, Any] | None:
        """Return the value of a copy that counts; None for none, and while the server is away."""
        if (self.outage.is_on or self._owed) and not await self._may_ask():
            return None
        if self.denial.is_on and not self.denial.may_try():
            return None
        try:
            found = await self._shared.get(key, collection=collection)
        except self._server.faults as error:
            self.outage.failed(error)
            return None
        except self._unreadable as error:
            self.denial.failed(error)
            return None
        self.denial.went_well()
        self._answered()
        return None if found is None else self._live(found)

    def _live(self, copy: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the value of a copy if it counts."""
        try:
            value, until, stamp = copy["value"], copy["until"], Stamp(**copy["stamp"])
            is_of_this_run = copy["run"] == self._server.run()
        except (KeyError, TypeError, ValidationError):
            return None
        is_live = isinstance(until, int) and self._clock.micros() < until and self._mark.trusts(stamp)
        return value if is_live and is_of_this_run and isinstance(value, dict) else None

    async def _fill(
        self,
        items: Sequence[tuple[str, Mapping[str, Any]]],
        *,
        collection: str | None,
        ttl: float | None,
        before: Before,
    ) -> bool:
        """Send copies; return whether the server took them. A time limit of theirs that is over is no fault."""
        left = self._memory_ttl if ttl is None else min(ttl, self._memory_ttl)
        until = before.now + lifetime(left) if left > 0 else 0
        if until <= self._clock.micros() or not self.refusal.may_try() or not await self._may_ask():
            return False
        keys = [key for key, _ in items]
        if not self._server.run():
            await self._copy(keys[0], collection)  # which connects
        about = {"until": until, "stamp": before.stamp._asdict(), "run": self._server.run()}
        copies = [{"value": dict(value), **about} for _, value in items]
        try:
            await self._shared.put_many(keys, copies, collection=collection, ttl=math.ceil(left) + SPARE)
        except self._server.faults as error:
            self._mark.renew()  # it may still arrive, when the entry has been deleted
            self.outage.failed(error)
        except self._server.errors as error:
            self.refusal.failed(error)
        except BaseException:
            self._mark.renew()
            raise
        else:
            self._answered()
            self.refusal.went_well()
            return True
        return False

    async def _forget(self, keys: Sequence[str], collection: str | None) -> None:
        """Delete copies; where that fails nobody trusts them any more."""
        is_told = False
        try:
            is_told = await self._may_ask() and await self._deleted(keys, collection)
        finally:  # also where it is cancelled
            if not is_told:
                self._mark.renew()
                self._owed.setdefault(collection, set()).update(keys)

    def _answered(self) -> None:
        """Note that the server answers: after an outage it may have been started anew, with copies from before."""
        if self.outage.is_on:
            self._mark.renew()
        self.outage.went_well()

    async def _may_ask(self) -> bool:
        """Whether the server may be asked; when it is back, what it should have deleted is deleted first."""
        if not self.outage.may_try():
            return False
        while self._owed:
            collection, keys = next((where, list(names)) for where, names in self._owed.items())
            if not await self._deleted(keys, collection):
                return False
            left = self._owed.get(collection, set())
            left.difference_update(keys)
            if not left:
                self._owed.pop(collection, None)
        return True

    async def _deleted(self, keys: Sequence[str], collection: str | None) -> bool:
        try:
            await self._shared.delete_many(keys, collection=collection)
        except self._server.errors as error:
            self.outage.failed(error)
            return False
        self._answered()
        return True


def _in_parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE))
