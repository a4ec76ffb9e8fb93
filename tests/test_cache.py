"""The async core, asked as its users ask it."""

import asyncio
import inspect
import logging
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from key_value.aio.stores.memory import MemoryStore
from loops import run
from pandas.testing import assert_frame_equal, assert_index_equal

import tradecache
from tradecache import (
    CacheClosed,
    EntryTooLarge,
    InvalidPrice,
    InvalidPrices,
    InvalidTTL,
    NotEnumerable,
    PriceData,
    Settings,
    TradingDataCache,
    warm_cache,
)
from tradecache.clock import Clock
from tradecache.stores.hot import HotStore

DAY = timedelta(days=1)
KEYS = ["total_gets", "cache_hits", "cache_misses", "hit_rate_percent", "total_puts", "total_deletes"]


@pytest.fixture
def make(tmp_path, clock):
    """Make caches on one folder (or as told), and close them all in the end."""
    made = []

    def make_cache(**options) -> TradingDataCache:
        made.append(TradingDataCache(**{"cache_dir": tmp_path, "clock": clock, **options}))
        return made[-1]

    yield make_cache
    for cache in made:
        run(cache.cleanup())


@pytest.fixture
def cache(make):
    return make()


def frame(*rows, columns=("symbol", "price", "volume", "timestamp")) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns))


async def prices_of(cache, *symbols) -> list[float]:
    return (await cache.prices(list(symbols) or None))["price"].to_list()


class TestFace:
    """Names and shapes that users write their code against."""

    @pytest.mark.parametrize(
        ("method", "parameters"),
        [
            ("store_price", "symbol price volume *timestamp *ttl"),
            ("store_prices", "frame *ttl"),
            ("get_price", "symbol data_id"),
            ("get_latest_price", "symbol"),
            ("latest", "symbols"),
            ("prices", "symbols start end"),
            ("delete_price", "symbol data_id"),
            ("invalidate", "symbols start end *interval *source"),
            ("export", "path symbols start end *interval *source"),
            ("stats", "by"),
            ("events", ""),
            ("hit_rate", "window *by *history"),
            ("history", ""),
            ("expiries", "symbols"),
            ("occupancy", ""),
            ("get_cache_statistics", ""),
            ("reset_stats", ""),
            ("info", ""),
            ("purge", ""),
            ("verify", ""),
            ("cleanup", ""),
        ],
    )
    def test_signature(self, method, parameters):
        """Each method takes these parameters, those with a star by name only."""
        found = list(inspect.signature(getattr(TradingDataCache, method)).parameters.values())[1:]

        assert parameters.split() == [
            "*" * (each.kind is inspect.Parameter.KEYWORD_ONLY) + each.name for each in found
        ]

    @pytest.mark.parametrize(
        "method",
        [
            "store_price", "store_prices", "get_price", "get_latest_price", "latest", "prices", "delete_price",
            "invalidate", "export", "purge", "verify", "info", "cleanup", "history", "expiries", "occupancy",
        ],
    )  # fmt: skip
    def test_what_reaches_the_disk_is_awaited(self, method):
        """Methods that may wait are coroutines; those that only count are not."""
        assert inspect.iscoroutinefunction(getattr(TradingDataCache, method))

    def test_names_of_the_package(self):
        """The package lists what it offers, in order, and has it."""
        assert tradecache.__all__ == sorted(tradecache.__all__)
        assert all(hasattr(tradecache, name) for name in tradecache.__all__)

    def test_repr_names_the_folder(self, cache, tmp_path):
        """The repr is short and says where the cache is."""
        assert repr(cache) == f"TradingDataCache({str(tmp_path)!r})"

    def test_folder_may_come_from_the_settings(self, make, tmp_path):
        """`cache_dir` beats the settings' folder; without it, the settings' is taken."""
        settings = Settings(cache_dir=tmp_path / "a")

        assert make(cache_dir=None, settings=settings).settings.cache_dir == tmp_path / "a"
        assert make(cache_dir=str(tmp_path / "b"), settings=settings).settings.cache_dir == tmp_path / "b"
        assert settings.cache_dir == tmp_path / "a"


