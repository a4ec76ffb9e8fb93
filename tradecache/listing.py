"""Which live entries does a collection have, in the order of their keys?"""

from key_value.aio.protocols.key_value import AsyncEnumerateKeysProtocol
from pydantic_core import to_json

from tradecache.clock import Clock, lifetime
from tradecache.errors import NotEnumerable
from tradecache.stack import Stack
from tradecache.stores.abilities import Entry, Ordered

ENUMERATION_CAP = 10_000  # py-key-value's stores list no more keys than this, silently


async def entries_of(
    stack: Stack,
    collection: str,
    *,
    clock: Clock,
    start: str = "",
    end: str | None = None,
    last: int | None = None,
) -> list[Entry]:
    """Return the live entries of a collection with `start` <= key < `end`, or the `last` few of them.

    Raises:
        NotEnumerable: When the durable store cannot list its keys, or has more than it lists.
    """
    store = stack.listed
    if isinstance(store, Ordered):
        return await stack.retrying.call(store.scan, collection, start=start, end=end, last=last)
    entries = await _entries_unordered(stack, collection, clock=clock, start=start, end=end)
    return entries if last is None else entries[-last:]


async def _entries_unordered(
    stack: Stack, collection: str, *, clock: Clock, start: str, end: str | None
) -> list[Entry]:
    """Do with `keys` and `ttl_many` what a store without order cannot do at once."""
    store = stack.listed
    if not isinstance(store, AsyncEnumerateKeysProtocol):
        raise NotEnumerable(stack.durable)
    keys = await store.keys(collection)
    if len(keys) >= ENUMERATION_CAP:
        raise NotEnumerable(stack.durable)
    wanted = sorted(key for key in keys if key >= start and (end is None or key < end))
    found = await stack.retrying.ttl_many(wanted, collection=collection)
    now = clock.micros()
    return [
        Entry(key, to_json(value), 0, None if ttl is None else now + lifetime(ttl))
        for key, (value, ttl) in zip(wanted, found, strict=True)
        if value is not None
    ]
