"""A memory tier on Redis: what one process writes others see, and no outage reaches a caller."""

import json
import logging
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from clocks import FakeClock
from loops import run
from scripts import environment
from servers import RedisServer

from tradecache import Settings, TradeCache, TradingDataCache
from tradecache.bridge import shared_bridge
from tradecache.errors import InvalidInput, MissingDependency
from tradecache.samples import sample_points
from tradecache.sharedmemory import SharedMemory
from tradecache.stores.trust import TrustMark

PROCESSES, OPERATIONS = 4, 2_500
WORKER = """
import json, random, sys, time
from pathlib import Path
import tradecache as tc

folder, url, signs, name = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4]
rng = random.Random(name)
cache = tc.TradeCache(folder, settings=tc.Settings(memory_url=url, memory_ttl=5))
stored, doomed, gone = ((signs / name).open("a+") for name in ("stored", "doomed", "gone"))
wrong, reads = [], 0


def told(file):
    file.seek(0)
    return [json.loads(line) for line in file.read().split("\\n")[:-1]]


def tell(file, what):
    file.write(json.dumps(what) + "\\n")
    file.flush()


known, lost = [], {}
for number in range(int(sys.argv[5])):
    if number % 50 == 0:
        known, lost = told(stored), {data_id for data_id, _ in told(gone)}
    kind = rng.random()
    if kind < 0.4 or not known:
        price = round(rng.uniform(1, 1000), 4)
        ttl = 0.3 if rng.random() < 0.2 else None
        data_id = cache.store_price("AAPL", price, number, ttl=ttl)
        latest = None if ttl is None else time.time() + ttl
        tell(stored, [data_id, price, latest])
        known.append([data_id, price, latest])
    elif kind < 0.5:
        data_id, price, _ = rng.choice(known)
        tell(doomed, [data_id, price])
        cache.delete_price("AAPL", data_id)
        tell(gone, [data_id, price])
        if cache.get_price("AAPL", data_id) is not None:
            wrong.append(["back again", data_id])
        lost.add(data_id)
    else:
        data_id, price, latest = rng.choice(known[-500:])
        is_over = latest is not None and time.time() > latest
        point = cache.get_price("AAPL", data_id)
        reads += 1
        if point is None:
            if data_id not in lost and latest is None and data_id not in {one for one, _ in told(doomed)}:
                wrong.append(["lost", data_id])
        elif point.price != price:
            wrong.append(["another", data_id])
        elif is_over or data_id in lost:
            wrong.append(["stale", data_id])
stats = cache.stats()
print(json.dumps([wrong, reads, int(stats.loc["memory", "hits"]), int(stats.loc["disk", "hits"])]))
cache.close()
"""


@pytest.fixture
def settings(redis_server):
    return Settings(memory_url=redis_server.url)


@pytest.fixture
def caches(tmp_path, settings, clock):
    """Return what makes caches on a folder of that name, with the server as their memory."""
    made = []

    def make(name="cache", **options):
        made.append(TradeCache(tmp_path / name, settings=settings, clock=clock, **options))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def tiers(cache):
    """Return which tiers have answered reads, in order."""
    return cache.events().query("operation == 'get'")["tier"].tolist()