class TestPoints:
    """One point: stored, found, deleted."""

    def test_stored_point_is_found_by_its_id(self, cache, clock):
        """A point comes back as it was stored, stamped with the clock's time."""

        async def work():
            data_id = await cache.store_price("AAPL", 189.5, 1000)
            return data_id, await cache.get_price("AAPL", data_id)

        data_id, point = run(work())

        assert data_id.startswith("2024-06-03T14:30:00.000000Z-")
        assert point == PriceData(symbol="AAPL", price=189.5, volume=1000, timestamp=clock.now)

    @pytest.mark.parametrize(
        "timestamp",
        [
            datetime(2013, 3, 1, 21, tzinfo=UTC),
            pd.Timestamp("2013-03-01 16:00", tz="America/New_York"),
            "2013-03-01T21:00:00Z",
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_timestamp_may_be_given(self, cache, timestamp):
        """A datetime, a Timestamp or ISO text, aware, is kept in UTC."""

        async def work():
            data_id = await cache.store_price("AAPL", 1.0, 0.5, timestamp=timestamp)
            return await cache.get_price("AAPL", data_id)

        assert run(work()).timestamp == datetime(2013, 3, 1, 21, tzinfo=UTC)

    def test_two_stores_never_overwrite(self, cache):
        """Storing the same twice makes two points."""

        async def work():
            ids = [await cache.store_price("AAPL", 1.0, 1) for _ in range(3)]
            return ids, await prices_of(cache)

        ids, prices = run(work())

        assert ids == sorted(set(ids))
        assert prices == [1.0, 1.0, 1.0]

    def test_unknown_id_is_none(self, cache):
        """An id that was never given, or belongs to another symbol, finds nothing."""

        async def work():
            data_id = await cache.store_price("AAPL", 1.0, 1)
            return [
                await cache.get_price("AAPL", "2013"),
                await cache.get_price("MSFT", data_id),
                await cache.get_price("aapl", data_id),
                await cache.get_price("AAPL", ""),
            ]

        assert run(work()) == [None] * 4

    def test_deleted_is_gone_at_once(self, cache, make):
        """A delete says whether there was a point, and what is deleted is gone from both tiers."""

        async def work():
            data_id = await cache.store_price("AAPL", 1.0, 1)
            await cache.get_price("AAPL", data_id)
            answers = [await cache.delete_price("AAPL", data_id) for _ in range(2)]
            return answers, [await each.get_price("AAPL", data_id) for each in (cache, make())]

        assert run(work()) == ([True, False], [None, None])

    def test_points_survive_a_restart(self, cache, make):
        """What was stored is there for the next cache on the folder."""

        async def work():
            data_id = await cache.store_price("AAPL", 1.0, 1)
            point = await cache.get_price("AAPL", data_id)
            await cache.cleanup()
            return point, await make().get_price("AAPL", data_id)

        before, after = run(work())

        assert before == after

    def test_several_event_loops(self, cache):
        """One cache may be used in one event loop after another."""
        data_id = run(cache.store_price("AAPL", 1.0, 1))

        assert run(cache.get_price("AAPL", data_id)) == run(cache.get_latest_price("AAPL"))

    def test_many_tasks(self, cache):
        """Gathered stores and gets do not disturb one another."""

        async def work():
            ids = await asyncio.gather(*(cache.store_price("AAPL", n + 1.0, n) for n in range(50)))
            found = await asyncio.gather(*(cache.get_price("AAPL", data_id) for data_id in ids))
            return [point.price for point in found]

        assert run(work()) == [n + 1.0 for n in range(50)]


class TestLatest:
    """The newest live point."""

    def test_newest_is_by_timestamp(self, cache, clock):
        """The newest point is the one with the latest timestamp, not the one stored last."""

        async def work():
            await cache.store_price("AAPL", 2.0, 1, timestamp=clock.now)
            await cache.store_price("AAPL", 1.0, 1, timestamp=clock.now - DAY)
            return await cache.get_latest_price("AAPL")

        assert run(work()).price == 2.0

    def test_of_equal_timestamps_the_last_stored_is_newest(self, cache):
        """Points of one moment are newer the later they were stored."""

        async def work():
            for price in (1.0, 3.0, 2.0):
                await cache.store_price("AAPL", price, 1)
            return await cache.get_latest_price("AAPL")

        assert run(work()).price == 2.0

    def test_falls_back_after_delete(self, cache):
        """After the newest point was deleted the next newest is the latest, down to none."""

        async def work():
            ids = [await cache.store_price("AAPL", float(n), 1) for n in (1, 2, 3)]
            seen = []
            for data_id in reversed(ids):
                seen.append((await cache.get_latest_price("AAPL")).price)
                await cache.delete_price("AAPL", data_id)
            return seen, await cache.get_latest_price("AAPL")

        assert run(work()) == ([3.0, 2.0, 1.0], None)

    def test_falls_back_after_expiry(self, cache, clock):
        """After the newest point expired the next newest is the latest, down to none."""

        async def work():
            for price, ttl in ((1.0, 30), (2.0, 20), (3.0, 10)):
                await cache.store_price("AAPL", price, 1, ttl=ttl)
            seen = []
            for _ in range(4):
                point = await cache.get_latest_price("AAPL")
                seen.append(point and point.price)
                clock.advance(10)
            return seen

        assert run(work()) == [3.0, 2.0, 1.0, None]

    def test_unknown_symbol_has_none(self, cache):
        """A symbol without points has no latest."""
        assert run(cache.get_latest_price("AAPL")) is None

    def test_frame_of_latest(self, cache, clock):
        """The frame has one row for each symbol with a live point, in the order asked for."""

        async def work():
            await cache.store_price("MSFT", 1.0, 1, ttl=60)
            await cache.store_price("AAPL", 2.0, 2)
            await cache.store_price("GONE", 3.0, 3, ttl=1)
            clock.advance(15)
            return await cache.latest(), await cache.latest(["MSFT", "NONE", "AAPL", "MSFT"])

        every, chosen = run(work())

        assert every.index.to_list() == ["AAPL", "MSFT"]
        assert chosen.index.to_list() == ["MSFT", "AAPL"]
        assert chosen["ttl"].to_list() == [pd.Timedelta("45s"), pd.NaT]
        assert chosen["age"].to_list() == [pd.Timedelta("15s")] * 2

    def test_junk_under_a_symbol_is_stepped_over(self, cache, caplog):
        """What somebody put there that is no point is a logged miss for every question."""

        async def work():
            data_id = await cache.store_price("AAPL", 1.0, 1)
            await cache.stack.points.put("9999", {"hello": "world"}, collection="symbol:AAPL")
            latest = await cache.get_latest_price("AAPL")
            return data_id, latest.price, await prices_of(cache), await cache.get_price("AAPL", "9999")

        assert run(work())[1:] == (1.0, [1.0], None)
        assert {record.levelname for record in caplog.records if "no price point" in record.message} == {
            "WARNING"
        }


class TestTTL:
    """How long a point lives."""

    @pytest.mark.parametrize("ttl", [0.0625, 1, 3600, timedelta(minutes=5), 100 * 365.25 * 86_400], ids=str)
    @pytest.mark.parametrize("warm", [True, False])
    def test_expired_exactly_at_the_boundary(self, make, clock, ttl, warm):
        """A point is there until just before its TTL is over, and gone from every answer at that moment."""
        cache = make(settings=Settings(memory_ttl=1e10) if warm else Settings(memory_bytes=1))
        seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl

        async def look():
            latest = await cache.get_latest_price("AAPL")
            found = await cache.get_price("AAPL", data_id)
            return [found is not None, latest is not None, len(await cache.prices())]

        data_id = run(cache.store_price("AAPL", 1.0, 1, ttl=ttl))
        clock.advance(seconds - 0.03125)
        before = run(look())
        clock.advance(0.03125)

        assert (before, run(look())) == ([True, True, 1], [False, False, 0])

    @pytest.mark.parametrize("microseconds", [50_000, 300_001, 1_234_567, 59_999_999])
    @pytest.mark.parametrize("warm", [True, False])
    def test_boundary_is_exact_to_the_microsecond(self, make, clock, microseconds, warm):
        """Expiry is exact to the microsecond for times that no float holds exactly."""
        cache = make(settings=Settings() if warm else Settings(memory_bytes=1))
        answers = []
        for day in range(20):
            clock.now += timedelta(days=1, microseconds=day * 7_654_321)
            data_id = run(cache.store_price("AAPL", 1.0, 1, ttl=timedelta(microseconds=microseconds)))
            clock.now += timedelta(microseconds=microseconds - 1)
            before = run(cache.get_price("AAPL", data_id))
            clock.now += timedelta(microseconds=1)
            after = run(cache.get_price("AAPL", data_id))
            answers.append((before is not None, after is not None, len(run(cache.prices()))))

        assert answers == [(True, False, 0)] * 20

    def test_wall_clock_set_back_revives_nothing(self, cache, clock):
        """After an hour's step back the expired stays gone, and the living lives as long as it should."""
        short = run(cache.store_price("AAPL", 1.0, 1, ttl=10))
        long = run(cache.store_price("AAPL", 2.0, 1, ttl=100))
        clock.advance(10)
        gone = run(cache.get_price("AAPL", short))

        clock.advance(-3600)

        assert gone is None
        assert run(cache.get_price("AAPL", short)) is None
        assert run(cache.get_price("AAPL", long)).price == 2.0
        clock.advance(90)
        assert run(cache.get_price("AAPL", long)) is None

    def test_default_ttl(self, make, clock):
        """Without a TTL the settings' default holds; an own TTL beats it."""
        cache = make(settings=Settings(default_ttl=60))

        async def work():
            await cache.store_price("A", 1.0, 1)
            await cache.store_price("B", 2.0, 1, ttl=120)
            await cache.store_prices(frame(("C", 3.0, 1, clock.now)))
            clock.advance(60)
            return await prices_of(cache)

        assert run(work()) == [2.0]

    @pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), "1h", True, timedelta(0)], ids=repr)
    def test_impossible_ttl_stores_nothing(self, cache, clock, ttl):
        """An impossible TTL is an error, and nothing was stored."""
        with pytest.raises(InvalidTTL):
            run(cache.store_price("AAPL", 1.0, 1, ttl=ttl))
        with pytest.raises(InvalidTTL):
            run(cache.store_prices(frame(("AAPL", 1.0, 1, clock.now)), ttl=ttl))

        assert run(prices_of(cache)) == []

    def test_memory_looks_again_after_its_ttl(self, make, clock):
        """Memory answers for `memory_ttl` seconds, then the disk is asked again."""
        cache = make(settings=Settings(memory_ttl=60))
        data_id = run(cache.store_price("AAPL", 1.0, 1))

        async def tiers():
            for step in (59, 1, 0):
                clock.advance(step)
                await cache.get_price("AAPL", data_id)
            return cache.events().query("operation == 'get'")["tier"].to_list()

        assert run(tiers()) == ["memory", "disk", "memory"]


