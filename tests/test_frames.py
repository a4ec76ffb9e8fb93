"""The pandas face: every method, what it returns, and what that looks like."""

import inspect
import os
import sys
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from key_value.aio.stores.memory import MemoryStore
from pandas.testing import assert_frame_equal, assert_index_equal

from tradecache import CacheClosed, InvalidInput, PriceData, Settings, TradeCache, TradingDataCache
from tradecache.plots import Plots

UTC_MICROS = "datetime64[us, UTC]"
PRICES = {"symbol": "str", "price": "float64", "volume": "float64", "expires_at": UTC_MICROS}
LATEST = {
    "price": "float64",
    "volume": "float64",
    "timestamp": UTC_MICROS,
    "age": "timedelta64[us]",
    "ttl": "timedelta64[us]",
}
WARMED = dict.fromkeys(("points", "rows_cached", "rows_fetched", "requests"), "int64") | {
    "seconds": "float64",
    "error": "str",
}
STATS = {
    "requests": "int64",
    "hits": "int64",
    "fetches": "int64",
    "misses": "int64",
    "errors": "int64",
    "stale": "int64",
    "hit_rate": "float64",
    "rows": "int64",
    "rows_cached": "int64",
    "bytes": "int64",
    "p50_us": "float64",
    "p95_us": "float64",
}
EVENTS = {
    "operation": "str",
    "dataset": "str",
    "symbol": "str",
    "tier": "str",
    "outcome": "str",
    "rows": "int64",
    "rows_cached": "int64",
    "bytes": "int64",
    "seconds": "float64",
}
RATES = {
    "requests": "int64",
    "memory": "float64",
    "disk": "float64",
    "team": "float64",
    "source": "float64",
    "none": "float64",
    "error": "float64",
    "hit_rate": "float64",
    "cumulative": "float64",
}
HISTORY = {
    "operation": "str",
    "dataset": "str",
    "tier": "str",
    "outcome": "str",
    "requests": "int64",
    "rows": "int64",
    "bytes": "int64",
}
EXPIRIES = {
    "symbol": "str",
    "dataset": "str",
    "source": "str",
    "rows": "int64",
    "expires_at": UTC_MICROS,
    "ttl": "timedelta64[us]",
}
OCCUPANCY = {"tier": "str", "dataset": "str", "entries": "int64", "bytes": "int64", "max_bytes": "Int64"}
FAULTS = {"collection": "str", "key": "str", "fault": "str"}

MANY = [  # ways to say the same two symbols
    ["AAPL", "MSFT"],
    ("AAPL", "MSFT"),
    pd.Index(["AAPL", "MSFT"]),
    pd.Series(["AAPL", "MSFT"]),
    pd.Series(["AAPL", "MSFT"], dtype="category"),
    np.array(["AAPL", "MSFT"]),
    {"AAPL": 1, "MSFT": 2},
    ["AAPL", "MSFT", "AAPL"],
]
ONE = ["AAPL", ["AAPL"], pd.Index(["AAPL"]), np.str_("AAPL")]


@pytest.fixture
def cache(tmp_path, clock):
    with TradeCache(tmp_path / "cache", clock=clock) as cache:
        yield cache


@pytest.fixture
def filled(cache, clock):
    """A cache with three days of two symbols; one point of AAPL lives for an hour."""
    days = pd.date_range("2024-05-31 20:00", periods=3, tz="UTC", unit="us")
    frame = pd.DataFrame({"symbol": "AAPL", "price": [1.0, 2.0, 3.0], "volume": 10.0, "timestamp": days})
    cache.store_prices(pd.concat([frame, frame.assign(symbol="MSFT", price=[4.0, 5.0, 6.0])]))
    cache.store_price("AAPL", 3.5, 5, ttl=3600)
    return cache


def dtypes(frame: pd.DataFrame) -> dict[str, str]:
    return {name: str(dtype) for name, dtype in frame.dtypes.items()}