class TestSharing:
    """What caches see of each other."""

    def test_writers_are_seen_at_once(self, caches):
        """What one cache stores, another one reads from the server's memory, on its folder or on another."""
        one, other, elsewhere = caches(), caches(), caches("elsewhere")

        data_id = one.store_price("AAPL", 1.5, 2)

        points = [each.get_price("AAPL", data_id) for each in (one, other, elsewhere)]
        assert [point.price for point in points] == [1.5, 1.5, 1.5]
        assert tiers(one) + tiers(other) + tiers(elsewhere) == ["memory"] * 3

    def test_bulk_writes_are_seen_too(self, caches):
        """Points stored as a frame are in the server's memory, too."""
        one, other = caches(), caches("elsewhere")
        frame = sample_points().query("symbol == 'AAPL'").head(1_200)

        ids = one.store_prices(frame)

        assert other.get_price("AAPL", ids[-1]).price == frame["price"].iloc[-1]
        assert tiers(other) == ["memory"]

    def test_deletes_are_seen_at_once(self, caches):
        """What one cache deletes, no other one reads from memory."""
        one, other = caches(), caches()
        data_id = one.store_price("AAPL", 1.5, 2)
        assert other.get_price("AAPL", data_id) is not None

        other.delete_price("AAPL", data_id)

        assert one.get_price("AAPL", data_id) is None

    def test_a_read_from_disk_fills_memory(self, caches, tmp_path, clock):
        """A point that was stored without the server is on it after its first read."""
        with TradeCache(tmp_path / "cache", clock=clock) as before:
            data_id = before.store_price("AAPL", 1.5, 2)
        cache = caches()

        cache.get_price("AAPL", data_id)
        cache.get_price("AAPL", data_id)

        assert tiers(cache) == ["disk", "memory"]

    def test_its_own_expiry_counts(self, caches, clock):
        """A point lives to the microsecond as long as it was given, whatever the server's TTL."""
        cache = caches()
        data_id = cache.store_price("AAPL", 1.5, 2, ttl=1.5)

        clock.advance(1.499)
        assert cache.get_price("AAPL", data_id) is not None
        clock.advance(0.002)
        assert cache.get_price("AAPL", data_id) is None

    def test_memory_looks_again(self, tmp_path, redis_server, clock):
        """After `memory_ttl` the disk is asked again."""
        settings = Settings(memory_url=redis_server.url, memory_ttl=10)
        with TradeCache(tmp_path, settings=settings, clock=clock) as cache:
            data_id = cache.store_price("AAPL", 1.5, 2)
            cache.get_price("AAPL", data_id)
            clock.advance(10.1)
            cache.get_price("AAPL", data_id)

            assert tiers(cache) == ["memory", "disk"]

    def test_frames_stay_in_the_process(self, caches, redis_server):
        """Bars are not sent to the server: the memory of the process has them."""
        cache = caches(source="synthetic")
        for _ in range(2):
            cache.bars("AAPL", "2024-01-02", "2024-03-28")

        assert cache.events()["tier"].tolist() == ["source", "memory"]
        assert redis_keys(redis_server) == []

    @pytest.mark.parametrize("symbol", ["BTC/USDT", "a::b", "*", "née 世界", "x" * 200])
    def test_any_symbol(self, caches, symbol):
        """No symbol is mistaken for another, or for a pattern."""
        cache = caches()
        mine, other = cache.store_price(symbol, 1.5, 2), cache.store_price("a", 2.5, 2)

        assert (cache.get_price(symbol, mine).price, cache.get_price("a", other).price) == (1.5, 2.5)
        assert cache.get_price("a", mine) is None

    def test_by_several_loops(self, tmp_path, settings):
        """The async core may be used from one event loop after the other: each has connections of its own."""
        cache = TradingDataCache(tmp_path, settings=settings)

        async def store():
            data_id = await cache.store_price("AAPL", 1.5, 2)
            await (
                cache.stack.close()
            )  # of each loop before it ends, else Python complains of open connections
            return data_id

        async def read():
            found = await cache.get_price("AAPL", data_id)
            await cache.stack.close()
            return found.price

        data_id = run(store())
        assert [run(read()), run(read())] == [1.5, 1.5]
        run(cache.cleanup())

    def test_many_at_once(self, tmp_path, settings):
        """A thousand reads at once wait for connections, and none raises."""
        import asyncio

        async def work():
            async with TradingDataCache(tmp_path, settings=settings) as cache:
                data_id = await cache.store_price("AAPL", 1.5, 2)
                points = await asyncio.gather(*(cache.get_price("AAPL", data_id) for _ in range(1_000)))
                hits = cache.stats()["hits"]
                return {point.price for point in points}, hits["memory"] + hits["disk"], hits["memory"]

        prices, hits, from_memory = run(work())
        assert (prices, hits) == ({1.5}, 1_000)
        assert from_memory > 100  # on a machine that has much else to do some are not waited for

    def test_what_is_no_copy_of_ours(self, caches, redis_server):
        """A planted value, or one of another type, is a miss: the disk answers."""
        cache = caches()
        data_id = cache.store_price("AAPL", 1.5, 2)
        (key,) = redis_keys(redis_server)
        for planted in (
            "no JSON",
            json.dumps({"value": {"value": {"price": 2}}}),
            json.dumps({"value": 3}),
            "[]",
        ):
            redis_command(redis_server, "SET", key, planted)
            assert cache.get_price("AAPL", data_id).price == 1.5
        redis_command(redis_server, "DEL", key)
        redis_command(redis_server, "LPUSH", key, "1")
        assert cache.get_price("AAPL", data_id).price == 1.5


