"""What each tier holds, and until when."""

import pandas as pd
import pytest
from key_value.aio.stores.memory import MemoryStore

from tradecache import Settings, TradeCache
from tradecache.freshness import FixedTTL
from tradecache.holdings import occupancy_frame
from tradecache.sources import Synthetic

BARS = pd.DataFrame(
    dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0),
    index=pd.date_range("2024-01-01", periods=10, unit="us"),
)


@pytest.fixture
def filled(make):
    """A cache with three points, one of which lives for an hour, and bars of two kinds."""
    cache = make()
    cache.store_price("A", 1.0, 1)
    cache.store_price("A", 2.0, 1, ttl=3600)
    cache.store_price("B", 3.0, 1)
    cache.store_bars("A", BARS)
    cache.store_bars("C", BARS.iloc[:4], ttl=60)
    return cache


class TestExpiries:
    """One row for each entry that is alive."""

    def test_rows(self, filled, clock):
        """Points and spans of bars are rows, with the moment at which their time is up, and what is left of it."""
        clock.advance(10)

        result = filled.expiries().sort_values(["dataset", "symbol", "ttl"], ignore_index=True)

        now = pd.Timestamp(clock.now)
        assert result[["symbol", "dataset", "source", "rows"]].to_numpy().tolist() == [
            ["A", "bars 1d", "local", 10],
            ["C", "bars 1d", "local", 4],
            ["A", "prices", "local", 1],
            ["A", "prices", "local", 1],
            ["B", "prices", "local", 1],
        ]
        assert result["expires_at"].isna().to_list() == [True, False, False, True, True]
        assert (result["expires_at"] - now).dropna().dt.total_seconds().to_list() == [50, 3590]
        assert result["ttl"].dropna().dt.total_seconds().to_list() == [50, 3590]

    def test_what_has_expired_is_gone(self, filled, clock):
        """What has expired, one's own bars too, is no row."""
        clock.advance(3600)

        result = filled.expiries()

        assert result.groupby("dataset")["rows"].sum().to_dict() == {"bars 1d": 10, "prices": 2}
        assert result["ttl"].isna().all()

    def test_stale_bars(self, make, clock):
        """Bars of a source that are no longer fresh are still there, with less than nothing left."""
        cache = make(Synthetic(), freshness=FixedTTL(60, jitter=0))
        cache.bars("A", "2024-01", "2024-01")
        clock.advance(100)

        assert cache.expiries()["ttl"].to_list() == [pd.Timedelta(-40, "s")]

    def test_after_the_clock_was_set_back(self, make, clock):
        """What is left of a life is what `latest` says, also after the wall clock was set back."""
        cache = make()
        cache.store_price("A", 1.0, 1, ttl=60)
        clock.advance(-3600)
        cache.store_price("B", 1.0, 1, ttl=60)

        assert cache.expiries("B")["ttl"].to_list() == cache.latest("B")["ttl"].to_list()

    def test_of_some_symbols(self, filled):
        """Only those that are asked for, one as text or several."""
        assert set(filled.expiries("B")["symbol"]) == {"B"}
        assert set(filled.expiries(["A", "C"])["symbol"]) == {"A", "C"}
        assert len(filled.expiries("NONE")) == 0


class TestOccupancy:
    """Bytes and entries by tier and dataset."""

    def test_adds_up_to_what_info_says(self, filled):
        """Entries and bytes of each tier are those of `info`."""
        filled.bars("A", source="local")
        result, info = filled.occupancy().groupby("tier")[["entries", "bytes"]].sum(), filled.info()

        for tier in ("memory", "disk"):
            assert result.loc[tier].to_list() == [info[f"{tier}_entries"], info[f"{tier}_bytes"]]

    def test_datasets(self, filled):
        """Points and bars are told apart in both tiers."""
        result = filled.occupancy()

        assert result[["tier", "dataset"]].to_numpy().tolist() == [
            ["memory", "bars"], ["memory", "prices"], ["disk", "bars"], ["disk", "prices"],
        ]  # fmt: skip
        assert result.loc[result["dataset"] == "prices", "entries"].to_list() == [3, 3]

    def test_limits(self, tmp_path):
        """Each row has the limit of its tier; a disk without one has none."""
        limited = Settings(memory_bytes=1_000_000, disk_bytes=2_000_000)
        with TradeCache(tmp_path, settings=limited) as cache:
            assert cache.occupancy()["max_bytes"].to_list() == [1_000_000, 2_000_000]
        with TradeCache(tmp_path) as cache:
            assert cache.occupancy()["max_bytes"].isna().to_list() == [False, True]

    def test_an_empty_cache(self, make):
        """Each tier has a row of nothing, in no dataset."""
        result = make().occupancy()

        assert result.iloc[:, :4].to_numpy().tolist() == [["memory", "", 0, 0], ["disk", "", 0, 0]]

    def test_a_store_that_does_not_tell(self):
        """Of a store that was passed in it is not known what it holds: it has no row."""
        with TradeCache(durable=MemoryStore()) as cache:
            cache.store_price("A", 1.0, 1)

            assert cache.occupancy()["tier"].to_list() == ["memory"]

    @pytest.mark.parametrize(
        ("collection", "dataset"),
        [
            ("symbol:A", "prices"), ("bars/local/A/1d", "bars"), ("views/wide", "views"),
            ("views/bars/local/A/1d", "views"), ("history", "history"), ("mine", "other"),
        ],
    )  # fmt: skip
    def test_collections(self, collection, dataset):
        """What a collection belongs to follows from its name."""
        result = occupancy_frame(memory={collection: (2, 10)}, disk=None, settings=Settings())

        assert result.iloc[0, :4].to_list() == ["memory", dataset, 2, 10]
