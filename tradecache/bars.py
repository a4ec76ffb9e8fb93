"""How are bars answered: from memory, else from disk, else by asking the source for just what is needed?"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pandas as pd

from tradecache.asking import Look, Provider, Request
from tradecache.barframes import empty_bars, normal_bars
from tradecache.bridge import ended
from tradecache.clock import Clock, lifetime
from tradecache.errors import StoreError, StoreFault, TradeCacheError
from tradecache.fetching import Fetch, Fetched, end_of_bar
from tradecache.flights import Flights, Landing
from tradecache.intervals import Interval
from tradecache.segments import LOCAL, Part, SegmentStore, Series, count_between, joined, rows_between
from tradecache.shelving import Shelving
from tradecache.stores.sizes import owned
from tradecache.telemetry import HITS, SERVED_BY, Tier
from tradecache.timeline import BARS, Range, Span, Timeline
from tradecache.views import Views

ATTEMPTS = 5  # to read what was there a moment ago: it may be compacted meanwhile, or found damaged
NOT_STORED = "not stored"
SLOWEST_FIRST: tuple[Tier, ...] = ("source", "team", "disk", "memory")


NOTHING = pd.DataFrame()


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
        parts: Which parts of which segments its bars are.
        new: The bars that were fetched for it, by the keys of their segments.
    """

    series: Series
    frame: pd.DataFrame = field(default_factory=lambda: NOTHING)
    spans: list[Served] = field(default_factory=list)
    error: Exception | None = None
    is_partial: bool = False
    is_stale: bool = False
    requests: int = 0
    fetched: int = 0
    parts: list[Part] = field(default_factory=list)
    new: dict[str, Fetched] = field(default_factory=dict)

    def without_bars(self) -> "Answer":
        """Return what is known of the answer, without the bars themselves."""
        return replace(self, frame=NOTHING, parts=[], new={})

    @property
    def rows_served(self) -> int:
        """How many bars its spans have."""
        return sum(span.rows for span in self.spans)

    @property
    def cached(self) -> tuple[int, int, int]:
        """How many rows each of `HITS` had, where another tier had to give the others."""
        slowest = self.tier
        memory, disk, team = (
            sum(span.rows for span in self.spans if span.tier == tier) if tier != slowest else 0
            for tier in HITS
        )
        return memory, disk, team

    @property
    def tier(self) -> Tier:
        """The slowest tier that had a part in it.

        "memory" also where it is known that there are no bars, "none" where nothing is stored and nobody could
        be asked, "error" where bars are missing.
        """
        if self.is_partial:
            return "error"
        if self.requests and not self.is_stale:
            return "source"
        tiers = {span.tier for span in self.spans}
        known: Tier = "memory" if any(span.why != NOT_STORED for span in self.spans) else "none"
        return next((tier for tier in SLOWEST_FIRST if tier in tiers), known)


