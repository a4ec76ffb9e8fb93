import asyncio
import itertools

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loops import run
from virtualtime import run_at_once, virtual_time

from tradecache.errors import (
    InvalidBars,
    InvalidInput,
    MissingDependency,
    NoBars,
    RateLimited,
    SourceUnavailable,
    UnknownSymbol,
)
from tradecache.sources import Guard, Retries, guarded
from tradecache.sources.budget import OwnBudget
from tradecache.sources.pace import LONGEST_HOLD, Turn

BARS = pd.DataFrame({"close": [1.0]})
ASKED = ("AAPL", pd.Timestamp("2024-01-02"), pd.Timestamp("2024-01-03"), "1d")
STEADY = Retries(jitter=0)


class Provider:
    """A source that does what it is told, one thing for each request, and notes when each began."""

    name = "provider"
    seconds = 0.0

    def __init__(self, *outcomes, **traits):
        self.outcomes = iter(outcomes)
        self.begun = []
        self.at_once = self.most_at_once = 0
        vars(self).update(traits)

    async def fetch(self, symbol, start, end, interval):
        self.begun.append(virtual_time())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.seconds)
            outcome = next(self.outcomes, BARS)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        finally:
            self.at_once -= 1


def fetched(provider, *, times=1, retries=STEADY):
    """Fetch so often at once; return what came of each, and the guard."""

    async def work():
        guard = Guard(provider, retries=retries, monotonic=asyncio.get_running_loop().time)
        outcomes = await asyncio.gather(*(guard.fetch(*ASKED) for _ in range(times)), return_exceptions=True)
        return outcomes, guard

    return run_at_once(work())


def test_an_answer_comes_through():
    """What the source returns is what comes, after one request."""
    (outcome,), guard = fetched(Provider())
    assert outcome is BARS
    assert (guard.requests, repr(guard)) == (1, "<Guard of provider, 1 requests>")


@given(st.integers(1, 8), st.integers(1, 30))
def test_no_more_requests_at_once_than_the_source_can_bear(concurrency, times):
    """However many ask, only so many requests are under way, and all are answered."""
    provider = Provider(concurrency=concurrency, seconds=1.0)
    outcomes, guard = fetched(provider, times=times)
    assert provider.most_at_once == min(concurrency, times)
    assert (len(outcomes), guard.requests) == (times, times)


