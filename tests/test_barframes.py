import logging
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tradecache.barframes import COLUMNS, PRICES, empty_bars, normal_bars
from tradecache.errors import InvalidBars

START, END = pd.Timestamp("2024-03-08 14:30", tz="UTC"), pd.Timestamp("2024-03-12 14:30", tz="UTC")
FIRST, LAST = pd.Timestamp("2024-03-01"), pd.Timestamp("2024-04-01")
ZONES = ["America/New_York", "Asia/Tokyo", "Asia/Kolkata", "UTC"]


def bars(index, *, volume="int64", extra=True):
    """Return bars in our form, no two of them alike."""
    low = np.arange(10.0, 10 + len(index))
    frame = pd.DataFrame(
        {
            "open": low + 1,
            "high": low + 3,
            "low": low,
            "close": low + 2,
            "volume": np.arange(len(index)) * 100,
        },
        index=pd.DatetimeIndex(index, name="timestamp", freq=None).as_unit("us"),
    ).astype({"volume": volume})
    return frame.assign(adj_close=low + 0.5) if extra else frame


def minutes(count=6):
    """Return minute bars over the weekend in which New York's clocks change."""
    return bars(pd.date_range(START, END, periods=count + 1, inclusive="left"))


def days(count=6):
    return bars(pd.date_range(FIRST, periods=count))


def of_minutes(frame):
    return normal_bars(frame, interval="1m", start=START, end=END, name="X 1m")


def of_days(frame, interval="1d"):
    return normal_bars(frame, interval=interval, start=FIRST, end=LAST)


def assert_same(left, right):
    pd.testing.assert_frame_equal(left, right, check_exact=True, check_freq=True, check_column_type=False)


def faults(frame, interval="1m"):
    with pytest.raises(InvalidBars) as caught:
        of_minutes(frame) if interval == "1m" else of_days(frame, interval)
    return caught.value.rows


def test_bars_in_our_form_stay_as_they_are(caplog):
    """What is in order is handed out as it came, and nothing is noted."""
    caplog.set_level(logging.DEBUG)
    assert_same(of_minutes(minutes()), minutes())
    assert_same(of_days(days()), days())
    assert caplog.records == []


shuffled = st.randoms(use_true_random=False)


def in_disorder(frame, rng):
    return frame.iloc[rng.sample(range(len(frame)), len(frame))]


def with_old_versions(frame, rng):
    """Put other bars of some labels before the right ones."""
    return pd.concat([frame.sample(3, random_state=rng.randrange(99)) * 2, frame])


def with_strangers(frame, rng):
    """Add bars outside of the range: one in each direction, the end itself among them."""
    labels = [START - pd.Timedelta("1us"), END, END + pd.Timedelta("1D")]
    return pd.concat([frame, bars(pd.DatetimeIndex(labels).tz_convert(frame.index.tz))])


def with_holes(frame, rng):
    """Add bars without any price."""
    labels = pd.DatetimeIndex([START + pd.Timedelta("7s"), END - pd.Timedelta("7s")]).tz_convert(
        frame.index.tz
    )
    return pd.concat([frame, bars(labels).assign(**dict.fromkeys(PRICES, np.nan))])


def elsewhere(frame, rng):
    return frame.tz_convert(rng.choice(ZONES))


def without_zone(frame, rng):
    return frame.tz_convert("UTC").tz_localize(None)


def as_objects(frame, rng):
    kinds = [str, Decimal, float, np.float32 if len(frame) < 50 else float]
    return frame.assign(
        **{name: [rng.choice(kinds)(value) for value in frame[name]] for name in PRICES}
    ).astype(dict.fromkeys(PRICES, object))


def in_nullable_types(frame, rng):
    return frame.convert_dtypes()


def in_capitals(frame, rng):
    return frame.rename(columns=lambda name: name.replace("_", rng.choice([" ", "-", "_"])).title())


def of_one_ticker(frame, rng):
    levels = [[name.title() for name in frame.columns], ["AAPL"]]
    columns = pd.MultiIndex.from_product(levels, names=["Price", "Ticker"])
    return frame.set_axis(columns if rng.random() < 0.5 else columns.swaplevel(), axis=1)


def in_another_unit(frame, rng):
    return frame.set_axis(frame.index.as_unit("ns"))


def labels_in_a_column(frame, rng):
    name = rng.choice(["Date", "Datetime", "timestamp", "time"])
    return frame.rename_axis(name).reset_index()


def labels_as_text(frame, rng):
    return frame.set_axis(
        pd.Index([moment.isoformat() for moment in frame.index], dtype=rng.choice([object, "str"]))
    )


