"""What can some stores do for which the key-value protocol has no word?"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from key_value.aio.protocols.key_value import AsyncEnumerateCollectionsProtocol, AsyncEnumerateKeysProtocol

Item = tuple[str, str, Mapping[str, Any]]
"""Collection, key and value."""

Suspicion = Callable[[str, str, dict[str, Any]], Exception | None]
"""Returns what is wrong with the value of a key in a collection, None when nothing is."""


class Entry(NamedTuple):
    """One live entry of a scan: its key, JSON text, and times in microseconds since the epoch."""

    key: str
    value: bytes
    created: int
    expires: int | None


@runtime_checkable
class Listing(AsyncEnumerateKeysProtocol, AsyncEnumerateCollectionsProtocol, Protocol):
    """A store that lists its keys and collections."""


@runtime_checkable
class Ordered(Protocol):
    """A store that lists entries in the order of their keys, and enters several in one transaction.

    It says itself what `Listing` says: whether a store is one is asked with each write, and this way sooner known.
    """

    async def keys(self, collection: str | None = None, *, limit: int | None = None) -> list[str]:
        """Return the keys of the live entries of a collection."""

    async def collections(self, *, limit: int | None = None) -> list[str]:
        """Return the names of the collections that have live entries."""

    async def scan(
        self, collection: str, *, start: str = "", end: str | None = None, last: int | None = None
    ) -> list[Entry]:
        """Return live entries with `start` <= key < `end`."""

    async def put_all(self, items: Sequence[Item], *, ttl: float | None) -> None:
        """Store all of `items` or none."""


@runtime_checkable
class Quarantining(Protocol):
    """A store that can put an entry aside which somebody else has found out to be wrong."""

    async def put_aside(self, key: str, *, collection: str, suspicion: Suspicion) -> None:
        """Put it aside unless it is another one by now."""
