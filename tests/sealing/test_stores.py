"""Any store can be sealed, and a sealed cache answers as a plain one."""

import os

import pandas as pd
import pytest
from framecases import bars
from hypothesis import settings as examples
from hypothesis.stateful import run_state_machine_as_test
from key_value.aio.stores.memory import MemoryStore
from key_value.aio.stores.redis import RedisStore
from key_value.aio.wrappers.encryption.fernet import FernetEncryptionWrapper
from loops import run
from redis.asyncio import Redis
from scripts import answer, start_script
from test_prices_law import PricesLaw
from vaults import BIG, ONE, PRICE, SYMBOL, TWO, VALUE, chosen, get, put, rows_of

from tradecache import NotStorable, Settings, StoreError, TradeCache
from tradecache.clock import Clock
from tradecache.sealing import Sealed, sealed
from tradecache.seals import Seal, names_of
from tradecache.stores.keyring import Keyring
from tradecache.stores.local import LocalStore


@pytest.mark.parametrize("hashed", [False, True])
def test_any_store_can_be_sealed(clock, hashed):
    """Over a store of another kind the same holds, and nothing is deleted there: a bad entry stays, and is a miss."""
    below = MemoryStore()
    ring = Keyring(Settings(encryption_key=ONE).encryption_key)
    store = sealed(below, seal=Seal(ring, names_of(ring) if hashed else None), clock=Clock(clock))
    put(store, "a", where="symbol:ONE", ttl=100)
    put(store, "b", where="symbol:ONE")
    where = store.hidden("symbol:ONE")
    held = run(below.get("a", collection=where))
    assert SYMBOL not in str(held)
    assert run(store.ttl("b", collection="symbol:ONE")) == (VALUE, None)
    assert run(store.ttl("a", collection="symbol:ONE"))[1] == pytest.approx(100, abs=5)
    assert run(store.collections()) == ["symbol:ONE"]
    assert sorted(run(store.keys("symbol:ONE"))) == ["a", "b"]
    run(below.put("b", held, collection=where))
    run(below.put("c", {"plain": True}, collection=where))
    assert run(store.get_many(["a", "b", "c"], collection="symbol:ONE")) == [VALUE, None, None]
    assert run(below.get("c", collection=where)) == {"plain": True}
    with pytest.raises(NotStorable, match="MemoryStore does not encrypt frames"):
        put(store, "f", {"frame": bars()})
    other = Keyring(Settings(encryption_key=TWO).encryption_key)
    stranger = Sealed(below, seal=Seal(other, names_of(ring) if hashed else None), clock=Clock(clock))
    assert get(stranger, "a", where="symbol:ONE") is None
    assert get(store, "a", where="symbol:ONE") == VALUE
    clock.now += pd.Timedelta("100s")
    assert get(store, "a", where="symbol:ONE") is None
    assert run(store.delete("a", collection="symbol:ONE"))


def test_the_librarys_wrapper_has_the_same_keys(clock):
    """`Sealed` is py-key-value's Fernet wrapper, and what that encrypts or opens, it does with the given keys."""
    ring = Keyring(Settings(encryption_key=f"{ONE},{TWO}").encryption_key)
    store = Sealed(MemoryStore(), seal=Seal(ring), clock=Clock(clock))
    below = MemoryStore()
    library = FernetEncryptionWrapper(below, fernet=store.seal.ring.fernet)
    assert isinstance(store, FernetEncryptionWrapper)
    assert ring.first.opened(store._encryption_fn(b"words")) == b"words"
    assert store._decryption_fn(ring.keys[1].seal(b"words"), 1) == b"words"
    run(library.put("k", VALUE))
    assert run(library.get("k")) == VALUE
    assert run(Sealed(below, seal=Seal(ring), clock=Clock(clock)).get("k")) is None


def test_redis_holds_nothing_in_clear(redis_server, clock):
    """Over a Redis server the seal holds: no name and no value in clear, and what was moved there is a miss."""
    ring = Keyring(Settings(encryption_key=ONE).encryption_key)

    async def ask():
        below = RedisStore(url=redis_server.url)
        store = sealed(below, seal=Seal(ring, names_of(ring)), clock=Clock(clock))
        await store.put_many(["a", "b"], [VALUE, {"n": 2}], collection=f"symbol:{SYMBOL}", ttl=60)
        where = store.hidden(f"symbol:{SYMBOL}")
        before = await store.ttl_many(["a", "b", "c"], collection=f"symbol:{SYMBOL}")
        await below.put("a", await below.get("b", collection=where), collection=where, ttl=60)
        after = await store.get_many(["a", "b"], collection=f"symbol:{SYMBOL}")
        client = Redis.from_url(redis_server.url)
        held = [(key, await client.get(key)) for key in await client.keys()]
        await client.aclose()
        await below.close()
        return before, after, held

    before, after, held = run(ask())
    assert [value for value, _ in before] == [VALUE, {"n": 2}, None]
    assert after == [None, {"n": 2}]
    assert len(held) == 2
    assert not any(needle in part for each in held for part in each for needle in (SYMBOL.encode(), b"price"))