def index_of(frame: pd.DataFrame | pd.Series) -> tuple[str, str]:
    return frame.index.name, str(frame.index.dtype)


def label(value: object) -> str:
    return f"{type(value).__name__} of {len(value)}"


class TestShapes:
    """Columns, dtypes and indexes, the same for full and empty answers."""

    @pytest.mark.parametrize(
        ("ask", "columns", "index"),
        [
            (lambda c: c.prices(), PRICES, ("timestamp", UTC_MICROS)),
            (lambda c: c.prices("AAPL"), PRICES, ("timestamp", UTC_MICROS)),
            (lambda c: c.prices("NONE"), PRICES, ("timestamp", UTC_MICROS)),
            (lambda c: c.prices([]), PRICES, ("timestamp", UTC_MICROS)),
            (lambda c: c.prices("AAPL", "1990", "1991"), PRICES, ("timestamp", UTC_MICROS)),
            (lambda c: c.latest(), LATEST, ("symbol", "str")),
            (lambda c: c.latest("NONE"), LATEST, ("symbol", "str")),
            (lambda c: c.latest([]), LATEST, ("symbol", "str")),
            (lambda c: c.warm("AAPL"), WARMED, ("symbol", "str")),
            (lambda c: c.warm([]), WARMED, ("symbol", "str")),
            (lambda c: c.stats(), STATS, ("tier", "str")),
            (lambda c: c.stats(by="symbol"), STATS, ("symbol", "str")),
            (lambda c: c.stats(by="dataset"), STATS, ("dataset", "str")),
            (lambda c: c.stats(by="operation"), STATS, ("operation", "str")),
            (lambda c: c.events(), EVENTS, ("time", UTC_MICROS)),
            (lambda c: c.hit_rate(), RATES, ("time", UTC_MICROS)),
            (lambda c: c.hit_rate(window="10s"), RATES, ("time", UTC_MICROS)),
            (lambda c: c.hit_rate(by="symbol"), {"symbol": "str", **RATES}, ("time", UTC_MICROS)),
            (lambda c: c.hit_rate(history=c.history()), RATES, ("time", UTC_MICROS)),
            (lambda c: c.history(), HISTORY, ("time", UTC_MICROS)),
            (lambda c: c.expiries(), EXPIRIES, (None, "int64")),
            (lambda c: c.expiries("NONE"), EXPIRIES, (None, "int64")),
            (lambda c: c.occupancy(), OCCUPANCY, (None, "int64")),
        ],
    )
    @pytest.mark.parametrize("state", ["cache", "filled"])
    def test_frame(self, request, state, ask, columns, index):
        """Each frame has its columns, dtypes and index, whether there is anything in it or not."""
        result = ask(request.getfixturevalue(state))

        assert (dtypes(result), index_of(result)) == (columns, index)

    def test_faults(self, filled):
        """`verify` has its columns also when all is well."""
        assert (dtypes(filled.verify()), len(filled.verify())) == (FAULTS, 0)

    @pytest.mark.parametrize(
        ("ask", "name", "index", "dtype"),
        [
            (lambda c: c.invalidate(), "deleted", "symbol", "int64"),
            (lambda c: c.invalidate([]), "deleted", "symbol", "int64"),
            (lambda c: c.purge(), "purged", None, "int64"),
            (lambda c: c.info(), "tradecache", None, "object"),
        ],
    )
    @pytest.mark.parametrize("state", ["cache", "filled"])
    def test_series(self, request, state, ask, name, index, dtype):
        """Each Series has its name and dtype, whether there is anything in it or not."""
        result = ask(request.getfixturevalue(state))

        assert (result.name, result.index.name, str(result.dtype)) == (name, index, dtype)

    @pytest.mark.parametrize("rows", [0, 1, 3])
    def test_ids(self, cache, clock, rows):
        """`store_prices` gives an Index of text named id, one for each row."""
        frame = pd.DataFrame({"symbol": ["A"] * rows, "price": 1.0, "volume": 1.0, "timestamp": clock.now})

        ids = cache.store_prices(frame)

        assert (len(ids), ids.name, str(ids.dtype)) == (rows, "id", "str")

    @pytest.mark.parametrize("ask", [lambda c: c.prices(), lambda c: c.latest(), lambda c: c.events()])
    def test_answers_belong_to_the_caller(self, filled, ask):
        """What a caller does to an answer does not reach the next one."""
        first, kept = ask(filled), ask(filled).copy()

        for n in range(first.shape[1]):
            first.iloc[1:, n] = first.iloc[0, n]

        assert_frame_equal(ask(filled).head(len(kept)), kept)


