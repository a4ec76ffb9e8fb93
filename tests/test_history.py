"""What earlier sessions were asked: kept by the minute, in the folder, for as long as the setting says."""

import logging
import os
import signal
from datetime import timedelta

import pandas as pd
import pytest
from key_value.aio.stores.memory import MemoryStore
from loops import run
from scripts import answer, end_of, run_script, start_script

from tradecache import Settings, StoreError, TradeCache
from tradecache.history import AT_ONCE
from tradecache.naming import OF_HISTORY

SESSION = """
    import sys
    import tradecache as tc
    cache = tc.TradeCache(sys.argv[1], settings=tc.Settings(keep_history=True))
    for _ in range(int(sys.argv[2])):
        cache.get_price("A", "none")
"""


@pytest.fixture
def opened(make):
    """Return what opens a session on the folder that keeps its history."""
    return lambda keep=86400, **options: make(settings=Settings(keep_history=keep), **options)


def gets(cache: TradeCache) -> int:
    history = cache.history()
    return int(history.loc[history["operation"] == "get", "requests"].sum())


class TestSessions:
    """What one session leaves to the next."""

    def test_kept_when_closed(self, opened, clock):
        """A later session sees what an earlier one was asked, in the minutes in which it was."""
        with opened() as cache:
            data_id = cache.store_price("A", 1.0, 1)
            cache.get_price("A", data_id)
            clock.advance(120)
            cache.get_price("A", "none")
            cache.prices("A")
        clock.advance(7 * 3600)
        with opened() as cache:
            cache.get_price("A", data_id)
            history = cache.history()

        minute = pd.Timestamp("2024-06-03 14:30", tz="UTC")
        times = [minute] * 2 + [minute + pd.Timedelta("2min")] * 2 + [minute + pd.Timedelta("7h2min")]
        assert history.index.to_list() == times
        assert history.reset_index()[["operation", "tier", "outcome", "requests", "rows", "bytes"]].to_numpy().tolist() == [
            ["get", "memory", "hit", 1, 1, 24],
            ["put", "disk", "done", 1, 1, 24],
            ["get", "none", "miss", 1, 0, 0],
            ["prices", "disk", "hit", 1, 1, 24],
            ["get", "disk", "hit", 1, 1, 24],
        ]  # fmt: skip

    def test_hit_rate_of_a_week(self, opened, clock):
        """The hit rates of earlier days can be asked for by the day."""
        for day in range(3):
            with opened(keep=True) as cache:
                data_id = cache.store_price("A", 1.0, 1)
                for n in range(4):
                    cache.get_price("A", data_id if n <= day else "none")
            clock.advance(86400)
        with opened(keep=True) as cache:
            rates = cache.hit_rate("1D", history=cache.history())

        assert rates.index.to_list() == list(pd.date_range("2024-06-03", periods=3, tz="UTC"))
        assert rates["requests"].to_list() == [4, 4, 4]
        assert rates["hit_rate"].to_list() == [1 / 4, 2 / 4, 3 / 4]

    def test_read_by_a_session_that_keeps_none(self, opened, make):
        """What was kept can be read without the setting; nothing is added then."""
        with opened() as cache:
            cache.get_price("A", "none")
        with make() as cache:
            cache.get_price("A", "none")
            assert gets(cache) == 1

    def test_not_kept_unless_asked_for(self, make):
        """By default nothing of it is written."""
        with make() as cache:
            cache.get_price("A", "none")
            assert len(cache.history()) == 0
        with make() as cache:
            assert "history" not in set(cache.occupancy()["dataset"])

    def test_forgotten_in_time(self, opened, clock):
        """What is older than the setting says is neither shown nor stored."""
        with opened(keep=timedelta(hours=1)) as cache:
            cache.get_price("A", "none")
        clock.advance(3599)
        with opened(keep=timedelta(hours=1)) as cache:
            assert gets(cache) == 1
            clock.advance(120)
            assert gets(cache) == 0
            cache.purge()
            assert "history" not in set(cache.occupancy()["dataset"])

    def test_a_reset_leaves_history_alone(self, opened):
        """`reset_stats` begins the counters anew, and what was counted before stays in the history."""
        with opened() as cache:
            cache.get_price("A", "none")
            cache.reset_stats()
            cache.get_price("A", "none")

            assert (len(cache.events()), gets(cache)) == (1, 2)

    def test_invalidate_leaves_history_alone(self, opened):
        """To delete all prices does not delete the history."""
        with opened() as cache:
            cache.get_price("A", "none")
            cache.history()
            cache.invalidate()
            assert gets(cache) == 1


