"""The law of the counters: each request is counted once, as what became of it, whoever else asks meanwhile."""

import concurrent.futures
import warnings
from collections import Counter

import pandas as pd
import pytest
from barsources import TruthSource
from clocks import FakeClock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tradecache import Settings, TradeCache
from tradecache.errors import TradeCacheError
from tradecache.freshness import FixedTTL

OUTCOMES = ["hits", "fetches", "misses", "errors"]
SYMBOLS = ("A", "B", "UNKNOWN")
DAYS = pd.date_range("2024-01-01", "2024-03-31", freq="D", unit="us")
ASKED = {
    "get": "get",
    "no such": "get",
    "latest": "latest",
    "prices": "prices",
    "bars": "bars",
    "own": "bars",
}
TRUTH = pd.DataFrame(
    {"open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 10.0}, index=DAYS.rename("timestamp")
)

questions = st.tuples(st.sampled_from(list(ASKED)), st.sampled_from(SYMBOLS), st.integers(0, 2))


def new_cache(folder, clock=None, **options) -> tuple[TradeCache, TruthSource, dict[str, str]]:
    """Return a cache with a point of each symbol, its source, and the ids of the points."""
    source = TruthSource({"A": TRUTH, "B": TRUTH})
    cache = TradeCache(folder, source=source, clock=clock, settings=Settings(retries=0), **options)
    return cache, source, {symbol: cache.store_price(symbol, 1.0, 1) for symbol in SYMBOLS}


def ask(cache: TradeCache, ids: dict[str, str], question: tuple[str, str, int]) -> None:
    """Ask once, whatever comes of it."""
    what, symbol, month = question
    start = pd.Timestamp(2024, 1 + month, 1)
    calls = {
        "get": lambda: cache.get_price(symbol, ids[symbol]),
        "no such": lambda: cache.get_price(symbol, "none"),
        "latest": lambda: cache.get_latest_price(symbol),
        "prices": lambda: cache.prices(symbol),
        "bars": lambda: cache.bars(symbol, start, start + pd.offsets.MonthEnd()),
        "own": lambda: cache.bars(symbol, start, source="local"),
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            calls[what]()
    except TradeCacheError:
        return


def check(cache: TradeCache, asked: Counter) -> None:
    """Each view of the counters has each request once, and they agree."""
    reads = asked.total()
    by = {name: cache.stats(by=name) for name in ("tier", "symbol", "dataset", "operation")}
    operations = by["operation"].reindex(asked.keys(), fill_value=0)
    assert operations["requests"].to_dict() == dict(asked)
    for frame in by.values():
        assert (frame["requests"] == frame[OUTCOMES].sum(axis=1)).all()
        assert (frame["stale"] <= frame["hits"] + frame["fetches"]).all()
    total = by["dataset"][["requests", *OUTCOMES]].sum()
    tiers = by["tier"]
    fetched = tiers["fetches"].get("source", 0)
    assert (
        reads == tiers["hits"]["memory"] + tiers["hits"]["disk"] + fetched + total["misses"] + total["errors"]
    )
    assert (total["hits"], total["fetches"]) == (tiers["hits"].sum(), fetched)
    assert by["symbol"]["requests"].sum() == total["requests"] == reads == len(reads_of(cache))
    outcomes = Counter(reads_of(cache)["outcome"])
    served = Counter(reads_of(cache)["tier"])
    assert served["memory"] + served["disk"] == total["hits"]
    assert (
        outcomes["hit"] + outcomes["stale"] + outcomes["miss"] == total[["hits", "fetches", "misses"]].sum()
    )
    assert outcomes["stale"] == by["symbol"]["stale"].sum() == tiers["stale"].sum()
    assert outcomes["error"] == total["errors"]
    totals = cache.get_cache_statistics()
    assert (totals["total_gets"], totals["cache_hits"]) == (reads, total["hits"])


def reads_of(cache: TradeCache) -> pd.DataFrame:
    events = cache.events()
    return events[events["operation"].isin(set(ASKED.values()))]


def counted(some) -> Counter:
    return Counter(ASKED[what] for what, *_ in some)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(questions, st.sampled_from(["break", "mend", "year"])), max_size=25))
