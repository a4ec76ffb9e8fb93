"""How does a wrapper change names, or values, of everything that passes through it?"""

from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

from key_value.aio.protocols.key_value import AsyncKeyValue
from key_value.aio.wrappers.base import BaseWrapper

from tradecache.errors import InvalidInput
from tradecache.stores.names import checked_address, checked_keys

Address = tuple[str, str]
"""Collection and key."""


class Mapped(BaseWrapper):
    """A wrapper that says where an address is in its store, and what a value is there; it changes nothing by itself.

    Args:
        key_value: The store.
    """

    def __init__(self, key_value: AsyncKeyValue) -> None:
        self.key_value = key_value

    def at(self, address: Address) -> Address:
        """Return where an address is in the store."""
        return address

    def into(self, value: Mapping[str, Any], address: Address) -> Mapping[str, Any]:  # noqa: ARG002 - for who needs it
        """Return a value as the store is given it."""
        return value

    def out(self, value: dict[str, Any], address: Address) -> dict[str, Any] | None:  # noqa: ARG002 - for who needs it
        """Return what a value of the store is; None where it is none of ours."""
        return value

    async def get(self, key: str, *, collection: str | None = None) -> dict[str, Any] | None:
        """Return a value."""
        address = checked_address(collection, key)
        where, name = self.at(address)
        value = await self.key_value.get(name, collection=where)
        return None if value is None else self.out(value, address)

    async def get_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[dict[str, Any] | None]:
        """Return values, in order."""
        addresses, where, names = self._places(keys, collection)
        found = await self.key_value.get_many(names, collection=where)
        return [
            None if value is None else self.out(value, address)
            for address, value in zip(addresses, found, strict=True)
        ]

    async def ttl(
        self, key: str, *, collection: str | None = None
    ) -> tuple[dict[str, Any] | None, float | None]:
        """Return a value and the seconds it has left."""
        address = checked_address(collection, key)
        where, name = self.at(address)
        return self._with_ttl(await self.key_value.ttl(name, collection=where), address)

    async def ttl_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[tuple[dict[str, Any] | None, float | None]]:
        """Return values and the seconds they have left, in order."""
        addresses, where, names = self._places(keys, collection)
        found = await self.key_value.ttl_many(names, collection=where)
        return [self._with_ttl(each, address) for address, each in zip(addresses, found, strict=True)]

    async def put(
        self,
        key: str,
        value: Mapping[str, Any],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store a value."""
        address = checked_address(collection, key)
        where, name = self.at(address)
        await self.key_value.put(name, self.into(value, address), collection=where, ttl=ttl)

    async def put_many(
        self,
        keys: Sequence[str],
        values: Sequence[Mapping[str, Any]],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store values."""
        addresses, where, names = self._places(keys, collection)
        if len(addresses) != len(values):
            raise InvalidInput("values", f"{len(values)} values for {len(keys)} keys", "as many as the keys")
        inner = [self.into(value, address) for address, value in zip(addresses, values, strict=True)]
        await self.key_value.put_many(names, inner, collection=where, ttl=ttl)

    async def delete(self, key: str, *, collection: str | None = None) -> bool:
        """Delete a key; return whether there was one."""
        where, name = self.at(checked_address(collection, key))
        return await self.key_value.delete(name, collection=where)

    async def delete_many(self, keys: Sequence[str], *, collection: str | None = None) -> int:
        """Delete keys; return how many there were."""
        _, where, names = self._places(keys, collection)
        return await self.key_value.delete_many(names, collection=where)

    def _places(self, keys: Sequence[str], collection: str | None) -> tuple[list[Address], str, list[str]]:
        """Return the addresses of some keys, and their collection and names in the store."""
        addresses = [checked_address(collection, key) for key in checked_keys(keys)]
        where, _ = self.at(checked_address(collection, ""))
        return addresses, where, [self.at(address)[1] for address in addresses]

    def _with_ttl(
        self, found: tuple[dict[str, Any] | None, float | None], address: Address
    ) -> tuple[dict[str, Any] | None, float | None]:
        value, left = found
        value = None if value is None else self.out(value, address)
        return (None, None) if value is None else (value, left)
