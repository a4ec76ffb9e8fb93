"""How are requests to a provider kept few, patient and honest about what went wrong?"""

import asyncio
import inspect
import logging
import math
import numbers
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pandas as pd

from tradecache.bridge import PerLoop
from tradecache.errors import (
    InvalidInput,
    RateLimited,
    SourceError,
    SourceUnavailable,
    TradeCacheError,
    UnknownSymbol,
)
from tradecache.retries import Retries
from tradecache.sources.base import Source, traits_of
from tradecache.sources.budget import Budget, OwnBudget
from tradecache.sources.pace import LONGEST_HOLD

LONGEST_NAP = 1.0  # seconds; what others were told, and places given back, are known soon

OURS = (AssertionError, AttributeError, ImportError, NameError, NotImplementedError, SyntaxError, TypeError)
"""Errors of the program, not of the provider: to ask again would not help, and would hide them."""

log = logging.getLogger("tradecache")
logging.getLogger("stamina").addHandler(logging.NullHandler())  # else each retry is a line in the notebook

Fetch = Callable[[str, pd.Timestamp, pd.Timestamp, str], Awaitable[pd.DataFrame]]


class Guard:
    """Stands before one source: few requests at once, a rate limit, a time limit, retries.

    Args:
        source: Whom to ask.
        retries: How patiently.
        monotonic: Seconds of a clock that never runs backwards.
        budget: Where its requests are counted; by default for this guard alone, by `monotonic`.
    """

    def __init__(
        self,
        source: Source,
        *,
        retries: Retries | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        budget: Budget | None = None,
    ) -> None:
        self.source = source
        self.traits = traits_of(source)
        self.requests = 0
        """How often the source was asked, retries included."""
        self._retries = retries or Retries()
        self._budget = budget or OwnBudget(self.traits.rate_limit, monotonic=monotonic)
        self._places = PerLoop(lambda: asyncio.Semaphore(self.traits.concurrency))

    async def fetch(self, symbol: str, start: pd.Timestamp, end: pd.Timestamp, interval: str) -> pd.DataFrame:
        """Ask the source for bars, again where that may help.

        Raises:
            SourceError: `RateLimited`, `SourceUnavailable` or `UnknownSymbol`, naming source and symbol; any
                error of the provider's own is the cause of a `SourceUnavailable`.
            NoBars: The source's own answer that there are none, and why.
        """
        async for attempt in self._retries.tries(self._pause_after):
            with attempt:
                return await self._attempt(symbol, start, end, interval)
        raise AssertionError  # stamina raises the last error

    async def close(self) -> None:
        """Close the source, if it has something to close."""
        close = getattr(self.source, "close", None)
        if close is not None:
            closing = close()
            if inspect.isawaitable(closing):
                await closing

    def __repr__(self) -> str:
        """Show the source and how often it was asked."""
        return f"<Guard of {self.source.name}, {self.requests:,} requests>"

    async def _attempt(self, symbol: str, *asked: Any) -> pd.DataFrame:
        async with self._places.here():
            await self._turn(symbol)
            self.requests += 1
            try:
                return await self._answer(symbol, *asked)
            except SourceError as error:
                error.source = error.source or self.source.name
                error.symbol = error.symbol or symbol
                if isinstance(error, RateLimited):
                    error.retry_after = _seconds_of(error)
                    if error.retry_after:
                        await self._budget.hold(error.retry_after)
                raise
            except (TradeCacheError, *OURS):
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                raise SourceUnavailable(reason, source=self.source.name, symbol=symbol) from error

    async def _answer(self, *asked: Any) -> pd.DataFrame:
        limit = asyncio.timeout(self.traits.timeout)
        try:
            async with limit:
                answer: Any = self.source.fetch(*asked)
                if not inspect.isawaitable(answer):
                    raise InvalidInput("source", self.source, "a source whose `fetch` is `async def`")
                frame: pd.DataFrame = await answer
                return frame
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise SourceUnavailable("it cancelled its own request") from error
        except SystemExit as error:
            raise SourceUnavailable(f"it wanted to end the program: {error!r}") from error
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise SourceUnavailable(f"no answer within {self.traits.timeout:g} s") from error

    async def _turn(self, symbol: str) -> None:
        """Wait until the next request may begin.

        Raises:
            RateLimited: When the provider wants to be left alone for longer than anybody would wait.
        """
        turn = await self._budget.take()
        while turn.wait:
            if turn.is_hold and turn.wait > self._retries.patience:
                raise RateLimited(turn.wait, source=self.source.name, symbol=symbol)
            await asyncio.sleep(min(turn.wait, LONGEST_NAP))
            turn = await self._budget.take()

    def _pause_after(self, error: Exception) -> bool:
        """Say whether to ask again, after a pause that grows, and then the rest of what the provider asked for."""
        if isinstance(error, UnknownSymbol) or not isinstance(error, (RateLimited, SourceUnavailable)):
            return False
        log.info("%s", error)
        return not isinstance(error, RateLimited) or (error.retry_after or 0.0) <= self._retries.patience


def _seconds_of(error: RateLimited) -> float | None:
    """Return for how long a provider wants to be left alone; None where it does not say.

    Raises:
        InvalidInput: When a source gave something else than a number, such as the text of a header.
    """
    said: Any = error.retry_after
    if said is None:
        return None
    if not _is_number(said):
        error.retry_after = None  # else it could not be shown
        allowed = (
            "a number of seconds, or None (`retry_after` of tradecache.sources.retryafter reads headers)"
        )
        raise InvalidInput("retry_after", said, allowed) from error
    return None if math.isnan(said) else float(min(max(said, 0.0), LONGEST_HOLD))


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def guarded(source: Source) -> Fetch:
    """Return a source's `fetch` behind a guard of its own."""
    return Guard(source).fetch