def test_each_request_is_counted_once(tmp_path_factory, no_pauses, some):
    """Over hits, fetches, failures and stale answers, requests = memory + disk + source + misses + errors."""
    clock = FakeClock()
    cache, source, ids = new_cache(tmp_path_factory.mktemp("cache"), clock)
    with cache:
        cache.reset_stats()
        for each in some:
            if each == "break":
                source.error = ConnectionError("broken")
            elif each == "mend":
                source.error = None
            elif each == "year":
                clock.advance(365 * 86400)
            else:
                ask(cache, ids, each)
        check(cache, counted(each for each in some if isinstance(each, tuple)))


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(questions, min_size=10, max_size=40), min_size=8, max_size=8))
def test_by_threads_at_once(tmp_path_factory, no_pauses, some):
    """Eight threads that ask one cache at the same time are counted exactly."""
    cache, _, ids = new_cache(tmp_path_factory.mktemp("cache"))
    with cache, concurrent.futures.ThreadPoolExecutor(8) as pool:
        cache.reset_stats()
        list(pool.map(lambda mine: [ask(cache, ids, each) for each in mine], some))
        check(cache, counted(each for mine in some for each in mine))


def test_many_that_wait_for_one_fetch(tmp_path):
    """Of many who ask at once for a cold range each is counted once, one of them as a fetch."""
    cache, source, _ = new_cache(tmp_path)
    with cache, concurrent.futures.ThreadPoolExecutor(16) as pool:
        cache.reset_stats()
        list(pool.map(lambda _: cache.bars("A", "2024-01", "2024-02"), range(50)))

        check(cache, Counter({"bars": 50}))
        assert len(source.calls) == 1
        assert cache.stats(by="dataset").loc["bars 1d", "fetches"] == 1


def test_what_fails_before_anybody_is_asked(tmp_path):
    """Bars of a symbol that nobody has named a source for are counted as an error."""
    with TradeCache(tmp_path) as cache:
        with pytest.raises(TradeCacheError):
            cache.bars("A")

        check(cache, Counter({"bars": 1}))
        assert cache.events()["outcome"].to_list() == ["error"]


@pytest.fixture
def gone_stale(tmp_path, clock):
    """Return a cache that has bars of A in March, of which today's are stale, and a source that is broken."""
    clock.now = clock.now.replace(month=3, day=15)
    cache, source, _ = new_cache(tmp_path, clock)
    cache.bars("A", "2024-03-01", "2024-03-15")
    clock.advance(7200)
    source.error = ConnectionError("broken")
    return cache


def test_stale_answers(gone_stale, no_pauses):
    """Bars that are handed out although they are stale are hits that say so."""
    with gone_stale as cache:
        with pytest.warns(UserWarning, match="not fresh"):
            cache.bars("A", "2024-03-01", "2024-03-15")
        row = cache.stats(by="operation").loc["bars"]

        assert cache.events()["outcome"].to_list()[-2:] == ["miss", "stale"]
        assert row[["requests", "hits", "fetches", "stale"]].to_list() == [2, 1, 1, 1]
        assert cache.events()["tier"].iloc[-1] == "disk"  # memory asks again after half an hour


def test_stale_answers_that_are_refused(gone_stale, no_pauses):
    """Where stale bars are not good enough, the request is an error, and gave nothing."""
    with gone_stale as cache:
        with pytest.raises(TradeCacheError):
            cache.bars("A", "2024-03-01", "2024-03-15", allow_stale=False)

        event = cache.events().iloc[-1]
        assert event[["outcome", "tier", "rows", "bytes"]].to_list() == ["error", "error", 0, 0]


