"""Which entries does the durable tier hold? One SQLite database in WAL mode, and who has changed it.

The ledger is the truth: what it does not name does not exist. Each row carries a checksum (xxh3) over
everything that is served, because SQLite itself does not notice a flipped bit.

Beside the database lies `changes`, sixteen bytes: the number of the ledger in use and a token that every
writer replaces after its commit, never by one that was there before. Reading it costs a microsecond, so each memory hit can afford to ask
whether another process wrote; `PRAGMA data_version` then tells our own commits from theirs.
"""

import contextlib
import functools
import itertools
import os
import secrets
import sqlite3
import struct
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import xxhash

from tradecache.errors import StoreError
from tradecache.forks import one_fork
from tradecache.stores import salvage
from tradecache.stores.disk import create_private
from tradecache.stores.tags import Keyless

T = TypeVar("T")

SCHEMA_VERSION = 1
PAGE = 2048  # bytes; a commit writes whole pages to the log, and rows are small
CHECKPOINT_PAGES = (16 << 20) // PAGE  # the log is brought into the database every 16 MiB
NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)  # the latter: for the index of the log
LOOK_EVERY = 1.0  # seconds after which a change is looked for even when the token is the same

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    collection TEXT NOT NULL,
    key        TEXT NOT NULL,
    created    INTEGER NOT NULL,  -- microseconds since the epoch, as is every time here
    expires    INTEGER,           -- NULL: never
    used       INTEGER NOT NULL,  -- last use, for eviction
    size       INTEGER NOT NULL,  -- bytes of value and payload together; a wrong one fits no payload
    checksum   INTEGER NOT NULL,  -- row_checksum() of what is served
    value      BLOB NOT NULL,     -- JSON
    path       TEXT,              -- of the payload file below the folder; NULL: none
    payload    INTEGER,           -- xxh3 of the payload file
    PRIMARY KEY (collection, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS expiring ON entries (expires) WHERE expires IS NOT NULL;
CREATE INDEX IF NOT EXISTS payloads ON entries (used) WHERE path IS NOT NULL;
"""

COLUMNS = "collection, key, created, expires, used, size, checksum, value, path, payload"
PUT = f"INSERT OR REPLACE INTO entries ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
PUT_PLAIN = f"""
INSERT INTO entries ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (collection, key) DO UPDATE SET {", ".join(f"{c} = excluded.{c}" for c in COLUMNS.split(", ")[2:])}
WHERE path IS NULL
"""  # noqa: S608 - our own columns
"""Enters a row unless it would replace one with a payload, whose file has to go with it."""
GET = f"SELECT {COLUMNS} FROM entries WHERE collection = ? AND key = ?"  # noqa: S608


class Row(NamedTuple):
    """One entry as the ledger keeps it; times in microseconds since the epoch."""

    collection: str
    key: str
    created: int
    expires: int | None
    used: int
    size: int
    checksum: int
    value: bytes
    path: str | None
    payload: int | None

    @property
    def is_intact(self) -> bool:
        """Whether the row is what was written; in a damaged one, anything may have any type."""
        return type(self.size) is int and self.checksum == row_checksum(
            self.collection, self.key, self.created, self.expires, self.value, self.path, self.payload
        )

    def has_expired(self, now: int) -> bool:
        """Whether its time is over; a damaged row may hold anything, and is damaged rather than expired."""
        return isinstance(self.expires, int) and self.expires <= now


def row_checksum(
    collection: str,
    key: str,
    created: int,
    expires: int | None,
    value: bytes,
    path: str | None = None,
    payload: int | None = None,
) -> int:
    """Return the xxh3 of an entry, bound to its collection and key, as a signed integer."""
    head = f"{collection}\0{key}\0{created}\0{expires}\0{path}\0{payload}\0".encode()
    if not isinstance(value, bytes):  # damage may have changed its type
        value = repr(value).encode()
    return xxhash.xxh3_64_intdigest(head + value) - 2**63


class Guard(Protocol):
    """What sees that a ledger takes only what its folder allows: plain entries, or encrypted ones."""

    def admit(self, folder: Path) -> None:
        """See that a folder may be used, before its ledger is opened, made or rebuilt.

        Raises:
            WrongKey: When it may not.
        """

    def trigger(self, folder: Path) -> str:
        """Return the SQL that a new ledger is guarded with from its beginning; empty for none."""

    def settle(self, folder: Path, connection: sqlite3.Connection) -> None:
        """See that a ledger that was just opened, and can be written, is guarded.

        Raises:
            WrongKey: When what it holds may not be there.
        """


class Ledger:
    """The connection of this process to the ledger of one folder, safe to use from any thread.

    Every method runs one transaction and raises `sqlite3.Error` as SQLite does; `Access` turns those into
    errors of ours. SQLite is asked to wait for a lock only while the database is opened, for `patience`
    seconds; later the caller waits, without blocking.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sync: Literal["normal", "full"],
        patience: float = 5.0,
        guard: Guard | None = None,
    ) -> None:
        self.folder = folder
        self.refusal: sqlite3.OperationalError | None = None
        """Why it can only be read; None when it can be written."""
        self._guard: Guard = guard or Keyless()
        self._sync = sync
        self._patience = patience
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._changes: int | None = None  # a file descriptor
        self._closed = False
        self._seen: bytes | None = b""
        self._look_at = self._exists_at = 0.0
        self._version = self._foreign = 0
        self._identity: tuple[int, int] | None = None
        self.number = newest_number(folder) or 1
        with one_fork:
            _LEDGERS.add(self)

    @property
    def path(self) -> Path:
        """The database in use; a damaged one is replaced by the next number."""
        return self.folder / f"ledger-{self.number}.db"

    @property
    def read_only(self) -> bool:
        """Whether the ledger can only be read."""
        return self.refusal is not None

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a read or a single-statement transaction."""
        with self._lock:
            return work(self._opened())

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` as one transaction: all of it is committed, and others are told, or none of it."""
        with self._lock:
            connection = self._writable()
            try:
                connection.execute("BEGIN IMMEDIATE")
                if self._was_replaced():
                    raise _Replaced
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if isinstance(error, _Replaced):
                    self._reopen()
                    return self.write(work)
                raise
            self._tell_others()
            return result

    def put(self, row: Sequence[Any]) -> bool:
        """Enter one row by a single statement, the fastest way to commit; return whether `PUT_PLAIN` did."""
        with self._lock:
            entered = self._writable().execute(PUT_PLAIN, row).rowcount
            if self._was_replaced():
                self._reopen()
                entered = self._opened().execute(PUT_PLAIN, row).rowcount
            self._tell_others()
        return entered == 1

    def get(self, collection: str, key: str) -> Row | None:
        """Return the row of a key as it stands, expired or not."""
        with self._lock:
            row = self._opened().execute(GET, (collection, key)).fetchone()
        return Row._make(row) if row else None

    def foreign_commits(self) -> int:
        """Return a number that has grown if another connection committed since it was last asked for.

        It may grow once too often, and never fails to when a write was acknowledged before the call.
        """
        if self._token() == self._seen and time.monotonic() < self._look_at:
            return self._foreign
        with self._lock:
            look_at, token = time.monotonic() + LOOK_EVERY, self._token()
            try:
                self._note_commits()
            except (sqlite3.Error, OSError):  # the next operation meets it too, and names it
                self._foreign += 1
                return self._foreign
            self._seen, self._look_at = token, look_at  # last: who sees this token sees the number too
            return self._foreign

    def _note_commits(self) -> None:
        if self._was_replaced():
            self._reopen()
        (version,) = self._opened().execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self._foreign += 1
            self._version = version

    def rebuild(self, number: int) -> tuple[int, Path] | None:
        """Put the damaged ledger `number` into `quarantine/` and go on with what can still be read of it.

        Returns:
            How many entries were saved, and where the damaged file is; None when another thread or process
            has already done it.
        """
        self._guard.admit(self.folder)
        with self._lock, salvage.only_one_process(self.folder):
            if number != self.number or number != newest_number(self.folder):
                self._reopen()
                return None
            damaged, connection, self._connection = self.path, self._connection, None
            with salvage.held(connection, damaged) as source:
                rows = salvage.readable_rows(source, COLUMNS)
                kept = [row for row in rows if Row._make(row).is_intact]
                new = self.folder / f"ledger-{number + 1}.db"
                trigger = self._guard.trigger(self.folder)
                salvage.write_ledger(new, SCHEMA, PUT, kept, SCHEMA_VERSION, trigger=trigger)
                self.number = number + 1
                self._tell_others()  # before the damaged ledger is let go of, so that nobody writes to it
            target = salvage.set_aside(self.folder, damaged)
            self._open()
            return len(kept), target

    def close(self) -> None:
        """Let go of the database; the next use is an error."""
        with self._lock:
            self._closed = True
            self._disconnect()

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            if self._closed:
                raise sqlite3.ProgrammingError("the ledger is closed")
            self._open()
        elif time.monotonic() > self._exists_at:
            if self.read_only or _identity(self.path) != self._identity:  # the folder was deleted: begin anew
                self._reopen()
            self._exists_at = time.monotonic() + LOOK_EVERY
        assert self._connection is not None  # noqa: S101 - told to the type checker
        return self._connection

    def _writable(self) -> sqlite3.Connection:
        connection = self._opened()
        if self.refusal is not None:
            self._reopen()  # by now it may be allowed, or there may be room
            connection = self._opened()
        if self.refusal is not None:
            raise self.refusal.with_traceback(None)
        return connection

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._guard.admit(self.folder)
        self.number = newest_number(self.folder) or 1
        self._changes = self._changes if self._changes is not None else self._open_changes()
        if self._was_emptied():
            raise _Emptied("the file is empty")
        trigger = self._guard.trigger(self.folder)
        connection, self.refusal = _connect(self.path, self._sync, self._patience, trigger)
        try:
            if not self.read_only:
                self._guard.settle(self.folder, connection)
            (self._version,) = connection.execute("PRAGMA data_version").fetchone()
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._identity = _identity(self.path)
        self._foreign += 1  # nobody knows what was committed since the last connection

    def _reopen(self) -> None:
        self._disconnect()
        self._open()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._changes is not None:
            os.close(self._changes)
            self._changes = None

    def _open_changes(self) -> int | None:
        """Open the token file; None where it cannot be read or the system has no `pread`."""
        if not hasattr(os, "pread"):
            return None
        for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):  # who may only read can still be told
            with contextlib.suppress(OSError):
                return os.open(self.folder / "changes", flags | os.O_CLOEXEC, 0o600)
        return None

    def _token(self) -> bytes | None:
        """What is in `changes`; something new each time where there is no such file."""
        if self._changes is None:
            return None if self.read_only else secrets.token_bytes(_TOKEN.size)
        try:
            return os.pread(self._changes, _TOKEN.size, 0)
        except OSError:  # closed by another thread in this instant
            return secrets.token_bytes(_TOKEN.size)

    def _was_replaced(self) -> bool:
        if self._changes is not None and not os.fstat(self._changes).st_nlink:
            return True  # somebody has deleted the folder
        if self._number_in_use() in (0, self.number):
            return False
        return newest_number(self.folder) != self.number  # the token may be damaged, too

    def _was_emptied(self) -> bool:
        """Whether the file has nothing in it, although somebody has committed to it."""
        return self._number_in_use() == self.number and self.path.exists() and not self.path.stat().st_size

    def _number_in_use(self) -> int:
        """The ledger that the last writer named; 0 when there was none, or none that can be known."""
        token = self._token() if self._changes is not None else None
        return int.from_bytes(token[:2], "big") if token else 0

    def _tell_others(self) -> None:
        if self._changes is None:
            return
        token = _TOKEN.pack(self.number, *_process_mark(), next(_writes))
        try:
            os.pwrite(self._changes, token, 0)
        except OSError:  # a full disk: the second look, each LOOK_EVERY, finds the change
            return

    def _before_fork(self) -> None:
        """Let go of the database, and let nobody use it until the fork is over.

        SQLite remembers by process which locks it holds, and a child would believe to hold its parent's.
        """
        self._lock.acquire()
        self._disconnect()

    def _after_fork(self) -> None:
        self._lock.release()


