"""May a request to a provider begin, also in view of what other processes and machines ask of it?"""

import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from tradecache.credentials import SecretURL
from tradecache.forks import fork_safe_lock
from tradecache.outage import Outage
from tradecache.settings import REDIS, Settings
from tradecache.sources.base import Source, traits_of
from tradecache.sources.budgetfile import FileBudget
from tradecache.sources.pace import Limit, Pace, Turn

if TYPE_CHECKING:
    from tradecache.sources.budgetredis import RedisLink

T = TypeVar("T")

MARGIN = 0.05  # seconds, at most, by which a span is kept longer than asked for; of a short one a tenth


class Budget(Protocol):
    """Counts the requests to one provider, and remembers when it wants to be left alone."""

    async def take(self) -> Turn:
        """Take a place for a request that begins now, or say how long to wait before asking again."""

    async def hold(self, seconds: float) -> None:
        """Let no request begin for so many seconds."""


class Level(Budget, Protocol):
    """A budget that is one of several which must all agree; it raises OSError where it cannot be had."""

    async def give_back(self, turn: Turn) -> None:
        """Give back a place that was taken, because the request does not begin."""


class OwnBudget:
    """The budget of this process alone, which never fails.

    Args:
        limit: (requests, seconds); None: no limit.
        monotonic: Seconds of a clock that never runs backwards.
    """

    def __init__(self, limit: Limit, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._pace = Pace(limit)
        self._monotonic = monotonic
        self._alone = fork_safe_lock()

    async def take(self) -> Turn:
        """Take a place for a request that begins now, or say how long to wait before asking again."""
        with self._alone:
            return self._pace.take(self._monotonic())

    def look(self) -> Turn:
        """Say what `take` would say, and take nothing."""
        with self._alone:
            return self._pace.look(self._monotonic())

    async def give_back(self, turn: Turn) -> None:
        """Give back a place that was taken, because the request does not begin."""
        with self._alone:
            self._pace.give_back(turn.place)

    async def hold(self, seconds: float) -> None:
        """Let no request begin for so many seconds."""
        with self._alone:
            self._pace.hold(seconds, self._monotonic())


class Lenient:
    """A budget that is passed over, as if it had room, while it cannot be had."""

    def __init__(self, level: Level, outage: Outage) -> None:
        self._level = level
        self._outage = outage

    async def take(self) -> Turn:
        """Take a place, if there is somebody to ask for one."""
        return await self._tried(self._level.take, otherwise=Turn())

    async def give_back(self, turn: Turn) -> None:
        """Give back a place."""
        await self._tried(lambda: self._level.give_back(turn), otherwise=None)

    async def hold(self, seconds: float) -> None:
        """Let no request begin for so many seconds."""
        await self._tried(lambda: self._level.hold(seconds), otherwise=None)

    async def _tried(self, work: Callable[[], Awaitable[T]], *, otherwise: T) -> T:
        if not self._outage.may_try():
            return otherwise
        try:
            answer = await work()
        except OSError as error:
            self._outage.failed(error)
            return otherwise
        self._outage.went_well()
        return answer


class SharedBudget:
    """Several budgets that must all agree: all machines', then this machine's, then this process's.

    The narrower ones count every request, whatever becomes of the wider ones, so that a limit which cannot
    be shared any more is still kept by each machine, or else by each process. They are asked last, because a
    server may take its time, and theirs is the moment in which the request really begins.

    Args:
        own: This process's.
        wider: The others, the widest first.
    """

    def __init__(self, own: OwnBudget, wider: Sequence[Level]) -> None:
        self._own = own
        self._levels: list[Level] = [*wider, own]

    async def take(self) -> Turn:
        """Take a place with all of them, or with none of them."""
        turn = self._own.look()
        if turn.wait:
            return turn  # without a question to anybody else
        async with contextlib.AsyncExitStack() as taken:  # who is cancelled here has not begun
            for number, level in enumerate(self._levels, start=1):
                turn = await level.take()
                if turn.is_hold:
                    await _hold(self._levels[number:], turn.wait)  # which need not ask again
                if turn.wait:
                    return turn
                taken.push_async_callback(level.give_back, turn)
            taken.pop_all()
        return Turn()

    async def hold(self, seconds: float) -> None:
        """Let no request begin for so many seconds."""
        await _hold(reversed(self._levels), seconds)


async def _hold(levels: Iterable[Level], seconds: float) -> None:
    for level in levels:
        await level.hold(seconds)


ALONE = "each {} keeps to the rate limits by itself"


class Budgets:
    """The budgets of the providers that one cache asks.

    Args:
        folder: Where the processes of this machine count their requests.
        url: The Redis or Valkey server in which all machines count theirs, if there is one.
        monotonic: Seconds of a clock that never runs backwards.
    """

    def __init__(
        self,
        folder: Path,
        *,
        url: SecretURL | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._monotonic = monotonic
        self._link = None if url is None else _link(url)
        self._file_outage, self._redis_outage = (
            Outage(f"the count of requests {where}", instead=ALONE.format(who), monotonic=monotonic)
            for where, who in ((f"in {folder}", "process"), (f"at {url}", "machine"))
        )

    @classmethod
    def configured(cls, settings: Settings) -> Self:
        """Return the budgets that some settings ask for."""
        servers = [url for url in (settings.team_url, settings.memory_url) if url and url.scheme in REDIS]
        return cls(settings.budget_dir, url=servers[0] if servers else None)

    def of(self, source: Source) -> Budget:
        """Return the budget of a source, which all share that have one of the same name."""
        traits = traits_of(source)
        limit = _with_margin(traits.rate_limit)
        name = source.name if traits.budget is None else traits.budget
        own = OwnBudget(limit, monotonic=self._monotonic)
        if not name:
            return own
        wider = [Lenient(FileBudget(self._folder, name, limit), self._file_outage)]
        if self._link is not None:
            wider.insert(0, Lenient(self._link.budget(name, limit), self._redis_outage))
        return SharedBudget(own, wider)

    async def close(self) -> None:
        """Close the connections to the server."""
        if self._link is not None:
            await self._link.close()


def _with_margin(limit: Limit) -> Limit:
    """Return a limit with a longer span: a place is taken some milliseconds before its request really begins."""
    return limit and (limit[0], limit[1] + min(MARGIN, limit[1] / 10))


def _link(url: SecretURL) -> "RedisLink":
    from tradecache.sources.budgetredis import RedisLink  # where there is a server, for what it costs

    return RedisLink(url)