class TestBulk:
    """Many points at once."""

    def test_ids_are_in_the_frames_order(self, cache, clock):
        """Each row gets an id, in the order of the frame, whatever the order of time."""
        rows = [("B", 1.0, 1, clock.now), ("A", 2.0, 1, clock.now - DAY), ("B", 3.0, 1, clock.now - DAY)]

        async def work():
            ids = await cache.store_prices(frame(*rows))
            found = [
                await cache.get_price(symbol, data_id)
                for (symbol, *_), data_id in zip(rows, ids, strict=True)
            ]
            return ids, found

        ids, found = run(work())

        assert (ids.name, str(ids.dtype), ids.is_unique) == ("id", "str", True)
        assert [point.price for point in found] == [1.0, 2.0, 3.0]

    def test_all_or_nothing(self, cache, clock):
        """One bad row is named, and none of the others is stored."""
        rows = [("A", 1.0, 1, clock.now), ("B", -2.0, 1, clock.now), ("C", 3.0, 1, clock.now)]

        with pytest.raises(InvalidPrices, match=r"nothing was stored: row 1: price is -2\.0") as caught:
            run(cache.store_prices(frame(*rows)))

        assert [row for row, *_ in caught.value.rows] == [1]
        assert run(prices_of(cache)) == []
        assert cache.get_cache_statistics()["total_puts"] == 0

    def test_no_rows(self, cache):
        """An empty frame stores nothing and gives an empty Index of the same kind."""
        ids = run(cache.store_prices(frame()))

        assert_index_equal(ids, pd.Index([], dtype="str", name="id"))

    def test_ttl_for_every_row(self, cache, clock):
        """A TTL holds for each row."""

        async def work():
            await cache.store_prices(
                frame(("A", 1.0, 1, clock.now), ("B", 2.0, 1, clock.now)), ttl=timedelta(seconds=5)
            )
            before = (await cache.prices())["expires_at"].to_list()
            clock.advance(5)
            return before, await prices_of(cache)

        assert run(work()) == ([pd.Timestamp("2024-06-03 14:30:05", tz="UTC")] * 2, [])

    def test_answer_can_be_stored_again(self, cache, make, tmp_path):
        """The frame of `prices` is a frame for `store_prices` of another cache."""
        other = make(cache_dir=tmp_path / "other")

        async def work():
            for n in range(5):
                await cache.store_price("AAPL" if n % 2 else "MSFT", n + 0.5, n)
            mine = await cache.prices()
            await other.store_prices(mine)
            return mine, await other.prices()

        mine, theirs = run(work())

        assert_frame_equal(mine.sort_values("price"), theirs.sort_values("price"))


