"""What does a price point cost, here and in the composition that py-key-value's example uses?

Measured side by side, in one process and in turn, on the same points (the daily closes of five stocks from
bokeh_sampledata, repeated to 100,000 for the frame): `TradingDataCache` against StatisticsWrapper over
PassthroughCacheWrapper over MemoryStore and LoggingWrapper over RetryWrapper over DiskStore, with
PydanticAdapter. Each figure is the median over rounds of the mean cost of one operation in a batch; both
sides run in every round. Memory is the anonymous resident memory of a child process that reads 1 GiB of
frames through a memory tier of 256 MiB. Import times are medians of fresh interpreters.

    python benchmarks/points.py [--json] [--rounds 15] [--save]
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from key_value.aio.adapters.pydantic import PydanticAdapter
from key_value.aio.stores.disk import DiskStore
from key_value.aio.stores.memory import MemoryStore
from key_value.aio.wrappers.logging import LoggingWrapper
from key_value.aio.wrappers.passthrough_cache import PassthroughCacheWrapper
from key_value.aio.wrappers.retry import RetryWrapper
from key_value.aio.wrappers.statistics import StatisticsWrapper
from report import tell

from tradecache import PriceData, TradeCache, TradingDataCache
from tradecache.samples import sample_points

BATCH = 300
POINTS = 100_000
MIB = 1024**2


class Figure(NamedTuple):
    """One line of the table."""

    what: str
    ours: float
    theirs: float
    unit: str
    goal: str
    met: bool


class Peer:
    """The example's composition."""

    def __init__(self, folder: str) -> None:
        self.memory = MemoryStore()
        disk = LoggingWrapper(RetryWrapper(DiskStore(directory=folder)))
        stack = StatisticsWrapper(
            PassthroughCacheWrapper(primary_key_value=disk, cache_key_value=self.memory)
        )
        self.adapter = PydanticAdapter[PriceData](stack, PriceData)
        self.stack = stack
        self.disk = disk
        self.count = 0

    async def store(self, symbol: str, price: float, volume: float) -> str:
        self.count += 1
        moment = datetime.now(UTC)
        key = f"{moment.isoformat()}-{self.count}"
        point = PriceData(symbol=symbol, price=price, volume=volume, timestamp=moment)
        await self.adapter.put(key, point, collection=f"symbol:{symbol}")
        return key

    async def get(self, symbol: str, key: str) -> PriceData | None:
        return await self.adapter.get(key, collection=f"symbol:{symbol}")

    def forget_memory(self) -> None:
        """Begin with an empty memory tier, as after a restart."""
        self.stack.key_value = PassthroughCacheWrapper(
            primary_key_value=self.disk, cache_key_value=MemoryStore()
        )


async def per_call(calls: list[Callable[[], Awaitable[Any]]]) -> float:
    """Return the mean microseconds of one awaited call."""
    began = time.perf_counter()
    for call in calls:
        await call()
    return (time.perf_counter() - began) / len(calls) * 1e6


async def measure_operations(rounds: int) -> list[Figure]:
    """Store, read from disk, read from memory: a batch of each, on both sides in every round."""
    rows = sample_points().head(BATCH).to_dict("records")
    costs: dict[str, list[float]] = {
        f"{side} {what}": [] for side in ("ours", "peer") for what in ("put", "disk", "memory")
    }
    sync: list[float] = []
    with tempfile.TemporaryDirectory() as folder, TradeCache(f"{folder}/ours") as face:
        ours, peer = face.core, Peer(f"{folder}/peer")
        for _ in range(rounds):
            for side, store, get, forget in (
                ("ours", ours.store_price, ours.get_price, ours.stack.memory.destroy),
                ("peer", peer.store, peer.get, None),
            ):
                ids: list[tuple[str, str]] = []

                async def put(row: dict[str, Any], store: Any = store, ids: Any = ids) -> None:
                    ids.append((row["symbol"], await store(row["symbol"], row["price"], row["volume"])))

                costs[f"{side} put"].append(
                    await per_call([lambda row=row, put=put: put(row) for row in rows])
                )
                if forget is None:
                    peer.forget_memory()
                else:
                    await forget()
                reads = [lambda at=at, get=get: get(*at) for at in ids]
                costs[f"{side} disk"].append(await per_call(reads))
                costs[f"{side} memory"].append(await per_call(reads))
                if side == "ours":
                    began = time.perf_counter()
                    for symbol, data_id in ids:
                        face.get_price(symbol, data_id)
                    sync.append((time.perf_counter() - began) / len(ids) * 1e6)
    medians = {name: statistics.median(found) for name, found in costs.items()}
    figures = [
        compare(f"async {what}", medians[f"ours {key}"], medians[f"peer {key}"], "us", at_least)
        for what, key, at_least in (
            ("get_price, memory", "memory", 4),
            ("get_price, disk", "disk", 4),
            ("store_price", "put", 3),
        )
    ]
    cost, base = statistics.median(sync), medians["ours memory"]
    return [
        *figures,
        Figure("sync get_price, memory (against async)", cost, base, "us", "< 2x", cost < 2 * base),
    ]


def compare(what: str, ours: float, theirs: float, unit: str, at_least: float) -> Figure:
    return Figure(what, ours, theirs, unit, f">= {at_least:g}x faster", theirs / ours >= at_least)


