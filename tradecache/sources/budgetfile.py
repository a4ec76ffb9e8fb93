"""How do all processes of a machine keep to one rate limit of a provider?"""

import asyncio
import contextlib
import logging
import math
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
MOST = 1_000_000  # requests; nobody is held to a limit of more, for twice as many times are kept
LOCK_WAIT = 3.0  # seconds until somebody who has the file for an instant counts as frozen
LEAST_LOOKS = 20  # at the lock meanwhile: who looks seldom may by chance see the same one twice
FIRST_PAUSE, LONGEST_PAUSE = 0.0005, 0.02  # seconds between two looks at a lock that another holds

_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Through no link, and without waiting for the other end of a pipe."""
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

log = logging.getLogger("tradecache")


class DamagedBudget(Exception):
    """Raised when a budget's file does not hold what was written."""


class Holder:
    """Tells one who has the lock and stands still from many who have it one after the other."""

    def __init__(self) -> None:
        self._mark = -1
        self._since = 0.0
        self._looks = 0

    def stands_still(self, mark: int, now: float, *, patience: float) -> bool:
        """Whether it was the same one, who goes by this mark, at many looks over so many seconds."""
        if mark != self._mark:
            self._mark, self._since, self._looks = mark, now, 0
        self._looks += 1
        return self._looks >= LEAST_LOOKS and now - self._since >= patience


class FileBudget:
    """The budget of one provider, in a file that all processes of this user on this machine count in.

    Each change is made under the system's own lock, which its holder has for some ten microseconds, never
    while it waits, and which is let go of in the instant in which it dies; the file is replaced as a whole,
    so that one who is killed meanwhile leaves the old or the new one. Who has to wait sees that without the
    lock. However many want it, and however slow one is oneself, is no fault; one and the same holder who
    stands still for `LOCK_WAIT` seconds is. A source without a limit costs a look for a file that is there
    only after its provider has asked to be left alone.

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
        self._lock_path = self._path.with_suffix(".lock")
        self._limit = limit if limit and limit[0] <= MOST else None
        self._wall = wall
        self._alone = fork_safe_lock()
        self._lock: tuple[int, FileLock] | None = None
        self._frozen = -1  # the mark of one who was seen to stand still

    async def take(self) -> Turn:
        """Take a place for a request that begins now, or say how long to wait before asking again.

        Raises:
            OSError: When the file can be neither read nor written, or its lock's holder stands still.
        """
        turn = self._looked()
        return await self._changed(Pace.take) if turn is None else turn

    async def give_back(self, turn: Turn) -> None:
        """Give back a place that was taken, because the request does not begin."""
        if self._limit:
            await self._changed(lambda pace, _: pace.give_back(turn.place))

    async def hold(self, seconds: float) -> None:
        """Let no request begin for so many seconds."""
        await self._changed(lambda pace, now: pace.hold(seconds, now))

    def _looked(self) -> Turn | None:
        """Say how long to wait, without the lock; None where something has to be changed."""
        now = self._wall()
        try:
            pace = _decoded(self._read(), self._limit)
        except FileNotFoundError:
            return None if self._limit else Turn()
        except DamagedBudget:
            return None
        turn = pace.look(now) if not pace.is_ahead(now) else None
        return turn if turn is None or turn.wait or not self._limit else None

    async def _changed(self, change: Callable[[Pace, float], T]) -> T:
        """Change what is counted, alone among all threads and processes, and return what came of it."""
        holder, pause = Holder(), FIRST_PAUSE
        while True:
            with self._alone:
                if self._is_acquired():
                    try:
                        self._leave_mark()
                        return self._change(change)
                    finally:
                        self._file_lock().release()
            self._look_at(holder)
            await asyncio.sleep(pause)
            pause = min(pause * 1.6, LONGEST_PAUSE)

    def _look_at(self, holder: Holder) -> None:
        mark = self._mark()
        patience = 0.0 if mark == self._frozen else LOCK_WAIT
        if holder.stands_still(mark, time.monotonic(), patience=patience):
            self._frozen = mark
            raise TimeoutError(f"one process has had {self._path.name} locked for {LOCK_WAIT:g} s")

    def _leave_mark(self) -> None:
        """Show those who wait that the lock has another holder now.

        The mark is the lock's time of access: that of change may be changed by whoever opens it.
        """
        now = time.time_ns()
        with contextlib.suppress(OSError):  # on a disk without such times only the looks are counted
            os.utime(self._lock_path, ns=(now, now))

    def _mark(self) -> int:
        try:
            return self._lock_path.stat().st_atime_ns
        except FileNotFoundError:  # where the system has no locks, the file is there only while it is held
            return 0

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

            lock = FileLock(self._lock_path, mode=0o600, thread_local=False, preserve_lock_file=True)
            self._lock = os.getpid(), lock
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
    try:
        most, *held = HEAD.unpack_from(body)
        begun = array("d", body[HEAD.size :])
    except (struct.error, ValueError) as error:
        raise DamagedBudget(str(error)) from error
    if most > MOST or math.isnan(held[0] + held[1]) or not math.isfinite(sum(begun)):
        raise DamagedBudget("numbers that nobody has written")
    return Pace(limit, begun=begun, most=most, held=(held[0], held[1]))


def _make_private(folder: Path) -> None:
    """Make a folder and those above it, each for its owner only."""
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o700)
