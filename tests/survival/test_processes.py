import asyncio
import itertools
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from loops import run
from servants import BULK, EPOCH, get_frame_here, put_frame

from tradecache import TradeCache

PROCESSES, THREADS, ROUNDS = 4, 8, 24
WRITES = 100


def shared(nursery, folder):
    """Let several processes with several threads each use one folder at once; return what each thread did."""
    children = [nursery.start("servants:share", str(folder), n, THREADS, ROUNDS) for n in range(PROCESSES)]
    assert [child.hear() for child in children] == ["open"] * PROCESSES
    for child in children:
        child.tell("go")
    reports = [report for child in children for report in child.rest()]
    for child in children:
        child.end()
    return reports


@pytest.mark.slow
def test_processes_and_threads_share_a_folder(nursery, tmp_path):
    """Four processes with eight threads each lose no acknowledged write, repeat no id, and meet no error."""
    reports = shared(nursery, tmp_path)
    assert len(reports) == PROCESSES * THREADS
    ids = Counter(data_id for report in reports for data_id in [*report["kept"], *report["gone"]])
    assert ids.total() == PROCESSES * THREADS * ROUNDS
    assert max(ids.values()) == 1
    with TradeCache(tmp_path) as cache:
        for report in reports:
            for data_id, (symbol, price) in report["kept"].items():
                assert cache.get_price(symbol, data_id).price == price
            for data_id in report["gone"]:
                assert all(cache.get_price(f"S{n}", data_id) is None for n in range(5))
        points = cache.prices()
        assert len(points) == len(set(ids)) - sum(len(report["gone"]) for report in reports) + BULK * sum(
            len(report["bulks"]) for report in reports
        )
        bulks = Counter(points.loc[points["symbol"].str.startswith("BULK"), "volume"])
        assert bulks == dict.fromkeys((bulk for report in reports for bulk in report["bulks"]), BULK)
        assert cache.verify().empty
    assert not list(tmp_path.glob("quarantine/*"))


def test_replaced_payloads_leave_no_files_behind(nursery, tmp_path):
    """When many processes replace the same frames, exactly one payload file for each entry stays."""
    shared(nursery, tmp_path)
    with TradeCache(tmp_path) as cache:
        assert len(list(tmp_path.glob("bars/**/*.arrow*"))) == cache.info()["disk_payloads"]


def test_a_write_is_seen_by_the_next_read_of_another_process(started):
    """What one process has stored, another gets by its id, as the latest and in a range, at its next read."""
    ours, theirs = started(), started()
    first = ours.ask("store_price", "AAPL", 1.0)
    assert theirs.ask("get_price", "AAPL", first) == 1.0
    assert theirs.ask("latest") == {"AAPL": 1.0}
    for price in range(2, 30):
        data_id = ours.ask("store_price", "AAPL", float(price))
        assert theirs.ask("latest") == {"AAPL": float(price)}
        assert theirs.ask("prices", "AAPL") == [float(n) for n in range(1, price + 1)]
        assert theirs.ask("get_price", "AAPL", data_id) == price


def test_a_delete_is_seen_although_the_old_value_is_in_memory(started):
    """What one process has deleted is gone for another at once, although that one has it in memory."""
    ours, theirs = started(), started()
    for price in range(1, 30):
        data_id = ours.ask("store_price", "AAPL", float(price))
        assert theirs.ask("get_price", "AAPL", data_id) == price
        assert theirs.ask("get_price", "AAPL", data_id) == price
        assert theirs.ask("served_by") == "memory"
        assert ours.ask("delete_price", "AAPL", data_id) is True
        assert theirs.ask("get_price", "AAPL", data_id) is None
        assert theirs.ask("latest") == {}
        assert theirs.ask("prices", "AAPL") == []
        assert theirs.ask("delete_price", "AAPL", data_id) is False


def test_a_replaced_frame_is_seen_although_the_old_one_is_in_memory(started):
    """A frame that one process replaces is the new one for another at its next read."""
    ours, theirs = started(), started()
    for number in range(30):
        ours.ask("put_frame", "frame", number)
        assert theirs.ask("get_frame", "frame") == number
        assert theirs.ask("get_frame", "frame") == number


def test_no_thread_sees_what_was_replaced_before_it_asked(started, tmp_path):
    """When several threads ask at once for what another process has just replaced, all of them get the new one."""
    theirs = started()
    with TradeCache(tmp_path) as cache, ThreadPoolExecutor(THREADS) as pool:
        together = threading.Barrier(THREADS)

        def read_at_once(_):
            together.wait()
            return get_frame_here(cache, "frame")["number"]

        for number in range(WRITES):
            theirs.ask("put_frame", "frame", number, 1)
            assert list(pool.map(read_at_once, range(THREADS))) == [number] * THREADS


class Interruption:
    """A clock that does something the next few times it is asked, as another process may at any instant."""

    def __init__(self):
        self.left, self.work = 0, None

    def __call__(self):
        if self.left:
            self.left -= 1
            self.work()
        return EPOCH


def test_a_frame_replaced_while_it_is_read_is_no_miss(tmp_path):
    """A read that finds its payload replaced, however often in a row, ends with the newest value."""
    clock = Interruption()
    with TradeCache(tmp_path, clock=clock) as reader, TradeCache(tmp_path) as writer:
        numbers = itertools.count()
        clock.work = lambda: put_frame(writer, "frame", next(numbers), 1)
        clock.work()
        clock.left = 12
        assert run(reader.core.stack.durable.get("frame", collection="bars/test"))["number"] == 12
        assert clock.left == 0
        assert reader.info()["disk_quarantined"] == 0


def test_frames_replaced_during_verify_are_not_damaged(tmp_path):
    """verify() does not take for damaged what another process replaces or deletes meanwhile."""

    async def verify_and_replace(store):
        verifying = asyncio.create_task(store.verify())
        await asyncio.sleep(0)  # it has read the ledger and looked at its first entry
        with TradeCache(tmp_path) as other:
            put_frame(other, "b", 2)
            other._run(other.core.stack.frames.delete("c", collection="bars/test"))
        return await verifying

    with TradeCache(tmp_path) as cache:
        for key in "abc":
            put_frame(cache, key, 1)
        assert run(verify_and_replace(cache.core.stack.durable)) == []
        assert get_frame_here(cache, "b")["number"] == 2
        assert cache.info()["disk_quarantined"] == 0


def test_own_writes_do_not_empty_memory(started):
    """A process that writes keeps serving from memory what nobody else has touched."""
    ours = started()
    kept, tiers = ours.ask("store_price", "AAPL", 1.0), []
    for price in range(2, 10):
        ours.ask("store_price", "MSFT", float(price))
        assert ours.ask("get_price", "AAPL", kept) == 1.0
        tiers.append(ours.ask("served_by"))
    assert tiers[1:] == ["memory"] * 7  # the first write of a connection may count as another's


def test_an_open_cache_survives_the_death_of_a_process_that_holds_the_lock(started, nursery, tmp_path):
    """A process killed in the middle of a transaction leaves no lock behind, and nothing of what it had begun."""
    ours = started()
    kept = ours.ask("store_price", "AAPL", 1.0)
    child = nursery.start("servants:hold_the_lock", str(tmp_path))
    assert child.hear() == "locked"
    child.kill()
    child.end()
    later = ours.ask("store_price", "AAPL", 2.0)
    assert [ours.ask("get_price", "AAPL", each) for each in (kept, later)] == [1.0, 2.0]
    assert ours.ask("prices", "HELD") == []