class TestQuestions:
    """Questions about several points."""

    @pytest.fixture
    def filled(self, cache):
        days = pd.date_range("2013-02-27 21:00", periods=4, tz="UTC")
        rows = [(symbol, n + 1.0, n, day) for n, day in enumerate(days) for symbol in ("AAPL", "MSFT")]
        run(cache.store_prices(frame(*rows)))
        return cache

    @pytest.mark.parametrize(
        ("symbols", "start", "end", "prices"),
        [
            (None, None, None, [1, 1, 2, 2, 3, 3, 4, 4]),
            ("AAPL", None, None, [1, 2, 3, 4]),
            (["AAPL", "AAPL"], None, None, [1, 2, 3, 4]),
            (["NONE"], None, None, []),
            ([], None, None, []),
            ("AAPL", "2013-02", "2013-02", [1, 2]),
            ("AAPL", "2013-03", None, [3, 4]),
            ("AAPL", None, "2013-03-01", [1, 2, 3]),
            ("AAPL", "2013-02-28 21:00", "2013-03-01T21:00Z", [2, 3]),
            ("AAPL", datetime(2013, 2, 28, 21, tzinfo=UTC), datetime(2013, 2, 28, 21, tzinfo=UTC), [2]),
            ("AAPL", datetime(2013, 2, 28, 21, 0, 0, 1, tzinfo=UTC), None, [3, 4]),
            ("AAPL", "2013-03", "2013-02", []),
        ],
    )
    def test_range_of_time(self, filled, symbols, start, end, prices):
        """Both ends are included, spans as a whole; a start after the end is empty, as in pandas."""
        result = run(filled.prices(symbols, start, end))

        assert result["price"].to_list() == prices
        assert result.index.is_monotonic_increasing

    def test_order_of_equal_timestamps(self, filled):
        """Rows of one moment come in the order of the symbols."""
        assert run(filled.prices())["symbol"].to_list() == ["AAPL", "MSFT"] * 4

    def test_invalidate_deletes_a_range(self, filled):
        """What lies in the range is deleted and counted by symbol; the rest stays."""

        async def work():
            deleted = await filled.invalidate(["AAPL", "NONE", "AAPL"], "2013-02-28", "2013-03-01")
            return deleted, await prices_of(filled, "AAPL"), await prices_of(filled, "MSFT")

        deleted, apple, microsoft = run(work())

        assert deleted.to_dict() == {"AAPL": 2, "NONE": 0}
        assert (deleted.name, deleted.index.name, str(deleted.dtype)) == ("deleted", "symbol", "int64")
        assert (apple, microsoft) == ([1, 4], [1, 2, 3, 4])

    def test_invalidate_everything(self, filled):
        """Without arguments everything goes, from memory too."""

        async def work():
            data_id = await filled.store_price("AAPL", 9.0, 1)
            deleted = await filled.invalidate()
            return deleted.to_dict(), await filled.get_price("AAPL", data_id), await prices_of(filled)

        assert run(work()) == ({"AAPL": 5, "MSFT": 4}, None, [])

    def test_warm_cache_fills_memory(self, filled, make):
        """After a warm-up, points are served from memory; the report has a row for each symbol."""
        cold = make()

        async def work():
            ids = [entry.key for entry in await cold.stack.durable.scan("symbol:AAPL")]
            report = await warm_cache(cold, ["AAPL", "NONE"])
            cold.reset_stats()
            for data_id in ids:
                await cold.get_price("AAPL", data_id)
            return report

        report = run(work())

        assert report["rows"].to_dict() == {"AAPL": 4, "NONE": 0}
        assert report["error"].to_list() == ["", ""]
        assert cold.stats().loc["memory", ["requests", "hits"]].to_list() == [4, 4]

    @pytest.mark.parametrize("suffix", [".parquet", ".csv", ".feather"])
    def test_export(self, filled, tmp_path, suffix):
        """A question may be written to a file."""
        path = run(filled.export(tmp_path / f"out{suffix}", "AAPL", "2013-03"))

        assert path == tmp_path / f"out{suffix}"
        assert path.stat().st_size > 0

    def test_purge_counts_what_went(self, filled, clock):
        """Purging deletes what has expired and says how much."""

        async def work():
            await filled.store_price("GONE", 1.0, 1, ttl=5)
            clock.advance(5)
            return await filled.purge(), await filled.purge(), await filled.info()

        first, second, info = run(work())

        assert (first["expired_entries"], second["expired_entries"]) == (1, 0)
        assert info["disk_entries"] == 8

    def test_verify_finds_nothing_wrong(self, filled):
        """A healthy cache has no faults; the empty answer has its columns."""
        result = run(filled.verify())

        assert (len(result), list(result.columns)) == (0, ["collection", "key", "fault"])

    def test_info_says_where_and_how_much(self, make, tmp_path):
        """Info names the folder, entries and bytes of each tier, and their bounds."""
        cache = make(settings=Settings(memory_bytes="1MiB", disk_bytes="1GiB"))

        async def work():
            await cache.store_price("AAPL", 1.0, 1)
            return await cache.info()

        info = run(work())

        assert (info["cache_dir"], info["memory_max_bytes"]) == (str(tmp_path), 2**20)
        assert (info["memory_entries"], info["disk_entries"], info["disk_max_bytes"]) == (1, 1, 2**30)
        assert info["memory_bytes"] > 0
        assert info["disk_bytes"] > 0


