"""How are shared places of final bars asked before a source, and kept up to date, without ever being in the way?"""

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

from tradecache.bridge import in_time
from tradecache.claims import Claims, claimed
from tradecache.errors import InvalidInput, NotStorable, UnknownKey
from tradecache.outage import Outage, say_away
from tradecache.segments import Series
from tradecache.shelves import Piece, Shelf, without
from tradecache.timeline import Range

T = TypeVar("T")

log = logging.getLogger("tradecache")

PATIENCE = 2.0  # seconds for an answer; a source is asked instead then
PAUSES = (
    10.0,
    120.0,
)  # seconds until one request waits for an answer again: a server that hangs costs them all of it
TO_KEEP = 4  # times as long as for an answer: there may be much to keep


class Place(NamedTuple):
    """A shelf, and on which server its claims are.

    Attributes:
        role: What it is to the cache: "team" or "archive".
        shelf: The shelf.
        claims: Where it is told who asks a source; None: nowhere.
        close: Lets go of what it is made of.
        renew: The same after a fault, where it would be of no use any more; None where it is.
        called: Returns what the claim on a series is called: its collection, or what hides it.
    """

    role: str
    shelf: Shelf
    claims: Claims | None = None
    close: Callable[[], Coroutine[Any, Any, object]] | None = None
    renew: Callable[[], Coroutine[Any, Any, object]] | None = None
    called: Callable[[str], str] = str


class Shelving:
    """Several shelves, asked in turn for what is not known yet, each of which may be away.

    Args:
        places: The shelves, the quickest first.
        patience: Seconds for an answer of one of them.
    """

    def __init__(self, places: Sequence[Place], *, patience: float = PATIENCE) -> None:
        self._places = places
        self._patience = patience
        self._said: set[str] = set()
        self._outages = self._made("", instead="sources are asked as if it were not there")
        self._refusals = self._made("a write to ", instead="what is fetched is not shared")
        self._claiming = self._made("a claim at ", instead="sources may be asked by several at once")

    def _made(self, what: str, *, instead: str) -> dict[str, Outage]:
        names = [place.shelf.name for place in self._places]
        return {name: Outage(what + name, instead=instead, pauses=PAUSES) for name in names}

    def __bool__(self) -> bool:
        """Whether there is a shelf at all."""
        return bool(self._places)

    def states(self) -> dict[str, bool]:
        """Return for each place, by its role, whether it is believed to answer."""
        return {place.role: not self._outages[place.shelf.name].is_on for place in self._places}

    async def ask(self, series: Series, ranges: Sequence[Range]) -> list[Piece]:
        """Return what the shelves know of some ranges, in order; nothing where none answers."""
        found: list[Piece] = []
        missing = list(ranges)
        for place in self._places:
            if missing:
                ask = partial(_asked, series=series, ranges=missing)
                outage = self._outages[place.shelf.name]
                found += await self._tried(place, ask, outage, patience=self._patience) or []
                missing = without(ranges, found)
        return sorted(found, key=lambda piece: piece.start)

    async def keep(self, series: Series, pieces: Sequence[Piece]) -> None:
        """Have each shelf keep final pieces; what one does not take is logged."""
        for place in self._places:
            name = place.shelf.name
            if pieces and not self._outages[name].is_on:
                keep = partial(_kept, series=series, pieces=pieces)
                await self._tried(place, keep, self._refusals[name], patience=TO_KEEP * self._patience)

    @asynccontextmanager
    async def alone(self, series: Series) -> AsyncIterator[None]:
        """Wait until no other machine asks a source for a series, where the shelves can tell."""
        async with contextlib.AsyncExitStack() as held:
            for place in self._places:
                if place.claims is not None and not self._outages[place.shelf.name].is_on:
                    await self._claimed(held, place, place.claims, series)
                    break
            yield

    async def close(self) -> None:
        """Let go of connections; what cannot be closed, because its server is away, is logged."""
        for place in self._places:
            for close in (place.shelf.close, place.close):
                if close is not None:
                    await self._closed(place, close)

    async def _closed(self, place: Place, close: Callable[[], Coroutine[Any, Any, object]]) -> None:
        try:
            await in_time(close(), self._patience)
        except Exception as error:
            log.debug("%s could not be closed", place.shelf.name, exc_info=error)

    def _refused(self, shelf: Shelf, error: Exception) -> None:
        """Say once what is wrong with a shelf that answers, but with nothing that can be used."""
        said = f"{shelf.name} is of no use here, and sources are asked instead: {error}"
        if said not in self._said:
            self._said.add(said)
            say_away(said)

    async def _renewed(self, place: Place) -> None:
        if place.renew is not None:
            await self._closed(place, place.renew)

    async def _claimed(
        self, held: contextlib.AsyncExitStack, place: Place, claims: Claims, series: Series
    ) -> None:
        outage = self._claiming[place.shelf.name]
        if not outage.may_try():
            return
        try:
            await held.enter_async_context(claimed(claims, place.called(series.collection)))
        except Exception as error:  # noqa: BLE001 - any client's: to ask at the same time as another is no harm
            outage.failed(error)
            await self._renewed(place)
        else:
            outage.went_well()

    async def _tried(
        self,
        place: Place,
        work: Callable[[Shelf], Coroutine[Any, Any, T]],
        outage: Outage,
        *,
        patience: float,
    ) -> T | None:
        """Return what a shelf answers; None while it is away."""
        shelf = place.shelf
        if not outage.may_try():
            return None
        try:
            answer = await in_time(work(shelf), patience)
        except (InvalidInput, NotStorable, UnknownKey) as error:
            self._refused(shelf, error)
            return None
        except Exception as error:
            log.debug("%s raised", shelf.name, exc_info=error)
            outage.failed(error)
            await self._renewed(place)
            return None
        outage.went_well()
        return answer


async def _asked(shelf: Shelf, *, series: Series, ranges: Sequence[Range]) -> list[Piece]:
    return await shelf.ask(series, ranges)


async def _kept(shelf: Shelf, *, series: Series, pieces: Sequence[Piece]) -> None:
    await shelf.keep(series, pieces)
