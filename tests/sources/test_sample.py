import pandas as pd
import pytest
from loops import run

from tradecache.barframes import normal_bars
from tradecache.errors import InvalidInput, NoBars, UnknownSymbol
from tradecache.samples import sample_bars, sample_points
from tradecache.sources import SampleData, traits_of

pytest.importorskip("bokeh_sampledata")


def fetched(symbol="AAPL", start="2012-12-24", end="2012-12-29", interval="1d"):
    return run(SampleData().fetch(symbol, pd.Timestamp(start), pd.Timestamp(end), interval))


def test_the_bars_of_a_range():
    """The first day belongs to the range, the last does not; days without a session have no bar."""
    frame = fetched(end="2012-12-28")
    assert [f"{day:%m-%d}" for day in frame.index] == ["12-24", "12-26", "12-27"]
    assert frame.loc["2012-12-26"].to_dict() == {
        "open": 519.00, "high": 519.46, "low": 511.12, "close": 512.9995, "volume": 10801300, "adj_close": pytest.approx(66.523474),
    }  # fmt: skip


@pytest.mark.parametrize("symbol", ["AAPL", "FB", "GOOG", "IBM", "MSFT"])
def test_every_bar_is_sound(symbol):
    """All that there is is in our form already."""
    frame = sample_bars()[symbol]
    bars = normal_bars(frame, interval="1d", start=pd.Timestamp("1990"), end=pd.Timestamp("2020"))
    pd.testing.assert_frame_equal(bars, frame)
    assert traits_of(SampleData()).first(symbol, "1d") == frame.index[0]


def test_points_and_bars_are_the_same_data():
    """Each bar's close is a price point."""
    points = sample_points()
    assert len(points) == sum(map(len, sample_bars().values())) == 12_154
    assert points.groupby("symbol")["price"].sum().to_dict() == {
        symbol: pytest.approx(bars["close"].sum()) for symbol, bars in sample_bars().items()
    }


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [("2010-01-01", "2012-05-18", "before_listing"), ("2013-03-02", "2014-01-01", "outside_window")],
)
def test_absence_has_a_reason(start, end, reason):
    """Before Facebook was listed there are none, and after the data end nothing is known."""
    with pytest.raises(NoBars) as caught:
        fetched("FB", start, end)
    assert caught.value.reason == reason


def test_a_weekend_is_empty():
    """A range without sessions has no bars, and the columns of bars."""
    frame = fetched(start="2012-12-29", end="2012-12-31")
    assert (len(frame), "close" in frame) == (0, True)


def test_what_there_is_not_is_named():
    """Another symbol and another interval are errors that list what there is."""
    with pytest.raises(UnknownSymbol, match=r"'TSLA' \(there are AAPL, FB, GOOG, IBM, MSFT\)"):
        fetched("TSLA")
    with pytest.raises(InvalidInput, match="interval is '1h', but must be '1d'"):
        fetched(interval="1h")


def test_what_it_says_of_itself():
    """It keeps New York's hours, and its bars change no more."""
    traits = traits_of(SampleData())
    assert (traits.calendar_for("AAPL"), traits.settle, traits.adjusted) == ("XNYS", pd.Timedelta(0), False)
    assert repr(SampleData()) == "<SampleData AAPL FB GOOG IBM MSFT>"
