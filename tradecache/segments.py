"""How are the answers of a source kept as entries of the stack, and which ones does a series have?"""

import logging
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import quote, unquote

import pandas as pd
from pydantic_core import from_json

from tradecache.errors import EntryTooLarge, NotEnumerable, NotStorable
from tradecache.naming import OF_BARS
from tradecache.stack import Stack
from tradecache.stores.abilities import Ordered
from tradecache.stores.local import LocalStore
from tradecache.stores.sizes import bytes_of_arrays, owned
from tradecache.stores.values import FRAME
from tradecache.timeline import Segment, Timeline

LOCAL = "local"
"""The source of a user's own bars, a name which no other source may have."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LEVELS = (256, 4_096, 65_536, 1_048_576)  # rows: small neighbours are put together up to these, in turn
AT_LEAST = 16  # segments of a level before they are put together, so that each row is copied once a level
HIDDEN = 4  # overshadowed segments before they are deleted
GAP = 7 * 86_400_000_000  # microseconds between two of somebody's own bars, as over a holiday
GROWN_BYTES = 1 << 16  # of the largest segment that is written anew when bars come that follow it
MANY_SERIES = 100  # whose segments last written anew are at hand, beside the memory tier

log = logging.getLogger("tradecache")


Part = tuple[int, int, str]
"""From when to when, of which segment."""


class Series(NamedTuple):
    """What bars are of: a source's name, a symbol, an interval."""

    source: str
    symbol: str
    interval: str

    @property
    def collection(self) -> str:
        """The name of the collection that holds its segments."""
        return _collection(self)

    @classmethod
    def of(cls, collection: str) -> Self:
        """Return the series that a collection holds."""
        return cls(*(unquote(part) for part in collection.removeprefix(OF_BARS).split("/")))


