"""How does each contender of `bars.py` write, read and append bars, and how long does it take?

A program of its own, because the peers need an older pandas than tradecache: `bars.py` starts it under either
Python, once for each contender. It imports tradecache or a peer, never both.

    python benchmarks/contenders.py serve <contender> <folder>
    python benchmarks/contenders.py once <contender> <folder> <question>

`serve` answers one line of JSON with another until its input ends; `once` opens the folder, asks one question and
prints the seconds that took, the MiB of resident memory it added, both counted from when the contender was
imported, and the seconds of that import, over pandas.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

YEAR = 98_280  # 252 sessions of 390 minutes
GROWN = 3  # series that bars are appended to
DAYS = "days.parquet"
MINUTES = "minutes.parquet"
BATCH = 0.05  # seconds that calls are repeated for, so that a short one is measured more than once


class Contender(Protocol):
    """A store of bars in a folder: minutes by symbol, and the days of many symbols."""

    def write(self, symbol: str, bars: pd.DataFrame, interval: str) -> None:
        """Store bars of a symbol that has none."""

    def append(self, symbol: str, bar: pd.DataFrame) -> None:
        """Store one more minute at the end of a symbol's bars."""

    def read(self, symbol: str) -> pd.DataFrame:
        """Return all minutes of a symbol."""

    def since(self, symbol: str, start: str) -> pd.DataFrame:
        """Return the minutes of a symbol from `start` on."""

    def wide(self, symbols: Sequence[str]) -> pd.DataFrame:
        """Return the days of some symbols beside one another."""


class Ours:
    """`TradeCache`, as it comes."""

    def __init__(self, folder: Path) -> None:
        from tradecache import TradeCache

        self._cache = TradeCache(folder)

    def write(self, symbol: str, bars: pd.DataFrame, interval: str) -> None:
        self._cache.store_bars(symbol, bars, interval=interval)

    def append(self, symbol: str, bar: pd.DataFrame) -> None:
        self._cache.store_bars(symbol, bar, interval="1m")

    def read(self, symbol: str) -> pd.DataFrame:
        return self._cache.bars(symbol, interval="1m", source="local")

    def since(self, symbol: str, start: str) -> pd.DataFrame:
        return self._cache.bars(symbol, start, interval="1m", source="local")

    def wide(self, symbols: Sequence[str]) -> pd.DataFrame:
        return self._cache.bars(symbols, interval="1d", source="local")


class Arctic:
    """ArcticDB on LMDB, as it comes."""

    def __init__(self, folder: Path) -> None:
        import arcticdb

        self._library = arcticdb.Arctic(f"lmdb://{folder}").get_library("bars", create_if_missing=True)

    def write(self, symbol: str, bars: pd.DataFrame, interval: str) -> None:  # noqa: ARG002 - as all write
        self._library.write(symbol, bars)

    def append(self, symbol: str, bar: pd.DataFrame) -> None:
        self._library.append(symbol, bar)

    def read(self, symbol: str) -> pd.DataFrame:
        bars: pd.DataFrame = self._library.read(symbol).data
        return bars

    def since(self, symbol: str, start: str) -> pd.DataFrame:
        bars: pd.DataFrame = self._library.read(symbol, date_range=(pd.Timestamp(start), None)).data
        return bars

    def wide(self, symbols: Sequence[str]) -> pd.DataFrame:
        items = self._library.read_batch(list(symbols))
        return beside({item.symbol: item.data for item in items})


class Parquet:
    """pandas and one Parquet file for each symbol; an append writes the file anew."""

    def __init__(self, folder: Path) -> None:
        import pyarrow.parquet  # noqa: F401 - pandas imports it in its first read

        folder.mkdir(exist_ok=True)
        self._folder = folder

    def write(self, symbol: str, bars: pd.DataFrame, interval: str) -> None:  # noqa: ARG002 - as all write
        bars.to_parquet(self._path(symbol))

    def append(self, symbol: str, bar: pd.DataFrame) -> None:
        self.write(symbol, pd.concat([self.read(symbol), bar]), "1m")

    def read(self, symbol: str) -> pd.DataFrame:
        return pd.read_parquet(self._path(symbol))

    def since(self, symbol: str, start: str) -> pd.DataFrame:
        later = [("timestamp", ">=", pd.Timestamp(start))]
        return pd.read_parquet(self._path(symbol), filters=later)

    def wide(self, symbols: Sequence[str]) -> pd.DataFrame:
        return beside({symbol: self.read(symbol) for symbol in symbols})

    def _path(self, symbol: str) -> Path:
        return self._folder / f"{symbol}.parquet"


class DiskCache:
    """diskcache, one pickled frame for each symbol; an append writes the frame anew."""

    def __init__(self, folder: Path) -> None:
        import diskcache

        self._cache = diskcache.Cache(str(folder), size_limit=2**40)

    def write(self, symbol: str, bars: pd.DataFrame, interval: str) -> None:  # noqa: ARG002 - as all write
        self._cache[symbol] = bars

    def append(self, symbol: str, bar: pd.DataFrame) -> None:
        self._cache[symbol] = pd.concat([self.read(symbol), bar])

    def read(self, symbol: str) -> pd.DataFrame:
        bars: pd.DataFrame = self._cache[symbol]
        return bars

    def since(self, symbol: str, start: str) -> pd.DataFrame:
        return self.read(symbol).loc[start:]

    def wide(self, symbols: Sequence[str]) -> pd.DataFrame:
        return beside({symbol: self.read(symbol) for symbol in symbols})