class TestOutages:
    """What callers notice of a server that is away: nothing."""

    def test_one_warning_for_each(self, caches, redis_server, caplog):
        """While the server is away everything goes on from disk, with one warning; then memory answers again."""
        cache = caches()
        before = cache.store_price("AAPL", 1.5, 2)
        for _ in range(2):
            caplog.clear()
            redis_server.kill()
            for _ in range(20):
                after = cache.store_price("AAPL", 2.5, 2)
                prices = cache.get_price("AAPL", before).price, cache.get_price("AAPL", after).price
                assert prices == (1.5, 2.5)
            said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
            assert len(said) == 1
            assert redis_server.url in said[0]
            redis_server.start()
            assert eventually(cache, before) == "memory"

    def test_a_frozen_server_holds_nobody_up(self, caches, redis_server):
        """A server that does not answer costs a quarter of a second now and then, not one for each request."""
        cache = caches()
        data_id = cache.store_price("AAPL", 1.5, 2)
        redis_server.send(signal.SIGSTOP)
        began = time.monotonic()
        for _ in range(200):
            assert cache.get_price("AAPL", data_id).price == 1.5
        lasted = time.monotonic() - began
        redis_server.send(signal.SIGCONT)

        assert lasted < 5
        assert eventually(cache, data_id) == "memory"

    def test_a_full_server(self, tmp_path, clock, caplog):
        """A server without room goes on to answer; what it does not take is on disk."""
        with (
            RedisServer("--maxmemory-policy", "noeviction") as server,
            TradeCache(tmp_path, settings=Settings(memory_url=server.url), clock=clock) as cache,
        ):
            data_id = cache.store_price("AAPL", 1.5, 2)
            assert cache.get_price("AAPL", data_id).price == 1.5
            redis_command(server, "CONFIG", "SET", "maxmemory", "1000")

            others = [cache.store_price("AAPL", 2.5, n) for n in range(20)]
            assert {cache.get_price("AAPL", each).price for each in others} == {2.5}
            assert sum("OutOfMemory" in record.message for record in caplog.records) == 1
            cache.delete_price("AAPL", data_id)
            assert cache.get_price("AAPL", data_id) is None

    def test_a_wrong_password(self, tmp_path, clock, caplog):
        """A server that refuses us is away; its password is in no message."""
        with RedisServer("--requirepass", "right") as server:
            url = f"redis://:secretword@127.0.0.1:{server.port}/0"
            with TradeCache(tmp_path, settings=Settings(memory_url=url), clock=clock) as cache:
                data_id = cache.store_price("AAPL", 1.5, 2)
                assert cache.get_price("AAPL", data_id).price == 1.5
        assert "secretword" not in caplog.text
        assert sum(record.levelno >= logging.WARNING for record in caplog.records) == 1

    def test_deleted_while_it_was_away(self, caches, redis_server):
        """What is deleted while the server cannot be told is not read from it by anybody on the folder."""
        one, other = caches(), caches()
        data_id = one.store_price("AAPL", 1.5, 2)
        assert other.get_price("AAPL", data_id) is not None
        redis_server.send(signal.SIGSTOP)  # so that it still has its copy afterwards
        one.delete_price("AAPL", data_id)
        redis_server.send(signal.SIGCONT)

        assert other.get_price("AAPL", data_id) is None

    def test_deleted_from_the_server_when_it_is_back(self, caches, redis_server):
        """What could not be deleted from the server is, with the first request that it answers."""
        one, elsewhere = caches(), caches("elsewhere")
        data_id = one.store_price("AAPL", 1.5, 2)
        redis_server.send(signal.SIGSTOP)
        one.delete_price("AAPL", data_id)
        redis_server.send(signal.SIGCONT)
        deadline = time.monotonic() + 10
        while redis_keys(redis_server) and time.monotonic() < deadline:
            one.get_price("AAPL", data_id)
            time.sleep(0.05)

        assert elsewhere.get_price("AAPL", data_id) is None

    def test_deleted_while_a_bulk_write_sends_its_copies(self, caches):
        """What is deleted before its copy is sent is not brought back by that."""
        one, other = caches(), caches()
        frame = sample_points().query("symbol == 'AAPL'")
        shared = one.core.stack.shared
        before = shared.before()
        ids = one.store_prices(frame)
        other.invalidate("AAPL")
        values = [{"symbol": "AAPL", "price": 1.0, "volume": 1.0, "timestamp": "2024-01-02T00:00:00Z"}] * len(
            ids
        )
        late = shared.copied(list(ids), values, collection="symbol:AAPL", ttl=None, before=before)
        shared_bridge().run(late)  # as a slow line would have had it

        assert {each.get_price("AAPL", data_id) for each in (one, other) for data_id in ids[:50]} == {None}

    def test_started_anew_with_what_it_had(self, tmp_path, clock):
        """A server that comes back with a copy from before a delete is not believed."""
        with RedisServer() as server:
            settings = Settings(memory_url=server.url)
            with TradeCache(tmp_path, settings=settings, clock=clock) as cache:
                data_id = cache.store_price("AAPL", 1.5, 2)
                redis_command(server, "SAVE")
                cache.delete_price("AAPL", data_id)
                server.kill()
                server.start()
                assert redis_keys(server)
                assert [cache.get_price("AAPL", data_id) for _ in range(20)] == [None] * 20

    def test_a_copy_that_comes_late(self, caches, clock):
        """A copy lives from when its entry was written, not from when it was sent."""
        cache = caches()
        shared = cache.core.stack.shared
        before = shared.before()
        clock.advance(1.5)
        value = {"symbol": "AAPL", "price": 1.0, "volume": 1.0, "timestamp": "2024-01-02T00:00:00Z"}
        shared_bridge().run(shared.copied(["k"], [value], collection="symbol:AAPL", ttl=2, before=before))
        clock.advance(0.6)

        assert shared_bridge().run(shared.get("k", collection="symbol:AAPL")) is None

    def test_what_is_no_text(self, caches, redis_server):
        """A value that is no text is a miss."""
        import redis

        cache = caches()
        data_id = cache.store_price("AAPL", 1.5, 2)
        (key,) = redis_keys(redis_server)
        with redis.Redis(port=redis_server.port) as client:
            client.set(key, b"\xff\xfe")
        assert cache.get_price("AAPL", data_id).price == 1.5

    def test_a_delete_that_is_cancelled(self, tmp_path, settings, redis_server):
        """A delete that is cancelled while the server is silent is a delete: nobody is served the copy."""
        import asyncio

        async def work():
            async with TradingDataCache(tmp_path, settings=settings) as core:
                data_id = await core.store_price("AAPL", 1.5, 2)
                redis_server.send(signal.SIGSTOP)
                task = asyncio.create_task(core.delete_price("AAPL", data_id))
                await asyncio.sleep(0.1)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                redis_server.send(signal.SIGCONT)
                return [await core.get_price("AAPL", data_id) for _ in range(5)]

        assert run(work()) == [None] * 5

    @pytest.mark.slow
    @pytest.mark.timeout(300)
    def test_killed_and_started_while_four_processes_work(self, tmp_path, redis_server):
        """10,000 reads and writes of four processes: no error, nothing wrong or stale, nothing lost."""
        signs = tmp_path / "signs"
        signs.mkdir()
        workers = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    WORKER,
                    str(tmp_path / "cache"),
                    redis_server.url,
                    str(signs),
                    str(name),
                    str(OPERATIONS),
                ],
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for name in range(PROCESSES)
        ]
        outages = trouble(redis_server, workers)
        ends = [worker.communicate(timeout=240) for worker in workers]
        assert [worker.returncode for worker in workers] == [0] * PROCESSES, ends
        answers = [json.loads(out) for out, _ in ends]

        assert [wrong for wrong, *_ in answers] == [[]] * PROCESSES
        assert outages > 2
        assert sum(hits for *_, hits, _ in answers) > 100  # or the server had no part in it
        stored = [json.loads(line) for line in (signs / "stored").read_text().splitlines()]
        gone = {json.loads(line)[0] for line in (signs / "gone").read_text().splitlines()}
        kept = {data_id: price for data_id, price, latest in stored if latest is None and data_id not in gone}
        with TradeCache(tmp_path / "cache") as cache:
            assert cache.prices("AAPL").shape[0] >= len(kept)
            assert {data_id: cache.get_price("AAPL", data_id).price for data_id in kept} == kept


