"""What a price point is, what a symbol may be, and how ids sort."""

import math
import os
import threading
import time
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tradecache.errors import InvalidInput, InvalidPrice, InvalidSymbol
from tradecache.models import (
    MAX_SYMBOL,
    IdMaker,
    PriceData,
    checked_id,
    checked_symbol,
    new_ids,
    price_point,
    stamp,
)

MOMENT = datetime(2013, 3, 1, 21, tzinfo=UTC)
GOOD = {"symbol": "AAPL", "price": 189.5, "volume": 1000.0, "timestamp": MOMENT}
NAIVE = MOMENT.replace(tzinfo=None)

NOT_PRICES = [0, 0.0, -0.0, -1, math.nan, math.inf, -math.inf, None, "abc", "", [1.0], 1j, pd.NA, 10**400]
NOT_VOLUMES = [-1, -1e-9, math.nan, math.inf, -math.inf, None, "abc", [1.0], 1j, pd.NA]
NOT_TIMES = [NAIVE, date(2013, 3, 1), pd.Timestamp(NAIVE), pd.NaT, None, "2013-03-01", "soon", [MOMENT]]
NOT_MEANT = [
    *(("price", value) for value in (True, False)),
    *(("volume", value) for value in (True, False)),
    *(("timestamp", value) for value in (0, 1_577_836_800, 1.5, "1577836800", "", True, [])),
]
OUT_OF_RANGE = [
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=5))),
    pd.DatetimeIndex(np.array(["12000-01-01"], dtype="M8[s]")).tz_localize("UTC")[0],
    pd.DatetimeIndex(np.array(["-0100-01-01"], dtype="M8[s]")).tz_localize("UTC")[0],
]
FAULTS = [
    *(("price", value) for value in NOT_PRICES),
    *(("volume", value) for value in NOT_VOLUMES),
    *(("timestamp", value) for value in NOT_TIMES + OUT_OF_RANGE),
]

aware = st.datetimes(
    min_value=datetime(1, 1, 2),  # noqa: DTZ001 - the strategy adds zones
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, ZoneInfo("America/New_York"), timezone(timedelta(hours=5, minutes=30))]),
)


def in_utc(moment):
    return moment.astimezone(UTC)


def price_point_with(field, value):
    return price_point(**{**GOOD, field: value})


@pytest.mark.parametrize(("field", "value"), FAULTS)
def test_model_rejects_what_is_no_price_point(field, value):
    """`PriceData` names the field and keeps the value of what cannot be in a price point."""
    with pytest.raises(ValidationError) as caught:
        PriceData(**{**GOOD, field: value})

    (fault,) = caught.value.errors()
    assert (fault["loc"], fault["input"] is value) == ((field,), True)


@pytest.mark.parametrize(("field", "value"), FAULTS + NOT_MEANT)
def test_point_rejects_with_one_plain_sentence(field, value):
    """`price_point` says in one line which field is what, and what it must be."""
    with pytest.raises(InvalidPrice, match=rf"\A{field} is .+, but must be a?.*\Z") as caught:
        price_point_with(field, value)

    assert isinstance(caught.value, ValueError)
    assert (caught.value.field, caught.value.value is value) == (field, True)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_message_is_the_whole_story():
    """The sentence holds the field, the value and what is allowed."""
    with pytest.raises(InvalidPrice) as caught:
        price_point_with("price", -3.5)

    assert str(caught.value) == "price is -3.5, but must be a positive, finite number"


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("price", Decimal("0.00000001"), 1e-8),
        ("price", np.float32(2), 2.0),
        ("price", np.int64(2), 2.0),
        ("price", "189.5", 189.5),
        ("price", 5e-324, 5e-324),
        ("volume", 0, 0.0),
        ("volume", 0.00012345, 0.00012345),
        ("volume", Decimal("1.5"), 1.5),
        ("volume", 10**12, 1e12),
    ],
)
def test_any_number_is_kept_as_float(field, value, kept):
    """Prices and volumes may be numbers of any kind; fractional volumes (crypto) and none at all are fine."""
    result = getattr(price_point_with(field, value), field)

    assert (type(result), result) == (float, kept)


@pytest.mark.parametrize(
    "moment",
    [
        MOMENT,
        MOMENT.astimezone(ZoneInfo("America/New_York")),
        pd.Timestamp(MOMENT),
        pd.Timestamp(MOMENT).tz_convert("Asia/Tokyo"),
        pd.Timestamp(MOMENT) + pd.Timedelta(999, "ns"),
        "2013-03-01T21:00:00Z",
        "2013-03-01 16:00:00-05:00",
    ],
    ids=str,
)
def test_timestamp_is_a_plain_datetime_in_utc(moment):
    """Whatever zone or kind an aware timestamp has, a plain datetime in UTC with microseconds is kept."""
    result = price_point_with("timestamp", moment).timestamp

    assert (type(result), result, result.tzinfo) == (datetime, MOMENT, UTC)


def test_point_is_frozen_and_closed():
    """A point cannot be changed, and has no other fields."""
    point = PriceData(**GOOD)

    with pytest.raises(ValidationError, match="frozen"):
        point.price = 1.0
    with pytest.raises(ValidationError, match="open_interest"):
        PriceData(**GOOD, open_interest=5)


