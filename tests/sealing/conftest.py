"""A folder that is encrypted, and what opens it."""

import pytest
from vaults import ONE, chosen

from tradecache import TradeCache
from tradecache.clock import Clock
from tradecache.stack import build_stack


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def open_stack(folder, clock):
    """Return what opens the stack of the folder with some keys."""
    opened = []

    def open_stack(*keys, hashed=False, **more):
        opened.append(build_stack(chosen(folder, *keys, hashed=hashed, **more), clock=Clock(clock)))
        return opened[-1]

    yield open_stack
    for each in opened:
        each.durable.close()


@pytest.fixture
def stack(open_stack):
    return open_stack(ONE)


@pytest.fixture
def disk(stack):
    """The sealed store, without memory in front."""
    return stack.sealed


@pytest.fixture
def make(folder, clock):
    """Return what makes one more cache on the folder, with some keys."""
    made = []

    def make(*keys, hashed=False, source=None, **more):
        made.append(
            TradeCache(settings=chosen(folder, *keys, hashed=hashed, **more), clock=clock, source=source)
        )
        return made[-1]

    yield make
    for cache in made:
        cache.close()
