import gc
import tracemalloc
import weakref

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from clocks import FakeClock
from contract import StoreContract
from framecases import bars
from loops import run

from tradecache.clock import Clock
from tradecache.errors import InvalidInput, NotStorable
from tradecache.stores.hot import HotStore

MIB = 1 << 20
POINT = {"symbol": "AAPL", "price": 101.5, "volume": 300.0, "timestamp": "2024-01-02T14:30:00Z"}

LARGE = bars(100_000)
SHAPES = {
    "price points": lambda n: (f"{n:020d}", {**POINT, "price": 100.5 + n}),
    "long keys": lambda n: (f"{n:01000d}", {"price": 1.5 + n}),
    "long names": lambda n: (f"{n}", {f"{n:01000d}": 1.5 + n}),
    "nested values": lambda n: (f"{n}", {"deep": {f"{n}-{m}": [m + 0.5, f"{m}"] for m in range(10)}}),
    "small frames": lambda n: (f"{n}", {"frame": bars(20, seed=n)}),
    "large frames": lambda n: (f"{n}", {"frame": bars(2000, seed=n)}),
    "frames of text": lambda n: (
        f"{n}",
        {"frame": pd.DataFrame({"note": [f"{n} of {m}" for m in range(100)]})},
    ),
    "frames of bytes": lambda n: (
        f"{n}",
        {"frame": pd.DataFrame({"raw": [b"%d" % m * 50 for m in range(9)]})},
    ),
    "slices of a large frame": lambda n: (f"{n}", {"frame": LARGE.copy().iloc[n : n + 10]}),
    "slices of text": lambda n: (
        f"{n}",
        {"frame": pd.DataFrame({"note": ["x" * 99] * 9999}).iloc[n : n + 9]},
    ),
}
COUNTS = {"price points": 1500, "long keys": 750, "long names": 750, "nested values": 750}


class TestHotStoreContract(StoreContract):
    """The memory tier does what every store does."""

    @pytest.fixture
    def store(self, clock):
        return HotStore(max_bytes=256 * MIB, clock=Clock(clock))


@pytest.fixture
def store(clock):
    return HotStore(max_bytes=MIB, clock=Clock(clock))


def with_room_for(entries: int) -> HotStore:
    """Return a store that holds so many price points."""
    probe = HotStore(max_bytes=MIB, clock=Clock(FakeClock()))
    run(probe.put(name(0), POINT))
    return HotStore(max_bytes=probe.occupancy()["bytes"] * entries, clock=Clock(FakeClock()))


def name(n: int) -> str:
    return f"{n:06d}"


async def ask(store: HotStore, n: int) -> bool:
    """Ask for a price point as a cache does: what is not there is put. Return whether it was there."""
    found = await store.get(name(n))
    if found is None:
        await store.put(name(n), POINT)
    return found is not None


async def ask_all(store: HotStore, numbers: range) -> int:
    """Ask for several price points in turn; return how many were there."""
    return sum([await ask(store, n) for n in numbers])


def held(store: HotStore, numbers: range) -> int:
    return sum(store.holds(name(n)) for n in numbers)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_bounded_in_true_bytes(clock, shape):
    """Whatever is put, and however much, the process holds no more bytes for it than the bound says."""
    bound = MIB // 2
    store = HotStore(max_bytes=bound, clock=Clock(clock))

    async def fill():
        for n in range(COUNTS.get(shape, 125)):
            key, value = SHAPES[shape](n)
            await store.put(key, value, ttl=3600)

    gc.collect()
    arrow = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        run(fill())
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() - arrow
    finally:
        tracemalloc.stop()
    counted = store.occupancy()["bytes"]
    assert used <= 1.05 * bound
    assert counted <= bound
    assert counted < 2 * used


def test_what_is_larger_than_memory_is_not_kept(store):
    """A value that does not fit is not kept, the others stay, and the key's old value is not served."""
    run(store.put("small", {"n": 1}))
    run(store.put("k", {"n": 2}))
    run(store.put("k", {"frame": bars(100_000)}))
    assert run(store.get("k")) is None
    assert run(store.get("small")) == {"n": 1}


def test_one_value_may_fill_memory(store):
    """A value of nearly all the bytes is kept, and what has to go for it goes."""

    async def fill():
        for n in range(100):
            await store.put(name(n), POINT)

    run(fill())
    frame = bars(20_000)
    run(store.put("k", {"frame": frame}))
    assert store.holds("k")
    assert frame.memory_usage().sum() < store.occupancy()["bytes"] <= MIB


def test_bytes_are_given_back(store):
    """Overwriting, deleting and destroying give back every byte that was counted."""
    run(store.put("k", {"frame": bars(100)}))
    run(store.put("k", {"n": 1}))
    run(store.put("l", {"frame": bars(100)}))
    run(store.delete("k"))
    run(store.destroy_collection("none"))
    run(store.delete("l"))
    assert (len(store), store.occupancy()["bytes"]) == (0, 0)
    run(store.put("k", {"frame": bars(100)}))
    run(store.destroy())
    assert (len(store), store.occupancy()["bytes"]) == (0, 0)