class TestStatistics:
    """The totals."""

    def test_exact_keys(self, cache):
        """The totals have exactly these keys, and are zero in the beginning."""
        assert list(cache.get_cache_statistics()) == KEYS
        assert set(cache.get_cache_statistics().values()) == {0}

    def test_counts(self, cache, make):
        """Gets, hits of either tier, misses, puts and deletes are counted exactly."""
        cold = make()

        async def work():
            ids = [await cache.store_price("AAPL", 1.0, 1) for _ in range(3)]
            for data_id in (*ids, *ids, "none", "none"):
                await cache.get_price("AAPL", data_id)
            await cache.delete_price("AAPL", ids[0])
            await cache.delete_price("AAPL", ids[0])
            await cold.get_price("AAPL", ids[1])

        run(work())

        assert cache.get_cache_statistics() == {
            "total_gets": 8,
            "cache_hits": 6,
            "cache_misses": 2,
            "hit_rate_percent": 75.0,
            "total_puts": 3,
            "total_deletes": 2,
        }
        assert cold.get_cache_statistics()["hit_rate_percent"] == 100.0

    def test_bulk_counts_each_row(self, cache, clock):
        """A bulk store counts each row as a put, an invalidation each deleted point as a delete."""

        async def work():
            await cache.store_prices(frame(*[("AAPL", 1.0, 1, clock.now)] * 7))
            await cache.invalidate("AAPL")

        run(work())

        assert cache.get_cache_statistics()["total_puts"] == 7
        assert cache.get_cache_statistics()["total_deletes"] == 7

    def test_reset(self, cache):
        """After a reset all counts are zero, and the data is still there."""

        async def work():
            data_id = await cache.store_price("AAPL", 1.0, 1)
            await cache.get_price("AAPL", data_id)
            cache.reset_stats()
            zero = dict(cache.get_cache_statistics())
            return zero, len(cache.events()), await cache.get_price("AAPL", data_id)

        zero, events, point = run(work())

        assert (set(zero.values()), events, point.price) == ({0}, 0, 1.0)


