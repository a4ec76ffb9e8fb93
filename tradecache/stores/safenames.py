"""What are collections and keys called on a server, so that no two are one there, and each store takes them?"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, SupportsFloat

from key_value.aio.protocols.key_value import AsyncKeyValue
from key_value.aio.wrappers.base import BaseWrapper

from tradecache.stores.names import checked_address, checked_keys

LONGEST = 120  # bytes; longer ones are told by their hash
_UNSAFE = re.compile(rb"[^A-Za-z0-9.-]")


@lru_cache(maxsize=10_000)
def server_name(text: str) -> str:
    """Return a name of letters, digits, dots, hyphens and underscores: another one for each text.

    >>> server_name("symbol:BTC/USDT"), server_name("a_b")
    ('symbol_3ABTC_2FUSDT', 'a_5Fb')
    """
    raw = text.encode("utf-8", "surrogatepass")
    name = _UNSAFE.sub(lambda found: b"_" + found[0].hex().upper().encode(), raw)
    if len(name) > LONGEST:
        return f"_{hashlib.sha256(raw).hexdigest()}"
    return name.decode("ascii")


class SafeNames(BaseWrapper):
    """Gives a store names that it cannot mistake for others: "a::b" and "c" are not "a" and "b::c".

    Args:
        key_value: The store.
        prefix: What every collection's name begins with.
    """

    def __init__(self, key_value: AsyncKeyValue, *, prefix: str) -> None:
        self.key_value = key_value
        self._prefix = prefix

    async def get(self, key: str, *, collection: str | None = None) -> dict[str, Any] | None:
        """Return a value."""
        return await self.key_value.get(_name(key), collection=self._where(collection))

    async def get_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[dict[str, Any] | None]:
        """Return values, in order."""
        return await self.key_value.get_many(_names(keys), collection=self._where(collection))

    async def ttl(
        self, key: str, *, collection: str | None = None
    ) -> tuple[dict[str, Any] | None, float | None]:
        """Return a value and the seconds it has left."""
        return await self.key_value.ttl(_name(key), collection=self._where(collection))

    async def ttl_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[tuple[dict[str, Any] | None, float | None]]:
        """Return values and the seconds they have left, in order."""
        return await self.key_value.ttl_many(_names(keys), collection=self._where(collection))

    async def put(
        self,
        key: str,
        value: Mapping[str, Any],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store a value."""
        await self.key_value.put(_name(key), value, collection=self._where(collection), ttl=ttl)

    async def put_many(
        self,
        keys: Sequence[str],
        values: Sequence[Mapping[str, Any]],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store values."""
        names = _names(keys)
        await self.key_value.put_many(names, values, collection=self._where(collection), ttl=ttl)

    async def delete(self, key: str, *, collection: str | None = None) -> bool:
        """Delete a key; return whether there was one."""
        return await self.key_value.delete(_name(key), collection=self._where(collection))

    async def delete_many(self, keys: Sequence[str], *, collection: str | None = None) -> int:
        """Delete keys; return how many there were."""
        return await self.key_value.delete_many(_names(keys), collection=self._where(collection))

    def _where(self, collection: str | None) -> str:
        return self._prefix + server_name(checked_address(collection, "")[0])


def _name(key: str) -> str:
    return server_name(checked_address(None, key)[1])


def _names(keys: Sequence[str]) -> list[str]:
    return [_name(key) for key in checked_keys(keys)]
