import asyncio
import concurrent.futures
import contextvars
import gc
import json
import random
import signal
import sqlite3
import sys
import threading
import time
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import uvloop
from loops import run
from scripts import answer, end_of, run_script, start_script

from tradecache import TradeCache, WrongThread
from tradecache.bridge import Bridge, Unfinished, finish, on_private_loop, shared_bridge

ACCENT = contextvars.ContextVar("accent", default="none")


@pytest.fixture
def bridge():
    each = Bridge()
    yield each
    each.stop()


@pytest.fixture
def switching():
    """Lets Python go from thread to thread as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


async def thread_name():
    await asyncio.sleep(0)
    return threading.current_thread().name


class TestCalls:
    """Work that a caller waits for."""

    def test_work_is_done_on_the_private_thread(self, bridge):
        """Work runs on a daemon thread of its own, and its result comes back."""
        assert bridge.run(thread_name()) == "tradecache"

    def test_one_loop_serves_every_call(self, bridge):
        """All calls share one loop, so that what is bound to a loop stays usable."""

        async def loop():
            return id(asyncio.get_running_loop())

        assert len({bridge.run(loop()) for _ in range(5)}) == 1

    def test_inside_a_running_async_function(self, bridge):
        """A sync call from within a running event loop neither fails nor needs asyncio to be patched."""

        async def main():
            return bridge.run(thread_name())

        assert run(main()) == "tradecache"

    @pytest.mark.parametrize("start", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
    def test_under_any_loop_of_the_caller(self, start, tmp_path):
        """The whole cache works from inside a coroutine, under asyncio's own loop and under uvloop."""

        async def main():
            with TradeCache(tmp_path) as cache:
                data_id = cache.store_price("AAPL", 1.5, 10)
                return (
                    cache.get_price("AAPL", data_id).price,
                    len(cache.prices()),
                    cache.latest().index.tolist(),
                )

        assert start(main()) == (1.5, 1, ["AAPL"])

    def test_the_caller_s_context_is_visible(self, bridge):
        """Context variables of the caller are seen by the work, and the work's own stay with it."""

        async def heard():
            before = ACCENT.get()
            ACCENT.set("private")
            return before

        token = ACCENT.set("welsh")
        try:
            assert (bridge.run(heard()), ACCENT.get()) == ("welsh", "welsh")
        finally:
            ACCENT.reset(token)

    def test_eight_threads_at_once(self, bridge):
        """Eight threads may wait at once: their calls run side by side, and each gets its own answer."""
        meeting = asyncio.Barrier(8)

        async def meet(number):
            await meeting.wait()  # ends only if all eight are under way together
            return number

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda number: bridge.run(meet(number)), range(8))) == list(range(8))

    def test_eight_threads_share_a_cache(self, tmp_path):
        """Eight threads write and read through one TradeCache, and no point is lost or given to another."""

        def trade(thread):
            ids = [cache.store_price(f"S{thread}", thread + 1, n) for n in range(20)]
            return [cache.get_price(f"S{thread}", data_id).volume for data_id in ids]

        with TradeCache(tmp_path) as cache, ThreadPoolExecutor(8) as pool:
            assert list(pool.map(trade, range(8))) == [list(range(20))] * 8
            assert len(cache.prices()) == 160

    def test_from_the_private_loop_itself(self, bridge):
        """A call from the private loop, which would wait for itself, is refused; the loop goes on."""

        async def outer():
            return bridge.run(thread_name())

        with pytest.raises(WrongThread, match="await TradingDataCache there"):
            bridge.run(outer())
        assert bridge.run(thread_name()) == "tradecache"


