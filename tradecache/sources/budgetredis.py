"""How do all machines keep to one rate limit of a provider? They count in a Redis or Valkey server."""

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Any

from tradecache.bridge import PerLoop, on_private_loop
from tradecache.credentials import SecretURL
from tradecache.redisclient import redis_client
from tradecache.sources.pace import Limit, Turn
from tradecache.stores.payloads import safe_name

PATIENCE = 0.25  # seconds for the server to take a connection, or to answer
LOOK = 1.0  # seconds between two questions whether a provider without a limit wants to be left alone
CONNECTIONS = 8
MICROS, MILLIS = 1_000_000, 1_000

# A sorted set holds the microseconds at which the last requests began, by the server's own clock; where that
# was set back, what it says will have been counts as now. How many requests, and how long ago, somebody looks
# back at is kept beside it, for not all who ask need have the same limit. A hold is a key that expires.
TAKE = """
local begun, kept, held = KEYS[1], KEYS[2], KEYS[3]
local requests, span, name = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local left = redis.call('PTTL', held)
if left > 0 then return {left * 1000, 1} end
if requests == 0 then return {0, 0} end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local now_text = string.format('%.0f', now)
for _, each in ipairs(redis.call('ZRANGEBYSCORE', begun, '(' .. now_text, '+inf')) do
  redis.call('ZADD', begun, now_text, each)
end
local in_the_way = redis.call('ZREVRANGE', begun, requests - 1, requests - 1, 'WITHSCORES')[2]
if in_the_way then
  local wait = tonumber(in_the_way) + span - now
  if wait > 0 then return {wait, 0} end
end
redis.call('ZADD', begun, now_text, name)
local most = math.max(requests, tonumber(redis.call('HGET', kept, 'requests') or 0))
local longest = math.max(span, tonumber(redis.call('HGET', kept, 'span') or 0))
redis.call('HSET', kept, 'requests', string.format('%.0f', most), 'span', string.format('%.0f', longest))
redis.call('ZREMRANGEBYRANK', begun, 0, -(2 * most + 1))
local alive = string.format('%.0f', math.ceil(longest / 1000) + 1000)
redis.call('PEXPIRE', begun, alive)
redis.call('PEXPIRE', kept, alive)
return {0, 0}
"""
HOLD = """
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], '1', 'PX', ARGV[1]) end
"""


GIVE_BACK = "redis.call('ZREM', KEYS[1], ARGV[1])"


class RedisLink:
    """The way to the server, for the budgets of all providers; its connections live on the private loop.

    It knows no patience: what does not answer within a quarter of a second counts as not there.

    Args:
        url: redis://, rediss://, valkey:// or valkeys://.

    Raises:
        InvalidInput: When redis-py cannot do with the URL.
        MissingDependency: When redis-py is not installed.
    """

    def __init__(self, url: SecretURL) -> None:
        self._url = url
        redis_client(url)  # which refuses what is no URL of a server
        self._clients = PerLoop(lambda: redis_client(url, patience=PATIENCE, connections=CONNECTIONS))

    def budget(self, provider: str, limit: Limit) -> "RedisBudget":
        """Return the budget of one provider."""
        return RedisBudget(self, provider, limit)

    async def run(self, script: str, keys: list[str], arguments: list[Any]) -> Any:
        """Run a script on the server.

        Raises:
            OSError: When it does not answer in time, or answers with an error.
        """
        return await on_private_loop(lambda: self._run(script, keys, arguments))

    async def close(self) -> None:
        """Close the connections."""
        await on_private_loop(self._close)

    def __repr__(self) -> str:
        """Show where the server is."""
        return f"<RedisLink {self._url}>"

    async def _run(self, script: str, keys: list[str], arguments: list[Any]) -> Any:
        from redis.exceptions import RedisError

        try:
            async with asyncio.timeout(2 * PATIENCE):  # a connection and an answer
                return await self._clients.here().register_script(script)(keys=keys, args=arguments)
        except TimeoutError:
            raise TimeoutError(f"no answer within {2 * PATIENCE:g} s") from None
        except RedisError as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error

    async def _close(self) -> None:
        client = self._clients.take()
        if client is not None:
            await client.aclose()


class RedisBudget:
    """The budget of one provider, in a server that all machines count in, by the server's clock.

    A source without a limit asks at most once in `LOOK` seconds whether its provider wants to be left alone.

    Args:
        link: The way to the server.
        provider: Whose budget it is.
        limit: (requests, seconds) that this caller keeps to, counting everybody's requests; None: no limit.
        monotonic: Seconds of a clock that never runs backwards.
    """

    def __init__(
        self,
        link: RedisLink,
        provider: str,
        limit: Limit,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link = link
        self._limit = limit
        self._monotonic = monotonic
        self._looks_at = float("-inf")
        names = f"tradecache:budget:{{{safe_name(provider)}}}"  # in {}: all on one server of a cluster
        self._keys = [f"{names}:begun", f"{names}:kept", f"{names}:held"]

    async def take(self) -> Turn:
        """Take a place for a request that begins now, or say how long to wait before asking again.

        Raises:
            OSError: When the server does not answer in time, or answers with an error.
        """
        if self._limit is None and self._monotonic() < self._looks_at:
            return Turn()
        self._looks_at = self._monotonic() + LOOK
        requests, seconds = self._limit or (0, 0.0)
        place = secrets.randbits(52)  # its name: several requests may begin in one microsecond
        arguments = [requests, round(seconds * MICROS), place]
        micros, is_hold = await self._link.run(TAKE, self._keys, arguments)
        return Turn(micros / MICROS, is_hold=bool(is_hold), place=None if micros else place)

    async def give_back(self, turn: Turn) -> None:
        """Give back a place that was taken, because the request does not begin."""
        if turn.place is not None:
            await self._link.run(GIVE_BACK, self._keys[:1], [turn.place])

    async def hold(self, seconds: float) -> None:
        """Let no request begin for so many seconds."""
        await self._link.run(HOLD, self._keys[2:], [max(1, round(seconds * MILLIS))])