class TestTrustMark:
    """Which copies count."""

    def test_old_copies_do_not_count_once_it_is_renewed(self, tmp_path):
        """A renewed mark is seen by all on the folder; copies of another folder count as before."""
        one, other = TrustMark(tmp_path), TrustMark(tmp_path)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        before, foreign = one.stamp(), TrustMark(elsewhere).stamp()
        assert (other.stamp(), other.trusts(before)) == (before, True)

        one.renew()

        assert (other.trusts(before), other.trusts(one.stamp()), other.trusts(foreign)) == (False, True, True)

    @pytest.mark.parametrize("damage", [b"", b"{}", b"no JSON"])
    def test_damage(self, tmp_path, damage):
        """A damaged mark is another one: nothing that was copied before counts."""
        mark = TrustMark(tmp_path)
        before = mark.stamp()
        (tmp_path / "shared-memory.json").write_bytes(damage)

        assert mark.stamp() != before
        assert mark.stamp() == TrustMark(tmp_path).stamp()

    def test_that_cannot_be_written(self, tmp_path):
        """Where it cannot be written, older copies do not count for who has renewed it, and nothing raises."""
        mark = TrustMark(tmp_path)
        before = mark.stamp()
        shutil.rmtree(tmp_path)

        mark.renew()

        assert not mark.trusts(before)
        assert mark.trusts(mark.stamp())
        tmp_path.mkdir()
        mark.renew()
        assert not TrustMark(tmp_path).trusts(before)

    def test_without_a_folder(self):
        """Copies of a store without a folder always count."""
        mark = TrustMark(None)
        before = mark.stamp()
        mark.renew()

        assert mark.trusts(before)


