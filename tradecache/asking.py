"""What is asked of a source, and which ranges are worth a question? No I/O: each moment is an argument."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from tradecache.calendars import DAY, AlwaysOpen, Calendar, open_windows
from tradecache.errors import InvalidInput
from tradecache.intervals import MINUTE, Interval
from tradecache.ranges import Moment, first_moment, last_moment
from tradecache.segments import Series
from tradecache.timeline import Range, Span, Timeline, cut, merged, needed

if TYPE_CHECKING:
    from tradecache.freshness import Freshness
    from tradecache.sources.guard import Guard

BEGINNING = -2_208_988_800_000_000
"""1900-01-01: before every exchange's electronic records. What "from the beginning" means."""
SUPPOSED = "supposed"
"""An outcome: nobody has asked, but whoever wants all that there is need not search further for a while."""
FAR = 60 * DAY  # where to look for the first session before looking everywhere


class Request(NamedTuple):
    """What is asked of one series. Moments are microseconds: true UTC for intraday labels, else dates as if in UTC.

    Attributes:
        series: Whose bars.
        interval: How long a bar is.
        start: The first label; None: from the beginning.
        end: The first label after it; None: up to now.
        refresh: Whether to ask the source for all of it, fresh or not.
    """

    series: Series
    interval: Interval
    start: int | None = None
    end: int | None = None
    refresh: bool = False

    def again(self, start: int, end: int) -> "Request":
        """Return a request that asks anew for [start, end)."""
        return Request(self.series, self.interval, start, end, refresh=True)

    def stamp(self, moment: int) -> pd.Timestamp:
        """Return a moment as sources are given it: aware for intraday bars, else without a zone."""
        return pd.Timestamp(moment, unit="us", tz="UTC" if self.interval.is_intraday else None).as_unit("us")


class Provider(NamedTuple):
    """A source behind its guard, and what it says of one series.

    Attributes:
        guard: Whom to ask.
        freshness: Until when answers are fresh.
        calendar: When the market is open, as a hint.
        settle: How long after its close a bar may still change, in microseconds.
        merge_gap: Ranges that lie closer are asked for as one, in microseconds.
        max_range: The longest range of one question, in microseconds; None: no limit.
        window: How far back from now there are bars, in microseconds; None: no limit.
        first: The first label that there is; None: not known.
    """

    guard: "Guard"
    freshness: "Freshness"
    calendar: Calendar
    settle: int = 0
    merge_gap: int = 0
    max_range: int | None = None
    window: int | None = None
    first: int | None = None

    @classmethod
    def of(cls, guard: "Guard", freshness: "Freshness", calendar: Calendar, series: Series) -> "Provider":
        """Return what a source says of a series."""
        traits, interval = guard.traits, series.interval
        first = traits.first(series.symbol, interval)
        return cls(
            guard,
            freshness,
            calendar,
            settle=_micros(traits.settle),
            merge_gap=_micros(traits.merge_gap(interval)),
            max_range=_positive(traits.max_range(interval), "max_range"),
            window=_positive(traits.window(interval), "window"),
            first=None if first is None else label_of(pd.Timestamp(first)),
        )