class TestErrors:
    """What goes wrong in the work."""

    def test_type_values_and_traceback_are_carried_over(self, bridge):
        """An error is raised in the caller as it was in the work: same object, its own line in the traceback."""
        original = KeyError("the very same")

        async def failing():
            await asyncio.sleep(0)
            raise original

        with pytest.raises(KeyError) as caught:
            bridge.run(failing())
        assert caught.value is original
        assert "failing" in [frame.name for frame in traceback.extract_tb(caught.tb)]

    @pytest.mark.parametrize(
        "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopAsyncIteration()]
    )
    def test_exits_belong_to_the_caller(self, bridge, error):
        """What would end a thread is the caller's to meet; the private loop outlives it."""

        async def failing():
            raise error

        with pytest.raises(type(error)):
            bridge.run(failing())
        assert bridge.run(thread_name()) == "tradecache"

    def test_work_that_cancels_itself(self, bridge):
        """Work that was cancelled from within is an ordinary error to its caller, not a cancellation of him."""

        async def cancelling():
            asyncio.current_task().cancel()
            await asyncio.sleep(1)

        with pytest.raises(concurrent.futures.CancelledError):
            bridge.run(cancelling())

    def test_a_caught_error_holds_nothing(self, bridge):
        """Once an error is dealt with, the frames and data it passed through are let go of at once."""

        class Big:
            """Something to hold on to."""

        async def failing(big):
            raise ValueError(str(big))

        def call():
            big = Big()
            try:
                bridge.run(failing(big))
            except ValueError:
                return weakref.ref(big)

        gc.disable()
        try:
            assert call()() is None
        finally:
            gc.enable()


class TestStop:
    """A bridge that is stopped while it is idle, or not."""

    def test_the_next_call_starts_anew(self, bridge):
        """A stopped bridge has no thread left, and starts another with the next call."""
        bridge.run(thread_name())
        before = threading.active_count()
        bridge.stop()
        assert threading.active_count() == before - 1
        assert bridge.run(thread_name()) == "tradecache"

    def test_twice_and_before_the_first_call(self):
        """To stop what is stopped or was never started does nothing."""
        bridge = Bridge()
        bridge.stop()
        bridge.run(thread_name())
        bridge.stop()
        bridge.stop()

    def test_who_waits_is_told(self, bridge):
        """Stopping cancels what is under way: it cleans up, also where that takes a while, and its caller is told."""
        under_way, cleaned = threading.Event(), []

        async def long():
            under_way.set()
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0.01)
                cleaned.append(True)

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(bridge.run, long())
            under_way.wait()
            bridge.stop()
            with pytest.raises(concurrent.futures.CancelledError):
                waiting.result()
        assert cleaned == [True]

    def test_a_stop_on_the_way_to_the_loop(self, bridge, monkeypatch):
        """A stop that comes while a call is being handed over waits for that, and then cancels the call."""
        on_the_way = threading.Event()

        class Hesitant(asyncio.SelectorEventLoop):
            def call_soon_threadsafe(self, callback, *args, **options):
                if callback != self.stop:
                    on_the_way.set()
                    time.sleep(0.1)
                return super().call_soon_threadsafe(callback, *args, **options)

        monkeypatch.setattr(asyncio, "new_event_loop", Hesitant)
        with ThreadPoolExecutor(1) as pool:
            called = pool.submit(bridge.run, asyncio.sleep(3600))
            on_the_way.wait()
            bridge.stop()
            with pytest.raises(concurrent.futures.CancelledError):
                called.result()

    def test_calls_and_stops_at_once(self, bridge, switching):
        """However calls and stops meet, each call returns or is told; none waits for ever or meets a closed loop."""

        def call(_):
            try:
                return bridge.run(thread_name())
            except concurrent.futures.CancelledError:
                return "told"

        with ThreadPoolExecutor(4) as pool:
            for _ in range(100):
                outcomes = pool.map(call, range(6))
                bridge.stop()
                assert set(outcomes) <= {"tradecache", "told"}


class TestFinish:
    """Work that is done in the calling thread."""

    def test_work_that_need_not_wait(self):
        """A coroutine that never waits is finished in the calling thread."""

        async def ready():
            return threading.current_thread()

        assert finish(ready()) is threading.current_thread()

    def test_work_that_waits_after_all(self):
        """A coroutine that would wait is closed, so that its `finally` runs, and refused."""
        cleaned = []

        async def slow():
            try:
                await asyncio.sleep(0)
            finally:
                cleaned.append(True)

        with pytest.raises(Unfinished):
            finish(slow())
        assert cleaned == [True]

    def test_errors_are_raised_as_they_are(self):
        """An error of the work is the caller's."""

        async def failing():
            raise KeyError("x")

        with pytest.raises(KeyError, match="x"):
            finish(failing())


