"""The timeline against a model that knows the owner of each single moment."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tradecache.timeline import FEW, Segment, Span, Timeline, clipped, cut, merged, needed

WORLD = 40  # moments, small enough that a model can go through each
NOW = 10

moments = st.integers(0, WORLD)
ranges = st.tuples(moments, moments).map(sorted).filter(lambda pair: pair[0] < pair[1]).map(tuple)
bounds = st.lists(ranges, max_size=8)


@st.composite
def segment_lists(draw):
    """Return segments with distinct keys; several may have been fetched in one instant."""
    found = []
    for number, (start, end) in enumerate(draw(st.lists(ranges, max_size=10))):
        fetched_at = draw(st.integers(0, 4))
        fresh_until = draw(st.sampled_from([None, NOW - 1, NOW, NOW + 1]))
        found.append(Segment(start, end, fetched_at, fresh_until, f"k{number}", rows=draw(st.integers(0, 5))))
    return found


def owner(segments, moment):
    """Return the newest segment that covers a moment."""
    covering = [each for each in segments if each.start <= moment < each.end]
    return max(covering, key=lambda each: (each.fetched_at, each.key), default=None)


def moments_of(found):
    return {moment for start, end in found for moment in range(start, end)}


@given(segment_lists(), ranges)
def test_each_moment_is_answered_by_its_newest_segment(segments, asked):
    """A lookup gives each moment of the range to the newest segment that covers it, or says it is missing."""
    spans = Timeline(segments).lookup(*asked, NOW)
    seen = {moment: span for span in spans for moment in range(span.start, span.end)}
    assert sorted(seen) == list(range(*asked))
    for moment, span in seen.items():
        expected = owner(segments, moment)
        assert span.segment == expected
        assert span.state == ("missing" if expected is None else expected.state(NOW))


@given(segment_lists(), ranges)
def test_spans_are_in_order_without_holes_and_never_split_for_nothing(segments, asked):
    """Neighbouring spans touch, and no two of them have the same owner."""
    spans = Timeline(segments).lookup(*asked, NOW)
    assert [spans[0].start, spans[-1].end] == list(asked)
    for before, after in itertools.pairwise(spans):
        assert before.end == after.start
        assert before.segment != after.segment


@given(segment_lists(), ranges)
def test_what_is_needed_is_what_is_missing_or_stale(segments, asked):
    """The ranges to fetch are exactly the moments that are missing or stale."""
    found = needed(Timeline(segments).lookup(*asked, NOW))
    stale = {m for m in range(*asked) if (each := owner(segments, m)) is None or each.state(NOW) == "stale"}
    assert moments_of(found) == stale
    assert all(before[1] < after[0] for before, after in itertools.pairwise(found))


@given(segment_lists())
def test_the_order_in_which_segments_come_does_not_matter(segments):
    """A timeline of the same segments in another order answers the same."""
    asked = (0, WORLD, NOW)
    assert Timeline(segments[::-1]).lookup(*asked) == Timeline(segments).lookup(*asked)


@given(segment_lists())
def test_segments_may_come_one_at_a_time(segments):
    """A timeline that grew by one segment after the other, in any order, is one of all of them."""
    grown = Timeline()
    for segment in segments:
        grown = grown.with_segments([segment])
    assert list(grown) == list(Timeline(segments))
    assert grown.lookup(0, WORLD, NOW) == Timeline(segments).lookup(0, WORLD, NOW)
    assert list(grown.with_segments(segments)) == list(grown)


@given(segment_lists())
def test_many_are_painted_as_few_are(segments):
    """The same segments, far away from them so many others that all are painted at once, answer the same."""
    others = [Segment(WORLD + 2 * n, WORLD + 2 * n + 1, 0, None, f"o{n}") for n in range(FEW)]
    assert Timeline([*segments, *others]).lookup(0, WORLD, NOW) == Timeline(segments).lookup(0, WORLD, NOW)


@given(segment_lists(), moments, st.integers(0, 9))
def test_what_lies_before_a_moment(segments, moment, gap):
    """It is final, seen as a whole, and between its end and the moment there is nothing at all."""
    found = Timeline(segments).final_before(moment, gap=gap)
    last = next((m for m in reversed(range(moment)) if owner(segments, m) is not None), None)
    expected = None if last is None or moment - (last + 1) > gap else owner(segments, last)
    if expected is not None and (
        expected.fresh_until is not None
        or expected.end != last + 1
        or any(owner(segments, m) != expected for m in range(expected.start, expected.end))
    ):
        expected = None
    assert found == expected


@given(segment_lists())
def test_an_overshadowed_segment_can_go(segments):
    """Without the segments of which nothing is seen, every answer is the same."""
    timeline = Timeline(segments)
    gone = timeline.overshadowed()
    fewer = timeline.with_segments(removed=[each.key for each in gone])
    assert fewer.lookup(0, WORLD, NOW) == timeline.lookup(0, WORLD, NOW)
    assert len(fewer) + len(gone) == len(timeline)


@given(segment_lists(), st.integers(0, 12), st.integers(0, 9))
def test_a_compaction_changes_no_answer(segments, max_rows, gap):
    """One segment in the place of each planned run leaves every state as it was, with fewer segments.

    Only the holes between two of a run are then covered too, where there may be any.
    """
    timeline = Timeline(segments)
    runs = timeline.compactions(max_rows=max_rows, gap=gap)
    holes = [
        Segment(a.end, b.start, 0, None, f"hole{a.key}")
        for run in runs
        for a, b in itertools.pairwise(run)
        if a.end < b.start
    ]
    assert all(hole.end - hole.start <= gap for hole in holes)
    assert all(owner(segments, m) is None for hole in holes for m in range(hole.start, hole.end))
    timeline = timeline.with_segments(holes)
    before = timeline.lookup(0, WORLD, NOW)
    for run in runs:
        assert len(run) > 1
        assert sum(each.rows for each in run) <= max_rows
        newest = max(each.fetched_at for each in run)
        together = Segment(run[0].start, run[-1].end, newest, None, f"z{run[0].key}")
        timeline = timeline.with_segments([together])  # a crash here leaves both, and that is harmless
        assert states(timeline.lookup(0, WORLD, NOW)) == states(before)
        timeline = timeline.with_segments(removed=[each.key for each in run])
        assert states(timeline.lookup(0, WORLD, NOW)) == states(before)


def states(spans):
    """Return the state of each moment."""
    return {moment: span.state for span in spans for moment in range(span.start, span.end)}


@given(bounds, st.integers(0, 5))
def test_merged_ranges_lie_further_apart_than_the_gap(found, gap):
    """Merging covers what was there, adds only gaps that are small enough, and leaves none of those."""
    result = merged(found, gap=gap)
    assert moments_of(found) <= moments_of(result)
    assert all(after[0] - before[1] > gap for before, after in itertools.pairwise(result))
    if gap == 0:
        assert moments_of(result) == moments_of(found)


@given(bounds, bounds)
def test_clipping_is_intersection(found, windows):
    """What is left is what lies in both, in order."""
    result = clipped(merged(found), merged(windows))
    assert moments_of(result) == moments_of(found) & moments_of(windows)
    assert result == sorted(result)


@given(bounds, st.integers(1, 7))
def test_cut_ranges_are_no_longer_than_the_limit(found, size):
    """Cutting keeps every moment once, in pieces of at most `size`."""
    ordered = merged(found)
    result = cut(ordered, size)
    assert all(0 < end - start <= size for start, end in result)
    assert sum(end - start for start, end in result) == len(moments_of(ordered))
    assert moments_of(result) == moments_of(ordered)


def test_a_refetched_middle_overshadows_only_itself():
    """The newest answer for the middle of a range is seen there, and the old one on both sides of it."""
    old, new = Segment(0, 30, 1, None, "old"), Segment(10, 20, 2, 15, "new")
    assert Timeline([new, old]).lookup(-5, 30, NOW) == [
        Span(-5, 0, "missing", None),
        Span(0, 10, "final", old),
        Span(10, 20, "fresh", new),
        Span(20, 30, "final", old),
    ]


def test_a_segment_is_stale_from_the_very_moment_on():
    """Fresh until 15 means that at 15 it is stale."""
    segment = Segment(0, 1, 0, 15, "k")
    assert [segment.state(now) for now in (14, 15)] == ["fresh", "stale"]


def test_an_empty_timeline_has_everything_missing():
    """Nothing stored is no special case."""
    timeline = Timeline()
    assert timeline.lookup(3, 5, NOW) == [Span(3, 5, "missing", None)]
    assert (timeline.extent, timeline.spans(NOW), list(timeline)) == ((0, 0), [], [])
