"""Price points as the rows of frames, there and back."""

import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from tradecache.errors import InvalidInput, InvalidPrices
from tradecache.models import PriceData
from tradecache.points import Latest, columns_of, latest_frame, points_between, points_frame
from tradecache.stores.abilities import Entry

MOMENT = datetime(2013, 3, 1, 21, tzinfo=UTC)
DTYPES = {"symbol": "str", "price": "float64", "volume": "float64", "expires_at": "datetime64[us, UTC]"}
LATEST = {
    "price": "float64",
    "volume": "float64",
    "timestamp": "datetime64[us, UTC]",
    "age": "timedelta64[us]",
    "ttl": "timedelta64[us]",
}
symbols = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=10).filter(
    lambda text: text == text.strip()
)
points = st.builds(
    PriceData,
    symbol=symbols,
    price=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    volume=st.floats(min_value=0, allow_infinity=False),
    timestamp=st.datetimes(timezones=st.just(UTC)),
)


def entry(point: PriceData, expires: int | None = None) -> Entry:
    return Entry("some id", point.model_dump_json().encode(), 0, expires)


def entry_of(text: str) -> Entry:
    return Entry("some id", text.encode(), 0, None)


def frame(**columns) -> pd.DataFrame:
    good = {
        "symbol": ["AAPL", "MSFT"],
        "price": [189.5, 420.25],
        "volume": [1000.0, 0.5],
        "timestamp": pd.DatetimeIndex([MOMENT, MOMENT + timedelta(days=1)]),
    }
    return pd.DataFrame({**good, **columns})


def points_of(given: pd.DataFrame) -> list[PriceData]:
    """Return the rows of a frame as points, taken two at a time."""
    columns, found, faults = columns_of(given), [], []
    for first in range(0, len(given), 2):
        some, wrong = points_between(columns, range(first, min(first + 2, len(given))))
        found += some
        faults += wrong
    if faults:
        raise InvalidPrices(faults)
    return found


GOOD = points_of(frame())


def faults_of(broken: pd.DataFrame) -> list[tuple[int, str]]:
    with pytest.raises(InvalidPrices) as caught:
        points_of(broken)
    assert str(caught.value).startswith("nothing was stored: row ")
    return [(row, field) for row, field, _, _ in caught.value.rows]


def dtypes(result: pd.DataFrame) -> dict[str, str]:
    return {name: str(dtype) for name, dtype in result.dtypes.items()}


@given(st.lists(st.tuples(points, st.none() | st.integers(0, 10**17)), max_size=20))
def test_entries_become_a_frame(rows):
    """Each entry is one row, its numbers exact to the last bit, whatever its symbol and year."""
    result = points_frame([entry(point, expires) for point, expires in rows])

    assert result["symbol"].to_list() == [point.symbol for point, _ in rows]
    assert result["price"].to_list() == [point.price for point, _ in rows]
    assert result["volume"].to_list() == [point.volume for point, _ in rows]
    assert [stamp.to_pydatetime() for stamp in result.index] == [point.timestamp for point, _ in rows]
    assert result["expires_at"].isna().to_list() == [expires is None for _, expires in rows]


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_dtypes_are_the_same_for_any_number_of_rows(count):
    """Columns, dtypes, index name and unit are pinned, for an empty answer too."""
    result = points_frame([entry(GOOD[0])] * count)

    assert (len(result), dtypes(result)) == (count, DTYPES)
    assert (result.index.name, str(result.index.dtype)) == ("timestamp", "datetime64[us, UTC]")


def test_expiry_is_a_moment_in_utc():
    """`expires_at` is NaT for what lives for ever."""
    result = points_frame([entry(GOOD[0], 1_362_171_600_000_000), entry(GOOD[0])])

    assert result["expires_at"].to_list() == [pd.Timestamp("2013-03-01 21:00", tz="UTC"), pd.NaT]