class _Replaced(Exception):
    """Another process has put the ledger aside and made a new one."""


class _Emptied(sqlite3.DatabaseError):
    """A ledger in use has been cut to nothing, which SQLite would take for a new one."""

    sqlite_errorcode = sqlite3.SQLITE_NOTADB


_LEDGERS: weakref.WeakSet[Ledger] = weakref.WeakSet()
_FORKING: list[Ledger] = []  # those that wait for a fork to be over


_TOKEN = struct.Struct(">HIHQ")  # ledger, process, its random mark, its count of writes
_writes = itertools.count(1)


@functools.cache
def _process_mark() -> tuple[int, int]:
    return os.getpid() & 0xFFFFFFFF, secrets.randbits(16)


def _before_fork() -> None:
    one_fork.acquire()
    _FORKING.extend(_LEDGERS)
    for ledger in _FORKING:
        ledger._before_fork()  # noqa: SLF001 - one module, two halves of one thing


def _after_fork() -> None:
    for ledger in _FORKING:
        ledger._after_fork()  # noqa: SLF001
    _FORKING.clear()
    one_fork.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
    os.register_at_fork(after_in_child=_process_mark.cache_clear)


def _identity(path: Path) -> tuple[int, int] | None:
    """Tell one file from another of the same name; None for no file."""
    try:
        status = os.stat(path)  # noqa: PTH116 - half the cost
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def newest_number(folder: Path) -> int:
    """Return the number of the ledger in use in `folder`, 0 when there is none."""
    names = (name[7:-3] for name in os.listdir(folder) if name.startswith("ledger-") and name.endswith(".db"))  # noqa: PTH208
    return max((int(number) for number in names if number.isdigit()), default=0)


