import pytest
from kernels import running_kernel
from scripts import answer, without_package

PACKAGE = "nest-asyncio2>=1.7.3"
INSTALL = f"this needs {PACKAGE}; install it with: pip install 'tradecache[notebook]'"

LOAD = """
import asyncio, threading
import tradecache as tc
before = asyncio.run, asyncio.Task, asyncio.Future, asyncio.get_event_loop, asyncio.new_event_loop
cache = tc.TradeCache("prices")
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """One kernel for all cells that leave it as it was."""
    with running_kernel(tmp_path_factory.mktemp("kernel")) as each:
        assert each.run_all(LOAD)[0].status == "ok"
        yield each


def shown(cells):
    return [(cell.status, cell.shown.get("text/plain", cell.error)) for cell in cells]


class TestKernel:
    """Cells that leave asyncio alone."""

    def test_run_all(self, kernel):
        """Sync and awaited calls mix in cells that are all queued at once; none is lost, each gives its answer."""
        cells = kernel.run_all(
            'data_id = cache.store_price("AAPL", 1.5, 10)',
            'cache.get_price("AAPL", data_id).price',
            "core = tc.TradingDataCache('prices')",
            'await core.store_price("AAPL", 2.5, 20) > data_id',
            '(await core.get_latest_price("AAPL")).price',
            'cache.prices()["price"].tolist()',
            'async def prices():\n    return cache.latest()["price"].tolist()\nawait prices()',
            "(await tc.warm_cache(core, 'AAPL'))['rows'].tolist()",
            "await core.cleanup()",
        )
        assert shown(cells) == [
            ("ok", ""),
            ("ok", "1.5"),
            ("ok", ""),
            ("ok", "True"),
            ("ok", "2.5"),
            ("ok", "[1.5, 2.5]"),
            ("ok", "[2.5]"),
            ("ok", "[2]"),
            ("ok", ""),
        ]

    def test_the_card(self, kernel):
        """A cell that ends in a cache shows a card in HTML, and plain text beside it."""
        (cell,) = kernel.run_all("cache")
        assert cell.status == "ok"
        assert cell.shown["text/html"].startswith("<table><caption")
        assert cell.shown["text/plain"].startswith("<TradeCache ")

    def test_a_closed_cache_is_shown_too(self, kernel):
        """The card of a closed cache is no error."""
        (cell,) = kernel.run_all("closed = tc.TradeCache('other')\nclosed.close()\nclosed")
        assert (cell.status, "text/html" in cell.shown) == ("ok", True)

    def test_asyncio_is_as_it_was(self, kernel):
        """Nothing that the cache did has patched asyncio, and `asyncio.run` in a cell is still refused."""
        cells = kernel.run_all(
            "import tradecache.notebook\n"
            "before == (asyncio.run, asyncio.Task, asyncio.Future, asyncio.get_event_loop, asyncio.new_event_loop)",
            "import sys; 'nest_asyncio2' in sys.modules",
            "async def main(): pass\nwork = main()\nasyncio.run(work)",
            "work.close()",
        )
        assert shown(cells) == [("ok", "True"), ("ok", "False"), ("error", "RuntimeError"), ("ok", "")]

    def test_the_stop_button(self, kernel):
        """An interrupt ends a cell that waits in the cache, its work has cleaned up, and the next cells run."""
        requests = kernel.queue(
            """
from key_value.aio.stores.memory import MemoryStore

class Slow(MemoryStore):
    async def ttl(self, key, *, collection=None):
        print("waiting", flush=True)
        try:
            await asyncio.sleep(3600)
        finally:
            cleaned.append(True)

cleaned = []
tc.TradeCache(durable=Slow()).get_price("AAPL", "slow")
""",
            "cleaned",
            'cache.get_price("AAPL", cache.store_price("AAPL", 3, 0)).price',
        )
        kernel.wait_until_printed("waiting")
        kernel.interrupt()
        assert shown(kernel.outcomes(requests)) == [
            ("error", "KeyboardInterrupt"),
            ("ok", "[True]"),
            ("ok", "3.0"),
        ]

    def test_both_faces_in_one_cell(self, kernel):
        """A cell may await the async face and call the sync one, in turns, on the same folder."""
        (cell,) = kernel.run_all(
            """
async with tc.TradingDataCache("both") as core:
    first = await core.store_price("BOTH", 1, 0)
    with tc.TradeCache("both") as cache_of_both:
        second = cache_of_both.store_price("BOTH", 2, 0)
        third = await core.store_price("BOTH", 3, 0)
        prices = cache_of_both.prices("BOTH")["price"].tolist()
        point = await core.get_price("BOTH", second)
prices, point.price, first < second < third
"""
        )
        assert shown([cell]) == [("ok", "([1.0, 2.0, 3.0], 2.0, True)")]

    def test_an_interrupt_during_a_slow_fetch(self, kernel):
        """The stop button ends a fetch that takes too long; nothing of it is stored, and the next one is complete."""
        requests = kernel.queue(
            """
import pandas as pd

class SlowSource:
    name, calls, hurry = "slow", [], False

    async def fetch(self, symbol, start, end, interval):
        self.calls.append(symbol)
        print("fetching", flush=True)
        if not self.hurry:
            await asyncio.sleep(3600)
        days = pd.date_range(start, end, freq="D", inclusive="left")
        return pd.DataFrame({name: 1.0 for name in ("open", "high", "low", "close", "volume")}, index=days)

