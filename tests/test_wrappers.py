"""What is logged, counted and tried again around the stores."""

import asyncio
import logging
import threading

import pytest
from loops import run

from tradecache.bridge import Unfinished, finish
from tradecache.clock import Clock
from tradecache.errors import StoreBusy, StoreDamaged, StoreFault, StoreFull, StoreReadOnly
from tradecache.settings import Settings
from tradecache.stack import build_stack
from tradecache.stores.hot import HotStore
from tradecache.wrappers import TRANSIENT, OperationLog, Retry, TierStatistics

SECRET = "s3cret"
VALUE = {"password": SECRET}
WHERE = {"collection": "symbol:AAPL"}

OPERATIONS = {
    "get": lambda store: store.get("k", **WHERE),
    "ttl": lambda store: store.ttl("k", **WHERE),
    "put": lambda store: store.put("k", VALUE, **WHERE, ttl=60),
    "delete": lambda store: store.delete("k", **WHERE),
    "get_many": lambda store: store.get_many(["k", "j"], **WHERE),
    "ttl_many": lambda store: store.ttl_many(["k", "j"], **WHERE),
    "put_many": lambda store: store.put_many(["k", "j"], [VALUE, VALUE], **WHERE, ttl=60),
    "delete_many": lambda store: store.delete_many(["k", "j"], **WHERE),
}
operations = pytest.mark.parametrize("name", OPERATIONS)


@pytest.fixture
def store(clock):
    store = HotStore(max_bytes=2**20, clock=Clock(clock))
    run(store.put("k", VALUE, **WHERE))
    return store


def lines(caplog) -> list[logging.LogRecord]:
    """Return what tradecache logged; asyncio logs, too."""
    return [record for record in caplog.records if record.name == "tradecache"]


class TestOperationLog:
    """One line for each operation, and never a value."""

    @pytest.fixture
    def logged(self, store, caplog):
        caplog.set_level(logging.DEBUG)
        return OperationLog(store, logger=logging.getLogger("tradecache"), log_level=logging.INFO)

    @operations
    def test_operation_is_logged_without_its_value(self, logged, caplog, name):
        """With everything turned on, an operation is logged by name, key and collection; its value is not."""
        run(OPERATIONS[name](logged))

        text = "\n".join(f"{record.getMessage()} {record.args}" for record in lines(caplog))
        assert {record.levelname for record in lines(caplog)} == {"INFO"}
        assert "symbol:AAPL" in text
        assert name.upper() in text.upper()
        assert SECRET not in text
        assert "password" not in text

    @operations
    def test_answer_is_the_stores(self, store, clock, logged, name):
        """The log changes no answer."""
        plain = HotStore(max_bytes=2**20, clock=Clock(clock))
        run(plain.put("k", VALUE, **WHERE))

        assert run(OPERATIONS[name](logged)) == run(OPERATIONS[name](plain))

    @operations
    def test_nothing_is_logged_below_the_level(self, store, caplog, name):
        """While nobody listens at the level, no record is made."""
        caplog.set_level(logging.WARNING)
        logged = OperationLog(store, logger=logging.getLogger("tradecache"), log_level=logging.DEBUG)

        run(OPERATIONS[name](logged))

        assert lines(caplog) == []

    @pytest.mark.parametrize("forged", ["k\nCRITICAL disk on fire", "k\r\nx", "k\x1b[2J", "k\u2028x"])
    def test_key_cannot_forge_a_line(self, logged, caplog, forged):
        """Line breaks and terminal codes in a key or a collection are escaped."""

        async def work():
            await logged.put(forged, VALUE, collection=forged)
            await logged.get(forged, collection=forged)
            await logged.delete(forged, collection=forged)

        run(work())

        assert len(lines(caplog)) == 3
        assert all(record.getMessage().isprintable() for record in lines(caplog))

    def test_many_keys_are_counted_not_listed(self, logged, caplog):
        """A bulk operation is one line, however many keys it has."""
        run(logged.get_many([f"key {n}" for n in range(10_000)], **WHERE))

        (line,) = lines(caplog)
        assert "10000 keys" in line.getMessage()
        assert len(line.getMessage()) < 300


