"""How is work done on a PostgreSQL server: as Arrow, in a thread, within a time, and without showing a password?"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import pyarrow as pa

from tradecache.bridge import PerLoop, in_thread
from tradecache.credentials import SecretURL, without_secrets
from tradecache.errors import InvalidInput, MissingDependency, SourceUnavailable
from tradecache.retries import Retries

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Connection, Cursor

PLACES = 4  # connections at once, of one process
CONNECT = 10  # seconds in which a server has to let us in
BATCH = (
    8192  # rows that go over the wire while the next ones are made ready; all at once takes a fifth longer
)
NAME_BYTES = 63  # which PostgreSQL cuts longer names to, without a word
PASSING = ("08", "57P", "40001", "40P01", "53300")
"""How the codes begin of what passes: lost connections, shutdowns, deadlocks, too many connections."""
CANCELLED = "57014"
LINK = {
    "application_name": "tradecache",
    "connect_timeout": str(CONNECT),
    "keepalives_idle": "30",  # a host that vanished is noticed within a minute, not within two hours
    "keepalives_interval": "10",
    "keepalives_count": "3",
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999  # of the years that text is written with
READ = "ISOLATION LEVEL REPEATABLE READ READ ONLY"
WRITE = "ISOLATION LEVEL READ COMMITTED"

T = TypeVar("T")
log = logging.getLogger("tradecache")
_inherited: "list[Connection]" = []  # kept: to close them in a forked child would end those of its parent


class Lost(Exception):
    """Raised where the connection was lost, or anything else went wrong that may pass."""


class Caller:
    """Who waits for some work, or does so no more."""

    waits = True


class Session:
    """One transaction on one connection, of one thread; it stops between two statements once nobody waits."""

    def __init__(self, cursor: "Cursor", caller: Caller) -> None:
        self._cursor = cursor
        self._caller = caller

    def run(self, sql: str) -> None:
        """Run statements that have no values and no result."""
        self._go_on()
        self._cursor.executescript(sql)

    def ask(self, sql: str, *values: object) -> pa.Table:
        """Run one statement with values for $1, $2 and so on; for few rows."""
        self._go_on()
        return self._cursor.execute(sql, values or None).fetch_arrow_table()

    def read(self, sql: str) -> pa.Table:
        """Run a query without values, by COPY: for many rows. Values come by `settle`."""
        self._go_on()
        return self._cursor.execute(sql).fetch_arrow_table()

    def settle(self, **values: str) -> None:
        """Have SQL find values as `setting(name)` until the transaction ends: COPY takes no others."""
        names = [f"tradecache.{name}" for name in values]
        pairs = [text for pair in zip(names, values.values(), strict=True) for text in pair]
        calls = [f"set_config(${2 * n + 1}, ${2 * n + 2}, true)" for n in range(len(names))]
        self.ask(f"SELECT {', '.join(calls)}", *pairs)

    def write(
        self, table: str, rows: pa.Table, *, schema: str | None = None, is_temporary: bool = False
    ) -> None:
        """Append rows to a table, by COPY."""
        self._go_on()
        batches = rows.to_reader(max_chunksize=BATCH)
        self._cursor.adbc_ingest(table, batches, mode="append", db_schema_name=schema, temporary=is_temporary)

    def _go_on(self) -> None:
        if not self._caller.waits:
            raise Lost("nobody waits any more")


class Database:
    """A PostgreSQL server, with a few connections to it that are made when needed and made anew when lost.

    Args:
        url: Where it is.
        name: What it is called in errors.
    """

    def __init__(self, url: SecretURL, *, name: str) -> None:
        self.name = name
        self._url = url
        self._secrets = _secrets_of(url)
        self._idle: list[Connection] = []
        self._pid = os.getpid()
        self._is_closed = False
        self._places = PerLoop(lambda: asyncio.Semaphore(PLACES))

    async def run(
        self, work: Callable[[Session], T], *, mode: str = READ, limit: float, retries: Retries
    ) -> T:
        """Do some work in one transaction, and again from its beginning when the connection is lost.

        Whoever waits can be cancelled at once: what is under way is then rolled back, or was committed as a
        whole. Work whose commit was not heard of is done again, so it has to be such that this does no harm.

        Args:
            work: What to do; it is called in a thread.
            mode: `READ` or `WRITE`.
            limit: Seconds for each try.
            retries: How often and how patiently.

        Raises:
            SourceUnavailable: When the server cannot be reached, fails, or takes too long.
            MissingDependency: When the driver is not installed.
        """
        driver()
        try:
            async for attempt in retries.tries(Lost):
                with attempt:
                    return await self._once(work, mode, limit)
        except Lost as lost:
            reason = str(lost)
        raise SourceUnavailable(reason, source=self.name)

    async def close(self) -> None:
        """Let go of connections; those at work are closed when they are done."""
        self._is_closed = True
        await in_thread(self._let_go)

    def __repr__(self) -> str:
        """Show where it is, without its password."""
        return f"<Database {without_secrets(self._url.get_secret_value())}>"

    async def _once(self, work: Callable[[Session], T], mode: str, limit: float) -> T:
        caller = Caller()
        try:
            async with asyncio.timeout(limit), self._places.here():
                return await in_thread(self._transact, work, mode, limit, caller)
        except TimeoutError:
            raise SourceUnavailable(f"no answer within {limit:g} s", source=self.name) from None
        finally:
            caller.waits = False

    def _transact(self, work: Callable[[Session], T], mode: str, limit: float, caller: Caller) -> T:
        """Do the work between BEGIN and COMMIT; where it fails, the connection goes, and all of it with it."""
        fault: Exception
        try:
            connection = self._connection()
            with _dropped_on_error(connection), connection.cursor() as cursor:
                session = Session(cursor, caller)
                session.run(
                    f"BEGIN {mode}; SET LOCAL statement_timeout = {round(limit * 1000)}; SET LOCAL jit = off"
                )
                result = work(session)
                session.run("COMMIT" if mode == WRITE else "ROLLBACK")
            self._give_back(connection)
        except driver().Error as error:
            fault = self._fault(error, limit)
        else:
            return result
        raise fault  # here, where the driver's own error, which may show a URL, is no part of it

    def _connection(self) -> "Connection":
        if self._pid != os.getpid():
            _inherited.extend(self._idle)
            self._idle, self._pid = [], os.getpid()
        with contextlib.suppress(IndexError):  # several threads take from it
            return self._idle.pop()
        made: Connection = driver().connect(_link(self._url), autocommit=True)
        return made

    def _give_back(self, connection: "Connection") -> None:
        self._idle.append(connection)
        if self._is_closed:
            self._let_go()

    def _let_go(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                _closed(self._idle.pop())

    def _fault(self, error: Any, limit: float) -> Exception:
        """Return the driver's error as ours; connections that have been idle are then not to be trusted."""
        code = error.sqlstate or ""
        said = self._without_secrets(str(error).partition("\n\nQuery was:")[0])
        log.debug("%s: %s", self.name, said)
        if code.startswith(PASSING) or (error.status_code.name == "IO" and not code):
            self._let_go()
            return Lost(said)
        if code == CANCELLED:
            said = f"no answer within {limit:g} s"
        return SourceUnavailable(said, source=self.name)

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())


