"""One holder at a time, on any store; and nobody waits for a dead one for long."""

import asyncio
import itertools

import pytest
from key_value.aio.stores.memory import MemoryStore
from loops import run

from tradecache.claims import KeyClaims, RedisClaims, claimed
from tradecache.credentials import SecretURL
from tradecache.redisclient import redis_client


class Slow(MemoryStore):
    """A store on which everything takes a while, as on a server."""

    async def get(self, key, *, collection=None):
        await asyncio.sleep(0.003)
        return await super().get(key, collection=collection)

    async def put(self, key, value, *, collection=None, ttl=None):
        await asyncio.sleep(0.005)
        await super().put(key, value, collection=collection, ttl=ttl)


class ClaimsContract:
    """What claims do, whatever they are made of; a subclass gives `on`."""

    def on(self, work):
        """Run a function of some claims."""
        raise NotImplementedError

    def test_one_at_a_time(self):
        """Of twenty who want a claim at once, each has it alone."""

        async def work(some):
            inside, most, order = 0, 0, []

            async def one(number):
                nonlocal inside, most
                async with claimed(some, "AAPL"):
                    inside += 1
                    most = max(most, inside)
                    await asyncio.sleep(0.005)
                    order.append(number)
                    inside -= 1

            await asyncio.gather(*map(one, range(8)))
            return most, sorted(order)

        assert self.on(work) == (1, list(range(8)))

    def test_other_names_do_not_wait(self):
        """Claims on different names are apart."""

        async def work(some):
            async with claimed(some, "AAPL"), claimed(some, "MSFT"):
                return await some.take("AAPL", "another"), await some.take("IBM", "another")

        assert self.on(work) == (False, True)

    def test_given_back_whatever_happens(self):
        """A claim is free again when its block ends, by an error or by being cancelled too."""

        async def work(some):
            with pytest.raises(ZeroDivisionError):
                async with claimed(some, "AAPL"):
                    raise ZeroDivisionError
            holding = asyncio.create_task(self.hold(some))
            await asyncio.sleep(0.3)
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
            return await some.take("AAPL", "another")

        assert self.on(work) is True

    async def hold(self, some):
        async with claimed(some, "AAPL"):
            await asyncio.sleep(60)

    def test_a_dead_holder(self):
        """A claim that nobody renews is free after its lease."""

        async def work(some):
            assert await some.take("AAPL", "dead")
            began = asyncio.get_running_loop().time()
            async with claimed(some, "AAPL"):
                return asyncio.get_running_loop().time() - began

        assert 0.5 < self.on(work) < 5

    def test_a_live_holder(self):
        """A claim that is held for longer than its lease is renewed meanwhile."""

        async def work(some):
            async with claimed(some, "AAPL"):
                await asyncio.sleep(2.2)
                return await some.take("AAPL", "another")

        assert self.on(work) is False

    def test_of_another_is_not_given_back(self):
        """Who has lost a claim does not give back another's."""

        async def work(some):
            await some.take("AAPL", "one")
            await some.release("AAPL", "other")
            return await some.take("AAPL", "third")

        assert self.on(work) is False


class TestInAnyStore(ClaimsContract):
    """As entries of a store that knows no "put if absent"."""

    def on(self, work):
        return run(work(KeyClaims(Slow(), lease=1.0)))


class TestOnRedis(ClaimsContract):
    """On a server that does."""

    @pytest.fixture(autouse=True)
    def _server(self, redis_server):
        self.url = SecretURL(redis_server.url)
        self.prefixes = itertools.count()

    def on(self, work):
        async def with_client():
            client = redis_client(self.url)
            try:
                return await work(RedisClaims(lambda: client, prefix=f"{next(self.prefixes)}:", lease=1.0))
            finally:
                await client.aclose()

        return run(with_client())
