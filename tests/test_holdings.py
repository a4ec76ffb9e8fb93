"""What each tier holds, and until when."""

import pandas as pd
import pytest

from tradecache import Settings, TradeCache
from tradecache.holdings import occupancy_frame

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
        """A point whose time is up is no row; bars that are stale have less than nothing left."""
        clock.advance(3600)

        result = filled.expiries()

        assert len(result[result["dataset"] == "prices"]) == 2
        assert (result["ttl"].dropna() <= pd.Timedelta(0)).all()

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
        """Each tier has a row of nothing."""
        result = make().occupancy()

        assert result[["tier", "entries", "bytes"]].to_numpy().tolist() == [["memory", 0, 0], ["disk", 0, 0]]

    @pytest.mark.parametrize(
        ("collection", "dataset"),
        [
            ("symbol:A", "prices"), ("bars/local/A/1d", "bars"), ("views/wide", "views"),
            ("views/bars/local/A/1d", "views"), ("history", "history"), ("mine", "other"),
        ],
    )  # fmt: skip
    def test_collections(self, collection, dataset):
        """What a collection belongs to follows from its name."""
        result = occupancy_frame({collection: (2, 10)}, {}, Settings())

        assert result.iloc[0, :4].to_list() == ["memory", dataset, 2, 10]