class TestFaults:
    """What is refused."""

    @pytest.mark.parametrize(
        ("arguments", "field"),
        [
            (("AAPL", -1.0, 1), "price"),
            (("AAPL", 1.0, float("nan")), "volume"),
            (("", 1.0, 1), "symbol"),
        ],
    )
    def test_bad_point_stores_nothing(self, cache, arguments, field):
        """A field that is no part of a price point is named, and nothing was stored."""
        with pytest.raises(ValueError, match=f"{field} is"):
            run(cache.store_price(*arguments))

        assert run(prices_of(cache)) == []

    @pytest.mark.parametrize("timestamp", [0, False, "", "2013-03-01", datetime(2013, 3, 1)], ids=repr)  # noqa: DTZ001 - naive on purpose
    def test_wrong_timestamp_is_not_taken_for_none(self, cache, timestamp):
        """Only None means now; zero or an empty text is an error like any other wrong timestamp."""
        with pytest.raises(InvalidPrice, match=r"^timestamp is"):
            run(cache.store_price("AAPL", 1.0, 1, timestamp=timestamp))

    def test_entry_too_large(self, make, clock):
        """An entry over `max_entry_bytes` is refused, one by one and in bulk, and nothing was stored."""
        cache = make(settings=Settings(max_entry_bytes=60))

        with pytest.raises(EntryTooLarge, match="max_entry_bytes allows 60"):
            run(cache.store_price("AAPL", 1.0, 1))
        with pytest.raises(EntryTooLarge):
            run(cache.store_prices(frame(("AAPL", 1.0, 1, clock.now))))

        assert run(prices_of(cache)) == []
        assert run(cache.get_latest_price("AAPL")) is None

    def test_operations_are_logged_at_the_chosen_level(self, make, caplog):
        """Each operation of the durable tier is logged at `log_level`, without values."""
        cache = make(settings=Settings(log_level="INFO"))
        with caplog.at_level(logging.INFO, logger="tradecache"):
            run(cache.store_price("AAPL", 12345.678, 1))

        assert [record.levelname for record in caplog.records] == ["INFO"]
        assert "symbol:AAPL" in caplog.text
        assert "12345.678" not in caplog.text


class TestClosing:
    """The end of a cache."""

    CALLS = (
        lambda c: c.store_price("AAPL", 1.0, 1),
        lambda c: c.store_prices(frame()),
        lambda c: c.get_price("AAPL", "x"),
        lambda c: c.get_latest_price("AAPL"),
        lambda c: c.latest(),
        lambda c: c.latest("AAPL"),
        lambda c: c.prices(),
        lambda c: c.prices([]),
        lambda c: c.delete_price("AAPL", "x"),
        lambda c: c.invalidate(),
        lambda c: c.export("x.csv"),
        lambda c: c.info(),
        lambda c: c.purge(),
        lambda c: c.verify(),
        lambda c: warm_cache(c, ["AAPL"]),
        lambda c: warm_cache(c, []),
    )

    @pytest.mark.parametrize("durable", [None, MemoryStore()], ids=["folder", "foreign"])
    @pytest.mark.parametrize("call", CALLS)
    def test_closed_cache_says_so(self, make, call, durable):
        """Every method that needs the data raises the same clear error after `cleanup`, over any store."""
        cache = make(durable=durable)
        run(cache.cleanup())

        with pytest.raises(CacheClosed, match="this cache is closed"):
            run(call(cache))

    def test_counts_outlive_the_cache(self, cache):
        """Statistics can still be read after `cleanup`, and closing again is fine."""
        run(cache.store_price("AAPL", 1.0, 1))
        run(cache.cleanup())
        run(cache.cleanup())

        assert cache.get_cache_statistics()["total_puts"] == 1
        assert len(cache.events()) == 1
        assert cache.stats(by="operation").loc["put", "requests"] == 1

    def test_context_manager_closes(self, tmp_path, clock):
        """`async with` closes the cache, also when its block raises."""

        async def work():
            async with TradingDataCache(tmp_path, clock=clock) as cache:
                await cache.store_price("AAPL", 1.0, 1)
                raise KeyError
            return cache

        with pytest.raises(KeyError):
            run(work())

        async def again():
            async with TradingDataCache(tmp_path, clock=clock) as cache:
                latest = await cache.get_latest_price("AAPL")
            with pytest.raises(CacheClosed):
                await cache.get_latest_price("AAPL")
            return latest

        assert run(again()).price == 1.0


