import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loops import run
from scripts import answer

from tradecache.barframes import normal_bars
from tradecache.errors import InvalidInput
from tradecache.sources import Synthetic
from tradecache.sources.synthetic import BLOCK

INTERVALS = ["1m", "5m", "1h", "1d", "1wk", "1mo"]


def fetched(start, end, interval="1m", symbol="AAPL", source=None):
    zone = "UTC" if interval[-1] in "mh" else None
    edges = [pd.Timestamp(edge).tz_localize(zone) for edge in (start, end)]
    return run((source or Synthetic()).fetch(symbol, *edges, interval))


@given(st.sampled_from(INTERVALS), st.integers(-3 * BLOCK, 3 * BLOCK), st.integers(1, 40), st.integers(0, 39))
def test_a_bar_is_the_same_whatever_it_is_asked_for_with(interval, number, count, skipped):
    """Any part of a range, on both sides of 1970 and of a block's edge, is that part of the whole, to the bit."""
    offset = {"1m": "min", "5m": "5min", "1h": "h", "1d": "D", "1wk": "W-MON", "1mo": "MS"}[interval]
    edges = pd.date_range("1970-01-05", periods=2, freq=offset)
    if interval == "1mo":
        edges = [pd.Timestamp("1970-01-01") + pd.DateOffset(months=number // 12 + n) for n in (0, count)]
    else:
        edges = [edges[0] + (edges[1] - edges[0]) * (number + n) for n in (0, count)]
    whole = fetched(*edges, interval)
    part = fetched(whole.index[min(skipped, count - 1)].tz_localize(None), edges[1], interval)
    pd.testing.assert_frame_equal(
        part, whole.iloc[min(skipped, count - 1) :], check_exact=True, check_freq=False
    )


@pytest.mark.parametrize("interval", INTERVALS)
def test_every_bar_is_sound(interval):
    """Bars of any interval are in our form, and none is missing."""
    start, end = "2020-01-01", {"1m": "2020-01-10", "5m": "2020-02-10"}.get(interval, "2024-01-01")
    frame = fetched(start, end, interval)
    zone = frame.index.tz
    bars = normal_bars(
        frame, interval=interval, start=pd.Timestamp(start, tz=zone), end=pd.Timestamp(end, tz=zone)
    )
    pd.testing.assert_frame_equal(bars, frame)
    assert (bars["low"] <= bars[["open", "close"]].min(axis=1)).all()
    assert (bars["high"] >= bars[["open", "close"]].max(axis=1)).all()
    freq = {"1m": "min", "5m": "5min", "1h": "h", "1d": "D", "1wk": "W-MON", "1mo": "MS"}[interval]
    assert list(bars.index) == list(pd.date_range(start, end, freq=freq, tz=zone, inclusive="left"))


def test_a_bar_opens_where_the_one_before_closed():
    """The walk goes on across the edges of blocks."""
    bars = fetched("2020-01-01", "2020-01-21")
    assert len(bars) > 5 * BLOCK
    assert (bars["open"].iloc[1:].to_numpy() == bars["close"].iloc[:-1].to_numpy()).all()


def test_the_walk_is_as_volatile_as_asked_for():
    """Daily returns over 40 years spread by `volatility`, have no memory, and minutes add up to as much."""
    for volatility in (0.01, 0.03):
        source = Synthetic(volatility=volatility)
        returns = np.diff(np.log(fetched("1980-01-01", "2020-01-01", "1d", source=source)["close"]))
        assert returns.std() == pytest.approx(volatility, rel=0.03)
        assert abs(np.corrcoef(returns[1:], returns[:-1])[0, 1]) < 0.03
    minutes = np.diff(np.log(fetched("2020-01-01", "2020-03-01")["close"]))
    assert minutes.std() * np.sqrt(1440) == pytest.approx(0.015, rel=0.03)


def test_no_block_repeats_another():
    """The noise of one block has nothing to do with that of the next."""
    closes = fetched("1970-01-01", pd.Timestamp("1970-01-01") + pd.Timedelta(2 * BLOCK + 1, "min"))["close"]
    returns = np.diff(np.log(closes))
    assert abs(np.corrcoef(returns[:BLOCK], returns[BLOCK:])[0, 1]) < 0.1


def test_it_is_the_same_in_another_process():
    """Nothing of a process, such as its hash seed, is in the bars."""
    code = """
        import asyncio, json
        import pandas as pd
        from tradecache.sources import Synthetic
        edges = pd.Timestamp("2024-01-02"), pd.Timestamp("2024-01-09")
        print(json.dumps(asyncio.run(Synthetic().fetch("AAPL", *edges, "1d")).to_numpy().tolist()))
    """
    here = fetched("2024-01-02", "2024-01-09", "1d").to_numpy().tolist()
    assert answer(code, env={"PYTHONHASHSEED": "7"}) == here


def test_symbols_intervals_and_seeds_are_apart():
    """Another symbol, interval or seed has other prices, and another seed another name."""
    day = ("2024-01-02", "2024-01-03")
    sources = {name: Synthetic(seed=name) for name in (0, 1)}
    closes = [
        fetched(*day, interval, symbol, source)["close"].iloc[0]
        for interval in ("1h", "1d")
        for symbol in ("AAPL", "MSFT", "née/🌍")
        for source in sources.values()
    ]
    assert len(set(closes)) == len(closes)
    assert (sources[0].name, sources[1].name) == ("synthetic", "synthetic seed=1 volatility=0.015")
    assert repr(sources[1]) == "<Synthetic seed=1>"


def test_an_empty_range_is_an_empty_frame():
    """A range between two labels has no bars."""
    assert len(fetched("2024-01-02 10:00:01", "2024-01-02 10:00:59")) == 0


def test_a_million_bars_are_no_trouble():
    """Load tests get as many bars as they like from one call."""
    bars = fetched("2020-01-01", "2022-01-01")
    assert len(bars) == 731 * 1440
    assert np.isfinite(bars.to_numpy()).all()


@pytest.mark.parametrize("volatility", [0, -1, 1, float("nan")])
def test_a_volatility_that_cannot_be_is_refused(volatility):
    """The spread of a day's returns lies between 0 and 1."""
    with pytest.raises(InvalidInput, match="volatility is "):
        Synthetic(volatility=volatility)