@contextlib.contextmanager
def _dropped_on_error(connection: "Connection") -> Any:
    try:
        yield
    except BaseException:
        _closed(connection)
        raise


def _closed(connection: "Connection") -> None:
    """Close a connection; of one that is lost the driver may complain, and it is gone all the same."""
    try:
        connection.close()
    except Exception as error:  # noqa: BLE001 - the first error is the one that counts
        log.debug("a connection was closed after it was lost (%s)", type(error).__name__)


def driver() -> Any:
    """Return ADBC's driver for PostgreSQL.

    Raises:
        MissingDependency: When it is not installed.
    """
    try:
        import adbc_driver_postgresql.dbapi as found
    except ImportError as error:
        raise MissingDependency("adbc-driver-postgresql", "archive") from error
    return found


def quoted(name: object, *, field: str) -> str:
    """Return a name as SQL has to be given it, whatever it holds.

    Raises:
        InvalidInput: For one that PostgreSQL cannot have.

    >>> print(quoted('my "own" prices', field="table"))
    "my ""own"" prices"
    """
    if isinstance(name, str) and name.isprintable() and 0 < len(name.encode()) <= NAME_BYTES:
        return '"' + name.replace('"', '""') + '"'
    raise InvalidInput(field, name, f"a name of 1 to {NAME_BYTES} printable bytes")


def setting(name: str) -> str:
    """Return the SQL that finds a value that `Session.settle` was given."""
    return f"current_setting('tradecache.{name}')"


def moment(micros: int) -> str:
    """Return a moment in microseconds since the epoch as SQL.

    >>> moment(0)
    "timestamptz '1970-01-01T00:00:00+00:00'"
    """
    if not FIRST <= micros <= LAST:
        return "timestamptz 'infinity'" if micros > 0 else "timestamptz '-infinity'"
    return f"timestamptz '{(EPOCH + timedelta(microseconds=micros)).isoformat()}'"


def columns_of(session: Session, relation: str) -> dict[str, str]:
    """Return the columns of a table or view and their types, none where there is no such relation.

    Args:
        session: Where to look.
        relation: Its quoted name.
    """
    query = """SELECT attname::text AS name, typname::text AS kind FROM pg_attribute
        JOIN pg_type ON pg_type.oid = atttypid
        WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""
    found = session.ask(query, relation)
    return dict(zip(found.column("name").to_pylist(), found.column("kind").to_pylist(), strict=True))


def _link(url: SecretURL) -> str:
    """Return the URL with what it does not say itself: time limits, and who we are."""
    parts = urlsplit(url.get_secret_value())
    said = dict(parse_qsl(parts.query))
    return parts._replace(query=urlencode(LINK | said, quote_via=quote)).geturl()


def _secrets_of(url: SecretURL) -> Sequence[str]:
    """Return what may not be shown, in each form in which the server's library might, the longest first."""
    text = url.get_secret_value()
    parts = urlsplit(text)
    hidden = urlsplit(without_secrets(text))
    passwords = [
        parts.password or "",
        *(value for _, value in set(parse_qsl(parts.query)) - set(parse_qsl(hidden.query))),
    ]
    found = {text, _link(url), *passwords, *map(unquote, passwords)} - {""}
    return sorted(found, key=len, reverse=True)
