"""How does a team keep final bars in any key-value store, so that they are found without listing anything?"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import pandas as pd
from key_value.aio.protocols.key_value import AsyncKeyValue

from tradecache.errors import EntryTooLarge, NoBars
from tradecache.intervals import interval_of, month_of, month_start
from tradecache.segments import Series, are_alike, joined
from tradecache.shelves import NO_TRADES, Piece, without
from tradecache.stores.values import FRAME
from tradecache.timeline import BARS, Range, Segment, Timeline

log = logging.getLogger("tradecache")

HOUR = 3_600_000_000  # microseconds
WIDE = "wide"
"""The key of what is known of ranges without bars that are longer than `MANY` buckets."""
MANY = 24
MOST = 240  # buckets of one question, the newest: twenty years of months
SILENT = (NO_TRADES, "closed")
"""Outcomes that, beside bars, say no more than that there are no others."""
VERSION = 1


class Part(NamedTuple):
    """What a bucket says of one range; its bars are those of the bucket's frame in that range.

    Where it was put together, it is as old as the newest of its parts, for that decides which of two answers counts, and
    each of them was final when it was kept.
    """

    start: int
    end: int
    outcome: str
    fetched_at: int


class Bucket(NamedTuple):
    """What is known of one bucket: parts in order that do not overlap, and the bars of all of them."""

    parts: tuple[Part, ...] = ()
    frame: pd.DataFrame | None = None

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        """Yield what it says of [start, end)."""
        for part in self.parts:
            if part.start < end and start < part.end:
                whole = Piece(part.start, part.end, part.outcome, self.frame, part.fetched_at)
                yield whole.within(start, end)


class Team:
    """A shelf in a key-value store: one entry for each series and calendar bucket, which holds its final bars.

    Buckets are a month of bars shorter than an hour, a year of bars shorter than a day, else ten years, so that
    whoever asks for a range knows the keys. Who keeps something reads the buckets it falls into, and writes them
    again; two at once on one bucket may lose one's part of it, which is then asked for once more.

    Args:
        store: Where entries with frames go; see `FrameCodec`.
        name: What it is called in warnings and in `explain()`.
    """

    def __init__(self, store: AsyncKeyValue, *, name: str) -> None:
        self.name = name
        self._store = store

    async def ask(self, series: Series, ranges: Sequence[Range]) -> list[Piece]:
        """Return what is known of these ranges, in order."""
        wide = await self._buckets(series, [WIDE])
        known = [piece for bucket in wide.values() for piece in bucket.pieces(*_ALL)]
        # a range without a beginning is a hundred years of months, of which that says nearly all
        unknown = without(ranges, known)
        touched = (key for start, end in unknown for key in buckets(series, start, end))
        keys = list(dict.fromkeys(touched))[-MOST:]
        found = await self._buckets(series, keys)
        timeline, sources = _laid_out(
            [*known, *(piece for bucket in found.values() for piece in bucket.pieces(*_ALL))]
        )
        return joined_quiet(piece for start, end in ranges for piece in _seen(timeline, sources, start, end))

    async def keep(self, series: Series, pieces: Sequence[Piece]) -> None:
        """Keep pieces; where one of the same range is there already, the newer one counts."""
        by_bucket = _by_bucket(series, pieces)
        old = await self._buckets(series, [WIDE, *(key for key in by_bucket if key != WIDE)])
        values = {key: _value(_merged(old.get(key, Bucket()), new)) for key, new in by_bucket.items()}
        narrowed = _without_newer(old.get(WIDE, Bucket()), by_bucket)
        if narrowed is not None:
            values[WIDE] = _value(narrowed)
        try:
            await self._store.put_many(list(values), list(values.values()), collection=series.collection)
        except EntryTooLarge as error:
            log.warning("%s does not take bars of %s: %s", self.name, series.symbol, error)

    async def close(self) -> None:
        """Let go of nothing: whoever made the store closes it."""

    async def _buckets(self, series: Series, keys: Sequence[str]) -> dict[str, Bucket]:
        values = await self._store.get_many(keys, collection=series.collection)
        found = (
            (key, _bucket(value, series))
            for key, value in zip(keys, values, strict=True)
            if value is not None
        )
        return {key: bucket for key, bucket in found if bucket is not None}


_FAR = 2**62
_ALL = (-_FAR, _FAR)


def buckets(series: Series, start: int, end: int) -> list[str]:
    """Return the keys of the buckets that [start, end) touches, in order.

    >>> buckets(Series("s", "AAPL", "1m"), 1_709_000_000_000_000, 1_710_000_000_000_000)
    ['2024-02', '2024-03']
    """
    return [key for key, *_ in _edges(series, start, end)]


def _edges(series: Series, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Yield the key, the first moment and the first one after it of each bucket that [start, end) touches."""
    months = _months(series.interval)
    first, last = month_of(start) // months, month_of(end - 1) // months
    for number in range(first, last + 1):
        month = number * months
        year = 1970 + month // 12
        key = f"{year:04}-{month % 12 + 1:02}" if months == 1 else f"{year:04}"
        yield key, month_start(month), month_start(month + months)