def _connect(
    path: Path, sync: str, patience: float, trigger: str
) -> tuple[sqlite3.Connection, sqlite3.OperationalError | None]:
    """Open or create a ledger; where the folder may not be written or is full, open it for reading, and say why."""
    try:
        return _connect_for_writing(path, sync, patience, trigger), None
    except sqlite3.OperationalError as error:
        code = error.sqlite_errorcode
        if code not in NO_ROOM and code & 0xFF not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
            raise
        if not path.exists() or not path.stat().st_size:
            raise
        return _connect_for_reading(path), error


def _connect_for_writing(path: Path, sync: str, patience: float, trigger: str) -> sqlite3.Connection:
    create_private(path)
    connection = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA page_size = {PAGE}")  # heeded by a new database only
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {sync}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreError(path.parent, f"{path.name} was written by a newer tradecache")
        if version < SCHEMA_VERSION:
            connection.executescript(
                f"BEGIN IMMEDIATE; {SCHEMA} {trigger}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
            )
        elif not os.access(path, os.W_OK):
            connection.execute("BEGIN IMMEDIATE").execute("ROLLBACK")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute("PRAGMA busy_timeout = 0")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_for_reading(path: Path) -> sqlite3.Connection:
    wal = path.with_name(path.name + "-wal")
    has_wal = wal.exists() and wal.stat().st_size > 0
    mode = "mode=ro" if has_wal else "immutable=1"  # a WAL with content needs its index, even to read
    uri = f"{path.absolute().as_uri()}?{mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=1, isolation_level=None, check_same_thread=False)
    connection.execute("SELECT 1 FROM entries LIMIT 1").fetchone()
    return connection