class TestAnswers:
    """What is in the answers."""

    def test_point_comes_back(self, cache, clock):
        """What was stored is found by its id, and by being the latest."""
        data_id = cache.store_price("BTC/USD", 64_123.45, 0.00012345, timestamp=clock.now)
        point = PriceData(symbol="BTC/USD", price=64_123.45, volume=0.00012345, timestamp=clock.now)

        assert cache.get_price("BTC/USD", data_id) == point
        assert cache.get_latest_price("BTC/USD") == point
        assert cache.get_price("BTC/USD", "no such id") is None
        assert cache.get_latest_price("NONE") is None

    def test_prices(self, filled):
        """All live points, sorted by time, with the moment at which each expires."""
        result = filled.prices("AAPL")

        expected = pd.DataFrame(
            {
                "symbol": pd.array(["AAPL"] * 4, dtype="str"),
                "price": [1.0, 2.0, 3.0, 3.5],
                "volume": [10.0, 10.0, 10.0, 5.0],
                "expires_at": pd.DatetimeIndex([pd.NaT] * 3 + [pd.Timestamp("2024-06-03 15:30")], tz="UTC"),
            },
            index=pd.DatetimeIndex(
                ["2024-05-31 20:00", "2024-06-01 20:00", "2024-06-02 20:00", "2024-06-03 14:30"],
                tz="UTC",
                name="timestamp",
            ),
        )
        expected["expires_at"] = expected["expires_at"].astype(UTC_MICROS)
        expected.index = expected.index.as_unit("us")
        assert_frame_equal(result, expected)

    def test_prices_in_a_range(self, filled):
        """A day is a whole day, and the end is included."""
        assert filled.prices("MSFT", "2024-06-01", "2024-06-02")["price"].to_list() == [5.0, 6.0]
        assert filled.prices(None, "2024-06-02 20:00")["price"].to_list() == [3.0, 6.0, 3.5]
        assert filled.prices(None, end="2024-05")["price"].to_list() == [1.0, 4.0]

    def test_prices_pivot_as_pandas_does(self, filled):
        """The answer is an ordinary frame: it pivots to one column for each symbol."""
        wide = filled.prices(end="2024-06-02").pivot(columns="symbol", values="price")  # noqa: PD010 - what users write

        assert wide["MSFT"].sub(wide["AAPL"]).to_list() == [3.0, 3.0, 3.0]

    def test_latest(self, filled):
        """One row for each symbol: its newest point, its age and how long it has left."""
        result = filled.latest()

        assert result["price"].to_dict() == {"AAPL": 3.5, "MSFT": 6.0}
        assert result["age"].to_list() == [pd.Timedelta(0), pd.Timedelta("18h30min")]
        assert result["ttl"].to_list() == [pd.Timedelta("1h"), pd.NaT]

    def test_latest_falls_back(self, filled, clock):
        """After an expiry the next newest point is the latest."""
        clock.advance(3600)

        assert filled.latest("AAPL")["price"].to_list() == [3.0]

    @pytest.mark.parametrize("symbols", MANY, ids=label)
    def test_several_symbols(self, filled, symbols):
        """Symbols may be in anything that can be gone through; each counts once."""
        assert sorted(filled.prices(symbols)["price"]) == [1.0, 2.0, 3.0, 3.5, 4.0, 5.0, 6.0]
        assert filled.latest(symbols).index.to_list() == ["AAPL", "MSFT"]
        assert filled.warm(symbols)["points"].to_dict() == {"AAPL": 4, "MSFT": 3}
        assert filled.invalidate(symbols).to_dict() == {"AAPL": 4, "MSFT": 3}

    def test_generator_of_symbols(self, filled):
        """A generator, which can be gone through once, is enough."""
        assert len(filled.prices(symbol for symbol in ("AAPL", "MSFT"))) == 7

    @pytest.mark.parametrize("symbol", ONE, ids=label)
    def test_one_symbol(self, filled, symbol):
        """One symbol is text, or alone in a list."""
        assert filled.prices(symbol)["price"].to_list() == [1.0, 2.0, 3.0, 3.5]
        assert filled.latest(symbol).index.to_list() == ["AAPL"]
        assert filled.warm(symbol)["points"].to_dict() == {"AAPL": 4}
        assert filled.invalidate(symbol).to_dict() == {"AAPL": 4}

    def test_ids_from_pandas_find_points(self, cache, clock):
        """Ids taken out of the Index, or out of numpy, are ids."""
        frame = pd.DataFrame({"symbol": ["A"], "price": [1.0], "volume": [1.0], "timestamp": [clock.now]})
        ids = cache.store_prices(frame)

        assert cache.get_price("A", ids[0]) == cache.get_price("A", ids.to_numpy(dtype="U")[0])
        assert cache.delete_price(np.str_("A"), np.str_(ids[0])) is True

    def test_case_matters(self, cache):
        """Symbols that differ in case only are two symbols."""
        cache.store_price("brk.b", 1.0, 1)
        cache.store_price("BRK.B", 2.0, 1)

        assert cache.latest()["price"].to_dict() == {"BRK.B": 2.0, "brk.b": 1.0}

    def test_delete(self, cache):
        """A delete says whether there was a point."""
        data_id = cache.store_price("AAPL", 1.0, 1)

        assert [cache.delete_price("AAPL", data_id) for _ in range(2)] == [True, False]
        assert cache.get_price("AAPL", data_id) is None

    def test_invalidate_a_range(self, filled):
        """A range of time is deleted for the symbols named, or for all."""
        assert filled.invalidate("AAPL", "2024-06-01", "2024-06-02").to_dict() == {"AAPL": 2}
        assert filled.invalidate(end="2024-05").to_dict() == {"AAPL": 1, "MSFT": 1}
        assert sorted(filled.prices()["price"]) == [3.5, 5.0, 6.0]

    def test_purge(self, filled, clock):
        """What has expired is deleted and counted."""
        clock.advance(3600)

        assert filled.purge().to_dict() == {"expired_entries": 1, "orphan_files": 0, "orphan_bytes": 0}
        assert filled.info()["disk_entries"] == 6

    def test_warm_serves_from_memory(self, filled):
        """After a warm-up every point is a memory hit."""
        ids = filled.store_prices(filled.prices("MSFT"))
        filled.warm("MSFT")
        filled.reset_stats()

        for data_id in ids:
            filled.get_price("MSFT", data_id)

        assert filled.stats().loc["memory", "hits"] == 3

    def test_statistics(self, filled):
        """The totals are those of the async core."""
        filled.get_price("AAPL", "none")

        assert filled.get_cache_statistics() == filled.core.get_cache_statistics()
        assert filled.get_cache_statistics()["total_puts"] == 7
        assert filled.get_cache_statistics()["hit_rate_percent"] == 0.0

    def test_reset(self, filled):
        """After a reset nothing has been asked yet."""
        filled.reset_stats()

        assert len(filled.events()) == 0
        assert set(filled.get_cache_statistics().values()) == {0}
        assert filled.stats()["requests"].to_list() == [0, 0]

    def test_foreign_store(self):
        """Another py-key-value store may take the folder's place."""
        with TradeCache(durable=MemoryStore()) as cache:
            data_id = cache.store_price("AAPL", 1.0, 1)
            cache.store_price("AAPL", 2.0, 1, ttl=60)
            assert cache.get_price("AAPL", data_id).price == 1.0
            assert cache.prices()["price"].to_list() == [1.0, 2.0]
            assert cache.latest().loc["AAPL", "price"] == 2.0
            assert cache.delete_price("AAPL", data_id) is True