class TestManyRows:
    """Thousands of rows at once."""

    BIG = 2_500

    def frame(self) -> pd.DataFrame:
        times = pd.date_range("2020", periods=self.BIG, freq="s", tz="UTC")
        return pd.DataFrame({"symbol": "AAPL", "price": 1.0, "volume": 1.0, "timestamp": times})

    def test_faults_are_named_by_their_place_in_the_whole_frame(self, cache):
        """Rows that are no points are named wherever they stand, and nothing of the frame is stored."""
        broken = self.frame()
        broken.loc[[3, 1999, 2400], "price"] = -1.0
        with pytest.raises(InvalidPrices) as caught:
            run(cache.store_prices(broken))
        assert [row for row, *_ in caught.value.rows] == [3, 1999, 2400]
        assert run(cache.prices()).empty

    def test_the_loop_goes_on(self, cache):
        """Others on the event loop have their turn while many rows are stored, warmed and deleted."""

        async def main():
            for work in (
                lambda: cache.store_prices(self.frame()),
                lambda: warm_cache(cache, "AAPL"),
                lambda: cache.invalidate("AAPL"),
            ):
                task = asyncio.ensure_future(work())
                turns = 0
                while not task.done():
                    await asyncio.sleep(0)
                    turns += 1
                assert turns > 2

        run(main())

    def test_a_cancelled_store_stores_nothing(self, cache):
        """Cancelled at any of its steps, a bulk store leaves nothing behind, and the next one stores all."""

        async def main():
            for turns in range(12):
                task = asyncio.ensure_future(cache.store_prices(self.frame()))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert task.cancelled()
                assert (await cache.prices()).empty
            return len(await cache.store_prices(self.frame())), len(await cache.prices())

        assert run(main()) == (self.BIG, self.BIG)