CONTENDERS: dict[str, Callable[[Path], Contender]] = {
    "ours": Ours,
    "arcticdb": Arctic,
    "parquet": Parquet,
    "diskcache": DiskCache,
}
IMPORTS = {
    "ours": "tradecache",
    "arcticdb": "arcticdb",
    "parquet": "pyarrow.parquet",
    "diskcache": "diskcache",
}


def beside(frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Join frames of several symbols into one wide frame, as pandas does it."""
    return pd.concat(frames, axis="columns")


class Bench:
    """One contender on one folder, and the data it is tried with.

    Questions are lists: ["read", symbol], ["since", symbol, start] or ["wide"].
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._folder = folder
        self._resident = resident()
        self._contender = CONTENDERS[name](folder / name)
        self._minutes = pd.DataFrame()

    def fill(self) -> None:
        """Write all series: a year and a decade of minutes, those to append to, and the days."""
        year = self._load().iloc[:YEAR]
        self._contender.write("DECADE", self._load(), "1m")
        for symbol in ("YEAR", *(f"GROWN{number}" for number in range(GROWN))):
            self._contender.write(symbol, year, "1m")
        days = pd.read_parquet(self._folder / DAYS)
        for symbol, bars in days.groupby("symbol"):
            self._contender.write(str(symbol), in_own_unit(bars.drop(columns="symbol")), "1d")

    def ask(self, question: list[str]) -> pd.DataFrame:
        """Return the answer to a question."""
        what, *about = question
        if what == "wide":
            return self._contender.wide(self._symbols())
        answer: pd.DataFrame = getattr(self._contender, what)(*about)
        return answer

    def check(self, question: list[str]) -> list[float]:
        """Return what every contender has to find alike: rows, columns and the sum of all numbers."""
        frame = self.ask(question)
        return [*frame.shape, float(frame.to_numpy(dtype="float64").sum())]

    def time(self, question: list[str]) -> float:
        """Return the median seconds of one answer."""
        took: list[float] = []
        while sum(took) < BATCH:
            began = time.perf_counter()
            answer = self.ask(question)
            took.append(time.perf_counter() - began)
            del answer
        return statistics.median(took)

    def write(self, symbol: str) -> float:
        """Return the seconds to write a year of minutes of a new symbol."""
        bars = self._load().iloc[:YEAR]
        began = time.perf_counter()
        self._contender.write(symbol, bars, "1m")
        return time.perf_counter() - began

    def append(self, symbol: str, first: int, count: int) -> float:
        """Return the seconds to append bars that follow a year, from number `first` on, one at a time."""
        later = self._load().iloc[YEAR:]
        bars = [later.iloc[n : n + 1] for n in range(first, first + count)]
        began = time.perf_counter()
        for bar in bars:
            self._contender.append(symbol, bar)
        return time.perf_counter() - began

    def held(self) -> float:
        """Return the MiB of resident memory that came since the imports, the data to write left out."""
        self._minutes = pd.DataFrame()
        return resident() - self._resident

    def _load(self) -> pd.DataFrame:
        if self._minutes.empty:
            self._minutes = in_own_unit(pd.read_parquet(self._folder / MINUTES))
        return self._minutes

    def _symbols(self) -> list[str]:
        names: list[str] = json.loads((self._folder / "symbols.json").read_text())
        return names


def in_own_unit(bars: pd.DataFrame) -> pd.DataFrame:
    """Return bars with labels in the unit that this pandas makes by itself."""
    labels = pd.DatetimeIndex(bars.index)
    return bars.set_axis(labels.as_unit("us" if pd.__version__ >= "3" else "ns"))


def resident() -> float:
    """Return the MiB of resident memory of this process, NaN where the system has no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return float("nan")
    return pages * 4096 / 2**20


def serve(name: str, folder: Path) -> None:
    """Answer requests, [method of Bench, *arguments] on a line each."""
    bench = Bench(name, folder)
    for line in sys.stdin:
        method, *about = json.loads(line)
        print(json.dumps(getattr(bench, method)(*about)), flush=True)


def once(name: str, folder: Path, question: list[str], *, imported: float) -> None:
    """Open the folder and ask one question, all for the first time in this process."""
    before = resident()
    began = time.perf_counter()
    bench = Bench(name, folder)
    answer = bench.ask(question)
    took = time.perf_counter() - began
    added = resident() - before
    assert np.isfinite(answer.iloc[-1].to_numpy(dtype="float64")).all()
    print(json.dumps([took, added, imported]), flush=True)


def main() -> None:
    what, name, folder, *question = sys.argv[1:]
    began = time.perf_counter()
    __import__(IMPORTS[name])
    imported = time.perf_counter() - began
    if what == "serve":
        serve(name, Path(folder))
    else:
        once(name, Path(folder), question, imported=imported)


if __name__ == "__main__":
    main()