class SegmentStore:
    """The segments of every series: entries that are written once and never changed.

    What a series has is remembered as a timeline until another process writes to the folder.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._timelines: dict[Series, tuple[int, Timeline]] = {}
        self._grown: dict[Series, tuple[str, pd.DataFrame]] = {}
        """Key and bars of the segment last appended to, never handed out."""

    @property
    def folder(self) -> Path:
        """The folder of the durable store."""
        return self._store().folder

    async def timeline(self, series: Series) -> Timeline:
        """Return the timeline of a series.

        Raises:
            NotEnumerable: When the durable store cannot list its keys in order.
        """
        store = self._store()
        epoch = store.foreign_commits()
        known = self._timelines.get(series)
        if known is not None and known[0] == epoch:
            return known[1]
        entries = await self._stack.retrying.call(self._listed().scan, series.collection)
        timeline = Timeline(segment for entry in entries if (segment := _segment(entry.key, entry.value)))
        self._timelines[series] = (epoch, timeline)
        return timeline

    def known(self, series: Series) -> Timeline | None:
        """Return the timeline of a series if it is at hand without looking into the store."""
        found = self._timelines.get(series)
        return found[1] if found is not None and found[0] == self._store().foreign_commits() else None

    def forget(self) -> None:
        """Let go of what is at hand."""
        self._timelines.clear()
        self._grown.clear()

    async def series(self) -> list[Series]:
        """Return every series that has segments, in order."""
        names = await self._stack.retrying.call(self._listed().collections)
        return sorted(
            Series.of(name)
            for name in names
            if name.startswith(OF_BARS) and name.count("/") == len(Series._fields)
        )

    async def put(
        self,
        series: Series,
        start: int,
        end: int,
        *,
        frame: pd.DataFrame | None,
        fetched_at: int,
        fresh_until: int | None,
        outcome: str = "bars",
        ttl: float | None = None,
        oldest: int | None = None,
    ) -> Segment:
        """Store one answer for [start, end), and return its segment.

        Args:
            series: Whose it is.
            start: The first moment it covers.
            end: The first moment after it.
            frame: Its bars; None, or a frame without rows, when there are none.
            fetched_at: When they were fetched.
            fresh_until: When to ask again; None: never.
            outcome: "bars", or why there are none.
            ttl: Seconds until it is forgotten; None: never.
            oldest: When the oldest of its parts was fetched, where it was put together.
        """
        key = f"{_named(start)}_{_named(end)}.{secrets.token_hex(6)}"
        if frame is not None and not len(frame):
            frame = None
        rows, size = (0, 0) if frame is None else (len(frame), bytes_of_arrays(frame))
        segment = Segment(start, end, fetched_at, fresh_until, key, outcome, rows, size, oldest)
        value: dict[str, Any] = segment._asdict()
        del value["key"]
        if frame is not None:
            value[FRAME] = frame
        await self._stack.frames.put(key, value, collection=series.collection, ttl=ttl)
        self._changed(series, added=[segment])
        return segment

    async def append(
        self, series: Series, start: int, end: int, *, frame: pd.DataFrame, fetched_at: int
    ) -> None:
        """Store final bars for [start, end), together with those before them where these are few.

        So bars that come one by one are not read one by one. The segment in whose place the new one comes is
        overshadowed, and agrees; `tidy` deletes it in time.
        """
        before = (await self.timeline(series)).final_before(start, gap=_gap(series))
        if before is not None and 0 < before.rows <= LEVELS[0] - len(frame) and before.size <= GROWN_BYTES:
            with suppress(NotStorable, EntryTooLarge):  # which the new ones alone may not be
                if await self._grow(series, before, end, frame, fetched_at):
                    return
        await self.put(series, start, end, frame=frame, fetched_at=fetched_at, fresh_until=None)

    async def _grow(
        self, series: Series, before: Segment, end: int, frame: pd.DataFrame, fetched_at: int
    ) -> bool:
        """Store the bars of a segment and those that follow as one; return whether they go together."""
        key, older = self._grown.pop(series, ("", None))
        if key != before.key:
            older = await self._stored(series, before)
        if older is None or not are_alike([older, frame]):
            return False
        whole = pd.concat([older, frame])
        segment = await self.put(
            series, before.start, end, frame=owned(whole), fetched_at=fetched_at, fresh_until=None,
            oldest=before.oldest or before.fetched_at,
        )  # fmt: skip
        if len(self._grown) >= MANY_SERIES:
            self._grown.pop(next(iter(self._grown)), None)
        if segment.size <= GROWN_BYTES:
            self._grown[series] = segment.key, whole
        return True

    async def frame(self, series: Series, segment: Segment) -> pd.DataFrame | None:
        """Return the bars of a segment that has some; None when it is gone, which makes its range missing."""
        value = await self._stack.frames.get(segment.key, collection=series.collection)
        if value is None:
            self._changed(series, removed=[segment.key])
            return None
        frame: pd.DataFrame = value[FRAME]
        return frame

    async def rows_in(self, series: Series, segment: Segment, start: int, end: int) -> int:
        """Count the bars that a segment has in [start, end)."""
        if not segment.rows or (start <= segment.start and segment.end <= end):
            return segment.rows
        frame = await self.frame(series, segment)
        return 0 if frame is None else count_between(frame, start, end)

    def enters_memory(self, frame: pd.DataFrame) -> bool:
        """Whether memory has the bars of a segment from when they are stored, and not from their first read."""
        return self._stack.tiers.enters_memory(frame)

    def holds_all(self, series: Series, keys: Iterable[str]) -> bool:
        """Whether memory has the bars of all these segments."""
        return self._stack.tiers.holds_all(keys, collection=series.collection)

    async def trim(self, series: Series, segment: Segment, start: int, end: int) -> None:
        """Delete what a segment says of [start, end): what is left of it is stored first, then it is deleted."""
        value, ttl = await self._stack.frames.ttl(segment.key, collection=series.collection)
        frame = None if value is None else value.get(FRAME)
        for first, last in ((segment.start, min(start, segment.end)), (max(end, segment.start), segment.end)):
            if first < last and value is not None:
                await self.put(
                    series,
                    first,
                    last,
                    frame=None if frame is None else rows_between(frame, first, last),
                    fetched_at=segment.fetched_at,
                    fresh_until=segment.fresh_until,
                    outcome=segment.outcome,
                    ttl=ttl,
                )
        await self.remove(series, [segment.key])

    async def remove(self, series: Series, keys: Sequence[str]) -> None:
        """Delete segments by their keys."""
        await self._stack.frames.delete_many(keys, collection=series.collection)
        self._changed(series, removed=keys)

    async def tidy(self, series: Series) -> None:
        """Delete segments of which nothing is seen, and put small final neighbours together.

        The merged segment is stored before those in its place are deleted: a crash in between leaves both,
        which agree. Nobody else may write to the series meanwhile (see `Flights`), or an answer that
        arrives between plan and put would be overshadowed.
        """
        timeline = await self.timeline(series)
        if len(timeline) >= HIDDEN:
            await self._remove_hidden(series, timeline)
        if len(timeline) < AT_LEAST:
            return
        for level in LEVELS:
            timeline = await self.timeline(series)
            for run in timeline.compactions(max_rows=level, at_least=AT_LEAST, gap=_gap(series)):
                await self._put_together(series, run)

    async def _remove_hidden(self, series: Series, timeline: Timeline) -> None:
        """Delete segments of which nothing is seen, nor will be when somebody's own bars have expired."""
        if series.source == LOCAL:
            timeline = Timeline(segment for segment in timeline if segment.fresh_until is None)
        hidden = [segment.key for segment in timeline.overshadowed()]
        if len(hidden) >= HIDDEN:
            await self.remove(series, hidden)

    async def _put_together(self, series: Series, run: Sequence[Segment]) -> None:
        frames = [await self._stored(series, segment) for segment in run if segment.rows]
        parts = [frame for frame in frames if frame is not None]
        if len(parts) < len(frames) or not are_alike(parts):
            return  # one is damaged, and will be fetched again, or they would become others than they are
        try:
            await self.put(
                series,
                run[0].start,
                run[-1].end,
                frame=pd.concat(parts) if parts else None,
                fetched_at=max(segment.fetched_at for segment in run),
                oldest=min(segment.oldest or segment.fetched_at for segment in run),
                fresh_until=None,
                outcome="bars" if parts else run[0].outcome,
            )
        except (NotStorable, EntryTooLarge) as error:  # a column that is text in one and a number in another
            log.info("%s: neighbours stay apart (%s)", series.collection, error)
            return
        await self.remove(series, [segment.key for segment in run])

    async def _stored(self, series: Series, segment: Segment) -> pd.DataFrame | None:
        """Return the bars of a segment from the disk: what somebody may have done to memory must not get there."""
        value, _ = await self._stack.frames.ttl(segment.key, collection=series.collection)
        if value is None:
            self._changed(series, removed=[segment.key])
        return None if value is None else value[FRAME]

    def _changed(self, series: Series, added: Iterable[Segment] = (), removed: Iterable[str] = ()) -> None:
        known = self._timelines.get(series)
        if known is not None:
            self._timelines[series] = (known[0], known[1].with_segments(added, removed))

    def _listed(self) -> Ordered:
        """Return what lists the segments: the store, or what opens what the store has."""
        listed = self._stack.listed
        if not isinstance(listed, Ordered):
            raise NotEnumerable(self._stack.durable)
        return listed

    def _store(self) -> LocalStore:
        store = self._stack.durable
        if not isinstance(store, LocalStore):
            raise NotEnumerable(store)
        return store


