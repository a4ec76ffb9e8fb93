"""Which parts of a range are covered, by which segment, and what is left to fetch? No I/O, no clock.

Times are integers, microseconds since the epoch; ranges are half-open, [start, end). The model is Apache
Druid's timeline: segments are immutable, and where they overlap the newest overshadows the others.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from itertools import pairwise
from typing import Literal, NamedTuple, Self

import numpy as np

Range = tuple[int, int]
FEW = 16  # segments that are painted one at a time
BARS = "bars"
"""The outcome of a question that has bars for an answer."""
State = Literal["final", "fresh", "stale", "missing"]


class Segment(NamedTuple):
    """What is known of one stored segment: the answer of one fetch for one range.

    Attributes:
        start: The first moment it covers.
        end: The first moment after it.
        fetched_at: When it was fetched; of two segments the later one is the truth.
        fresh_until: When it has to be asked for again; None when it is final.
        key: Its name in the store, which also orders segments fetched in one instant.
        outcome: "bars", or why there are none.
        rows: How many bars it has.
        size: How many bytes they take.
        oldest: When the oldest of its parts was fetched, where it was put together.
    """

    start: int
    end: int
    fetched_at: int
    fresh_until: int | None
    key: str
    outcome: str = BARS
    rows: int = 0
    size: int = 0
    oldest: int | None = None

    def state(self, now: int) -> State:
        """Say whether it is final, still fresh at `now`, or stale."""
        if self.fresh_until is None:
            return "final"
        return "fresh" if now < self.fresh_until else "stale"


class Span(NamedTuple):
    """A part of a range, the segment that answers for it, and in which state that is."""

    start: int
    end: int
    state: State
    segment: Segment | None


class Timeline:
    """The segments of one series seen newest-wins: for each moment at most one segment, found in O(log n).

    It is immutable. Building it paints the segments over one another, oldest first: one at a time where they
    are few, many at once on the grid of all their edges.
    """

    __slots__ = ("_edges", "_owners", "_segments")

    def __init__(self, segments: Iterable[Segment] = ()) -> None:
        self._segments = sorted(segments, key=_age)
        self._edges: list[int] = []
        self._owners: list[int] = []
        if len(self._segments) <= FEW:
            for number, segment in enumerate(self._segments):
                self._paint(segment, number)
        else:
            self._paint_all()

    def _paint(self, segment: Segment, number: int) -> None:
        """Let the segment of that number be seen before all others."""
        start, end, edges, owners = segment.start, segment.end, self._edges, self._owners
        if start >= end:
            return
        first, last = bisect_left(edges, start), bisect_right(edges, end)
        after = owners[last - 1] if last else -1
        edges[first:last] = [start, end]
        owners[first:last] = [number, after]

    def _paint_all(self) -> None:
        starts = np.fromiter((segment.start for segment in self._segments), "int64", len(self._segments))
        ends = np.fromiter((segment.end for segment in self._segments), "int64", len(self._segments))
        grid = np.unique(np.concatenate([starts, ends]))
        owners = np.full(len(grid), -1, dtype="int32")
        places = zip(
            np.searchsorted(grid, starts).tolist(), np.searchsorted(grid, ends).tolist(), strict=True
        )
        for number, (first, last) in enumerate(places):
            owners[first:last] = number
        changes = np.flatnonzero(np.diff(owners, prepend=-1))
        self._edges = grid[changes].tolist()
        self._owners = owners[changes].tolist()

    def with_segments(self, added: Iterable[Segment] = (), removed: Iterable[str] = ()) -> Self:
        """Return a timeline that has some segments more and others, named by their keys, less.

        One that it has already is not added again.
        """
        gone, more = set(removed), sorted(added, key=_age)
        if not gone and (not self._segments or not more or _age(self._segments[-1]) < _age(more[0])):
            return self._with_newer(more)
        kept = {segment.key: segment for segment in self._segments if segment.key not in gone}
        return type(self)((kept | {segment.key: segment for segment in more}).values())

    def _with_newer(self, segments: Sequence[Segment]) -> Self:
        result = copy(self)
        result._continue_with(segments)  # noqa: SLF001 - it is of this class
        return result

    def _continue_with(self, segments: Sequence[Segment]) -> None:
        """Have arrays of its own, and paint newer segments over what is there."""
        count = len(self._segments)
        self._segments = [*self._segments, *segments]
        self._edges, self._owners = self._edges.copy(), self._owners.copy()
        for number, segment in enumerate(segments, count):
            self._paint(segment, number)

    def lookup(self, start: int, end: int, now: int) -> list[Span]:
        """Return the spans of [start, end) in order and without holes, each with what answers for it."""
        spans = []
        at = start
        for piece_start, piece_end, segment in self._pieces(start, end):
            if at < piece_start:
                spans.append(Span(at, piece_start, "missing", None))
            spans.append(Span(piece_start, piece_end, segment.state(now), segment))
            at = piece_end
        if at < end:
            spans.append(Span(at, end, "missing", None))
        return spans

    def spans(self, now: int) -> list[Span]:
        """Return everything that is covered, in order."""
        return [span for span in self.lookup(*self.extent, now) if span.segment is not None]

    @property
    def extent(self) -> Range:
        """From the first covered moment to the last; (0, 0) when nothing is covered."""
        return (self._edges[0], self._edges[-1]) if self._edges else (0, 0)

    def has(self, key: str) -> bool:
        """Whether a segment of that name is among them, seen or not."""
        return any(segment.key == key for segment in self._segments)

    def later_than_all(self, now: int) -> int:
        """Return `now`, or a moment after it that is later than that of every segment."""
        return max([now, *(segment.fetched_at + 1 for segment in self._segments)])

    def without_stale(self, now: int) -> Self:
        """Return a timeline of what is final or still fresh, for segments that are gone when they expire."""
        stale = [segment.key for segment in self._segments if segment.state(now) == "stale"]
        return self.with_segments(removed=stale) if stale else self

    def overshadowed(self) -> list[Segment]:
        """Return the segments of which nothing is seen any more."""
        seen = set(self._owners)
        return [segment for number, segment in enumerate(self._segments) if number not in seen]

    def final_before(self, moment: int, *, gap: int = 0) -> Segment | None:
        """Return the final segment, seen as a whole, that ends at most `gap` before a moment.

        None when there is no such segment, or anything else between its end and the moment.
        """
        at = bisect_left(self._edges, moment) - 1
        if at >= 0 and self._owners[at] < 0:
            at -= 1  # a hole
        if at < 0 or self._owners[at] < 0:
            return None
        segment = self._segments[self._owners[at]]
        is_whole = (self._edges[at], self._edges[at + 1]) == (segment.start, segment.end)
        is_near = moment - gap <= segment.end <= moment
        return segment if is_whole and is_near and segment.fresh_until is None else None

    def compactions(self, *, max_rows: int, at_least: int = 2, gap: int = 0) -> list[list[Segment]]:
        """Plan which segments to put together: runs of final neighbours, each seen as a whole.

        Args:
            max_rows: The most rows of one run together.
            at_least: The fewest segments of one run.
            gap: The longest stretch without any segment between two of a run.

        Returns:
            Disjoint runs in order, in the range of each of which nothing else is seen.
        """
        runs: list[list[Segment]] = []
        end_of_run, rows = None, 0
        for start, end, segment in self._pieces(*self.extent):
            if segment.fresh_until is not None or (start, end) != (segment.start, segment.end):
                end_of_run = None
                continue
            if end_of_run is not None and start - end_of_run <= gap and rows + segment.rows <= max_rows:
                runs[-1].append(segment)
                rows += segment.rows
            else:
                runs.append([segment])
                rows = segment.rows
            end_of_run = end
        return [run for run in runs if len(run) >= at_least]

    def __len__(self) -> int:
        """Count the segments, overshadowed ones among them."""
        return len(self._segments)

    def __iter__(self) -> Iterator[Segment]:
        """Go through the segments, the oldest first."""
        return iter(self._segments)

    def __repr__(self) -> str:
        """Show how many segments there are."""
        return f"<Timeline of {len(self):,} segments>"

    def _pieces(self, start: int, end: int) -> Iterator[tuple[int, int, Segment]]:
        """Yield what is seen of the segments within [start, end), in order."""
        first = max(0, bisect_right(self._edges, start) - 1)
        for at in range(first, len(self._edges) - 1):
            piece_start, piece_end = self._edges[at], self._edges[at + 1]
            if piece_start >= end:
                return
            if self._owners[at] >= 0 and piece_end > start:
                yield max(piece_start, start), min(piece_end, end), self._segments[self._owners[at]]


def _age(segment: Segment) -> tuple[int, str]:
    """Return what sorts segments from the oldest to the newest, those of one instant by their keys."""
    return segment.fetched_at, segment.key


def needed(spans: Iterable[Span]) -> list[Range]:
    """Return the ranges of the spans that are stale or missing, neighbours joined."""
    return merged((span.start, span.end) for span in spans if span.state in {"stale", "missing"})


def merged(ranges: Iterable[Range], *, gap: int = 0) -> list[Range]:
    """Return ranges in order, joined where they overlap or at most `gap` lies between them.

    >>> merged([(7, 9), (0, 2), (3, 5)], gap=1)
    [(0, 5), (7, 9)]
    """
    result: list[Range] = []
    for start, end in sorted(ranges):
        if start >= end:
            continue
        if result and start - result[-1][1] <= gap:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((start, end))
    return result


def clipped(ranges: Iterable[Range], windows: Sequence[Range]) -> list[Range]:
    """Return the parts of ordered, disjoint ranges that lie within ordered, disjoint windows.

    >>> clipped([(0, 10)], [(2, 4), (6, 20)])
    [(2, 4), (6, 10)]
    """
    result = []
    at = 0
    for start, end in ranges:
        while at < len(windows) and windows[at][1] <= start:
            at += 1
        for window_start, window_end in windows[at:]:
            if window_start >= end:
                break
            result.append((max(start, window_start), min(end, window_end)))
    return result


def cut(ranges: Iterable[Range], size: int) -> list[Range]:
    """Return ranges cut into pieces of at most `size`, each range from its beginning.

    >>> cut([(0, 5)], 2)
    [(0, 2), (2, 4), (4, 5)]
    """
    return [
        (first, last) for start, end in ranges for first, last in pairwise([*range(start, end, size), end])
    ]
