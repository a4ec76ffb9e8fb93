"""Counters and events as frames, against requests counted by hand."""

import math
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from clocks import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import run
from pandas.testing import assert_frame_equal

from tradecache import InvalidInput, Settings, StoreError, TradeCache, TradingDataCache
from tradecache.clock import Clock
from tradecache.stats import events_frame, history_frame, hit_rate_frame, stats_frame
from tradecache.stores.hot import HotStore
from tradecache.telemetry import Bin, Telemetry

NAN = math.nan
COUNTS = ["requests", "hits", "fetches", "misses", "errors", "hit_rate", "rows"]

REQUESTS = [  # operation, symbol, tier, rows, milliseconds
    ("get", "A", "memory", 1, 1),
    ("get", "A", "memory", 1, 3),
    ("get", "A", "disk", 1, 10),
    ("get", "B", "none", 0, 20),
    ("get", "B", "error", 0, 30),
    ("latest", "A", "disk", 1, 40),
    ("latest", "C", "none", 0, 50),
    ("prices", "", "disk", 500, 60),
    ("prices", "B", "none", 0, 70),
    ("put", "A", "disk", 1, 80),
    ("put", "", "disk", 100, 90),
    ("put", "A", "error", 0, 95),
    ("delete", "A", "disk", 1, 100),
    ("delete", "A", "none", 0, 110),
]

requests = st.tuples(
    st.sampled_from(["get", "latest", "prices", "put", "delete"]),
    st.sampled_from(["A", "B", ""]),
    st.sampled_from(["memory", "disk", "none", "error"]),
    st.integers(0, 5),
    st.integers(0, 5),
)


def recorded(some, *, step=1.0, **options) -> Telemetry:
    """Return telemetry of requests that came one every `step` seconds."""
    wall = FakeClock()
    telemetry = Telemetry(Clock(wall).epoch, **options)
    for operation, symbol, tier, rows, milliseconds in some:
        telemetry.record(operation, "prices", symbol, tier, rows, 24 * rows, milliseconds / 1000)
        wall.advance(step)
    return telemetry


def table(frame: pd.DataFrame) -> dict[str, list[float]]:
    return {str(label): [float(x) for x in row] for label, row in zip(frame.index, frame[COUNTS].to_numpy(), strict=True)}  # fmt: skip


