import itertools

from hypothesis import given
from hypothesis import strategies as st

from tradecache.sources.pace import LONGEST_HOLD, Pace, Turn

limits = st.tuples(st.integers(1, 5), st.floats(0.1, 10))
steps = st.lists(st.floats(0, 5), min_size=1, max_size=40)


def begun(pace, steps):
    """Return when requests begin that come after these pauses, each after as many waits as it is told."""
    now, times = 0.0, []
    for step in steps:
        now += step
        while (turn := pace.take(now)).wait:
            now += turn.wait
        times.append(now)
    return times


@given(limits, steps)
def test_no_span_holds_more_than_the_limit(limit, steps):
    """Between any request and the one `requests` later at least `seconds` pass."""
    requests, seconds = limit
    times = begun(Pace(limit), steps)
    assert all(
        later - earlier >= seconds - 2e-6 for earlier, later in zip(times, times[requests:], strict=False)
    )


@given(limits, steps)
def test_nobody_waits_for_longer_than_needed(limit, steps):
    """A request begins when it comes, or exactly `seconds` after the one that is in its way."""
    requests, seconds = limit
    times = begun(Pace(limit), steps)
    comes = [step + before for step, before in zip(steps, [0.0, *times], strict=False)]
    for number, (now, at) in enumerate(zip(comes, times, strict=True)):
        in_the_way = times[number - requests] + seconds if number >= requests else now
        assert abs(at - max(now, in_the_way)) < 2e-6


@given(st.tuples(limits, limits), st.lists(st.tuples(st.integers(0, 1), st.floats(0, 5)), max_size=60))
def test_each_keeps_to_a_limit_of_its_own(limits, moves):
    """Of two who count in one place, each is let through when its own limit allows it, and only then."""
    now, times, pace = 0.0, [], Pace(None)
    most = max(requests for requests, _ in limits)
    for who, step in moves:
        now += step
        requests, seconds = limits[who]
        pace = Pace(limits[who], begun=pace.begun, most=most, held=pace.held)
        wait = pace.take(now).wait
        in_the_way = times[-requests] + seconds - now if len(times) >= requests else 0.0
        assert abs(wait - max(0.0, in_the_way)) < 2e-6
        if not wait:
            times.append(now)


@given(steps)
def test_without_a_limit_nobody_waits(steps):
    """No limit, no wait, and nothing to remember."""
    pace = Pace(None)
    assert {pace.take(now).wait for now in itertools.accumulate(steps)} == {0}
    assert not pace.begun


@given(limits, st.integers(1, 20))
def test_who_is_told_to_wait_takes_nothing(limit, times):
    """However often one asks in vain, all places are there when the span is over."""
    requests, seconds = limit
    pace = Pace(limit)
    begun(pace, [0.0] * requests)
    assert all(pace.take(seconds / 2).wait for _ in range(times))
    assert begun(pace, [seconds] * requests)[0] == seconds


def test_a_place_given_back_is_free():
    """A request that did not begin takes no place; what was never taken cannot be given back."""
    pace = Pace((2, 10.0))
    first, second = pace.take(0), pace.take(1)
    pace.give_back(second.place)
    pace.give_back(77.0)
    assert pace.take(2) == Turn(place=2)
    assert pace.take(3) == Turn(7.0)
    assert first.place == 0


def test_a_hold_lasts_until_its_end():
    """Once told to wait, it says for how long; a shorter hold does not shorten it."""
    pace = Pace(None)
    pace.hold(10, now=0)
    pace.hold(5, now=0)
    assert [pace.take(now) for now in (0, 8, 10, 11)] == [
        Turn(10, is_hold=True),
        Turn(2, is_hold=True),
        Turn(place=10),
        Turn(place=11),
    ]


def test_no_hold_is_for_ever():
    """Nobody is held for longer than the longest hold, whatever is asked for or was kept."""
    told, kept = Pace(None), Pace(None, held=(0.0, float("inf")))
    told.hold(float("inf"), now=0.0)
    assert told.held == kept.held == (0.0, LONGEST_HOLD)
    assert kept.take(LONGEST_HOLD) == Turn(place=LONGEST_HOLD)


@given(limits, st.lists(st.floats(-1e9, 1e9), min_size=5))
def test_nobody_waits_for_longer_than_the_span(limit, begun):
    """Whatever was kept, in whichever order, the wait is no longer than the limit says."""
    assert Pace(limit, begun=begun).take(0.0).wait <= limit[1]


@given(limits, steps, st.floats(0, 1e9))
def test_a_clock_that_is_set_back_holds_nobody_up(limit, steps, jump):
    """Nobody waits for longer than the limit, or the hold, says, wherever the clock goes."""
    pace = Pace(limit)
    now = 2e9 + begun(pace, steps)[-1]
    pace = Pace(limit, begun=(2e9 + at for at in pace.begun), held=(now, now + 60))
    waits = [pace.take(now - jump).wait, pace.take(now - jump + 61).wait]
    assert waits[0] <= 60 + 1e-6
    assert waits[1] <= limit[1] + 1e-6