@pytest.mark.parametrize(
    "junk",
    [
        '{"symbol":"A","price":1.0,"volume":1.0}',
        '{"symbol":"A","price":null,"volume":1.0,"timestamp":"2013-03-01T21:00:00Z"}',
        '{"symbol":"A","price":-1.0,"volume":1.0,"timestamp":"2013-03-01T21:00:00Z"}',
        '{"symbol":"A","price":1.0,"volume":-1.0,"timestamp":"2013-03-01T21:00:00Z"}',
        '{"symbol":"A","price":1.0,"volume":1.0,"timestamp":"2013-03-01T21:00:00Z","x":1}',
        '{"symbol":"A","price":[],"volume":1.0,"timestamp":"2013-03-01T21:00:00Z"}',
        "{}",
        "[]",
    ],
)
def test_stored_junk_is_a_logged_miss(junk, caplog):
    """What is stored under a symbol but is no price point is left out and logged; the rest is there."""
    result = points_frame([entry(GOOD[0]), entry_of(junk), entry(GOOD[1])])

    assert_frame_equal(result, points_frame([entry(GOOD[0]), entry(GOOD[1])]))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "is no price point" in caplog.text


def test_frame_becomes_points():
    """Each row is one point, in the frame's order."""
    assert points_of(frame()) == [
        PriceData(symbol="AAPL", price=189.5, volume=1000.0, timestamp=MOMENT),
        PriceData(symbol="MSFT", price=420.25, volume=0.5, timestamp=MOMENT + timedelta(days=1)),
    ]


@given(st.lists(points, max_size=20))
def test_frame_of_points_becomes_the_points(some):
    """What `prices` shows can be stored again as it is, and gives the same points."""
    assert points_of(points_frame([entry(point) for point in some])) == some


@pytest.mark.parametrize(
    "same",
    [
        lambda: frame().set_index("timestamp"),
        lambda: frame().set_index("timestamp").rename_axis(None),
        lambda: frame().set_index("timestamp", drop=False),
        lambda: frame(index_of=["x", "y"]).set_index("index_of"),
        lambda: frame(extra=[1, 2])[["extra", "timestamp", "volume", "price", "symbol"]],
        lambda: pd.concat([frame(extra=1), frame(extra=2)[["extra"]]], axis=1),
        lambda: frame(symbol=pd.Categorical(["AAPL", "MSFT"])),
        lambda: frame(symbol=pd.array(["AAPL", "MSFT"], dtype="string[pyarrow]")),
        lambda: frame(symbol=pd.Series(["AAPL", "MSFT"], dtype="object")),
        lambda: frame(price=pd.Series([189.5, 420.25], dtype="object")),
        lambda: frame(price=[Decimal("189.5"), Decimal("420.25")]),
        lambda: frame(price=np.array([189.5, 420.25], dtype="float32")),
        lambda: frame(price=pd.array([189.5, 420.25], dtype="Float64")),
        lambda: frame(price=pd.array([189.5, 420.25], dtype="float64[pyarrow]")),
        lambda: frame(price=pd.arrays.SparseArray([189.5, 420.25])),
        lambda: frame(price=["189.5", "420.25"]),
        lambda: frame(timestamp=frame()["timestamp"].dt.tz_convert("America/New_York")),
        lambda: frame(timestamp=frame()["timestamp"].dt.as_unit("ns") + pd.Timedelta(7, "ns")),
        lambda: frame(timestamp=frame()["timestamp"].dt.as_unit("s")),
        lambda: frame(timestamp=pd.Series([MOMENT, MOMENT + timedelta(days=1)], dtype="object")),
        lambda: frame(timestamp=["2013-03-01T21:00:00Z", "2013-03-02 16:00:00-05:00"]),
    ],
)
def test_frame_may_hold_points_in_many_ways(same):
    """Timestamps may be the index, other columns are left out, and any dtype that holds the values will do."""
    assert points_of(same()) == GOOD


