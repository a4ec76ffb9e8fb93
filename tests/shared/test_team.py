"""A team's store of final bars: asked before the source, fed after a fetch, never in the way."""

import asyncio
import itertools
import json
import logging
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid

import numpy as np
import pandas as pd
import pytest
from barsources import bars_at
from clocks import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from key_value.aio.stores.memory import MemoryStore
from key_value.aio.stores.null import NullStore
from key_value.aio.wrappers.read_only import ReadOnlyWrapper
from loops import run
from pandas.testing import assert_frame_equal
from scripts import environment
from servers import PostgresServer, RedisServer

from tradecache import Settings, TradeCache, TradingDataCache
from tradecache.credentials import SecretURL
from tradecache.errors import InvalidInput
from tradecache.framecodec import FrameCodec
from tradecache.freshness import FixedTTL
from tradecache.places import shelving_of
from tradecache.segments import Series
from tradecache.shelves import Piece
from tradecache.stores.safenames import SafeNames
from tradecache.team import WIDE, Team, buckets

TRUTH = bars_at(pd.bdate_range("2015-01-02", "2024-05-31"))
RANGE = ("2015-01-02", "2024-05-31")
DAY = 86_400_000_000
DAILY = Series("truth", "AAPL", "1d")
MINUTES = Series("truth", "BTC/USDT", "1m")
KINDS = ("memory", "redis", "postgresql", "s3", "file")
SYMBOLS = [f"S{number}" for number in range(20)]
WORKER = """
import json, sys
from pathlib import Path
import pandas as pd
from barsources import bars_at
import tradecache as tc

folder, url, signs, symbols = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4].split(",")
truth = bars_at(pd.bdate_range("2015-01-02", "2024-05-31"))


def provider(symbol, start, end, interval):
    with (signs / "calls").open("a") as calls:
        calls.write(f"{symbol}\\n")
    first, last = truth.index.searchsorted([start, end])
    return truth.iloc[first:last]


cache = tc.TradeCache(folder, source=provider, settings=tc.Settings(team_url=url))
print("ready", flush=True)
sys.stdin.readline()
report = cache.warm(symbols, "2015-01-02", "2024-05-31", progress=False)
frames = cache.bars(symbols, "2015-01-02", "2024-05-31")
good = all(frames.xs(symbol, axis=1, level=1).equals(truth[frames.columns.levels[0]]) for symbol in symbols)
print(json.dumps([report["error"].tolist(), int(report["requests"].sum()), len(frames)]))
cache.close()
"""


class Truth:
    """A source that has the same bars of every symbol, and notes what it is asked."""

    name = "truth"

    def __init__(self, bars):
        self.truth = bars
        self.asked = []

    async def fetch(self, symbol, start, end, interval):
        self.asked.append((symbol, start, end))
        first, last = self.truth.index.searchsorted([start, end])
        return self.truth.iloc[first:last]


def moment(text):
    """Return a moment as microseconds since the epoch."""
    return int(pd.Timestamp(text).as_unit("us").asm8.astype("int64"))


def piece(start, end, *, at=1, outcome="bars", freq="B", value=1.0):
    """Return a piece of daily bars."""
    index = pd.date_range(start, end, freq=freq, inclusive="left", unit="us", name="timestamp")
    frame = pd.DataFrame({"close": np.full(len(index), value), "volume": np.arange(len(index))}, index=index)
    bars = frame if outcome == "bars" and len(frame) else None
    return Piece(moment(start), moment(end), outcome, bars, at)


def team_in(store, name="the team"):
    """Return a shelf in a store."""
    return Team(FrameCodec(SafeNames(store, prefix="tradecache.")), name=name)


@pytest.fixture(params=KINDS)
def url(request, tmp_path):
    """Return where a team's store is; None for one that is passed in."""
    match request.param:
        case "memory":
            return None
        case "redis":
            return request.getfixturevalue("redis_server").url
        case "postgresql":
            server = request.getfixturevalue("postgres_server")
            name = f"team_{uuid.uuid4().hex}"
            server.run(f"CREATE DATABASE {name}")
            return f"{server.url.rpartition('/')[0]}/{name}"
        case "s3":
            return request.getfixturevalue("s3_server").url.replace("prices", f"prices-{uuid.uuid4().hex}")
    return f"file://{tmp_path / 'shared folder'}"


