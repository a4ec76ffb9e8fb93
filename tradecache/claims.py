"""Which of several machines asks a source for a series now, while the others wait for what it will put on the shelf?"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from key_value.aio.protocols.key_value import AsyncKeyValue

if TYPE_CHECKING:
    from redis.asyncio import Redis

T = TypeVar("T")

log = logging.getLogger("tradecache")

LEASE = 20.0  # seconds after which the claim of a machine that has died is over
PATIENCE = 2.0  # seconds for an answer
RENEWED = 3  # times in each lease
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5  # seconds between two looks at another's claim
SETTLED = (
    0.05  # seconds at least, and three times as long as a write takes: then a claim is the last one written
)
COLLECTION = "claims"

_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
_RENEW = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0"


class Claims(Protocol):
    """Claims on names, of which one holder at a time has each, on a server that all can reach."""

    lease: float
    """Seconds after which a claim is over that was not renewed."""

    async def take(self, name: str, holder: str) -> bool:
        """Take a claim for a lease; return whether it was free."""

    async def renew(self, name: str, holder: str) -> None:
        """Have it for another lease."""

    async def release(self, name: str, holder: str) -> None:
        """Give it back."""


class KeyClaims:
    """Claims as entries of any key-value store, which knows no "put if absent".

    Whoever finds none writes his own, waits until writes under way have landed, and has it if his is the one that is
    there then. Should a write take longer than that, two may believe to have it: then a source is asked once more
    than need be, and nothing is wrong.

    Args:
        store: Where they are.
        lease: Seconds after which a claim is over that was not renewed.
        monotonic: Seconds of a clock that never runs backwards.
    """

    def __init__(
        self,
        store: AsyncKeyValue,
        *,
        lease: float = LEASE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self.lease = lease
        self._monotonic = monotonic

    async def take(self, name: str, holder: str) -> bool:
        """Take a claim for a lease; return whether it was free."""
        if await self._store.get(name, collection=COLLECTION) is not None:
            return False
        began = self._monotonic()
        await self.renew(name, holder)
        await asyncio.sleep(max(SETTLED, 3 * (self._monotonic() - began)))
        return await self._store.get(name, collection=COLLECTION) == {"holder": holder}

    async def renew(self, name: str, holder: str) -> None:
        """Have it for another lease."""
        await self._store.put(name, {"holder": holder}, collection=COLLECTION, ttl=self.lease)

    async def release(self, name: str, holder: str) -> None:
        """Give it back, unless another has it by now."""
        if await self._store.get(name, collection=COLLECTION) == {"holder": holder}:
            await self._store.delete(name, collection=COLLECTION)


class RedisClaims:
    """Claims on a Redis server, which knows "set if absent": one holder at a time, for certain.

    Args:
        client: Returns a client for the running loop.
        prefix: What their keys begin with.
        lease: Seconds after which a claim is over that was not renewed.
    """

    def __init__(self, client: Callable[[], "Redis"], *, prefix: str, lease: float = LEASE) -> None:
        self._client = client
        self.lease = lease
        self._prefix = prefix

    async def take(self, name: str, holder: str) -> bool:
        """Take a claim for a lease; return whether it was free."""
        key = self._prefix + name
        return bool(await self._client().set(key, holder, nx=True, px=round(self.lease * 1000)))

    async def renew(self, name: str, holder: str) -> None:
        """Have it for another lease."""
        await self._run(_RENEW, name, holder, str(round(self.lease * 1000)))

    async def release(self, name: str, holder: str) -> None:
        """Give it back, unless another has it by now."""
        await self._run(_RELEASE, name, holder)

    async def _run(self, script: str, name: str, *values: str) -> None:
        client = self._client()
        await client.register_script(script)(keys=[self._prefix + name], args=values)


@asynccontextmanager
async def claimed(claims: Claims, name: str) -> AsyncIterator[None]:
    """Wait until nobody else has a claim, and have it, renewed, until the block ends.

    Raises:
        Exception: What the server's client raises, before the block begins; what is wrong later is logged.
    """
    holder, pause = secrets.token_hex(12), FIRST_PAUSE
    while not await _in_time(claims.take(name, holder)):
        await asyncio.sleep(pause)
        pause = min(1.6 * pause, LONGEST_PAUSE)
    keeping = asyncio.create_task(_keep(claims, name, holder))
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        try:
            await _in_time(claims.release(name, holder))
        except Exception as error:  # noqa: BLE001 - its lease ends by itself, and what was done is done
            log.info("the claim on %r was not given back: %s", name, error)


async def _in_time(work: Awaitable[T]) -> T:
    """Return what a server answers, if it does in time."""
    async with asyncio.timeout(PATIENCE):
        return await work


async def _keep(claims: Claims, name: str, holder: str) -> None:
    while True:
        await asyncio.sleep(claims.lease / RENEWED)
        try:
            await _in_time(claims.renew(name, holder))
        except Exception as error:  # noqa: BLE001 - the next time may go well
            log.info("the claim on %r was not renewed: %s", name, error)
