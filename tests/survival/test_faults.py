import asyncio
import errno
import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from key_value.aio.stores.memory import MemoryStore
from loops import run
from servants import bulk_of, frame_of

from tradecache import (
    EntryTooLarge,
    InvalidInput,
    InvalidTTL,
    Settings,
    StoreBusy,
    StoreDamaged,
    StoreFault,
    StoreFull,
    StoreReadOnly,
    TradeCache,
    TradingDataCache,
)
from tradecache.clock import Clock
from tradecache.stores.local import LocalStore

QUICK = Settings(retry_delay=0.002, retry_max_delay=0.005, retries=3, lock_wait=0.02)
FAULT = StoreFault(Path("folder"), OSError(errno.EIO, "Input/output error"))
BUSY = StoreBusy(Path("folder"), "database is locked")


def retried(caplog):
    """Return the waits that were logged, one before each new try."""
    return [record.args[1] for record in caplog.records if "trying again" in record.msg]


def locked(folder):
    """Take the write lock of a folder's ledger from another connection."""
    other = sqlite3.connect(folder / "ledger-1.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    return closing(other)


class OnRetry(logging.Handler):
    """Does something when the first try has failed and before the next."""

    def __init__(self, work):
        super().__init__()
        self._work = work

    def emit(self, record):
        if "trying again" in record.getMessage():
            self._work()

    def __enter__(self):
        logging.getLogger("tradecache").addHandler(self)

    def __exit__(self, *_):
        logging.getLogger("tradecache").removeHandler(self)


def test_waiting_for_a_lock_is_no_fault(tmp_path, caplog):
    """A write waits for another process that holds the ledger, without blocking the loop or a line in the log."""

    async def store_while_locked(cache):
        with locked(tmp_path):
            storing = asyncio.create_task(cache.store_price("AAPL", 1, 1))
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert not storing.done()
        return await storing

    with closing(LocalStore(tmp_path, clock=Clock())) as keeper:
        cache = TradingDataCache(tmp_path)
        data_id = run(store_while_locked(cache))
        assert run(keeper.keys("symbol:AAPL")) == [data_id]
        run(cache.cleanup())
    assert retried(caplog) == []


def test_lock_that_outlasts_lock_wait_is_retried(tmp_path, caplog):
    """A lock held longer than lock_wait is a transient fault: logged, tried again, and done when the lock is gone."""
    with TradeCache(tmp_path, settings=QUICK) as cache, locked(tmp_path) as other:
        with OnRetry(other.rollback):
            data_id = cache.store_price("AAPL", 1, 1)
        assert cache.get_price("AAPL", data_id).price == 1
    assert retried(caplog) == [0.002]
    assert "is locked by another process" in caplog.text


@pytest.mark.parametrize("write", ["store_price", "store_prices", "put_frame", "delete_price", "invalidate"])
def test_lock_that_is_never_given_back(tmp_path, caplog, write):
    """After the last try a StoreBusy reaches the caller; nothing was changed, and reads never waited."""
    with TradeCache(tmp_path, settings=QUICK) as cache:
        data_id = cache.store_price("AAPL", 1, 1)
        frames = cache.core.stack.frames
        run(frames.put("frame", {"frame": frame_of(1)}, collection="bars"))
        writes = {
            "store_price": lambda: cache.store_price("AAPL", 2, 2),
            "store_prices": lambda: cache.store_prices(bulk_of(1)),
            "put_frame": lambda: run(frames.put("frame", {"frame": frame_of(2)}, collection="bars")),
            "delete_price": lambda: cache.delete_price("AAPL", data_id),
            "invalidate": lambda: cache.invalidate("AAPL"),
        }
        with locked(tmp_path):
            with pytest.raises(StoreBusy, match="is locked by another process"):
                writes[write]()
            assert retried(caplog) == [0.002, 0.004, 0.005]
            with TradeCache(tmp_path) as newcomer:
                for each in (cache, newcomer):
                    assert each.get_price("AAPL", data_id).price == 1
                    assert each.prices()["price"].tolist() == [1]
                    assert each.latest()["price"].tolist() == [1]
                    found = run(each.core.stack.frames.get("frame", collection="bars"))
                    assert found["frame"].equals(frame_of(1))
        writes[write]()
        assert len(list(tmp_path.glob("bars/*.arrow*"))) == 1


class Faulty(LocalStore):
    """A folder on a bad disk: what is in `faults` is raised first, one at each call."""

    def __init__(self, folder, faults=()):
        super().__init__(folder, clock=Clock())
        self.faults, self.calls = list(faults), []

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name not in OPERATIONS:
            return found

        async def operation(*args, **options):
            self.calls.append(name)
            if self.faults:
                raise self.faults.pop(0)
            return await found(*args, **options)

        return operation


OPERATIONS = {"ttl", "put", "put_all", "put_many", "ttl_many", "delete", "delete_many", "scan", "collections"}
REQUESTS = {
    "store_price": ("put", lambda cache, _: cache.store_price("AAPL", 2, 2)),
    "store_prices": ("put_all", lambda cache, _: cache.store_prices(bulk_of(1))),
    "get_price": ("ttl", lambda cache, data_id: cache.get_price("AAPL", data_id)),
    "get_latest_price": ("scan", lambda cache, _: cache.get_latest_price("AAPL")),
    "latest": ("collections", lambda cache, _: cache.latest()),
    "prices": ("scan", lambda cache, _: cache.prices("AAPL")),
    "delete_price": ("delete", lambda cache, data_id: cache.delete_price("AAPL", data_id)),
    "put_many": ("put_many", lambda cache, _: cache.stack.frames.put_many(["a"], [{"n": 1}], collection="x")),
    "ttl_many": ("ttl_many", lambda cache, _: cache.stack.frames.ttl_many(["a"], collection="x")),
    "delete_many": ("delete_many", lambda cache, _: cache.stack.frames.delete_many(["a"], collection="x")),
}


@pytest.fixture
def faulty(tmp_path):
    """A cache over a store that fails on demand, and the id of a point that is on disk only."""
    store = Faulty(tmp_path)
    cache = TradingDataCache(settings=QUICK, durable=store)
    data_id = run(cache.store_price("AAPL", 1, 1))
    run(cache.stack.memory.destroy())
    store.calls.clear()
    yield cache, store, data_id
    run(cache.cleanup())


@pytest.mark.parametrize(("operation", "ask"), REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("fault", [FAULT, BUSY, ConnectionResetError("lost"), TimeoutError("late")], ids=repr)
def test_transient_faults_are_retried(faulty, caplog, operation, ask, fault):
    """What fails for a passing reason is tried again, later each time, with a line in the log for each."""
    cache, store, data_id = faulty
    store.faults = [fault] * 3
    run(ask(cache, data_id))
    assert store.calls[:4] == [operation] * 4
    assert retried(caplog) == [0.002, 0.004, 0.005]
    assert caplog.text.count(str(fault)) == 3


@pytest.mark.parametrize(("operation", "ask"), REQUESTS.values(), ids=REQUESTS)
def test_faults_that_do_not_pass_reach_the_caller(faulty, caplog, operation, ask):
    """After the last retry the fault itself is raised."""
    cache, store, data_id = faulty
    store.faults = [FAULT] * 4
    with pytest.raises(StoreFault, match="met an I/O error"):
        run(ask(cache, data_id))
    assert store.calls == [operation] * 4
    assert len(retried(caplog)) == 3


PERMANENT = [
    StoreFull(Path("folder"), "disk full"),
    StoreReadOnly(Path("folder"), "read-only"),
    StoreDamaged(Path("folder"), "malformed"),
    InvalidTTL(-1, "positive"),
    InvalidInput("key", 1, "a str"),
    EntryTooLarge(size=2, max_size=1, collection="c", key="k"),
    ValueError("a bug"),
]


@pytest.mark.parametrize(("operation", "ask"), REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("error", PERMANENT, ids=lambda error: type(error).__name__)
def test_permanent_errors_are_not_retried(faulty, caplog, operation, ask, error):
    """What will not pass is raised at once: one call, no line about another."""
    cache, store, data_id = faulty
    store.faults = [error]
    with pytest.raises(type(error)) as caught:
        run(ask(cache, data_id))
    assert caught.value is error
    assert store.calls == [operation]
    assert retried(caplog) == []


def test_invalid_arguments_do_not_reach_the_store(faulty):
    """What can be refused without asking the store is refused without asking it."""
    cache, store, _ = faulty
    for ttl in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InvalidTTL):
            run(cache.store_price("AAPL", 1, 1, ttl=ttl))
    assert store.calls == []


def test_entry_that_is_too_large_is_refused_once(tmp_path, caplog):
    """An entry above max_entry_bytes is refused at the first try, and the old one stays."""
    with TradeCache(tmp_path, settings=Settings(max_entry_bytes=3000)) as cache:
        frames = cache.core.stack.frames
        run(frames.put("frame", {"frame": frame_of(1, 5)}, collection="bars"))
        with pytest.raises(EntryTooLarge):
            run(frames.put("frame", {"frame": frame_of(2, 5000)}, collection="bars"))
        assert run(frames.get("frame", collection="bars"))["frame"].equals(frame_of(1, 5))
    assert retried(caplog) == []


def test_no_retries(tmp_path):
    """With retries=0 the first fault is the last."""
    store = Faulty(tmp_path, [FAULT])
    cache = TradingDataCache(settings=Settings(retries=0), durable=store)
    with pytest.raises(StoreFault):
        run(cache.store_price("AAPL", 1, 1))
    assert store.calls == ["put"]
    run(cache.cleanup())


def test_retries_can_be_cancelled(tmp_path):
    """Cancelling a request that waits to be tried again stops it."""

    async def cancel_on_retry(cache):
        storing = asyncio.create_task(cache.store_price("AAPL", 1, 1))
        with OnRetry(storing.cancel), pytest.raises(asyncio.CancelledError):
            await storing

    store = Faulty(tmp_path, [FAULT] * 9)
    cache = TradingDataCache(settings=Settings(retry_delay=60, retry_max_delay=60), durable=store)
    run(cancel_on_retry(cache))
    assert store.calls == ["put"]
    run(cache.cleanup())


def test_retried_store_gives_one_point(faulty):
    """A store_price that was tried several times has stored one point, under the id it returns."""
    cache, store, _ = faulty
    store.faults = [FAULT] * 3
    data_id = run(cache.store_price("MSFT", 5, 5))
    assert run(cache.get_price("MSFT", data_id)).price == 5
    assert len(run(cache.prices("MSFT"))) == 1


def test_sync_reads_are_retried(tmp_path, caplog):
    """A read in the calling thread that meets a fault goes on where it can wait."""
    store = Faulty(tmp_path)
    with TradeCache(settings=QUICK, durable=store) as cache:
        data_id = cache.store_price("AAPL", 1, 1)
        run(cache.core.stack.memory.destroy())
        store.faults = [FAULT] * 2
        assert cache.get_price("AAPL", data_id).price == 1
        assert len(retried(caplog)) >= 1


class LosingReplies(MemoryStore):
    """A store behind a bad line: it does what it is asked, and now and then nobody hears of it."""

    def __init__(self, losses=0):
        super().__init__()
        self.losses = losses

    async def delete(self, key, *, collection=None):
        return self._reply(await super().delete(key, collection=collection))

    async def delete_many(self, keys, *, collection=None):
        return self._reply(await super().delete_many(keys, collection=collection))

    async def put(self, key, value, *, collection=None, ttl=None):
        return self._reply(await super().put(key, value, collection=collection, ttl=ttl))

    def _reply(self, answer):
        if self.losses:
            self.losses -= 1
            raise ConnectionResetError("reply lost")
        return answer


def test_delete_whose_reply_was_lost(caplog):
    """A delete that did delete answers True, although its reply was lost and another try found nothing."""
    store = LosingReplies()
    with TradeCache(settings=QUICK, durable=store) as cache:
        data_id = cache.store_price("AAPL", 1, 1)
        store.losses = 1
        assert cache.delete_price("AAPL", data_id) is True
        assert cache.get_price("AAPL", data_id) is None
        assert cache.delete_price("AAPL", data_id) is False
        ids = [cache.store_price("AAPL", n, n) for n in (1, 2, 3)]
        store.losses = 2
        assert cache.invalidate("AAPL").tolist() == [3]
        assert [cache.get_price("AAPL", each) for each in ids] == [None] * 3
    assert len(retried(caplog)) == 3


def test_put_whose_reply_was_lost():
    """A point stored by a try whose reply was lost is one point."""
    store = LosingReplies()
    with TradeCache(settings=QUICK, durable=store) as cache:
        store.losses = 3
        data_id = cache.store_price("AAPL", 1, 1)
        assert cache.get_price("AAPL", data_id).price == 1
        assert len(cache.prices("AAPL")) == 1


@pytest.mark.parametrize("fault", [FAULT, BUSY])
def test_delete_after_a_fault_that_changed_nothing(faulty, fault):
    """Where a failed try has changed nothing for certain, the answer of a delete is that of the last try."""
    cache, store, data_id = faulty
    store.faults = [fault] * 2
    assert run(cache.delete_price("AAPL", data_id)) is True
    store.faults = [fault] * 2
    assert run(cache.delete_price("AAPL", data_id)) is False


@pytest.mark.parametrize("what", ["store_price", "put_frame"])
def test_real_write_errors_are_retried(nursery, tmp_path, what):
    """When the system refuses to write (a limit of file sizes), the write is tried again, and done when it may."""
    child = nursery.start("servants:write_under_a_limit", str(tmp_path), what)
    answers = list(child.rest())
    child.end()
    assert answers[-1] == "done"
    assert len(answers) == 3
    assert all("met an I/O error" in line and "trying again" in line for line in answers[:-1])
    with TradeCache(tmp_path) as cache:
        assert cache.verify().empty
        assert cache.info()["disk_entries"] == 2
        assert len(list(tmp_path.glob("bars/**/*.arrow*"))) == cache.info()["disk_payloads"]


def test_opening_a_locked_ledger_waits_no_longer_than_lock_wait(tmp_path):
    """A ledger that somebody keeps to himself is an error after `lock_wait` seconds, while it is opened, too."""
    TradeCache(tmp_path).close()
    ledger = sqlite3.connect(tmp_path / "ledger-1.db", isolation_level=None)
    try:
        ledger.execute("PRAGMA locking_mode = EXCLUSIVE")
        ledger.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(StoreBusy):
            TradeCache(tmp_path, settings=Settings(lock_wait=0.1, retries=0))
        assert time.monotonic() - began < 5
    finally:
        ledger.close()
