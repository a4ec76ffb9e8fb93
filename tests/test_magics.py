"""What `%tradecache` does in a notebook, and which cache it asks."""

import sys
import types

import pandas as pd
import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from kernels import running_kernel
from pandas.testing import assert_frame_equal, assert_series_equal
from scripts import answer
from traitlets.config import Config

from tradecache import TradeCache, TradingDataCache
from tradecache.sources.synthetic import Synthetic

RANGE = ("2024-05-01", "2024-05-31")
NONE = "there is no TradeCache here; make one: cache = tradecache.TradeCache(...)"
WORDS = {"stats", "coverage", "warm", "clear", "tier", "symbol", "dataset", "operation"}


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """Return IPython without a terminal or a kernel, where the extension is loaded."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    quiet = Config({"HistoryManager": {"enabled": False}})
    shell = InteractiveShell(config=quiet, user_module=types.ModuleType("a_notebook"))
    shell.run_line_magic("load_ext", "tradecache")
    return shell


@pytest.fixture
def cache(make):
    """Return a cache with bars of two symbols, and a price point of one."""
    cache = make(Synthetic())
    cache.bars(["AAPL", "MSFT"], *RANGE)
    cache.store_price("AAPL", 1.5, 10)
    return cache


def ask(shell, line, **variables):
    """Run the magic where some variables are set."""
    shell.user_ns.update(variables)
    return shell.run_line_magic("tradecache", line)


def refusal(shell, line, **variables):
    """Return why the magic refuses a line."""
    with pytest.raises(UsageError) as caught:
        ask(shell, line, **variables)
    assert type(caught.value) is UsageError  # IPython shows this class alone without a traceback
    return str(caught.value)


class TestCommands:
    """Each command returns what a method returns."""

    @pytest.mark.parametrize("by", ["tier", "symbol", "dataset", "operation"])
    def test_stats(self, shell, cache, by):
        """`stats` is the method of that name, split as one likes."""
        assert_frame_equal(ask(shell, f"stats {by}", cache=cache), cache.stats(by=by))

    def test_stats_by_default(self, shell, cache, capsys):
        """`stats` alone is by tier; nothing is printed."""
        assert_frame_equal(ask(shell, "stats", cache=cache), cache.stats())
        assert capsys.readouterr() == ("", "")

    @pytest.mark.parametrize(
        ("line", "symbols", "range_", "options"),
        [
            ("coverage", None, (), {}),
            ("coverage AAPL", "AAPL", (), {}),
            ("coverage AAPL MSFT --start 2024-05-10", ["AAPL", "MSFT"], ("2024-05-10",), {}),
            ("coverage --start '2024-05-10 12:00' --end=2024-05-20", None, ("2024-05-10 12:00", "2024-05-20"), {}),
            ("coverage --interval 1d --source synthetic MSFT", "MSFT", (), {"interval": "1d", "source": "synthetic"}),
            ('coverage "AAPL" --interval "1h"', "AAPL", (), {"interval": "1h"}),
        ],
    )  # fmt: skip
    def test_coverage(self, shell, cache, line, symbols, range_, options):
        """`coverage` takes symbols, a range, an interval and a source, quoted or not."""
        expected = cache.coverage(symbols, *range_, **options)
        assert_frame_equal(ask(shell, line, cache=cache), expected)

    def test_warm(self, shell, make, capsys):
        """`warm` fetches, and returns the report; with --quiet there is no progress bar."""
        cache = make(Synthetic())
        line = "warm AAPL MSFT --start 2024-05-01 --end 2024-05-31 --interval 1h --source synthetic --quiet"
        report = ask(shell, line, cache=cache)
        again = ask(shell, line)

        assert capsys.readouterr() == ("", "")
        assert (report["rows_fetched"] > 0).all()
        assert report["error"].to_dict() == {"AAPL": "", "MSFT": ""}
        assert_series_equal(again["rows_cached"], report["rows_fetched"], check_names=False)
        assert_frame_equal(
            again.drop(columns="seconds"),
            cache.warm(["AAPL", "MSFT"], *RANGE, interval="1h", source="synthetic", progress=False).drop(
                columns="seconds"
            ),
        )

    def test_warm_shows_progress(self, shell, cache, capsys):
        """Without --quiet a bar is shown, and bars are of a day."""
        report = ask(shell, "warm AAPL --start 2024-05-01 --end 2024-05-31", cache=cache)

        assert "100%" in capsys.readouterr().err
        assert report.loc["AAPL", ["rows_fetched", "points"]].to_list() == [0, 1]

    def test_clear(self, shell, cache):
        """`clear` deletes what is named, and returns how much of each symbol."""
        bars = len(cache.bars("AAPL", "2024-05-10", "2024-05-20"))

        some = ask(shell, "clear AAPL --start 2024-05-10 --end 2024-05-20 --interval 1d", cache=cache)
        rest = ask(shell, "clear --all")

        assert_series_equal(some, deleted(AAPL=bars))
        assert rest.to_dict() == {"AAPL": 31 - bars + 1, "MSFT": 31}
        assert (len(cache.prices()), len(cache.coverage())) == (0, 0)

    def test_clear_of_one_source(self, shell, cache):
        """`clear --source` leaves bars of other sources, and price points."""
        assert_series_equal(ask(shell, "clear AAPL --source local", cache=cache), deleted())
        assert_series_equal(ask(shell, "clear AAPL --source synthetic"), deleted(AAPL=31))
        assert len(cache.prices("AAPL")) == 1

    def test_variables(self, shell, cache):
        """IPython puts the values of variables and expressions in, and the answer can be kept."""
        cell = 'symbol = "AAPL"\nkept = %tradecache coverage $symbol {symbol.replace("AAPL", "MSFT")}'
        shell.user_ns["cache"] = cache
        shell.run_cell(cell).raise_error()
        assert_frame_equal(shell.user_ns["kept"], cache.coverage(["AAPL", "MSFT"]))

    def test_a_semicolon(self, shell, cache):
        """A semicolon at the end, as it hides answers in notebooks, is no argument."""
        assert_frame_equal(ask(shell, "stats symbol;", cache=cache), cache.stats(by="symbol"))

    def test_any_name(self, shell, cache):
        """A cache that is named may have any name; names that are no text are no obstacle."""
        shell.user_ns["_mine"] = cache
        shell.user_ns[5] = cache
        assert_frame_equal(ask(shell, "stats --cache _mine"), cache.stats())

    def test_an_async_cache(self, shell, cache, tmp_path):
        """Where `cache` is the async core, no other cache is taken in its place."""
        core = TradingDataCache(tmp_path / "core")
        shell.user_ns["other"] = cache
        with pytest.raises(UsageError, match="cache is no TradeCache, but a TradingDataCache"):
            ask(shell, "clear --all", cache=core)

    def test_paths(self, shell, make):
        """A backslash in a path is a backslash, and a blank within quotation marks a blank."""
        with pytest.raises(UsageError) as refused:
            ask(shell, r'coverage --source "files:C:\new data"', cache=make())
        assert r"C:\new data" in str(refused.value).replace(r"\\", "\\")

    @pytest.mark.parametrize("line", ["", "-h", "--help"])
    def test_help(self, shell, line, capsys):
        """Help is printed, also where nothing is asked; no cache is needed."""
        assert ask(shell, line) is None
        said = capsys.readouterr()
        assert said.out.startswith("usage: %tradecache ")
        assert all(f"\n    {name} " in said.out for name in ("stats", "coverage", "warm", "clear"))
        assert said.err == ""

    def test_help_with_one_command(self, shell, capsys):
        """Each command has a help of its own."""
        assert ask(shell, "warm -h") is None
        assert capsys.readouterr().out.startswith("usage: %tradecache warm ")


class TestRefusals:
    """What cannot be asked is refused in one line, and the kernel goes on."""

    @pytest.mark.parametrize(
        ("line", "why"),
        [
            ("stat", "invalid choice: 'stat' (choose from "),
            ("stats day", "by is 'day', but must be one of tier, symbol, dataset, operation"),
            ("stats tier symbol", "unrecognized arguments: symbol (see %tradecache -h)"),
            ("coverage --day", "unrecognized arguments: --day"),
            ("coverage --start", "argument --start: expected one argument (see %tradecache coverage -h)"),
            ("coverage --start x", "start is 'x', but must be "),
            ("coverage --interval 7x", "interval is '7x', but must be "),
            ("warm", "the following arguments are required: SYMBOL (see %tradecache warm -h)"),
            ("warm AAPL --source nobody", "source is 'nobody', but must be "),
            ("clear", "this would clear every symbol; name some, or give --all"),
            ("clear --start 2012", "this would clear every symbol; name some, or give --all"),
            ("clear AAPL --all", "either name symbols or give --all"),
            ("coverage 'AAPL", "a quotation mark is missing in: coverage 'AAPL"),
            ("stats --cache nowhere", "nowhere is no TradeCache"),
            ("stats --cache number", "number is no TradeCache"),
        ],
    )
    def test_bad_usage(self, shell, cache, capsys, line, why):
        """The text says what is wrong; nothing is printed, and nothing is deleted."""
        before = cache.coverage()
        assert why in refusal(shell, line, cache=cache, number=5)
        assert capsys.readouterr() == ("", "")
        assert_frame_equal(cache.coverage(), before)

    def test_in_a_cell(self, shell, capsys):
        """IPython shows the text without a traceback."""
        assert isinstance(shell.run_cell("%tradecache stats").error_in_exec, UsageError)
        said = capsys.readouterr()
        assert (said.out + said.err).strip() == f"UsageError: {NONE}"


class TestWhichCache:
    """Of several caches, the one that is meant is asked, or none."""

    def test_the_variable_cache(self, shell, make):
        """The variable `cache` is the usual one, whatever else there is."""
        cache, *others = [make() for _ in range(3)]
        cache.prices()
        assert requests(ask(shell, "stats", a=others[0], cache=cache, d=others[1])) == 1

    def test_the_only_one(self, shell, make):
        """Another name will do, if there is but one open cache; IPython's own variables are not looked at."""
        mine, old = make(), make()
        old.close()
        variables = {
            "mine": mine,
            "same": mine,
            "_": make(),
            "_1": make(),
            "__": make(),
            "old": old,
            "cache": 5,
        }
        assert_frame_equal(ask(shell, "coverage", **variables), mine.coverage())

    def test_none(self, shell):
        """Without a cache the text says how to make one."""
        assert refusal(shell, "stats") == refusal(shell, "stats", cache=5, Cache=TradeCache) == NONE

    def test_only_closed_ones(self, shell, make):
        """Closed caches of other names are none."""
        old = make()
        old.close()
        assert refusal(shell, "stats", old=old) == NONE

    def test_several(self, shell, make):
        """With several open ones, the text names them; --cache tells which."""
        first, second = make(), make()
        first.prices()
        why = refusal(shell, "stats", first=first, second=second, again=first)
        assert why in {
            "there are several: first, second; name one with --cache",
            "there are several: again, second; name one with --cache",
        }
        assert requests(ask(shell, "stats --cache first")) == 1
        assert requests(ask(shell, "stats --cache second")) == 0

    def test_a_closed_one_that_is_named(self, shell, make):
        """A closed cache is not passed over for another: it has its statistics, and refuses the rest."""
        cache, other = make(), make()
        other.store_price("AAPL", 1.0, 1)
        cache.prices()
        cache.close()
        closed = "this cache is closed; make a new one, the data is still in its folder"

        assert requests(ask(shell, "stats", cache=cache, other=other)) == 1
        assert refusal(shell, "clear --all") == refusal(shell, "clear --all --cache cache") == closed
        assert len(other.prices()) == 1

    def test_things_that_cannot_be_asked_what_they_are(self, shell, make):
        """A variable that raises when it is looked at is no cache, and does no harm."""

        class Proxy:
            @property
            def __class__(self):
                raise RuntimeError("not here yet")

        assert requests(ask(shell, "stats", proxy=Proxy(), mine=make())) == 0


