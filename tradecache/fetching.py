"""How is a source asked for some ranges of a series, and how are its answers kept?"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from tradecache.asking import SUPPOSED, Provider, Request
from tradecache.barframes import normal_bars
from tradecache.calendars import DAY
from tradecache.clock import Clock
from tradecache.errors import InvalidInput, NoBars
from tradecache.intervals import Interval
from tradecache.segments import SegmentStore, rows_between
from tradecache.shelves import NO_TRADES, Piece
from tradecache.shelving import Shelving
from tradecache.telemetry import Tier
from tradecache.timeline import BARS, Range, Segment, Timeline

if TYPE_CHECKING:
    from tradecache.freshness import Verdict

log = logging.getLogger("tradecache")

NOTHING = pd.DataFrame()
EMPTY = "empty"
QUIET = 30 * DAY  # so long without a bar, and a search for the beginning of a series ends


class Fetched(NamedTuple):
    """Bars of one segment that came from elsewhere, how long the request took that they came with, and from where."""

    bars: pd.DataFrame
    seconds: float
    tier: Tier = "source"


class Fetch:
    """One round of questions to a source, and the storing of its answers, while the series is held."""

    def __init__(
        self,
        segments: SegmentStore,
        request: Request,
        provider: Provider,
        clock: Clock,
        timeline: Timeline,
        shelving: Shelving,
    ) -> None:
        self._segments = segments
        self._request = request
        self._provider = provider
        self._clock = clock
        self._timeline = timeline
        self._shelving = shelving
        self._stamp = timeline.later_than_all(clock.micros())
        self._final: list[Piece] = []
        self.requests = 0
        self.rows = 0
        self.new: dict[str, Fetched] = {}
        self.error: Exception | None = None

    async def from_shelves(self, ranges: Sequence[Range]) -> bool:
        """Store what shelves know of some ranges, as far as it is fresh; return whether there was anything."""
        request, began = self._request, time.perf_counter()
        pieces = await self._shelving.ask(request.series, ranges)
        seconds = (time.perf_counter() - began) / max(len(pieces), 1)
        for piece in pieces:
            try:
                bars = None if piece.frame is None else self._normal(piece.frame, piece.start, piece.end)
                verdicts = self._verdicts(piece.start, piece.end, piece.outcome, piece.fetched_at)
            except InvalidInput as error:  # InvalidBars among them
                log.warning("a shelf's bars of %s are none: %s", request.series.symbol, error)
                continue
            for verdict in verdicts:
                if verdict.fresh_until is None or verdict.fresh_until > self._stamp:
                    about = Fetched(NOTHING, seconds, "team")
                    await self._put(verdict, bars, piece.outcome, about, oldest=piece.fetched_at)
        self._stamp += bool(pieces)  # what a source says now is newer than what a shelf has
        return bool(pieces)

    async def to_shelves(self) -> None:
        """Give shelves what is final of the source's answers."""
        pieces, self._final = self._final, []
        await self._shelving.keep(self._request.series, sorted(pieces, key=lambda piece: piece.start))

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
            bars = self._normal(came, start, end)
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
        for verdict in self._verdicts(start, end, outcome, sent_at):
            segment, piece = await self._put(verdict, bars, outcome, Fetched(NOTHING, seconds))
            if verdict.fresh_until is None and self._shelving:
                self._final.append(Piece(segment.start, segment.end, segment.outcome, piece, sent_at))

    def _verdicts(self, start: int, end: int, outcome: str, fetched_at: int) -> "list[Verdict]":
        """Return until when the parts of an answer for [start, end) are fresh."""
        request, provider = self._request, self._provider
        return provider.freshness.verdict(
            (start, end),
            interval=request.interval,
            calendar=provider.calendar,
            fetched_at=fetched_at,
            key=request.series.collection,
            settle=provider.settle,
            outcome=outcome,
        )

    async def _put(
        self,
        part: "Verdict",
        bars: pd.DataFrame | None,
        outcome: str,
        about: Fetched,
        *,
        oldest: int | None = None,
    ) -> tuple[Segment, pd.DataFrame | None]:
        """Store one part of an answer, and remember which bars are new, `about` them what is known."""
        piece = None if bars is None else rows_between(bars, part.start, part.end)
        piece = piece if piece is not None and len(piece) else None
        segment = await self._segments.put(
            self._request.series,
            part.start,
            part.end,
            frame=piece,
            fetched_at=self._stamp,
            oldest=oldest,
            fresh_until=part.fresh_until,
            outcome=BARS if piece is not None else NO_TRADES if outcome == BARS else outcome,
        )
        if piece is not None:
            self.new[segment.key] = about._replace(bars=piece)
        return segment, piece

    def _normal(self, frame: pd.DataFrame, start: int, end: int) -> pd.DataFrame:
        """Return bars for [start, end) in our form.

        Raises:
            InvalidBars: For what are none.
        """
        request = self._request
        edges = request.stamp(start), request.stamp(end)
        name = " ".join(request.series)
        return normal_bars(frame, interval=request.interval, start=edges[0], end=edges[1], name=name)

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
