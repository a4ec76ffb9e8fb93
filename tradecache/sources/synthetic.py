"""Where do as many bars as anybody wants come from, the same ones each time?"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd
import xxhash
from numpy.typing import NDArray

from tradecache.barframes import COLUMNS, empty_bars
from tradecache.errors import InvalidInput
from tradecache.intervals import Interval, interval_of

Floats = NDArray[np.float64]

BLOCK = 4_096  # bars that are made at once; a block is the same whichever part of it is asked for
DEPTH = 24  # the walk reaches 2**DEPTH blocks to both sides of 1970, for minutes about 130,000 years
DAY = 86_400_000_000  # microseconds
CHEAPEST, DEAREST = 10.0, 500.0  # at the start of 1970
NORMAL = NormalDist()


class Synthetic:
    """A random walk for any symbol and any interval, day and night: for load tests and demonstrations.

    The same bar comes out whichever range it is asked for in, and in whichever process: a walk is fixed by
    seed, symbol and interval. Each bar opens where the one before it closed. Bars of several intervals are
    walks of their own.

    Args:
        seed: Another number, another world.
        volatility: The standard deviation of a day's log return.

    Raises:
        InvalidInput: When the volatility does not lie between 0 and 1.
    """

    settle = pd.Timedelta(0)
    adjusted = True
    budget = ""  # nobody is asked over a network

    def __init__(self, *, seed: int = 0, volatility: float = 0.015) -> None:
        if not 0 < volatility < 1:
            raise InvalidInput("volatility", volatility, "between 0 and 1")
        self.seed = seed
        self.volatility = volatility
        differs = (seed, volatility) != (0, 0.015)
        self.name = f"synthetic seed={seed} volatility={volatility:g}" if differs else "synthetic"

    async def fetch(self, symbol: str, start: pd.Timestamp, end: pd.Timestamp, interval: str) -> pd.DataFrame:
        """Make the bars in [start, end)."""
        kind = interval_of(interval)
        grid = _Grid(kind)
        first, last = grid.number(start), grid.number(end)
        if first >= last:
            return empty_bars(kind)
        deviation = self.volatility * math.sqrt(grid.length / DAY)
        walk = _Walk(f"{self.seed}/{kind.text}/{symbol}", deviation)
        index = grid.labels(first, last).tz_localize("UTC" if kind.is_intraday else None)
        return pd.DataFrame(dict(zip(COLUMNS, walk.bars(first, last), strict=True)), index=index)

    def __repr__(self) -> str:
        """Show the seed."""
        return f"<Synthetic seed={self.seed}>"


class _Grid:
    """The labels of an interval, numbered from the bar that contains the start of 1970."""

    def __init__(self, interval: Interval) -> None:
        self._origin = interval.floor(0)
        self.length = interval.next(0) - self._origin
        self._is_monthly = interval.text.endswith("mo")

    def number(self, moment: pd.Timestamp) -> int:
        """Return the number of the first bar whose label is not before a moment."""
        instant = moment.tz_localize(None).to_datetime64().astype("M8[us]")
        if self._is_monthly:
            month = instant.astype("M8[M]")
            return int(month.astype("int64")) + int(month < instant)
        return -int((self._origin - int(instant.astype("int64"))) // self.length)

    def labels(self, first: int, last: int) -> pd.DatetimeIndex:
        """Return the labels of the bars from one number up to another, that one left out."""
        numbers = np.arange(first, last, dtype="int64")
        if self._is_monthly:
            return pd.DatetimeIndex(numbers.view("M8[M]").astype("M8[us]"), name="timestamp")
        return pd.DatetimeIndex((numbers * self.length + self._origin).view("M8[us]"), name="timestamp")


@dataclass(frozen=True, slots=True)
class _Walk:
    """A Brownian walk of the log price, with a value at each number of a bar, positive or negative.

    Where it stands between two blocks is found by halving the distance to the far end again and again: each
    midpoint is the mean of its two ends and a random number made of its place. Within a block it goes from
    one of these values to the next.
    """

    name: str
    deviation: float

    def bars(self, first: int, last: int) -> list[Floats]:
        """Return open, high, low, close and volume of the bars from one number up to another."""
        begin = first // BLOCK
        blocks = list(self._blocks(begin, (last - 1) // BLOCK))
        offset = begin * BLOCK
        return [
            np.concatenate(column)[first - offset : last - offset] for column in zip(*blocks, strict=True)
        ]

    def _blocks(self, first: int, last: int) -> Iterator[tuple[Floats, ...]]:
        start = self._level(first)
        for block in range(first, last + 1):
            end = self._level(block + 1)
            yield self._block(block, start, end)
            start = end

    def _block(self, block: int, start: float, end: float) -> tuple[Floats, ...]:
        """Return the bars of one block, of which it is known where it begins and ends."""
        key = [self._hash("block"), block % 2**64]
        rng = np.random.Generator(np.random.Philox(key=np.array(key, dtype="uint64")))
        path = np.cumsum(rng.standard_normal(BLOCK))
        path += start - (path[-1] - (end - start)) * np.arange(1, BLOCK + 1) / BLOCK
        path[-1] = end
        before = np.concatenate([[start], path[:-1]])
        above, below = rng.standard_exponential((2, BLOCK)) / 2
        scale = CHEAPEST * (DEAREST / CHEAPEST) ** self._uniform("price")
        lines = (before, np.maximum(before, path) + above, np.minimum(before, path) - below, path)
        volume = np.floor(np.exp(rng.standard_normal(BLOCK) + 9))
        return (*(scale * np.exp(self.deviation * line) for line in lines), volume)

    def _level(self, block: int) -> float:
        """Return where the walk stands at the beginning of a block, in steps of one deviation."""
        side, place = ("past", -block) if block < 0 else ("future", block)
        low, high = 0, 2**DEPTH
        at_low, at_high = 0.0, self._normal(f"{side} {high}") * math.sqrt(high)
        while high - low > 1:
            middle = (low + high) // 2
            spread = math.sqrt((high - low) / 4)
            at_middle = (at_low + at_high) / 2 + spread * self._normal(f"{side} {middle}")
            if place < middle:
                high, at_high = middle, at_middle
            else:
                low, at_low = middle, at_middle
        return at_low * math.sqrt(BLOCK)

    def _normal(self, place: str) -> float:
        return NORMAL.inv_cdf(self._uniform(place))

    def _uniform(self, place: str) -> float:
        """Return a number between 0 and 1, neither of them, made of the name of a place."""
        return ((self._hash(place) >> 12) + 0.5) / 2**52

    def _hash(self, place: str) -> int:
        return xxhash.xxh3_64_intdigest(f"{self.name}/{place}".encode("utf-8", "surrogatepass"))
