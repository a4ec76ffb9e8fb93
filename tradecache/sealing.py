"""How is a value sealed before any store sees it, so that it can be neither read, altered, moved nor kept too long?"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import pandas as pd
from key_value.aio.protocols.key_value import AsyncKeyValue
from key_value.aio.wrappers.encryption.fernet import FernetEncryptionWrapper
from pydantic_core import from_json

from tradecache.clock import MICRO, Clock, checked_ttl, lifetime
from tradecache.errors import InvalidInput, NotStorable
from tradecache.seals import NotSealed, Opened, Seal
from tradecache.steps import in_steps
from tradecache.stores.abilities import Entry, Item, Listing, Ordered, Quarantining
from tradecache.stores.names import checked_address, checked_keys
from tradecache.stores.values import FRAME, normal_value, value_text

log = logging.getLogger("tradecache")


class Sealed(FernetEncryptionWrapper):
    """Encrypts every value before any store sees it, and refuses what was not encrypted for its place.

    What the library's wrapper would let pass is a logged miss here: values that are not encrypted, those of
    another collection or key, those whose time is over whatever the store says, and other versions. One bad
    entry does not stop the others, and none is deleted by this class; a store that knows quarantine is asked to
    put it there.

    A frame under "frame" is passed on as it is to a store that encrypts frames itself, and refused for others.

    Args:
        key_value: Any store, local or remote.
        seal: How values are sealed.
        clock: Tells when values expire.
        with_frames: Whether the store encrypts frames itself.
    """

    def __init__(
        self,
        key_value: AsyncKeyValue,
        *,
        seal: Seal,
        clock: Clock,
        with_frames: bool = False,
    ) -> None:
        super().__init__(key_value, fernet=seal.ring.fernet)  # what the library does, it does with our keys
        self.seal = seal
        self.hidden = seal.hidden
        self._clock = clock
        self._with_frames = with_frames

    async def get(self, key: str, *, collection: str | None = None) -> dict[str, Any] | None:
        """Return the value of a key, None where there is none that is as it should be."""
        return (await self.ttl(key, collection=collection))[0]

    async def get_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[dict[str, Any] | None]:
        """Return the value of each key, in order."""
        return [value for value, _ in await self.ttl_many(keys, collection=collection)]

    async def ttl(
        self, key: str, *, collection: str | None = None
    ) -> tuple[dict[str, Any] | None, float | None]:
        """Return the value of a key and the seconds it has left: what was sealed counts, where the store says more."""
        where, key = checked_address(collection, key)
        found, left = await self.key_value.ttl(key, collection=self.hidden(where))
        return await self._answer(where, key, found, left)

    async def ttl_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[tuple[dict[str, Any] | None, float | None]]:
        """Return value and seconds left of each key, in order."""
        addresses = [checked_address(collection, key) for key in checked_keys(keys)]
        if not addresses:
            return []
        where = addresses[0][0]
        found = await self.key_value.ttl_many(list(keys), collection=self.hidden(where))
        return [
            await self._answer(where, key, value, left)
            for (_, key), (value, left) in zip(addresses, found, strict=True)
        ]

    async def put(
        self,
        key: str,
        value: Mapping[str, Any],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store one value, sealed."""
        where, key = checked_address(collection, key)
        seconds = checked_ttl(ttl)
        sealed = self._sealed(where, key, value, self._expiry(seconds))
        await self.key_value.put(key, sealed, collection=self.hidden(where), ttl=seconds)

    async def put_many(
        self,
        keys: Sequence[str],
        values: Sequence[Mapping[str, Any]],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store several values, all of them sealed before the first is stored."""
        if len(checked_keys(keys)) != len(values):
            raise InvalidInput("values", f"{len(values)} values for {len(keys)} keys", "as many as the keys")
        seconds = checked_ttl(ttl)
        expires = self._expiry(seconds)
        addresses = [checked_address(collection, key) for key in keys]
        sealed = [
            self._sealed(where, key, value, expires)
            for (where, key), value in zip(addresses, values, strict=True)
        ]
        where = checked_address(collection, "")[0]
        await self.key_value.put_many(list(keys), sealed, collection=self.hidden(where), ttl=seconds)

    async def delete(self, key: str, *, collection: str | None = None) -> bool:
        """Delete a key; return whether there was something."""
        where, key = checked_address(collection, key)
        return await self.key_value.delete(key, collection=self.hidden(where))

    async def delete_many(self, keys: Sequence[str], *, collection: str | None = None) -> int:
        """Delete keys; return how many there were."""
        where = checked_address(collection, "")[0]
        return await self.key_value.delete_many(keys, collection=self.hidden(where))

    def fault(self, collection: str, key: str, value: dict[str, Any]) -> Exception | None:
        """Return what is wrong with what the store holds at a place, by the name that it has there."""
        try:
            self._opened_at(collection, key, value)
        except NotSealed as error:
            return error
        return None

    def _expiry(self, ttl: float | None) -> int | None:
        return None if ttl is None else self._clock.micros() + lifetime(ttl)

    def _sealed(
        self, collection: str, key: str, value: Mapping[str, Any], expires: int | None
    ) -> dict[str, Any]:
        """Return a value as the store is given it."""
        normal, _ = normal_value(value)
        frame = normal.pop(FRAME) if isinstance(normal.get(FRAME), pd.DataFrame) else None
        if frame is not None and not self._with_frames:
            raise NotStorable(f"{type(self.key_value).__name__} does not encrypt frames")
        text = value_text(normal)
        opened = Opened(collection, key, expires, frame is not None, text)
        sealed = self.seal.spelt(opened)
        return sealed if frame is None else {**sealed, FRAME: frame}

    async def _answer(
        self, collection: str, key: str, value: dict[str, Any] | None, left: float | None
    ) -> tuple[dict[str, Any] | None, float | None]:
        """Return what was found and the seconds it has left, opened; a miss where it is not as it should be."""
        if value is None:
            return None, None
        try:
            opened = self._opened_at(self.hidden(collection), key, value)
        except NotSealed as error:
            await self._refused(collection, key, error)
            return None, None
        if opened.expires is not None:
            own = (opened.expires - self._clock.micros()) / MICRO
            if own <= 0:
                return None, None
            left = own if left is None else min(own, left)
        result: dict[str, Any] = from_json(opened.text)
        if opened.has_frame:
            result[FRAME] = value[FRAME]
        return result, left

    def _opened_at(self, hidden: str, key: str, value: Mapping[str, Any]) -> Opened:
        """Open a value with the frame that was found with it."""
        return self.seal.opened_at(hidden, key, value, has_frame=isinstance(value.get(FRAME), pd.DataFrame))

    async def _refused(self, collection: str, key: str, reason: Exception) -> None:
        log.warning("%r in %r is not served: %s", key, self.hidden(collection), reason)
        if isinstance(self.key_value, Quarantining):
            await self.key_value.put_aside(key, collection=self.hidden(collection), suspicion=self.fault)

    def __repr__(self) -> str:
        """Name the store; keys are not shown."""
        return f"{type(self).__name__}({self.key_value!r})"


class SealedListing(Sealed):
    """`Sealed` over a store that lists its keys and collections."""

    key_value: Any

    def __init__(
        self, key_value: AsyncKeyValue, *, seal: Seal, clock: Clock, with_frames: bool = False
    ) -> None:
        super().__init__(key_value, seal=seal, clock=clock, with_frames=with_frames)
        self._clear: dict[str, str] = {}

    async def keys(self, collection: str | None = None, *, limit: int | None = None) -> list[str]:
        """Return the keys of a collection, which are not encrypted."""
        found: list[str] = await self.key_value.keys(
            self.hidden(checked_address(collection, "")[0]), limit=limit
        )
        return found

    async def collections(self, *, limit: int | None = None) -> list[str]:
        """Return the collections by their clear names."""
        hidden: list[str] = await self.key_value.collections(limit=limit)
        if self.seal.names is None:
            return hidden
        async for some in in_steps(hidden):
            for name in some:
                if name not in self._clear:
                    await self._learn(name)
        return sorted(self._clear[name] for name in hidden if name in self._clear)

    async def _learn(self, hidden: str) -> None:
        """Find out what a collection is called, from an entry of it."""
        for limit in (1, None):  # the first entry may be damaged: then look at all of them
            for key in await self.key_value.keys(hidden, limit=limit):
                value = await self.key_value.get(key, collection=hidden)
                try:
                    self._clear[hidden] = self._opened_at(hidden, key, value or {}).collection
                except NotSealed:
                    continue
                return


class SealedOrdered(SealedListing):
    """`Sealed` over a store that keeps order, such as `LocalStore`."""

    async def scan(
        self, collection: str, *, start: str = "", end: str | None = None, last: int | None = None
    ) -> list[Entry]:
        """Return the live entries of a collection, opened, in order of their keys; without their frames."""
        entries: list[Entry] = []
        found = await self.key_value.scan(self.hidden(collection), start=start, end=end, last=last)
        now = self._clock.micros()
        async for some in in_steps(found):
            for entry in some:
                opened = await self._scanned(collection, entry)
                if opened is not None and (opened.expires is None or opened.expires > now):
                    entries.append(Entry(entry.key, opened.text, entry.created, opened.expires))
        return entries

    async def put_all(self, items: Sequence[Item], *, ttl: float | None) -> None:
        """Store values of several collections in one transaction: all of them or none."""
        seconds = checked_ttl(ttl)
        expires = self._expiry(seconds)
        sealed: list[Item] = []
        async for some in in_steps(items):
            for collection, key, value in some:
                where, name = checked_address(collection, key)
                sealed.append((self.hidden(where), name, self._sealed(where, name, value, expires)))
        await self.key_value.put_all(sealed, ttl=seconds)

    async def _learn(self, hidden: str) -> None:
        for last in (1, None):
            for entry in await self.key_value.scan(hidden, last=last):
                try:
                    opened = self.seal.opened_at(hidden, entry.key, _mapping(entry.value))
                except NotSealed:
                    continue
                self._clear[hidden] = opened.collection
                return

    async def _scanned(self, collection: str, entry: Entry) -> Opened | None:
        try:
            return self.seal.opened_at(self.hidden(collection), entry.key, _mapping(entry.value))
        except NotSealed as error:
            await self._refused(collection, entry.key, error)
            return None


def sealed(key_value: AsyncKeyValue, *, seal: Seal, clock: Clock, with_frames: bool = False) -> Sealed:
    """Return `Sealed` over a store, with as many of its ways to list entries as that has."""
    offered: object = key_value
    kind = SealedOrdered if isinstance(offered, Ordered) else Sealed
    if kind is Sealed and isinstance(offered, Listing):
        kind = SealedListing
    return kind(key_value, seal=seal, clock=clock, with_frames=with_frames)


def _mapping(text: bytes) -> dict[str, Any]:
    """Return the mapping that some JSON is; an empty one where it is none."""
    try:
        found = from_json(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
