"""What do the tests ask for bars? A source that knows the truth, notes each question, and fails when told to."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tradecache import UnknownSymbol

MICRO = pd.Timedelta(1, "us")
HOLIDAYS = pd.DatetimeIndex(
    [
        "2023-11-23", "2023-12-25",
        "2024-01-01", "2024-01-15", "2024-02-19", "2024-03-29", "2024-05-27", "2024-06-19", "2024-07-04",
        "2024-09-02", "2024-11-28", "2024-12-25",
    ]
)  # fmt: skip
"""Weekdays on which New York did not trade, as far as the tests go."""


class Call(NamedTuple):
    """One question: for the bars in [start, end)."""

    symbol: str
    start: pd.Timestamp
    end: pd.Timestamp
    interval: str


class TruthSource:
    """Serves bars from what is true of each symbol, and knows no other symbols.

    Args:
        truth: The bars of each symbol, or of "AAPL".
        name: The source's name.
        traits: What it says of itself: `calendar_for`, `max_range`, `settle` and the like.
    """

    def __init__(
        self, truth: pd.DataFrame | Mapping[str, pd.DataFrame], *, name: str = "truth", **traits: Any
    ) -> None:
        self.name = name
        self.truth = {"AAPL": truth} if isinstance(truth, pd.DataFrame) else dict(truth)
        self.calls: list[Call] = []
        self.error: Exception | None = None
        """Raised instead of an answer, as long as it is there."""
        self.spoil: Callable[[pd.DataFrame, Call], Any] = lambda frame, _: frame
        """Given each answer and its question; what it returns is sent instead."""
        vars(self).update(traits)

    async def fetch(self, symbol: str, start: pd.Timestamp, end: pd.Timestamp, interval: str) -> Any:
        """Return the bars in [start, end)."""
        call = Call(symbol, start, end, interval)
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        if symbol not in self.truth:
            raise UnknownSymbol(symbol)
        bars = self.truth[symbol]
        first, last = bars.index.searchsorted([start, end])
        return self.spoil(bars.iloc[first:last], call)

    def asked(self) -> list[tuple[str, str]]:
        """Return the ranges asked for since the last look, in order of time, as text; forget them."""
        calls = sorted(self.calls, key=lambda call: (call.start, call.symbol))
        self.calls.clear()
        return [(_text(call.start), _text(call.end)) for call in calls]

    def correct(self, label: str, close: float, *, symbol: str = "AAPL") -> None:
        """Have another close (and a range that holds it) be true of one bar from now on."""
        bars = self.truth[symbol].copy()
        at = bars.index.get_loc(pd.Timestamp(label, tz=bars.index.tz))
        bars.iloc[at, :4] = [close, close + 1, close - 1, close]
        self.truth[symbol] = bars


def bars_at(index: pd.DatetimeIndex, *, seed: int = 0) -> pd.DataFrame:
    """Return bars with these labels, in the form that the cache hands out."""
    rng = np.random.default_rng(seed)
    open_, close = rng.uniform(90, 110, (2, len(index)))
    data = {
        "open": open_,
        "high": np.maximum(open_, close) + 1,
        "low": np.minimum(open_, close) - 1,
        "close": close,
        "volume": rng.integers(1, 10_000, len(index)),
    }
    labels = pd.DatetimeIndex(index, freq=None, name="timestamp").as_unit("us")
    return pd.DataFrame(data, index=labels)


def days(start: str, end: str, *, seed: int = 0) -> pd.DataFrame:
    """Return a bar for each session of New York in [start, end]."""
    return bars_at(sessions(start, end), seed=seed)


def every(freq: str, start: str, end: str, *, seed: int = 0) -> pd.DataFrame:
    """Return a bar for each step of a market that never closes, of each day in [start, end]."""
    last = pd.Timestamp(end, tz="UTC") + pd.Timedelta(1, "D")
    index = pd.date_range(pd.Timestamp(start, tz="UTC"), last, freq=freq, inclusive="left")
    return bars_at(index, seed=seed)


def hours(start: str, end: str, *, closes: Mapping[str, str] | None = None, seed: int = 0) -> pd.DataFrame:
    """Return the hourly bars of New York's sessions in [start, end], 9:30 to 16:00; `closes` says where earlier."""
    parts = []
    for day in sessions(start, end):
        date = f"{day:%Y-%m-%d}"
        stop = (closes or {}).get(date, "16:00")
        parts.append(
            pd.date_range(
                f"{date} 09:30", f"{date} {stop}", freq="h", tz="America/New_York", inclusive="left"
            )
        )
    return bars_at(
        pd.DatetimeIndex(
            np.concatenate([part.tz_convert("UTC").tz_localize(None) for part in parts])
        ).tz_localize("UTC"),
        seed=seed,
    )


def sessions(start: str, end: str) -> pd.DatetimeIndex:
    """Return New York's days of trading in [start, end]."""
    return pd.bdate_range(start, end).difference(HOLIDAYS)


def _text(moment: pd.Timestamp) -> str:
    return f"{moment:%Y-%m-%d}" if moment == moment.normalize() else f"{moment:%Y-%m-%d %H:%M}"