def test_a_store_that_was_passed_in_is_sealed(folder, clock):
    """A cache over another store encrypts what it stores there."""
    below = MemoryStore()
    with TradeCache(settings=chosen(folder, ONE, hashed=True), clock=clock, durable=below) as cache:
        data_id = cache.store_price(SYMBOL, PRICE, 1)
        assert cache.prices()["price"].to_list() == [PRICE]
    (where,) = run(below.collections())
    assert SYMBOL not in where
    assert "__encrypted_data__" in run(below.get(data_id, collection=where))


def test_memory_is_not_encrypted(make):
    """What is in memory is handed out without a key being used."""
    cache = make(ONE)
    data_id = cache.store_price(SYMBOL, PRICE, 1)
    cache.store_bars(SYMBOL, BIG, interval="1m")
    cache.bars(SYMBOL, interval="1m", source="local")
    before = cache.core.stack.disk_statistics.totals("ttl")
    for _ in range(3):
        assert cache.get_price(SYMBOL, data_id).price == PRICE
        assert len(cache.bars(SYMBOL, interval="1m", source="local")) == len(BIG)
    assert cache.core.stack.disk_statistics.totals("ttl") == before


def test_two_stores_on_one_new_folder(tmp_path, clock):
    """Processes that begin an encrypted folder at the same time agree on one secret of names."""
    code = """
        import sys
        from tradecache import Settings, TradeCache
        settings = Settings(cache_dir=sys.argv[1], encryption_key=sys.argv[2], hashed_names=True)
        with TradeCache(settings=settings) as cache:
            cache.store_price("A", 1, 1)
    """
    folder = tmp_path / "shared"
    started = [start_script(code, folder, ONE) for _ in range(4)]
    for process in started:
        _, complaints = process.communicate(timeout=60)
        assert (process.returncode, complaints) == (0, "")
    assert len({row.collection for row in rows_of(folder)}) == 1
    with TradeCache(settings=chosen(folder, ONE, hashed=True)) as cache:
        assert len(cache.prices()) == 4


def test_a_raw_store_takes_nothing_plain(folder, disk, stack):
    """Who goes past the seal is refused by the ledger itself."""
    assert isinstance(stack.durable, LocalStore)
    with pytest.raises(StoreError, match="only entries"):
        run(stack.durable.put("k", {"plain": True}))


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else"
)
def test_a_folder_that_can_only_be_read(tmp_path):
    """Who may only read an encrypted folder reads it with its key, also behind a new one, and changes nothing."""
    code = """
        import json, os, sys, tempfile
        from pathlib import Path
        from tradecache import Settings, StoreReadOnly, TradeCache, WrongKey
        place = Path(tempfile.mkdtemp())
        folder, one, two = place / "c", *sys.argv[1:]
        def opened(*keys):
            return TradeCache(settings=Settings(cache_dir=folder, encryption_key=keys, hashed_names=True))
        with opened(one) as cache:
            cache.store_price("A", 1, 1)
            cache.prices()  # which loads what it needs while it may be loaded
        place.chmod(0o755)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        os.setuid(65534)
        said = []
        for keys in ([one], [two, one]):
            with opened(*keys) as cache:
                said.append(len(cache.prices()))
                try:
                    cache.store_price("A", 2, 1)
                except StoreReadOnly:
                    said.append("read-only")
        try:
            opened(two)
        except WrongKey:
            said.append("wrong key")
        print(json.dumps(said))
    """
    assert answer(code, ONE, TWO, env={"TMPDIR": "/tmp"}) == [1, "read-only", 1, "read-only", "wrong key"]


class SealedLaw(PricesLaw):
    """Two caches on one encrypted folder, and the dict that they must equal."""

    def open(self, n):
        settings = Settings(
            cache_dir=self.folder, memory_bytes=self.sizes[n], encryption_key=ONE, hashed_names=True
        )
        return TradeCache(settings=settings, clock=self.wall)


@pytest.mark.timeout(400)  # a counter-example takes minutes to be made small
def test_a_sealed_cache_answers_as_a_plain_one():
    """Whatever happens in whatever order, an encrypted cache with hashed names answers as the model of a plain one."""
    run_state_machine_as_test(
        SealedLaw, settings=examples(max_examples=25, stateful_step_count=40, deadline=None)
    )
