"""Until when is what was fetched still fresh? No I/O and no clock: each moment is an argument.

A policy is given a range of labels that a source has answered for, and cuts it into parts:

    policy.verdict((start, end), interval=..., calendar=..., fetched_at=..., key=..., settle=..., outcome=...)

returns `Verdict(start, end, fresh_until)`s, in order, that cover the range exactly; `fresh_until` is None for
what is final. Moments and lengths are microseconds; labels are as in `timeline`: true UTC for intraday bars,
midnights as if in UTC for longer ones. `fetched_at` is when the request was sent, not when its answer came.

Whatever the policy: a bar that was still forming, or fetched before it had been closed for `settle`, is not
final. And calendars are not believed where that could freeze a bar too early (see `calendars.closed_by`).
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import NamedTuple, Protocol

import xxhash

from tradecache.calendars import DAY, NEAR, Calendar, Session, closed_by
from tradecache.clock import TTL, checked_ttl
from tradecache.errors import InvalidInput
from tradecache.intervals import MINUTE, SECOND, Interval
from tradecache.timeline import BARS, Range

HOUR = 60 * MINUTE
LONGEST = 2 * DAY  # from the label of a day until it is surely over
SHORT = 10 * SECOND


class Verdict(NamedTuple):
    """A part of what was fetched, and until when it is fresh; None: for ever."""

    start: int
    end: int
    fresh_until: int | None


class Recheck(NamedTuple):
    """When to ask again why there are no bars: `after` so long, until what is missing is `final_age` old."""

    after: int
    final_age: int | None


RECHECKS = {
    "closed": Recheck(after=DAY, final_age=7 * DAY),
    "no_trades": Recheck(after=DAY, final_age=14 * DAY),  # some providers publish a bar days later
    "empty": Recheck(after=DAY, final_age=None),  # nothing came, and no reason: it may have been a hiccup
    "before_listing": Recheck(after=DAY, final_age=30 * DAY),
    "outside_window": Recheck(after=7 * DAY, final_age=None),  # says nothing of the history itself
}
"""Why there can be no bars, each with its own time to ask again."""


class Change(NamedTuple):
    """When bars that are not final will be others.

    Attributes:
        at: When it is known to happen: a market opens, or a bar has closed and settled.
        maybe: When a bar next closes, where each answer until then may differ; None where none can.
    """

    at: int
    maybe: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a policy is told of an answer: for which labels [start, end) of which bars, and when it was asked.

    Attributes:
        start: The first label that was asked for.
        end: The first label after it.
        interval: How long a bar is.
        calendar: When the market is open, as a hint.
        fetched_at: When the source was asked.
        settle: How long after its close a bar may still change.
        key: The name of the series.
    """

    start: int
    end: int
    interval: Interval
    calendar: Calendar
    fetched_at: int
    settle: int
    key: str

    def changing_from(self) -> int:
        """Return the first label from which on bars may still change; `end` when there is none."""
        settled = self.fetched_at - self.settle
        if self.interval.is_intraday:
            first = (settled - self.interval.microseconds) // MINUTE * MINUTE + MINUTE
        elif self.interval.next(self.end - 1) + LONGEST <= settled:
            return self.end  # as mostly, and no calendar has to be looked at
        else:
            first = self.interval.floor(self._unfinished_day(settled))
        return min(max(first, self.start), self.end)

    def changes(self, first: int) -> Change:
        """Return when bars labelled `first` or later will next be others than they are."""
        session, over = self._unsettled_session(first)
        begins = max(session.open, first) if self.interval.is_intraday else session.open
        if self.fetched_at < begins:
            return Change(begins, None)
        settled = session.close + self.settle
        if self.fetched_at >= settled:
            return Change(over, None)  # a half-day, which is believed only when a whole one would be over
        if not self.interval.is_intraday or not self.calendar.is_open(self.fetched_at):
            return Change(settled, settled)
        next_one = self.interval.next(self.fetched_at - self.settle)
        settled = max(next_one, first + self.interval.microseconds) + self.settle
        is_forming = self.fetched_at < self.end
        return Change(settled, self.interval.next(self.fetched_at) if is_forming else settled)

    def _unfinished_day(self, settled: int) -> int:
        """Return the first date whose trading was not over at a moment."""
        today = settled // DAY * DAY
        sessions = self.calendar.sessions(today - LONGEST - NEAR, today + LONGEST + NEAR)
        days = range(today - LONGEST, today + LONGEST, DAY)
        return next((day for day in days if closed_by(day, sessions) > settled), today + LONGEST)

    def _unsettled_session(self, first: int) -> tuple[Session, int]:
        """Return the first session whose bars from `first` on were not final, and when they are."""
        earliest = max(self.fetched_at - self.settle, first) // DAY * DAY - LONGEST
        sessions = self.calendar.sessions(earliest - NEAR, earliest + 2 * NEAR)
        for session in sessions:
            over = closed_by(session.date, sessions) + self.settle
            last_label = session.close - 1 if self.interval.is_intraday else session.date
            if session.date >= earliest and last_label >= first and over > self.fetched_at:
                return session, over
        quiet = max(self.fetched_at, first) + NEAR  # nothing is expected for two weeks: look again then
        return Session(quiet // DAY * DAY, quiet, quiet + DAY), quiet + DAY


class Freshness(Protocol):
    """What says until when answers are fresh."""

    def verdict(
        self,
        label_range: Range,
        *,
        interval: Interval,
        calendar: Calendar,
        fetched_at: int,
        key: str = "",
        settle: int = 0,
        outcome: str = BARS,
    ) -> list[Verdict]:
        """Return parts that cover the range exactly, in order, each with until when it is fresh."""

    def refresh_at(self, fetched_at: int, fresh_until: int | None, *, requests: int) -> int | None:
        """Return from when on it should be fetched anew before it expires; None: not before."""


@dataclass(frozen=True, slots=True)
class Policy(Freshness):
    """What the policies below have in common. One of your own says `closed` and `changing`.

    Attributes:
        jitter: By up to which share lives are cut short, so that what was fetched together does not expire
            in one instant. A market's opening or a bar's close far ahead is anticipated by up to a minute,
            one within the hour not at all: it would have to be asked for twice.
        seed: Another number, another cut for each series.
    """

    jitter: float = field(default=0.1, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        if not 0 <= self.jitter < 1:
            raise InvalidInput("jitter", self.jitter, "a share from 0 up to, but not including, 1")

    @abstractmethod
    def closed(self, answer: Answer, first: int) -> list[Verdict]:
        """Return parts that cover the labels before `first`, whose bars have closed and settled."""

    @abstractmethod
    def changing(self, answer: Answer, first: int) -> int:
        """Return until when the bars labelled `first` or later are fresh."""

    def settling(self, settle: int) -> int:
        """Return for how long a closed bar may still change, where the source says `settle`."""
        return settle

    def verdict(
        self,
        label_range: Range,
        *,
        interval: Interval,
        calendar: Calendar,
        fetched_at: int,
        key: str = "",
        settle: int = 0,
        outcome: str = BARS,
    ) -> list[Verdict]:
        """Return parts that cover the range exactly, in order, each with until when it is fresh.

        Args:
            label_range: For which labels [start, end) the source has answered.
            interval: How long a bar is.
            calendar: When the market is open, as a hint.
            fetched_at: When the source was asked.
            key: The name of the series, which decides on the jitter.
            settle: How long after its close a bar may still change, as the source says.
            outcome: "bars", or why there are none in all of the range: one of `RECHECKS`.

        Raises:
            InvalidInput: For another outcome, such as an error, which is no answer.
        """
        if outcome != BARS and outcome not in RECHECKS:
            raise InvalidInput("outcome", outcome, f"one of {BARS}, {', '.join(RECHECKS)}")
        start, end = label_range
        if start >= end:
            return []
        answer = Answer(start, end, interval, calendar, fetched_at, self.settling(settle), key)
        first = answer.changing_from()
        parts = self.closed(answer, first) if start < first else []
        if outcome != BARS:
            parts = [piece for part in parts for piece in self._absent(answer, part, RECHECKS[outcome])]
        if first < end:
            parts.append(Verdict(first, end, self.changing(answer, first)))
        return _joined(parts)

    def refresh_at(self, fetched_at: int, fresh_until: int | None, *, requests: int) -> int | None:  # noqa: ARG002
        """Return None: what expires is fetched when it is next asked for."""
        return None

    def after(self, answer: Answer, length: int) -> int:
        """Return the moment at most `length` after an answer was asked for, cut short by jitter."""
        return answer.fetched_at + max(1, length - int(self._luck(answer) * self.jitter * length))

    def until_change(self, answer: Answer, first: int, *, length: int | None) -> int:
        """Return when bars labelled `first` or later change, at most `length` ahead while they may."""
        at, maybe = answer.changes(first)
        ahead = at - answer.fetched_at
        if ahead >= HOUR:
            at -= int(self._luck(answer) * min(self.jitter * ahead, MINUTE))
        return at if maybe is None or length is None else min(at, maybe, self.after(answer, length))

    def _luck(self, answer: Answer) -> float:
        """Return a number from 0 up to 1 that is the series' own."""
        name = f"{self.seed}/{answer.key}".encode("utf-8", "surrogatepass")
        return xxhash.xxh3_64_intdigest(name) / 2**64

    def _absent(self, answer: Answer, part: Verdict, recheck: Recheck) -> list[Verdict]:
        """Return a part of the range that has no bars, asked for again until it is old enough."""
        again = self.after(answer, recheck.after)
        if part.fresh_until is not None:
            return [part._replace(fresh_until=min(part.fresh_until, again))]
        if recheck.final_age is None:
            return [part._replace(fresh_until=again)]
        old = answer.interval.floor(answer.fetched_at - recheck.final_age)
        return _cut(part.start, part.end, [old], [None, again])


@dataclass(frozen=True, slots=True)
class Final(Policy):
    """Closed bars stay for ever, others until the next one has closed."""

    def closed(self, answer: Answer, first: int) -> list[Verdict]:
        """Return one part, for ever."""
        return [Verdict(answer.start, first, None)]

    def changing(self, answer: Answer, first: int) -> int:
        """Return when the next of them has closed, or the market opens."""
        return self.until_change(answer, first, length=None)


@dataclass(frozen=True, slots=True)
class FixedTTL(Policy):
    """Each answer is fresh for so many seconds, closed bars as well, and nothing is ever final."""

    seconds: TTL

    def __post_init__(self) -> None:
        """Refuse what is no time to live."""
        _micros(self.seconds)
        Policy.__post_init__(self)  # `super()` does not know the class that slots make

    def closed(self, answer: Answer, first: int) -> list[Verdict]:
        """Return one part."""
        return [Verdict(answer.start, first, self.changing(answer, first))]

    def changing(self, answer: Answer, first: int) -> int:  # noqa: ARG002
        """Return the end of that time."""
        return self.after(answer, _micros(self.seconds))


@dataclass(frozen=True, slots=True)
class BarClose(Policy):
    """Closed bars stay for ever; others until they close, or for `ttl`, or until a shut market opens.

    Attributes:
        ttl: For how long a forming bar is good enough: seconds, or a timedelta.
        settle: How long after its close a bar may still change; a source that says longer is believed.
    """

    ttl: TTL = 300.0
    settle: TTL | None = None

    def __post_init__(self) -> None:
        """Refuse what is no time to live."""
        checked_ttl(self.ttl)
        checked_ttl(self.settle)
        Policy.__post_init__(self)

    def settling(self, settle: int) -> int:
        """Return the longer one of the source's time and the policy's."""
        return settle if self.settle is None else max(settle, _micros(self.settle))

    def closed(self, answer: Answer, first: int) -> list[Verdict]:
        """Return one part, for ever."""
        return [Verdict(answer.start, first, None)]

    def changing(self, answer: Answer, first: int) -> int:
        """Return the first of: the end of `ttl`, the next close, the next opening."""
        return self.until_change(answer, first, length=_micros(self.ttl))


@dataclass(frozen=True, slots=True)
class AgeTTL(Policy):
    """The older a bar, the longer it is fresh: for providers that go on correcting what they have sent.

    Attributes:
        steps: Pairs of an age and the time to live of what is younger, the youngest first.
        beyond: The time to live of what is older than each of them; None: for ever.
    """

    steps: tuple[tuple[TTL, TTL], ...] = (
        (timedelta(days=1), timedelta(minutes=5)),
        (timedelta(days=30), timedelta(days=1)),
        (timedelta(days=365), timedelta(days=30)),
    )
    beyond: TTL | None = None

    def __post_init__(self) -> None:
        """Refuse what is no time to live, and steps in another order."""
        ages = [_micros(age) for age, ttl in self.steps if _micros(ttl)]
        checked_ttl(self.beyond)
        if not ages or any(older <= younger for younger, older in pairwise(ages)):
            raise InvalidInput("steps", self.steps, "pairs of (age, ttl), the youngest first")
        Policy.__post_init__(self)

    def closed(self, answer: Answer, first: int) -> list[Verdict]:
        """Return a part for each step that the range touches."""
        steps = [(_micros(age), _micros(ttl)) for age, ttl in reversed(self.steps)]
        edges = [answer.interval.floor(answer.fetched_at - age) for age, _ in steps]
        oldest = None if self.beyond is None else self.after(answer, _micros(self.beyond))
        return _cut(answer.start, first, edges, [oldest, *(self.after(answer, ttl) for _, ttl in steps)])

    def changing(self, answer: Answer, first: int) -> int:  # noqa: ARG002
        """Return the end of the youngest step's time to live."""
        return self.after(answer, _micros(self.steps[0][1]))


@dataclass(frozen=True, slots=True)
class Adaptive(Freshness):
    """As another policy, but what is asked for often is fetched anew before it expires.

    Attributes:
        base: The policy that says until when answers are fresh.
        hot: So many requests since the last fetch make a series hot.
        ahead: By which share of its life before its end it is fetched anew, a minute at most.
    """

    base: Freshness = field(default_factory=BarClose)
    hot: int = 3
    ahead: float = 0.2

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        if not 0 < self.ahead < 1:
            raise InvalidInput("ahead", self.ahead, "a share between 0 and 1")

    def verdict(
        self,
        label_range: Range,
        *,
        interval: Interval,
        calendar: Calendar,
        fetched_at: int,
        key: str = "",
        settle: int = 0,
        outcome: str = BARS,
    ) -> list[Verdict]:
        """Return what the other policy says."""
        return self.base.verdict(
            label_range,
            interval=interval,
            calendar=calendar,
            fetched_at=fetched_at,
            key=key,
            settle=settle,
            outcome=outcome,
        )

    def refresh_at(self, fetched_at: int, fresh_until: int | None, *, requests: int) -> int | None:
        """Return from when on a hot series should be fetched anew; None when it is not hot, or final.

        A life of less than `SHORT` is lived to its end: it was cut short by a close or an opening, before
        which there is nothing new.
        """
        if fresh_until is None or requests < self.hot or fresh_until - fetched_at < SHORT:
            return None
        return fresh_until - int(min(self.ahead * (fresh_until - fetched_at), MINUTE))


def _cut(start: int, end: int, edges: Sequence[int], untils: Sequence[int | None]) -> list[Verdict]:
    """Return [start, end) cut at those of the ordered `edges` that lie within, with one of `untils` each."""
    inner = (min(max(edge, start), end) for edge in edges)
    parts = zip(pairwise([start, *inner, end]), untils, strict=True)
    return [Verdict(first, last, until) for (first, last), until in parts if first < last]


def _joined(parts: Sequence[Verdict]) -> list[Verdict]:
    """Return parts in which neighbours are not fresh for equally long."""
    result: list[Verdict] = []
    for part in parts:
        if result and result[-1].fresh_until == part.fresh_until:
            result[-1] = result[-1]._replace(end=part.end)
        else:
            result.append(part)
    return result


def _micros(ttl: TTL) -> int:
    seconds = checked_ttl(ttl)
    return 0 if seconds is None else max(1, round(seconds * SECOND))