class BarBook:
    """Bars of many series, read through: what is covered and fresh is never asked for again."""

    def __init__(
        self,
        segments: SegmentStore,
        views: Views,
        flights: Flights,
        *,
        clock: Clock,
        shelving: Shelving,
    ) -> None:
        self._segments = segments
        self._shelving = shelving
        self._views = views
        self._flights = flights
        self._clock = clock
        self._requests: Counter[Series] = Counter()
        self._refreshing: dict[Series, asyncio.Task[None]] = {}

    async def answer(self, request: Request, provider: Provider | None) -> Answer:
        """Return the bars of one series in a range; without a provider, those that are stored.

        What the source could not give is in `error`; where older bars stand in for it, `is_stale` says so.
        """
        self._requests[request.series] += 1
        answer = Answer(request.series)
        first_look = await self._look(request, provider)
        for _ in range(ATTEMPTS):
            if answer.error is None:
                await self._fetch_needed(answer, first_look)
            if await self._read(answer, first_look):
                break
        else:
            raise StoreFault(self._segments.folder, "its segments come and go")
        if answer.error is None:
            await self._refresh_if_hot(request, provider)
        return answer

    async def plan(self, request: Request, provider: Provider) -> list[Range]:
        """Return the ranges that `answer` would ask the source for, in order."""
        return (await self._look(request, provider)).to_ask()

    def answers_at_once(self, request: Request, provider: Provider | None) -> bool:
        """Whether `answer` would wait neither for the source nor for the disk."""
        timeline = self._segments.known(request.series)
        if timeline is None or request.refresh or self._is_refreshing(request.series):
            return False
        look = Look(request, provider, timeline, self._clock.micros())
        if look.to_ask() or look.soon_stale(self._requests[request.series] + 1):
            return False
        keys = [key for *_, key in _parts(look.spans())]
        return bool(keys) and self._segments.holds_all(request.series, keys)

    async def store(
        self, series: Series, frame: pd.DataFrame, interval: Interval, *, ttl: float | None, copy: bool
    ) -> None:
        """Store bars of somebody's own. Where there is a bar of the same label already, the new one counts.

        Without a `copy` nobody may write to the frame's arrays until it returns.

        Raises:
            InvalidBars: Naming the rows that are no bars; nothing was stored.
        """
        zone = "UTC" if interval.is_intraday else None
        start, end = (pd.Timestamp(year, 12, 31, tz=zone) for year in (1, 9999))
        name = " ".join(series)
        bars = normal_bars(frame, interval=interval, start=start, end=end, name=name, copy=copy)
        if not len(bars):
            return
        async with self._flights.alone(series.collection):
            timeline = await self._segments.timeline(series)
            now = self._clock.micros()
            fetched_at = timeline.later_than_all(now)
            until = None if ttl is None else now + lifetime(ttl)
            for first, last in await self._runs(series, timeline, bars, interval):
                part = rows_between(bars, first, last)
                if not copy and self._segments.enters_memory(part):
                    part = owned(part)  # which may be written to later, and would be read
                if until is None:
                    await self._segments.append(series, first, last, frame=part, fetched_at=fetched_at)
                else:
                    await self._segments.put(
                        series, first, last, frame=part, fetched_at=fetched_at, fresh_until=until, ttl=ttl
                    )
            await self._segments.tidy(series)

    async def invalidate(self, series: Series, start: int | None, end: int | None) -> int:
        """Delete what is stored for [start, end); return how many bars could be seen there."""
        async with self._flights.alone(series.collection):
            timeline = await self._segments.timeline(series)
            extent = timeline.extent
            first, last = extent[0] if start is None else start, extent[1] if end is None else end
            frames = await self._visible(series, timeline, first, last)
            for segment in [each for each in timeline if each.start < last and first < each.end]:
                await self._segments.trim(series, segment, first, last)
        return sum(map(len, frames))

    async def close(self) -> None:
        """Stop what goes on in the background."""
        await ended(list(self._refreshing.values()))

    async def _look(self, request: Request, provider: Provider | None) -> Look:
        timeline = await self._segments.timeline(request.series)
        return Look(request, provider, timeline, self._clock.micros())

    async def _fetch_needed(self, answer: Answer, asked: Look) -> None:
        """Ask the source for what is missing or stale, unless somebody else has since it was `asked`."""
        request, provider = asked.request, asked.provider
        if provider is None or not (await self._look(request, provider)).to_ask(asked):
            return
        await asyncio.sleep(0)  # the locks need a loop, and `finish` has none
        try:
            async with self._flights.alone(request.series.collection) as landing:
                await self._fetch(answer, asked, provider, landing)
        except StoreError as error:  # what is stored can be handed out nevertheless
            answer.error = error

    async def _fetch(self, answer: Answer, asked: Look, provider: Provider, landing: Landing) -> None:
        request = asked.request
        look = await self._look(request, provider)
        ranges = look.to_ask(asked)
        answer.error = landing.failure(ranges) if ranges else None
        if not ranges or answer.error is not None:
            return
        fetch = Fetch(self._segments, request, provider, self._clock, look.timeline, self._shelving)
        await self._ask(fetch, ranges, asked)
        answer.requests += fetch.requests
        answer.fetched += fetch.rows
        answer.new |= fetch.new
        answer.error = fetch.error
        if fetch.error is None:
            self._requests[request.series] = 0
            landing.went_well()
        else:
            landing.failed(fetch.error, ranges)
        await self._segments.tidy(request.series)

    async def _ask(self, fetch: Fetch, ranges: Sequence[Range], asked: Look) -> None:
        """Ask shelves, and the source for what is still needed then: no other machine at the same time."""
        if not self._shelving:
            await fetch.all(ranges)
            return
        left = await self._not_on_shelves(fetch, ranges, asked)
        if not left:
            return
        async with self._shelving.alone(asked.request.series):
            left = await self._not_on_shelves(fetch, left, asked)  # where another has put it meanwhile
            if left:
                await fetch.all(left)
                await fetch.to_shelves()

    async def _not_on_shelves(self, fetch: Fetch, ranges: Sequence[Range], asked: Look) -> Sequence[Range]:
        """Return the ranges to ask the source for once what shelves know is stored."""
        if asked.request.refresh or not await fetch.from_shelves(ranges):
            return ranges
        return (await self._look(asked.request, asked.provider)).to_ask(asked)

    async def _read(self, answer: Answer, asked: Look) -> bool:
        """Read what is stored; return whether that is all there should be."""
        look = await self._look(asked.request, asked.provider)
        spans = look.spans()
        answer.parts = _parts(spans)
        whole = self._remembered(answer)
        is_complete, frames = True, []
        answer.spans = []
        for span in spans:
            began = time.perf_counter()
            tier: Tier = "none"
            rows = 0
            if _has_rows(span):
                tier, frame = ("memory", whole) if whole is not None else await self._bars_of(answer, span)
                if frame is None:
                    is_complete = False
                    continue
                rows = _count(span, frame)
                if whole is None:
                    frames.append(rows_between(frame, span.start, span.end))
            why = _why(span, look, answer.error)
            seconds = time.perf_counter() - began
            if span.segment is not None and span.segment.key in answer.new:
                seconds += answer.new[span.segment.key].seconds
            answer.spans.append(Served(span.start, span.end, tier, why, rows, seconds))
        if not is_complete or (answer.error is None and look.to_ask(asked)):
            return False
        if answer.error is not None:
            missing = look.missing()
            is_behind = asked.request.end is None and bool(answer.rows_served) and look.is_newest(missing)
            answer.is_partial = bool(missing) and not is_behind
            answer.is_stale = bool(look.to_ask(asked)) and not answer.is_partial
        if whole is None:
            whole = self._joined(answer, frames) if frames else await self._nothing(look)
        answer.frame = whole
        return True

    def _remembered(self, answer: Answer) -> pd.DataFrame | None:
        """Return the bars of several segments as one, if they were put together before and are in memory."""
        several = len(answer.parts) > 1
        return self._views.get(answer.series.collection, answer.parts) if several else None

    def _joined(self, answer: Answer, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
        """Return frames as one, which memory keeps if there were several."""
        whole = joined(frames)
        if len(frames) > 1:
            self._views.keep(answer.series.collection, answer.parts, whole)
        return whole

    async def _bars_of(self, answer: Answer, span: Span) -> tuple[Tier, pd.DataFrame | None]:
        segment = span.segment
        if segment is None:
            return "none", None
        if segment.key in answer.new:
            new = answer.new[segment.key]
            return new.tier, new.bars
        frame = await self._segments.frame(answer.series, segment)
        return SERVED_BY.get(), frame

    async def _nothing(self, look: Look) -> pd.DataFrame:
        """Return no bars, with the columns of those that the series has elsewhere."""
        for segment in look.timeline:
            if segment.rows and segment.state(look.now) != "stale":
                frame = await self._segments.frame(look.request.series, segment)
                if frame is not None:
                    return frame.iloc[:0]
        return empty_bars(look.request.interval)

    async def _visible(self, series: Series, timeline: Timeline, start: int, end: int) -> list[pd.DataFrame]:
        """Return what can be seen of stored bars; what is damaged, or somebody's own and expired, cannot."""
        now = self._clock.micros()
        if series.source == LOCAL:
            timeline = timeline.without_stale(now)
        frames = []
        for span in timeline.lookup(start, end, now):
            if span.segment is not None and span.segment.rows:
                frame = await self._segments.frame(series, span.segment)
                if frame is not None:
                    frames.append(rows_between(frame, span.start, span.end))
        return [frame for frame in frames if len(frame)]

    async def _runs(
        self, series: Series, timeline: Timeline, bars: pd.DataFrame, interval: Interval
    ) -> list[Range]:
        """Return the ranges that new bars speak for: between them lie older ones, which stay."""
        labels = bars.index.asi8  # type: ignore[attr-defined]  # of a DatetimeIndex
        first, last = int(labels[0]), end_of_bar(int(labels[-1]), interval)
        older = await self._visible(series, timeline, first, last)
        if not older:
            return [(first, last)]
        index = joined(older).index
        others = index[~index.isin(bars.index)].asi8  # type: ignore[attr-defined]
        places = others.searchsorted(labels)
        starts = [0, *((places[1:] != places[:-1]).nonzero()[0] + 1).tolist()]
        ends = [*starts[1:], len(labels)]
        nexts = [*others.tolist(), last]
        return [
            (int(labels[a]), min(end_of_bar(int(labels[b - 1]), interval), nexts[places[a]]))
            for a, b in zip(starts, ends, strict=True)
        ]

    async def _refresh_if_hot(self, request: Request, provider: Provider | None) -> None:
        """Begin to fetch what expires soon, if it is asked for so often that nobody should wait for it."""
        if provider is None or self._is_refreshing(request.series):
            return
        soon = (await self._look(request, provider)).soon_stale(self._requests[request.series])
        if soon:
            await asyncio.sleep(0)  # a task needs a loop, and `finish` has none
            refreshing = self._refresh(request, soon, provider)
            self._refreshing[request.series] = asyncio.create_task(refreshing)

    async def _refresh(self, request: Request, ranges: Sequence[Range], provider: Provider) -> None:
        """Fetch before it expires what is asked for often. A failure is for whoever asks when it has."""
        with contextlib.suppress(TradeCacheError):
            for start, end in ranges:
                again = await self._look(request.again(start, end), provider)
                await self._fetch_needed(Answer(request.series), again)

    def _is_refreshing(self, series: Series) -> bool:
        """Whether a series is fetched in the background: not by a loop that has ended, or was the parent's."""
        task = self._refreshing.get(series)
        return task is not None and not task.done() and task.get_loop().is_running()


def _parts(spans: Sequence[Span]) -> list[Part]:
    """Return from when to when each segment that has bars is seen."""
    return [(span.start, span.end, span.segment.key) for span in spans if span.segment and span.segment.rows]


def _has_rows(span: Span) -> bool:
    return span.segment is not None and span.segment.rows > 0


def _count(span: Span, frame: pd.DataFrame) -> int:
    """Count the bars of a span, of which a frame has at least those."""
    segment = span.segment
    if segment is not None and (segment.start, segment.end) == (span.start, span.end):
        return segment.rows
    return count_between(frame, span.start, span.end)


def _why(span: Span, look: Look, error: Exception | None) -> str:
    """Say why a span was, or was not, served as it was."""
    if span.segment is not None:
        return span.state if span.segment.outcome == BARS else f"{span.segment.outcome}, {span.state}"
    if look.provider is None:
        return NOT_STORED
    if error is not None and look.worth(span):
        return f"failed: {type(error).__name__}"
    return look.why_not(span)