@pytest.fixture
def members(tmp_path, clock, url):
    """Return what makes caches with a folder each, and one team's store."""
    store, made = MemoryStore(), []

    def make(source, **options):
        where = {"settings": Settings(team_url=url)} if url else {"team": store}
        folder = tempfile.mkdtemp(dir=tmp_path)
        made.append(TradeCache(folder, source=source, clock=clock, **where, **options))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


@pytest.fixture
def two(tmp_path, clock):
    """Return what makes caches with a folder each, and one team's store in memory."""
    store, made = MemoryStore(), []

    def make(source, **options):
        folder = tempfile.mkdtemp(dir=tmp_path)
        made.append(TradeCache(folder, source=source, clock=clock, **{"team": store, **options}))
        return made[-1]

    make.store = store
    yield make
    for cache in made:
        cache.close()


class TestAnyStore:
    """The same of Redis, PostgreSQL, S3, a shared folder, and any store that is passed in."""

    def test_one_fetches_for_all(self, members):
        """What one member has fetched, another one has from the team, equal in everything."""
        source = Truth(TRUTH)
        one, other = members(source), members(source)

        first = one.bars("AAPL", *RANGE)
        asked = len(source.asked)
        second = other.bars("AAPL", *RANGE)

        assert_frame_equal(second, first)
        assert len(source.asked) == asked
        assert set(other.explain()["tier"]) == {"team"}
        assert other.stats()["hits"].to_dict() == {"memory": 0, "disk": 0, "team": 1}

    def test_only_what_is_missing_is_fetched(self, members):
        """Of a longer range, the source is asked for what the team has not."""
        source = Truth(TRUTH)
        one, other = members(source), members(source)
        one.bars("AAPL", "2018-01-02", "2020-12-31")
        before = len(source.asked)

        frame = other.bars("AAPL", "2017-06-01", "2021-06-30")

        assert_frame_equal(frame, TRUTH.loc["2017-06-01":"2021-06-30"], check_freq=False)
        assert len(source.asked) - before == 2
        assert set(other.explain()["tier"]) == {"source", "team"}


class TestWhatIsShared:
    """Final bars, and they alone."""

    def test_not_what_is_forming(self, two, clock):
        """A bar that is forming is asked of the source by each member; what is final by one of them."""
        clock.now = clock.now.replace(day=3, hour=15)  # of June 2024, a Monday
        source = Truth(bars_at(pd.bdate_range("2024-01-02", "2024-06-03")))
        one, other = two(source), two(source)
        one.bars("AAPL", "2024-01-02", "2024-06-03")

        frame = other.bars("AAPL", "2024-01-02", "2024-06-03")

        assert len(frame) == len(source.truth)
        tiers = other.explain().groupby("tier")["rows"].sum().to_dict()
        assert tiers["team"] == len(source.truth) - tiers["source"] > 100
        assert 1 <= tiers["source"] <= 3

    def test_where_there_are_no_bars(self, two):
        """That there are none is known to all, also of a range of many years."""
        source = Truth(TRUTH)
        one, other = two(source), two(source)
        for start, end in (("1950-01-01", "2014-12-31"), ("2020-05-02", "2020-05-03")):
            one.bars("AAPL", start, end)
            one.core.clock._utcnow.advance(90 * 86_400)  # what is empty is believed when it is so again
            one.bars("AAPL", start, end)
            before = len(source.asked)
            assert other.bars("AAPL", start, end).empty
            assert len(source.asked) == before

    def test_a_refresh_is_for_all(self, two):
        """A refresh asks the source, and what it says now is what the others get from the team."""
        source = Truth(TRUTH)
        one, other = two(source), two(source)
        one.bars("AAPL", *RANGE)
        source.truth = TRUTH * 2

        assert_frame_equal(
            one.bars("AAPL", *RANGE, refresh=True), TRUTH * 2, check_dtype=False, check_freq=False
        )
        frame = other.bars("AAPL", *RANGE)

        assert_frame_equal(frame, one.bars("AAPL", *RANGE))
        assert set(other.explain()["tier"]) == {"team"}

    def test_of_no_use_where_nothing_is_final(self, two, clock):
        """A policy by which bars are fresh for a minute only gets the team's no longer either."""
        source = Truth(TRUTH)
        one, other = two(source), two(source, freshness=FixedTTL(60))
        one.bars("AAPL", *RANGE)
        clock.advance(30)
        other.bars("AAPL", *RANGE)
        tiers = [*other.explain()["tier"].unique()]
        clock.advance(31)
        other.bars("AAPL", *RANGE)

        assert (tiers, [*other.explain()["tier"].unique()]) == (["team"], ["source"])

    def test_own_bars_are_nobodys_business(self, two):
        """Bars that somebody stored are not the team's."""
        one = two(None)
        one.store_bars("AAPL", TRUTH)

        assert entries(two.store) == {}

    @pytest.mark.parametrize("symbol", ["BTC/USDT", "a::b", "../x", "née 世界", "x" * 200])
    def test_any_symbol(self, two, symbol):
        """No symbol's bars are taken for another's."""
        source = Truth(TRUTH)
        one, other = two(source), two(source)
        one.bars(["A", symbol], *RANGE)
        asked = len(source.asked)

        other.bars(["A", symbol], *RANGE)

        assert len(source.asked) == asked
        names = [name.replace("/", "") for name in entries(two.store)]
        assert len(names) == 4  # of two series, ten years each
        assert all(re.fullmatch("[A-Za-z0-9._-]+", name) for name in names)