def labels_as_objects(frame, rng):
    return frame.set_axis(pd.Index(list(frame.index), dtype=object))


def below_its_symbol(frame, rng):
    return pd.concat({"AAPL": frame}, names=["symbol"])


ROWS = [in_disorder, with_old_versions, with_strangers, with_holes]
VALUES = [as_objects, in_nullable_types]
ZONE = [elsewhere, without_zone, in_another_unit]
NAMES = [in_capitals, of_one_ticker]
LABELS = [labels_in_a_column, labels_as_text, labels_as_objects, below_its_symbol]
optionally = lambda changes: st.sampled_from([None, *changes])  # noqa: E731 - a strategy, as those of hypothesis


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from(ROWS), max_size=3),
    optionally(VALUES),
    optionally(ZONE),
    optionally(LABELS),
    optionally(NAMES),
    shuffled,
)
def test_whatever_was_done_to_bars_is_undone(rows, values, zone, labels, names, rng):
    """Bars out of order, twice, beside the range or empty, in any zone, type or naming, come out as they were."""
    frame = minutes()
    for change in [*sorted(rows, key=lambda each: each is in_disorder)[::-1], values, zone, labels]:
        frame = frame if change is None else change(frame, rng)
    if names is of_one_ticker and labels is labels_in_a_column:
        names = in_capitals
    frame = frame if names is None else names(frame, rng)
    assert_same(of_minutes(frame), minutes())


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_of_several_bars_with_one_label_the_last_one_counts(places):
    """Whatever the order in which labels come again, each has the bar that came last."""
    index = minutes().index[places]
    frame = bars(index)
    result = of_minutes(frame)
    last = {label: close for label, close in zip(frame.index, frame["close"], strict=True)}  # noqa: C416 - the last counts
    assert result["close"].to_dict() == last
    assert result.index.is_monotonic_increasing


def test_the_frame_that_came_stays_as_it_was():
    """A provider's frame may be handed to many, and is not changed; nor is what was made of it, when it is."""
    came = with_holes(minutes().iloc[::-1], None)
    before = came.copy()
    result = of_minutes(came)
    pd.testing.assert_frame_equal(came, before)
    came.iloc[:, :] = 0
    assert_same(result, minutes())


@pytest.mark.parametrize(
    ("change", "level", "note"),
    [
        (lambda frame: frame.iloc[::-1], "INFO", "X 1m: 6 bars put in order"),
        (lambda frame: pd.concat([frame, frame.iloc[-1:]]), "INFO", "X 1m: 1 bars came again, the last one of each label is kept"),
        (lambda frame: with_strangers(frame, None), "INFO", "X 1m: 3 bars outside the range that was asked for are left out"),
        (lambda frame: frame.reset_index(), "INFO", "X 1m: 6 labels taken from a column"),
        (lambda frame: frame.tz_localize(None), "WARNING", "X 1m: 6 labels without a zone taken as UTC"),
        (lambda frame: with_holes(frame, None).sort_index(), "WARNING", "X 1m: 2 bars without any price are left out"),
        (lambda frame: frame.tz_convert("Asia/Tokyo"), None, None),
        (lambda frame: frame.astype(object), None, None),
    ],
    ids=["order", "duplicates", "range", "column", "zone", "no price", "other zone", "objects"],
)  # fmt: skip
def test_each_repair_is_noted_once(caplog, change, level, note):
    """A repair is one line in the log for the whole answer; what is only another spelling needs none."""
    caplog.set_level(logging.DEBUG, logger="tradecache")
    of_minutes(change(minutes()))
    noted = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [each for each in noted if each[1] != "X 1m: 9 bars put in order"] == (
        [(level, note)] if note else []
    )


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "Pacific/Auckland", "UTC"])
def test_daily_labels_are_the_dates_that_they_show(zone):
    """An aware midnight, a close at 16:00 and a naive date are all that session's date, also where clocks change."""
    expected = bars(pd.date_range(FIRST, "2024-03-31"))
    aware = pd.date_range(FIRST, "2024-03-31", tz=zone)
    for index in (
        aware,
        aware + pd.Timedelta("16h"),
        aware.tz_localize(None),
        aware.date,
        [day.isoformat() for day in aware],
    ):
        assert_same(of_days(expected.set_axis(pd.Index(index))), expected)


def test_text_with_summer_s_and_winter_s_offsets_is_understood():
    """Text whose offsets change in its midst, as yfinance's frames have in CSV files, is one series of instants."""
    index = pd.date_range("2024-03-08 10:00", periods=4, freq="D", tz="America/New_York")
    frame = bars(index.tz_convert("UTC"))
    text = frame.set_axis(pd.Index([moment.isoformat() for moment in index]))
    assert_same(of_minutes(text), frame)