def _months(interval: str) -> int:
    kind = interval_of(interval)
    if not kind.is_intraday:
        return 120
    return 1 if kind.microseconds < HOUR else 12


def _by_bucket(series: Series, pieces: Iterable[Piece]) -> dict[str, list[Piece]]:
    """Return pieces cut by bucket; those long ones without bars in a bucket of their own."""
    found: dict[str, list[Piece]] = defaultdict(list)
    for piece in pieces:
        for part in _without_quiet_ends(series, piece):
            edges = list(_edges(series, part.start, part.end))
            if part.frame is None and len(edges) > MANY:
                found[WIDE].append(part)
                continue
            for key, start, end in edges:
                found[key].append(part.within(start, end))
    return found


def _without_quiet_ends(series: Series, piece: Piece) -> list[Piece]:
    """Return a piece in up to three: before the bucket of its first bar, with bars, and after that of its last one."""
    if piece.frame is None:
        return [piece]
    labels = piece.frame.index.asi8  # type: ignore[attr-defined]
    ((_, first, _),) = _edges(series, int(labels[0]), int(labels[0]) + 1)
    ((_, _, last),) = _edges(series, int(labels[-1]), int(labels[-1]) + 1)
    edges = [piece.start, max(first, piece.start), min(last, piece.end), piece.end]
    return [piece.within(start, end) for start, end in pairwise(edges) if start < end]


def joined_quiet(pieces: Iterable[Piece]) -> list[Piece]:
    """Return pieces, those neighbours as one that have no bars for the same reason."""
    result: list[Piece] = []
    for piece in pieces:
        last = result[-1] if result else None
        if (
            last is not None
            and last.frame is piece.frame is None
            and last[1:3] == (piece.start, piece.outcome)
        ):
            older = min(last.fetched_at, piece.fetched_at)
            result[-1] = last._replace(end=piece.end, fetched_at=older)
        else:
            result.append(piece)
    return result


def _laid_out(pieces: Iterable[Piece]) -> tuple[Timeline, dict[str, Piece]]:
    """Return pieces as a timeline on which the newest are seen, and each by its segment's key."""
    sources = {f"{number:09}": piece for number, piece in enumerate(pieces)}
    segments = [
        Segment(piece.start, piece.end, piece.fetched_at, None, key, piece.outcome)
        for key, piece in sources.items()
    ]
    return Timeline(segments), sources


def _seen(timeline: Timeline, sources: dict[str, Piece], start: int, end: int) -> Iterator[Piece]:
    for span in timeline.lookup(start, end, 0):
        if span.segment is not None:
            yield sources[span.segment.key].within(span.start, span.end)


def _merged(old: Bucket, new: Sequence[Piece]) -> Bucket:
    """Return what is known of a bucket after some more was learnt of it."""
    kept = [*old.pieces(*_ALL)]
    frames = [piece.frame for piece in new if piece.frame is not None]
    new = [piece for piece in new if piece.frame is None or are_alike([frames[-1], piece.frame])]
    if frames and old.frame is not None and not are_alike([frames[-1], old.frame]):
        kept = []  # columns or types have changed: what is older would be changed by it
    timeline, sources = _laid_out([*kept, *new])
    seen = list(_seen(timeline, sources, *timeline.extent))
    bars = [piece.frame for piece in seen if piece.frame is not None]
    return Bucket(tuple(_put_together(seen)), joined(bars) if bars else None)