@pytest.mark.parametrize("free", ["put", "cull"])
def test_what_has_expired_is_freed(store, clock, free):
    """The next put, of any key, frees the memory of all that has expired; so does culling."""
    closes = np.arange(10_000.0)  # so many that they are kept as they are
    gone = weakref.ref(closes)
    run(store.put("k", {"frame": pd.DataFrame({"close": closes}, copy=False)}, ttl=10))
    run(store.put("longer", {"n": 1}, ttl=20))
    del closes
    gc.collect()
    assert gone() is not None
    clock.advance(10)
    if free == "put":
        run(store.put("other", {"n": 2}))
    else:
        run(store.cull())
    gc.collect()
    assert gone() is None
    assert run(store.get("longer")) == {"n": 1}
    assert store.occupancy()["expirations"] == 1


def test_expiry_dates_do_not_pile_up(store):
    """A key that is overwritten again and again takes no more memory than one that is not."""

    async def overwrite(times):
        for n in range(times):
            await store.put("k", {"n": n}, ttl=3600 + n)

    run(overwrite(500))
    tracemalloc.start()
    try:
        run(overwrite(5000))
        gc.collect()
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert used < 50_000


def test_a_key_that_was_overwritten_does_not_expire_early(store, clock):
    """The expiry of an older value does not take away the newer one."""
    run(store.put("k", {"n": 1}, ttl=10))
    run(store.put("k", {"n": 2}))
    run(store.put("l", {"n": 1}, ttl=10))
    run(store.put("l", {"n": 2}, ttl=30))
    clock.advance(20)
    run(store.put("other", {}))
    assert run(store.get_many(["k", "l"])) == [{"n": 2}, {"n": 2}]


@pytest.mark.parametrize(("scanned", "kept"), [(1000, 50), (10_000, 45)])
def test_a_scan_does_not_flush_what_is_hot(scanned, kept):
    """After one pass over ten times what fits, all 50 hot keys are still there; over 100 times, nearly all."""
    store = with_room_for(100)

    async def work():
        for _ in range(3):
            await ask_all(store, range(50))
        await ask_all(store, range(1000, 1000 + scanned))

    run(work())
    assert held(store, range(50)) >= kept


def test_a_scan_by_writing_does_not_flush_what_is_hot():
    """After a bulk load of 1,000 keys that nobody asked for, all 50 hot keys are still there."""
    store = with_room_for(100)

    async def work():
        await ask_all(store, range(50))
        await ask_all(store, range(50))
        for n in range(1000, 2000):
            await store.put(name(n), POINT)

    run(work())
    assert held(store, range(50)) == 50


def test_a_loop_that_does_not_fit_still_hits():
    """A loop over 500 keys with room for 400 hits near the optimum of 76%, where plain LRU hits none."""
    store = with_room_for(400)

    async def work():
        for _ in range(2):
            await ask_all(store, range(500))
        return [await ask_all(store, range(500)) for _ in range(20)]

    hits = run(work())
    assert sum(hits) / (20 * 500) > 0.7
    assert min(hits) > 200


def test_what_is_hot_may_change():
    """When a researcher moves on to another universe, memory follows within twenty rounds."""
    store = with_room_for(110)

    async def work():
        for _ in range(50):
            await ask_all(store, range(100))
        return [await ask_all(store, range(5000, 5100)) for _ in range(20)]

    assert run(work())[-1] > 90


def test_what_is_new_gets_a_chance():
    """A new key is served from memory right after it was put, however hot the others are."""
    store = with_room_for(100)

    async def work():
        for _ in range(20):
            await ask_all(store, range(200))
        await store.put("new", POINT)
        return await store.get("new")

    assert run(work()) == POINT


def test_filling_is_refused_after_a_write(store):
    """A value read before its key was written, deleted or distrusted does not come back over the newer one."""
    writes = {
        "put": lambda: run(store.put("k", {"n": 2})),
        "put_many": lambda: run(store.put_many(["k"], [{"n": 2}])),
        "delete": lambda: run(store.delete("k")),
        "invalidate": lambda: store.invalidate("k"),
        "destroy_collection": lambda: run(store.destroy_collection("default_collection")),
        "destroy": lambda: run(store.destroy()),
        "distrust": lambda: store.distrust(store.epoch + 1),
    }
    for write in writes.values():
        generation = store.generation("k")
        write()
        before = run(store.get("k"))
        assert store.fill("k", {"n": 1}, collection=None, ttl=None, generation=generation) is False
        assert run(store.get("k")) == before


def test_filling_is_allowed_when_nothing_was_written(store):
    """A value read from below enters memory, for its TTL, when its key was not written meanwhile."""
    generation = store.generation("k")
    run(store.put("a key beside it", {"n": 0}))
    assert store.fill("k", {"n": 1}, collection=None, ttl=10, generation=generation) is True
    assert run(store.ttl("k")) == ({"n": 1}, 10.0)