class TestExport:
    """Answers as files."""

    def read(self, path: Path) -> pd.DataFrame:
        if path.suffix.lower() == ".csv":
            frame = pd.read_csv(path, parse_dates=["timestamp", "expires_at"])
        elif path.suffix.lower() == ".feather":
            frame = pd.read_feather(path)
        else:
            return pd.read_parquet(path)
        return frame.set_index("timestamp")

    @pytest.mark.parametrize("name", ["prices.parquet", "prices.csv", "prices.feather", "Prices.PARQUET"])
    def test_round_trip(self, filled, tmp_path, name):
        """What was exported and read back is what was asked for."""
        path = filled.export(tmp_path / name, "AAPL", "2024-06-01")

        assert path == tmp_path / name
        result = self.read(path).astype(PRICES)
        result.index = result.index.as_unit("us")
        assert_frame_equal(result, filled.prices("AAPL", "2024-06-01"))

    @pytest.mark.parametrize("name", ["prices.parquet", "prices.csv", "prices.feather"])
    def test_empty_round_trip(self, cache, tmp_path, name):
        """An empty answer makes a file with the columns."""
        result = self.read(cache.export(str(tmp_path / name)))

        assert (len(result), list(result.columns), result.index.name) == (0, list(PRICES), "timestamp")

    @pytest.mark.parametrize("name", ["prices", "prices.xls", "prices.csv.gz", ".csv", ""])
    def test_unknown_suffix(self, filled, tmp_path, name):
        """Another suffix is an error that lists the three, before anything is read or written."""
        filled.reset_stats()
        with pytest.raises(InvalidInput, match=r"^path is .*ends in \.parquet, \.csv, \.feather$"):
            filled.export(tmp_path / name)

        assert len(filled.events()) == 0
        assert [each.name for each in tmp_path.iterdir()] == ["cache"]


