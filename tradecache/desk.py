"""How are the bars of many symbols asked for at once, and of whom?"""

import asyncio
import contextlib
import logging
from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import pandas as pd

from tradecache import provenance
from tradecache.asking import Provider, Request, labels_of
from tradecache.barframes import empty_bars
from tradecache.bars import Answer, BarBook
from tradecache.bridge import in_thread
from tradecache.calendars import ALWAYS_OPEN, Calendar, calendar_named, open_windows
from tradecache.clock import TTL, Clock, checked_ttl
from tradecache.errors import InvalidInput, MissingDependency, UnknownSymbol
from tradecache.flights import Flights
from tradecache.intervals import interval_of
from tradecache.layouts import Layout, OnError
from tradecache.models import checked_symbol
from tradecache.naming import bars_dataset
from tradecache.provenance import Covered
from tradecache.ranges import Moment
from tradecache.segments import LOCAL, SegmentStore, Series
from tradecache.shelving import Shelving
from tradecache.stack import Stack
from tradecache.stores.local import LocalStore
from tradecache.telemetry import Telemetry, Timed, Together
from tradecache.timeline import Span, clipped
from tradecache.views import Views

if TYPE_CHECKING:
    from tradecache.freshness import Freshness
    from tradecache.settings import Settings
    from tradecache.sources.base import Source
    from tradecache.sources.budget import Budget, Budgets
    from tradecache.sources.guard import Guard

log = logging.getLogger("tradecache")


