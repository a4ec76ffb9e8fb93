"""How are py-key-value's stores on servers connected to: once for each event loop, and anew after a fault?"""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from key_value.aio.protocols.key_value import AsyncKeyValue
from key_value.aio.wrappers.base import BaseWrapper

from tradecache.bridge import PerLoop


class Connection(NamedTuple):
    """A store on a server, and what lets go of it."""

    store: AsyncKeyValue
    close: Callable[[], Awaitable[object]]


class Connected(BaseWrapper):
    """A store that is connected to when it is first needed, by each event loop for itself.

    Args:
        connect: Makes a store; it does not wait, the store does when it is first used.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connections = PerLoop(connect)

    @property
    def key_value(self) -> AsyncKeyValue:  # type: ignore[override]  # the library's is an attribute
        """The store of the running loop."""
        return self._connections.here().store

    async def get(self, key: str, *, collection: str | None = None) -> dict[str, Any] | None:
        """Return a value, without the library's run-time type checks."""
        return await self._connections.here().store.get(key, collection=collection)

    async def close(self) -> None:
        """Let go of the running loop's connections; the next use makes new ones."""
        connection = self._connections.take()
        if connection is not None:
            await connection.close()
