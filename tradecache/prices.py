"""How are price points stored, found by id, by symbol and by time, and shown as a frame?"""

import logging
import time
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, SupportsFloat

import pandas as pd
from key_value.aio.adapters.pydantic import PydanticAdapter
from key_value.aio.protocols.key_value import AsyncEnumerateCollectionsProtocol
from pydantic import ValidationError

from tradecache.clock import MICRO, TTL, Clock, checked_ttl
from tradecache.errors import InvalidPrices, NotEnumerable
from tradecache.listing import ENUMERATION_CAP, entries_of
from tradecache.models import (
    PriceData,
    checked_id,
    checked_symbol,
    is_symbol,
    new_ids,
    point_value,
    price_point,
    stamp,
    validated_point,
)
from tradecache.naming import OF_POINTS, PRICES
from tradecache.points import POINTS, Fault, Latest, columns_of, point_in, points_between, points_frame
from tradecache.ranges import Moment, first_moment, last_moment
from tradecache.stack import Stack
from tradecache.steps import in_steps
from tradecache.stores.abilities import Entry, Item, Ordered
from tradecache.telemetry import SERVED_BY, Telemetry, Timed, size_of_rows

log = logging.getLogger("tradecache")

COLUMNS = 2  # price, volume
POINT_BYTES = size_of_rows(1, COLUMNS)


class PointAdapter(PydanticAdapter[PriceData]):
    """Reads and writes points without the adapter's run-time type checks, which cost more than the work."""

    async def point(self, key: str, *, collection: str) -> PriceData | None:
        """Return a point; what is stored but is no point is a logged miss."""
        value = await self._key_value.get(key, collection=collection)
        if value is None:
            return None
        try:
            point: PriceData = validated_point(value)
        except ValidationError as error:
            log.warning("%r in %r is no price point: %s", key, collection, error.errors(include_input=False))
            return None
        return point

    async def put(
        self, key: str, value: PriceData, *, collection: str | None = None, ttl: SupportsFloat | None = None
    ) -> None:
        """Store a point."""
        await self._key_value.put(key, point_value(value, mode="json"), collection=collection, ttl=ttl)