class TestProcesses:
    """Interpreters that end in one way or another."""

    def test_kept_when_the_interpreter_ends(self, tmp_path):
        """A session that is never closed, as notebooks are not, keeps its history when its process ends."""
        assert run_script(SESSION, tmp_path, 3).stderr == ""
        with TradeCache(tmp_path) as cache:
            assert gets(cache) == 3

    def test_several_at_once(self, tmp_path):
        """Processes that share a folder lose nothing of each other's counts."""
        running = [start_script(SESSION + '    print("asked")\n    input()', tmp_path, n) for n in (1, 2, 3)]
        for process in running:
            assert process.stdout.readline() == "asked\n"
        assert [end_of(process)[0] for process in running] == [1, 1, 1]  # no more input: an error ends them
        with TradeCache(tmp_path) as cache:
            assert gets(cache) == 6

    def test_killed(self, tmp_path):
        """Of a process that is killed what was written lasts, and the folder is sound."""
        code = (
            SESSION
            + """
            import asyncio
            asyncio.run(cache.core._history.write())  # as happens every minute
            print(len(cache.history()), flush=True)
            cache.get_price("A", "none")
            print("ready", flush=True)
            input()
        """.replace("\n            ", "\n    ")
        )
        process = start_script(code, tmp_path, 2)
        assert [process.stdout.readline(), process.stdout.readline()] == ["1\n", "ready\n"]
        os.kill(process.pid, signal.SIGKILL)
        end_of(process)
        with TradeCache(tmp_path) as cache:
            assert gets(cache) == 2
            assert len(cache.verify()) == 0

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
    def test_a_forked_child_writes_none(self, tmp_path):
        """The counts that a child has from its parent are not written twice."""
        code = (
            SESSION
            + """
            import json, os
            child = os.fork()
            if not child:
                cache.get_price("A", "none")
                cache.close()
                os._exit(0)
            os.waitpid(child, 0)
            print(json.dumps(int(cache.history()["requests"].sum())))
        """.replace("\n            ", "\n    ")
        )
        assert answer(code, tmp_path, 3, flags=["-W", "ignore::DeprecationWarning"]) == 3

    def test_a_forgotten_cache_is_let_go_of(self, tmp_path):
        """A cache that nobody has any more writes its history, and is not kept by it."""
        code = """
            import gc, json, sys, weakref
            import tradecache as tc
            cache = tc.TradeCache(sys.argv[1], settings=tc.Settings(keep_history=True))
            cache.get_price("A", "none")
            gone = weakref.ref(cache.core)
            del cache
            gc.collect()
            print(json.dumps(gone() is None))
        """
        assert answer(code, tmp_path) is True
        with TradeCache(tmp_path) as cache:
            assert gets(cache) == 1


class TestFaults:
    """Stores that cannot take it, and entries that are no history."""

    def test_written_later(self, tmp_path, clock, caplog):
        """What cannot be written is logged, and written when it can be."""

        class Moody(MemoryStore):
            broken = True

            async def put(self, key, value, *, collection=None, ttl=None):
                if self.broken and collection == OF_HISTORY:
                    raise StoreError(tmp_path, "broken")
                await super().put(key, value, collection=collection, ttl=ttl)

        store = Moody()
        cache = TradeCache(durable=store, clock=clock, settings=Settings(keep_history=True, retries=0))
        with cache, caplog.at_level(logging.WARNING, logger="tradecache"):
            cache.get_price("A", "none")
            run(cache.core._history.write())
            assert gets(cache) == 1
            store.broken = False
            cache.get_price("A", "none")
            assert gets(cache) == 2
        with TradeCache(durable=store, clock=clock) as later:
            assert gets(later) == 2
        assert "the history of requests could not be written" in caplog.text

    @pytest.mark.parametrize(
        "error", [ConnectionError("gone"), OSError(28, "full"), ValueError("odd")], ids=repr
    )
    def test_a_close_that_cannot_write(self, clock, caplog, error):
        """Whatever a store raises when the history is written, the cache is closed, and the loss is logged."""

        class Broken(MemoryStore):
            async def put(self, key, value, *, collection=None, ttl=None):
                raise error

        cache = TradeCache(durable=Broken(), clock=clock, settings=Settings(keep_history=True, retries=0))
        cache.get_price("A", "none")
        with caplog.at_level(logging.WARNING, logger="tradecache"):
            cache.close()

        assert cache.core.is_closed
        assert str(error) in caplog.text

    def test_one_row_for_each_minute_and_kind(self, opened):
        """Entries of one minute, of whichever session, are one row for each kind of request."""
        for _ in range(3):
            with opened() as cache:
                cache.get_price("A", "none")
        with opened() as cache:
            cache.get_price("A", "none")
            history = cache.history()

        assert history["requests"].to_list() == [4]

    def test_looking_writes_nothing(self, opened):
        """To ask for the history again and again makes no entries of it."""
        with opened() as cache:
            for _ in range(5):
                cache.get_price("A", "none")
                cache.history()
            assert "history" not in set(cache.occupancy()["dataset"])

    def test_more_than_one_entry_has_room_for(self, opened, clock):
        """Counts of many minutes are written in several entries."""
        with opened(keep=True) as cache:
            for _ in range(AT_ONCE + 10):
                cache.get_price("A", "none")
                clock.advance(60)
        with opened(keep=True) as cache:
            assert gets(cache) == AT_ONCE + 10
            assert cache.occupancy().set_index("dataset").loc["history", "entries"] == 2

    def test_any_other_store(self, clock):
        """A store that was passed in keeps a history too, if it can list its keys."""
        store = MemoryStore()
        with TradeCache(durable=store, settings=Settings(keep_history=True), clock=clock) as cache:
            cache.get_price("A", "none")
        with TradeCache(durable=store, clock=clock) as cache:
            assert gets(cache) == 1

    @pytest.mark.parametrize(
        "value", [{}, {"bins": 5}, {"bins": [[1, 2]]}, {"bins": [[1, "get", "p", "ram", 0, 1, 1, 1]]}]
    )
    def test_what_is_no_history(self, opened, caplog, value):
        """An entry that is no history is logged and left out."""
        with opened() as cache, caplog.at_level(logging.WARNING, logger="tradecache"):
            cache.get_price("A", "none")
            run(cache.core.stack.durable.put("0", value, collection=OF_HISTORY))
            assert gets(cache) == 1
        assert "'0' in 'history' is no history" in caplog.text
