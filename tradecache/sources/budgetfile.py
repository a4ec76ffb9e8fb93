"""How do all processes of a machine keep to one rate limit of a provider?"""

import asyncio
import logging
import os
import struct
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import xxhash

from tradecache.forks import fork_safe_lock
from tradecache.sources.pace import Limit, Pace, Turn
from tradecache.stores.payloads import safe_name

if TYPE_CHECKING:
    from filelock import FileLock

T = TypeVar("T")

MAGIC = b"TCB1"
HEAD = struct.Struct("=Qdd")  # how many requests somebody looks back at; from when and until when it is held
CHECKSUM = 8  # bytes
LARGEST = 1 << 24  # bytes of a file
KEPT = 1_000_000  # requests; nobody is held to a limit of more
LOCK_WAIT = 1.0  # seconds until somebody who has the file for an instant counts as frozen
FIRST_PAUSE, LONGEST_PAUSE = 0.0005, 0.02  # seconds between two looks at a lock that another holds

_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Through no link, and without waiting for the other end of a pipe."""
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

log = logging.getLogger("tradecache")


class DamagedBudget(Exception):
    """Raised when a budget's file does not hold what was written."""


class FileBudget:
    """The budget of one provider, in a file that all processes of this user on this machine count in.

    Each change is made under the system's own lock, which its holder has for some ten microseconds, never
    while it waits, and which is let go of in the instant in which it dies; the file is replaced as a whole,
    so that one who is killed meanwhile leaves the old or the new one. A source without a limit costs a look
    for a file that is there only after its provider has asked to be left alone.

    Times are those of the wall clock, because a hold outlives the process, and perhaps a restart.

    Args:
        folder: Where the files of all providers lie; made when first needed, for its owner only.
        provider: Whose budget it is.
        limit: (requests, seconds) that this caller keeps to, counting everybody's requests; None: no limit.
        wall: Seconds of the system's clock.
    """

    def __init__(
        self, folder: Path, provider: str, limit: Limit, *, wall: Callable[[], float] = time.time
    ) -> None:
        self._path = folder / f"{safe_name(provider)}.budget"
        self._limit = limit
        self._wall = wall
        self._alone = fork_safe_lock()
        self._lock: tuple[int, FileLock] | None = None

    async def take(self) -> Turn:
        """Take a place for a request that begins now, or say how long to wait before asking again.

        Raises:
            OSError: When the file can be neither read nor written, or stays locked.
        """
        return await self._changed(Pace.take) if self._limit else await self._looked()

    async def give_back(self, turn: Turn) -> None:
        """Give back a place that was taken, because the request does not begin."""
        if self._limit:
            await self._changed(lambda pace, _: pace.give_back(turn.place))

    async def hold(self, seconds: float) -> None:
        """Let no request begin for so many seconds."""
        await self._changed(lambda pace, now: pace.hold(seconds, now))

    async def _looked(self) -> Turn:
        """Say how long the provider is to be left alone, without a lock where nothing has to be changed."""
        now = self._wall()
        try:
            pace = _decoded(self._read(), None)
        except FileNotFoundError:
            return Turn()
        except DamagedBudget:
            return await self._changed(Pace.take)
        return await self._changed(Pace.take) if pace.is_ahead(now) else pace.take(now)

    async def _changed(self, change: Callable[[Pace, float], T]) -> T:
        """Change what is counted, alone among all threads and processes, and return what came of it."""
        began, pause = time.monotonic(), FIRST_PAUSE
        while True:
            with self._alone:
                if self._is_acquired():
                    try:
                        return self._change(change)
                    finally:
                        self._file_lock().release()
            if time.monotonic() - began > LOCK_WAIT:
                raise TimeoutError(f"somebody has had {self._path.name} locked for {LOCK_WAIT:g} s")
            await asyncio.sleep(pause)
            pause = min(pause * 1.6, LONGEST_PAUSE)

    def _is_acquired(self) -> bool:
        from filelock import Timeout

        lock = self._file_lock()
        _make_private(self._path.parent)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        return True

    def _file_lock(self) -> "FileLock":
        """Return the lock of this process; filelock wants another one in a forked child."""
        if self._lock is None or self._lock[0] != os.getpid():
            from filelock import FileLock  # when first needed, for what it costs

            path = self._path.with_suffix(".lock")
            self._lock = os.getpid(), FileLock(path, mode=0o600, thread_local=False, preserve_lock_file=True)
        return self._lock[1]

    def _change(self, change: Callable[[Pace, float], T]) -> T:
        before, pace = self._stored()
        outcome = change(pace, self._wall())  # the clock is read under the lock, so that it goes in order
        after = _encoded(pace)
        if after != before:
            self._write(after)
        return outcome

    def _stored(self) -> tuple[bytes, Pace]:
        """Return what was counted; nothing where there is no file, or a damaged one."""
        try:
            content = self._read()
            return content, _decoded(content, self._limit)
        except FileNotFoundError:
            return b"", Pace(self._limit)
        except DamagedBudget as damage:
            log.warning("%s is damaged (%s); what was counted in it is forgotten", self._path, damage)
            return b"", Pace(self._limit)

    def _read(self) -> bytes:
        descriptor = os.open(self._path, _READ)
        try:
            return os.read(descriptor, LARGEST)
        finally:
            os.close(descriptor)

    def _write(self, content: bytes) -> None:
        temporary = self._path.with_suffix(".tmp")  # one name for all: who has the lock is alone
        descriptor = os.open(temporary, _WRITE, 0o600)
        try:
            written = os.write(descriptor, content)
        finally:
            os.close(descriptor)
        if written != len(content):
            raise OSError(f"{written:,} of {len(content):,} bytes could be written")
        temporary.replace(self._path)


def _encoded(pace: Pace) -> bytes:
    body = HEAD.pack(pace.most, *pace.held) + array("d", pace.begun).tobytes()
    return MAGIC + xxhash.xxh3_64_digest(body) + body


def _decoded(content: bytes, limit: Limit) -> Pace:
    """Return what a file says was counted.

    Raises:
        DamagedBudget: When it is not what was written.
    """
    begins = len(MAGIC) + CHECKSUM
    checksum, body = content[len(MAGIC) : begins], content[begins:]
    if content[: len(MAGIC)] != MAGIC or checksum != xxhash.xxh3_64_digest(body):
        raise DamagedBudget(f"{len(content):,} bytes without the right checksum")
    most, *held = HEAD.unpack_from(body)
    return Pace(limit, begun=array("d", body[HEAD.size :]), most=most, held=(held[0], held[1]))


def _make_private(folder: Path) -> None:
    """Make a folder and those above it, each for its owner only."""
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o700)