@given(st.integers(1, 4), st.floats(0.5, 10), st.integers(1, 12), st.floats(0, 3))
def test_the_rate_limit_is_kept(requests, seconds, times, duration):
    """In no span of so many seconds do more requests begin than the limit allows, whatever they take."""
    provider = Provider(rate_limit=(requests, seconds), concurrency=50, seconds=duration)
    fetched(provider, times=times)
    spans = zip(provider.begun, provider.begun[requests:], strict=False)
    assert all(later - earlier >= seconds - 1e-9 for earlier, later in spans)
    assert provider.begun[-1] == pytest.approx((times - 1) // requests * seconds)


def test_retries_wait_for_longer_each_time():
    """After each failure the pause is twice as long."""
    provider = Provider(SourceUnavailable(), RateLimited(), SourceUnavailable())
    (outcome,), _ = fetched(provider)
    assert outcome is BARS
    assert provider.begun == pytest.approx([0, 0.5, 1.5, 3.5])


def test_jitter_keeps_those_apart_who_failed_together():
    """Requests that failed in one instant do not come back in one."""
    provider = Provider(*[SourceUnavailable()] * 20, concurrency=20)
    fetched(provider, times=20, retries=Retries(jitter=1.0))
    again = provider.begun[20:]
    assert len(set(again)) == 20
    assert all(0.5 <= at <= 1.5 for at in again)


def test_after_the_last_attempt_the_last_error_is_raised():
    """A source that fails each time is asked so often as `attempts` says."""
    errors = [SourceUnavailable(f"failure {n}") for n in range(9)]
    (outcome,), guard = fetched(Provider(*errors), retries=Retries(attempts=3, jitter=0))
    assert (outcome, guard.requests) == (errors[2], 3)


def test_all_wait_when_one_is_told_to():
    """`retry_after` holds back those who have not asked yet, too; nobody asks before its end."""
    provider = Provider(RateLimited(20), concurrency=1)
    outcomes, _ = fetched(provider, times=3)
    assert all(outcome is BARS for outcome in outcomes)
    assert provider.begun[0] == 0
    assert min(provider.begun[1:]) == pytest.approx(20)


def test_one_who_waits_for_a_turn_is_held_back_too():
    """A request whose turn comes while the source wants to be left alone does not begin then."""
    provider = Provider(RateLimited(20), rate_limit=(1, 5.0), concurrency=2, seconds=2.0)
    fetched(provider, times=2)
    assert provider.begun[0] == 0
    assert min(provider.begun[1:]) >= 22


def test_after_a_hold_the_rate_limit_is_kept():
    """Those who were held back do not all begin when the hold ends."""
    provider = Provider(RateLimited(20), rate_limit=(1, 5.0), concurrency=10)
    fetched(provider, times=4)
    assert all(later - earlier >= 5 - 1e-9 for earlier, later in itertools.pairwise(provider.begun))


def test_nobody_waits_for_hours():
    """A longer `retry_after` than anybody's patience fails at once, and who comes next does not even ask."""

    async def work():
        provider = Provider(RateLimited(3600))
        guard = Guard(provider, retries=STEADY, monotonic=asyncio.get_running_loop().time)
        waits = []
        for _ in range(2):
            with pytest.raises(RateLimited) as caught:
                await guard.fetch(*ASKED)
            waits.append(caught.value.retry_after)
            await asyncio.sleep(600)
        return waits, guard.requests

    assert run_at_once(work()) == ([3600, 3000], 1)


def test_the_longest_hold():
    """An infinite `retry_after` fails at once and holds everybody, but not for ever."""

    async def work():
        provider = Provider(RateLimited(float("inf")))
        guard = Guard(provider, retries=STEADY, monotonic=asyncio.get_running_loop().time)
        waits = []
        for _ in range(2):
            with pytest.raises(RateLimited) as caught:
                await guard.fetch(*ASKED)
            waits.append(caught.value.retry_after)
        await asyncio.sleep(LONGEST_HOLD)
        return waits, await guard.fetch(*ASKED), guard.requests

    waits, then, requests = run_at_once(work())
    assert waits == [LONGEST_HOLD] * 2
    assert then is BARS
    assert requests == 2


@pytest.mark.parametrize("wait", [0, -5.0, 0.001, float("nan"), None])
def test_pauses_grow_however_short_a_wait_is_asked_for(wait):
    """A provider that wants to be asked again at once is asked as patiently as one that does not say when."""
    provider = Provider(*[RateLimited(wait)] * 3)
    (outcome,), _ = fetched(provider)
    assert outcome is BARS
    assert provider.begun == pytest.approx([0, 0.5, 1.5, 3.5])


@pytest.mark.parametrize("wait", ["30", True, b"30", [30]])
def test_a_wait_is_a_number(wait):
    """A source that gives something else than seconds, such as a header's text, is told so, and is not asked again."""
    error = RateLimited(wait)
    (outcome,), guard = fetched(Provider(error))
    assert type(outcome) is InvalidInput
    assert (outcome.field, outcome.value, outcome.__cause__, guard.requests) == (
        "retry_after",
        wait,
        error,
        1,
    )
    assert str(error) == "provider was asked too often for 'AAPL'"


@pytest.mark.parametrize("wait", [0, -5.0, float("nan")])
def test_what_is_no_time_to_wait_holds_nobody(wait):
    """A source that says nonsense about when to ask again holds back nobody but the one who was told."""

    async def work():
        provider = Provider(*[RateLimited(wait)] * 4)
        guard = Guard(provider, retries=STEADY, monotonic=asyncio.get_running_loop().time)
        await asyncio.gather(guard.fetch(*ASKED), return_exceptions=True)
        before = virtual_time()
        provider.outcomes = iter([])
        assert await guard.fetch(*ASKED) is BARS
        return virtual_time() - before

    assert run_at_once(work()) == 0


def test_the_budget_is_asked_again_while_one_waits():
    """One who waits looks again each second: a place that was given back is taken soon."""

    class Generous(OwnBudget):
        async def take(self):
            turn = await super().take()
            return Turn(3600.0) if virtual_time() < 2.5 else turn

    async def work():
        provider = Provider()
        guard = Guard(provider, budget=Generous(None, monotonic=virtual_time))
        await guard.fetch(*ASKED)
        return provider.begun

    assert run_at_once(work()) == [3]


def test_a_request_that_takes_too_long_is_given_up():
    """After `timeout` seconds a request fails, says so, and is tried again."""
    provider = Provider(seconds=100.0, timeout=30)
    (outcome,), _ = fetched(provider, retries=Retries(attempts=2, jitter=0))
    assert str(outcome) == "provider did not answer for 'AAPL' (no answer within 30 s)"
    assert provider.begun == pytest.approx([0, 30.5])


def test_a_time_limit_of_the_source_s_own_is_its_own_error():
    """A TimeoutError out of the source is not taken for ours."""
    (outcome,), guard = fetched(Provider(*[TimeoutError("socket")] * 4))
    assert (str(outcome), guard.requests) == ("provider did not answer for 'AAPL' (TimeoutError: socket)", 4)


@pytest.mark.parametrize(
    "error",
    [
        UnknownSymbol("AAPL"), NoBars("closed"), InvalidBars([(None, "frame", None, "a DataFrame")]),
        InvalidInput("interval", "4h", "'1d'"), MissingDependency("yfinance", "yfinance"),
        TypeError("unexpected keyword"), AttributeError("no such thing"), NameError("x"), NotImplementedError(),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_what_asking_again_would_not_help_passes_at_once(error):
    """Unknown symbols, typed absences and errors of the program come through as they are, after one request."""
    (outcome,), guard = fetched(Provider(error))
    assert outcome is error
    assert guard.requests == 1


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), ValueError("no JSON"), KeyError("chart")])
def test_any_other_error_is_unavailable(error):
    """An error that is not ours becomes `SourceUnavailable` with itself as the cause, after all attempts."""
    (outcome,), guard = fetched(Provider(*[error] * 4))
    assert (type(outcome), outcome.__cause__, guard.requests) == (SourceUnavailable, error, 4)
    assert str(outcome).startswith(f"provider did not answer for 'AAPL' ({type(error).__name__}: ")