def test_whole_volumes_may_be_integers():
    """A column of int64 is fine."""
    result = points_of(frame(volume=[1000, 2000]))

    assert [(point.volume, type(point.volume)) for point in result] == [(1000.0, float), (2000.0, float)]


def test_no_rows_are_no_points():
    """An empty frame with the right columns holds no points."""
    assert points_of(frame().iloc[:0]) == []


@pytest.mark.parametrize(
    ("field", "column"),
    [
        ("price", [1.0, None]),
        ("price", [1.0, math.nan]),
        ("price", [1.0, math.inf]),
        ("price", [1.0, 0.0]),
        ("price", pd.array([1, pd.NA], dtype="Int64")),
        ("price", pd.Series([1.0, True], dtype="object")),
        ("price", pd.Series([1.0, "one"], dtype="object")),
        ("price", pd.Series([1, 10**400], dtype="object")),
        ("price", pd.Series([1.0, [1.0]], dtype="object")),
        ("volume", [0, -1]),
        ("volume", pd.array([0.5, pd.NA], dtype="Float64")),
        ("symbol", ["A", ""]),
        ("symbol", ["A", None]),
        ("symbol", pd.Series(["A", 5], dtype="object")),
        ("symbol", pd.Series(["A", b"B"], dtype="object")),
        ("symbol", ["A", " B"]),
        ("symbol", pd.Categorical(["A", None])),
        ("timestamp", pd.DatetimeIndex([MOMENT, pd.NaT])),
        ("timestamp", pd.Series([MOMENT, MOMENT.replace(tzinfo=None)], dtype="object")),
        ("timestamp", pd.Series([MOMENT, MOMENT.date()], dtype="object")),
        ("timestamp", pd.Series([MOMENT, 1_577_836_800], dtype="object")),
        ("timestamp", pd.Series([MOMENT, datetime.max.replace(tzinfo=timezone(-timedelta(hours=5)))])),
        ("timestamp", pd.DatetimeIndex(np.array(["2013", "12000"], "M8[s]")).tz_localize("UTC")),
        ("timestamp", pd.DatetimeIndex(np.array(["2013", "-0100"], "M8[s]")).tz_localize("UTC")),
    ],
)  # fmt: skip
def test_row_that_is_no_point_is_named(field, column):
    """The error names the row and the field of what is no price point."""
    assert faults_of(frame(**{field: column})) == [(1, field)]


@pytest.mark.parametrize(
    ("field", "column"),
    [
        ("price", [True, False]),
        ("volume", [True, False]),
        ("price", [1 + 0j, 2j]),
        ("symbol", [1, 2]),
        ("timestamp", [1_577_836_800, 1_577_836_801]),
        ("timestamp", pd.DatetimeIndex([MOMENT, MOMENT]).tz_localize(None)),
        ("timestamp", ["2013-03-01", "2013-03-02"]),
        ("timestamp", pd.period_range("2013-03-01", periods=2, freq="D")),
    ],
)
def test_column_of_a_wrong_kind_is_named_row_by_row(field, column):
    """Booleans are no numbers, numbers are no times, and naive times are no moments: in no row."""
    assert faults_of(frame(**{field: column})) == [(0, field), (1, field)]


def test_naive_index_is_named():
    """Naive timestamps in the index are as wrong as in a column."""
    assert faults_of(frame().set_index("timestamp").tz_localize(None)) == [(0, "timestamp"), (1, "timestamp")]


def test_error_keeps_values_and_what_is_allowed():
    """The error holds all faults in the order of the frame, with the values as they were given."""
    broken = frame(price=pd.Series([True, -2.0], dtype="object"), symbol=["", "MSFT"])

    with pytest.raises(InvalidPrices) as caught:
        points_of(broken)

    number = "a positive, finite number"
    assert caught.value.rows == [
        (0, "symbol", "", "1 to 255 characters long (it has 0)"),
        (0, "price", True, number),
        (1, "price", -2.0, number),
    ]
    assert str(caught.value) == (
        "nothing was stored: row 0: symbol is '', but must be 1 to 255 characters long (it has 0); "
        "row 0: price is True, but must be a positive, finite number; "
        "row 1: price is -2.0, but must be a positive, finite number"
    )