class TestTierStatistics:
    """Exact counts, by dataset."""

    def test_counts_of_each_operation(self, store):
        """Each operation counts once, each key of a bulk operation too, with its hits and misses."""
        counted = TierStatistics(store)

        async def work():
            for key in ("k", "k", "none"):
                await counted.get(key, **WHERE)
            await counted.ttl("none", **WHERE)
            await counted.ttl("k", **WHERE)
            await counted.put("j", VALUE, **WHERE)
            await counted.put_many(["a", "b"], [VALUE, VALUE], **WHERE)
            await counted.get_many(["a", "none"], **WHERE)
            await counted.ttl_many(["a", "none", "b"], **WHERE)
            await counted.delete("j", **WHERE)
            await counted.delete_many(["a", "none"], **WHERE)

        run(work())

        assert {name: counted.totals(name) for name in ("get", "ttl", "put", "delete")} == {
            "get": (5, 3, 2),
            "ttl": (5, 3, 2),
            "put": (3, 0, 0),
            "delete": (3, 2, 1),
        }

    def test_datasets_and_not_series(self, store):
        """Symbols and series do not pile up: each dataset has one set of counters."""
        counted = TierStatistics(store)

        async def work():
            for n in range(5):
                await counted.get("k", collection=f"symbol:S{n}")
                await counted.get("k", collection=f"bars/sample/S{n}/1d")

        run(work())
        assert sorted(counted.statistics.collections) == ["bars", "symbol"]

    def test_exact_under_threads(self, store):
        """Eight threads that count at once lose no count."""
        counted = TierStatistics(store)
        barrier = threading.Barrier(8)

        async def work():
            for _ in range(500):
                await counted.get("k", **WHERE)
                await counted.get("none", **WHERE)
                await counted.ttl("k", **WHERE)
                await counted.put("j", VALUE, **WHERE)

        def thread():
            barrier.wait()
            run(work())

        threads = [threading.Thread(target=thread) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

        assert counted.totals("get") == (8000, 4000, 4000)
        assert counted.totals("ttl") == (4000, 4000, 0)
        assert counted.totals("put")[0] == 4000

    def test_symbols_do_not_pile_up(self, store):
        """Thousands of symbols are counted as one dataset."""
        counted = TierStatistics(store)

        async def work():
            for n in range(3000):
                await counted.get("k", collection=f"symbol:{n}")
            await counted.get("k", collection="bars:AAPL")
            await counted.get("k")

        run(work())

        assert sorted(counted.statistics.collections) == ["bars", "default_collection", "symbol"]
        assert counted.totals("get") == (3002, 0, 3002)

    def test_empty_mapping_is_a_hit(self, store):
        """An empty value is a hit."""
        counted = TierStatistics(store)

        async def work():
            await store.put("empty", {}, **WHERE)
            await counted.get("empty", **WHERE)
            await counted.ttl("empty", **WHERE)

        run(work())

        assert (counted.totals("get"), counted.totals("ttl")) == ((1, 1, 0), (1, 1, 0))

    def test_reset(self, store):
        """After a reset counting begins at zero."""
        counted = TierStatistics(store)
        run(counted.get("k", **WHERE))

        counted.reset()

        assert counted.totals("get") == (0, 0, 0)

    def test_each_tier_has_a_hit_rate(self, clock):
        """A memory hit and a disk hit are told apart, by counting each tier on its own."""
        ttl_clock = Clock(clock)
        durable = HotStore(max_bytes=2**20, clock=ttl_clock)
        run(durable.put("k", VALUE, **WHERE))
        stack = build_stack(Settings(), clock=ttl_clock, durable=durable)

        async def work():
            for key in ("k", "k", "k", "none"):
                await stack.points.get(key, **WHERE)

        run(work())

        assert stack.points.totals("get") == (4, 3, 1)
        assert stack.memory_statistics.totals("get") == (4, 2, 2)
        assert stack.disk_statistics.totals("ttl") == (2, 1, 1)
        stack.reset_statistics()
        assert {each.totals("get") for each in stack.wrappers} == {(0, 0, 0)}


class Flaky:
    """A store whose operations fail so many times before the first success, before or after their work."""

    def __init__(self, clock, *faults: BaseException, late: bool = False) -> None:
        self.inner = HotStore(max_bytes=2**20, clock=Clock(clock))
        self.faults = list(faults)
        self.late = late
        self.calls = 0
        for name in OPERATIONS:
            setattr(self, name, self.failing(getattr(self.inner, name)))

    def failing(self, operation):
        async def attempt(*args, **options):
            self.calls += 1
            if self.late:
                await operation(*args, **options)
            if self.faults:
                raise self.faults.pop(0)
            return await operation(*args, **options)

        return attempt


def transient(folder) -> list[Exception]:
    return [
        StoreBusy(folder, "locked"),
        StoreFault(folder, "I/O error"),
        ConnectionError(),
        ConnectionResetError(),
        TimeoutError(),
    ]


class TestRetry:
    """What is tried again, how often and after how long."""

    def retry(self, store, retries=3, delay=0.0001, longest=1.0):
        return Retry(store, max_retries=retries, initial_delay=delay, max_delay=longest, retry_on=TRANSIENT)

    @operations
    @pytest.mark.parametrize("failures", [0, 1, 3])
    def test_passing_fault_is_tried_again(self, clock, tmp_path, name, failures):
        """Each operation is tried until it succeeds, up to three times more."""
        store = Flaky(clock, *transient(tmp_path)[:failures])

        run(OPERATIONS[name](self.retry(store)))

        assert store.calls == failures + 1

    @operations
    def test_fault_that_stays_is_raised(self, clock, tmp_path, name):
        """After three more tries the last fault is raised as it is."""
        faults = transient(tmp_path)[:4]
        store = Flaky(clock, *faults)

        with pytest.raises(type(faults[3])) as caught:
            run(OPERATIONS[name](self.retry(store)))

        assert (store.calls, caught.value) == (4, faults[3])

    @operations
    @pytest.mark.parametrize(
        "fault",
        [
            ValueError("no"),
            KeyError("no"),
            FileNotFoundError("no"),
            asyncio.CancelledError(),
            StoreFull("folder", "full"),
            StoreReadOnly("folder", "read only"),
            StoreDamaged("folder", "damaged"),
        ],
        ids=lambda fault: type(fault).__name__,
    )
    def test_lasting_fault_is_raised_at_once(self, clock, name, fault):
        """What would fail again is not tried again."""
        store = Flaky(clock, fault)

        with pytest.raises(type(fault)):
            run(OPERATIONS[name](self.retry(store)))

        assert store.calls == 1

    @operations
    def test_no_retries(self, clock, name):
        """With no retries the first fault is raised."""
        store = Flaky(clock, ConnectionError())

        with pytest.raises(ConnectionError):
            run(OPERATIONS[name](self.retry(store, retries=0)))

        assert store.calls == 1

    @pytest.mark.parametrize("name", ["get", "ttl", "put", "delete"])
    def test_each_wait_is_twice_as_long(self, clock, name, caplog):
        """The waits double up to the longest, and each is logged as a warning."""
        store = Flaky(clock, *[ConnectionError("gone")] * 5)

        run(OPERATIONS[name](self.retry(store, retries=6, delay=0.002, longest=0.01)))

        assert [record.args[1] for record in caplog.records] == [0.002, 0.004, 0.008, 0.01, 0.01]
        assert {record.levelname for record in caplog.records} == {"WARNING"}
        assert caplog.records[1].getMessage() == "gone; trying again in 0.00 s (2 of 6)"

    def test_waits_take_their_time(self, clock):
        """The waits are real."""
        store = Flaky(clock, ConnectionError(), ConnectionError())

        async def work():
            begin = asyncio.get_running_loop().time()
            await self.retry(store, delay=0.02).get("k", **WHERE)
            return asyncio.get_running_loop().time() - begin

        assert run(work()) >= 0.059

    def test_deleted_although_the_reply_was_lost(self, clock):
        """A delete that took place although its reply was lost says that there was a value."""
        store = Flaky(clock, ConnectionResetError(), late=True)

        async def work():
            await store.inner.put("k", VALUE, **WHERE)
            return await self.retry(store).delete("k", **WHERE)

        assert run(work()) is True

    def test_a_wait_can_be_cancelled(self, clock):
        """Cancelling the work ends a wait for the next try."""
        store = Flaky(clock, *[ConnectionError()] * 9)

        async def work():
            task = asyncio.create_task(self.retry(store, delay=60.0, longest=60.0).get("k", **WHERE))
            await asyncio.sleep(0)  # it tries
            await asyncio.sleep(0)  # it waits
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        run(work())

        assert store.calls == 1

    def test_work_in_the_calling_thread_does_not_wait(self, clock):
        """Without an event loop the work is given up before the first wait, to be done elsewhere."""
        store = Flaky(clock, ConnectionError())

        with pytest.raises(Unfinished):
            finish(self.retry(store, delay=60.0).ttl("k", **WHERE))

        assert store.calls == 1

    def test_settings_reach_the_retries(self, clock, caplog):
        """`retries`, `retry_delay` and `retry_max_delay` are those of the stack."""
        store = Flaky(clock, *[TimeoutError()] * 9)
        settings = Settings(retries=4, retry_delay=0.001, retry_max_delay=0.003)

        with pytest.raises(TimeoutError):
            run(build_stack(settings, clock=Clock(clock), durable=store).points.get("k", **WHERE))

        assert store.calls == 5
        assert [record.args[1] for record in caplog.records] == [0.001, 0.002, 0.003, 0.003]