def _without_newer(wide: Bucket, by_bucket: Mapping[str, Sequence[Piece]]) -> Bucket | None:
    """Return what is known of wide ranges without what buckets know now; None where that takes nothing from it."""
    newer = [piece for key, pieces in by_bucket.items() if key != WIDE for piece in pieces]
    kept = [*wide.pieces(*_ALL), *by_bucket.get(WIDE, ())]
    if not any(one.start < other.end and other.start < one.end for one in kept for other in newer):
        return None
    timeline, sources = _laid_out([*kept, *newer])
    seen = _seen(timeline, sources, *timeline.extent)
    inside = [piece for piece in seen if not any(one.start <= piece.start < one.end for one in newer)]
    return Bucket(tuple(_put_together(inside)))


def _put_together(pieces: Sequence[Piece]) -> list[Part]:
    """Return the parts that pieces are, neighbours that say the same as one."""
    parts: list[Part] = []
    for piece in pieces:
        part = Part(*piece[:3], piece.fetched_at)
        before = parts[-1] if parts else None
        outcome = None if before is None or before.end != part.start else _both(before.outcome, part.outcome)
        if before is None or outcome is None:
            parts.append(part)
        else:
            parts[-1] = Part(before.start, part.end, outcome, max(before.fetched_at, part.fetched_at))
    return parts


def _both(one: str, other: str) -> str | None:
    """Return the outcome of two neighbours together; None where they have to stay apart."""
    if one == other:
        return one
    is_about_bars = BARS in (one, other) and (one in SILENT or other in SILENT)
    return BARS if is_about_bars else None


def _value(bucket: Bucket) -> dict[str, Any]:
    value: dict[str, Any] = {"version": VERSION, "parts": [list(part) for part in bucket.parts]}
    return value if bucket.frame is None else {**value, FRAME: bucket.frame}


def _bucket(value: dict[str, Any], series: Series) -> Bucket | None:
    """Return the bucket that a value is; None, and a line in the log, for what is none."""
    try:
        if value["version"] != VERSION:
            raise ValueError(f"version {value['version']!r}")
        parts = tuple(_part(*each) for each in value["parts"])
        if any(one.end > other.start for one, other in pairwise(parts)):
            raise ValueError("its parts overlap")
        return Bucket(parts, _checked(value.get(FRAME), series))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        log.warning("an entry of the team's store is no bucket of bars of %s: %s", series.symbol, error)
        return None


def _part(start: object, end: object, outcome: object, fetched_at: object) -> Part:
    """Return a part of a bucket.

    Raises:
        ValueError: For what is none.
    """
    numbers = [each for each in (start, end, fetched_at) if type(each) is int and -_FAR < each < _FAR]
    if len(numbers) < 3 or numbers[0] >= numbers[1] or outcome not in (BARS, *NoBars.REASONS, "empty"):  # noqa: PLR2004
        raise ValueError("its parts are none")
    return Part(numbers[0], numbers[1], str(outcome), numbers[2])


def _checked(frame: object, series: Series) -> pd.DataFrame | None:
    """Return the frame of a bucket, if its labels are what those of bars are.

    Raises:
        ValueError: When they are not.
    """
    if frame is None:
        return None
    zone = "UTC" if interval_of(series.interval).is_intraday else "None"
    index = frame.index if isinstance(frame, pd.DataFrame) else None
    if not isinstance(frame, pd.DataFrame) or not isinstance(index, pd.DatetimeIndex):
        raise ValueError("it has no frame labelled by times")  # noqa: TRY004 - what is stored is no argument
    if (
        (index.unit, str(index.tz)) != ("us", zone)
        or index.hasnans
        or not index.is_monotonic_increasing
        or not index.is_unique
    ):
        raise ValueError("its labels are none of bars")
    return frame
