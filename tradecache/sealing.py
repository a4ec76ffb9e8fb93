"""How is a value sealed before any store sees it, so that it can be neither read, altered, moved nor kept too long?

A sealed value is a Fernet token in clear company of its version, the id of its key and whether names are hidden.
In the token stand, before the value: collection, key, the moment of expiry and whether a frame belongs to it.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, SupportsFloat, runtime_checkable

import pandas as pd
from cryptography.fernet import Fernet
from key_value.aio.protocols.key_value import (
    AsyncEnumerateCollectionsProtocol,
    AsyncEnumerateKeysProtocol,
    AsyncKeyValue,
)
from key_value.aio.wrappers.encryption.fernet import ENCRYPTION_VERSION, FernetEncryptionWrapper
from pydantic_core import PydanticSerializationError, from_json, to_json

from tradecache.clock import MICRO, Clock, checked_ttl, lifetime
from tradecache.errors import InvalidInput, NotStorable, UnknownKey
from tradecache.naming import KINDS
from tradecache.steps import in_steps
from tradecache.stores.keyring import Keyring, Names
from tradecache.stores.local import Entry
from tradecache.stores.names import checked_address, checked_keys
from tradecache.stores.values import FRAME, normal_value

log = logging.getLogger("tradecache")

VERSION, KEY, HASHED, DATA = "__encryption_version__", "__key__", "__hashed__", "__encrypted_data__"
SEALED_NAMES = {VERSION, KEY, HASHED, DATA}

Item = tuple[str, str, Mapping[str, Any]]


class NotSealed(Exception):
    """Raised when a value is not one that was sealed for its place; it is never served."""


class Opened(NamedTuple):
    """What was in a sealed value.

    Attributes:
        collection: Where it was put, by its clear name.
        key: Under which key.
        expires: In microseconds since the epoch; None: never.
        has_frame: Whether a frame belongs to it.
        text: The value without its frame, as JSON.
    """

    collection: str
    key: str
    expires: int | None
    has_frame: bool
    text: bytes


@runtime_checkable
class Quarantining(Protocol):
    """A store that can put an entry aside which somebody else has found out to be wrong."""

    async def put_aside(
        self, key: str, *, collection: str, suspicion: Callable[..., Exception | None]
    ) -> None:
        """Put it aside unless it is another one by now."""


@runtime_checkable
class Listing(AsyncEnumerateKeysProtocol, AsyncEnumerateCollectionsProtocol, Protocol):
    """A store that lists its keys and collections."""


@runtime_checkable
class Ordered(Listing, Protocol):
    """A store that lists entries in the order of their keys, and enters several in one transaction."""

    async def scan(
        self, collection: str, *, start: str = "", end: str | None = None, last: int | None = None
    ) -> list[Entry]:
        """Return live entries with `start` <= key < `end`."""

    async def put_all(self, items: Sequence[Item], *, ttl: float | None) -> None:
        """Store all of `items` or none."""


class Seal:
    """Makes values into sealed ones, and sealed ones into what they were.

    Args:
        ring: The keys: with the first one values are sealed, and all of them open what they can.
        names: Hides the names of collections; None: they stay as they are.
        wrong_key: Returns the error to raise for a value under a key that was not given, by the key's id; None
            for one that counts as not sealed.
    """

    def __init__(
        self,
        ring: Keyring,
        names: Names | None = None,
        *,
        wrong_key: Callable[[str], Exception | None] | None = None,
    ) -> None:
        self.ring = ring
        self.names = names
        self._wrong_key = wrong_key

    def hidden(self, collection: str) -> str:
        """Return what a collection is called in the store."""
        return collection if self.names is None else self.names.hidden(collection)

    def spelt(self, opened: Opened) -> dict[str, Any]:
        """Return a sealed value in the form that stores hold it in, under the first key."""
        head = to_json(opened[:-1])
        return {
            VERSION: ENCRYPTION_VERSION,
            KEY: self.ring.first.id,
            HASHED: int(self.names is not None),
            DATA: self.ring.first.seal(head + b"\n" + opened.text).decode(),
        }

    def opened(self, value: Mapping[str, Any], *, hashed: bool | None = None) -> Opened:
        """Open a value, wherever it was found.

        Args:
            value: As the store holds it.
            hashed: Whether its name should be hidden; by default as those that are sealed here.

        Raises:
            NotSealed: When it was not sealed with one of the keys, or was altered.
        """
        if not SEALED_NAMES <= value.keys() <= SEALED_NAMES | {FRAME}:
            raise NotSealed("it is not sealed")
        version, key_id, token = value[VERSION], value[KEY], value[DATA]
        if type(version) is not int or version != ENCRYPTION_VERSION:
            raise NotSealed("it is sealed in a version that is not ours")
        if not isinstance(key_id, str) or not isinstance(token, str):
            raise NotSealed("it is not sealed")
        wanted = self.names is not None if hashed is None else hashed
        if type(value[HASHED]) is not int or value[HASHED] != wanted:
            raise NotSealed("its name is not hidden as it should be")
        try:
            return _opened(self.ring[key_id].opened(token))
        except UnknownKey as error:
            refusal = self._wrong_key(key_id) if self._wrong_key is not None else None
            raise refusal or NotSealed(str(error)) from None
        except ValueError as error:
            raise NotSealed(str(error)) from None


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
        super().__init__(key_value, fernet=Fernet(Fernet.generate_key()))  # the ring's keys are used instead
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

    def sealed_bytes(self, content: bytes) -> bytes:
        """Return bytes sealed for a file of their own, behind the id of the key."""
        return self.seal.ring.first.id.encode() + b" " + self.seal.ring.first.seal(content)

    def opened_bytes(self, content: bytes) -> bytes:
        """Return what was sealed by `sealed_bytes`.

        Raises:
            ValueError: When it was not, or under a key that was not given.
        """
        key_id, _, token = content.partition(b" ")
        try:
            return self.seal.ring[key_id.decode("ascii", "replace")].opened(token)
        except UnknownKey as error:
            raise ValueError(str(error)) from None

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
        """Open a value and see that it belongs where it was found.

        Raises:
            NotSealed: Saying why it does not.
        """
        opened = self.seal.opened(value)
        if self.hidden(opened.collection) != hidden or opened.key != key:
            raise NotSealed("it was sealed for another place")
        if opened.has_frame != isinstance(value.get(FRAME), pd.DataFrame):
            raise NotSealed("its frame is missing" if opened.has_frame else "a frame was put beside it")
        return opened

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

    def __init__(self, key_value: AsyncKeyValue, **options: Any) -> None:
        super().__init__(key_value, **options)
        self._clear: dict[str, str] = {}

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
                    opened = self.seal.opened(_mapping(entry.value))
                except NotSealed:
                    continue
                if self.hidden(opened.collection) == hidden:
                    self._clear[hidden] = opened.collection
                    return

    async def _scanned(self, collection: str, entry: Entry) -> Opened | None:
        hidden = self.hidden(collection)
        try:
            opened = self.seal.opened(_mapping(entry.value))
            if self.hidden(opened.collection) != hidden or opened.key != entry.key:
                raise NotSealed("it was sealed for another place")
        except NotSealed as error:
            await self._refused(collection, entry.key, error)
            return None
        return opened


def sealed(key_value: AsyncKeyValue, *, seal: Seal, clock: Clock, with_frames: bool = False) -> Sealed:
    """Return `Sealed` over a store, with as many of its ways to list entries as that has."""
    offered: object = key_value
    kind = SealedOrdered if isinstance(offered, Ordered) else Sealed
    if kind is Sealed and isinstance(offered, Listing):
        kind = SealedListing
    return kind(key_value, seal=seal, clock=clock, with_frames=with_frames)


def names_of(ring: Keyring, secret: bytes | None = None) -> Names:
    """Return what hides names: with a folder's own secret, else by the last key, which a rotation keeps longest."""
    return Names(ring.keys[-1].names if secret is None else secret, kinds=tuple(KINDS))


def _opened(plain: bytes) -> Opened:
    """Return what is in the plain text of a token.

    Raises:
        ValueError: When that is nothing of ours.
    """
    head, _, text = plain.partition(b"\n")
    try:
        collection, key, expires, has_frame = from_json(head)
    except (TypeError, ValueError):
        raise ValueError("what is in its token is nothing of ours") from None
    return Opened(collection, key, expires, has_frame, text)


def _mapping(text: bytes) -> dict[str, Any]:
    """Return the mapping that some JSON is; an empty one where it is none."""
    try:
        found = from_json(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def value_text(value: dict[str, Any]) -> bytes:
    """Return a value as the JSON that a ledger holds."""
    try:
        return to_json(value, inf_nan_mode="constants")
    except PydanticSerializationError as error:  # half a surrogate pair
        raise NotStorable(f"it holds text that UTF-8 cannot hold: {error}") from error
