"""What is a place of final bars that several caches share, and what do they find there?"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import pandas as pd

from tradecache.segments import Series, rows_between
from tradecache.timeline import BARS, Range

NO_TRADES = "no_trades"
"""An outcome: there were no bars."""


class Piece(NamedTuple):
    """What is known for ever of one range of a series.

    Attributes:
        start: The first moment it covers, in microseconds since the epoch, as in a `Segment`.
        end: The first moment after it.
        outcome: "bars", or why there are none.
        frame: The bars, in the form of `normal_bars`; None where there are none.
        fetched_at: When the source gave them.
    """

    start: int
    end: int
    outcome: str
    frame: pd.DataFrame | None
    fetched_at: int

    def within(self, start: int, end: int) -> "Piece":
        """Return what is known of [start, end), which it touches: where it has no bars there, that there were none."""
        first, last = max(self.start, start), min(self.end, end)
        frame = None if self.frame is None else rows_between(self.frame, first, last)
        if frame is None or not len(frame):
            outcome = NO_TRADES if self.outcome == BARS else self.outcome
            return Piece(first, last, outcome, None, self.fetched_at)
        return Piece(first, last, self.outcome, frame, self.fetched_at)


@runtime_checkable
class Shelf(Protocol):
    """A shared place of final bars: asked before a source is, and given what a source then says.

    Both may raise whatever their client raises: who asks takes care of outages.
    """

    @property
    def name(self) -> str:
        """What it is called in warnings and in `explain()`, without secrets."""

    async def ask(self, series: Series, ranges: Sequence[Range]) -> list[Piece]:
        """Return what is known of these ranges: pieces within them that do not overlap, in order."""

    async def keep(self, series: Series, pieces: Sequence[Piece]) -> None:
        """Keep pieces, all or none; where a piece of the same range is there already, the newer one counts."""

    async def close(self) -> None:
        """Let go of connections."""


def without(ranges: Sequence[Range], pieces: Sequence[Piece]) -> list[Range]:
    """Return what is left of ranges where nothing is known."""
    missing = []
    for start, end in ranges:
        at = start
        for first, last in sorted((piece.start, piece.end) for piece in pieces):
            if at < first < end:
                missing.append((at, first))
            if at < last <= end or (first <= at < last):
                at = max(at, min(last, end))
        if at < end:
            missing.append((at, end))
    return missing