def test_errors_say_whose_they_are():
    """A source need not name itself and the symbol in its errors; where it does, that stays."""
    outcomes, _ = fetched(Provider(UnknownSymbol(), UnknownSymbol("BRK.B", source="elsewhere")), times=2)
    assert [str(outcome) for outcome in outcomes] == [
        "provider knows no symbol 'AAPL'",
        "elsewhere knows no symbol 'BRK.B'",
    ]


def test_one_who_gives_up_leaves_the_place_to_others():
    """A request that is cancelled ends, and the next one begins."""

    async def work():
        provider = Provider(seconds=1000.0, concurrency=1, timeout=5000)
        guard = Guard(provider, monotonic=asyncio.get_running_loop().time)
        first, second = (asyncio.create_task(guard.fetch(*ASKED)) for _ in range(2))
        await asyncio.sleep(10)
        first.cancel()
        return await asyncio.gather(first, second, return_exceptions=True), provider.begun

    (gone, answered), begun = run_at_once(work())
    assert isinstance(gone, asyncio.CancelledError)
    assert answered is BARS
    assert begun == [0, 10]


def test_a_guard_outlives_its_loop():
    """After one event loop has ended, with requests that waited, the guard is of use in the next."""
    provider = Provider(concurrency=1)
    guard = Guard(provider)

    async def several():
        return await asyncio.gather(*(guard.fetch(*ASKED) for _ in range(3)))

    assert [len(run(several())), len(run(several()))] == [3, 3]


def test_a_fetch_that_does_not_wait_is_refused():
    """A source whose `fetch` is no coroutine would hold up everybody, and is told so."""

    class Hasty:
        name = "hasty"

        def fetch(self, symbol, start, end, interval):
            return BARS

    with pytest.raises(InvalidInput, match="`fetch` is `async def`"):
        run(Guard(Hasty()).fetch(*ASKED))


def test_closing_closes_the_source():
    """A source that has something to close is closed, whether it does so at once or not; others need nothing."""
    closed = []

    class Closing(Provider):
        def close(self):
            closed.append("at once")

    class ClosingLater(Provider):
        async def close(self):
            closed.append("later")

    for provider in (Provider(), Closing(), ClosingLater()):
        run(Guard(provider).close())
    assert closed == ["at once", "later"]


def test_guarded_is_a_fetch():
    """`guarded` returns a fetch like the source's own."""
    assert run(guarded(Provider())(*ASKED)) is BARS