class TestTypeErrors:
    """Nothing is dropped silently."""

    @pytest.mark.parametrize(
        "call",
        [
            lambda c: c.store_price("AAPL", 1.0, 1, tll=5),
            lambda c: c.store_price("AAPL", 1.0, 1, datetime.now(UTC)),
            lambda c: c.store_price("AAPL", 1.0),
            lambda c: c.store_prices(c.prices(), 5),
            lambda c: c.get_price("AAPL"),
            lambda c: c.prices(symbol="AAPL"),
            lambda c: c.prices("AAPL", begin="2024"),
            lambda c: c.latest(symbol="AAPL"),
            lambda c: c.warm(),
            lambda c: c.invalidate(data_id="x"),
            lambda c: c.export(),
            lambda c: c.export("x.csv", columns=["price"]),
            lambda c: c.stats(per="tier"),
            lambda c: c.hit_rate(bins=5),
            lambda c: c.events(last=5),
            lambda c: c.plot.hit_rate("10s"),
            lambda c: TradeCache(memory_bytes=5),
            lambda c: TradeCache("x", Settings()),
            lambda c: TradingDataCache(memory_bytes=5),
        ],
    )
    def test_unknown_option(self, cache, call):
        """An option that does not exist, is missing or must be named is a TypeError."""
        with pytest.raises(TypeError):
            call(cache)

    def test_both_faces_agree(self):
        """Every question of the sync face has the parameters of the async one, and a docstring."""
        own = {"close", "warm", "plot", "monitor"}
        names = [name for name in vars(TradeCache) if not name.startswith("_") and name not in own]

        for name in names:
            mine, its = getattr(TradeCache, name), getattr(TradingDataCache, name)
            assert list(inspect.signature(mine).parameters) == list(inspect.signature(its).parameters), name
            assert mine.__doc__, name