def test_one_bridge_serves_the_process():
    """Every cache of a process shares one private loop."""
    assert shared_bridge() is shared_bridge()


PRIVATE_UVLOOP = """
    import asyncio, json, sys, uvloop
    import tradecache as tc
    from tradecache.bridge import shared_bridge

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

    async def kind():
        return type(asyncio.get_running_loop()).__module__

    async def main():
        cache = tc.TradeCache(sys.argv[1])
        data_id = cache.store_price("AAPL", 1.5, 10)
        return [await kind(), shared_bridge().run(kind()), cache.get_price("AAPL", data_id).price, len(cache.prices())]

    print(json.dumps(asyncio.run(main())))
"""


def test_under_uvloop_s_policy(tmp_path):
    """Where uvloop is the policy of the process, the private loop is uvloop's too, and all works."""
    assert answer(PRIVATE_UVLOOP, tmp_path, env={"PYTHONWARNINGS": "ignore::DeprecationWarning"}) == [
        "uvloop",
        "uvloop",
        1.5,
        1,
    ]


FORKING = """
    import json, os, signal, sys, threading, warnings
    import tradecache as tc
    from tradecache.bridge import shared_bridge

    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later warn of every fork with threads
    folder = sys.argv[1]

    def in_child(work):
        '''Fork; return a function that waits for what `work` returned in the child.'''
        answers, ours = os.pipe()
        pid = os.fork()
        if not pid:
            signal.alarm(10)  # a deadlock ends the child
            try:
                said = work()
            except BaseException as error:
                said = repr(error)
            os.write(ours, json.dumps(said).encode())
            os._exit(0)
        os.close(ours)
        def outcome():
            with open(answers) as file:
                said = file.read()
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            return json.loads(said) if status == 0 else f"the child ended with {status}"
        return outcome

    def use(cache):
        data_id = cache.store_price("AAPL", 2, 0)
        found = cache.get_price("AAPL", data_id)
        cache.delete_price("AAPL", data_id)
        return [found.price, cache.get_price("AAPL", data_id), len(cache.events()) > 0, len(cache.stats()),
                cache.get_cache_statistics()["total_gets"] > 0, cache.info()["memory_entries"] >= 0]

    USED = [2.0, None, True, 2, True, True]
"""


def forking(code, *arguments):
    return answer(FORKING + code, *arguments)