@given(
    price=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    volume=st.floats(min_value=0, allow_infinity=False),
    timestamp=aware,
)
def test_point_survives_json(price, volume, timestamp):
    """A point read back from its JSON equals the point."""
    point = price_point(symbol="BTC/USD", price=price, volume=volume, timestamp=timestamp)

    assert PriceData.model_validate_json(point.model_dump_json()) == point


@pytest.mark.parametrize(
    "symbol",
    [
        "AAPL", "brk.b", "BRK.B", "^GSPC", "ES=F", "BTC/USD", "a::b", "a:b", "../../etc/passwd", "CON", "x" * MAX_SYMBOL,
        "AT&T", "日経225", "🚀", "né", "ne\u0301", "a b", "'; DROP TABLE entries; --",
    ],
)  # fmt: skip
def test_symbol_is_kept_as_given(symbol):
    """Names that file systems, shells or databases dislike are symbols like any other."""
    assert checked_symbol(symbol) == symbol
    assert price_point_with("symbol", symbol).symbol == symbol


@pytest.mark.parametrize(
    ("symbol", "allowed"),
    [
        (None, "a str"),
        (5, "a str"),
        (b"AAPL", "a str"),
        (["AAPL"], "a str"),
        (math.nan, "a str"),
        ("", "1 to 255 characters long (it has 0)"),
        ("x" * 10_000, "1 to 255 characters long (it has 10,000)"),
        (" AAPL", "without white space at its ends"),
        ("AAPL\n", "without white space at its ends"),
        ("AAPL\u2003", "without white space at its ends"),
        ("A\x00B", "free of control characters and lone surrogates"),
        ("A\nB", "free of control characters and lone surrogates"),
        ("\ud83d", "free of control characters and lone surrogates"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_cannot_be_told_apart_is_no_symbol(symbol, allowed):
    """A name that could not be found again is refused, with the reason."""
    for attempt in (checked_symbol, lambda name: price_point_with("symbol", name)):
        with pytest.raises(InvalidSymbol) as caught:
            attempt(symbol)
        assert (caught.value.field, caught.value.value is symbol) == ("symbol", True)
        assert caught.value.allowed == allowed
    with pytest.raises(ValidationError, match="symbol"):
        PriceData(**{**GOOD, "symbol": symbol})


@pytest.mark.parametrize("data_id", [None, 5, b"x", ["x"], math.nan])
def test_what_is_no_text_is_no_id(data_id):
    """An id that is no str is named as `data_id`."""
    with pytest.raises(InvalidInput, match=r"^data_id is .*, but must be a str") as caught:
        checked_id(data_id)

    assert caught.value.field == "data_id"


@given(st.lists(aware, min_size=2, max_size=8))
def test_stamps_sort_as_time_does(moments):
    """The text of moments of the years 1 to 9999, in any zones, sorts as the moments do."""
    by_text = sorted(moments, key=stamp)

    assert [in_utc(moment) for moment in by_text] == sorted(map(in_utc, moments))


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime.min.replace(tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
        (datetime.max.replace(tzinfo=UTC), "9999-12-31T23:59:59.999999Z"),
        (datetime(2024, 2, 29, 12, 0, 0, 5, timezone(timedelta(hours=-5))), "2024-02-29T17:00:00.000005Z"),
    ],
)
def test_stamp_has_one_width(moment, text):
    """A stamp always has 27 characters, microseconds included."""
    assert stamp(moment) == text


@given(st.lists(aware, min_size=1, max_size=20))
def test_ids_sort_by_timestamp_then_by_creation(moments):
    """Ids sort by their timestamps, and equal timestamps by the order in which the ids were made."""
    numbered = [(new_ids([stamp(moment)])[0], in_utc(moment), n) for n, moment in enumerate(moments)]

    by_id = [(when, n) for _, when, n in sorted(numbered)]

    assert by_id == sorted((when, n) for _, when, n in numbered)


def test_ids_of_one_call_increase():
    """Ids that are made together for one timestamp keep their order, and come before the next call's."""
    first, second = new_ids([stamp(MOMENT)] * 1000), new_ids([stamp(MOMENT)])

    assert first + second == sorted({*first, *second})


def test_ids_increase_when_the_wall_clock_is_set_back():
    """A maker whose last id lies in the future goes on from there."""
    maker = IdMaker()
    maker._last = time.time_ns() + 3600 * 10**9

    made = [maker.ids(["t"])[0] for _ in range(3)]

    assert made == sorted(set(made))


def test_ids_are_unique_over_threads():
    """Eight threads that make ids for one timestamp never make the same."""
    made: list[list[str]] = []

    def make() -> None:
        made.append([new_ids([stamp(MOMENT)])[0] for _ in range(2000)])

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({data_id for each in made for data_id in each}) == 16_000
    assert all(each == sorted(each) for each in made)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # other tests have threads running
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_ids_are_unique_over_forked_processes():
    """A forked child takes a mark of its own, so that it cannot repeat its parent's or sibling's ids."""
    marks = {new_ids([stamp(MOMENT)])[0][-8:]}
    for _ in range(2):
        reader, writer = os.pipe()
        if not (child := os.fork()):
            os.write(writer, new_ids([stamp(MOMENT)])[0][-8:].encode())
            os._exit(0)
        os.waitpid(child, 0)
        marks.add(os.read(reader, 8).decode())
        os.close(reader)
        os.close(writer)

    assert len(marks) == 3
