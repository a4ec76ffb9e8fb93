"""What has been put together from stored bars, and need not be put together again?"""

from collections.abc import Hashable, Sequence

import pandas as pd
import xxhash

from tradecache.bridge import finish
from tradecache.naming import OF_VIEWS
from tradecache.stack import Stack
from tradecache.stores.values import FRAME

MANY = 5_000  # cells: fewer are put together again as fast as they are found


class Views:
    """Frames made of parts of segments, which never change, under the names of these parts.

    They are in the memory tier only, where they compete for room like everything else. Since other parts are
    another view, none is ever wrong; one that nobody asks for any more makes room.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def get(self, collection: str, made_of: Sequence[Hashable]) -> pd.DataFrame | None:
        """Return what was made of some parts, if memory has it."""
        self._stack.tiers.look()
        value = finish(self._stack.memory.get(_key(made_of), collection=OF_VIEWS + collection))
        return None if value is None else value[FRAME]

    def keep(self, collection: str, made_of: Sequence[Hashable], frame: pd.DataFrame) -> None:
        """Have memory keep what was made of some parts, if it is large; nobody else may have its arrays."""
        if frame.size < MANY:
            return
        key, where, memory = _key(made_of), OF_VIEWS + collection, self._stack.memory
        generation = memory.generation(key, collection=where)
        memory.fill(key, {FRAME: frame}, collection=where, ttl=None, generation=generation, is_own=True)


def _key(made_of: Sequence[Hashable]) -> str:
    return xxhash.xxh3_128_hexdigest(repr(made_of).encode())
