"""How are bars answered: from memory, else from disk, else by asking the source for just what is needed?"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

from tradecache.asking import BEGINNING, Provider, Request, floor_of, floor_searched, horizon, worth_asking
from tradecache.barframes import empty_bars, normal_bars
from tradecache.clock import Clock
from tradecache.errors import NoBars, SourceError, StoreFault, TradeCacheError
from tradecache.flights import Flights
from tradecache.freshness import BARS, Verdict
from tradecache.intervals import Interval
from tradecache.segments import SegmentStore, Series, rows_between
from tradecache.telemetry import SERVED_BY, Telemetry, Tier
from tradecache.timeline import Range, Segment, Span, Timeline, needed

log = logging.getLogger("tradecache")

NO_TRADES = "no_trades"
BEFORE_LISTING = "before_listing"
ATTEMPTS = 5  # to read what was there a moment ago: it may be compacted meanwhile, or found damaged
QUIET = 7 * 86_400_000_000  # so long without a bar, and what lies before is taken for before the listing


class Served(NamedTuple):
    """One span of an answer: where it came from, and why."""

    start: int
    end: int
    tier: Tier
    why: str
    rows: int
    seconds: float


@dataclass(slots=True)
class Answer:
    """The bars of one series, where each span of them came from, and what could not be had.

    Attributes:
        series: Whose they are.
        frame: The bars.
        spans: Where they came from, in order, without holes.
        error: Why the source gave no answer for a part of what was needed.
        is_partial: Whether something is missing because of that.
        is_stale: Whether something older stands in for what the source did not give.
        requests: How many ranges the source was asked for.
        fetched: How many bars it gave.
        seconds: How long it all took.
    """

    series: Series
    frame: pd.DataFrame
    spans: list[Served] = field(default_factory=list)
    error: Exception | None = None
    is_partial: bool = False
    is_stale: bool = False
    requests: int = 0
    fetched: int = 0
    seconds: float = 0.0
    new: set[str] = field(default_factory=set)
    """The keys of the segments that were fetched for it."""

    @property
    def tier(self) -> Tier:
        """The slowest tier that had a part in it; "none" when there are no bars."""
        if self.requests:
            return "source"
        tiers = {span.tier for span in self.spans}
        return next((tier for tier in SLOWEST_FIRST if tier in tiers), "none")


SLOWEST_FIRST: tuple[Tier, ...] = ("source", "disk", "memory")


class BarBook:
    """Bars of many series, read through: what is covered and fresh is never asked for again."""

    def __init__(
        self, segments: SegmentStore, flights: Flights, *, clock: Clock, telemetry: Telemetry
    ) -> None:
        self.segments = segments
        self._flights = flights
        self._clock = clock
        self._telemetry = telemetry
        self._requests: Counter[Series] = Counter()
        self._refreshing: dict[Series, asyncio.Task[None]] = {}

    async def answer(self, request: Request, provider: Provider | None) -> Answer:
        """Return the bars of one series in a range; without a provider, those that are stored.

        What the source could not give is in `error`; where older bars stand in for it, `is_stale` says so.
        """
        began = time.perf_counter()
        try:
            answer = await self._answer(request, provider)
        except BaseException:
            self._record(request.series, "error", 0, time.perf_counter() - began)
            raise
        answer.seconds = time.perf_counter() - began
        tier: Tier = "error" if answer.is_partial else answer.tier
        self._record(request.series, tier, len(answer.frame), answer.seconds)
        return answer

    async def plan(self, request: Request, provider: Provider) -> list[Range]:
        """Return the ranges that `answer` would ask the source for, in order."""
        timeline = await self.segments.timeline(request.series)
        now = self._clock.micros()
        return worth_asking(self._needed(request, timeline, provider, now, now), request, provider, now)

    def answers_at_once(self, request: Request, provider: Provider | None) -> bool:
        """Whether `answer` would wait neither for the source nor for the disk."""
        timeline = self.segments.known(request.series)
        if timeline is None or request.refresh:
            return False
        now = self._clock.micros()
        if provider is not None:
            ranges = self._needed(request, timeline, provider, now, now)
            if worth_asking(ranges, request, provider, now) or self._is_hot(request, timeline, provider, now):
                return False
        spans = timeline.lookup(*self._bounds(request, provider, now), now)
        held = (self.segments.holds(request.series, each.segment) for each in spans if _has_rows(each))
        return any(map(_has_rows, spans)) and all(held)

    async def store(
        self, series: Series, frame: pd.DataFrame, interval: Interval, *, ttl: float | None
    ) -> None:
        """Store bars of somebody's own. Where there is a bar of the same label already, the new one counts.

        Raises:
            InvalidBars: Naming the rows that are no bars; nothing was stored.
        """
        zone = "UTC" if interval.is_intraday else None
        everything = (pd.Timestamp(0, tz=zone) + pd.Timedelta(years * 365, "D") for years in (-250, 250))
        start, end = everything
        bars = normal_bars(frame, interval=interval, start=start, end=end, name=" ".join(series))
        if not len(bars):
            return
        labels = bars.index.asi8  # type: ignore[attr-defined]  # of a DatetimeIndex
        first, last = int(labels[0]), _after(int(labels[-1]), interval)
        async with self._flights.alone(series.collection):
            timeline = await self.segments.timeline(series)
            now = self._clock.micros()
            older = await self._visible(series, timeline.lookup(first, last, now))
            if older:
                kept = pd.concat(older)
                bars = pd.concat([kept[~kept.index.isin(bars.index)], bars]).sort_index()
            await self.segments.put(
                series, first, last, frame=bars, fetched_at=_stamp(timeline, now), fresh_until=None, ttl=ttl
            )
            await self.segments.tidy(series)

    async def invalidate(self, series: Series, start: int, end: int) -> int:
        """Delete what is stored for [start, end); return how many bars could be seen there."""
        async with self._flights.alone(series.collection):
            timeline = await self.segments.timeline(series)
            frames = await self._visible(series, timeline.lookup(start, end, self._clock.micros()))
            for segment in [each for each in timeline if each.start < end and start < each.end]:
                await self.segments.trim(series, segment, start, end)
        return sum(map(len, frames))

    async def close(self) -> None:
        """Stop what goes on in the background."""
        running = list(self._refreshing.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _answer(self, request: Request, provider: Provider | None) -> Answer:
        self._requests[request.series] += 1
        answer = Answer(request.series, empty_bars(request.interval))
        asked_at = self._clock.micros()
        for _ in range(ATTEMPTS):
            if provider is not None and answer.error is None:
                await self._fetch_needed(answer, request, provider, asked_at)
            if await self._read(answer, request, provider):
                break
        else:
            raise StoreFault(self.segments.folder, "its segments come and go")
        if provider is not None and answer.error is None:
            await self._refresh_if_hot(request, provider)
        return answer

    async def _fetch_needed(
        self, answer: Answer, request: Request, provider: Provider, asked_at: int
    ) -> None:
        """Ask the source for what is missing or stale, unless somebody else does just that."""
        if not await self._worth_asking(request, provider, asked_at):
            return
        async with self._flights.alone(request.series.collection) as landing:
            ranges = await self._worth_asking(request, provider, asked_at)
            answer.error = landing.failure(ranges) if ranges else None
            if not ranges or answer.error is not None:
                return
            timeline = await self.segments.timeline(request.series)
            fetch = _Fetch(
                self.segments, request, provider, self._clock, stamp=_stamp(timeline, self._clock.micros())
            )
            await fetch.all(ranges)
            answer.requests += fetch.requests
            answer.fetched += fetch.rows
            answer.new |= fetch.keys
            answer.error = fetch.error
            if isinstance(fetch.error, SourceError):
                landing.failed(fetch.error, ranges)
            elif fetch.error is None:
                self._requests[request.series] = 0
                landing.went_well()
            await self.segments.tidy(request.series)

    async def _worth_asking(self, request: Request, provider: Provider, asked_at: int) -> list[Range]:
        timeline = await self.segments.timeline(request.series)
        now = self._clock.micros()
        return worth_asking(self._needed(request, timeline, provider, asked_at, now), request, provider, now)

    def _needed(
        self, request: Request, timeline: Timeline, provider: Provider, asked_at: int, now: int
    ) -> list[Range]:
        """Return what is missing or stale and was not fetched since it was asked for."""
        start, end = self._bounds(request, provider, now)
        spans = timeline.lookup(start, min(end, horizon(now, request.interval, provider.calendar)), now)
        if request.refresh:
            spans = [span._replace(state="stale") if span.segment else span for span in spans]
        return needed(span for span in spans if span.segment is None or span.segment.fetched_at < asked_at)

    def _bounds(self, request: Request, provider: Provider | None, now: int) -> Range:
        start, end = request.start, request.end
        if start is None:
            start = floor_of(request, provider, now)
        if end is None:
            calendar = None if provider is None else provider.calendar
            end = horizon(now, request.interval, calendar)
        return start, end

    async def _read(self, answer: Answer, request: Request, provider: Provider | None) -> bool:
        """Read what is stored; return whether all of it was still there."""
        timeline = await self.segments.timeline(request.series)
        now = self._clock.micros()
        start, end = self._bounds(request, provider, now)
        frames: list[pd.DataFrame] = []
        answer.spans = []
        missing: list[Range] = []
        for span in timeline.lookup(start, end, now):
            began = time.perf_counter()
            tier: Tier = "none"
            rows = 0
            if span.segment is None:
                missing.append((span.start, span.end))
            elif span.segment.rows:
                frame = await self.segments.frame(request.series, span.segment)
                if frame is None:
                    return False
                piece = rows_between(frame, span.start, span.end)
                frames.append(piece)
                tier, rows = ("source" if span.segment.key in answer.new else SERVED_BY.get()), len(piece)
            answer.is_stale |= answer.error is not None and span.state == "stale"
            answer.spans.append(
                Served(span.start, span.end, tier, _why(span, provider), rows, time.perf_counter() - began)
            )
        if answer.error is not None and provider is not None:
            answer.is_partial = bool(worth_asking(missing, request, provider, now))
            answer.is_stale |= request.refresh
        answer.frame = joined(frames) if frames else await self._nothing(request, timeline)
        return True

    async def _nothing(self, request: Request, timeline: Timeline) -> pd.DataFrame:
        """Return no bars, with the columns of those that the series has elsewhere."""
        for segment in timeline:
            if segment.rows:
                frame = await self.segments.frame(request.series, segment)
                if frame is not None:
                    return frame.iloc[:0]
        return empty_bars(request.interval)

    async def _visible(self, series: Series, spans: Sequence[Span]) -> list[pd.DataFrame]:
        """Return what can be seen of stored bars; what is damaged cannot."""
        frames = []
        for span in spans:
            if span.segment is not None and span.segment.rows:
                frame = await self.segments.frame(series, span.segment)
                if frame is not None:
                    frames.append(rows_between(frame, span.start, span.end))
        return [frame for frame in frames if len(frame)]

    def _is_hot(self, request: Request, timeline: Timeline, provider: Provider, now: int) -> bool:
        """Whether something will expire soon and was asked for so often that nobody should wait for it."""
        if request.series in self._refreshing:
            return False
        count = self._requests[request.series]
        for span in timeline.lookup(*self._bounds(request, provider, now), now):
            if span.segment is not None:
                at = provider.freshness.refresh_at(
                    span.segment.fetched_at, span.segment.fresh_until, requests=count
                )
                if at is not None and now >= at:
                    return True
        return False

    async def _refresh_if_hot(self, request: Request, provider: Provider) -> None:
        timeline = await self.segments.timeline(request.series)
        now = self._clock.micros()
        if not self._is_hot(request, timeline, provider, now):
            return
        spans = timeline.lookup(*self._bounds(request, provider, now), now)
        soon = [span for span in spans if span.segment is not None and span.segment.fresh_until is not None]
        again = request.again(min(span.start for span in soon), max(span.end for span in soon))
        self._refreshing[request.series] = asyncio.create_task(self._refresh(again, provider))

    async def _refresh(self, request: Request, provider: Provider) -> None:
        """Fetch before it expires what is asked for often. A failure is for whoever asks when it has."""
        try:
            with contextlib.suppress(TradeCacheError):
                await self._fetch_needed(
                    Answer(request.series, empty_bars(request.interval)),
                    request,
                    provider,
                    self._clock.micros(),
                )
        finally:
            del self._refreshing[request.series]

    def _record(self, series: Series, tier: Tier, rows: int, seconds: float) -> None:
        self._telemetry.record("bars", f"bars {series.interval}", series.symbol, tier, rows, seconds)


class _Fetch:
    """One round of questions to a source, and the storing of its answers, while the series is held."""

    def __init__(
        self, segments: SegmentStore, request: Request, provider: Provider, clock: Clock, *, stamp: int
    ) -> None:
        self._segments = segments
        self._request = request
        self._provider = provider
        self._clock = clock
        self._stamp = stamp
        self.requests = 0
        self.rows = 0
        self.keys: set[str] = set()
        self.error: Exception | None = None

    async def all(self, ranges: Sequence[Range]) -> None:
        """Ask for ranges, the newest first; where one fails, the others are kept nevertheless."""
        is_open_ended = floor_searched(self._request, self._provider) and ranges[0][0] == BEGINNING
        oldest = ranges[:1] if is_open_ended else []
        outcomes = await asyncio.gather(
            *(self._one(*each) for each in reversed(ranges[len(oldest) :])), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                self._note(outcome)
        if oldest and self.error is None:
            try:
                await self._search_beginning(*oldest[0])
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
        outcome, bars = NO_TRADES, None
        self.requests += 1
        try:
            came = await provider.guard.fetch(request.series.symbol, *edges, request.interval.text)
        except NoBars as absence:
            outcome = absence.reason
        else:
            name = " ".join(request.series)
            bars = normal_bars(came, interval=request.interval, start=edges[0], end=edges[1], name=name)
        if bars is None or not len(bars):
            await self._keep(start, end, None, outcome, sent_at)
            return 0
        seen = min(end, _after(int(bars.index.asi8[-1]), request.interval))  # type: ignore[attr-defined]
        await self._keep(start, seen, bars, BARS, sent_at)
        await self._keep(seen, end, None, NO_TRADES, sent_at)
        self.rows += len(bars)
        return len(bars)

    async def _keep(
        self, start: int, end: int, bars: pd.DataFrame | None, outcome: str, sent_at: int
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
        if bars is not None:
            parts = _cut_between_bars(parts, bars, request.interval)
        for part in parts:
            piece = None if bars is None else rows_between(bars, part.start, part.end)
            has_rows = piece is not None and len(piece) > 0
            segment = await self._segments.put(
                request.series,
                part.start,
                part.end,
                frame=piece if has_rows else None,
                fetched_at=self._stamp,
                fresh_until=part.fresh_until,
                outcome=BARS if has_rows else NO_TRADES if outcome == BARS else outcome,
            )
            self.keys.add(segment.key)

    async def _search_beginning(self, start: int, end: int) -> None:
        """Ask for one piece after the other, backwards, until it has been quiet for long."""
        size = self._provider.max_range
        quiet = 0
        while end > start and quiet < QUIET:
            first = end if size is None else max(start, end - size)
            quiet = 0 if await self._one(first, end) else quiet + end - first
            end = first
        if end > start:
            await self._keep(start, end, None, BEFORE_LISTING, self._clock.micros())


def joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return frames, of which each begins after the one before it, as one."""
    with_rows = [frame for frame in frames if len(frame)] or list(frames[:1])
    return with_rows[0] if len(with_rows) == 1 else pd.concat(with_rows)


