import asyncio
import contextlib
import itertools
import logging
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
from children import wait_until
from framecases import FRAMES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loops import run
from pandas.testing import assert_frame_equal
from proxies import Proxy
from scripts import answer, end_of, run_script, start_script, without_package
from servers import PostgresServer, binary

import tradecache as tc
from tradecache.archive import Archive
from tradecache.archivecoverage import answers_of, years_of
from tradecache.credentials import SecretURL
from tradecache.errors import InvalidInput, NoBars, SourceUnavailable, UnknownSymbol
from tradecache.segments import Series
from tradecache.shelves import Piece, Shelf
from tradecache.sources import Retries, Source, as_source, traits_of

DAY = 86_400_000_000
MINUTE = 60_000_000
DAYS = Series("yfinance", "AAPL", "1d")
MINUTES = Series("ccxt:binance", "BTC/USDT", "1m")
FIRST = int(np.datetime64("2023-12-28", "us").astype("int64"))
ONCE = Retries(attempts=1)
numbers = itertools.count()


def labels(count, *, step=DAY, first=FIRST, zone=None):
    moments = (first + step * np.arange(count)).view("M8[us]")
    return pd.DatetimeIndex(moments, name="timestamp").tz_localize(zone)


def bars(count=6, *, step=DAY, first=FIRST, zone=None, seed=0):
    """Return bars with whole volumes."""
    prices = np.random.default_rng(seed).uniform(90, 110, (count, 4))
    frame = pd.DataFrame(
        prices,
        columns=["open", "high", "low", "close"],
        index=labels(count, step=step, first=first, zone=zone),
    )
    return frame.assign(volume=np.arange(count) * 100)


def minutes(count=6, **options):
    return bars(count, step=MINUTE, zone="UTC", **options)


def piece(frame, *, start=None, end=None, fetched_at=1, step=DAY):
    """Return what a source said: these bars, from the first of them to after the last, unless told otherwise."""
    at = frame.index.asi8
    start, end = at[0] if start is None else start, at[-1] + step if end is None else end
    return Piece(int(start), int(end), "bars", frame, fetched_at)


def nothing(first, last, outcome="closed", fetched_at=1):
    """Return that there were no bars on these days, counted from the first one."""
    return Piece(FIRST + first * DAY, FIRST + last * DAY, outcome, None, fetched_at)


def extent(*pieces):
    return min(each.start for each in pieces), max(each.end for each in pieces)


def alike(found, kept):
    """Whether pieces are the same, frames in everything that a frame has."""
    assert [each._replace(frame=None) for each in found] == [each._replace(frame=None) for each in kept]
    for one, other in zip(found, kept, strict=True):
        assert (one.frame is None) == (other.frame is None)
        if one.frame is not None:
            assert_frame_equal(one.frame, other.frame, check_exact=True, check_freq=False)
            assert one.frame.index.unit == other.frame.index.unit
    return True


class User:
    """A caller of one archive at a time, each call in an event loop of its own."""

    def __init__(self, archive):
        self.archive = archive

    def keep(self, *pieces, series=DAYS):
        run(self.archive.keep(series, pieces))

    def ask(self, *ranges, series=DAYS):
        return run(self.archive.ask(series, ranges))


@pytest.fixture
def table():
    """A name that no other test uses."""
    return f"bars{next(numbers)}"


@pytest.fixture
def make(postgres_server, table):
    """Return what makes one more archive on the test's table, as another process has it."""
    made = []

    def make(url=postgres_server.url, **options):
        made.append(Archive(url, **{"table": table} | options))
        return User(made[-1])

    yield make
    for archive in made:
        run(archive.close())


@pytest.fixture
def user(make):
    """A caller of an archive that is empty."""
    return make()


@pytest.fixture
def own_server():
    """A server that the test may kill."""
    with PostgresServer() as server:
        yield server


def test_it_is_what_it_says(postgres_server):
    """It is a shelf, and with columns a source; it shows neither URL nor password."""
    archive = Archive("postgresql://me:sekret@host/db")
    own = Archive(
        "postgresql://me:sekret@host/db", table="prices", columns={}, interval="1d", calendar="XNYS"
    )
    assert isinstance(archive, Shelf)
    assert isinstance(own, Source)
    assert as_source(own) is own
    assert (traits_of(own).calendar_for("AAPL"), traits_of(own).timeout) == ("XNYS", 30)
    assert repr(archive) == "<Archive archive>"
    assert repr(own) == f"<Archive {own.name}>"
    assert own.name.startswith("prices ")
    assert "sekret" not in repr(vars(archive)) + repr(vars(own)) + repr(archive._database)


def test_two_tables_of_one_name_are_told_apart():
    """A table elsewhere has another name, the same one the same, whoever asks for it."""
    names = [
        Archive(url, table="prices", columns={}, interval="1d").name
        for url in (
            "postgresql://a:x@host/db",
            "postgresql://b:y@host/db?application_name=z",
            "postgresql://host/other",
        )
    ]
    assert names[0] == names[1] != names[2]


