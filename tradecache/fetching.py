"""How is a source asked for some ranges of a series, and how are its answers kept?"""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from tradecache.asking import SUPPOSED, Provider, Request
from tradecache.barframes import normal_bars
from tradecache.calendars import DAY
from tradecache.clock import Clock
from tradecache.errors import NoBars
from tradecache.intervals import Interval
from tradecache.segments import SegmentStore, rows_between
from tradecache.timeline import BARS, Range, Timeline

NO_TRADES, EMPTY = "no_trades", "empty"
QUIET = 30 * DAY  # so long without a bar, and a search for the beginning of a series ends


class Fetched(NamedTuple):
    """Bars of one segment that a source gave, and how long the request took that they came with."""

    bars: pd.DataFrame
    seconds: float


class Fetch:
    """One round of questions to a source, and the storing of its answers, while the series is held."""

    def __init__(
        self, segments: SegmentStore, request: Request, provider: Provider, clock: Clock, timeline: Timeline
    ) -> None:
        self._segments = segments
        self._request = request
        self._provider = provider
        self._clock = clock
        self._timeline = timeline
        self._stamp = timeline.later_than_all(clock.micros())
        self.requests = 0
        self.rows = 0
        self.new: dict[str, Fetched] = {}
        self.error: Exception | None = None

    async def all(self, ranges: Sequence[Range]) -> None:
        """Ask for ranges, the newest first; where one fails, the others are kept nevertheless."""
        size = self._provider.max_range
        oldest = (
            ranges[:1] if size and ranges[0][1] - ranges[0][0] > size else []
        )  # where bars begin is searched
        outcomes = await asyncio.gather(
            *(self._one(*each) for each in reversed(ranges[len(oldest) :])), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                self._note(outcome)
        if oldest and size and self.error is None:
            try:
                await self._search_beginning(*oldest[0], size)
            except Exception as error:  # noqa: BLE001 - it is the answer's error
                self._note(error)

    def _note(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            raise error
        self.error = self.error or error

    async def _one(self, start: int, end: int) -> int:
        """Ask for one range and store the answer; return how many bars came."""
        request, provider = self._request, self._provider
        sent_at = self._clock.micros()
        edges = request.stamp(start), request.stamp(end)
        outcome, bars = (NO_TRADES if self._was_absent(start, end) else EMPTY), None
        self.requests += 1
        began = time.perf_counter()
        try:
            came = await provider.guard.fetch(request.series.symbol, *edges, request.interval.text)
        except NoBars as absence:
            outcome = absence.reason
        else:
            name = " ".join(request.series)
            bars = normal_bars(came, interval=request.interval, start=edges[0], end=edges[1], name=name)
        seconds = time.perf_counter() - began
        if bars is None or not len(bars):
            await self._keep(start, end, None, outcome, sent_at, seconds)
            return 0
        seen = min(end, end_of_bar(int(bars.index.asi8[-1]), request.interval))  # type: ignore[attr-defined]
        await self._keep(start, seen, bars, BARS, sent_at, seconds)
        await self._keep(seen, end, None, NO_TRADES, sent_at, seconds)
        self.rows += len(bars)
        return len(bars)

    def _was_absent(self, start: int, end: int) -> bool:
        """Whether there were no bars in a range when it was last asked for, so that no answer is a second one."""
        spans = self._timeline.lookup(start, end, self._stamp)
        return all(span.segment is not None and not span.segment.rows for span in spans)

    async def _keep(
        self, start: int, end: int, bars: pd.DataFrame | None, outcome: str, sent_at: int, seconds: float
    ) -> None:
        """Store the answer for one range, cut where the freshness of its parts differs."""
        request, provider = self._request, self._provider
        parts = provider.freshness.verdict(
            (start, end),
            interval=request.interval,
            calendar=provider.calendar,
            fetched_at=sent_at,
            key=request.series.collection,
            settle=provider.settle,
            outcome=outcome,
        )
        for part in parts:
            piece = None if bars is None else rows_between(bars, part.start, part.end)
            has_rows = piece is not None and len(piece) > 0
            segment = await self._segments.put(
                request.series,
                part.start,
                part.end,
                frame=piece,
                fetched_at=self._stamp,
                fresh_until=part.fresh_until,
                outcome=BARS if has_rows else NO_TRADES if outcome == BARS else outcome,
            )
            if has_rows and piece is not None:
                self.new[segment.key] = Fetched(piece, seconds)

    async def _search_beginning(self, start: int, end: int, size: int) -> None:
        """Ask for one piece after the other, backwards, until it has been quiet for long."""
        quiet = 0
        while end > start and quiet < QUIET:
            first = max(start, end - size)
            quiet = 0 if await self._one(first, end) else quiet + end - first
            end = first
        if end > start:
            until = self._clock.micros() + QUIET
            await self._segments.put(
                self._request.series, start, end, frame=None, fetched_at=self._stamp, fresh_until=until, outcome=SUPPOSED
            )  # fmt: skip


def end_of_bar(label: int, interval: Interval) -> int:
    """Return the first moment that the bar of a label does not speak for."""
    return label + interval.microseconds if interval.is_intraday else interval.next(label)