async def measure_frame(rounds: int) -> list[Figure]:
    """Read 100,000 points of one symbol into a frame, against get_many on the composition."""
    began = datetime(2020, 1, 1, tzinfo=UTC)
    moments = [began + timedelta(minutes=n) for n in range(POINTS)]
    frame = pd.DataFrame(
        {
            "symbol": "AAPL",
            "price": 100.0 + np.arange(POINTS) % 977 / 7,
            "volume": np.arange(POINTS) * 1.0,
            "timestamp": moments,
        }
    )
    ours_took, peer_took, peer_raw = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(f"{folder}/peer")
        points = [PriceData(**row) for row in frame.to_dict("records")]
        keys = [f"{moment.isoformat()}-{n}" for n, moment in enumerate(moments)]
        await peer.adapter.put_many(keys, points, collection="symbol:AAPL")
        async with TradingDataCache(f"{folder}/ours") as cache:
            await cache.store_prices(frame)
            for _ in range(rounds):
                ours_took.append(await seconds(cache.prices("AAPL")))
                peer.forget_memory()
                peer_raw.append(await seconds(peer.stack.get_many(keys, collection="symbol:AAPL")))
                peer.forget_memory()
                peer_took.append(await seconds(as_frame(peer, keys)))
    ours = statistics.median(ours_took) * 1e3
    return [
        compare(
            "100,000 points to a DataFrame (against get_many + DataFrame)",
            ours,
            statistics.median(peer_took) * 1e3,
            "ms",
            10,
        ),
        compare(
            "100,000 points to a DataFrame (against bare get_many)",
            ours,
            statistics.median(peer_raw) * 1e3,
            "ms",
            10,
        ),
    ]


async def as_frame(peer: Peer, keys: list[str]) -> pd.DataFrame:
    found = await peer.adapter.get_many(keys, collection="symbol:AAPL")
    return pd.DataFrame([point.model_dump() for point in found if point]).set_index("timestamp")


async def seconds(work: Awaitable[Any]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


BASE = (
    "import pandas, pydantic; from key_value.aio.adapters.pydantic import PydanticAdapter;"
    "from key_value.aio.wrappers import logging, passthrough_cache, retry, statistics"
)
"""What the peer's composition imports, its stores left out."""

CHILD = """
import asyncio, sys, tempfile
from pathlib import Path
import numpy as np, pandas as pd, psutil
from tradecache import Settings, TradingDataCache

def anonymous():
    return sum(m.private_dirty + m.shared_dirty for m in psutil.Process().memory_maps(grouped=False) if not m.path.endswith(".arrow"))

async def main():
    with tempfile.TemporaryDirectory() as folder:
        async with TradingDataCache(folder, settings=Settings(memory_bytes="256MiB", compression=sys.argv[1])) as cache:
            rows = 8 * 1024**2 // (8 * 8)
            index = pd.date_range("2020", periods=rows, freq="s", tz="UTC", unit="us")
            for n in range(128):
                frame = pd.DataFrame({c: np.random.default_rng(n).random(rows) for c in "abcdefg"}, index=index)
                await cache.stack.frames.put(str(n), {"frame": frame}, collection="bars")
            del frame, index
            await cache.stack.memory.destroy()
            idle = anonymous()
            for n in range(128):
                value = await cache.stack.frames.get(str(n), collection="bars")
                assert value["frame"]["a"].sum() > 0
                del value
            print(idle, anonymous(), cache.stack.memory.occupancy()["bytes"])

asyncio.run(main())
"""


def measure_memory() -> list[Figure]:
    """Read 1 GiB of frames (128 of 8 MiB) through a memory tier of 256 MiB, in a child process."""
    figures = []
    for compression in ("none", "zstd"):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, compression], check=True, capture_output=True, text=True
        )
        idle, after, _ = (int(part) / MIB for part in done.stdout.split())
        bound = 256 * 1.25
        what = f"anonymous memory over idle after 1 GiB of frames ({compression})"
        figures.append(Figure(what, after - idle, bound, "MiB", f"< {bound:g} MiB", after - idle < bound))
    return figures


def measure_import(rounds: int) -> list[Figure]:
    """Import tradecache, and what it stands on, in fresh interpreters that find compiled modules."""
    both: dict[str, list[float]] = {BASE: [], f"{BASE}; import tradecache": []}
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(rounds + 1):
        for code, found in both.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env=compiled)
            found.append((time.perf_counter() - began) * 1e3)
    without, with_ours = (statistics.median(found[1:]) for found in both.values())  # the first one compiles
    return [
        Figure(
            "import tradecache, over what it stands on",
            with_ours - without,
            without,
            "ms",
            "<= 100 ms",
            with_ours - without <= 100,
        )
    ]


def measure(rounds: int) -> list[Figure]:
    figures = asyncio.run(measure_operations(rounds))
    figures += asyncio.run(measure_frame(max(3, rounds // 4)))
    return figures + measure_memory() + measure_import(max(5, rounds // 2))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--save", action="store_true", help="write the JSON to benchmarks/results/ too")
    chosen = parser.parse_args()
    figures = measure(chosen.rounds)
    rows = [{**figure._asdict(), "ratio": figure.theirs / figure.ours} for figure in figures]
    tell("points", rows, chosen, digits=2, width=200)


if __name__ == "__main__":
    main()