EXTRAS = {
    "dividends": [0.1, np.nan, np.inf, -np.inf, 5e-324, 1e300],
    "splits": np.arange(6),
    "big": np.full(6, 2**63 - 1),
    "traded": [True, False] * 3,
    "note": pd.Series(["née 世界 🌍", None, "a 'b' \"c\" \\", "", "NaN", "\n"], dtype="str").array,
    "small": np.linspace(0, 1, 6, dtype="float32"),
    'it\'s "odd" $1 %s ; --': np.arange(6, dtype="int32"),
}
ROUND_TRIPS = {
    "days": (DAYS, bars()),
    "days before 1970": (DAYS, bars(900, first=-400 * DAY)),
    "weeks": (Series("a", "b", "1wk"), bars(step=7 * DAY, first=4 * DAY)),
    "minutes": (MINUTES, minutes()),
    "minutes over New Year": (MINUTES, minutes(20_000)),
    "one bar": (DAYS, bars(1)),
    "volume as float64": (DAYS, bars().astype({"volume": "float64"})),
    "volume with NaN": (DAYS, bars().assign(volume=[1.5, np.nan, 0, 1e300, -0.0, 5e-324])),
    "no volume at all": (DAYS, bars().assign(volume=np.nan)),
    "missing prices": (DAYS, bars().assign(open=np.nan)),
    "other columns": (DAYS, bars().assign(**EXTRAS)),
    "other columns of minutes": (MINUTES, minutes().assign(**EXTRAS)),
    "columns in another order": (DAYS, bars()[["volume", "close", "low", "high", "open"]].assign(dividends=0.0)),
    "columns that are not there": (DAYS, bars()[["close"]]),
}  # fmt: skip


@pytest.mark.parametrize("case", ROUND_TRIPS)
def test_bars_come_back_as_they_were(user, case):
    """The same frame comes back: values, types, columns, labels, zone and unit."""
    series, frame = ROUND_TRIPS[case]
    kept = piece(frame, step=frame.index.asi8[1] - frame.index.asi8[0] if len(frame) > 1 else DAY)
    user.keep(kept, series=series)
    assert alike(user.ask(extent(kept), series=series), [kept])


@pytest.mark.parametrize("case", FRAMES)
def test_no_frame_comes_back_as_another(user, case):
    """Whatever frame is kept, either the same one comes back, or none, and then nothing is known of its range."""
    frame = FRAMES[case]
    series = DAYS if getattr(frame.index, "tz", None) is None else MINUTES
    kept = Piece(FIRST, FIRST + 1000 * DAY, "bars", frame, 1)
    user.keep(kept, series=series)
    found = user.ask(extent(kept), series=series)
    if found and len(frame):
        same = frame.set_axis(frame.columns.astype("str"), axis=1)
        assert_frame_equal(found[0].frame, same, check_exact=True, check_freq=False)