@pytest.mark.parametrize(
    ("interval", "came", "labels"),
    [
        ("1wk", ["2024-03-08", "2024-03-15"], ["2024-03-04", "2024-03-11"]),
        ("1wk", ["2024-03-10", "2024-03-11"], ["2024-03-04", "2024-03-11"]),
        ("1mo", ["2024-03-31"], ["2024-03-01"]),
    ],
    ids=["Fridays", "Sunday and Monday", "month's end"],
)
def test_longer_bars_are_labelled_by_their_first_day(interval, came, labels):
    """Weeks have the label of their Monday, months that of their first, whichever day a provider chose."""
    result = of_days(bars(pd.DatetimeIndex(came)), interval)
    assert_same(result, bars(pd.DatetimeIndex(labels)))


def test_periods_are_labels():
    """An index of periods is one of their first days."""
    frame = bars(pd.date_range(FIRST, periods=3))
    assert_same(of_days(frame.set_axis(pd.period_range(FIRST, periods=3, freq="D"))), frame)


@pytest.mark.parametrize(
    ("volume", "dtype"),
    [
        (np.arange(6, dtype="int32"), "int64"), (np.arange(6, dtype="uint64"), "int64"),
        (np.arange(6, dtype="float32"), "float64"), (pd.array([0, 1, 2, 3, 4, 5], dtype="Int64"), "int64"),
        (pd.array([0, None, 2, 3, 4, 5], dtype="Int64"), "float64"), (list("012345"), "int64"),
        ([0, 1, 2.5, 3, 4, None], "float64"), ([np.nan] * 6, "float64"), ([None] * 6, "float64"),
        (np.full(6, 2**64 - 1, dtype="uint64"), "float64"),
    ],
)  # fmt: skip
def test_volume_is_whole_where_it_came_whole(volume, dtype):
    """Whole numbers are int64, all else float64; that none is known of an index or a currency is no fault."""
    result = of_minutes(minutes().assign(volume=volume))["volume"]
    assert result.dtype == dtype
    assert (result.min() >= 0) or result.isna().all()


def test_other_columns_come_after_the_five():
    """Further columns are kept: numbers as objects become numbers, text and the rest stay what they are."""
    objects = {
        "note": ["a", "b", None, "d", "e", "f"],
        "Trades": ["1", 2, 3, 4, 5, None],
        "halted": [True, False] * 3,
        "legs": [[1], [2], [3], [4], [5], [6]],
    }
    columns = {
        name: pd.Series(values, dtype=object, index=minutes().index) for name, values in objects.items()
    }
    result = of_minutes(minutes()[["adj_close", *COLUMNS[::-1]]].assign(**columns))
    assert list(result.columns) == [*COLUMNS, "adj_close", "note", "trades", "halted", "legs"]
    assert (result["trades"].dtype, result["trades"].sum(), result["halted"].dtype) == ("float64", 15, "bool")
    assert [result["note"].tolist()[:2], result["legs"].tolist()] == [["a", "b"], objects["legs"]]


@pytest.mark.parametrize(
    "change", [lambda frame: -frame[["open", "high", "low", "close"]], lambda frame: frame[PRICES] * 0]
)
def test_negative_prices_are_real(change):
    """Oil was below zero once: negative prices, and zero, pass."""
    frame = minutes()
    changed = frame.assign(**change(frame)).rename(columns={"high": "low", "low": "high"})
    assert (of_minutes(changed)["close"] <= 0).all()


def at(row, column, value):
    frame = minutes().astype({"volume": "float64"})
    frame.iloc[row, frame.columns.get_loc(column)] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        (at(2, "open", np.nan), (2, "open", None, "a finite number")),
        (at(2, "close", np.inf), (2, "close", np.inf, "a finite number")),
        (at(2, "low", -np.inf), (2, "low", -np.inf, "a finite number")),
        (at(2, "high", 11.9), (2, "high", 11.9, "at least low, 12.0")),
        (at(2, "volume", np.inf), (2, "volume", np.inf, "a finite number or NaN")),
        (
            at(2, "open", 1.0).astype({"open": object}).replace({"open": {1.0: "n/a"}}),
            (2, "open", "n/a", "a number"),
        ),
    ],
    ids=["missing", "infinite", "minus infinite", "upside down", "volume", "text"],
)
def test_a_row_that_is_no_bar_is_named(frame, fault):
    """A fault says which row, which field, what it holds and what would do."""
    row, field, value, allowed = fault
    ((label, found_field, found, found_allowed),) = faults(frame)
    assert (label, found_field, found_allowed) == (minutes().index[row], field, allowed)
    assert found == value or (value is None and np.isnan(found))