@pytest.mark.parametrize("ttl", [0, -0.001, -3600])
def test_filling_with_what_has_expired_on_its_way_is_no_error(store, ttl):
    """A value whose time ran out while it was read is not kept, and nobody is bothered."""
    assert store.fill("k", {"n": 1}, collection=None, ttl=ttl, generation=store.generation("k")) is False
    assert run(store.get("k")) is None


def test_invalidate_lets_go(store):
    """Invalidating a key lets go of its value and gives the generation that a later fill may use."""
    run(store.put("k", {"n": 1}, collection="c"))
    run(store.put("l", {"n": 2}, collection="c"))
    generation = store.invalidate("k", collection="c")
    assert run(store.get_many(["k", "l"], collection="c")) == [None, {"n": 2}]
    assert store.fill("k", {"n": 3}, collection="c", ttl=None, generation=generation) is True


def test_distrust_makes_everything_a_miss(store):
    """After another process wrote, nothing is served, listed or counted as deleted until it is filled again."""
    run(store.put("k", {"n": 1}))
    run(store.put("l", {"n": 2}))
    store.distrust(store.epoch + 1)
    assert run(store.get("k")) is None
    assert run(store.ttl("k")) == (None, None)
    assert store.holds("k") is False
    assert run(store.keys()) == []
    assert run(store.collections()) == []
    assert run(store.delete("l")) is False
    run(store.put("k", {"n": 3}))
    assert run(store.get("k")) == {"n": 3}


def test_distrust_goes_forward_only(store):
    """Word of a change that was already heeded makes nothing a miss."""
    store.distrust(5)
    run(store.put("k", {"n": 1}))
    store.distrust(5)
    store.distrust(4)
    assert (store.epoch, run(store.get("k"))) == (5, {"n": 1})


def test_what_is_distrusted_goes_first(store):
    """What is distrusted makes room for what is new, however hot it was, and culling frees it."""

    async def heat():
        for _ in range(5):
            await ask_all(store, range(2000))

    run(heat())
    store.distrust(store.epoch + 1)
    run(ask_all(store, range(2000, 4000)))
    assert held(store, range(2000, 4000)) > 500
    store.distrust(store.epoch + 1)
    run(store.cull())
    assert store.occupancy()["bytes"] == 0


def test_holds_answers_as_get_would(store, clock):
    """`holds` says whether `get` would return a value now."""
    run(store.put("k", {"n": 1}, collection="c", ttl=10))
    assert [store.holds("k", collection="c"), store.holds("k"), store.holds("l", collection="c")] == [
        True,
        False,
        False,
    ]
    clock.advance(10)
    assert store.holds("k", collection="c") is False


def test_asking_whether_it_holds_makes_nothing_hot():
    """`holds` is no request: what is only looked at is not kept for it."""
    store = with_room_for(100)

    async def work():
        await ask_all(store, range(50))
        for _ in range(20):
            held(store, range(50))
        for _ in range(2):
            await ask_all(store, range(1000, 1200))

    run(work())
    assert held(store, range(50)) == 0


def test_put_many_checks_all_before_it_keeps_one(store):
    """One value that cannot be stored, or one value too few, and nothing of a put_many is kept."""
    with pytest.raises(NotStorable):
        run(store.put_many(["a", "b"], [{"n": 1}, {"n": object()}]))
    with pytest.raises(InvalidInput):
        run(store.put_many(["a", "b"], [{"n": 1}]))
    assert len(store) == 0


def test_sizes(store):
    """`sizes` counts entries and bytes of each collection; together they are those of `occupancy`."""
    for key, collection in (("k", "a"), ("l", "b"), ("m", "b")):
        run(store.put(key, {"n": 1}, collection=collection))

    sizes, occupancy = store.sizes(), store.occupancy()

    assert {name: entries for name, (entries, _) in sizes.items()} == {"a": 1, "b": 2}
    assert sum(size for _, size in sizes.values()) == occupancy["bytes"]


def test_occupancy(store, clock):
    """`occupancy` tells entries, bytes, the bound, evictions and expirations."""
    run(store.put("k", {"n": 1}))
    run(store.put("l", {"n": 1}, ttl=1))
    clock.advance(1)
    run(store.cull())
    found = store.occupancy()
    assert 0 < found.pop("bytes") < 2000
    assert found == {"entries": 1, "max_bytes": MIB, "evictions": 0, "expirations": 1}


def test_evictions_are_counted():
    """What had to go, or never got a place, is counted as evicted."""
    store = with_room_for(100)
    run(ask_all(store, range(300)))
    found = store.occupancy()
    assert found["evictions"] == 300 - found["entries"]


def test_repr(store):
    """The repr shows entries and bytes."""
    run(store.put("k", {"n": 1}))
    assert repr(store) == f"<HotStore 1 entries, {store.occupancy()['bytes']:,} of 1,048,576 bytes>"