def _cut_between_bars(parts: Sequence[Verdict], bars: pd.DataFrame, interval: Interval) -> list[Verdict]:
    """Move the edges between parts to where a bar begins: a part of a bar is no use to anybody."""
    labels = bars.index.asi8  # type: ignore[attr-defined]  # of a DatetimeIndex
    moved: list[Verdict] = []
    for part in parts:
        start = moved[-1].end if moved else part.start
        last, following = (int(labels.searchsorted(part.end)) + step for step in (-1, 0))
        edge = part.end
        if part is not parts[-1] and last >= 0:
            edge = max(edge, _after(int(labels[last]), interval))
            edge = min(edge, *labels[following : following + 1].tolist(), parts[-1].end)
        if start < edge:
            moved.append(Verdict(start, edge, part.fresh_until))
    return moved


def _after(label: int, interval: Interval) -> int:
    """Return the first moment that the bar of a label does not speak for."""
    return label + interval.microseconds if interval.is_intraday else interval.next(label)


def _stamp(timeline: Timeline, now: int) -> int:
    """Return a moment for what is stored now that is later than that of everything before."""
    return max([now, *(segment.fetched_at + 1 for segment in timeline)])


def _has_rows(span: Span) -> bool:
    return span.segment is not None and span.segment.rows > 0


def _why(span: Span, provider: Provider | None) -> str:
    segment: Segment | None = span.segment
    if segment is None:
        return "not stored" if provider is None else "closed"
    return span.state if segment.outcome == BARS else f"{segment.outcome}, {span.state}"