REFUSED = {
    "whole numbers too large": bars().assign(volume=2**53 + 1),
    "32-bit prices": bars().astype({"open": "float32"}),
    "objects": bars().assign(extra=pd.Series([1, "a", None, 2, 3, 4], dtype="object").array),
    "text with zeros": bars().assign(note="a\0b"),
    "a zone": bars(zone="UTC"),
    "nanoseconds": bars().set_axis(labels(6).as_unit("ns")),
    "labels without order": bars().iloc[::-1],
    "labels outside": bars(7),
    "no column at all": bars()[[]],
    "columns twice": pd.concat([bars(), bars()], axis=1),
    "many columns": bars().assign(**{f"c{number}": 1.0 for number in range(60)}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_come_back_otherwise_is_left_out(user, caplog, case):
    """The log says why; bars that were kept of its range before are not given out in its place."""
    before, after = piece(bars(6)), piece(bars(6, first=FIRST + 6 * DAY))
    user.keep(before, after)
    user.keep(Piece(before.start, before.end, "bars", REFUSED[case], 2))
    assert "yfinance AAPL 1d: bars are not archived" in caplog.text
    assert alike(user.ask(extent(before, after)), [after])


def test_what_is_known_of_ranges_without_bars(user):
    """Ranges without bars come back with the reason, and parts between two bars have none to give."""
    kept = piece(bars(2), end=FIRST + 5 * DAY)
    user.keep(kept, nothing(5, 7), nothing(9, 12, "before_listing"))
    everything = user.ask((FIRST - DAY, FIRST + 20 * DAY))
    assert alike(everything, [kept, nothing(5, 7), nothing(9, 12, "before_listing")])
    asked = [(FIRST + 3 * DAY, FIRST + 6 * DAY), (FIRST + 10 * DAY, FIRST + 11 * DAY)]
    assert alike(
        user.ask(*asked), [nothing(3, 5, "no_trades"), nothing(5, 6), nothing(10, 11, "before_listing")]
    )


def test_an_empty_archive_knows_nothing(user, postgres_server, table):
    """To ask makes no tables, and no ranges have no answer."""
    assert user.ask((FIRST, FIRST + DAY)) == []
    assert user.ask() == []
    user.keep()
    assert postgres_server.run(f"SELECT count(*) FROM pg_class WHERE relname LIKE '{table}%'") == "0"


def test_only_what_was_asked_for_comes(user):
    """Pieces are cut to the ranges, in order, whatever the order of these; ranges may touch and overlap."""
    frame = bars(10)
    user.keep(piece(frame))
    at = [FIRST + number * DAY for number in range(11)]
    found = user.ask((at[6], at[8]), (at[1], at[2]), (at[2], at[3]), (at[7], at[9]))
    assert alike(found, [piece(frame[1:3]), piece(frame[6:9])])


def test_the_newest_is_seen(user):
    """A newer answer takes the place of an older one where they overlap, an older one that comes later does not."""
    old, new = bars(6, seed=1), bars(2, first=FIRST + 2 * DAY, seed=2)
    user.keep(piece(new, fetched_at=5))
    user.keep(piece(old, fetched_at=3))
    user.keep(nothing(3, 5, fetched_at=2))
    expected = [piece(old[:2], fetched_at=3), piece(new, fetched_at=5), piece(old[4:], fetched_at=3)]
    parts = [user.ask(extent(each))[0] for each in expected]
    assert alike(parts, expected)
    whole = user.ask(extent(*expected))
    assert_frame_equal(
        pd.concat([each.frame for each in whole]), pd.concat([each.frame for each in expected])
    )


def test_bars_that_are_gone_are_gone(user, postgres_server, table):
    """Where a newer answer has no bars, none are left in the table."""
    user.keep(piece(bars(6)))
    user.keep(nothing(1, 5, fetched_at=2))
    assert postgres_server.run(f"SELECT count(*) FROM {table}") == "2"


def test_bars_kept_one_by_one_come_as_one(user):
    """Neighbours that say the same are one piece, as old as the youngest of them."""
    frame = bars(8)
    for number in range(8):
        user.keep(piece(frame[number : number + 1], fetched_at=number))
    assert alike(user.ask((FIRST, FIRST + 8 * DAY)), [piece(frame, fetched_at=7)])


def test_neighbours_of_other_forms_are_pieces_of_their_own(user):
    """Each piece has the columns and types that it was kept with."""
    kept = [
        piece(bars(2)),
        piece(bars(2, first=FIRST + 2 * DAY).assign(dividends=0.5)),
        piece(bars(2, first=FIRST + 4 * DAY).assign(dividends="none", splits=1)),
        piece(bars(2, first=FIRST + 6 * DAY).astype({"volume": "float64"})),
    ]
    user.keep(*kept)
    assert alike(user.ask(extent(*kept)), kept)


@pytest.mark.parametrize(
    "name", ["BTC/USDT", "'; DROP TABLE bars; --", '"', "$1", "Ünï 💹", "%s", "\\", "a b"]
)
def test_names_are_only_names(user, name):
    """Whatever characters a source and a symbol have, their bars are theirs alone."""
    kept = piece(bars())
    others = [Series(name, "x", "1d"), Series("x", name, "1d")]
    user.keep(kept, series=Series(name, name, "1d"))
    assert alike(user.ask(extent(kept), series=Series(name, name, "1d")), [kept])
    assert [user.ask(extent(kept), series=each) for each in others] == [[], []]


@pytest.mark.parametrize("table", ["a \"b\" 'c'; --", "Großes", "select", "a.b", "x" * 52])
def test_tables_may_have_any_name(make, postgres_server, table):
    """A name is quoted, in a schema, too."""
    postgres_server.run('CREATE SCHEMA IF NOT EXISTS "My prices"')
    user, kept = make(schema="My prices"), piece(bars().assign(dividends=1.0))
    user.keep(kept)
    assert alike(user.ask(extent(kept)), [kept])
    assert make(schema=None).ask(extent(kept)) == []


def test_another_process_reads_the_same(make):
    """Nothing is remembered but connections."""
    kept, later = piece(bars()), piece(bars(first=FIRST + 6 * DAY), fetched_at=2)
    one, other = make(), make()
    one.keep(kept)
    assert alike(other.ask(extent(kept)), [kept])
    other.keep(later)
    assert len(one.ask(extent(kept, later))[0].frame) == 12


def test_other_tools_see_a_plain_table(user, postgres_server, table):
    """A SELECT finds symbol, interval, time, prices and volume; days are midnights in UTC; the rest is JSON."""
    user.keep(piece(bars(1).assign(open=1.5, high=2.0, low=1.0, close=1.25, dividends=0.5, note="x")))
    user.keep(piece(minutes(1).assign(open=1.5, high=2.0, low=1.0, close=1.25)), series=MINUTES)
    columns = "source, symbol, interval, timestamp AT TIME ZONE 'UTC', open, high, low, close, volume, extra"
    assert postgres_server.run(f"SELECT {columns} FROM {table} ORDER BY source") == (
        "ccxt:binance|BTC/USDT|1m|2023-12-28 00:00:00|1.5|2|1|1.25|0|\n"
        'yfinance|AAPL|1d|2023-12-28 00:00:00|1.5|2|1|1.25|0|{"note": "x", "dividends": 0.5}'
    )
    ranges = f'SELECT symbol, "end" - start, outcome FROM {table}_coverage ORDER BY symbol'
    assert postgres_server.run(ranges) == "AAPL|1 day|bars\nBTC/USDT|1 day|bars"


def test_each_year_has_a_partition(user, postgres_server, table):
    """Partitions are made for years that have bars, and for no others."""
    user.keep(piece(bars(6)), series=DAYS)
    user.keep(piece(bars(2, first=-2 * DAY)), series=MINUTES._replace(interval="1d"))
    user.keep(nothing(3000, 4000))
    found = postgres_server.run(
        f"SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = '{table}'::regclass ORDER BY 1"
    )
    assert found.splitlines() == [f"{table}_2023", f"{table}_2024", f"{table}_1969"]
    assert postgres_server.run(f"SELECT count(*) FROM {table}_2024") == "2"


def test_years_are_those_of_bars():
    """Years between two bars, with none of their own, do not count."""
    times = ["1969-12-31", "1970-01-01", "1999-12-31 23:59:59.999999", "2004-02-29"]
    index = pd.DatetimeIndex(times, name="timestamp").as_unit("us")
    frame = pd.DataFrame({"close": 1.0}, index=index)
    answers = answers_of(DAYS, [piece(frame), piece(frame[:1]), nothing(1, 2), piece(frame[::-1])])
    assert years_of(answers) == [1969, 1970, 1999, 2004]


def test_tables_that_are_dropped_are_made_again(user, postgres_server, table):
    """Who drops the tables, or a partition, does not have to start anything anew."""
    kept = piece(bars())
    user.keep(kept)
    postgres_server.run(f"DROP TABLE {table}_2024")
    user.keep(kept._replace(fetched_at=2))
    assert postgres_server.run(f"SELECT count(*) FROM {table}") == "6"
    postgres_server.run(f"DROP TABLE {table}, {table}_coverage")
    assert user.ask(extent(kept)) == []
    user.keep(kept)
    assert alike(user.ask(extent(kept)), [kept])


def test_somebody_elses_table_stays_as_it_is(user, postgres_server, table):
    """A table with other columns is no archive; the error lists them."""
    postgres_server.run(f"CREATE TABLE {table} (symbol text, px real)")
    with pytest.raises(
        InvalidInput, match=f"table is '{table}', but must be the name of an archive, .* symbol, px"
    ):
        user.keep(piece(bars()))
    assert user.ask((FIRST, FIRST + DAY)) == []
    assert postgres_server.run(f"SELECT count(*) FROM {table}") == "0"


def test_an_archive_may_be_read_by_who_may_not_write(make, postgres_server, table):
    """Rights to SELECT are enough to ask; what is kept nevertheless is refused, with the reason."""
    kept = piece(bars())
    make().keep(kept)
    postgres_server.run(
        f"CREATE ROLE {table}_reader LOGIN; GRANT SELECT ON {table}, {table}_coverage TO {table}_reader"
    )
    reader = make(postgres_server.url.replace("postgres@", f"{table}_reader@"), retries=ONCE)
    assert alike(reader.ask(extent(kept)), [kept])
    with pytest.raises(SourceUnavailable, match="permission denied for table"):
        reader.keep(kept._replace(fetched_at=2))


WRITER = """
    import asyncio, sys
    import test_archive as t
    url, table, number = sys.argv[1:]
    frame = t.minutes(50_000, seed=int(number))
    async def main():
        archive = t.Archive(url, table=table)
        print("ready")
        input()
        for symbol in ("ALL", "ALL", f"S{number}"):
            series = t.Series("s", symbol, "1m")
            await archive.keep(series, [t.piece(frame, fetched_at=int(number), step=t.MINUTE)])
        await archive.close()
    asyncio.run(main())
"""


def test_several_processes_keep_at_once(make, postgres_server, table):
    """All begin with a database without tables: nobody fails, each finds all bars, and the newest are seen."""
    writers = [start_script(WRITER, postgres_server.url, table, number) for number in range(3)]
    assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 3
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert [end_of(writer) for writer in writers] == [(0, "", "")] * 3
    for symbol, number in [("ALL", 2), ("S0", 0), ("S1", 1), ("S2", 2)]:
        kept = piece(minutes(50_000, seed=number), fetched_at=number, step=MINUTE)
        assert alike(make().ask(extent(kept), series=Series("s", symbol, "1m")), [kept])
    assert postgres_server.run(f"SELECT count(*) FROM {table}") == "200000"


def cut_all(server, table):
    """Cut connections that write to a table in this moment; return how many there were."""
    who = f"query ILIKE 'COPY%{table}%' AND query NOT ILIKE '%coverage%' AND pid <> pg_backend_pid()"
    return int(server.run(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {who}"))


def test_a_connection_is_cut_in_the_middle_of_a_bulk_write(make, postgres_server, table):
    """Others see none of it or all of it at each moment; it is done again, and no bar is there twice."""
    rows, cuts, seen = 200_000, 0, set()
    user, before = make(), piece(bars(3))
    user.keep(before, series=Series("ccxt:binance", "BTC/USDT", "1d"))
    kept = piece(minutes(rows), step=MINUTE)

    async def main():
        nonlocal cuts
        writing = asyncio.create_task(user.archive.keep(MINUTES, [kept]))
        while not writing.done():
            if cuts < 3:
                cuts += await asyncio.to_thread(cut_all, postgres_server, table)
            seen.add(await asyncio.to_thread(postgres_server.run, f"SELECT count(*) FROM {table}"))
        await writing

    run(main())
    assert cuts == 3
    assert seen <= {"3", str(rows + 3)}
    assert postgres_server.run(f"SELECT count(*) FROM {table}") == str(rows + 3)
    assert alike(user.ask(extent(kept), series=MINUTES), [kept])


def test_a_write_that_is_cut_for_good_leaves_nothing(make, postgres_server, table):
    """When it may not be tried again, the error says so, and what was there before is there still."""
    user = make(retries=ONCE)
    before, after = (
        piece(minutes(100_000, seed=1), step=MINUTE),
        piece(minutes(100_000, seed=2), fetched_at=2, step=MINUTE),
    )
    user.keep(before, series=MINUTES)

    async def main():
        writing = asyncio.create_task(user.archive.keep(MINUTES, [after]))
        while not writing.done() and not await asyncio.to_thread(cut_all, postgres_server, table):
            pass
        await writing

    with pytest.raises(
        SourceUnavailable, match=r"archive did not answer .*(terminating|closed the) connection"
    ):
        run(main())
    assert alike(user.ask(extent(before), series=MINUTES), [before])


def test_the_answer_to_a_commit_is_lost(make, postgres_server, table):
    """Who never heard that it was done does it again; each bar is there once."""
    kept = piece(bars().assign(dividends=1.0))
    with Proxy(postgres_server.port, word=b"COMMIT", cuts=3) as proxy:
        user = make(postgres_server.url.replace(str(postgres_server.port), str(proxy.port)))
        user.keep(kept)
        assert proxy.cuts_left == 0
        assert alike(user.ask(extent(kept)), [kept])
    assert postgres_server.run(f"SELECT count(*) FROM {table}") == "6"
    assert postgres_server.run(f"SELECT count(*) FROM {table}_coverage") == "1"


def test_the_server_is_killed_and_started_again_in_the_middle(make, own_server, table):
    """What was acknowledged is there; what was under way is done when the server is back."""
    user = make(own_server.url)
    first, second = piece(minutes(1000), step=MINUTE), piece(minutes(300_000, first=FIRST + DAY), step=MINUTE)
    user.keep(first, series=MINUTES)

    async def main():
        writing = asyncio.create_task(user.archive.keep(MINUTES, [second]))
        writes = f"SELECT 1 FROM pg_stat_activity WHERE query ILIKE 'COPY%{table}\"%'"
        while not await asyncio.to_thread(own_server.run, writes):
            assert not writing.done()
        own_server.kill()
        assert own_server.process.returncode == -signal.SIGKILL
        await asyncio.to_thread(own_server.start)
        assert own_server.run(f"SELECT count(*) FROM {table}") == "1000"
        await writing

    run(main())
    assert alike(user.ask(extent(first, second), series=MINUTES), [first, second])


def test_connections_that_were_idle_are_made_anew(make, own_server):
    """A server that was started again is found again, by whoever asks next."""
    user, kept = make(own_server.url), piece(bars())
    user.keep(kept)

    async def at_once():
        return await asyncio.gather(*(user.archive.ask(DAYS, [extent(kept)]) for _ in range(8)))

    run(at_once())
    own_server.kill()
    own_server.start()
    assert all(alike(found, [kept]) for found in run(at_once()))


def test_a_frozen_server_holds_nobody_up(make, own_server):
    """Who asks and who keeps are told so when their time is over; later all is well."""
    user, kept = make(own_server.url, timeout=0.5), piece(bars())
    user.keep(kept)
    own_server.send(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(SourceUnavailable, match=r"no answer within 0\.5 s"):
        user.ask(extent(kept))
    with pytest.raises(SourceUnavailable, match=r"no answer within 0\.5 s"):
        user.keep(kept._replace(fetched_at=2))
    assert time.monotonic() - began < 5
    own_server.send(signal.SIGCONT)
    assert alike(user.ask(extent(kept)), [kept])


def test_a_slow_statement_is_ended_by_the_server(make, postgres_server, table):
    """Who waits for a lock for too long is told so, and the server goes on without it."""
    user, kept = make(timeout=1.0), piece(bars())
    user.keep(kept)
    lock = f"BEGIN; LOCK TABLE {table}_coverage; SELECT 'locked'; SELECT pg_sleep(600)"
    holder = subprocess.Popen(
        [binary("psql"), postgres_server.url, "-qAtX", *(part for each in lock.split("; ") for part in ("-c", each))],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(SourceUnavailable, match="no answer within 1 s"):
            user.ask(extent(kept))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        wait_until(lambda: postgres_server.run(waiting) == "0")
    finally:
        holder.kill()
        holder.communicate()
        postgres_server.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ILIKE '%pg_sleep%' AND pid <> pg_backend_pid()"
        )
    assert alike(user.ask(extent(kept)), [kept])


def test_who_cancels_leaves_nothing_half_written(make, postgres_server, table):
    """A write whose caller has gone is not begun again; all of it is there, or none."""
    user, kept = make(), piece(minutes(200_000), step=MINUTE)

    async def main():
        writing = asyncio.create_task(user.archive.keep(MINUTES, [kept]))
        while not await asyncio.to_thread(
            postgres_server.run, f"SELECT 1 FROM pg_stat_activity WHERE query ILIKE 'COPY%{table}\"%'"
        ):
            assert not writing.done()
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing

    run(main())
    mine = f"SELECT count(*) FROM pg_stat_activity WHERE query ILIKE '%{table}%' AND state <> 'idle' AND pid <> pg_backend_pid()"
    wait_until(lambda: postgres_server.run(mine) == "0")
    assert postgres_server.run(f"SELECT count(*) FROM {table}") == "0"
    user.keep(kept, series=MINUTES)
    assert alike(user.ask(extent(kept), series=MINUTES), [kept])


SECRETS = [
    "postgresql://me:sekret@127.0.0.1:1/db",
    "postgresql://me:sek%72et@127.0.0.1:1/db",
    "postgresql://me:sekret%ZZ@127.0.0.1:1/db",
    "postgresql://me@127.0.0.1:1/db?password=sekret",
    "postgresql://me:sekret@127.0.0.1:1/db?sslmode=sekret",
    "postgresql://me:sekret@127.0.0.1:1/db?nonsense=1",
]


@pytest.mark.parametrize("url", SECRETS)
def test_a_password_is_never_shown(make, caplog, url):
    """Neither an error, nor what led to it, nor the log has the password."""
    caplog.set_level(logging.DEBUG)
    user = make(url, retries=ONCE)
    for call in (lambda: user.ask((FIRST, FIRST + DAY)), lambda: user.keep(piece(bars()))):
        with pytest.raises(SourceUnavailable) as caught:
            call()
        told = [caught.value, caught.value.__cause__, caught.value.__context__]
        assert "sekret" not in caplog.text + "".join(map(repr, told)) + "".join(map(str, told))


def test_a_server_that_wants_a_password_gets_it(make, own_server):
    """The password of the URL is used, and another one is refused without being shown."""
    own_server.run("CREATE ROLE guarded LOGIN SUPERUSER PASSWORD 'sek:ret/'")
    hba = own_server.folder / "data" / "pg_hba.conf"
    hba.write_text("host all guarded 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n")
    own_server.run("SELECT pg_reload_conf()")
    kept, where = piece(bars()), f"127.0.0.1:{own_server.port}/postgres"
    user = make(SecretURL(f"postgresql://guarded:sek%3Aret%2F@{where}"))
    user.keep(kept)
    assert alike(user.ask(extent(kept)), [kept])
    with pytest.raises(SourceUnavailable, match="password authentication failed") as caught:
        make(f"postgresql://guarded:wrong@{where}").ask(extent(kept))
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "mysql://host/db"}, "url is 'mysql://host/db', but must be a URL that begins with postgresql://"),
        ({"table": ""}, "table is ''"),
        ({"table": "a\0b"}, "table is"),
        ({"table": "x" * 60}, "a name of at most 52 bytes"),
        ({"schema": 3}, "schema is 3"),
        ({"interval": "1d"}, "interval is '1d', but must be None, but for a table of your own"),
        ({"timeout": 0}, "timeout is 0, but must be a positive number of seconds"),
        ({"timeout": True}, "timeout is True"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"name": ""}, "source.name is ''"),
        ({"columns": {"price": "x"}}, "columns is 'price', but must be names for symbol, interval, timestamp, open"),
        ({"columns": {"close": None}}, r"columns\['close'\] is None"),
        ({"columns": {"interval": "x"}, "interval": "1d"}, "columns is 'interval', but must be names for symbol, timestamp"),
        ({"columns": "close"}, "columns is 'close', but must be a dict"),
        ({"columns": {}, "interval": "7x"}, "interval is '7x', but must be one of 1m"),
        ({"columns": {}, "zone": "Mars/Olympus"}, "zone is 'Mars/Olympus', but must be a time zone"),
        ({"columns": {}, "zone": "../etc"}, "zone is"),
        ({"columns": {}, "zone": 3}, "zone is 3"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_be(options, said):
    """The error names the argument, the value and what is allowed."""
    with pytest.raises(InvalidInput, match=said):
        Archive(**{"url": "postgresql://host/db"} | options)


def test_it_needs_the_driver(tmp_path):
    """Without it the error has the line that installs it."""
    code = """
        import asyncio
        from tradecache.archive import Archive
        asyncio.run(Archive("postgresql://host/db").ask(("a", "b", "1d"), [(0, 1)]))
    """
    done = run_script(code, **without_package("adbc", tmp_path))
    assert "MissingDependency: this needs adbc-driver-postgresql" in done.stderr
    assert "pip install 'tradecache[archive]'" in done.stderr


def test_to_import_it_loads_no_driver():
    """The driver is loaded when something is first asked for."""
    code = """
        import json, sys
        import tradecache.archive
        print(json.dumps([name for name in sys.modules if name.startswith("adbc") or name == "pyarrow.dataset"]))
    """
    assert answer(code) == []


def test_it_may_be_used_after_close(user, postgres_server):
    """Only connections are let go of, also those that come back later."""
    kept = piece(bars())
    user.keep(kept)
    run(user.archive.close())
    assert alike(user.ask(extent(kept)), [kept])
    assert user.archive._database._idle == []


def test_a_forked_child_has_connections_of_its_own(make, postgres_server, table):
    """What the child does and its end do not disturb those of its parent."""
    code = """
        import asyncio, json, os, sys
        import test_archive as t
        user, kept = t.User(t.Archive(sys.argv[1], table=sys.argv[2])), t.piece(t.bars())
        user.keep(kept)
        child = os.fork()
        if not child:
            fine = t.alike(user.ask(t.extent(kept)), [kept])
            t.run(user.archive.close())
            os._exit(0 if fine else 1)
        ended = os.waitpid(child, 0)[1]
        print(json.dumps([ended, t.alike(user.ask(t.extent(kept)), [kept]), len(user.archive._database._idle)]))
        t.run(user.archive.close())
    """
    assert answer(code, postgres_server.url, table) == [0, True, 1]


DAYS_OF_LAW = 12
OUTCOMES = ["bars", "closed", "no_trades", "before_listing"]
FORMS = {
    "whole": lambda frame: frame,
    "float": lambda frame: frame.astype({"volume": "float64"}),
    "more": lambda frame: frame.assign(dividends=frame["close"] / 2),
}


@st.composite
def kept_pieces(draw):
    """Pieces of one `keep`, which do not overlap."""
    edges = sorted(draw(st.lists(st.integers(0, DAYS_OF_LAW), min_size=2, max_size=6, unique=True)))
    fetched_at, seed = draw(st.integers(1, 5)), draw(st.integers(0, 1000))
    pieces = []
    for first, last in itertools.pairwise(edges):
        if draw(st.booleans()):
            continue
        outcome, form = draw(st.sampled_from(OUTCOMES)), draw(st.sampled_from(sorted(FORMS)))
        frame = None
        if outcome == "bars":
            every = FORMS[form](bars(last - first, first=FIRST + first * DAY, seed=seed))
            has_bars = draw(st.lists(st.booleans(), min_size=last - first, max_size=last - first))
            frame = every[has_bars] if any(has_bars) else None
        outcome = "no_trades" if outcome == "bars" and frame is None else outcome
        pieces.append(Piece(FIRST + first * DAY, FIRST + last * DAY, outcome, frame, fetched_at))
    return pieces


def model_of(keeps):
    """Return what is known of each day: its outcome, and its bar as a frame of one row."""
    model = {}
    for each in itertools.chain(*keeps):
        for day in range(each.start, each.end, DAY):
            if day in model and model[day][0] > each.fetched_at:
                continue
            bar = None if each.frame is None else each.frame[each.frame.index.asi8 == day]
            model[day] = (each.fetched_at, each.outcome, bar if bar is not None and len(bar) else None)
    return model


@pytest.fixture(scope="module")
def law(postgres_server):
    """An archive for all examples, each of which takes a series of its own."""
    archive = Archive(postgres_server.url, table="law")
    yield User(archive)
    run(archive.close())


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keeps=st.lists(kept_pieces(), max_size=5),
    asked=st.lists(st.tuples(st.integers(0, DAYS_OF_LAW), st.integers(0, DAYS_OF_LAW)), max_size=3),
)
def test_the_law_of_keep_and_ask(law, keeps, asked):
    """After any keeps, any ranges have for each day what the newest said of it, in pieces in order, without overlap."""
    series = Series("law", str(next(numbers)), "1d")
    for pieces in keeps:
        law.keep(*pieces, series=series)
    ranges = [(FIRST + first * DAY, FIRST + last * DAY) for first, last in asked]
    found = law.ask(*ranges, series=series)
    days = {day for start, end in ranges for day in range(start, end, DAY)}
    model = {day: known for day, known in model_of(keeps).items() if day in days}
    assert all(one.end <= other.start for one, other in itertools.pairwise(found))
    assert {day for each in found for day in range(each.start, each.end, DAY)} == set(model)
    for each in found:
        known = [model[day] for day in range(each.start, each.end, DAY)]
        frames = [bar for _, _, bar in known if bar is not None]
        assert each.fetched_at == max(fetched_at for fetched_at, _, _ in known)
        if frames:
            assert_frame_equal(each.frame, pd.concat(frames), check_exact=True)
        else:
            assert each.frame is None
            assert {outcome for _, outcome, _ in known} <= {each.outcome, "bars"}


START, END = pd.Timestamp("2024-01-01"), pd.Timestamp("2024-02-01")
UTC_START, UTC_END = START.tz_localize("UTC"), END.tz_localize("UTC")
ROW = "1.5, 2, 1, 1.25, 100"


@pytest.fixture
def prices(postgres_server, table):
    """Return what makes a table of somebody's own with a row for each time, and returns it as an archive."""
    made = []

    def prices(
        kind, *times, ticker="AAPL", columns=None, number="numeric(12, 4)", volume="bigint", **options
    ):
        names = (
            f"ticker text, day {kind}, o {number}, h {number}, l {number}, px_close {number}, vol {volume}"
        )
        postgres_server.run(f"CREATE TABLE {table} ({names})")
        for time_ in times:
            postgres_server.run(f"INSERT INTO {table} VALUES ('{ticker}', '{time_}', {ROW})")
        spelt = {
            "symbol": "ticker",
            "timestamp": "day",
            "open": "o",
            "high": "h",
            "low": "l",
            "close": "px_close",
            "volume": "vol",
        }
        options = {"interval": "1d", "name": "warehouse"} | options
        made.append(Archive(postgres_server.url, table=table, columns=spelt | (columns or {}), **options))
        return made[-1]

    yield prices
    for archive in made:
        run(archive.close())


def fetched(archive, symbol="AAPL", start=START, end=END, interval="1d"):
    return run(archive.fetch(symbol, start, end, interval))


def test_a_table_of_ones_own_is_read(prices):
    """Its rows in the range come as bars, decimals as float64 and whole volumes as int64."""
    archive = prices("date", "2023-12-31", "2024-01-01", "2024-01-31", "2024-02-01")
    index = pd.DatetimeIndex(["2024-01-01", "2024-01-31"], name="timestamp").as_unit("us")
    row = {"open": 1.5, "high": 2.0, "low": 1.0, "close": 1.25, "volume": 100}
    assert_frame_equal(fetched(archive), pd.DataFrame([row, row], index=index), check_exact=True)
    assert archive.name == "warehouse"


DATES = {
    ("date", "UTC", "1d"): ("2024-01-02", "2024-01-02"),
    ("timestamp", "UTC", "1d"): ("2024-01-02 00:00", "2024-01-02"),
    ("timestamptz", "UTC", "1d"): ("2024-01-02 00:00+00", "2024-01-02"),
    ("timestamptz", "Asia/Tokyo", "1d"): ("2024-01-02 00:00+09", "2024-01-02"),
    ("timestamptz", "America/New_York", "1d"): ("2024-01-31 16:00-05", "2024-01-31 16:00"),
    ("timestamptz", "UTC", "1h"): ("2024-01-02 09:00-05", "2024-01-02 14:00+00:00"),
    ("timestamp", "UTC", "1h"): ("2024-01-02 14:00", "2024-01-02 14:00+00:00"),
    ("timestamp", "America/New_York", "1h"): ("2024-01-02 09:00", "2024-01-02 14:00+00:00"),
}


@pytest.mark.parametrize("case", DATES, ids=" ".join)
def test_times_are_read_in_their_zone(prices, case):
    """Times without a zone are of the zone that was said; days are the dates that it shows."""
    kind, zone, interval = case
    stored, expected = DATES[case]
    edges = {"start": UTC_START, "end": UTC_END} if interval == "1h" else {}
    found = fetched(prices(kind, stored, zone=zone, interval=interval), interval=interval, **edges)
    assert list(found.index) == [pd.Timestamp(expected)]


@pytest.mark.parametrize(
    ("zone", "inside", "outside"),
    [("Asia/Tokyo", "2024-01-01 00:00+09", "2024-02-01 00:00+09"), ("America/New_York", "2024-01-31 23:00-05", "2023-12-31 23:00-05")],
)  # fmt: skip
def test_the_edges_of_a_range_are_of_the_zone_too(prices, zone, inside, outside):
    """What the zone shows to be in January comes, and nothing else."""
    assert len(fetched(prices("timestamptz", inside, outside, zone=zone))) == 1


def test_what_a_table_does_not_have(prices):
    """A symbol without rows is unknown; before its rows and after them nothing is; between them there are no bars."""
    archive = prices("date", "2023-06-01", "2024-06-01")
    assert fetched(archive).empty
    with pytest.raises(UnknownSymbol, match="'MSFT'"):
        fetched(archive, "MSFT")
    for start, end in [("2022-01-01", "2023-06-01"), ("2024-06-02", "2025-01-01")]:
        with pytest.raises(NoBars, match="outside_window"):
            fetched(archive, start=pd.Timestamp(start), end=pd.Timestamp(end))


@pytest.mark.parametrize("symbol", ["' OR '1'='1", "AAPL'; DROP TABLE x; --", "$1", '"', "%", "AAP_"])
def test_a_symbol_is_only_a_value(prices, postgres_server, table, symbol):
    """What looks like SQL is a symbol that is not there."""
    archive = prices("date", "2024-01-02")
    with pytest.raises(UnknownSymbol):
        fetched(archive, symbol)
    assert postgres_server.run(f"SELECT count(*) FROM {table}") == "1"


def test_columns_may_have_any_name(make, postgres_server, table):
    """A column's name is quoted; a view is as good as a table; each row may say its interval."""
    odd = 'a "b"; --'
    postgres_server.run(
        f"CREATE SCHEMA {table}; CREATE VIEW {table}.\"my prices\" AS SELECT 'AAPL'::varchar(9) AS symbol, '1d' AS freq,"
        " date '2024-01-02' AS timestamp, 1::real AS open, 1::int AS high, 1::smallint AS low,"
        ' 1::numeric AS "a ""b""; --"'
    )
    columns = {"close": odd, "interval": "freq", "volume": None}
    archive = make(schema=table, table="my prices", columns=columns).archive
    found = fetched(archive)
    assert found[["open", "high", "low", "close"]].to_numpy().tolist() == [[1.0] * 4]
    assert found["volume"].isna().all()
    assert fetched(archive, interval="1wk").empty


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"table": "nowhere"}, r"table is 'nowhere', but must be one of mine$"),
        ({"columns": {"close": "px"}}, r"columns\['close'\] is 'px', but must be a column of table {table}: ticker, day, o, h, l, px_close, vol"),
        ({"columns": {"close": "ticker"}}, r"columns\['close'\] is 'ticker', but must be a column of type int2 or .*; it is text"),
        ({"columns": {"timestamp": "vol"}}, r"columns\['timestamp'\] is 'vol', but must be a column of type date or timestamp or timestamptz"),
        ({"interval": "1wk"}, "interval is '1d', but must be '1wk', which table {table} holds"),
        ({"interval": None}, r"columns\['interval'\] is 'interval', but must be a column of table"),
    ],
)  # fmt: skip
def test_what_is_asked_of_a_table_that_it_does_not_have(prices, postgres_server, table, options, said):
    """The error names what is missing, and lists what is there."""
    archive = (
        prices("date", "2024-01-02", columns=options.pop("columns", None), **options)
        if "table" not in options
        else None
    )
    if archive is None:
        prices("date", "2024-01-02")
        postgres_server.run(f"CREATE SCHEMA {table}_s; CREATE VIEW {table}_s.mine AS SELECT * FROM {table}")
        archive = Archive(postgres_server.url, columns={}, interval="1d", schema=f"{table}_s", **options)
    with pytest.raises(InvalidInput, match=said.format(table=table)):
        fetched(archive)
    run(archive.close())


