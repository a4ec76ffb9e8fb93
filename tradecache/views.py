"""What has been put together from stored bars, and need not be put together again?"""

from collections.abc import Hashable, Sequence
from contextlib import suppress

import pandas as pd
import xxhash

from tradecache.bridge import finish
from tradecache.errors import NotStorable
from tradecache.stack import Stack
from tradecache.stores.values import FRAME

PREFIX = "views/"  # collections of the memory tier only
MANY = 1_000  # rows: fewer are put together again as fast as they are found


class Views:
    """Frames made of parts of segments, which never change, under the names of these parts.

    They are in the memory tier only, where they compete for room like everything else. Since other parts are
    another view, none is ever wrong; one that nobody asks for any more makes room.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def get(self, collection: str, parts: Sequence[Hashable]) -> pd.DataFrame | None:
        """Return what some parts make together, if memory has it."""
        self._stack.tiers.look()
        value = finish(self._stack.memory.get(_key(parts), collection=PREFIX + collection))
        return None if value is None else value[FRAME]

    def keep(self, collection: str, parts: Sequence[Hashable], frame: pd.DataFrame) -> None:
        """Have memory keep what some parts make together, a frame of which nobody has the arrays."""
        key, memory = _key(parts), self._stack.memory
        generation = memory.generation(key, collection=PREFIX + collection)
        with suppress(NotStorable):  # a column may be text in one part and numbers in another
            memory.fill(
                key,
                {FRAME: frame},
                collection=PREFIX + collection,
                ttl=None,
                generation=generation,
                is_own=True,
            )


def _key(parts: Sequence[Hashable]) -> str:
    return xxhash.xxh3_128_hexdigest(repr(parts).encode())