slow = SlowSource()
fetched = tc.TradeCache("fetched", source=slow)
fetched.bars("A", "2024-01", "2024-01")
""",
            "len(fetched.coverage())",
            "slow.hurry = True\nlen(fetched.bars('A', '2024-01', '2024-01')), slow.calls",
            "fetched.stats(by='operation').loc['bars', ['requests', 'fetches', 'errors']].tolist()",
        )
        kernel.wait_until_printed("fetching")
        kernel.interrupt()
        assert shown(kernel.outcomes(requests)) == [
            ("error", "KeyboardInterrupt"),
            ("ok", "0"),
            ("ok", "(31, ['A', 'A'])"),
            ("ok", "[2, 1, 1]"),
        ]

    def test_a_restart(self, tmp_path):
        """After a restart of the kernel the cache reads from disk what it had, and asks nobody."""
        load = 'import tradecache as tc\ncache = tc.TradeCache("prices", source="synthetic")'
        read = "len(cache.bars(['A', 'B'], '2020', '2021'))"
        hits = "cache.stats()[['hits', 'fetches']].to_numpy().tolist()"
        with running_kernel(tmp_path) as kernel:
            before = kernel.run_all(load, read, hits)
            kernel.restart()
            after = kernel.run_all(load, read, read, hits)

        fetched = "[[0, 0], [0, 0], [0, 2]]"
        assert shown(before) == [("ok", ""), ("ok", "731"), ("ok", fetched)]
        from_disk = "[[2, 0], [2, 0]]"
        assert shown(after) == [("ok", ""), ("ok", "731"), ("ok", "731"), ("ok", from_disk)]


class TestAllowNestedRun:
    """Cells that were pasted from a script."""

    def test_run_all_with_asyncio_run(self, tmp_path):
        """Once allowed, cells that call `asyncio.run(main())` all run, however many are queued at once."""
        main = """
async def main(number):
    async with tc.TradingDataCache("prices") as core:
        await core.store_price("AAPL", number, 0)
        await asyncio.sleep(0.01)
        return number
"""
        with running_kernel(tmp_path) as kernel:
            cells = kernel.run_all(
                LOAD,
                "from tradecache.notebook import allow_nested_run\nallow_nested_run()\nallow_nested_run()",
                main,
                *[f"asyncio.run(main({number}))" for number in range(1, 9)],
                "await main(9)",
                'cache.prices()["price"].tolist()',
            )
        numbers = [("ok", str(number)) for number in range(1, 10)]
        assert shown(cells) == [("ok", "")] * 3 + numbers + [("ok", str([float(n) for n in range(1, 10)]))]

    def test_outside_a_notebook(self):
        """In a script it lets a coroutine call `asyncio.run`."""
        code = """
            import asyncio, json
            from tradecache.notebook import allow_nested_run

            async def inner():
                await asyncio.sleep(0)
                return "inner"

            async def outer():
                return asyncio.run(inner())

            allow_nested_run()
            print(json.dumps(asyncio.run(outer())))
        """
        assert answer(code) == "inner"

    def test_under_uvloop(self):
        """A loop that cannot be nested is refused by name, with what to do instead, and nothing is patched."""
        code = """
            import asyncio, json, uvloop
            from tradecache import NestingRefused
            from tradecache.notebook import allow_nested_run

            before = asyncio.run, asyncio.Task, asyncio.Future, asyncio.get_event_loop

            def refusal():
                try:
                    allow_nested_run()
                except NestingRefused as error:
                    return [error.loop, "await main()" in str(error)]

            async def main():
                return refusal()

            within = uvloop.run(main())
            asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
            after = asyncio.run, asyncio.Task, asyncio.Future, asyncio.get_event_loop
            print(json.dumps([within, refusal(), before == after]))
        """
        refused = ["uvloop.Loop", True]
        assert answer(code, env={"PYTHONWARNINGS": "ignore::DeprecationWarning"}) == [refused, refused, True]

    def test_without_the_package(self, tmp_path):
        """Where nest-asyncio2 is not installed, the error holds the line that installs it."""
        code = """
            import json
            from tradecache import MissingDependency
            from tradecache.notebook import allow_nested_run

            try:
                allow_nested_run()
            except MissingDependency as error:
                print(json.dumps([error.package, error.extra, str(error)]))
        """
        assert answer(code, **without_package("nest_asyncio2", tmp_path)) == [PACKAGE, "notebook", INSTALL]

    def test_the_version_that_is_needed(self, tmp_path):
        """Older versions, which lose cells, are refused; later ones do, however their version is spelt."""
        old, new = ["1.6.0", "1.7.2", "1.7"], ["1.7.3", "1.8", "1.10.0", "2.0.0rc1"]
        for version in old + new:
            facts = tmp_path / version / f"nest_asyncio2-{version}.dist-info"
            facts.mkdir(parents=True)
            (facts / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: nest-asyncio2\nVersion: {version}\n"
            )
        code = """
            import json, sys
            from tradecache import MissingDependency
            from tradecache.notebook import allow_nested_run

            def outcome(version):
                sys.path.insert(0, f"{sys.argv[1]}/{version}")
                try:
                    allow_nested_run()
                except MissingDependency as error:
                    return str(error)

            print(json.dumps([outcome(version) for version in sys.argv[2:]]))
        """
        outcomes = answer(code, tmp_path, *old, *new)
        assert outcomes == [INSTALL] * len(old) + [None] * len(new)