def test_error_with_many_rows_stays_short():
    """Of many faulty rows the sentence shows five and counts the rest; `rows` has them all."""
    broken = pd.concat([frame(price=[-1, -1])] * 1000)

    with pytest.raises(InvalidPrices) as caught:
        points_of(broken)

    assert len(caught.value.rows) == 2000
    assert str(caught.value).endswith("; and 1995 more")
    assert str(caught.value).count("row ") == 5


@pytest.mark.parametrize(
    "wrong",
    [None, 5, "AAPL", [1, 2], {"symbol": ["A"]}, frame()["price"], frame().to_numpy(), GOOD],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_frame_is_named(wrong):
    """Only a DataFrame is taken apart."""
    with pytest.raises(InvalidInput, match=r"(?s)^frame is .*, but must be a DataFrame$"):
        points_of(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        frame().drop(columns="price"),
        frame().drop(columns="timestamp"),
        frame().set_index("symbol"),
        frame().set_index(["symbol", "timestamp"]),
        frame().rename(columns=str.capitalize),
        frame().rename(columns={"price": 0}),
        pd.concat([frame(), frame()[["price"]]], axis=1),
        pd.concat({"prices": frame()}, axis=1),
        pd.DataFrame(),
    ],
    ids=lambda value: " ".join(map(str, value.columns)) or "none",
)
def test_wrong_columns_are_shown(wrong):
    """A frame without the right columns, or with one of them twice, shows those it has and those it needs."""
    with pytest.raises(InvalidInput) as caught:
        points_of(wrong)

    assert (caught.value.field, caught.value.value) == ("frame.columns", list(wrong.columns))
    assert caught.value.allowed.startswith("symbol, price, volume and timestamp")


def test_frame_is_left_alone():
    """The caller's frame is not changed."""
    given_, kept = frame().set_index("timestamp"), frame().set_index("timestamp")

    points_of(given_)

    assert_frame_equal(given_, kept)


def test_latest_is_one_row_for_each_symbol_with_a_point():
    """Symbols without a live point are left out; age is since the timestamp, ttl is what is left."""
    now = MOMENT + timedelta(minutes=1)

    result = latest_frame(
        {"AAPL": Latest(GOOD[0], 2.5), "GONE": None, "MSFT": Latest(GOOD[0], None)}, now=now
    )

    assert result.index.to_list() == ["AAPL", "MSFT"]
    assert result["age"].to_list() == [pd.Timedelta("1min")] * 2
    assert result["ttl"].to_list() == [pd.Timedelta("2.5s"), pd.NaT]
    assert result["timestamp"].to_list() == [pd.Timestamp(MOMENT)] * 2


@pytest.mark.parametrize("found", [{}, {"AAPL": None}, {"AAPL": Latest(GOOD[0], None)}])
def test_latest_has_the_same_dtypes_when_empty(found):
    """Columns, dtypes and the index's name are pinned."""
    result = latest_frame(found, now=MOMENT)

    assert dtypes(result) == LATEST
    assert (result.index.name, str(result.index.dtype)) == ("symbol", "str")


@pytest.mark.parametrize("ttl", [1e-6, 3.2e9, 1e11])
@pytest.mark.parametrize("year", [1, 2013, 9999])
def test_latest_holds_any_age_and_ttl(ttl, year):
    """A ttl of three thousand years and a timestamp of any year fit."""
    point = GOOD[0].model_copy(update={"timestamp": MOMENT.replace(year=year)})

    result = latest_frame({"AAPL": Latest(point, ttl)}, now=MOMENT)

    assert result["ttl"].to_list() == [pd.Timedelta(round(ttl * 1e6), "us")]
    assert result["age"].to_list() == [pd.Timestamp(MOMENT).as_unit("us") - pd.Timestamp(point.timestamp)]
