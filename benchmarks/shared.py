"""What does it cost to share: points in Redis, bars on a team's shelf there, an archive in SQL, encryption?

Measured side by side in one process and in turn, against what a hand would write with redis-py, on a Redis server
of its own on the loopback. A point read is `TradingDataCache.get_price` with `memory_url`, which returns a checked
`PriceData`, against `json.loads(await client.get(key))`; and the same of the sync face against the sync client. A
range is 98,280 one-minute bars of a year (252 sessions of 390 minutes, five columns), as twelve monthly buckets: the
shelf's answer against `client.mget` of the same Arrow files, raw, and their decoding into one DataFrame; then all of
`bars()` on a machine that has nothing, which also stores them in its folder. Each figure is the median over rounds, its
ratio the median of ours over theirs in each round. The archive and encryption are measured as `archive.py` (fewer
rounds; the other way round there) and `sealing.py` describe, in the same run.

    python benchmarks/shared.py [--json] [--rounds 15] [--save]
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import archive
import numpy as np
import pandas as pd
import pyarrow as pa
import sealing
from report import tell

import tradecache as tc
from tradecache.asking import labels_of
from tradecache.clock import Clock
from tradecache.framecodec import arrow_bytes
from tradecache.intervals import interval_of
from tradecache.places import shelving_of
from tradecache.segments import Series
from tradecache.shelves import Piece

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers import RedisServer

BATCH = 300
RANGE = ("2024-01-02", "2024-12-31")


class Figure(NamedTuple):
    """One line of the table."""

    what: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    goal: str
    met: bool | None


def minutes() -> pd.DataFrame:
    """Return a year of one-minute bars, in cents as prices are."""
    days = pd.bdate_range("2024-01-02", periods=252)
    opens = [pd.date_range(day + pd.Timedelta(hours=14.5), periods=390, freq="min") for day in days]
    index = pd.DatetimeIndex(np.concatenate([each.to_numpy() for each in opens]), tz="UTC", name="timestamp")
    rng = np.random.default_rng(7)
    close = np.round(100 + np.cumsum(rng.normal(0, 0.02, len(index))), 2)
    spread = np.round(rng.uniform(0, 0.1, (2, len(index))), 2)
    columns = {
        "open": close, "high": close + spread[0], "low": close - spread[1], "close": close,
        "volume": rng.integers(0, 10_000, len(index)).astype("float64"),
    }  # fmt: skip
    return pd.DataFrame(columns, index=index.as_unit("us"))


async def timed(work: Callable[[], Awaitable[Any]], times: int) -> float:
    """Return the mean seconds of doing some work so many times."""
    began = time.perf_counter()
    for _ in range(times):
        await work()
    return (time.perf_counter() - began) / times


def figure(what: str, pairs: list[tuple[float, float]], unit: str, goal: float | None) -> Figure:
    """Return the line of some pairs of seconds, ours and theirs."""
    scale = {"µs": 1e6, "ms": 1e3}[unit]
    ours, theirs = (statistics.median(each) * scale for each in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    met = None if goal is None else ratio <= goal
    return Figure(what, ours, theirs, unit, ratio, "" if goal is None else f"≤ {goal}x", met)


async def points(server: RedisServer, rounds: int) -> list[Figure]:
    """Measure reads of a point."""
    import redis
    import redis.asyncio

    settings = tc.Settings(memory_url=server.url)
    bare, blocking = (
        kind(port=server.port, decode_responses=True) for kind in (redis.asyncio.Redis, redis.Redis)
    )
    with tempfile.TemporaryDirectory() as folder:
        async with tc.TradingDataCache(folder, settings=settings) as core:
            data_id = await core.store_price("AAPL", 189.97, 1_000)
            (key,) = await bare.keys("tradecache.symbol*")

            async def theirs() -> Any:
                return json.loads(await bare.get(key))

            pairs = [
                (await timed(lambda: core.get_price("AAPL", data_id), BATCH), await timed(theirs, BATCH))
                for _ in range(rounds)
            ]
        with tc.TradeCache(folder, settings=settings) as cache:
            sync = [
                (
                    _timed(lambda: cache.get_price("AAPL", data_id)),
                    _timed(lambda: json.loads(blocking.get(key))),  # type: ignore[arg-type]
                )
                for _ in range(rounds)
            ]
    await bare.aclose()
    blocking.close()
    return [
        figure("a point through Redis, async: get + json.loads", pairs, "µs", 1.5),
        figure("a point through Redis, sync: get + json.loads", sync, "µs", None),
    ]


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    for _ in range(BATCH):
        work()
    return (time.perf_counter() - began) / BATCH


async def ranges(server: RedisServer, rounds: int) -> list[Figure]:
    """Measure reads of a year of minutes."""
    import redis.asyncio

    bars, kind = minutes(), interval_of("1m")
    start, end = labels_of(*RANGE, kind)
    settings = tc.Settings(team_url=server.url)
    series = Series("provider", "AAPL", "1m")
    shelving = shelving_of(settings, clock=Clock())
    await shelving.keep(series, [Piece(start, end, "bars", bars, Clock().micros())])
    bare = redis.asyncio.Redis(port=server.port)
    months = [part for _, part in bars.groupby(bars.index.tz_localize(None).to_period("M"))]
    keys = [f"raw {number}" for number in range(len(months))]
    for key, month in zip(keys, months, strict=True):
        await bare.set(key, arrow_bytes(month).to_pybytes())

    async def theirs() -> pd.DataFrame:
        found = await bare.mget(keys)
        return pd.concat([pa.ipc.open_file(pa.py_buffer(each)).read_pandas() for each in found])

    async def ours() -> pd.DataFrame:
        return pd.concat([piece.frame for piece in await shelving.ask(series, [(start, end)])])

    pd.testing.assert_frame_equal(await ours(), await theirs(), check_freq=False)
    pairs = [(await timed(ours, 3), await timed(theirs, 3)) for _ in range(rounds)]
    whole = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            async with tc.TradingDataCache(folder, settings=settings, source=nobody) as core:
                began = time.perf_counter()
                await core.bars("AAPL", *RANGE, interval="1m")
                whole.append((time.perf_counter() - began, await timed(theirs, 1)))
    await shelving.close()
    await bare.aclose()
    return [
        figure("98,280 rows from the team's shelf: mget + Arrow decode", pairs, "ms", 1.5),
        figure("the same as bars(), stored in a folder, too", whole, "ms", None),
    ]


async def nobody(symbol: str, start: Any, end: Any, interval: str) -> pd.DataFrame:
    """Be asked by nobody, since the team has it."""
    raise tc.SourceUnavailable(f"asked for {symbol} {start} {end} {interval}")


nobody.__name__ = "provider"


async def measured(rounds: int) -> list[Figure]:
    """Measure everything on one server."""
    with RedisServer() as server:
        return [*await points(server, rounds), *await ranges(server, rounds)]


def archived(rounds: int) -> list[Figure]:
    """Measure a million rows in PostgreSQL against pandas' own way, on a table like ours."""
    with archive.server() as server:
        found = archive.measure(server.url, archive.ROWS, rounds)
    return [
        Figure(
            f"archive, {each.what}: pandas and SQLAlchemy, {other}",
            each.ours * 1e3, theirs * 1e3, "ms", each.ours / theirs, "≤ 0.1x", each.ours / theirs <= 0.1,
        )
        for each in found
        for other, theirs in (("a table like ours", each.same_table), ("as it comes", each.own_table))
    ]  # fmt: skip


def sealed(rounds: int) -> list[Figure]:
    """Measure a folder with a key against one without."""
    return [
        Figure(
            f"encrypted, {each['what']}: not encrypted",
            each["sealed"], each["plain"], "ms", each["ratio"], each["goal"].replace("<=", "≤"), each["met"],
        )
        for each in sealing.measure(rounds)
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", action="store_true")
    chosen = parser.parse_args()
    few = max(3, chosen.rounds // 4)
    figures = [*asyncio.run(measured(chosen.rounds)), *archived(few), *sealed(chosen.rounds)]
    tell("shared", [each._asdict() for each in figures], chosen, digits=2, width=160)


if __name__ == "__main__":
    main()