def test_a_durable_store_that_was_passed_in(settings):
    """Any store can stand behind the server's memory."""
    from key_value.aio.stores.memory import MemoryStore

    with TradeCache(durable=MemoryStore(), settings=settings, clock=FakeClock()) as cache:
        data_id = cache.store_price("AAPL", 1.5, 2)
        assert cache.get_price("AAPL", data_id).price == 1.5
        assert isinstance(cache.core.stack.shared, SharedMemory)
        cache.delete_price("AAPL", data_id)
        assert cache.get_price("AAPL", data_id) is None
        assert tiers(cache) == ["memory", "none"]


def test_without_the_client(tmp_path, monkeypatch):
    """Without redis-py the line that installs it is in the error."""
    for name in ("redis", "redis.asyncio"):
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(MissingDependency, match=r"tradecache\[redis\]"):
        TradeCache(tmp_path, settings=Settings(memory_url="redis://127.0.0.1:1"))


@pytest.mark.parametrize(
    "url", ["redis://me:secretword@127.0.0.1:1/x", "redis://127.0.0.1:1?socket_timeout=never"]
)
def test_a_url_that_the_client_does_not_take(tmp_path, url):
    """A URL that redis-py refuses is refused at once, without its password."""
    with pytest.raises(InvalidInput) as error:
        TradeCache(tmp_path, settings=Settings(memory_url=url))

    assert "secretword" not in str(error.value)


def eventually(cache, data_id):
    """Return the tier that answers once the server is believed to be back."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        cache.get_price("AAPL", data_id)
        if tiers(cache)[-1] == "memory":
            break
        time.sleep(0.05)
    return tiers(cache)[-1]


def trouble(server, workers):
    """Kill, freeze and start a server again while processes work; return how often."""
    rng, count = random.Random(1), 0
    while any(worker.poll() is None for worker in workers):
        time.sleep(rng.uniform(0.2, 0.8))
        if rng.random() < 0.7:
            server.kill()
            time.sleep(rng.uniform(0.05, 0.5))
            server.start()
        else:
            server.send(signal.SIGSTOP)
            time.sleep(rng.uniform(0.1, 0.6))
            server.send(signal.SIGCONT)
        count += 1
    return count


def redis_command(server, *command):
    """Send one command, and return the answer."""
    import redis

    with redis.Redis(port=server.port, decode_responses=True) as client:
        return client.execute_command(*command)


def redis_keys(server):
    """Return all keys of a server."""
    return redis_command(server, "KEYS", "*")
