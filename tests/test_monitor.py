"""The widget: what it shows, when it stops, and what is left of it in a saved notebook."""

import gc
import json
import os
import threading
import weakref

import pytest
from kernels import running_kernel
from scripts import answer, without_package

from tradecache import CacheClosed, InvalidInput, TradeCache
from tradecache.monitor import VIEW, Monitor

LOAD = """
import time
import tradecache as tc
cache = tc.TradeCache("prices", source="synthetic")
"""


@pytest.fixture
def cache(tmp_path):
    with TradeCache(tmp_path, source="synthetic") as cache:
        yield cache


@pytest.fixture
def monitor(cache):
    """A monitor that looks by itself once a minute, so that a test looks when it wants to."""
    monitor = cache.monitor(every=60)
    yield monitor
    monitor.close()


def drawn_by_itself(monitor, text: str) -> bool:
    """Wait until the monitor has drawn something without being told to look."""
    drawn = threading.Event()
    monitor.observe(lambda change: text in change["new"] and drawn.set(), "drawn")
    return text in monitor.drawn or drawn.wait(10)


class TestMonitor:
    """Without a browser: what would be sent to one."""

    def test_begins_with_how_things_are(self, cache):
        """A new monitor shows what there is already."""
        cache.bars("A", "2020", "2021")

        assert "hits of 1 request" in cache.monitor().drawn
        assert repr(cache.monitor()) == "<Monitor 1 request, 0.0% hits>"

    def test_shows_what_is_new(self, cache, monitor):
        """After a look the drawing is of what has happened since, and the line goes on."""
        assert "hits of 0 requests" in monitor.drawn
        cache.bars("A", "2020", "2021")
        monitor.look()
        cache.bars("A", "2020", "2021")
        monitor.look()

        assert "hits of 2 requests" in monitor.drawn
        assert 'points="0.0,34.0 160.0,2.0"' in monitor.drawn

    def test_sends_only_what_has_changed(self, cache, monitor):
        """A look that sees nothing new sends nothing."""
        sent = []
        monitor.observe(lambda change: sent.append(change["new"]), "drawn")

        monitor.look()
        cache.get_price("A", "none")
        monitor.look()
        monitor.look()

        assert len(sent) == 1

    def test_looks_by_itself(self, cache):
        """It looks from the background, while the caller does something else."""
        monitor = cache.monitor(every=0.05)
        cache.bars("A", "2020", "2021")

        assert drawn_by_itself(monitor, "hits of 1 request")
        monitor.close()

    def test_state_that_is_synced(self, cache, monitor):
        """What is sent is the drawing, as text."""
        assert monitor.get_state("drawn") == {"drawn": monitor.drawn}
        assert json.loads(json.dumps(monitor.get_state("drawn"))) == monitor.get_state("drawn")

    @pytest.mark.parametrize("recent", [0, 1, 5])
    def test_as_many_requests_as_wanted(self, cache, recent):
        """The number of requests that are shown can be chosen."""
        for _ in range(10):
            cache.get_price("A", "none")

        assert cache.monitor(recent=recent).drawn.count("<td>get</td>") == recent

    def test_plain_when_all_is_quiet(self, cache):
        """Three seconds without a change, and plain HTML stands there; with the next change the widget does."""
        now = [0.0]
        monitor = Monitor(cache.core, every=60, clock=lambda: now[0])
        kinds = []
        for seconds, asks in ((3.0, False), (0.5, False), (60.0, True), (2.0, False), (2.0, False)):
            now[0] += seconds
            if asks:
                cache.get_price("A", "none")
            monitor.look()
            kinds.append(VIEW in monitor.bundle())
        monitor.close()

        assert kinds == [True, False, True, True, False]

    def test_a_request_by_each_of_many_threads(self, cache, monitor):
        """Looks of several threads at once are harmless."""
        threads = [
            threading.Thread(target=lambda: [cache.get_price("A", "none"), monitor.look()]) for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        monitor.look()

        assert "hits of 20 requests" in monitor.drawn

    @pytest.mark.parametrize(
        ("options", "allowed"),
        [
            ({"every": 0}, "a number from 0.05 to 60"),
            ({"every": 61}, "a number from 0.05 to 60"),
            ({"every": float("nan")}, "a number from 0.05 to 60"),
            ({"every": "1s"}, "a number from 0.05 to 60"),
            ({"every": True}, "a number from 0.05 to 60"),
            ({"recent": -1}, "a whole number from 0 to 50"),
            ({"recent": 51}, "a whole number from 0 to 50"),
            ({"recent": 1.5}, "a whole number from 0 to 50"),
        ],
        ids=str,
    )
    def test_impossible_options(self, cache, options, allowed):
        """An option that cannot be is an error that names it and says what is allowed."""
        (name,) = options
        with pytest.raises(InvalidInput, match=f"^{name} is .*, but must be {allowed}$"):
            cache.monitor(**options)

    def test_without_anywidget(self, tmp_path):
        """Where anywidget is not installed, the error holds the line that installs it."""
        code = """
            import json, sys
            import tradecache as tc

            try:
                tc.TradeCache(sys.argv[1]).monitor()
            except tc.MissingDependency as error:
                print(json.dumps(str(error)))
        """
        hidden = (
            without_package("anywidget", tmp_path / "without")
            if (tmp_path / "without").mkdir() is None
            else {}
        )
        assert (
            answer(code, tmp_path, **hidden)
            == "this needs anywidget; install it with: pip install 'tradecache[notebook]'"
        )


class TestEnd:
    """When it stops."""

    def test_stops_with_the_cache(self, tmp_path):
        """When the cache is closed, the monitor notices by itself, and says so."""
        cache = TradeCache(tmp_path)
        monitor = cache.monitor(every=0.05)
        cache.close()

        assert drawn_by_itself(monitor, "stopped")
        assert repr(monitor) == "<Monitor no requests yet, stopped>"

    @pytest.mark.parametrize("closes", [True, False])
    def test_the_last_state(self, tmp_path, closes):
        """What happened just before the end is shown, whether the cache was closed or let go of."""
        cache = TradeCache(tmp_path)
        monitor = cache.monitor(every=60)
        for _ in range(10):
            cache.get_price("A", "none")
        if closes:
            cache.close()
        del cache
        gc.collect()
        monitor.stop()

        assert repr(monitor) == "<Monitor 10 requests, 0.0% hits, stopped>"

    def test_nothing_is_left(self, tmp_path):
        """A monitor that was closed holds nothing of what the cache had in memory."""
        with TradeCache(tmp_path) as cache:
            monitor = cache.monitor()
            memory = weakref.ref(cache.core.stack.memory)
            monitor.close()
        del cache
        gc.collect()
        assert memory() is None

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
    def test_forks_while_it_looks(self, tmp_path):
        """A process that is watched can fork at any instant."""
        code = """
            import json, os, sys
            import tradecache as tc

            cache = tc.TradeCache(sys.argv[1])
            for n in range(3000):
                cache.get_price(f"S{n}", "none")
            monitors = [cache.monitor(every=0.05) for _ in range(4)]
            for _ in range(150):
                child = os.fork()
                if not child:
                    os._exit(0)
                os.waitpid(child, 0)
                cache.get_price("A", "none")
            print(json.dumps(True))
        """
        assert answer(code, tmp_path, flags=["-W", "ignore::DeprecationWarning"]) is True

    def test_stop(self, cache, monitor):
        """A monitor that was stopped shows the last state, and goes on no more; more than once is fine."""
        cache.get_price("A", "none")
        monitor.stop()
        monitor.stop()
        cache.get_price("A", "none")
        monitor.stop()

        assert monitor.is_stopped
        assert "hits of 1 request" in monitor.drawn

    def test_keeps_no_cache_alive(self, tmp_path):
        """A cache that nobody has any more is let go of, although it is watched; the monitor stops."""
        cache = TradeCache(tmp_path)
        monitor = cache.monitor(every=0.05)
        gone = weakref.ref(cache.core)
        del cache
        gc.collect()

        assert gone() is None
        assert drawn_by_itself(monitor, "stopped")

    def test_of_a_closed_cache(self, tmp_path):
        """A closed cache cannot be watched."""
        cache = TradeCache(tmp_path)
        cache.close()
        with pytest.raises(CacheClosed):
            cache.monitor()

    def test_the_interpreter_ends_in_silence(self, tmp_path):
        """A monitor that is still there when the interpreter ends complains of nothing."""
        code = """
            import json, sys
            import tradecache as tc

            cache = tc.TradeCache(sys.argv[1])
            monitor = cache.monitor(every=0.05)
            print(json.dumps(repr(monitor)))
        """
        assert answer(code, tmp_path) == "<Monitor no requests yet>"


class TestKernel:
    """In a kernel: what a notebook is sent, and keeps."""

    def test_live_then_plain(self, tmp_path):
        """It is sent as a widget with its HTML beside it; when all is quiet, the HTML alone takes its place."""
        with running_kernel(tmp_path) as kernel:
            kernel.queue(LOAD, "monitor = cache.monitor()\nmonitor")
            shown = kernel.wait_until_heard("display_data")
            kernel.queue("cache.bars('A', '2020', '2021')")
            quiet = kernel.wait_until_heard("update_display_data")
            kernel.queue("cache.bars('A', '2020', '2021')")
            again = kernel.wait_until_heard("update_display_data")
            kernel.queue("cache.close()")
            ended = kernel.wait_until_heard("update_display_data")

        assert list(shown["data"]) == [VIEW, "text/html", "text/plain"]
        assert list(quiet["data"]) == ["text/html", "text/plain"]
        assert "hits of 1 request" in quiet["data"]["text/html"]
        assert "● live" in quiet["data"]["text/html"]
        assert list(again["data"]) == [VIEW, "text/html", "text/plain"]
        assert "hits of 2 requests" in ended["data"]["text/html"]
        assert "■ stopped" in ended["data"]["text/html"]
        places = {each["transient"]["display_id"] for each in (shown, quiet, again, ended)}
        assert len(places) == 1

    def test_moves_while_a_cell_runs(self, tmp_path):
        """Updates are sent while the cell that makes the requests is still running."""
        loop = "for n in range(20):\n    cache.bars('A', '2020', str(2021 + n % 3))\n    time.sleep(0.1)\nprint('done')"
        with running_kernel(tmp_path) as kernel:
            kernel.queue(LOAD, "monitor = cache.monitor(every=0.1)\nmonitor")
            kernel.wait_until_heard("display_data")
            kernel.queue(loop)
            moves, heard = 0, ""
            while heard != "stream":
                _, heard, content = kernel.hear()
                moves += heard == "comm_msg" and "drawn" in str(content)

        assert moves >= 5
