import asyncio
import functools
import threading

import pandas as pd
import pytest
from loops import run
from scripts import end_of, run_script, start_script

from tradecache.errors import InvalidInput
from tradecache.sources import FunctionSource, Source, Traits, as_source, traits_of

BARS = pd.DataFrame({"close": [1.0]})
ASKED = ("AAPL", pd.Timestamp("2024-01-02"), pd.Timestamp("2024-01-03"), "1d")


class Plain:
    """A source that says nothing of itself."""

    name = "plain"

    async def fetch(self, symbol, start, end, interval):
        return BARS


def prices(symbol, start, end, interval):
    return BARS.assign(symbol=symbol, start=start, end=end, interval=interval)


async def prices_later(symbol, start, end, interval):
    await asyncio.sleep(0)
    return prices(symbol, start, end, interval)


def of_two(symbol, start):
    return BARS


def fetched(thing):
    return run(as_source(thing).fetch(*ASKED))


def test_a_source_is_itself():
    """What has a name and a fetch is taken as it is."""
    source = Plain()
    assert as_source(source) is source
    assert isinstance(source, Source)


@pytest.mark.parametrize(
    "function", [prices, prices_later, functools.partial(prices)], ids=["sync", "async", "partial"]
)
def test_a_function_is_a_source(function):
    """A function is called with symbol, start, end and interval, whether it is to be awaited or not."""
    source = FunctionSource(function, name="mine")
    frame = run(source.fetch(*ASKED))
    assert tuple(frame[["symbol", "start", "end", "interval"]].iloc[0]) == ASKED
    assert (source.name, repr(source)) == ("mine", "<FunctionSource mine>")


def test_a_function_that_returns_something_to_await_is_awaited():
    """A plain function that hands out a coroutine is one, too."""

    def prices_of_others(symbol, start, end, interval):
        return prices_later(symbol, start, end, interval)

    assert len(fetched(prices_of_others)) == 1


def test_a_function_s_bars_are_kept_under_its_name():
    """A function needs no other name than its own."""
    assert as_source(prices).name == "prices"
    assert len(fetched(prices_later)) == 1


def test_a_function_without_a_name_is_refused():
    """Two lambdas would share their bars, so one needs a name, and is told how."""
    for function in (lambda symbol, start, end, interval: BARS, functools.partial(prices)):
        with pytest.raises(InvalidInput, match="name others with FunctionSource"):
            as_source(function)


def test_a_function_of_other_arguments_is_refused():
    """What cannot be called with four arguments is refused before it is asked for anything."""
    with pytest.raises(InvalidInput, match=r"but must be a function of \(symbol, start, end, interval\)"):
        as_source(of_two)


def test_a_blocking_function_holds_up_nobody():
    """While a plain function blocks, the event loop goes on, and can let it go."""
    let_go = threading.Event()

    async def work():
        fetching = asyncio.create_task(FunctionSource(lambda *_: let_go.wait(30), name="slow").fetch(*ASKED))
        await asyncio.sleep(0.01)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching

    run(work())
    let_go.set()


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration(), SystemExit(3), KeyboardInterrupt()])
def test_a_function_s_error_is_raised_where_it_is_awaited(error):
    """Any error comes out of the fetch, and one that would end the event loop is wrapped in one that does not."""

    def fail(symbol, start, end, interval):
        raise error

    with pytest.raises((ValueError, RuntimeError)) as caught:
        fetched(fail)
    assert error in {caught.value, caught.value.__cause__}


def test_a_function_that_never_returns_does_not_keep_the_interpreter():
    """A script ends although a provider's function still blocks."""
    code = """
        import asyncio, threading
        from tradecache.sources import FunctionSource

        async def main():
            source = FunctionSource(lambda *_: threading.Event().wait(), name="stuck")
            await asyncio.wait_for(source.fetch("AAPL", None, None, "1d"), 0.1)

        try:
            asyncio.run(main())
        except TimeoutError:
            print("given up")
    """
    assert end_of(start_script(code)) == (0, "given up\n", "")


