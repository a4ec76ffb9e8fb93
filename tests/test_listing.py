"""Entries in the order of their keys, from stores that know an order and from others."""

import pytest
from clocks import FakeClock
from key_value.aio.stores.memory import MemoryStore
from loops import run

from tradecache import NotEnumerable, Settings
from tradecache.clock import Clock
from tradecache.listing import ENUMERATION_CAP, entries_of
from tradecache.stack import build_stack

KEYS = ["d", "a", "c", "b"]


@pytest.fixture(params=["folder", "any store"])
def listed(request, tmp_path):
    """Return what lists four entries, one of which lives for a minute, from either kind of store."""
    clock = Clock(FakeClock())
    durable = None if request.param == "folder" else MemoryStore()
    stack = build_stack(Settings(cache_dir=tmp_path), clock=clock, durable=durable)
    for key in KEYS:
        run(stack.durable.put(key, {"n": key}, collection="some", ttl=60 if key == "c" else None))

    return lambda **bounds: run(entries_of(stack, "some", clock=clock, **bounds))


def keys(entries) -> str:
    return "".join(entry.key for entry in entries)


def test_in_order(listed):
    """Entries come in the order of their keys, with their values as JSON."""
    entries = listed()

    assert keys(entries) == "abcd"
    assert entries[0].value == b'{"n":"a"}'


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        ({"start": "b"}, "bcd"),
        ({"end": "c"}, "ab"),
        ({"start": "b", "end": "d"}, "bc"),
        ({"start": "x"}, ""),
        ({"last": 2}, "cd"),
        ({"end": "c", "last": 1}, "b"),
        ({"last": 9}, "abcd"),
    ],
    ids=str,
)
def test_bounds(listed, bounds, found):
    """The start is included, the end is not, and the last few are the last of those."""
    assert keys(listed(**bounds)) == found


def test_lives(listed):
    """Entries tell when they expire, None for ever."""
    assert [entry.expires is not None for entry in listed()] == [False, False, True, False]


def test_too_many_to_be_sure():
    """A store that lists no more than ten thousand keys may have more: that is an error, not a short answer."""
    clock, store = Clock(FakeClock()), MemoryStore()
    stack = build_stack(Settings(), clock=clock, durable=store)
    keys = [f"{n:05}" for n in range(ENUMERATION_CAP)]
    run(store.put_many(keys, [{"n": 1}] * len(keys), collection="some"))

    with pytest.raises(NotEnumerable):
        run(entries_of(stack, "some", clock=clock))