def same(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(
        np.array_equal(left[key], right[key], equal_nan=True) for key in left
    )


def adds_up(frame: pd.DataFrame) -> bool:
    """Whether each request of each row has one outcome."""
    outcomes = frame[["hits", "fetches", "misses", "errors"]].sum(axis=1)
    return bool((frame["requests"] == outcomes).all() and (frame["stale"] <= frame["hits"]).all())


class TestStats:
    """Who was asked, who answered."""

    @pytest.mark.parametrize(
        ("by", "expected"),
        [
            (  # gets ask memory first; what it could not serve, and every other question, goes to the disk
                "tier",
                {
                    "memory": [5, 2, 0, 3, 0, 2 / 5, 2],
                    "disk": [7, 3, 0, 3, 1, 3 / 7, 502],
                },
            ),
            (
                "symbol",
                {
                    "": [1, 1, 0, 0, 0, 1.0, 500],
                    "A": [4, 4, 0, 0, 0, 1.0, 4],
                    "B": [3, 0, 0, 2, 1, 0.0, 0],
                    "C": [1, 0, 0, 1, 0, 0.0, 0],
                },
            ),
            ("dataset", {"prices": [9, 5, 0, 3, 1, 5 / 9, 504]}),
            (
                "operation",
                {
                    "delete": [2, 1, 0, 1, 0, NAN, 1],
                    "get": [5, 3, 0, 1, 1, 3 / 5, 3],
                    "latest": [2, 1, 0, 1, 0, 1 / 2, 1],
                    "prices": [2, 1, 0, 1, 0, 1 / 2, 500],
                    "put": [3, 2, 0, 0, 1, NAN, 101],
                },
            ),
        ],
    )
    def test_counts(self, by, expected):
        """Requests, hits, misses, errors, hit rate and rows are those counted by hand."""
        result = stats_frame(recorded(REQUESTS), by=by)

        assert same(table(result), expected)
        assert result.index.name == by

    @pytest.mark.parametrize(
        ("by", "label", "milliseconds"),
        [
            ("tier", "memory", [1, 3]),
            ("tier", "disk", [10, 40, 60]),
            ("symbol", "A", [1, 3, 10, 40]),
            ("symbol", "B", [20, 30, 70]),
            ("dataset", "prices", [1, 3, 10, 20, 30, 40, 50, 60, 70]),
            ("operation", "put", [80, 90, 95]),
            ("operation", "get", [1, 3, 10, 20, 30]),
        ],
    )
    def test_latencies(self, by, label, milliseconds):
        """The median and the 95th percentile are those of the requests, in microseconds."""
        row = stats_frame(recorded(REQUESTS), by=by).loc[label]

        assert row["p50_us"] == pytest.approx(np.median(milliseconds) * 1000)
        assert row["p95_us"] == pytest.approx(np.quantile(milliseconds, 0.95) * 1000)

    def test_nothing_asked(self):
        """Before the first request there are no rates and no latencies, but both tiers."""
        result = stats_frame(recorded([]))

        assert same(table(result), {"memory": [0, 0, 0, 0, 0, NAN, 0], "disk": [0, 0, 0, 0, 0, NAN, 0]})
        assert result[["p50_us", "p95_us"]].isna().all(axis=None)
        for by in ("symbol", "dataset", "operation"):
            assert stats_frame(recorded([]), by=by).empty

    def test_only_errors(self):
        """A request that failed is neither a hit nor a miss, but it was asked."""
        result = stats_frame(recorded([("latest", "A", "error", 0, 1)]), by="symbol")

        assert same(table(result), {"A": [1, 0, 0, 0, 1, 0.0, 0]})

    def test_counts_do_not_forget(self):
        """Counts stay exact after the events of long ago were forgotten; latencies are of the others."""
        telemetry = recorded([("get", "A", "memory", 1, 1000)] * 7 + [("get", "A", "memory", 1, 2)] * 3, max_events=3)  # fmt: skip

        row = stats_frame(telemetry).loc["memory"]

        assert (row["requests"], row["hits"], row["p95_us"]) == (10, 10, 2000)

    @settings(max_examples=30)
    @given(st.lists(requests, max_size=40))
    def test_all_views_agree(self, some):
        """By whatever it is counted, the sums are the same, and each request has one outcome."""
        telemetry = recorded(some)
        reads = [each for each in some if each[0] in {"get", "latest", "prices"}]

        for by, expected in (("symbol", reads), ("dataset", reads), ("operation", some)):
            frame = stats_frame(telemetry, by=by)
            assert frame["requests"].sum() == len(expected)
            assert frame["rows"].sum() == sum(rows for *_, rows, _ in expected)
            assert frame["bytes"].sum() == 24 * frame["rows"].sum()
            assert adds_up(frame)
        tiers = stats_frame(telemetry, by="tier")
        assert adds_up(tiers)
        assert tiers.loc["memory", "requests"] == sum(operation == "get" for operation, *_ in some)
        assert tiers.loc["disk", "misses"] == sum(tier == "none" for _, _, tier, *_ in reads)

    @pytest.mark.parametrize("by", ["tiers", "", None, 5, ["tier"]])
    def test_unknown_by(self, by):
        """An unknown way to count is an error that lists the four."""
        with pytest.raises(InvalidInput, match=r"but must be one of tier, symbol, dataset, operation$"):
            stats_frame(recorded([]), by=by)


class TestEvents:
    """Requests as rows."""

    def test_rows(self):
        """Each remembered request is a row, oldest first, with its time; served by a tier is a hit."""
        result = events_frame(recorded([REQUESTS[0], REQUESTS[3], REQUESTS[4]], step=1.5))

        assert result["operation"].to_list() == ["get", "get", "get"]
        assert result["symbol"].to_list() == ["A", "B", "B"]
        assert result["tier"].to_list() == ["memory", "none", "error"]
        assert result["outcome"].to_list() == ["hit", "miss", "error"]
        assert result["rows"].to_list() == [1, 0, 0]
        assert result["bytes"].to_list() == [24, 0, 0]
        assert result["seconds"].to_list() == [0.001, 0.02, 0.03]
        assert (result.index - result.index[0]).total_seconds().to_list() == [0, 1.5, 3]
        assert result.index[0] == pd.Timestamp(FakeClock().now)


class TestHitRate:
    """The hit rate over time."""

    SERVED = ("none", "disk", "memory", "memory", "error", "disk")

    def reads(self, step=1.0):
        return recorded([("get", "A", tier, 1, 1) for tier in self.SERVED], step=step)

    @pytest.mark.parametrize("window", ["2s", 2, 2.0, timedelta(seconds=2), pd.Timedelta("2s")], ids=repr)
    def test_windows(self, window):
        """Each bin has its share by tier, and the hit rate since the beginning."""
        result = hit_rate_frame(self.reads(), window=window)

        assert result["requests"].to_list() == [2, 2, 2]
        assert result["memory"].to_list() == [0.0, 1.0, 0.0]
        assert result["disk"].to_list() == [0.5, 0.0, 0.5]
        assert result["hit_rate"].to_list() == [0.5, 1.0, 0.5]
        assert result["none"].to_list() == [0.5, 0.0, 0.0]
        assert result["error"].to_list() == [0.0, 0.0, 0.5]
        assert result["source"].to_list() == [0.0, 0.0, 0.0]
        assert result["cumulative"].to_list() == [1 / 2, 3 / 4, 4 / 6]

    def test_bins_begin_with_the_first_read(self):
        """The first bin begins with the first read, however wide the bins are."""
        result = hit_rate_frame(self.reads(), window="1h")

        assert result.index.to_list() == [pd.Timestamp(FakeClock().now)]
        assert result["requests"].to_list() == [6]

    def test_quiet_times_have_no_rate(self):
        """A bin without requests has no shares; the hit rate since the beginning goes on."""
        result = hit_rate_frame(self.reads(step=10), window=5)

        assert result["requests"].to_list() == [1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
        assert result["hit_rate"].isna().to_list() == [n == 0 for n in result["requests"]]
        assert result["cumulative"].notna().all()

    def test_default_window_is_a_hundredth(self):
        """By default there are about a hundred bins."""
        assert 100 <= len(hit_rate_frame(recorded([REQUESTS[0]] * 1000))) <= 101

    def test_one_read(self):
        """A single read is a single bin."""
        result = hit_rate_frame(recorded([REQUESTS[0]]))

        assert result[["requests", "memory", "cumulative"]].to_numpy().tolist() == [[1, 1, 1]]

    def test_writes_are_no_reads(self):
        """Puts and deletes have no part in the hit rate."""
        telemetry = recorded([each for each in REQUESTS if each[0] in {"put", "delete"}])

        assert len(hit_rate_frame(telemetry)) == 0

    @settings(max_examples=50)
    @given(st.lists(requests, max_size=40), st.sampled_from(["1s", "3s", "7s", "1h"]))
    def test_bins_add_up(self, some, window):
        """Whatever the bins, they hold each read once, and end in the same hit rate."""
        reads = [each for each in some if each[0] in {"get", "latest", "prices"}]

        result = hit_rate_frame(recorded(some), window=window)

        assert result["requests"].sum() == len(reads)
        busy = result[result["requests"] > 0]
        assert np.allclose(busy[["memory", "disk", "team", "source", "none", "error"]].sum(axis=1), 1.0)
        if reads:
            hits = sum(tier in {"memory", "disk"} for _, _, tier, *_ in reads)
            assert result["cumulative"].iloc[-1] == hits / len(reads)

    def test_by_symbol(self):
        """By symbol, each has a row for each bin, on the same bins, and the same totals as alone."""
        telemetry = recorded(
            [("get", symbol, tier, 1, 1) for symbol, tier in zip("ABABBC", self.SERVED, strict=True)]
        )

        result = hit_rate_frame(telemetry, window=3, by="symbol")

        assert result["symbol"].to_list() == ["A", "A", "B", "B", "C", "C"]
        assert (result.index - result.index[0]).total_seconds().to_list() == [0, 3, 0, 3, 0, 3]
        assert result["requests"].to_list() == [2, 0, 1, 2, 0, 1]
        assert result["cumulative"].fillna(-1).to_list() == [1 / 2, 1 / 2, 1.0, 2 / 3, -1, 1.0]

    def test_many_symbols_have_fewer_bins(self):
        """However many symbols there are, by default there are no more bins than fit into memory."""
        telemetry = Telemetry(max_events=60_000)
        for n in range(60_000):
            telemetry.record("get", "prices", f"S{n}", "memory", 1, 24, 0.0)

        assert len(hit_rate_frame(telemetry, by="symbol")) <= 1_100_000

    @pytest.mark.parametrize(("window", "seconds"), [("1d", 86400), ("2 d", 172800), ("1500ns", 2e-6)])
    def test_spellings(self, window, seconds):
        """Days may be spelt as they always were, and widths are rounded up to microseconds."""
        result = hit_rate_frame(recorded([REQUESTS[0]]), window=window)

        assert pd.Timedelta(result.index.freq).total_seconds() == seconds

    def test_windows_of_a_history(self):
        """A history is counted by the minute, and cannot be split finer."""
        with pytest.raises(InvalidInput, match="at least 60 seconds"):
            hit_rate_frame(recorded([]), window="1s", history=history_frame([]))

    def test_by_symbol_is_the_sum_of_all(self):
        """The requests of all symbols in a bin are those of the bin."""
        telemetry = recorded(REQUESTS)

        alone, all_of_them = (hit_rate_frame(telemetry, window=2, by=by) for by in ("tier", "symbol"))

        sums = all_of_them.groupby(level=0)["requests"].sum()
        assert sums.to_list() == alone["requests"].to_list()

    @pytest.mark.parametrize("by", ["tiers", "", None, "dataset"])
    def test_unknown_by(self, by):
        """An unknown way to split is an error that lists the two."""
        with pytest.raises(InvalidInput, match=r"but must be one of tier, symbol$"):
            hit_rate_frame(self.reads(), by=by)

    @pytest.mark.parametrize("by", ["tier", "symbol"])
    def test_empty_frames_keep_their_dtypes(self, by):
        """Without reads the columns and their dtypes are those of a full frame."""
        empty, full = hit_rate_frame(recorded([]), by=by), hit_rate_frame(self.reads(), by=by)

        assert_frame_equal(empty, full.iloc[:0], check_freq=False)

    def test_of_a_history(self):
        """The requests of a history are counted by their minutes; bins begin at round times."""
        begin = 1_700_000_000.0 // 3600 * 3600
        bins = [
            Bin(begin + 120, "get", "prices", "memory", False, 30, 30, 0),
            Bin(begin + 120, "put", "prices", "disk", False, 7, 7, 0),
            Bin(begin + 180, "bars", "bars 1d", "source", False, 10, 30, 0),
            Bin(begin + 7200, "bars", "bars 1d", "disk", True, 5, 30, 0),
        ]

        result = hit_rate_frame(recorded([]), window="1h", history=history_frame(bins))

        assert result.index[0] == pd.Timestamp(begin, unit="s", tz="UTC")
        assert result["requests"].to_list() == [40, 0, 5]
        assert result["hit_rate"].dropna().to_list() == [30 / 40, 1.0]
        assert result["source"].iloc[0] == 10 / 40

    @pytest.mark.parametrize("history", [5, "x", pd.DataFrame(), pd.DataFrame({"requests": [1]})], ids=type)
    def test_what_is_no_history(self, history):
        """What `history()` did not return is an error that says so."""
        with pytest.raises(
            InvalidInput, match=r"^history is (?s:.*), but must be a frame that `history\(\)` returned"
        ):
            hit_rate_frame(recorded([]), history=history)

    def test_a_history_knows_no_symbols(self):
        """A history cannot be split by symbol, and the error says why."""
        with pytest.raises(InvalidInput, match="knows no symbols"):
            hit_rate_frame(recorded([]), by="symbol", history=history_frame([]))

    @pytest.mark.parametrize(
        "window",
        [0, -1, "-1s", "", "x", "1ns", 1e-9, NAN, math.inf, 1e300, True, [1], pd.NaT, "NaT", b"1s", timedelta(0)],
        ids=repr,
    )  # fmt: skip
    def test_impossible_window(self, window):
        """What is no width is an error that names the window and what is allowed."""
        for telemetry in (self.reads(), recorded([])):
            with pytest.raises(
                InvalidInput, match=r"^window is .*, but must be (a width|at least)"
            ) as caught:
                hit_rate_frame(telemetry, window=window)
            assert caught.value.value is window

    def test_window_that_would_fill_the_memory(self):
        """More than a million bins are refused, saying how wide the bins must be."""
        with pytest.raises(InvalidInput, match=r"at least 0\.005 seconds$"):
            hit_rate_frame(recorded([REQUESTS[0]] * 2, step=5000), window="1us")


class TestCache:
    """The same, asked of a cache that was really used."""

    def test_hand_counted_session(self, tmp_path, clock):
        """A session counted by hand: what came from memory, from disk, from nowhere."""
        with TradeCache(tmp_path, clock=clock) as cache:
            ids = [cache.store_price(symbol, 1.0, 1, ttl=60) for symbol in ("A", "A", "B")]
            frame = cache.prices(["A", "B"])
            cache.store_prices(frame)
        with TradeCache(tmp_path, clock=clock) as cache:
            for _ in range(3):
                cache.get_price("A", ids[0])  # disk, memory, memory
            cache.get_price("A", ids[2])  # none: it is B's
            cache.get_latest_price("B")  # disk
            cache.get_latest_price("C")  # none
            cache.prices("A")  # disk, 4 rows
            cache.prices()  # disk, 6 rows
            cache.delete_price("A", ids[1])
            clock.advance(60)
            cache.get_price("A", ids[0])  # none: expired
            cache.invalidate("B")
            events, tiers = cache.events(), cache.stats()
            symbols, operations = cache.stats(by="symbol"), cache.stats(by="operation")

        assert events["operation"].to_list() == [
            "get", "get", "get", "get", "latest", "latest", "prices", "prices", "delete", "get", "delete",
        ]  # fmt: skip
        assert events["tier"].to_list() == [
            "disk", "memory", "memory", "none", "disk", "none", "disk", "disk", "disk", "none", "disk",
        ]  # fmt: skip
        assert events["rows"].to_list() == [1, 1, 1, 0, 1, 0, 4, 6, 1, 0, 1]
        assert same(table(tiers), {"memory": [5, 2, 0, 3, 0, 2 / 5, 2], "disk": [7, 4, 0, 3, 0, 4 / 7, 12]})
        assert symbols["requests"].to_dict() == {"": 1, "A": 6, "B": 1, "C": 1}
        assert operations["requests"].to_dict() == {"delete": 2, "get": 5, "latest": 2, "prices": 2}

    def test_failing_requests_are_errors(self, tmp_path, clock):
        """A request that raises is counted as an error, under its operation."""

        class Broken(HotStore):
            async def ttl(self, key, *, collection=None):
                raise StoreError(tmp_path, "broken")

            async def put(self, key, value, *, collection=None, ttl=None):
                raise StoreError(tmp_path, "broken")

        store = Broken(max_bytes=2**20, clock=Clock(clock))
        cache = TradingDataCache(clock=clock, durable=store, settings=Settings(retries=0))

        for work in (cache.get_price("A", "x"), cache.store_price("A", 1.0, 1)):
            with pytest.raises(StoreError, match="broken"):
                run(work)

        assert cache.stats(by="operation")["errors"].to_dict() == {"get": 1, "put": 1}
        assert cache.stats().loc["disk", "errors"] == 1
        assert cache.events()["tier"].to_list() == ["error", "error"]

    def test_refused_arguments_are_no_requests(self, tmp_path):
        """What was refused before anything was asked is not counted."""
        with TradeCache(tmp_path) as cache:
            for call in (
                lambda: cache.store_price("A", -1.0, 1),
                lambda: cache.get_price("A", None),
                lambda: cache.delete_price("A", 5),
                lambda: cache.prices("A", "soon"),
                lambda: cache.latest(5),
            ):
                with pytest.raises(InvalidInput):
                    call()

            assert len(cache.events()) == 0

    def test_both_faces_answer_alike(self, tmp_path, clock):
        """The async and the sync face give the same frames."""
        with TradeCache(tmp_path, clock=clock) as cache:
            cache.get_price("A", cache.store_price("A", 1.0, 1))

            for by in ("tier", "symbol", "dataset", "operation"):
                assert_frame_equal(cache.stats(by=by), cache.core.stats(by=by))
            assert_frame_equal(cache.events(), cache.core.events())
            assert_frame_equal(cache.hit_rate("1s"), cache.core.hit_rate("1s"))