def test_a_date_is_no_label_of_a_minute(prices):
    """Bars within a day need times."""
    with pytest.raises(InvalidInput, match="must be a column of type timestamp or timestamptz; it is date"):
        fetched(prices("date", "2024-01-02", interval="1m"), interval="1m", start=UTC_START, end=UTC_END)


def test_each_is_used_for_what_it_is(prices, make):
    """A table of one's own is only read, and an archive is no source."""
    archive = prices("date", "2024-01-02")
    for call in (archive.ask(DAYS, [(0, 1)]), archive.keep(DAYS, [piece(bars())])):
        with pytest.raises(InvalidInput, match="a table of your own is only read"):
            run(call)
    with pytest.raises(InvalidInput, match="an Archive that says with columns="):
        fetched(make().archive)


def test_a_cache_reads_through_it(prices, tmp_path, clock):
    """`TradeCache(source=Archive(...))` reads a table once, and remembers what it does not have."""
    archive = prices("date", *pd.bdate_range("2024-01-01", "2024-01-31").strftime("%Y-%m-%d"))
    with tc.TradeCache(tmp_path, source=archive, clock=clock) as cache:
        first = cache.bars("AAPL", start="2024-01-01", end="2024-01-31", interval="1d")
        again = cache.bars("AAPL", start="2024-01-01", end="2024-01-31", interval="1d")
        assert cache.explain().source.tolist() == ["warehouse"]
        with pytest.raises(UnknownSymbol, match="warehouse knows no symbol 'MSFT'"):
            cache.bars("MSFT", start="2024-01-01", end="2024-01-31", interval="1d")
    assert len(first) == 23
    assert_frame_equal(first, again)


def test_the_server_of_a_source_is_gone():
    """The error names the source, and no password."""
    archive = Archive("postgresql://me:sekret@127.0.0.1:1/db", columns={}, interval="1d", name="warehouse")
    with pytest.raises(SourceUnavailable, match=r"warehouse did not answer .*Connection refused") as caught:
        fetched(archive)
    assert "sekret" not in str(caught.value)
