"""How does long work leave room for others, and stop when nobody waits for it any more?"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

STEP = 1_000  # rows that are worked on between two looks around: a few milliseconds


async def in_steps(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """Yield a sequence in slices, and let others have the event loop between two of them.

    There, too, a cancellation arrives. A single slice passes without waiting for anything.
    """
    for start in range(0, len(items), STEP):
        if start:
            await asyncio.sleep(0)
        yield items[start : start + STEP]


class GivenUp(Exception):
    """Raised in a worker thread whose caller was cancelled."""


class Watch:
    """Lets a worker thread notice that its caller was cancelled."""

    def __init__(self) -> None:
        self._is_over = threading.Event()

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """Yield items as long as somebody waits for the work.

        Raises:
            GivenUp: When nobody does.
        """
        for item in items:
            if self._is_over.is_set():
                raise GivenUp
            yield item

    async def aside(self, work: Callable[[], T]) -> T:
        """Run work in a thread; when the caller is cancelled, have it stop and wait until it has."""
        working = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            self._is_over.set()
            await asyncio.wait([working])
            if not working.cancelled():
                working.exception()  # it was looked at, and asyncio need not tell of it
            raise