class TestDamage:
    """What is in the team's store may be anybody's."""

    @pytest.mark.parametrize(
        "planted",
        [
            {},
            {"version": 2, "parts": []},
            {"version": 1, "parts": [[1, 2]]},
            {"version": 1, "parts": [[9, 2, "bars", 1]]},
            {"version": 1, "parts": [[0, 2**60, "bars", 1]], "__arrow__": "no base64"},
            {"version": 1, "parts": [[0, 2**60, "bars", 1]], "__arrow__": "aGVsbG8="},
            {"version": 1, "parts": [[0, 2**60, "bars", 1]], "frame": {"close": [1]}},
        ],
    )
    def test_is_a_miss(self, two, planted):
        """What is no bucket of ours is logged, and the source is asked."""
        source = Truth(TRUTH)
        run(SafeNames(two.store, prefix="tradecache.").put("2010", planted, collection=DAILY.collection))
        run(SafeNames(two.store, prefix="tradecache.").put("2020", planted, collection=DAILY.collection))

        assert_frame_equal(two(source).bars("AAPL", *RANGE), TRUTH, check_freq=False)
        assert_frame_equal(two(source).bars("AAPL", *RANGE), TRUTH, check_freq=False)

    def test_bars_that_are_none(self, two, caplog):
        """Frames that cannot be bars are refused as a source's are."""
        source = Truth(TRUTH)
        wrong = piece("2015-01-01", "2024-06-01")._replace(frame=TRUTH.assign(close=-1.0))
        run(team_in(two.store).keep(DAILY, [wrong]))

        assert_frame_equal(two(source).bars("AAPL", *RANGE), TRUTH, check_freq=False)


