"""What does the archive's bulk write and read cost, and what do pandas' to_sql and read_sql?

Measured side by side on one PostgreSQL server, which is started for it on this machine as Debian ships it, with
fsync on: 1,000,000 one-minute bars of a seeded random walk (see bars.py), a new symbol in each round. Ours is
`Archive.keep` and `Archive.ask`, frame in and the same frame out, coverage, locks and commit included. Theirs is
`DataFrame.to_sql` and `pandas.read_sql` as they come, through SQLAlchemy and psycopg, twice: "same table" appends
the same nine columns to a table with the same key and the same partitions as ours, and reads one series of it with
a WHERE; "own table" writes the frame alone to a table that to_sql makes, with the index that it makes, and reads
all of it.

Between writes and reads the server's housekeeping is done by hand (VACUUM ANALYZE), which it does by itself within a
minute or so. All take turns in each round, another one first each time; each figure is the median over the rounds. Before that
all must give the same answer. The ratio is theirs over ours.

    python benchmarks/archive.py [--json] [--rounds 3] [--rows 1000000] [--save]
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from bars import in_turn, minutes, walk
from report import tell

from tradecache.archive import Archive
from tradecache.segments import Series
from tradecache.shelves import Piece

ROWS = 1_000_000
GOAL = 10
MINUTE = 60_000_000
NAMES = ("ours", "same table", "own table")
SAME = "SELECT timestamp, open, high, low, close, volume FROM theirs WHERE source = %(source)s AND symbol = %(symbol)s AND interval = %(interval)s ORDER BY timestamp"


class Figure(NamedTuple):
    """One line of the table: medians in seconds, and ours against the others."""

    what: str
    unit: str
    ours: float
    same_table: float
    own_table: float
    ratio_same: float
    ratio_own: float
    goal: str
    met: bool


class Ours:
    """The archive."""

    def __init__(self, url: str, bars: pd.DataFrame) -> None:
        self.archive = Archive(url, timeout=600)
        labels = bars.index.asi8
        self.piece = Piece(int(labels[0]), int(labels[-1]) + MINUTE, "bars", bars, 1)

    def write(self, symbol: str) -> None:
        asyncio.run(self.archive.keep(_series(symbol), [self.piece]))

    def read(self, symbol: str) -> pd.DataFrame:
        (piece,) = asyncio.run(self.archive.ask(_series(symbol), [self.piece[:2]]))
        return piece.frame

    def close(self) -> None:
        asyncio.run(self.archive.close())


class SameTable:
    """pandas, on a table that is made as ours is."""

    def __init__(self, url: str, bars: pd.DataFrame) -> None:
        self.engine = _engine(url)
        self.bars = bars
        archive = Archive(url, table="theirs")  # which makes the tables when it is given something
        ours = Ours(url, bars)
        asyncio.run(archive.keep(_series("nobody"), [ours.piece._replace(frame=bars)]))
        asyncio.run(archive.close())

    def write(self, symbol: str) -> None:
        frame = self.bars.reset_index().assign(**_series(symbol)._asdict())
        frame.to_sql("theirs", self.engine, if_exists="append", index=False)

    def read(self, symbol: str) -> pd.DataFrame:
        return pd.read_sql(SAME, self.engine, params=_series(symbol)._asdict(), index_col="timestamp")

    def close(self) -> None:
        self.engine.dispose()


class OwnTable:
    """pandas, on a table that it makes itself."""

    def __init__(self, url: str, bars: pd.DataFrame) -> None:
        self.engine = _engine(url)
        self.bars = bars

    def write(self, symbol: str) -> None:
        self.bars.to_sql(symbol, self.engine, if_exists="fail")

    def read(self, symbol: str) -> pd.DataFrame:
        return pd.read_sql(f'SELECT * FROM "{symbol}"', self.engine, index_col="timestamp")

    def close(self) -> None:
        self.engine.dispose()


def _series(symbol: str) -> Series:
    return Series("yfinance", symbol, "1m")


def _engine(url: str) -> Any:
    import sqlalchemy

    return sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))


def keep_house(engine: Any) -> None:
    """Have the server do now what it would do soon."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def agree(sides: Mapping[str, Any], symbol: str, bars: pd.DataFrame) -> None:
    """See that all give back what was written."""
    for name, side in sides.items():
        found = side.read(symbol).astype({"volume": "int64"})
        found.index = found.index.as_unit("us")
        if not found.equals(bars):
            raise RuntimeError(f"{name} gives back something else")


def measure(url: str, rows: int, rounds: int) -> list[Figure]:
    """Measure on the server at `url`, whose database has to be empty."""
    bars = walk(minutes(rows), rng=np.random.default_rng(7))
    kinds = dict(zip(NAMES, (Ours, SameTable, OwnTable), strict=True))
    sides = {name: kind(url, bars) for name, kind in kinds.items()}
    taken: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(rounds):
        for what in ("write", "read"):
            if what == "read":
                keep_house(sides["own table"].engine)
            for name in in_turn(NAMES, number):
                work = getattr(sides[name], what)
                taken[what][name].append(seconds_of(partial(work, f"S{number}")))
        agree(sides, f"S{number}", bars)
    for side in sides.values():
        side.close()
    return [_figure(f"{what} {rows:,} rows", taken[what]) for what in ("write", "read")]


def _figure(what: str, taken: Mapping[str, Sequence[float]]) -> Figure:
    ours, same, own = (statistics.median(taken[name]) for name in NAMES)
    goal = f">= {GOAL}x faster than the same table"
    return Figure(what, "s", ours, same, own, same / ours, own / ours, goal, same / ours >= GOAL)


def server() -> Any:
    """Return a PostgreSQL server, that of the tests, but with fsync."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from servers import PostgresServer

    return PostgresServer("-c", "fsync=on")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--save", action="store_true", help="write the JSON to benchmarks/results/ too")
    chosen = parser.parse_args()
    with server() as postgres:
        figures = measure(postgres.url, chosen.rows, chosen.rounds)
    names = ("tradecache", "pandas", "sqlalchemy", "psycopg", "adbc-driver-postgresql")
    versions = {name: version(name) for name in names}
    tell("archive", [each._asdict() for each in figures], chosen, digits=2, width=200, versions=versions)


if __name__ == "__main__":
    main()