class TestFork:
    """What a forked child inherits, and what it must not."""

    def test_a_forked_child_has_a_loop_of_its_own(self, tmp_path):
        """A forked child reads, writes, and has its own private thread; the parent goes on, and both see all."""
        code = """
    cache = tc.TradeCache(folder)
    data_id = cache.store_price("AAPL", 1, 0)

    def child():
        price = cache.get_price("AAPL", data_id).price
        cache.store_price("AAPL", 2, 0)
        return [price, cache.prices()["price"].tolist(), [t.name for t in threading.enumerate()]]

    said = in_child(child)()
    cache.store_price("AAPL", 3, 0)
    print(json.dumps([said, cache.prices()["price"].tolist()]))
"""
        child, parent = forking(code, tmp_path)
        assert child == [1.0, [1.0, 2.0], ["MainThread", "tradecache"]]
        assert parent == [1.0, 2.0, 3.0]

    def test_two_threads_fork_at_once(self, tmp_path):
        """Threads that fork at the same time, while caches are made and used, leave no lock behind."""
        code = """
            import json, os, sys, threading
            import tradecache as tc

            caches = [tc.TradeCache(f"{sys.argv[1]}/{n}") for n in range(4)]

            def fork():
                for _ in range(20):
                    pid = os.fork()
                    if not pid:
                        os._exit(0)
                    os.waitpid(pid, 0)

            def make():
                caches.extend(tc.TradeCache(f"{sys.argv[1]}/more {n}") for n in range(20))

            threads = [threading.Thread(target=work, daemon=True) for work in (fork, fork, make)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            alive = [thread.is_alive() for thread in threads]
            print(json.dumps([alive, len([cache.store_price("A", 1, 1) for cache in caches])]))
        """
        assert answer(code, tmp_path) == [[False] * 3, 24]

    def test_multiprocessing(self, tmp_path):
        """Workers that multiprocessing forks use the parent's cache object; ids never repeat, nothing is lost."""
        code = """
    import multiprocessing
    cache = tc.TradeCache(folder)
    cache.store_price("AAPL", 1, 0)

    def work(number):
        return [cache.store_price("AAPL", number + 1, 0) for _ in range(10)]

    with multiprocessing.get_context("fork").Pool(3) as pool:
        ids = sum(pool.map(work, range(6)), [])
    print(json.dumps([len(set(ids)), len(cache.prices())]))
"""
        assert forking(code, tmp_path) == [60, 61]

    def test_while_another_thread_waits_in_a_call(self, tmp_path):
        """A fork during another thread's call disturbs neither: the child works, and the call comes to its end."""
        code = """
    import asyncio
    under_way, go_on = threading.Event(), threading.Event()

    async def long():
        under_way.set()
        while not go_on.is_set():
            await asyncio.sleep(0.001)
        return "done"

    cache = tc.TradeCache(folder)
    ended = []
    waiting = threading.Thread(target=lambda: ended.append(shared_bridge().run(long())))
    waiting.start()
    under_way.wait()
    said = in_child(lambda: use(cache))()
    go_on.set()
    waiting.join()
    print(json.dumps([said == USED or said, ended, use(cache) == USED]))
"""
        assert forking(code, tmp_path) == [True, ["done"], True]

    def test_while_locks_are_held(self, tmp_path):
        """A fork while another thread holds any one lock of the package leaves a child that can do everything."""
        code = """
    import time
    from clocks import FakeClock
    from tradecache import models, wrappers
    clock = FakeClock()
    cache = tc.TradeCache(folder, clock=clock)
    stack = cache.core.stack
    locks = {
        "memory": stack.memory._lock,
        "telemetry": cache.core.telemetry._lock,
        "ledger": stack.durable._access.ledger._lock,
        "statistics": wrappers._COUNTING,
        "clock": cache.core.clock._stepping,
        "ids": models._maker._lock,
        "bridge": shared_bridge()._lock,
    }

    def hold(lock, held):
        with lock:
            held.set()
            time.sleep(0.1)  # a fork may wait for the lock, or renew it in the child

    said = {}
    for name, lock in locks.items():
        held = threading.Event()
        holder = threading.Thread(target=hold, args=(lock, held))
        holder.start()
        held.wait()
        outcome = in_child(lambda: clock.advance(-3600) or use(cache))
        holder.join()
        said[name] = outcome()
    print(json.dumps([{name: each for name, each in said.items() if each != USED}, use(cache) == USED]))
"""
        assert forking(code, tmp_path) == [{}, True]

    def test_during_a_transaction(self, tmp_path):
        """A fork in the middle of the parent's transaction leaves a child that can write once that has ended."""
        code = """
    import time
    cache = tc.TradeCache(folder, settings=tc.Settings(lock_wait=2, retries=0))
    begun = threading.Event()

    def transaction(connection):
        begun.set()
        time.sleep(0.1)

    writing = threading.Thread(target=cache.core.stack.durable._access.ledger.write, args=(transaction,))
    writing.start()
    begun.wait()
    outcome = in_child(lambda: use(cache))
    writing.join()
    said = outcome()
    print(json.dumps([said == USED or said, use(cache) == USED]))
"""
        assert forking(code, tmp_path) == [True, True]

    def test_what_a_child_writes_outlives_its_parent_s_cache(self, tmp_path):
        """What a child was told is stored is there for all, also when the parent closes the cache meanwhile."""
        code = """
    from_parent, to_child = os.pipe()
    from_child, to_parent = os.pipe()
    cache = tc.TradeCache(folder)
    cache.store_price("AAPL", 1, 0)

    def child():
        cache.store_price("AAPL", 2, 0)
        os.write(to_parent, b"x")
        os.read(from_parent, 1)
        cache.store_price("AAPL", 3, 0)
        return cache.prices()["price"].tolist()

    outcome = in_child(child)
    os.read(from_child, 1)
    cache.close()
    os.write(to_child, b"x")
    print(json.dumps([outcome(), tc.TradeCache(folder).prices()["price"].tolist()]))
"""
        assert forking(code, tmp_path) == [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]

    def test_a_child_sees_what_changed_since_the_fork(self, tmp_path):
        """What the parent deletes after the fork is gone for the child, although its memory still held it."""
        code = """
    from_parent, to_child = os.pipe()
    cache = tc.TradeCache(folder)
    data_id = cache.store_price("AAPL", 1, 0)

    def child():
        os.read(from_parent, 1)
        cache.store_price("MSFT", 1, 0)
        return cache.get_price("AAPL", data_id) is None

    outcome = in_child(child)
    cache.delete_price("AAPL", data_id)
    os.write(to_child, b"x")
    print(json.dumps(outcome()))
"""
        assert forking(code, tmp_path) is True