class TestOddStores:
    """Stores that are not what a store should be."""

    @pytest.mark.filterwarnings("ignore:A configured store is unstable")
    @pytest.mark.parametrize("kind", ["null", "silently read-only", "read-only"])
    def test_nobody_waits(self, two, kind):
        """A store that keeps nothing, or takes nothing, is never waited for; what is in it is read."""
        source = Truth(TRUTH)
        two(source).bars("AAPL", *RANGE)
        store = {
            "null": NullStore,
            "silently read-only": lambda: ReadOnlyWrapper(two.store, raise_on_write=False),
            "read-only": lambda: ReadOnlyWrapper(two.store, raise_on_write=True),
        }[kind]()
        cache = two(source, team=store)
        began = time.monotonic()

        for symbol in ("MSFT", "AAPL"):
            assert_frame_equal(cache.bars(symbol, *RANGE), TRUTH, check_freq=False)

        assert time.monotonic() - began < 10
        asked = [symbol for symbol, *_ in source.asked]
        assert asked == (["AAPL", "MSFT"] if kind != "null" else ["AAPL", "MSFT", "AAPL"])

    def test_postgresql_that_hangs(self, tmp_path, clock):
        """A PostgreSQL server that never lets go of a connection is walked away from."""
        with PostgresServer() as server:
            settings = Settings(team_url=server.url)
            with TradeCache(tmp_path, source=Truth(TRUTH), settings=settings, clock=clock) as cache:
                cache.bars("A", *RANGE)
                server.send(signal.SIGSTOP)
                began = time.monotonic()
                assert_frame_equal(cache.bars("B", *RANGE), TRUTH, check_freq=False)
                lasted = time.monotonic() - began
                server.send(signal.SIGCONT)
        assert lasted < 12

    def test_cancelled_while_it_claims(self, tmp_path, clock):
        """Who is cancelled in the middle leaves no claim behind for others to wait for."""
        store, source = MemoryStore(), Truth(TRUTH)

        async def work():
            async with TradingDataCache(tmp_path, source=source, team=store, clock=clock) as core:
                for seconds in (0.0, 0.02, 0.05, 0.08):
                    task = asyncio.create_task(core.bars(f"A{seconds}", *RANGE))
                    await asyncio.sleep(seconds)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                    began = time.monotonic()
                    await core.bars(f"A{seconds}", *RANGE)
                    assert time.monotonic() - began < 5

        run(work())


class TestTruth:
    """Whose word counts."""

    def test_the_sources_over_the_teams(self, two):
        """Of a range that the source was asked for over the team's bars, the source's count."""
        source = Truth(TRUTH)
        two(source).bars("AAPL", "2020-03-02", "2020-03-31")
        source.truth = TRUTH * 2
        source.merge_gap = pd.Timedelta(days=3_000)

        frame = two(source).bars("AAPL", "2020-01-02", "2020-06-30")

        asked = source.asked[-1]
        expected = (TRUTH * 2).loc["2020-01-02":"2020-06-30"]
        assert asked[1] <= pd.Timestamp("2020-01-02")
        assert_frame_equal(frame, expected, check_freq=False, check_dtype=False)

    def test_day_by_day(self, two, clock):
        """What one member has fetched day by day, another one need not fetch again."""
        days = pd.bdate_range("2024-05-01", "2024-05-31")
        source = Truth(bars_at(days))
        one = two(source)
        for day in days:
            clock.now = (day + pd.Timedelta(days=1, hours=12)).tz_localize("UTC").to_pydatetime()
            one.bars("AAPL", "2024-05-01", day)
        before = len(source.asked)

        frame = two(source).bars("AAPL", "2024-05-01", "2024-05-31")

        assert len(frame) == len(days)
        assert [(start, end) for _, start, end in source.asked[before:] if start < days[-2]] == []

    def test_from_the_beginning(self, two):
        """A range without a beginning is no hundreds of entries."""
        source = Truth(bars_at(pd.date_range("2024-05-01", periods=200, freq="min", tz="UTC")))
        two(source).bars("AAPL", end="2024-05-01", interval="1m")

        assert len(entries(two.store)) < 10
        before = len(source.asked)
        assert len(two(source).bars("AAPL", end="2024-05-01", interval="1m")) == 200
        assert len(source.asked) == before

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda frame: frame.set_axis(frame.index.as_unit("ns")),
            lambda frame: frame.set_axis(frame.index.as_unit("s")),
            lambda frame: frame.tz_localize("UTC"),
            lambda frame: frame[::-1],
            lambda frame: frame.reset_index(drop=True),
            lambda frame: pd.concat([frame, frame]),
        ],
        ids=["nanoseconds", "seconds", "aware", "backwards", "no labels", "twice"],
    )
    def test_frames_that_are_none_of_ours(self, two, spoil, caplog):
        """A frame of another form is a logged miss, and is replaced."""
        source = Truth(TRUTH)
        codec = FrameCodec(SafeNames(two.store, prefix="tradecache."))
        start, end, at = moment("2010-01-01"), moment("2020-01-01"), moment("2024-06-01")
        value = {"version": 1, "parts": [[start, end, "bars", at]], "frame": spoil(TRUTH.loc[:"2019"])}
        run(codec.put("2010", value, collection=DAILY.collection))

        assert_frame_equal(two(source).bars("AAPL", *RANGE), TRUTH, check_freq=False)
        assert "is no bucket of bars of AAPL" in caplog.text
        before = len(source.asked)
        assert_frame_equal(two(source).bars("AAPL", *RANGE), TRUTH, check_freq=False)
        assert len(source.asked) == before

    @pytest.mark.parametrize("outcome", ["weird", "supposed", "", None, 5])
    def test_outcomes_that_are_none(self, two, outcome):
        """An outcome that nobody knows is a miss."""
        value = {"version": 1, "parts": [[moment("2010-01-01"), moment("2020-01-01"), outcome, 1]]}
        run(SafeNames(two.store, prefix="tradecache.").put("2010", value, collection=DAILY.collection))

        assert_frame_equal(two(Truth(TRUTH)).bars("AAPL", *RANGE), TRUTH, check_freq=False)