@pytest.mark.parametrize(
    ("source", "package", "extra"),
    [
        ("yfinance", "yfinance", "yfinance"),
        ("ccxt:binance", "ccxt", "ccxt"),
        ("sample", "bokeh_sampledata", "demo"),
    ],
)
def test_a_provider_s_package_that_is_missing_is_named(source, package, extra):
    """Without its package a source says which line installs it."""
    code = """
        import asyncio, sys
        import pandas as pd
        from tradecache import MissingDependency
        from tradecache.sources import as_source

        sys.modules[sys.argv[2]] = None  # as if it were not installed
        try:
            asyncio.run(as_source(sys.argv[1]).fetch("AAPL", pd.Timestamp(0), pd.Timestamp(1), "1d"))
        except MissingDependency as error:
            print(error)
    """
    done = run_script(code, source, package)
    line = f"this needs {package}; install it with: pip install 'tradecache[{extra}]'"
    assert (done.stdout, done.stderr) == (f"{line}\n", "")


@pytest.mark.parametrize(
    "thing",
    ["", "yahoo", "ccxt", "ccxt:", "files:", "sample:x", None, 5, Plain, {"name": "x"}, object()],
    ids=lambda thing: repr(thing)[:20],
)
def test_what_is_no_source_is_refused(thing):
    """Anything else is an error that lists what may be a source."""
    with pytest.raises(InvalidInput, match="'yfinance', 'ccxt:<exchange>' such as") as caught:
        as_source(thing)
    assert (caught.value.field, caught.value.value) == ("source", thing)


@pytest.mark.parametrize("name", ["local", "", " x", "a\nb", "x" * 101, 5, None])
def test_a_name_that_cannot_be_kept_is_refused(name):
    """A source's name is printable text, and not that of the user's own bars."""
    source = Plain()
    source.name = name
    with pytest.raises(InvalidInput, match=r"source\.name is "):
        as_source(source)


@pytest.mark.parametrize(("name", "kind"), [("sample", "SampleData"), ("synthetic", "Synthetic")])
def test_built_in_sources_are_had_by_name(name, kind):
    """The sources that come with the package need no import, and are called by the names they are had by."""
    source = as_source(name)
    assert (type(source).__name__, source.name) == (kind, name)


def test_files_are_had_by_their_folder(tmp_path):
    """A folder of files is a source by its path."""
    assert as_source(f"files:{tmp_path}").folder == tmp_path.resolve()


def test_what_a_source_does_not_say():
    """A source that says nothing of itself trades at all hours, has no limits, and is asked with care."""
    traits = traits_of(Plain())
    assert (
        traits.calendar_for("AAPL"),
        traits.max_range("1d"),
        traits.window("1m"),
        traits.first("A", "1d"),
    ) == (None,) * 4
    assert traits.merge_gap("1m") == traits.merge_gap("1d") == pd.Timedelta(0)
    assert (traits.rate_limit, traits.concurrency, traits.timeout) == (None, 4, 30)
    assert (traits.settle, traits.adjusted) == (pd.Timedelta("15min"), None)


def test_what_a_source_says():
    """A trait is a value for all, or a method that is asked."""

    class Talking(Plain):
        calendar_for = "XNYS"
        merge_gap = pd.Timedelta("3D")
        rate_limit = (5, 1.0)
        concurrency = 2

        def window(self, interval):
            return pd.Timedelta("60D") if interval == "1m" else None

    traits = traits_of(Talking())
    assert (traits.calendar_for("AAPL"), traits.merge_gap("1m")) == ("XNYS", pd.Timedelta("3D"))
    assert (traits.window("1m"), traits.window("1d")) == (pd.Timedelta("60D"), None)
    assert (traits.rate_limit, traits.concurrency) == ((5, 1.0), 2)


@pytest.mark.parametrize(
    ("trait", "value"),
    [
        ("concurrency", 0), ("timeout", 0), ("timeout", float("nan")), ("rate_limit", (0, 1.0)),
        ("rate_limit", (5, 0.0)), ("budget", 5), ("settle", pd.Timedelta("-1s")),
    ],
)  # fmt: skip
def test_a_trait_that_cannot_be_kept_is_named(trait, value):
    """Limits that nobody could keep to are refused."""
    with pytest.raises(InvalidInput, match=f"^{trait} is "):
        Traits(**{trait: value})