SLOW = """
    import asyncio, json, signal, sys, threading, time
    from key_value.aio.stores.memory import MemoryStore
    import tradecache as tc
    from tradecache.bridge import shared_bridge

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started without
    log = []

    class Slow(MemoryStore):
        '''A store that takes for ever to answer for the key "slow".'''

        async def ttl(self, key, *, collection=None):
            if key != "slow":
                return await super().ttl(key, collection=collection)
            log.append("began")
            print("waiting")
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0.01)
                log.append("cleaned")
"""


class TestInterrupt:
    """Real signals to a process that waits."""

    def test_a_waiting_call(self):
        """Ctrl-C ends a waiting call at once, its work has cleaned up by then, and the cache works on."""
        child = start_script(
            SLOW
            + """
    cache = tc.TradeCache(durable=Slow())
    try:
        cache.get_price("AAPL", "slow")
    except KeyboardInterrupt:
        log.append("interrupted")
    data_id = cache.store_price("AAPL", 1, 0)
    print(json.dumps([log, cache.get_price("AAPL", data_id).price]))
"""
        )
        assert child.stdout.readline() == "waiting\n"
        child.send_signal(signal.SIGINT)
        code, said, complaints = end_of(child)
        assert (code, complaints) == (0, "")
        assert json.loads(said) == [["began", "cleaned", "interrupted"], 1.0]

    def test_a_wait_for_another_process_s_lock(self, tmp_path):
        """Ctrl-C ends the wait for a locked ledger; nothing was stored, and the next call stores."""
        TradeCache(tmp_path).close()
        with closing(sqlite3.connect(tmp_path / "ledger-1.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            child = start_script(
                SLOW
                + """
    def tell():
        while shared_bridge()._loop is None or not asyncio.all_tasks(shared_bridge()._loop):
            time.sleep(0.001)
        print("waiting")

    cache = tc.TradeCache(sys.argv[1], settings=tc.Settings(lock_wait=3600))
    try:
        threading.Thread(target=tell).start()
        cache.store_price("AAPL", 1, 0)
    except KeyboardInterrupt:
        print("interrupted")
    cache.store_price("AAPL", 2, 0)
    print(json.dumps(cache.prices()["price"].tolist()))
""",
                tmp_path,
            )
            assert child.stdout.readline() == "waiting\n"
            child.send_signal(signal.SIGINT)
            assert child.stdout.readline() == "interrupted\n"
            other.execute("ROLLBACK")
        code, said, complaints = end_of(child)
        assert (code, complaints) == (0, "")
        assert json.loads(said) == [2.0]

    @pytest.mark.parametrize("moment", ["begun", "writing"])
    @pytest.mark.parametrize("call", ["store_prices", "invalidate", "warm"])
    def test_bulk_work(self, call, moment, tmp_path):
        """Ctrl-C stops bulk work in the middle, nothing of it is done, and the cache answers at once."""
        if (call, moment) == ("warm", "writing"):
            pytest.skip("warming writes nothing")
        child = start_script(
            SLOW
            + """
    import os, signal
    import pandas as pd

    folder, call, moment = sys.argv[1:]
    times = pd.date_range("2020", periods=60_000, freq="s", tz="UTC")
    frame = pd.DataFrame({"symbol": "B", "price": 1.0, "volume": 1.0, "timestamp": times})
    cache = tc.TradeCache(folder)
    if call != "store_prices":
        cache.store_prices(frame)
    before = len(cache.prices())

    def is_time():
        if moment == "begun":
            return bool(asyncio.all_tasks(shared_bridge()._loop))
        return "housekeeping.py" in {os.path.basename(frame.f_code.co_filename) for frame in under_way()}

    def under_way():
        for frame in sys._current_frames().values():
            while frame is not None:
                yield frame
                frame = frame.f_back

    def interrupt():
        while not is_time():
            time.sleep(0.001)  # and leaves the interpreter to those it watches
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt)
    try:
        watcher.start()
        options = {"progress": False} if call == "warm" else {}
        getattr(cache, call)(frame if call == "store_prices" else "B", **options)
    except KeyboardInterrupt:
        log.append("interrupted")
    answers = len(cache.prices())
    print(json.dumps([log, answers == before, cache.get_cache_statistics()["total_gets"] < 60_000]))
""",
            tmp_path, call, moment,
        )  # fmt: skip
        code, said, complaints = end_of(child)
        assert (code, complaints) == (0, "")
        assert json.loads(said) == [["interrupted"], True, True]

    def test_before_the_work_has_begun(self):
        """Ctrl-C while the private loop is still busy elsewhere cancels the work as soon as it begins."""
        child = start_script(
            SLOW
            + """
    occupied, free = threading.Event(), threading.Event()

    def occupy():
        occupied.set()
        free.wait()

    async def prepare():
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, occupy)
        return loop

    async def work():
        try:
            log.append("began")
            await asyncio.sleep(3600)
        finally:
            log.append("cleaned")

    def wait_for_queue(length):
        while len(loop._ready) < length:
            time.sleep(0.001)

    def interrupt():
        wait_for_queue(1)  # the beginning of the work
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        wait_for_queue(2)  # its cancellation
        free.set()

    loop = shared_bridge().run(prepare())
    occupied.wait()
    try:
        threading.Thread(target=interrupt).start()
        shared_bridge().run(work())
    except KeyboardInterrupt:
        log.append("interrupted")
    print(json.dumps(log))
"""
        )
        code, said, complaints = end_of(child)
        assert (code, complaints) == (0, "")
        assert json.loads(said) == ["began", "cleaned", "interrupted"]

    def test_at_random_instants(self, tmp_path):
        """However often and whenever Ctrl-C comes, what was acknowledged is there and everything works on."""
        child = start_script(
            SLOW
            + """
    armed = False

    def interrupt(*_):
        '''Raise where the script is prepared for it.'''
        global armed
        if armed:
            armed = False
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
    cache = tc.TradeCache(sys.argv[1])
    ids, interrupts = [], 0
    print("ready")
    while not stop.is_set():
        try:
            armed = True
            while not stop.is_set():
                ids.append(cache.store_price("AAPL", 1, 0))
                assert cache.get_price("AAPL", ids[-1]).price == 1
                assert cache.get_price("AAPL", "none") is None
                cache.get_latest_price("AAPL")
            armed = False
        except KeyboardInterrupt:
            interrupts += 1
    frame = cache.prices("AAPL")
    lost = [data_id for data_id in ids if cache.get_price("AAPL", data_id) is None]
    loops = sum(thread.name == "tradecache" and thread.is_alive() for thread in threading.enumerate())
    print(json.dumps([interrupts > 0, lost, len(frame) >= len(ids), len(cache.verify()), loops]))
""",
            tmp_path,
        )
        rng = random.Random(7)
        assert child.stdout.readline() == "ready\n"
        for _ in range(300):
            child.send_signal(signal.SIGINT)
            time.sleep(rng.uniform(0.0005, 0.01))
        code, said, complaints = end_of(child)
        assert code == 0, complaints
        assert json.loads(said) == [True, [], True, 0, 1]


class TestEndOfInterpreter:
    """Scripts that just end."""

    def test_without_close(self, tmp_path):
        """A script that ends without `close()` ends well and silently."""
        code = "import sys, tradecache as tc\nprint(tc.TradeCache(sys.argv[1]).store_price('AAPL', 1, 0))"
        done = run_script(code, tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        with TradeCache(tmp_path) as cache:
            assert cache.get_price("AAPL", done.stdout.strip()).price == 1.0

    def test_with_daemon_threads_at_work(self, tmp_path):
        """Daemon threads in the middle of calls neither hold up the end nor complain; their work cleans up."""
        first = """
    import atexit
    atexit.register(lambda: print(json.dumps(log)))  # runs last, when the bridge is stopped
"""
        then = """
    def busy(cache):
        while True:
            cache.store_price("AAPL", 1, 0)
            cache.prices("AAPL")

    for _ in range(3):
        threading.Thread(target=busy, args=[tc.TradeCache(sys.argv[1])], daemon=True).start()
    slow = tc.TradeCache(durable=Slow())
    threading.Thread(target=slow.get_price, args=("AAPL", "slow"), daemon=True).start()
    while not log:
        time.sleep(0.001)
"""
        done = run_script(first + SLOW + then, tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == ["waiting", '["began", "cleaned"]']

    def test_calls_of_exit_handlers(self, tmp_path):
        """Exit handlers may still use a cache, whether they were registered before or after tradecache was loaded."""
        code = """
            import atexit, sys
            atexit.register(lambda: print(cache.get_price("AAPL", cache.store_price("AAPL", 2, 0)).price))
            import tradecache as tc
            atexit.register(lambda: print(cache.store_price("AAPL", 1, 0)))
            cache = tc.TradeCache(sys.argv[1])
        """
        done = run_script(code, tmp_path)
        assert (done.returncode, done.stderr, done.stdout.splitlines()[1]) == (0, "", "2.0")


class TestEvery:
    """Work that is done again and again in the background."""

    def test_goes_on_until_stopped(self, bridge):
        """It is done again and again, and a last time when it is stopped."""
        done, often = [], threading.Event()

        async def work():
            done.append(threading.current_thread())
            if len(done) >= 3:
                often.set()

        stop = bridge.every(0.001, work)
        assert often.wait(10)
        stop()
        bridge.stop()
        count = len(done)

        assert bridge.run(thread_name()) == "tradecache"  # on another loop
        assert len(done) == count
        assert threading.main_thread() not in done

    def test_a_last_time(self, bridge):
        """Stopped before its time has come, it is done once; so it is when the loop is stopped."""
        for end in ("stop", "loop"):
            done, ended = [], threading.Event()

            async def work(done=done, ended=ended):
                done.append(1)
                ended.set()

            stop = bridge.every(3600, work)
            bridge.run(thread_name())
            if end == "stop":
                stop()
                assert ended.wait(10)
            else:
                bridge.stop()
            assert done == [1]

    def test_an_error_is_logged_and_it_goes_on(self, bridge, caplog):
        """What goes wrong once is logged, and the work is done again."""
        done, often = [], threading.Event()

        async def work():
            done.append(1)
            if len(done) == 1:
                raise ValueError("wrong once")
            often.set()

        with caplog.at_level("ERROR", logger="tradecache"):
            stop = bridge.every(0.001, work)
            assert often.wait(10)
            stop()
            bridge.stop()

        assert caplog.text.count("went wrong in the background") == 1

    def test_stopped_twice_and_too_late(self, bridge):
        """To stop what has ended already is fine."""

        async def work():
            pass

        stop = bridge.every(3600, work)
        stop()
        bridge.stop()
        stop()


def test_work_of_several_loops_meets_on_the_private_one():
    """What two loops ask for on the private loop runs there, with its result or its error for who asked."""

    async def where():
        return asyncio.get_running_loop()

    async def wrong():
        raise LookupError("there")

    async def from_private():
        return await on_private_loop(where)

    private = shared_bridge().run(where())
    assert [run(on_private_loop(where)) for _ in range(2)] == [private, private]
    assert shared_bridge().run(from_private()) is private
    with pytest.raises(LookupError, match="there"):
        run(on_private_loop(wrong))


def test_who_gives_up_ends_the_work_on_the_private_loop():
    """To cancel the wait for work on the private loop is to cancel the work."""
    begun, ended = threading.Event(), threading.Event()

    async def work():
        begun.set()
        try:
            await asyncio.sleep(600)
        finally:
            ended.set()

    async def give_up():
        task = asyncio.create_task(on_private_loop(work))
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(give_up())
    assert ended.wait(30)
