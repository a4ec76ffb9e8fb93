"""What is a source of bars, and what does it say of itself?"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import pandas as pd

from tradecache.bridge import in_thread
from tradecache.errors import InvalidInput
from tradecache.intervals import interval_of
from tradecache.segments import LOCAL

SETTLE = pd.Timedelta(minutes=15)

Function = Callable[[str, pd.Timestamp, pd.Timestamp, str], Any]
"""A function of (symbol, start, end, interval) that returns a DataFrame, or an awaitable of one."""


@runtime_checkable
class Source(Protocol):
    """Anything that has a name and can fetch bars; what else it may say of itself is in `Traits`.

    `fetch` is given a half-open range [start, end): aware timestamps in UTC for intraday bars, midnights
    without a zone for longer ones. It returns whatever frame the provider gives; an empty one means that
    there were no trades. It raises `NoBars` where it knows why there are none, `RateLimited`,
    `SourceUnavailable` or `UnknownSymbol` where there is no answer.
    """

    @property
    def name(self) -> str:
        """The name under which its bars are kept: the same bars, the same name."""

    async def fetch(self, symbol: str, start: pd.Timestamp, end: pd.Timestamp, interval: str) -> pd.DataFrame:
        """Fetch the bars of one symbol."""


def _unknown(*_: str) -> None:
    """Say nothing of a symbol or an interval."""


def bar_length(interval: str) -> pd.Timedelta:
    """Return how long a bar of an interval is; a month as long as the longest.

    >>> bar_length("5m"), bar_length("1mo")
    (Timedelta('0 days 00:05:00'), Timedelta('31 days 00:00:00'))
    """
    kind = interval_of(interval)
    return pd.Timedelta(kind.next(0) - kind.floor(0), "us")


def _nothing(_: str) -> pd.Timedelta:
    return pd.Timedelta(0)


@dataclass(frozen=True, slots=True)
class Traits:
    """What a source says of itself, each under the attribute's own name; what it does not say is as here.

    Each of the first five may be one value for all symbols and intervals, too.

    Attributes:
        calendar_for: A symbol's market calendar, as exchange_calendars names it; None: open all the time.
        max_range: The longest range of one request for an interval; None: no limit.
        window: How far back from now an interval can be had; None: no limit.
        first: When the bars of a symbol and an interval begin; None: not known.
        merge_gap: Ranges that lie closer are fetched as one, and what is fresh between them again: worth it
            where a request costs much and bars little. Nothing is fetched again by default.
        rate_limit: At most so many requests in so many seconds, of all processes; None: no limit.
        budget: Under which name its requests are counted, together with those of all sources and processes
            that say the same, who are held back together, too. None: the source's name; "": with nobody's.
        concurrency: At most so many requests at once.
        timeout: Seconds after which a request is given up.
        settle: How long after its end a bar may still change.
        adjusted: Whether prices are adjusted for splits and dividends; None: not known.
    """

    calendar_for: Callable[[str], str | None] = _unknown
    max_range: Callable[[str], pd.Timedelta | None] = _unknown
    window: Callable[[str], pd.Timedelta | None] = _unknown
    first: Callable[[str, str], pd.Timestamp | None] = _unknown
    merge_gap: Callable[[str], pd.Timedelta] = _nothing
    rate_limit: tuple[int, float] | None = None
    budget: str | None = None
    concurrency: int = 4
    timeout: float = 30.0
    settle: pd.Timedelta = SETTLE
    adjusted: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what no source can keep to.

        Raises:
            InvalidInput: Naming the attribute.
        """
        if self.concurrency < 1:
            raise InvalidInput("concurrency", self.concurrency, "1 or more")
        if not self.timeout > 0:
            raise InvalidInput("timeout", self.timeout, "a positive number of seconds")
        if self.rate_limit is not None and not (self.rate_limit[0] >= 1 and self.rate_limit[1] > 0):
            raise InvalidInput("rate_limit", self.rate_limit, "(requests, seconds), both positive, or None")
        if not isinstance(self.budget, (str, type(None))):
            raise InvalidInput(
                "budget", self.budget, "a name, None for the source's, or '' for nothing shared"
            )
        if self.settle < pd.Timedelta(0):
            raise InvalidInput("settle", self.settle, "a Timedelta that is not negative")


ANSWERS = ("calendar_for", "max_range", "window", "first", "merge_gap")
"""The traits that are asked with a symbol or an interval."""


def traits_of(source: Source) -> Traits:
    """Return what a source says of itself.

    Raises:
        InvalidInput: Naming an attribute that cannot be.
    """
    said: dict[str, Any] = {
        each.name: getattr(source, each.name) for each in fields(Traits) if hasattr(source, each.name)
    }
    return Traits(**(said | {name: _answer(said[name]) for name in ANSWERS if name in said}))


def _answer(value: Any) -> Callable[..., Any]:
    return value if callable(value) else lambda *_: value


class FunctionSource:
    """A function as a source: async functions are awaited, others run in a thread.

    It may say what it allows as a class may (see `Traits`), in attributes of its own: `f.max_range = ...`.

    Args:
        function: Of (symbol, start, end, interval), returning a DataFrame.
        name: The name under which its bars are kept; the function's own by default.

    Raises:
        InvalidInput: When it takes other arguments, or has no name of its own.
    """

    def __init__(self, function: Function, *, name: str | None = None) -> None:
        self.name = checked_name(_own_name(function) if name is None else name)
        self._function = _taking_four(function)
        said = {
            each.name: getattr(function, each.name) for each in fields(Traits) if hasattr(function, each.name)
        }
        vars(self).update(said)

    async def fetch(self, symbol: str, start: pd.Timestamp, end: pd.Timestamp, interval: str) -> pd.DataFrame:
        """Call the function."""
        if inspect.iscoroutinefunction(self._function):
            answer = self._function(symbol, start, end, interval)
        else:
            answer = await in_thread(self._function, symbol, start, end, interval)
        frame: pd.DataFrame = await answer if inspect.isawaitable(answer) else answer
        return frame

    def __repr__(self) -> str:
        """Show the name."""
        return f"<FunctionSource {self.name}>"


def _own_name(function: Function) -> str:
    name = getattr(function, "__name__", "")
    if not name.isidentifier():
        allowed = "a function with a name of its own; name others with FunctionSource(function, name=...)"
        raise InvalidInput("source", function, allowed)
    return str(name)


def _taking_four(function: Function) -> Function:
    try:
        inspect.signature(function).bind("symbol", "start", "end", "interval")
    except TypeError as error:
        raise InvalidInput("source", function, "a function of (symbol, start, end, interval)") from error
    except ValueError:  # written in C, and keeps its signature to itself
        pass
    return function


def checked_name(name: object) -> str:
    """Return a source's name if bars can be kept under it.

    Raises:
        InvalidInput: For what is no printable str of 1 to 100 characters without white space at its ends,
            or is "local".
    """
    allowed = f"1 to 100 printable characters, and not {LOCAL!r}"
    if not isinstance(name, str) or not 0 < len(name) <= 100 or name == LOCAL:  # noqa: PLR2004
        raise InvalidInput("source.name", name, allowed)
    if not name.isprintable() or name != name.strip():
        raise InvalidInput("source.name", name, allowed)
    return name