class Text(HTMLParser):
    """The words of an HTML text, and the names of its tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.words.append(data)


class TestLooks:
    """How a cache shows itself."""

    def test_repr(self, cache, tmp_path):
        """The repr names the folder and the hit rate, on one line."""
        folder = str(tmp_path / "cache")
        fresh = repr(cache)
        data_id = cache.store_price("AAPL", 1.0, 1)
        cache.get_price("AAPL", data_id)
        cache.get_price("AAPL", "none")
        used = repr(cache)
        cache.close()

        assert fresh == f"<TradeCache {folder!r}, no requests yet>"
        assert used == f"<TradeCache {folder!r}, 2 requests, 50.0% hits>"
        assert repr(cache) == f"<TradeCache {folder!r}, closed>"

    def test_card(self, cache, tmp_path):
        """The card has the folder, what memory holds, and how each tier answered."""
        data_id = cache.store_price("AAPL", 1.0, 1)
        cache.get_price("AAPL", data_id)

        card = Text(cache._repr_html_())

        assert card.words == [
            *("TradeCache", f" {tmp_path / 'cache'}"),
            *("memory", "1.3 KiB of 256 MiB, 1 entry, 1 hit"),
            *("disk", "0 hits of 0 requests"),
            *("source", "local, 0 fetches"),
            *("in all", "1 request, 100.0% hits, 0 errors, 0 stale answers"),
        ]

    @pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a\"b'c&amp;", "<img src=x onerror=y>"])
    def test_card_escapes_its_values(self, tmp_path, name):
        """A folder's name cannot put markup into a notebook."""
        with TradeCache(tmp_path / name) as cache:
            card = Text(cache._repr_html_())

        assert set(card.tags) == {"table", "caption", "b", "tbody", "tr", "th", "td", "span"}
        assert f" {tmp_path / name}" in card.words

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems' file names are Unicode")
    def test_card_of_a_folder_that_is_no_text(self, tmp_path):
        """A folder's name that UTF-8 cannot hold makes a card that it can."""
        with TradeCache(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")) as cache:
            card = cache._repr_html_().encode()

        assert b"??" in card

    def test_card_does_no_io(self, cache, tmp_path):
        """To show the card no file is opened, looked at or listed."""
        touched = []
        watching = True

        def watch(event, arguments):
            if watching and event.split(".")[0] in {"open", "os", "sqlite3", "mmap", "shutil", "pathlib"}:
                touched.append((event, arguments))

        cache.store_price("AAPL", 1.0, 1)
        sys.addaudithook(watch)
        cache._repr_html_()
        repr(cache)
        watching = False

        assert touched == []

    def test_card_cannot_raise(self, tmp_path):
        """After the close, and after the folder is gone, the card and the repr are still there."""
        cache = TradeCache(tmp_path / "cache")
        cache.store_price("AAPL", 1.0, 1)
        for path in (tmp_path / "cache").iterdir():
            path.unlink()
        (tmp_path / "cache").rmdir()
        gone = Text(cache._repr_html_())
        cache.close()
        closed = Text(cache._repr_html_())

        assert gone.words[-1] == "no requests yet, 0 errors, 0 stale answers"
        assert closed.words[1] == f" {tmp_path / 'cache'} (closed)"

    def test_plot_is_a_namespace(self, cache):
        """`cache.plot` holds the charts."""
        assert isinstance(cache.plot, Plots)


class TestClosing:
    """The end of a cache."""

    @pytest.mark.parametrize(
        "call",
        [
            lambda c: c.store_price("AAPL", 1.0, 1),
            lambda c: c.store_prices(pd.DataFrame()),
            lambda c: c.get_price("AAPL", "x"),
            lambda c: c.get_latest_price("AAPL"),
            lambda c: c.latest(),
            lambda c: c.prices(),
            lambda c: c.delete_price("AAPL", "x"),
            lambda c: c.warm("AAPL"),
            lambda c: c.invalidate(),
            lambda c: c.export("x.csv"),
            lambda c: c.info(),
            lambda c: c.purge(),
            lambda c: c.verify(),
        ],
    )
    @pytest.mark.parametrize("durable", [None, MemoryStore()], ids=["folder", "foreign"])
    def test_closed_cache_says_so(self, tmp_path, call, durable):
        """Every method that needs the data raises the same clear error, over any store."""
        cache = TradeCache(tmp_path, durable=durable)
        cache.store_price("AAPL", 1.0, 1)
        cache.close()

        with pytest.raises(CacheClosed, match="this cache is closed"):
            call(cache)

    def test_counts_outlive_the_cache(self, filled):
        """What was counted can still be read, reset and drawn, and closing again is fine."""
        filled.close()
        filled.close()

        assert filled.get_cache_statistics()["total_puts"] == 7
        assert filled.stats(by="operation").loc["put", "rows"] == 7
        assert len(filled.events()) == 2
        assert len(filled.hit_rate()) == 0
        filled.reset_stats()
        assert len(filled.events()) == 0

    def test_with_closes(self, tmp_path):
        """`with` closes the cache, also when its block raises; the data stays."""
        cache = TradeCache(tmp_path)

        def work() -> None:
            with cache as same:
                same.store_price("AAPL", 1.0, 1)
                raise KeyError

        with pytest.raises(KeyError):
            work()
        with pytest.raises(CacheClosed):
            cache.prices()
        with TradeCache(tmp_path) as again:
            assert again.prices()["price"].to_list() == [1.0]

    def test_data_survives_in_the_folder(self, tmp_path, clock):
        """The next cache on the folder has the same answers."""
        with TradeCache(tmp_path, clock=clock) as cache:
            ids = [cache.store_price("AAPL", n + 1.0, n, ttl=60 * (n + 1)) for n in range(3)]
            before = cache.prices()
        clock.advance(60)
        with TradeCache(tmp_path, clock=clock) as cache:
            after = cache.prices()
            found = [cache.get_price("AAPL", data_id) is not None for data_id in ids]

        assert_frame_equal(after, before.iloc[1:])
        assert found == [False, True, True]

    def test_two_caches_see_each_other(self, filled, clock):
        """A second cache on the folder sees each write and delete at its next read, however warm it was."""
        folder = filled.settings.cache_dir
        with TradeCache(folder, clock=clock) as other:
            ids = other.store_prices(other.prices("MSFT"))
            assert_index_equal(filled.prices().index, other.prices().index)
            assert [filled.get_price("MSFT", data_id).price for data_id in ids] == [4.0, 5.0, 6.0]
            other.delete_price("MSFT", ids[0])
            assert filled.get_price("MSFT", ids[0]) is None
            filled.invalidate("MSFT")
            assert other.get_price("MSFT", ids[1]) is None

    def test_move_of_the_process_does_not_move_the_cache(self, tmp_path, monkeypatch):
        """A relative folder stays where it was when the process changes its folder."""
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path)
        with TradeCache("prices") as cache:
            data_id = cache.store_price("AAPL", 1.0, 1)
            monkeypatch.chdir(tmp_path / "elsewhere")
            cache.store_price("AAPL", 2.0, 1, ttl=timedelta(hours=1))
            found = cache.get_price("AAPL", data_id)
            info = cache.info()

        assert (found.price, info["cache_dir"]) == (1.0, str(tmp_path / "prices"))
        assert list((tmp_path / "elsewhere").iterdir()) == []
