"""Who may ask a source for a series now, and how did the last attempt end? Single-flight for tasks, threads, processes."""

import asyncio
import errno
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import xxhash

from tradecache import errors
from tradecache.errors import SourceError, StoreError, StoreFault, StoreFull, StoreReadOnly, rebuilt
from tradecache.timeline import Range

if TYPE_CHECKING:
    from filelock import FileLock

    from tradecache.sealing import Sealed
    from tradecache.seals import Seal

LOCKS = "locks"
"""The folder below a cache's own where the files of series lie."""
Locks = tuple[asyncio.Lock, "FileLock", Path]

FAILED, TEMPORARY, LOCK = ".failed", ".tmp", ".lock"  # notes of failures, those not all written yet, locks
AT_ONCE = 32  # series that are fetched at the same time; a source has its own limit
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.05  # seconds between two looks at a lock that another holds


class Flights:
    """One at a time may fetch and store the bars of a series, in all processes that share a folder.

    The lock is the system's own (`flock`), on a file of its own for each series, so that it is let go of
    in the instant in which its holder dies. An attempt that failed leaves a note, for those who waited.

    Args:
        folder: Where the lock files lie; made when first needed.
        sealed: With what notes are encrypted and the names of files hidden; None: they are not.
    """

    def __init__(self, folder: Path, *, sealed: "Sealed | None" = None) -> None:
        self._folder = folder
        self._seal = None if sealed is None else sealed.seal
        self._held: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
        self._failures: dict[Path, tuple[float, Sequence[Range], Exception]] = {}
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Locks]] = WeakKeyDictionary()

    @asynccontextmanager
    async def alone(self, name: str) -> AsyncIterator["Landing"]:
        """Wait until nobody else has `name`, and hold it."""
        began = time.time()
        among_tasks, lock, path = self._locks_of(name)
        async with among_tasks, self._places():
            await self._acquire(lock)
            try:
                yield Landing(path.with_suffix(FAILED), began, self._failures, self._seal)
            finally:
                lock.release()

    def _places(self) -> asyncio.Semaphore:
        """Return the places for those who hold a series, each of which costs an open file: of this loop."""
        return self._held.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE))

    def _locks_of(self, name: str) -> "Locks":
        """Return the lock among the tasks of this loop, which need not look again and again, and the file's."""
        locks = self._locks.setdefault(asyncio.get_running_loop(), {})
        if name not in locks:
            from filelock import FileLock  # when first needed, for what it costs

            hidden = name if self._seal is None else self._seal.hidden(name)
            path = self._folder / xxhash.xxh3_64_hexdigest(hidden.encode())
            lock = FileLock(f"{path}{LOCK}", thread_local=False, preserve_lock_file=True)
            locks[name] = asyncio.Lock(), lock, path
        return locks[name]

    async def _acquire(self, lock: "FileLock") -> None:
        from filelock import Timeout

        pause = FIRST_PAUSE
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise _told(self._folder.parent, error) from error
        while True:
            try:
                lock.acquire(blocking=False)
            except OSError as error:
                if not isinstance(error, Timeout):
                    raise _told(self._folder.parent, error) from error
                await asyncio.sleep(pause)
                pause = min(pause * 1.6, LONGEST_PAUSE)
            else:
                return


class Landing:
    """What the one whose turn it is learns of the attempt that it waited for, and leaves for the next."""

    def __init__(
        self,
        note: Path,
        began: float,
        failures: dict[Path, tuple[float, Sequence[Range], Exception]],
        seal: "Seal | None" = None,
    ) -> None:
        self._seal = seal
        self._note = note
        self._began = began
        self._failures = failures

    def failure(self, ranges: Sequence[Range]) -> Exception | None:
        """Return the error of an attempt that ended while this one waited, if it was for all of `ranges`."""
        known = self._failures.get(self._note)
        if known is not None and self._speaks_for(known[0], known[1], ranges):
            return known[2]
        try:
            content = self._note.read_bytes()
            note = json.loads(content if self._seal is None else self._seal.opened_bytes(content))
            if not self._speaks_for(note["ended"], note["ranges"], ranges):
                return None
            kind = getattr(errors, note["kind"])
            error = rebuilt(kind, tuple(note["args"]), note["values"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no note, or none of ours
            return None
        return error if isinstance(error, SourceError) else None

    def failed(self, error: Exception, ranges: Sequence[Range]) -> None:
        """Leave a note for those who wait now; for those in other processes only of a `SourceError`."""
        self._failures[self._note] = (time.time(), ranges, error)
        if not isinstance(error, SourceError):
            return
        note = {
            "ended": time.time(),
            "ranges": ranges,
            "kind": type(error).__name__,
            "args": error.args,
            "values": vars(error),
        }
        temporary = self._note.with_suffix(TEMPORARY)
        content = json.dumps(note, default=str).encode()
        temporary.write_bytes(content if self._seal is None else self._seal.sealed_bytes(content))
        temporary.replace(self._note)

    def went_well(self) -> None:
        """Take back an older note."""
        self._failures.pop(self._note, None)
        self._note.unlink(missing_ok=True)

    def _speaks_for(self, ended: float, covered: Sequence[Range], ranges: Sequence[Range]) -> bool:
        """Whether an attempt ended while this one waited, and was for all of `ranges`."""
        within = (any(start <= first and last <= end for start, end in covered) for first, last in ranges)
        return ended >= self._began and all(within)


def notes(folder: Path) -> list[Path]:
    """Return the notes of failures that lie in a folder of locks."""
    return [*sorted(folder.glob(f"*{FAILED}")), *sorted(folder.glob(f"*{TEMPORARY}"))]


def locks(folder: Path) -> list[Path]:
    """Return the lock files in a folder of locks, which are called after hashes of series."""
    return sorted(folder.glob(f"*{LOCK}"))


def _told(folder: Path, error: OSError) -> StoreError:
    """Return the system's error as ours."""
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return StoreReadOnly(folder, error)
    return (
        StoreFull(folder, error)
        if error.errno in {errno.ENOSPC, getattr(errno, "EDQUOT", None)}
        else StoreFault(folder, error)
    )
