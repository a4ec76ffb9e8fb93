"""Memory in front of a durable store: who answers, and what may enter memory when."""

import asyncio
import threading
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from clocks import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from loops import run
from pandas.testing import assert_frame_equal

from tradecache.clock import Clock
from tradecache.errors import InvalidTTL, NotStorable
from tradecache.settings import Settings
from tradecache.stack import Stack, build_stack
from tradecache.stores.hot import HotStore
from tradecache.telemetry import SERVED_BY

OLD, NEW, NEWER = {"n": 1}, {"n": 2}, {"n": 3}
WHERE = {"collection": "symbol:AAPL"}


class Durable(HotStore):
    """Stands for a durable store that truly waits: the test says when an operation may go on."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(max_bytes=2**20, clock=clock)
        self.reads = 0
        self.hold_reads = self.hold_before_puts = self.hold_after_puts = False
        self.fault: BaseException | None = None
        self.waiting: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def wait(self, hold: bool) -> None:  # noqa: FBT001 - one word, one meaning
        if hold:
            go = asyncio.Event()
            await self.waiting.put(go)
            await go.wait()

    async def ttl(self, key, *, collection=None):
        self.reads += 1
        hold, found = self.hold_reads, await super().ttl(key, collection=collection)
        await self.wait(hold)
        return found

    async def put(self, key, value, *, collection=None, ttl=None):
        if self.fault:
            raise self.fault
        before, after = self.hold_before_puts, self.hold_after_puts
        await self.wait(before)
        await super().put(key, value, collection=collection, ttl=ttl)
        await self.wait(after)

    put_many = delete_many = None  # set below: as in the stores that do one after the other


async def _put_many(self, keys, values, *, collection=None, ttl=None):
    for key, value in zip(keys, values, strict=True):
        await self.put(key, value, collection=collection, ttl=ttl)


async def _delete_many(self, keys, *, collection=None):
    return sum([await self.delete(key, collection=collection) for key in keys])


Durable.put_many, Durable.delete_many = _put_many, _delete_many


@pytest.fixture
def ttl_clock(clock):
    return Clock(clock)


@pytest.fixture
def durable(ttl_clock):
    return Durable(ttl_clock)


@pytest.fixture
def stack(durable, ttl_clock):
    return build_stack(Settings(retries=0), clock=ttl_clock, durable=durable)


@pytest.fixture
def on_disk(tmp_path, clock):
    """Make stacks on one folder, and let go of them in the end."""
    made: list[Stack] = []

    def make(**options) -> Stack:
        made.append(build_stack(Settings(cache_dir=tmp_path, **options), clock=Clock(clock)))
        return made[-1]

    yield make
    for stack in made:
        stack.durable.close()


def frame_of(rows):
    return pd.DataFrame({"close": np.arange(float(rows))})


@pytest.mark.parametrize(
    ("rows", "compression", "served"),
    [
        pytest.param(1_000, "none", ["memory", "memory"], id="small"),
        pytest.param(200_000, "none", ["disk", "memory"], id="large and mapped"),
        pytest.param(200_000, "lz4", ["memory", "memory"], id="large and compressed"),
    ],
)
def test_a_large_frame_is_mapped_by_its_first_read(on_disk, rows, compression, served):
    """Memory need not hold twice what the durable store maps; whatever has to be decoded it keeps at once."""
    stack = on_disk(compression=compression)

    async def main():
        await stack.frames.put("k", {"frame": frame_of(rows)}, **WHERE)
        found = []
        for _ in range(2):
            value = await stack.frames.get("k", **WHERE)
            assert_frame_equal(value["frame"], frame_of(rows))
            found.append(SERVED_BY.get())
        return found

    assert run(main()) == served


def test_a_large_frame_in_the_place_of_another_is_the_one_that_is_read(on_disk):
    """Writing a frame that memory does not take lets go of the one it had."""
    stack = on_disk()

    async def main():
        for rows in (10, 200_000):
            await stack.frames.put("k", {"frame": frame_of(rows)}, **WHERE)
        return len((await stack.frames.get("k", **WHERE))["frame"])

    assert run(main()) == 200_000


async def get(stack: Stack, key: str = "k"):
    """Return a value and the tier that served it."""
    value = await stack.points.get(key, **WHERE)
    return value, SERVED_BY.get()


async def both(stack: Stack, key: str = "k"):
    """Return what the whole stack says, and what the durable store alone says."""
    return (await get(stack, key))[0], await stack.durable.get(key, **WHERE)


WRITES = {
    "put": (lambda points: points.put("k", NEW, **WHERE), NEW),
    "put_many": (lambda points: points.put_many(["j", "k"], [OLD, NEW], **WHERE), NEW),
    "delete": (lambda points: points.delete("k", **WHERE), None),
    "delete_many": (lambda points: points.delete_many(["j", "k"], **WHERE), None),
}


class TestRaces:
    """A write while something else is under way."""

    @pytest.mark.parametrize("name", WRITES)
    def test_write_during_a_get_leaves_nothing_old(self, stack, durable, name):
        """A get that read the old value before a write must not put it into memory after the write."""
        write, expected = WRITES[name]

        async def work():
            await durable.put("k", OLD, **WHERE)
            durable.hold_reads = True
            reading = asyncio.create_task(get(stack))
            go = await durable.waiting.get()
            durable.hold_reads = False
            await write(stack.points)
            go.set()
            read, _ = await reading
            return read, await both(stack)

        assert run(work()) == (OLD, (expected, expected))

    @pytest.mark.parametrize("name", WRITES)
    def test_get_during_a_write_leaves_nothing_old(self, stack, durable, name):
        """A get that begins and reads while a write waits must not leave the old value in memory."""
        write, expected = WRITES[name]
        if expected is None:
            return

        async def work():
            await durable.put("k", OLD, **WHERE)
            await durable.put("j", OLD, **WHERE)
            durable.hold_before_puts = True
            writing = asyncio.create_task(write(stack.points))
            while not writing.done():
                go = asyncio.create_task(durable.waiting.get())
                await asyncio.wait({go, writing}, return_when=asyncio.FIRST_COMPLETED)
                await get(stack)
                if not go.cancel():
                    go.result().set()
            await writing
            return await both(stack)

        assert run(work()) == (expected, expected)

    def test_get_that_begins_during_a_write_and_outlasts_it(self, stack, durable):
        """A get that read the old value while a put waited, and ends after it, leaves the new one in memory."""

        async def work():
            await durable.put("k", OLD, **WHERE)
            durable.hold_before_puts = True
            writing = asyncio.create_task(stack.points.put("k", NEW, **WHERE))
            write_on = await durable.waiting.get()
            durable.hold_before_puts, durable.hold_reads = False, True
            reading = asyncio.create_task(get(stack))
            read_on = await durable.waiting.get()
            durable.hold_reads = False
            write_on.set()
            await writing
            read_on.set()
            read, _ = await reading
            return read, await both(stack)

        assert run(work()) == (OLD, (NEW, NEW))

    @pytest.mark.parametrize("hold", ["hold_before_puts", "hold_after_puts"])
    def test_two_puts_leave_in_memory_what_is_on_disk(self, stack, durable, hold):
        """Whichever of two puts of one key comes to an end last, memory agrees with the disk."""

        async def work():
            setattr(durable, hold, True)
            first = asyncio.create_task(stack.points.put("k", NEW, **WHERE))
            go = await durable.waiting.get()
            setattr(durable, hold, False)
            await stack.points.put("k", NEWER, **WHERE)
            go.set()
            await first
            return await both(stack)

        seen, kept = run(work())

        assert seen == kept

    def test_put_during_a_put_of_another_key(self, stack, durable):
        """Writes of other keys do not keep a value out of memory."""

        async def work():
            durable.hold_after_puts = True
            first = asyncio.create_task(stack.points.put("k", NEW, **WHERE))
            go = await durable.waiting.get()
            durable.hold_after_puts = False
            await stack.points.put("another", OLD, **WHERE)
            go.set()
            await first
            return await get(stack), await get(stack, "another")

        assert run(work()) == ((NEW, "memory"), (OLD, "memory"))

    @pytest.mark.parametrize("delete", [False, True])
    def test_threads_on_a_folder(self, on_disk, delete):
        """In 100 tries of a write while another thread reads, memory agrees with the disk every time."""
        stack = on_disk()
        stale = []
        for n in range(100):
            run(stack.points.put("k", {"n": -n}, **WHERE))
            run(stack.memory.destroy())
            begin = threading.Barrier(2)

            def read(begin=begin):
                begin.wait()
                for _ in range(3):
                    run(stack.points.get("k", **WHERE))

            reader = threading.Thread(target=read)
            reader.start()
            begin.wait()
            run(stack.points.delete("k", **WHERE) if delete else stack.points.put("k", {"n": n}, **WHERE))
            reader.join()
            if run(stack.points.get("k", **WHERE)) != (None if delete else {"n": n}):
                stale.append(n)

        assert stale == []

    @pytest.mark.parametrize("name", WRITES)
    def test_another_process_is_seen_at_once(self, on_disk, name):
        """What a second stack on the folder writes, the first sees at its next read, however warm it was."""
        write, expected = WRITES[name]
        mine, theirs = on_disk(), on_disk()

        async def work():
            await mine.points.put("k", OLD, **WHERE)
            for _ in range(3):
                await get(mine)
            await write(theirs.points)
            return await both(mine)

        assert run(work()) == (expected, expected)


class TestFaults:
    """A write that fails."""

    @pytest.mark.parametrize("fault", [OSError("broken"), ConnectionError("gone"), asyncio.CancelledError()])
    def test_failed_put_keeps_the_old_value(self, stack, durable, fault):
        """After a put that failed the old value is still served, and stays what the disk has."""

        async def work():
            await stack.points.put("k", OLD, **WHERE)
            durable.fault = fault
            with pytest.raises(type(fault)):
                await stack.points.put("k", NEW, **WHERE)
            return await both(stack)

        assert run(work()) == (OLD, OLD)

    @pytest.mark.parametrize(
        ("value", "ttl", "error"),
        [
            (NEW, 0, InvalidTTL),
            (NEW, -1, InvalidTTL),
            (NEW, float("nan"), InvalidTTL),
            ({"n": object()}, None, NotStorable),
        ],
    )
    def test_impossible_put_changes_nothing(self, on_disk, value, ttl, error):
        """A put that cannot be is refused; the old value is on disk, and served from memory as far as it was."""
        stack = on_disk()

        async def work():
            await stack.points.put("k", OLD, **WHERE)
            await get(stack)
            with pytest.raises(error):
                await stack.points.put("k", value, **WHERE, ttl=ttl)
            tier = (await get(stack))[1]
            return await both(stack), tier

        values, tier = run(work())

        assert values == (OLD, OLD)
        assert tier == ("memory" if error is InvalidTTL else "disk")

    def test_bulk_put_with_an_impossible_ttl_changes_nothing(self, stack):
        """A bulk put with an impossible TTL is refused before memory lets go of anything."""

        async def work():
            await stack.points.put("k", OLD, **WHERE)
            with pytest.raises(InvalidTTL):
                await stack.points.put_many(["k"], [NEW], **WHERE, ttl=0)
            return await get(stack)

        assert run(work()) == (OLD, "memory")


class TestTime:
    """How long memory may answer."""

    @pytest.mark.parametrize("left", [0, 0.0, -1e-9, -5])
    def test_value_that_expires_on_its_way_is_no_error(self, clock, left):
        """A durable store that gives a live value with no time left makes a hit that is not kept."""

        class Late(Durable):
            async def ttl(self, key, *, collection=None):
                value, _ = await super().ttl(key, collection=collection)
                return value, left

        stack = build_stack(Settings(), clock=Clock(clock), durable=Late(Clock(clock)))

        async def work():
            await stack.durable.put("k", OLD, **WHERE)
            return await get(stack), await get(stack)

        assert run(work()) == ((OLD, "disk"), (OLD, "disk"))

    @given(st.integers(1, 12), st.integers(0, 12))
    def test_no_error_at_any_distance_from_the_boundary(self, eighths, start):
        """With a clock that moves on at each reading, gets before, on and after an expiry never raise."""
        wall = FakeClock()
        durable = Durable(Clock(wall))

        def ticking():
            wall.advance(0.125)
            return wall.now

        stack = build_stack(Settings(), clock=Clock(ticking), durable=durable)

        async def work():
            await stack.points.put("k", OLD, **WHERE, ttl=eighths / 8)
            wall.advance(start / 8)
            seen = [(await get(stack))[0] for _ in range(12)]
            return seen.count(OLD), seen

        live, seen = run(work())

        assert seen == [OLD] * live + [None] * (12 - live)

    def test_slow_read_is_not_kept_too_long(self, stack, durable, clock):
        """What was read slowly leaves memory when it expires on disk, not the length of the read later."""

        async def work():
            await durable.put("k", OLD, **WHERE, ttl=10)
            durable.hold_reads = True
            reading = asyncio.create_task(get(stack))
            go = await durable.waiting.get()
            durable.hold_reads = False
            clock.advance(4)
            go.set()
            await reading
            clock.advance(5.875)
            before = await get(stack)
            clock.advance(0.125)
            return before, await both(stack)

        assert run(work()) == ((OLD, "memory"), (None, None))

    def test_slow_write_is_not_kept_too_long(self, stack, durable, clock):
        """What was written slowly leaves memory no later than the disk."""

        async def work():
            durable.hold_before_puts = True
            writing = asyncio.create_task(stack.points.put("k", OLD, **WHERE, ttl=10))
            go = await durable.waiting.get()
            clock.advance(4)
            go.set()
            await writing
            clock.advance(5.875)
            before = await get(stack)
            clock.advance(4.125)
            return before[1], await both(stack)

        assert run(work()) == ("memory", (None, None))

    @pytest.mark.parametrize(("ttl", "left"), [(7200, 7200.0), (60, 60.0), (None, None)])
    def test_ttl_is_that_of_the_disk(self, on_disk, clock, ttl, left):
        """`ttl` says what the durable store says, with memory cold and warm."""
        writing, reading = on_disk(), on_disk()

        async def work():
            await writing.points.put("k", OLD, **WHERE, ttl=ttl)
            cold = await reading.points.ttl("k", **WHERE)
            await get(reading)
            await get(reading)
            warm = await reading.points.ttl("k", **WHERE)
            many = await reading.points.ttl_many(["k", "none"], **WHERE)
            return [cold, warm, await writing.points.ttl("k", **WHERE), *many]

        assert run(work()) == [(OLD, left)] * 4 + [(None, None)]

    @pytest.mark.parametrize("ttl", [None, 7200])
    def test_memory_looks_again_after_its_ttl(self, stack, clock, ttl):
        """After `memory_ttl` seconds the disk is asked again, also for what lives longer or for ever."""

        async def work():
            await stack.points.put("k", OLD, **WHERE, ttl=ttl)
            tiers = []
            for step in (0, 1799.875, 0.125, 0):
                clock.advance(step)
                tiers.append((await get(stack))[1])
            return tiers

        assert run(work()) == ["memory", "memory", "disk", "memory"]

    def test_wall_clock_set_back_does_not_lengthen_memory(self, stack, clock):
        """A wall clock that steps back by an hour lets nothing live longer in memory."""

        async def work():
            await stack.points.put("k", OLD, **WHERE, ttl=10)
            clock.advance(5)
            await get(stack)
            clock.advance(-timedelta(hours=1).total_seconds())
            await get(stack)
            clock.advance(5)
            return await both(stack)

        assert run(work()) == (None, None)


class TestFilling:
    """What enters memory."""

    def test_write_fills_memory(self, stack, durable):
        """After a put the value is served from memory: the disk is not asked."""

        async def work():
            await stack.points.put("k", NEW, **WHERE, ttl=60)
            return await get(stack)

        assert (run(work()), durable.reads) == ((NEW, "memory"), 0)

    def test_first_write_to_a_folder_fills_memory(self, on_disk):
        """On a folder, too, each written value is served from memory, the very first included."""
        stack = on_disk()

        async def work():
            tiers = []
            for key in ("a", "b", "c"):
                await stack.points.put(key, NEW, **WHERE)
                tiers.append((await get(stack, key))[1])
            return tiers

        assert run(work()) == ["memory"] * 3

    def test_read_fills_memory(self, stack, durable):
        """A value read from disk is served from memory from then on."""

        async def work():
            await durable.put("k", OLD, **WHERE)
            return [(await get(stack))[1] for _ in range(3)]

        assert (run(work()), durable.reads) == (["disk", "memory", "memory"], 1)

    def test_empty_value_is_a_value(self, on_disk):
        """An empty mapping is a hit in both tiers, not a miss."""
        writing, reading = on_disk(), on_disk()

        async def work():
            await writing.points.put("k", {}, **WHERE)
            return [await get(each) for each in (writing, reading, reading)]

        answers = run(work())

        assert [value for value, _ in answers] == [{}] * 3
        assert answers[2][1] == "memory"
        assert reading.points.totals("get") == (2, 2, 0)

    def test_miss_is_a_miss(self, stack):
        """What is nowhere is None, and served by no tier."""
        assert run(get(stack)) == (None, "none")

    def test_bulk_load_does_not_push_out_what_is_hot(self, durable, clock):
        """Values stored in bulk, many times what memory holds, leave what is in use where it is."""
        stack = build_stack(Settings(memory_bytes=20_000), clock=Clock(clock), durable=durable)

        async def work():
            for n in range(5):
                await stack.points.put(f"hot {n}", {"n": n}, **WHERE)
            before = stack.memory.occupancy()
            keys = [f"bulk {n}" for n in range(200)]
            await stack.points.put_many(keys, [{"n": n} for n in range(200)], **WHERE)
            await stack.put_all([("symbol:MSFT", key, OLD) for key in keys], ttl=None)
            tiers = {(await get(stack, f"hot {n}"))[1] for n in range(5)}
            return tiers, before["entries"], stack.memory.occupancy()["entries"]

        assert run(work()) == ({"memory"}, 5, 5)

    def test_bulk_load_replaces_what_is_in_memory(self, stack):
        """A key that is in memory and is stored anew in bulk is read anew."""

        async def work():
            await stack.points.put("j", OLD, **WHERE)
            await stack.points.put("k", OLD, **WHERE)
            await stack.points.put_many(["j"], [NEW], **WHERE)
            await stack.put_all([(WHERE["collection"], "k", NEW)], ttl=None)
            return await both(stack, "j"), await both(stack, "k")

        assert run(work()) == ((NEW, NEW), (NEW, NEW))

    @pytest.mark.parametrize("fault", [False, True])
    def test_values_are_copies(self, stack, durable, fault):
        """What a caller does to a value he stored or was given does not reach the cache."""

        async def work():
            mine = {"n": 1, "list": [1, {"deep": 1}]}
            await stack.points.put("k", mine, **WHERE)
            mine["n"] = mine["list"][1]["deep"] = 9
            first = await stack.points.get("k", **WHERE)
            first["n"] = first["list"][1]["deep"] = 9
            first["list"].append(9)
            return await stack.points.get("k", **WHERE)

        assert run(work()) == {"n": 1, "list": [1, {"deep": 1}]}

    def test_many_keys_in_order(self, stack, durable):
        """`get_many` gives one answer for each key, in order, with duplicates and misses."""

        async def work():
            await durable.put_many(["a", "b"], [OLD, NEW], **WHERE)
            first = await stack.points.get_many(["b", "none", "a", "b"], **WHERE)
            return first, await stack.points.get_many(["a", "b"], **WHERE)

        assert run(work()) == ([NEW, None, OLD, NEW], [OLD, NEW])

    def test_collections_are_kept_apart(self, stack):
        """The same key in two collections is two values, however the names are put together."""

        async def work():
            await stack.points.put("b::c", OLD, collection="a")
            await stack.points.put("c", NEW, collection="a::b")
            return [
                await stack.points.get("b::c", collection="a"),
                await stack.points.get("c", collection="a::b"),
            ]

        assert run(work()) == [OLD, NEW]