class Look(NamedTuple):
    """What is known at one moment of what a request asks for. Without a provider nobody can be asked.

    Attributes:
        request: What is asked for.
        provider: Whom to ask; None: what is stored is all there is.
        timeline: What is stored.
        now: The moment.
    """

    request: Request
    provider: Provider | None
    timeline: Timeline
    now: int

    @property
    def bounds(self) -> Range:
        """The range that is meant, also where it has no beginning or no end of its own."""
        start, end = self.request.start, self.request.end
        begin, stop = self.timeline.extent
        is_empty = begin == stop
        if start is None:
            floor = begin if self.provider is None else floor_of(self.request, self.provider, self.now)
            start = floor if is_empty else min(floor, begin)
        if end is None:
            until = self._horizon
            end = until if is_empty or self.provider is not None else max(until, stop)
        return start, end

    def spans(self) -> list[Span]:
        """Return what is stored, and what is not, in order; somebody's own bars that have expired are not."""
        spans = self.timeline.lookup(*self.bounds, self.now)
        if self.provider is None and any(span.state == "stale" for span in spans):
            spans = self.timeline.without_stale(self.now).lookup(*self.bounds, self.now)
        return spans

    def to_ask(self, asked: "Look | None" = None) -> list[Range]:
        """Return the ranges to ask the source for: what is missing or stale, and worth a question.

        Args:
            asked: How it was when the request came: what was fetched since then is good enough.
        """
        if self.provider is None:
            return []
        start, end = self.bounds
        spans = self.timeline.lookup(start, min(end, self._horizon), self.now)
        wanted = needed(span for span in map(self._as_needed, spans) if not self._is_new(span, asked))
        return worth_asking(wanted, self.request, self.provider, self.now)

    def missing(self) -> list[Range]:
        """Return the ranges worth a question of which nothing at all is stored."""
        if self.provider is None:
            return []
        ranges = [(span.start, span.end) for span in self.spans() if span.segment is None]
        return worth_asking(ranges, self.request, self.provider, self.now)

    def is_newest(self, ranges: Sequence[Range]) -> bool:
        """Whether ranges lie after everything that is stored."""
        return all(start >= self.timeline.extent[1] for start, _ in ranges)

    def worth(self, span: Span) -> bool:
        """Whether a span is worth a question."""
        ranges = [(span.start, span.end)]
        return self.provider is not None and bool(worth_asking(ranges, self.request, self.provider, self.now))

    def why_not(self, span: Span) -> str:
        """Say why a span is not worth a question."""
        if span.start >= self._horizon:
            return "in the future"
        if self.provider is not None and span.end <= floor_of(self.request, self.provider, self.now):
            return "before the source begins"
        return "closed"

    def soon_stale(self, requests: int) -> list[Range]:
        """Return what should be fetched anew before it expires, after so many requests."""
        if self.provider is None:
            return []
        policy, due = self.provider.freshness, []
        for span in self.spans():
            if span.segment is not None and span.segment.outcome != SUPPOSED:
                times = span.segment.fetched_at, span.segment.fresh_until
                at = policy.refresh_at(*times, requests=requests)
                if at is not None and at <= self.now:
                    due.append((span.start, span.end))
        return merged(due)

    @property
    def _horizon(self) -> int:
        calendar = None if self.provider is None else self.provider.calendar
        return horizon(self.now, self.request.interval, calendar)

    def _as_needed(self, span: Span) -> Span:
        """Return a span as stale where all is to be asked for again, as missing where nobody has asked."""
        if span.segment is None:
            return span
        if self.request.refresh:
            return span._replace(state="stale")
        is_supposed = span.segment.outcome == SUPPOSED and self.request.start is not None
        return Span(span.start, span.end, "missing", None) if is_supposed else span

    @staticmethod
    def _is_new(span: Span, asked: "Look | None") -> bool:
        """Whether a span was fetched since it was asked for."""
        segment = span.segment
        return (
            segment is not None
            and asked is not None
            and (segment.oldest or segment.fetched_at) >= asked.now
            and not asked.timeline.has(segment.key)
        )


def labels_of(start: Moment | None, end: Moment | None, interval: Interval) -> tuple[int | None, int | None]:
    """Return the first label of a range and the first one after it; None where it has no such end.

    Both ends are included, and a date without a time is that whole day, as in pandas.

    Raises:
        InvalidInput: When an end is no moment, or the range ends before it starts.
    """
    first = None if start is None else _edge(start, interval, first_moment)
    if first is not None and not interval.is_intraday:
        first = first // DAY * DAY  # the date that it shows
    last = None if end is None else _edge(end, interval, last_moment)
    if first is not None and last is not None and last < first:
        raise InvalidInput("start", start, f"not after end, which is {end}")
    return (
        None if first is None else _ceil(first, interval),
        None if last is None else _ceil(last + 1, interval),
    )