class TestForeignStore:
    """Any store of py-key-value in the place of the folder."""

    @pytest.fixture
    def foreign(self, make):
        return make(durable=MemoryStore(), clock=None)

    def test_points(self, foreign):
        """Points are stored, found, deleted and ordered in a store that knows no order."""

        async def work():
            ids = [
                await foreign.store_price("AAPL", float(n), n, timestamp=f"2013-03-0{n}T21:00:00Z")
                for n in (2, 1, 3)
            ]
            newest = await foreign.get_latest_price("AAPL")
            deleted = [await foreign.delete_price("AAPL", ids[2]) for _ in range(2)]
            return [
                (await foreign.get_price("AAPL", ids[0])).price,
                newest.price,
                deleted,
                (await foreign.get_latest_price("AAPL")).price,
                await prices_of(foreign),
                (await foreign.prices("AAPL", None, "2013-03-01"))["price"].to_list(),
            ]

        assert run(work()) == [2.0, 3.0, [True, False], 2.0, [1.0, 2.0], [1.0]]

    def test_more_symbols_than_it_lists(self, make):
        """Where the store stops listing at 10,000 collections, a question about all symbols is an error."""
        store = MemoryStore(max_entries_per_collection=1)

        async def work():
            for n in range(10_000):
                await store.put("k", {}, collection=f"symbol:S{n}")
            await make(durable=store, clock=None).prices()

        with pytest.raises(NotEnumerable):
            run(work())

    def test_entries_too_large(self, make):
        """The bound of an entry holds for one point and for a frame of them, and nothing is stored."""
        foreign = make(durable=MemoryStore(), clock=None, settings=Settings(max_entry_bytes=10))

        async def work():
            with pytest.raises(EntryTooLarge):
                await foreign.store_price("AAPL", 1.0, 1)
            with pytest.raises(EntryTooLarge):
                await foreign.store_prices(frame(("AAPL", 1.0, 1, "2013-03-01T21:00:00Z")))
            return len(await foreign.prices("AAPL"))

        assert run(work()) == 0

    def test_it_is_named(self, make, tmp_path):
        """What it is called and where it says that it is, is the store and not a folder it does not use."""
        foreign = make(durable=MemoryStore(), clock=None)
        assert repr(foreign) == "TradingDataCache('MemoryStore')"
        assert run(foreign.info())["cache_dir"] == "MemoryStore"

    def test_empty_store_is_a_store(self, make, tmp_path, clock):
        """A store that is false while it is empty is used nevertheless."""
        store = HotStore(max_bytes=2**20, clock=Clock(clock))
        cache = make(durable=store)

        run(cache.store_price("AAPL", 1.0, 1))

        assert len(store) == 1
        assert list(tmp_path.iterdir()) == []

    def test_bulk(self, foreign):
        """A frame is stored, invalidated and counted."""
        rows = [(symbol, n + 1.0, n, f"2013-03-0{n + 1}T21:00:00Z") for n in range(5) for symbol in "AB"]

        async def work():
            ids = await foreign.store_prices(frame(*rows), ttl=3600)
            stored = await foreign.prices()
            deleted = await foreign.invalidate("A", "2013-03-02", "2013-03-04")
            return ids, stored, deleted.to_dict(), await prices_of(foreign, "A")

        ids, stored, deleted, left = run(work())

        assert (len(ids), len(stored), deleted, left) == (10, 10, {"A": 3}, [1.0, 5.0])
        assert stored["expires_at"].notna().all()

    def test_frames_have_the_same_dtypes(self, foreign, cache):
        """An answer has the same columns and dtypes whatever the store."""

        async def work():
            for each in (foreign, cache):
                await each.store_price("AAPL", 1.0, 1)
            return [(await each.prices(), await each.latest()) for each in (foreign, cache)]

        (prices, latest), (its_prices, its_latest) = run(work())

        assert (prices.dtypes.to_dict(), latest.dtypes.to_dict()) == (
            its_prices.dtypes.to_dict(),
            its_latest.dtypes.to_dict(),
        )

    def test_housekeeping(self, foreign):
        """Info, purge, verify and warm-up do what they can, without an error."""

        async def work():
            data_id = await foreign.store_price("AAPL", 1.0, 1)
            report = await warm_cache(foreign, "AAPL")
            return [
                report.loc["AAPL", ["rows", "error"]].to_list(),
                (await foreign.info())["memory_entries"],
                (await foreign.purge()).to_dict(),
                len(await foreign.verify()),
                (await foreign.get_price("AAPL", data_id)).price,
            ]

        assert run(work()) == [[1, ""], 1, {}, 0, 1.0]

    def test_bulk_that_fails_half_way_is_undone(self, make, clock):
        """In a store without transactions, what was put before a failure is taken out again."""

        class Failing(MemoryStore):
            puts = 0

            async def put(self, key, value, *, collection=None, ttl=None):
                Failing.puts += 1
                if Failing.puts == 3:
                    raise ValueError("the third put fails")
                await super().put(key, value, collection=collection, ttl=ttl)

        cache = make(durable=Failing())
        with pytest.raises(ValueError, match="the third put fails"):
            run(cache.store_prices(frame(*[("AAPL", 1.0, 1, clock.now)] * 4)))

        assert run(prices_of(cache)) == []

    def test_more_than_it_can_list_is_an_error(self, make):
        """Where the store would silently list 10,000 of more keys, the question is refused."""
        store = MemoryStore(max_entries_per_collection=20_000)
        cache = make(durable=store, clock=None)
        value = {"symbol": "AAPL", "price": 1.0, "volume": 1.0, "timestamp": "2013-03-01T21:00:00Z"}

        async def work():
            keys = [f"2013-03-01T21:00:00.000000Z-{n:016x}-00000000" for n in range(10_001)]
            await store.put_many(keys, [value] * len(keys), collection="symbol:AAPL")
            found = await cache.get_price("AAPL", keys[-1])
            with pytest.raises(NotEnumerable, match="10,000"):
                await cache.prices("AAPL")
            with pytest.raises(NotEnumerable):
                await cache.get_latest_price("AAPL")
            return found.price

        assert run(work()) == 1.0

    def test_store_that_cannot_list_still_serves_points(self, make):
        """A store without enumeration serves points by id; other questions say what they need."""

        class Plain:
            """The key-value protocol and nothing more."""

            def __init__(self) -> None:
                store = MemoryStore()
                for name in (
                    "get", "ttl", "put", "delete", "get_many", "ttl_many", "put_many", "delete_many",
                ):  # fmt: skip
                    setattr(self, name, getattr(store, name))

        cache = make(durable=Plain())

        async def work():
            data_id = await cache.store_price("AAPL", 1.0, 1)
            for question in (cache.prices(), cache.latest(), cache.invalidate(), cache.prices("AAPL")):
                with pytest.raises(NotEnumerable, match="Plain cannot list all its keys"):
                    await question
            return (await cache.get_price("AAPL", data_id)).price, await cache.delete_price("AAPL", data_id)

        assert run(work()) == (1.0, True)