class BarDesk:
    """Bars of one or many symbols from the sources that a cache knows.

    Args:
        stack: Where bars are kept.
        clock: What time it is.
        telemetry: Where requests are counted.
        source: Whom to ask where a call names nobody; None: nobody.
        freshness: Until when answers are fresh.
        shelving: Shared places of final bars, asked before a source; None: there are none.
        settings: With whom requests to sources are counted together; None: with nobody.

    Raises:
        InvalidInput: For what is no source, or no policy.
    """

    def __init__(
        self,
        stack: Stack,
        *,
        clock: Clock,
        telemetry: Telemetry,
        source: Any = None,
        freshness: "Freshness | None" = None,
        shelving: Shelving | None = None,
        settings: "Settings | None" = None,
    ) -> None:
        is_policy = callable(getattr(freshness, "verdict", None)) and not isinstance(freshness, type)
        if freshness is not None and not is_policy:
            raise InvalidInput("freshness", freshness, "a policy such as tradecache.freshness.BarClose()")
        self._stack = stack
        self._segments = SegmentStore(stack)
        self.views = Views(stack)
        """What was put together before."""
        self._clock = clock
        self._telemetry = telemetry
        self._freshness = freshness
        self.shelving = shelving or Shelving([])
        """Shared places of final bars."""
        self._settings = settings
        self._budgets: Budgets | None = None
        self._guards: dict[Any, tuple[Any, Guard]] = {}
        self._providers: dict[tuple[Series, Guard], Provider] = {}
        self._calendars: dict[str, Calendar] = {}
        self._source = source
        self._book: BarBook | None = None
        self.last: list[Answer] = []
        """The answers of the last call, of whichever thread."""
        if source is not None:
            self._guard(source)

    @property
    def source_name(self) -> str:
        """The name under which bars are kept where a call names no source."""
        return self._named(None)

    @property
    def book(self) -> BarBook:
        """The bars of single series."""
        if self._book is None:
            flights = Flights(self._segments.folder / "locks", sealed=self._stack.sealed)
            self._book = BarBook(
                self._segments, self.views, flights, clock=self._clock, shelving=self.shelving
            )
        return self._book

    def requests(
        self,
        symbols: Iterable[str],
        start: Moment | None,
        end: Moment | None,
        *,
        interval: str,
        source: Any = None,
        refresh: bool = False,
        layout: Layout = "wide",
        on_error: OnError = "warn",
    ) -> list[Request]:
        """Return what is asked of each symbol.

        Raises:
            InvalidInput: For an interval, a range, a source or a choice that cannot be.
        """
        _check_choice("layout", layout, Layout)
        _check_choice("on_error", on_error, OnError)
        kind = interval_of(interval)
        first, last = labels_of(start, end, kind)
        name = self._named(source)
        return [
            Request(Series(name, checked_symbol(symbol), kind.text), kind, first, last, refresh)
            for symbol in symbols
        ]

    async def answers(
        self, requests: Sequence[Request], *, source: Any = None, allow_stale: bool = True
    ) -> list[Answer]:
        """Answer several requests; what goes wrong with one is its answer's `error`."""
        if self.answers_at_once(requests, source=source):
            return await self.answers_in_turn(requests, source=source, allow_stale=allow_stale)
        await asyncio.sleep(0)  # tasks need a loop, and `finish` has none
        work = (self._answer(request, source, allow_stale=allow_stale) for request in requests)
        return self._noted(await asyncio.gather(*work))

    async def answers_in_turn(
        self, requests: Sequence[Request], *, source: Any = None, allow_stale: bool = True
    ) -> list[Answer]:
        """Answer several requests as `answers` does, without giving way to anybody if all `answers_at_once`."""
        with Together() as together:  # where one turns out to wait, all of them are asked again
            return self._noted(
                [
                    await self._answer(request, source, allow_stale=allow_stale, together=together)
                    for request in requests
                ]
            )

    def _noted(self, answers: list[Answer]) -> list[Answer]:
        self.last = [each.without_bars() for each in answers]  # with them more is in memory than may be
        return answers

    def answers_at_once(self, requests: Sequence[Request], *, source: Any = None) -> bool:
        """Whether everything that is asked for is in memory, and fresh."""
        for request in requests:
            provider = self._known_provider(request.series, source)
            if provider is None and request.series.source != LOCAL:
                return False
            if not self.book.answers_at_once(request, provider):
                return False
        return True

    async def warm(self, request: Request, *, source: Any = None) -> Answer:
        """Answer one request as `answers` does, and count it as a warm-up."""
        return await self._answer(request, source, operation="warm")

    async def may_have(self, request: Request) -> bool:
        """Whether there can be bars: stores that were passed in cannot list which ones they have."""
        if not isinstance(self._stack.durable, LocalStore):
            return False
        return request.series.source != LOCAL or len(await self._segments.timeline(request.series)) > 0

    async def plan(self, requests: Sequence[Request], *, source: Any = None) -> pd.DataFrame:
        """Return which requests a call would send, one to a row."""
        plans = []
        for request in requests:
            provider = await self._provider(request.series, source)
            ranges = [] if provider is None else await self.book.plan(request, provider)
            plans.append((request.series, ranges))
        return provenance.plan_frame(plans)

    async def store(
        self, symbol: str, frame: pd.DataFrame, *, interval: str, ttl: TTL | None = None, copy: bool = True
    ) -> None:
        """Store bars of the user's own, under the source "local".

        Without a `copy` nobody may write to the frame's arrays until it returns.
        """
        kind = interval_of(interval)
        series = Series(LOCAL, checked_symbol(symbol), kind.text)
        await self.book.store(series, frame, kind, ttl=checked_ttl(ttl), copy=copy)

    async def invalidate(
        self,
        symbols: Sequence[str] | None,
        start: Moment | None,
        end: Moment | None,
        *,
        interval: str | None,
        source: Any = None,
    ) -> dict[str, int]:
        """Delete what is stored of some symbols in a range; return how many bars that were, by symbol.

        Bars of the cache's own source, unless another one is named.
        """
        counts: dict[str, int] = {}
        whose = source if source is not None else self._source or LOCAL
        for series in await self._stored(symbols, interval, whose):
            kind = interval_of(series.interval)
            gone = await self.book.invalidate(series, *labels_of(start, end, kind))
            counts[series.symbol] = counts.get(series.symbol, 0) + gone
        return counts

    async def intervals(self, symbols: Sequence[str]) -> list[str]:
        """Return the intervals of which bars of some symbols are stored."""
        if not isinstance(self._stack.durable, LocalStore):
            return []
        return sorted({series.interval for series in await self._stored(symbols, None, None)})

    async def coverage(
        self,
        symbols: Sequence[str] | None,
        start: Moment | None,
        end: Moment | None,
        *,
        interval: str | None,
        source: Any = None,
    ) -> pd.DataFrame:
        """Return in which state each span of some series is."""
        spans: list[Covered] = []
        for series in await self._stored(symbols, interval, source):
            spans += await self._covered(series, start, end)
        return provenance.coverage_frame(spans)

    def explain(self) -> pd.DataFrame:
        """Return where the last answers came from."""
        return provenance.explain_frame(self.last)

    def failures(self) -> pd.DataFrame:
        """Return what was wrong with the last answers."""
        return provenance.failures_frame(self.last)

    def source_requests(self) -> dict[str, int]:
        """Return how often each source was asked, retries included, by its name."""
        counts: dict[str, int] = {}
        for _, guard in list(self._guards.values()):  # another thread may bring another source
            counts[guard.source.name] = counts.get(guard.source.name, 0) + guard.requests
        return counts

    async def close(self) -> None:
        """Stop what goes on in the background, and let go of the sources."""
        async with contextlib.AsyncExitStack() as parts:  # each is let go of, whatever becomes of the others
            if self._budgets is not None:
                parts.push_async_callback(self._budgets.close)
            parts.push_async_callback(self.shelving.close)
            for _, guard in self._guards.values():
                parts.push_async_callback(guard.close)
            parts.callback(self._segments.forget)
            if self._book is not None:
                await self._book.close()

    async def _answer(
        self,
        request: Request,
        source: Any,
        *,
        operation: str = "bars",
        allow_stale: bool = True,
        together: Together | None = None,
    ) -> Answer:
        """Answer one request, and count it."""
        series = request.series
        dataset = bars_dataset(series.interval)
        with Timed(self._telemetry, operation, dataset, series.symbol, together=together) as timed:
            answer = await self._answer_or_error(request, source)
            answer.is_partial |= answer.is_stale and not allow_stale
            rows, columns = answer.frame.shape
            if answer.is_partial:  # and nothing of it is handed out
                timed.served("error", rows=0)
            else:
                timed.served(
                    answer.tier, rows=rows, columns=columns, is_stale=answer.is_stale, cached=answer.cached
                )
        return answer

    async def _answer_or_error(self, request: Request, source: Any) -> Answer:
        try:
            if source is None and self._source is None:
                await self._check_stored(request.series)
            return await self.book.answer(request, await self._provider(request.series, source))
        except Exception as error:  # noqa: BLE001 - it is the answer's, and one of many must not end the others
            return Answer(request.series, empty_bars(request.interval), error=error, is_partial=True)

    async def _check_stored(self, series: Series) -> None:
        """Raise UnknownSymbol where nobody can be asked, and nothing is stored: somebody forgot to name a source."""
        now = self._clock.micros()
        if all(segment.state(now) == "stale" for segment in await self._segments.timeline(series)):
            raise UnknownSymbol(series.symbol, source=LOCAL, reason=await self._why_none(series))

    async def _why_none(self, series: Series) -> str:
        """Say why there are no bars without a source, and under which one there are some."""
        stored = await self._segments.series()
        others = [repr(each.source) for each in stored if each[1:] == series[1:] and each.source != LOCAL]
        if others:
            return f"its bars are stored under the source {' and '.join(others)}, to name with source="
        return "none of its bars are stored, and the cache has no source= to ask"

    def _named(self, source: Any) -> str:
        chosen = self._source if source is None else source
        return LOCAL if chosen is None or chosen == LOCAL else self._guard(chosen).source.name

    def _guard(self, source: Any) -> "Guard":
        # by its id where it has no hash; a bound method is another object with each look, but an equal one
        key = source if isinstance(source, Hashable) else id(source)
        if key not in self._guards:
            from tradecache.sources.catalog import as_source  # where there is a source, for what it costs
            from tradecache.sources.guard import Guard

            asked = as_source(source)
            # with the source itself, so that its id is not given again
            self._guards[key] = source, Guard(asked, budget=self._budget(asked))
        return self._guards[key][1]

    def _budget(self, source: "Source") -> "Budget | None":
        """Return where the requests to a source are counted."""
        if self._settings is None:
            return None
        if self._budgets is None:
            from tradecache.sources.budget import Budgets

            self._budgets = Budgets.configured(self._settings)
        return self._budgets.of(source)

    def _chosen_guard(self, source: Any) -> "Guard":
        return self._guard(self._source if source is None else source)

    def _known_provider(self, series: Series, source: Any) -> Provider | None:
        if series.source == LOCAL:
            return None
        return self._providers.get((series, self._chosen_guard(source)))

    async def _provider(self, series: Series, source: Any) -> Provider | None:
        """Return the source of a series, and what it says of it; None for the user's own bars."""
        if series.source == LOCAL:
            return None
        guard = self._chosen_guard(source)
        found = self._providers.get((series, guard))
        if found is None:
            calendar = await self._calendar(guard.traits.calendar_for(series.symbol))
            found = Provider.of(guard, self._policy, calendar, series)
            self._providers[series, guard] = found
        return found

    @cached_property
    def _policy(self) -> "Freshness":
        """Until when answers are fresh."""
        if self._freshness is not None:
            return self._freshness
        from tradecache.freshness import BarClose

        return BarClose()

    async def _calendar(self, name: str | None) -> Calendar:
        """Return a market's calendar, without which it is taken as always open."""
        if name is None:
            return ALWAYS_OPEN
        if name not in self._calendars:
            try:
                self._calendars[name] = await in_thread(calendar_named, name)
            except MissingDependency as missing:
                log.info("%s; until then %s is taken as always open", missing, name)
                self._calendars[name] = ALWAYS_OPEN
        return self._calendars[name]

    async def _stored(self, symbols: Sequence[str] | None, interval: str | None, source: Any) -> list[Series]:
        """Return the stored series that are meant."""
        kind = None if interval is None else interval_of(interval).text
        stored = await self._segments.series()
        is_name = isinstance(source, str) and any(series.source == source for series in stored)
        name = source if source is None or is_name else self._named(source)
        return [
            series
            for series in stored
            if (symbols is None or series.symbol in symbols)
            and kind in {None, series.interval}
            and name in {None, series.source}
        ]

    async def _covered(self, series: Series, start: Moment | None, end: Moment | None) -> list[Covered]:
        kind = interval_of(series.interval)
        timeline = await self._segments.timeline(series)
        first, last = labels_of(start, end, kind)
        begin, stop = timeline.extent
        found = timeline.lookup(
            begin if first is None else first, stop if last is None else last, self._clock.micros()
        )
        calendar = await self._calendar_of(series)
        return [await self._state(series, span, calendar) for span in found]

    async def _state(self, series: Series, span: Span, calendar: Calendar) -> Covered:
        segment = span.segment
        if segment is None:
            windows = open_windows(span.start, span.end, interval_of(series.interval), calendar)
            state = "missing" if clipped([(span.start, span.end)], windows) else "closed"
            return Covered(series, span.start, span.end, state, "", 0, 0, None, None)
        rows = await self._segments.rows_in(series, segment, span.start, span.end)
        size = segment.size * rows // segment.rows if segment.rows else 0
        times = segment.fetched_at, segment.fresh_until
        return Covered(series, span.start, span.end, span.state, segment.outcome, rows, size, *times)

    async def _calendar_of(self, series: Series) -> Calendar:
        """Return the calendar of a series, as far as its source is known here."""
        known = next((each.calendar for (one, _), each in self._providers.items() if one == series), None)
        if known is None and self._source is not None and self._named(None) == series.source != LOCAL:
            provider = await self._provider(series, None)
            known = None if provider is None else provider.calendar
        return known or ALWAYS_OPEN


def _check_choice(name: str, value: object, choices: Any) -> None:
    """Raise InvalidInput unless `value` is one of a Literal's."""
    if value not in get_args(choices):
        raise InvalidInput(name, value, f"one of {', '.join(map(repr, get_args(choices)))}")
