"""What does encryption cost: 98,280 rows and single points, from memory and at the first read?

The same seeded bars and points lie in two folders, one of which is encrypted with hashed names. Each round asks
each folder in a new process, another one first each time. "Open" is from after `import tradecache` to a cache
that can be asked, with the import of what encrypts; "first read" is the first `bars` call then, with the files
in the page cache and garbage collected; "memory" is the median of many calls after it. Each figure is the median over the rounds.

    python benchmarks/sealing.py [--json] [--rounds 15] [--save]
"""

import argparse
import base64
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from report import tell

from tradecache import Settings, TradeCache

YEAR = 98_280
POINTS = 10_000
CALLS = 200
KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()
GOALS = {"98,280 rows, first read": 2.0, "98,280 rows, memory": 1.1, "a point by id, memory": 1.1}
"""How many times the plain figure at most."""
COMPILED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def opened(folder: Path, *, is_sealed: bool) -> TradeCache:
    key = KEY if is_sealed else None
    return TradeCache(settings=Settings(cache_dir=folder, encryption_key=key, hashed_names=is_sealed))


def fill(cache: TradeCache) -> None:
    """Store what all questions are about."""
    rng = np.random.default_rng(7)
    index = pd.date_range("2015-01-02 14:30", periods=YEAR, freq="min", tz="UTC", name="timestamp")
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.0005, YEAR)))
    prices = {"open": close, "high": close + 1, "low": close - 1, "close": close}
    bars = pd.DataFrame({**prices, "volume": rng.integers(1, 1_000_000, YEAR)}, index=index)
    cache.store_bars("YEAR", bars, interval="1m")
    points = {"symbol": "POINTS", "price": close[:POINTS], "volume": 1.0, "timestamp": index[:POINTS]}
    cache.store_prices(pd.DataFrame(points))


def took(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def middle(work: Callable[[], Any], calls: int = CALLS) -> float:
    return statistics.median(took(work) for _ in range(calls))


def once(folder: Path, *, is_sealed: bool) -> dict[str, float]:
    """Ask all questions; return milliseconds by question."""
    began = time.perf_counter()
    cache = opened(folder, is_sealed=is_sealed)
    found = {"open the folder": (time.perf_counter() - began) * 1e3}
    gc.collect()  # of what imports have left: it takes 50 ms, and would fall into one side's first read

    def read() -> pd.DataFrame:
        return cache.bars("YEAR", interval="1m", source="local")

    found["98,280 rows, first read"] = took(read)
    found["98,280 rows, memory"] = middle(read)
    found["10,000 points as a frame"] = middle(lambda: cache.prices("POINTS"), 3)
    ids = [entry.key for entry in cache._run(cache.core.stack.listed.scan("symbol:POINTS", last=CALLS))]  # type: ignore[attr-defined]  # noqa: SLF001
    each = iter(ids)
    found["a point by id, first read"] = middle(lambda: cache.get_price("POINTS", next(each)))
    found["a point by id, memory"] = middle(lambda: cache.get_price("POINTS", ids[0]))
    bars = read()
    number = iter(range(100))
    found["write 98,280 rows"] = middle(
        lambda: cache.store_bars(f"W{os.getpid()}{next(number)}", bars, interval="1m"), 3
    )
    found["write a point"] = middle(lambda: cache.store_price("NEW", 1.0, 1.0))
    cache.invalidate([f"W{os.getpid()}{n}" for n in range(3)], source="local")
    cache.close()
    return found


def measure(rounds: int) -> list[dict[str, Any]]:
    found: dict[str, dict[bool, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as name:
        folders = {False: Path(name, "plain"), True: Path(name, "sealed")}
        for is_sealed, folder in folders.items():
            with opened(folder, is_sealed=is_sealed) as cache:
                fill(cache)
        for number in range(rounds + 1):
            for is_sealed in (number % 2 == 0, number % 2 == 1):
                command = [sys.executable, __file__, "--once", str(folders[is_sealed]), str(int(is_sealed))]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=COMPILED)
                for what, cost in json.loads(done.stdout).items():
                    if number:  # the first round brings files into the page cache, and compiles modules
                        found[what][is_sealed].append(cost)
    return [figure(what, costs) for what, costs in found.items()]


def figure(what: str, costs: dict[bool, list[float]]) -> dict[str, Any]:
    plain, sealed = statistics.median(costs[False]), statistics.median(costs[True])
    goal = GOALS.get(what)
    return {
        "what": what,
        "unit": "ms",
        "plain": plain,
        "sealed": sealed,
        "ratio": sealed / plain,
        "goal": f"<= {goal:g}x" if goal else "",
        "met": sealed / plain <= goal if goal else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--save", action="store_true", help="write the JSON to benchmarks/results/ too")
    parser.add_argument("--once", nargs=2, metavar=("FOLDER", "SEALED"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.once:
        print(json.dumps(once(Path(chosen.once[0]), is_sealed=chosen.once[1] == "1")))
        return
    tell("sealing", measure(chosen.rounds), chosen, digits=4, width=150)


if __name__ == "__main__":
    main()
