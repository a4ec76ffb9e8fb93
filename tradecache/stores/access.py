"""How does an operation reach the ledger: waiting for locks, mending damage, naming what went wrong?"""

import asyncio
import errno
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from tradecache.errors import (
    CacheClosed,
    InvalidInput,
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreFault,
    StoreFull,
    StoreReadOnly,
    WrongKey,
)
from tradecache.steps import Watch
from tradecache.stores.ledger import NO_ROOM, Guard, Ledger
from tradecache.stores.tags import Keyless

T = TypeVar("T")

log = logging.getLogger("tradecache")

DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
READ_ONLY = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
FIRST_PAUSE, LONGEST_PAUSE = 0.0005, 0.02  # seconds between two looks at a locked ledger


class Access:
    """The ledger of a folder behind one method, `run`, which raises errors of ours and no others.

    Waiting for another process's lock is no fault: `run` waits up to `lock_wait` seconds on the event
    loop, without blocking it, and can be cancelled. Then the lock counts as a transient fault.

    Args:
        folder: Made with mode 0700 when it does not exist.
        sync: See `Settings.sync`.
        lock_wait: Seconds.
        guard: See `Ledger`; by default an encrypted folder is refused.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sync: Literal["normal", "full"],
        lock_wait: float,
        guard: Guard | None = None,
    ) -> None:
        self.folder = folder
        self.rebuilds = 0
        self._untold: list[str] = []
        self._lock_wait = lock_wait
        self._closed = False
        guard = guard or Keyless()
        try:
            guard.admit(folder)  # before anything is made, mended or brought into the ledger
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.ledger = Ledger(folder, sync=sync, patience=lock_wait, guard=guard)
        except WrongKey:
            raise
        except OSError as error:
            full = _kind(error) is StoreFull
            raise (StoreFull if full else StoreReadOnly)(folder, error) from error
        self._open()

    @property
    def read_only(self) -> bool:
        """Whether the folder can only be read."""
        return self.ledger.read_only

    async def run(
        self, work: Callable[[Ledger], T], *, watch: Watch | None = None, patience: float | None = None
    ) -> T:
        """Run one transaction and return what it returns.

        Args:
            work: The transaction.
            watch: Given, it is run in a thread, and rolled back when it notices that the caller is gone.
            patience: Seconds to wait for other processes; `lock_wait` by default.

        Raises:
            StoreError: Or one of its kinds; a write that raised has changed nothing.
            CacheClosed: After `close()`.
        """
        deadline, pause, rebuilt = 0.0, FIRST_PAUSE, False
        wait = self._lock_wait if patience is None else patience
        while True:
            if self._closed:
                raise CacheClosed
            number = self.ledger.number
            try:
                return work(self.ledger) if watch is None else await watch.aside(lambda: work(self.ledger))
            except UnicodeEncodeError as error:
                raise InvalidInput("key", error.object, "text that UTF-8 can hold") from error
            except (StoreError, WrongKey):
                raise
            except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
                if _is_damage(error) and not rebuilt and not self.read_only:
                    self._rebuild(number, error)
                    rebuilt = True
                    continue
                deadline = deadline or time.monotonic() + wait
                if _code(error) not in BUSY or time.monotonic() > deadline:
                    raise self.meaning(error) from error
            await asyncio.sleep(0)  # where no loop runs (`bridge.finish`), the work is given up here
            await asyncio.sleep(pause)
            pause = min(pause * 1.6, LONGEST_PAUSE)

    async def fetch(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of one query."""
        return await self.run(lambda ledger: ledger.run(lambda c: c.execute(query, values).fetchall()))

    def at_once(self, work: Callable[[Ledger], T]) -> T:
        """Run one transaction without an event loop, waiting for other processes as `run` does."""
        deadline = time.monotonic() + self._lock_wait
        while True:
            try:
                return work(self.ledger)
            except (StoreError, WrongKey):
                raise
            except (sqlite3.Error, OSError) as error:
                if _code(error) not in BUSY or time.monotonic() > deadline:
                    raise self.meaning(error) from error
            time.sleep(LONGEST_PAUSE)

    def untold_repairs(self) -> list[str]:
        """Return what was damaged and mended since this was last asked."""
        untold, self._untold = self._untold, []
        return untold

    def close(self) -> None:
        """Let go of the ledger."""
        self._closed = True
        self.ledger.close()

    def meaning(self, error: Exception) -> StoreError:
        """Turn what SQLite or the system reported into an error of ours, and log what may pass."""
        found = told(self.folder, error)
        if isinstance(found, (StoreBusy, StoreFault)):
            log.warning("%s", found)
        return found

    def _open(self) -> None:
        """Look at the ledger once; whoever closes it in this instant has it to himself, and is waited for."""
        deadline = time.monotonic() + self._lock_wait
        while True:
            try:
                self.ledger.run(lambda c: c.execute("SELECT 1 FROM entries LIMIT 1").fetchone())
            except (sqlite3.Error, UnicodeDecodeError) as error:
                if _code(error) in BUSY and time.monotonic() < deadline:
                    time.sleep(LONGEST_PAUSE)
                    continue
                if not _is_damage(error):
                    raise self.meaning(error) from error
                self._rebuild(self.ledger.number, error)
            return

    def _rebuild(self, number: int, error: Exception) -> None:
        try:
            outcome = self.ledger.rebuild(number)
        except WrongKey:
            raise
        except (OSError, sqlite3.Error) as failure:
            raise StoreDamaged(self.folder, f"{error}; {failure}") from error
        if outcome is None:
            return
        self.rebuilds += 1
        kept, where = outcome
        self._untold.append(f"the ledger was damaged and is in quarantine/; {kept:,} entries were saved")
        log.error("the ledger was damaged (%s): it is now %s, and %d entries were saved", error, where, kept)


def told(folder: Path, error: Exception) -> StoreError:
    """Return what SQLite or the system reported as an error of ours."""
    return _kind(error)(folder, error)


def _kind(error: Exception) -> type[StoreError]:
    code = _code(error)
    name = errno.errorcode.get(getattr(error, "errno", 0) or 0, "")
    if code in BUSY:
        return StoreBusy
    if code in READ_ONLY or name in {"EROFS", "EACCES", "EPERM"}:
        return StoreReadOnly
    if getattr(error, "sqlite_errorcode", 0) in NO_ROOM or name in {"ENOSPC", "EDQUOT"}:
        return StoreFull
    if _is_damage(error):
        return StoreDamaged
    return StoreFault if code == sqlite3.SQLITE_IOERR or name else StoreError


def _is_damage(error: Exception) -> bool:
    """Whether the ledger is not what SQLite has written, down to text that is no text any more."""
    unreadable = isinstance(error, UnicodeDecodeError) or "Could not decode to UTF-8" in str(error)
    return unreadable or _code(error) in DAMAGED


def _code(error: Exception) -> int:
    """Return SQLite's primary error code, 0 when there is none."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