class PriceBook:
    """Price points in the collections `symbol:<symbol>`, under ids that sort by timestamp."""

    def __init__(
        self, stack: Stack, *, clock: Clock, telemetry: Telemetry, default_ttl: float | None
    ) -> None:
        self._stack = stack
        self._clock = clock
        self._telemetry = telemetry
        self._default_ttl = default_ttl

    @cached_property
    def _adapter(self) -> PointAdapter:
        adapter: PointAdapter = PointAdapter(self._stack.points, PriceData)
        return adapter

    async def store(
        self,
        symbol: str,
        price: float,
        volume: float,
        *,
        timestamp: datetime | None = None,
        ttl: TTL | None = None,
    ) -> str:
        """Store one point; return its id."""
        moment = self._clock.now() if timestamp is None else timestamp
        point = price_point(symbol=symbol, price=price, volume=volume, timestamp=moment)
        seconds = self._ttl(ttl)
        (data_id,) = new_ids([stamp(point.timestamp)])
        with self._timed("put", symbol) as timed:
            await self._adapter.put(data_id, point, collection=OF_POINTS + symbol, ttl=seconds)
            timed.served("disk", rows=1)
        return data_id

    async def store_frame(self, frame: pd.DataFrame, *, ttl: TTL | None = None) -> pd.Index:
        """Store every row of a frame, or none; return the ids in the frame's order."""
        columns = columns_of(frame)
        seconds = self._ttl(ttl)
        items: list[Item] = []
        faults: list[Fault] = []
        async for some in in_steps(range(len(frame))):
            points, wrong = points_between(columns, some)
            faults += wrong
            items += _items(points)
        if faults:
            raise InvalidPrices(faults)
        ids = [data_id for _, data_id, _ in items]
        with self._timed("put", "") as timed:
            await self._stack.put_all(items, ttl=seconds)
            timed.served("disk", rows=len(items))
        return pd.Index(ids, dtype="str", name="id")

    async def get(self, symbol: str, data_id: str) -> PriceData | None:
        """Return one point, None when there is none or it has expired."""
        collection = OF_POINTS + checked_symbol(symbol)
        checked_id(data_id)
        began = time.perf_counter()
        try:
            point: PriceData | None = await self._adapter.point(data_id, collection=collection)
        except GeneratorExit:  # it is asked again where it can wait
            raise
        except BaseException:
            self._telemetry.record("get", PRICES, symbol, "error", 0, 0, time.perf_counter() - began)
            raise
        found = int(point is not None)
        tier = SERVED_BY.get() if found else "none"
        size, seconds = found * POINT_BYTES, time.perf_counter() - began
        self._telemetry.record("get", PRICES, symbol, tier, found, size, seconds)
        return point

    async def warm(self, symbol: str) -> int:
        """Read every live point of a symbol through both tiers; return how many there were."""
        collection = OF_POINTS + checked_symbol(symbol)
        count = 0
        with self._timed("warm", symbol) as timed:
            async for some in in_steps(await self._scan(collection)):
                points = [await self._adapter.point(entry.key, collection=collection) for entry in some]
                count += sum(point is not None for point in points)
            timed.served("disk" if count else "none", rows=count)
        return count

    def answers_at_once(self, symbol: str, data_id: str) -> bool:
        """Whether `get` can be answered in any thread, without an event loop: by memory or by a folder."""
        return self._stack.points_at_once or self._stack.tiers.holds_all(
            [checked_id(data_id)], collection=OF_POINTS + checked_symbol(symbol)
        )

    async def latest(self, symbol: str) -> Latest | None:
        """Return the newest live point of a symbol and its TTL."""
        collection = OF_POINTS + checked_symbol(symbol)
        with self._timed("latest", symbol) as timed:
            found = await self._newest(collection)
            timed.served("disk" if found else "none", rows=int(found is not None))
        return found

    async def delete(self, symbol: str, data_id: str) -> bool:
        """Delete one point; return whether there was one."""
        collection = OF_POINTS + checked_symbol(symbol)
        checked_id(data_id)
        with self._timed("delete", symbol) as timed:
            deleted: bool = await self._adapter.delete(data_id, collection=collection)
            timed.served("disk" if deleted else "none", rows=int(deleted))
        return deleted

    async def _newest(self, collection: str) -> Latest | None:
        for last in (1, None):  # the newest entry may be damaged: then look at all of them
            for entry in reversed(await self._scan(collection, last=last)):
                point = point_in(entry)
                if point is not None:
                    left = (
                        None
                        if entry.expires is None
                        else max(0, entry.expires - self._clock.micros()) / MICRO
                    )
                    return Latest(point, left)
        return None

    async def symbols(self) -> list[str]:
        """Return the symbols that have points, in order."""
        store = self._stack.listed
        if not isinstance(store, AsyncEnumerateCollectionsProtocol):
            raise NotEnumerable(self._stack.durable)
        names = await self._stack.retrying.call(store.collections)
        if not isinstance(store, Ordered) and len(names) >= ENUMERATION_CAP:
            raise NotEnumerable(self._stack.durable)
        symbols = (name.removeprefix(OF_POINTS) for name in names if name.startswith(OF_POINTS))
        return sorted(symbol for symbol in symbols if is_symbol(symbol))  # a damaged row may name another

    async def frame(
        self, symbols: Sequence[str] | None = None, start: Moment | None = None, end: Moment | None = None
    ) -> pd.DataFrame:
        """Return the live points of some symbols in a range of time, as `TradeCache.prices` describes."""
        wanted = await self.symbols() if symbols is None else [checked_symbol(symbol) for symbol in symbols]
        bounds = _bounds(start, end)
        with self._timed("prices", wanted[0] if len(wanted) == 1 else "") as timed:
            result = await self._frame(wanted, **bounds)
            timed.served("disk" if len(result) else "none", rows=len(result))
        return result

    async def lifetimes(self, symbols: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the live points of some symbols, as `frame` does, without counting that as a request."""
        return await self._frame(await self.symbols() if symbols is None else symbols)

    async def _frame(self, symbols: Sequence[str], **bounds: Any) -> pd.DataFrame:
        parts = [
            points_frame(await self._scan(OF_POINTS + symbol, **bounds)) for symbol in dict.fromkeys(symbols)
        ]
        filled = [part for part in parts if len(part)]
        if len(filled) < 2:  # noqa: PLR2004 - nothing to put together
            return (filled or [points_frame([])])[0]
        return pd.concat(filled).sort_index(kind="stable")

    async def invalidate(
        self, symbols: Sequence[str], start: Moment | None, end: Moment | None
    ) -> dict[str, int]:
        """Delete the live points of some symbols in a range of time; return how many, by symbol."""
        bounds = _bounds(start, end)
        counts: dict[str, int] = {}
        for symbol in symbols:
            collection = OF_POINTS + checked_symbol(symbol)
            with self._timed("delete", symbol) as timed:
                keys = [entry.key for entry in await self._scan(collection, **bounds)]
                counts[symbol] = await self._adapter.delete_many(keys, collection=collection)
                timed.served("disk" if counts[symbol] else "none", rows=counts[symbol])
        return counts

    def _timed(self, operation: str, symbol: str) -> Timed:
        return Timed(self._telemetry, operation, PRICES, symbol, columns=COLUMNS)

    def _ttl(self, ttl: TTL | None) -> float | None:
        return checked_ttl(self._default_ttl if ttl is None else ttl)

    async def _scan(self, collection: str, **bounds: Any) -> list[Entry]:
        return await entries_of(self._stack, collection, clock=self._clock, **bounds)


def _bounds(start: Moment | None, end: Moment | None) -> dict[str, str | None]:
    """Return the first id of a range of time, and the first that is behind it."""
    first, last = first_moment(start), last_moment(end)
    return {"start": stamp(first) if first else "", "end": stamp(last) + "." if last else None}


def _items(points: Sequence[PriceData]) -> list[Item]:
    """Return points as entries, each with an id of its own."""
    ids = new_ids([stamp(point.timestamp) for point in points])
    values = POINTS.dump_python(list(points), mode="json")
    return [(OF_POINTS + p.symbol, i, v) for p, i, v in zip(points, ids, values, strict=True)]