class TestOutages:
    """A team's store is never in the way."""

    def test_killed_and_back(self, tmp_path, clock, caplog):
        """While it is away the source is asked, with one warning; afterwards it is fed and asked again."""
        source = Truth(TRUTH)
        with RedisServer() as server:
            settings = Settings(team_url=server.url, retries=1, retry_delay=0.01)
            with TradeCache(tmp_path / "a", source=source, settings=settings, clock=clock) as cache:
                cache.bars("A", *RANGE)
                server.kill()
                for symbol in "BCDE":
                    assert_frame_equal(cache.bars(symbol, *RANGE), TRUTH, check_freq=False)
                said = [record for record in caplog.records if record.levelno >= logging.WARNING]
                assert len(said) == 1
                server.start()
                began = time.monotonic()
                while not server_keys(server) and time.monotonic() < began + 30:
                    cache.bars(f"later {time.monotonic()}", *RANGE)
                    time.sleep(0.2)
                assert server_keys(server)
                assert cache.info()["team_server"] == "answers"

    def test_that_hangs(self, tmp_path, clock):
        """A server that never answers costs two seconds once, and then nothing for a while."""
        with RedisServer() as server:
            settings = Settings(team_url=server.url)
            with TradeCache(tmp_path / "a", source=Truth(TRUTH), settings=settings, clock=clock) as cache:
                server.send(signal.SIGSTOP)
                began = time.monotonic()
                assert_frame_equal(cache.bars("A", *RANGE), TRUTH, check_freq=False)
                first = time.monotonic() - began
                for symbol in "BCDE":
                    cache.bars(symbol, *RANGE)
                others = time.monotonic() - began - first
                assert cache.info()["team_server"] == "away"
                server.send(signal.SIGCONT)
        assert first < 6
        assert others < 1.5

    def test_a_colleague_without_the_key(self, two, clock):
        """Who has no key writes over nothing that is encrypted, and asks the source."""
        key = "A" * 43 + "="
        source = Truth(TRUTH)
        two(source, settings=Settings(encryption_key=key)).bars("AAPL", *RANGE)
        before = entries(two.store)

        assert_frame_equal(two(source).bars("AAPL", *RANGE), TRUTH, check_freq=False)

        assert entries(two.store) == before
        two(source, settings=Settings(encryption_key=key)).bars("AAPL", *RANGE)
        assert len(source.asked) == 2

    def test_a_url_with_a_password(self, tmp_path, clock, caplog):
        """The password of a store that cannot be reached is in no message."""
        settings = Settings(team_url="postgresql://me:secretword@127.0.0.1:1/x", retries=0)
        with TradeCache(tmp_path, source=Truth(TRUTH), settings=settings, clock=clock) as cache:
            assert_frame_equal(cache.bars("A", *RANGE), TRUTH, check_freq=False)
            assert "secretword" not in repr(cache.settings)
        assert "does not answer" in caplog.text
        assert "secretword" not in caplog.text

    @pytest.mark.parametrize("wrong", ["s3://bucket/prefix", "s3://bucket?regoin_name=x"])
    def test_a_url_that_names_nothing(self, wrong):
        """A URL that a store cannot be made of is refused."""
        with pytest.raises(InvalidInput, match="team_url"):
            shelving_of(Settings(team_url=SecretURL(wrong)), clock=FakeClock())


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["redis", "postgresql", "file"])
def test_two_machines_warm_one_universe(tmp_path, request, kind):
    """Two processes with a folder each, at the same time: the provider is asked once for each symbol."""
    match kind:
        case "redis":
            where = request.getfixturevalue("redis_server").url
        case "postgresql":
            server = request.getfixturevalue("postgres_server")
            server.run("CREATE DATABASE universe")
            where = f"{server.url.rpartition('/')[0]}/universe"
        case _:
            where = f"file://{tmp_path / 'team'}"
    (tmp_path / "calls").touch()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path / f"machine {number}"), where, str(tmp_path), ",".join(SYMBOLS)],
            env=environment(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for number in range(2)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    ends = [worker.communicate(timeout=200) for worker in workers]
    reports = [json.loads(out) for out, _ in ends]

    assert [(errors, rows) for errors, _, rows in reports] == [([""] * len(SYMBOLS), len(TRUTH))] * 2, ends
    assert sorted((tmp_path / "calls").read_text().split()) == sorted(SYMBOLS)
    assert sum(requests for _, requests, _ in reports) == len(SYMBOLS)


class TestShelf:
    """What a shelf knows."""

    def test_buckets(self):
        """Ten years of days, a year of hours, a month of minutes."""
        start, end = moment("2019-11-30"), moment("2021-01-01")
        assert buckets(Series("s", "A", "1d"), start, end) == ["2010", "2020"]
        assert buckets(Series("s", "A", "1h"), start, end) == ["2019", "2020"]
        assert buckets(Series("s", "A", "30m"), start, end)[:3] == ["2019-11", "2019-12", "2020-01"]
        assert buckets(Series("s", "A", "1wk"), moment("1899-12-31"), moment("1900-01-02")) == [
            "1890",
            "1900",
        ]

    def test_neighbours_are_one(self):
        """What came day by day is one part of a bucket, not one for each day."""
        team, store = shelf()
        days = pd.bdate_range("2024-01-02", "2024-03-29")
        for number, day in enumerate(days):
            run(team.keep(DAILY, [piece(day, day + pd.Timedelta(days=1), at=number + 5)]))
            run(
                team.keep(
                    DAILY,
                    [
                        piece(
                            day + pd.Timedelta(days=1),
                            day + pd.offsets.BDay(),
                            at=number,
                            outcome="no_trades",
                        )
                    ]
                    if day.weekday() == 4
                    else [],
                )
            )
        (value,) = [value for name, value in entries(store).items() if "2020" in name]

        assert len(value["parts"]) == 1
        (found,) = run(team.ask(DAILY, [(moment("2024-01-02"), moment("2024-04-01"))]))
        assert len(found.frame) == len(days)

    def test_a_wide_range_without_bars_is_one_entry(self):
        """Forty years of minutes without bars do not make five hundred entries."""
        team, store = shelf()
        nothing = Piece(moment("1970-01-01"), moment("2010-01-01"), "before_listing", None, 7)
        run(team.keep(MINUTES, [nothing]))

        assert [name.rpartition("/")[2] for name in entries(store)] == [WIDE]
        assert run(team.ask(MINUTES, [(moment("1999-03-01"), moment("1999-03-02"))])) == [
            Piece(moment("1999-03-01"), moment("1999-03-02"), "before_listing", None, 7)
        ]

    def test_bars_where_there_were_none(self):
        """Bars that come later to a wide range without any are seen, and the rest of it is known as before."""
        team, _ = shelf()
        run(team.keep(MINUTES, [Piece(moment("1970-01-01"), moment("2010-01-01"), "no_trades", None, 2)]))
        index = pd.date_range("2005-03-01", periods=3, freq="min", tz="UTC", unit="us", name="timestamp")
        bars = pd.DataFrame({"close": [1.0, 2.0, 3.0]}, index=index)
        start, end = moment("2005-03-01"), moment("2005-03-02")
        run(team.keep(MINUTES, [Piece(start, end, "bars", bars, 3)]))

        (found,) = run(team.ask(MINUTES, [(start, end)]))
        around = run(team.ask(MINUTES, [(moment("2005-02-01"), moment("2005-04-01"))]))

        assert_frame_equal(found.frame, bars, check_freq=False)
        assert [piece.outcome for piece in around] == ["no_trades", "bars", "no_trades"]
        assert (around[0].start, around[-1].end) == (moment("2005-02-01"), moment("2005-04-01"))

    def test_other_columns(self):
        """Bars with other columns or types than those before take their place."""
        team, _ = shelf()
        older, newer = piece("2024-01-01", "2024-02-01"), piece("2024-02-01", "2024-03-01", at=2)
        newer = newer._replace(frame=newer.frame.assign(vwap=1.0))
        run(team.keep(DAILY, [older]))
        run(team.keep(DAILY, [newer]))

        (found,) = run(team.ask(DAILY, [(older.start, newer.end)]))
        assert_frame_equal(found.frame, newer.frame, check_freq=False)

    @given(
        st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40), st.booleans()), min_size=1, max_size=8),
        st.tuples(st.integers(0, 90), st.integers(1, 60)),
    )
    def test_the_newest_is_what_it_knows(self, kept, asked):
        """For each day, a shelf says what was kept last; of the others it says nothing."""
        team, _ = shelf()
        base = pd.Timestamp("2019-12-01")
        expected = {}
        for at, (first, length, has_bars) in enumerate(kept):
            start, end = base + pd.Timedelta(days=first), base + pd.Timedelta(days=first + length)
            outcome = "bars" if has_bars else "no_trades"
            run(team.keep(DAILY, [piece(start, end, at=at, outcome=outcome, freq="D", value=float(at))]))
            expected |= {moment(start) + DAY * n: float(at) if has_bars else None for n in range(length)}
        start = moment(base) + DAY * asked[0]
        end = start + DAY * asked[1]

        pieces = run(team.ask(DAILY, [(start, end)]))

        told = {}
        for each in pieces:
            bars = (
                {}
                if each.frame is None
                else dict(zip(each.frame.index.asi8, each.frame["close"], strict=True))
            )
            told |= {day: bars.get(day) for day in range(each.start, each.end, DAY)}
        assert told == {day: value for day, value in expected.items() if start <= day < end}
        edges = [(each.start, each.end) for each in pieces]
        assert edges == sorted(edges)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(edges))


