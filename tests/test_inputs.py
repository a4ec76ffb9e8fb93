"""Wrong arguments: each is a clear error that names the argument, its value and what is allowed."""

import math
from datetime import UTC, datetime, time, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from loops import run

from tradecache import (
    InvalidInput,
    InvalidPrice,
    InvalidPrices,
    InvalidSymbol,
    InvalidTTL,
    Settings,
    TradeCache,
    TradeCacheError,
    TradingDataCache,
    warm_cache,
)

NOON = datetime(2024, 6, 3, 12, tzinfo=UTC)

NO_SYMBOL = [None, 5, 1.5, math.nan, b"AAPL", ["AAPL"], ("AAPL",), {}, "", " AAPL", "A\0B", "A\nB", "\ud800", "x" * 256, object()]  # fmt: skip
NO_SYMBOLS = [5, 1.5, math.nan, True, b"AAPL", pd.DataFrame({"AAPL": [1]}), object()]
NO_ID = [None, 5, 1.5, b"x", ["x"], {}, object()]
NO_PRICE = [None, 0, -1, math.nan, math.inf, True, "one", [1], pd.NA, 1j, 10**400, object()]
NO_VOLUME = [None, -1, math.nan, math.inf, True, "one", [1], pd.NA, 1j, object()]
NO_TIMESTAMP = [
    "", "soon", "2024-06-03", 0, 1_717_416_000, 1.5, True, [], pd.NaT, NOON.date(), NOON.replace(tzinfo=None),
    pd.Timestamp("2024-06-03"), np.datetime64("2024-06-03"), datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), object(),
]  # fmt: skip
NO_TTL = ["1h", "60", b"60", 0, -1, math.nan, math.inf, True, 10**400, [60], pd.NA, pd.NaT, timedelta(0), NOON, object()]  # fmt: skip
NO_MOMENT = ["", "soon", "2024-13-01", "12:00", 5, 1.5, math.nan, True, b"2024", pd.NaT, time(12), timedelta(1), [], object()]  # fmt: skip
NO_PATH = [None, 5, b"x.csv", ["x.csv"], "", "x", "x.xlsx", "a\0.csv", object()]
NO_FRAME = [None, 5, "x", [1], {"symbol": ["A"]}, pd.Series([1.0]), np.zeros((2, 4)), object()]


def cases(field, wrong, **calls):
    """Return one case for each call and each wrong value."""
    return [
        pytest.param(call, field, value, id=f"{name} {field}={value!r:.25}".replace("\0", "NUL"))
        for name, call in calls.items()
        for value in wrong
    ]


CASES = [
    *cases(
        "symbol", NO_SYMBOL,
        store_price=lambda c, v: c.store_price(v, 1.0, 1), get_price=lambda c, v: c.get_price(v, "x"),
        get_latest_price=lambda c, v: c.get_latest_price(v), delete_price=lambda c, v: c.delete_price(v, "x"),
        prices=lambda c, v: c.prices([v]), latest=lambda c, v: c.latest(["AAPL", v]),
        invalidate=lambda c, v: c.invalidate([v]),
    ),
    *cases(
        "symbols", NO_SYMBOLS,
        prices=lambda c, v: c.prices(v), latest=lambda c, v: c.latest(v), invalidate=lambda c, v: c.invalidate(v),
        export=lambda c, v: c.export("x.csv", v),
    ),
    *cases(
        "data_id", NO_ID,
        get_price=lambda c, v: c.get_price("AAPL", v), delete_price=lambda c, v: c.delete_price("AAPL", v),
    ),
    *cases("price", NO_PRICE, store_price=lambda c, v: c.store_price("AAPL", v, 1)),
    *cases("volume", NO_VOLUME, store_price=lambda c, v: c.store_price("AAPL", 1.0, v)),
    *cases("timestamp", NO_TIMESTAMP, store_price=lambda c, v: c.store_price("AAPL", 1.0, 1, timestamp=v)),
    *cases(
        "ttl", NO_TTL,
        store_price=lambda c, v: c.store_price("AAPL", 1.0, 1, ttl=v),
        store_prices=lambda c, v: c.store_prices(frame(), ttl=v),
        store_no_prices=lambda c, v: c.store_prices(frame().iloc[:0], ttl=v),
    ),
    *cases("frame", NO_FRAME, store_prices=lambda c, v: c.store_prices(v)),
    *cases(
        "start", NO_MOMENT,
        prices=lambda c, v: c.prices("AAPL", v), all_prices=lambda c, v: c.prices(start=v),
        invalidate=lambda c, v: c.invalidate("AAPL", v), export=lambda c, v: c.export("x.csv", "AAPL", v),
    ),
    *cases(
        "end", NO_MOMENT,
        prices=lambda c, v: c.prices("AAPL", None, v), no_prices=lambda c, v: c.prices([], end=v),
        invalidate=lambda c, v: c.invalidate("AAPL", end=v), export=lambda c, v: c.export("x.csv", end=v),
    ),
    *cases("path", NO_PATH, export=lambda c, v: c.export(v)),
]  # fmt: skip