def horizon(now: int, interval: Interval, calendar: Calendar | None) -> int:
    """Return a label that there cannot be yet: after the bar, or the session, that has begun.

    Of bars within a day it is a whole interval's, so that between two bars there is nothing new to ask for.
    """
    if interval.is_intraday:
        return interval.next(now)
    today = now // DAY * DAY
    begun = [] if calendar is None else calendar.sessions(today - DAY, today + 2 * DAY)
    latest = max([today, *(session.date for session in begun if session.open <= now)])
    return interval.next(latest)


def floor_of(request: Request, provider: Provider, now: int) -> int:
    """Return the first label that a source may have bars for."""
    floors = [BEGINNING]
    if provider.first is not None:
        floors.append(request.interval.floor(provider.first))
    if provider.window is not None:
        floors.append(_ceil(now - provider.window, request.interval))
    return max(floors)


def worth_asking(ranges: Iterable[Range], request: Request, provider: Provider, now: int) -> list[Range]:
    """Return what to ask for of ranges that are needed: what the source may have, as few questions as it allows.

    A calendar shortens a range to where it expects bars; one in which it expects none is left out.
    """
    first = floor_of(request, provider, now)
    last = horizon(now, request.interval, provider.calendar)
    within = [(max(start, first), min(end, last)) for start, end in ranges]
    traded = [
        _traded(start, end, request.interval, provider.calendar) for start, end in within if start < end
    ]
    whole = merged((each for each in traded if each), gap=provider.merge_gap)
    if provider.max_range is None:
        return whole
    if within and within[0][0] == first and floor_searched(request, provider):
        return [*whole[:1], *cut(whole[1:], provider.max_range)]
    cuts = cut(whole, provider.max_range)
    shortened = (_traded(*piece, request.interval, provider.calendar) for piece in cuts)
    return [piece for piece in shortened if piece]


def floor_searched(request: Request, provider: Provider) -> bool:
    """Whether a range without a beginning has to be searched backwards for where the source's bars begin."""
    return (
        request.start is None
        and provider.max_range is not None
        and provider.first is None
        and provider.window is None
    )


def label_of(moment: pd.Timestamp) -> int:
    """Return a timestamp as microseconds since the epoch, as if in UTC where it has no zone."""
    return int(moment.as_unit("us").to_datetime64().astype("int64"))


def _traded(start: int, end: int, interval: Interval, calendar: Calendar) -> Range | None:
    """Return a range from the first to the last moment at which a calendar expects bars; None for none."""
    if isinstance(calendar, AlwaysOpen):
        return start, end
    windows = None
    for near, far in ((min(end, start + FAR), max(start, end - FAR)), (end, start)):
        head = open_windows(start, near, interval, calendar)
        tail = head if far == start and near == end else open_windows(far, end, interval, calendar)
        if head and tail:
            windows = head[0][0], tail[-1][1]
            break
    return windows


def _edge(moment: Moment, interval: Interval, edge: Any) -> int:
    return (_shown_text if isinstance(moment, str) else _shown)(moment, interval, edge)


def _shown(moment: Moment, interval: Interval, edge: Any) -> int:
    """Return the edge of what names a moment: in true UTC for intraday labels, else the date that it shows."""
    if not interval.is_intraday:
        moment = _without_zone(moment)
    return label_of(pd.Timestamp(edge(moment)))


_shown_text = lru_cache(maxsize=1_000)(_shown)  # the same few texts are asked for again and again


def _without_zone(moment: Any) -> Any:
    try:
        stamp = pd.Timestamp(moment)
    except (ValueError, TypeError, OverflowError):
        return moment  # whoever reads it says what is wrong with it
    return moment if stamp.tz is None else stamp.tz_localize(None)


def _ceil(moment: int, interval: Interval) -> int:
    """Return the first moment, not before this one, at which a bar may begin."""
    if interval.is_intraday:
        return -(-moment // MINUTE) * MINUTE
    start = interval.floor(moment)
    return start if start == moment else interval.next(moment)


def _micros(length: pd.Timedelta) -> int:
    return length // pd.Timedelta(1, "us")


def _positive(length: pd.Timedelta | None, name: str) -> int | None:
    if length is not None and not length > pd.Timedelta(0):
        raise InvalidInput(f"source.{name}", length, "a positive length of time, or None")
    return None if length is None else _micros(length)