def test_every_row_that_is_no_bar_is_named():
    """All faults are there, in order; the sentence shows the first few and counts the others."""
    frame = bars(pd.date_range(START, periods=8, freq="min"))
    frame.loc[:, "open"] = np.nan
    with pytest.raises(InvalidBars) as caught:
        of_minutes(frame)
    assert [row[0] for row in caught.value.rows] == list(frame.index)
    assert (
        str(caught.value)
        == "nothing was stored: "
        + "; ".join(f"{label}: open is nan, but must be a finite number" for label in frame.index[:5])
        + "; and 3 more"
    )


def test_a_bad_row_outside_the_range_is_nobody_s_fault():
    """What was not asked for is cut off before it is looked at."""
    bad = bars(pd.DatetimeIndex([END])).assign(high=-1.0)
    assert_same(of_minutes(pd.concat([minutes(), bad])), minutes())


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (None, "frame is None, but must be a DataFrame"),
        (minutes()["close"], "(?s)frame is .*, but must be a DataFrame"),
        (minutes().drop(columns=["volume"]), "columns is .*, but must be open, high, low, close, volume"),
        (minutes().assign(Close=1.0), "columns is .*, but must be .* each of them once"),
        (pd.concat([minutes(), minutes()], axis=1), "columns is .*, but must be .* each of them once"),
        (pd.concat({"AAPL": minutes(), "MSFT": minutes()}, axis=1), "columns is .*, but must be those of one symbol"),
        (pd.concat({"AAPL": minutes(), "MSFT": minutes()}), "timestamp is .*, but must be a time"),
        (minutes().reset_index(drop=True), "timestamp is 0, but must be a time, or text in ISO 8601"),
        (minutes().set_axis([1704205800000 + n for n in range(6)]), "timestamp is 1704205800000, but must be a time"),
        (minutes().set_axis(["01/02/2024"] * 6), "timestamp is .*01/02/2024"),
        (minutes().set_axis(["soon"] * 6), "timestamp is .*soon"),
        (minutes().set_axis([*minutes().index[:5], pd.NaT]), "row 5: timestamp is NaT, but must be a time"),
        (minutes().assign(open=pd.Timestamp(0)), "open is Timestamp.*, but must be a number"),
        (minutes().assign(open=pd.Series([[1]] * 6, index=minutes().index)), "open is .*, but must be a number"),
        (minutes().assign(open=True), "open is .*True.*, but must be a number"),
    ],
    ids=["nothing", "a series", "no volume", "two spellings", "twice", "two symbols", "two symbols below", "no labels",
         "numbers", "day or month", "words", "no time", "times as prices", "lists as prices", "truth as prices"],
)  # fmt: skip
def test_what_are_no_bars_is_refused(frame, words):
    """A frame that cannot be read as bars is an error that says what is wrong with it."""
    with pytest.raises(InvalidBars, match=words):
        of_minutes(frame)


def test_ambiguous_days_are_refused_for_daily_bars_too():
    """01/02/2024 is two days, so it is none."""
    with pytest.raises(InvalidBars, match="01/02/2024"):
        of_days(days().set_axis(["01/02/2024"] * 6))


@pytest.mark.parametrize(
    "frame", [pd.DataFrame(), minutes().iloc[:0], pd.DataFrame(columns=["Open", "Close"])]
)
def test_no_rows_are_an_empty_frame(frame):
    """An answer without rows is no bars, whatever its columns are."""
    assert_same(of_minutes(frame), empty_bars("1m"))


def test_when_nothing_is_left_types_and_columns_stay():
    """Where every bar lies outside of the range, the empty frame is otherwise that of the bars."""
    result = of_minutes(bars(pd.date_range(END, periods=3, freq="min")))
    assert_same(result, minutes().iloc[:0])


@pytest.mark.parametrize(
    ("interval", "dtype"),
    [("1m", "datetime64[us, UTC]"), ("1d", "datetime64[us]"), ("1mo", "datetime64[us]")],
)
def test_an_empty_frame_has_the_types_of_bars(interval, dtype):
    """No bars have the index of their interval, and five columns of floats."""
    frame = empty_bars(interval)
    assert (frame.index.dtype, frame.index.name) == (dtype, "timestamp")
    assert frame.dtypes.to_dict() == dict.fromkeys(COLUMNS, "float64")
