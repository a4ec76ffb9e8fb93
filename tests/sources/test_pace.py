import itertools

from hypothesis import given
from hypothesis import strategies as st

from tradecache.sources.pace import Pace

limits = st.tuples(st.integers(1, 5), st.floats(0.1, 10))
steps = st.lists(st.floats(0, 5), min_size=1, max_size=40)


def begun(pace, steps):
    """Return when requests begin that come after these pauses."""
    moments = itertools.accumulate(steps)
    return [now + pace.reserve(now) for now in moments]


@given(limits, steps)
def test_no_span_holds_more_than_the_limit(limit, steps):
    """Between any request and the one `requests` later at least `seconds` pass."""
    requests, seconds = limit
    times = begun(Pace(limit), steps)
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(times))
    assert all(
        later - earlier >= seconds - 1e-9 for earlier, later in zip(times, times[requests:], strict=False)
    )


@given(limits, steps)
def test_nobody_waits_for_longer_than_needed(limit, steps):
    """A request begins when it comes, or exactly `seconds` after the one that is in its way."""
    requests, seconds = limit
    moments = list(itertools.accumulate(steps))
    times = begun(Pace(limit), steps)
    for number, (now, at) in enumerate(zip(moments, times, strict=True)):
        in_the_way = times[number - requests] + seconds if number >= requests else now
        assert abs(at - max(now, in_the_way)) < 1e-9


@given(steps)
def test_without_a_limit_nobody_waits(steps):
    """No limit, no wait."""
    pace = Pace(None)
    assert [pace.reserve(now) for now in itertools.accumulate(steps)] == [0] * len(steps)


def test_a_hold_lasts_until_its_end():
    """Once told to wait, it says for how long; a shorter hold does not shorten it."""
    pace = Pace(None)
    pace.hold(10)
    pace.hold(5)
    assert [pace.held(now) for now in (0, 8, 10, 11)] == [10, 2, 0, 0]