@lru_cache(maxsize=10_000)
def _collection(series: Series) -> str:
    return OF_BARS + "/".join(quote(part, safe=" ") for part in series)


def _gap(series: Series) -> int:
    return GAP if series.source == LOCAL else 0


def are_alike(frames: Sequence[pd.DataFrame]) -> bool:
    """Whether frames have the same columns of the same types."""
    names, dtypes = frames[0].columns, frames[0].dtypes.tolist()
    return all(frame.columns.equals(names) and frame.dtypes.tolist() == dtypes for frame in frames[1:])


def count_between(frame: pd.DataFrame, start: int, end: int) -> int:
    """Count the bars labelled in [start, end)."""
    first, last = _places(frame, start, end)
    return last - first


def rows_between(frame: pd.DataFrame, start: int, end: int) -> pd.DataFrame:
    """Return the bars labelled in [start, end); the frame itself when those are all."""
    first, last = _places(frame, start, end)
    return frame if last - first == len(frame) else frame.iloc[first:last]


def joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return frames, of which each begins after the one before it, as one."""
    with_rows = [frame for frame in frames if len(frame)] or list(frames[:1])
    return with_rows[0] if len(with_rows) == 1 else pd.concat(with_rows)


def _places(frame: pd.DataFrame, start: int, end: int) -> tuple[int, int]:
    first, last = frame.index.asi8.searchsorted((start, end)).tolist()  # type: ignore[attr-defined]
    return first, last


def _segment(key: str, text: bytes) -> Segment | None:
    """Return the segment that an entry describes; None for what is none."""
    try:
        return Segment(key=key, **from_json(text))
    except TypeError:
        log.warning("the entry %r is no segment, and is left out", key)
        return None


def _named(moment: int) -> str:
    """Return a moment as part of a key and of a file's name, sorting as time does."""
    stamp = EPOCH + timedelta(microseconds=moment)
    day = stamp.date().isoformat()
    return day if moment % 86_400_000_000 == 0 else f"{day}T{stamp:%H%M%S}"