def test_too_large(tmp_path, clock, caplog):
    """What is larger than `max_entry_bytes` is not kept, and a line in the log says so."""
    store = MemoryStore()
    settings = Settings(max_entry_bytes=200_000)
    with TradeCache(tmp_path, source=Truth(TRUTH), settings=settings, clock=clock, team=store) as cache:
        cache.bars("A", *RANGE)
        small = Settings(max_entry_bytes=2_000)
        team = shelving_of(small, clock=cache.core.clock, team=store)
        run(team.keep(DAILY, [piece("2015-01-01", "2020-01-01")]))
    assert "takes" in caplog.text
    assert "max_entry_bytes allows 2,000" in caplog.text


def test_no_store(tmp_path):
    """What is no store of py-key-value is refused before a folder is made."""
    with pytest.raises(InvalidInput, match="team is"):
        TradeCache(tmp_path / "new", team="redis://host")
    assert not (tmp_path / "new").exists()


def shelf():
    """Return a shelf in memory, and its store."""
    store = MemoryStore()
    return team_in(store), store


def entries(store):
    """Return what a store in memory holds of bars, by collection and key."""
    return {
        f"{name}/{key.partition('::')[2] or key}": json.loads(entry.json_str)["value"]
        for name, collection in store._cache.items()
        for key, entry in collection._cache.items()
        if "claims" not in name
    }


def server_keys(server):
    """Return the keys of bars on a Redis server."""
    import redis

    with redis.Redis(port=server.port, decode_responses=True) as client:
        return client.keys("tradecache.bars*")