class TestExtension:
    """Loading, and the way back."""

    def test_unload(self, shell):
        """Once unloaded there is no magic, and no completion."""
        shell.run_line_magic("unload_ext", "tradecache")
        assert shell.find_line_magic("tradecache") is None
        assert completions(shell, "%tradecache ") == set()
        shell.run_line_magic("load_ext", "tradecache")
        assert shell.find_line_magic("tradecache") is not None
        assert completions(shell, "%tradecache ") == {"stats", "coverage", "warm", "clear"}

    def test_load_twice(self, shell, cache):
        """Loaded by its function again and again, it is there once."""
        import tradecache

        for _ in range(3):
            tradecache.load_ipython_extension(shell)
        assert len(list(shell.strdispatchers["complete_command"].s_matches("%tradecache"))) == 1
        assert_frame_equal(ask(shell, "stats", cache=cache), cache.stats())
        for _ in range(2):
            tradecache.unload_ipython_extension(shell)
        assert shell.find_line_magic("tradecache") is None

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("%tradecache w", {"warm"}),
            ("tradecache c", {"coverage", "clear"}),
            ("%tradecache stats s", {"symbol"}),
            ("%tradecache stats ", {"tier", "symbol", "dataset", "operation"}),
        ],
    )
    def test_completion(self, shell, line, words):
        """The Tab key completes commands, and what statistics are split by."""
        assert completions(shell, line) == words

    def test_reload(self, tmp_path):
        """`%reload_ext` keeps it, and caches that were made before are still found."""
        code = """
            import json, types
            from IPython.core.interactiveshell import InteractiveShell
            import tradecache
            shell = InteractiveShell()
            shell.run_line_magic("load_ext", "tradecache")
            with tradecache.TradeCache("prices") as cache:
                shell.user_ns["mine"] = cache
                shell.run_line_magic("reload_ext", "tradecache")
                print(json.dumps(len(shell.run_line_magic("tradecache", "stats"))))
        """
        assert answer(code, cwd=tmp_path, env={"IPYTHONDIR": str(tmp_path)}) == 2

    def test_in_a_kernel(self, tmp_path):
        """In Jupyter, cells that are all queued at once show frames, and asyncio stays as it was."""
        with running_kernel(tmp_path) as kernel:
            cells = kernel.run_all(
                "import asyncio; before = asyncio.run, asyncio.Task, asyncio.get_event_loop",
                "%load_ext tradecache",
                "import tradecache as tc\nprices = tc.TradeCache('prices', source='synthetic')",
                "%tradecache warm AAPL --start 2024-05-01 --end 2024-05-31 --quiet",
                "%tradecache stats",
                "%tradecache clear",
                "%tradecache clear --all",
                "before == (asyncio.run, asyncio.Task, asyncio.get_event_loop)",
            )
        assert [cell.status for cell in cells] == ["ok"] * 5 + ["error"] + ["ok"] * 2
        assert ["<table" in cell.shown.get("text/html", "") for cell in cells[3:5]] == [True, True]
        assert [cell.printed for cell in cells[:5]] == [""] * 5
        assert cells[5].printed == "UsageError: this would clear every symbol; name some, or give --all\n"
        assert "AAPL" in cells[6].shown["text/plain"]
        assert cells[7].shown["text/plain"] == "True"


def deleted(**counts):
    """Return what `invalidate` returns."""
    index = pd.Index(list(counts), dtype="str", name="symbol")
    return pd.Series(list(counts.values()), index=index, name="deleted", dtype="int64")


def requests(stats):
    return stats["requests"].sum()


def completions(shell, line):
    """Return what the Tab key offers at the end of a line."""
    with provisionalcompleter():
        found = shell.Completer.completions(line, len(line))
        return {each.text for each in found} & {*WORDS}