SYNC_ONLY = [
    *cases("symbols", [*NO_SYMBOLS, None], warm=lambda c, v: c.warm(v)),
    *cases("symbol", NO_SYMBOL, warm=lambda c, v: c.warm([v])),
    *cases("by", [None, "", "tiers", 5, ["tier"], True], stats=lambda c, v: c.stats(by=v)),
    *cases(
        "window", ["", "soon", 0, -1, math.nan, True, [1], timedelta(0), object()],
        hit_rate=lambda c, v: c.hit_rate(v), plot=lambda c, v: c.plot.hit_rate(window=v),
    ),
    *cases("ax", [5, "ax", [], object()], plot=lambda c, v: c.plot.hit_rate(ax=v)),
]  # fmt: skip


def frame(**columns) -> pd.DataFrame:
    good = {"symbol": ["A", "B"], "price": [1.0, 2.0], "volume": [1, 2], "timestamp": [NOON, NOON]}
    return pd.DataFrame({**good, **columns})


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for all: nothing that is asked here may change it."""
    with TradeCache(tmp_path_factory.mktemp("inputs")) as cache:
        cache.store_price("AAPL", 1.0, 1)
        yield cache


def assert_clear(error: TradeCacheError, field: str, value: object) -> None:
    assert isinstance(error, InvalidInput)
    assert isinstance(error, ValueError)
    assert (error.field, error.value is value) == (field, True)
    assert str(error).startswith(f"{field} is ")
    assert str(error).endswith(f", but must be {error.allowed}")
    assert len(str(error)) < 250


@pytest.mark.parametrize(("call", "field", "value"), CASES + SYNC_ONLY)
def test_wrong_argument_is_named(cache, call, field, value):
    """The error names the argument and keeps its value; nothing was stored, asked or deleted."""
    cache.reset_stats()
    with pytest.raises(InvalidInput) as caught:
        call(cache, value)

    assert_clear(caught.value, field, value)
    assert len(cache.events()) == 0
    assert len(cache.prices()) == 1


@pytest.mark.parametrize(("call", "field", "value"), CASES[::3])  # the rooms below are the same
def test_async_face_says_the_same(cache, call, field, value):
    """The async methods raise the same error when they are awaited."""
    with pytest.raises(InvalidInput) as caught:
        run(call(cache.core, value))

    assert_clear(caught.value, field, value)


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("price", -1, InvalidPrice),
        ("volume", -1, InvalidPrice),
        ("timestamp", NOON.replace(tzinfo=None), InvalidPrice),
        ("symbol", "", InvalidSymbol),
        ("ttl", 0, InvalidTTL),
    ],
)
def test_kinds_of_errors(cache, field, value, kind):
    """What is wrong with a point has a class of its own by what it is."""
    good = {"symbol": "AAPL", "price": 1.0, "volume": 1, "timestamp": NOON, "ttl": 60}

    with pytest.raises(kind):
        cache.store_price(**{**good, field: value})


@pytest.mark.parametrize(
    "broken",
    [
        frame(price=[1.0, -1.0]),
        frame(price=[1.0, None]),
        frame(price=[True, False]),
        frame(price=pd.array([1, pd.NA], dtype="Int64")),
        frame(volume=pd.Series([1, "many"], dtype="object")),
        frame(symbol=["A", None]),
        frame(symbol=pd.Categorical(["A", None])),
        frame(symbol=[1, 2]),
        frame(timestamp=pd.DatetimeIndex([NOON, pd.NaT])),
        frame(timestamp=[1, 2]),
        frame(timestamp=["2024-06-03", "2024-06-04"]),
        frame(timestamp=pd.DatetimeIndex(["2024-06-03", "2024-06-04"])),
        frame(timestamp=pd.DatetimeIndex(np.array(["2024", "12000"], "M8[s]")).tz_localize("UTC")),
        frame().set_index("timestamp").tz_localize(None),
    ],
)
def test_wrong_rows_are_named_and_nothing_is_stored(cache, broken):
    """A frame with rows that are no points is refused as a whole."""
    with pytest.raises(
        InvalidPrices, match=r"^nothing was stored: row [01]: (symbol|price|volume|timestamp) is"
    ):
        cache.store_prices(broken)

    assert len(cache.prices()) == 1


@pytest.mark.parametrize(
    "broken",
    [frame().drop(columns="price"), frame().set_index(["symbol", "timestamp"]), pd.concat([frame()] * 2, axis=1), pd.DataFrame()],
)  # fmt: skip
def test_wrong_columns_are_shown(cache, broken):
    """A frame without the right columns is refused, showing those it has."""
    with pytest.raises(InvalidInput, match=r"^frame\.columns is \[.*, but must be symbol, price, volume and"):
        cache.store_prices(broken)

    assert len(cache.prices()) == 1


@pytest.mark.parametrize("face", [TradeCache, TradingDataCache])
@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        *(("cache_dir", value) for value in (5, b"x", "", "a\0b", ["x"], True)),
        *(("settings", value) for value in (5, {}, {"memory_bytes": 5}, "x", Settings)),
        *(("clock", value) for value in (5, "now", NOON)),
        *(("durable", value) for value in (5, "", "x", {}, dict, object())),
    ],
)
def test_wrong_part_of_a_cache_is_named(tmp_path, face, field, wrong):
    """A cache is not made of what is no folder, settings, clock or store."""
    with pytest.raises(InvalidInput) as caught:
        face(**{"cache_dir": tmp_path / "cache", field: wrong})

    assert_clear(caught.value, field, wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("returned", [5, None, "now", datetime(2024, 6, 3)], ids=repr)  # noqa: DTZ001 - naive on purpose
def test_clock_that_tells_no_time_is_named(tmp_path, returned):
    """A clock must return aware datetimes."""
    with pytest.raises(
        InvalidInput, match=r"^clock is .*, but must be a callable that returns an aware datetime"
    ):
        TradeCache(tmp_path / "cache", clock=lambda: returned)


def test_warm_cache_of_wrong_symbols(cache):
    """The function refuses what the method refuses."""
    with pytest.raises(InvalidInput, match=r"^symbols is 5, but must be"):
        run(warm_cache(cache.core, 5))


def test_start_after_end_is_empty_as_in_pandas(cache):
    """A start after the end is no error: nothing lies between them."""
    assert len(cache.prices("AAPL", "2025", "2024")) == 0
    assert cache.invalidate("AAPL", "9999", "0001").to_dict() == {"AAPL": 0}


@pytest.mark.parametrize(
    "ttl", [60, 60.0, np.int64(60), timedelta(minutes=1), pd.Timedelta("1min"), np.timedelta64(60, "s")], ids=repr
)  # fmt: skip
def test_ttl_may_be_spelt_as_users_do(tmp_path, clock, ttl):
    """Numbers and timedeltas of every library are the same time to live."""
    with TradeCache(tmp_path, clock=clock) as cache:
        cache.store_price("A", 1.0, 1, ttl=ttl)
        cache.store_prices(frame(), ttl=ttl)

        expires = cache.prices()["expires_at"]

    assert set(expires) == {pd.Timestamp(clock.now) + pd.Timedelta("1min")}