def test_asked_again_where_one_has_to_wait(tmp_path):
    """Of several symbols in memory one goes stale in between: all are asked again, and each is counted once."""
    ticking = FakeClock()
    source = TruthSource(dict.fromkeys("ABCD", TRUTH))
    with TradeCache(tmp_path, source=source, clock=ticking, freshness=FixedTTL(60, jitter=0)) as cache:
        for _ in range(20):
            cache.bars(list("ABCD"), "2024-01", "2024-02")
            cache.reset_stats()
            ticking.tick = 4.0  # with each look at it
            cache.bars(list("ABCD"), "2024-01", "2024-02")
            ticking.tick = 0.0

            assert cache.stats(by="symbol")["requests"].to_dict() == dict.fromkeys("ABCD", 1)
            ticking.advance(5)


def test_no_bars_by_the_book(tmp_path, clock):
    """What is known to have no bars is answered without asking, and counts as a hit of memory."""
    cache, source, _ = new_cache(tmp_path, clock)
    source.truth["A"] = TRUTH.iloc[:0]
    with cache:
        cache.bars("A", "2024-01", "2024-02")
        clock.advance(60)
        cache.bars("A", "2024-01", "2024-02")

        asked = len(source.calls)
        cache.bars("A", "2024-01", "2024-02")

        assert cache.events()["outcome"].to_list()[-3:] == ["miss", "hit", "hit"]
        assert cache.events()["tier"].iloc[-1] == "memory"
        assert len(source.calls) == asked


def test_partly_fetched(tmp_path):
    """A request of which a part had to be fetched is a fetch; its rows count for the tiers that gave them."""
    cache, *_ = new_cache(tmp_path)
    with cache:
        cache.bars("A", "2024-01", "2024-01")
        cache.bars("A", "2024-01", "2024-02")
        tiers, symbols = cache.stats(), cache.stats(by="symbol").loc["A"]
        explained = cache.explain().groupby("tier")["rows"].sum()

        assert explained.to_dict() == {"memory": 31, "source": 29}
        assert tiers["rows"].to_dict() == {"memory": 31, "disk": 0, "source": 31 + 29}
        assert tiers["bytes"].sum() == symbols["bytes"] == (31 + 60) * 6 * 8
        assert symbols[["requests", "hits", "fetches", "rows", "rows_cached"]].to_list() == [2, 0, 2, 91, 31]
        assert cache.events()["rows_cached"].to_list()[-2:] == [0, 31]


def test_warming_is_no_read(tmp_path):
    """A warm-up is counted by itself, and changes no hit rate."""
    cache, _, ids = new_cache(tmp_path)
    with cache:
        cache.reset_stats()
        cache.warm(["A", "B"], "2024-01", "2024-02", progress=False)
        warmed = cache.stats(by="operation").loc["warm"]
        assert warmed[["requests", "hits", "fetches", "rows"]].to_list() == [4, 2, 2, 122]
        check(cache, Counter())

        cache.get_price("A", ids["A"])
        cache.bars("A", "2024-01", "2024-02")
        check(cache, Counter({"get": 1, "bars": 1}))
        assert cache.stats()["hits"].to_dict() == {"memory": 2, "disk": 0}


def test_what_a_request_gave(tmp_path):
    """Rows and bytes are those of the answer: eight bytes for each value and label."""
    cache, *_ = new_cache(tmp_path)
    with cache:
        bars = cache.bars("A", "2024-01", "2024-02")
        points = cache.prices("A")

        assert cache.events()["rows"].to_list()[-2:] == [60, 1]
        assert cache.events()["bytes"].to_list()[-2:] == [bars.size * 8 + len(bars) * 8, len(points) * 24]


def test_to_look_is_no_request(tmp_path):
    """To look at the cache does not change what is seen."""
    cache, *_ = new_cache(tmp_path)
    with cache:
        cache.bars("A", "2024-01", "2024-02")
        before = cache.stats(by="operation")
        for look in (
            cache.coverage,
            cache.expiries,
            cache.occupancy,
            cache.info,
            cache.history,
            cache.hit_rate,
        ):
            look()

        pd.testing.assert_frame_equal(cache.stats(by="operation"), before)
