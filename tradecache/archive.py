"""How do bars get into a database that other tools read, and out of it again?"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import pandas as pd
import xxhash
from pydantic import SecretStr

from tradecache.archivecoverage import answers_of, years_of
from tradecache.archivetable import Tables
from tradecache.credentials import checked_url
from tradecache.database import READ, WRITE, Database, Session
from tradecache.errors import InvalidInput
from tradecache.owntable import OwnTable
from tradecache.retries import Retries
from tradecache.segments import Series
from tradecache.shelves import Piece
from tradecache.sources.base import checked_name
from tradecache.timeline import Range, merged

ASKING = Retries(attempts=3, first=0.05, longest=0.5, jitter=0.05, patience=10)
"""How patiently a question is asked again: whoever asks has a source to ask instead."""
KEEPING = Retries(attempts=10, first=0.1, longest=5, jitter=0.2, patience=60)
"""How patiently a write is tried again: a server may be started anew meanwhile."""
WRITE_FACTOR = 10  # a write may take so many times as long as a question
LONGEST = 100_000  # seconds; PostgreSQL counts a limit's milliseconds in 32 bits
T = TypeVar("T")


class Archive:
    """Bars in PostgreSQL: final bars of any series in a table that other tools read, or a table of your own.

    As it is, it is a place of final bars that several caches share (a `Shelf`). Its table has the columns
    source, symbol, interval, timestamp (timestamptz; midnight UTC of their date for bars of a day or longer),
    open, high, low, close, volume (double precision) and extra (JSON: what else a source gave). It and its
    neighbour `<table>_coverage`, which says which ranges are known, are made when something is first kept.

    With `columns` it reads a table or view of your own as a source of bars, and writes nothing:

        prices = Archive(url, table="my_prices", interval="1d", name="warehouse",
                         columns={"symbol": "ticker", "timestamp": "day", "open": "px_open", "high": "px_high",
                                  "low": "px_low", "close": "px_close", "volume": None})
        cache = TradeCache(source=prices)

    Args:
        url: Where the server is: "postgresql://user@host/database".
        table: The table's name.
        schema: Where it is; None: as the server's `search_path` says.
        columns: For a table of your own, what its columns are called: symbol, timestamp, open, high, low, close,
            volume (None: there is none), and interval where `interval` does not say it. What is not named is
            called as it is here.
        interval: Which bars a table of your own holds; None: its column `interval` says it, as we spell it.
        zone: The time zone of your own table's times where they have none, and in which times that have one show
            the date of a bar of a day or longer.
        calendar: The market calendar of your own table; None: open all the time.
        name: What it is called in warnings; of a table of your own, the name under which its bars are kept.
        timeout: Seconds after which a question is given up; a write is given ten times as long.
        retries: How patiently a write is tried again when the connection is lost.

    Raises:
        InvalidInput: Naming the argument.
    """

    concurrency = 4

    def __init__(
        self,
        url: str | SecretStr,
        *,
        table: str = "bars",
        schema: str | None = None,
        columns: Mapping[str, str | None] | None = None,
        interval: str | None = None,
        zone: str = "UTC",
        calendar: str | None = None,
        name: str | None = None,
        timeout: float = 30.0,
        retries: Retries = KEEPING,
    ) -> None:
        self._url = checked_url("url", url, ["postgresql"])
        self._retries = retries
        self.timeout = _checked_timeout(timeout)
        self._tables = self._own = None
        if columns is None:
            if interval is not None:
                raise InvalidInput("interval", interval, "None, but for a table of your own, with columns=")
            self._tables = Tables(table, schema)
        else:
            self._own = OwnTable(table, schema, columns, interval=interval, zone=zone)
        self.calendar_for = calendar
        self.name = checked_name(self._usual_name(table, schema) if name is None else name)
        self._database = Database(self._url, name=self.name)

    def _usual_name(self, table: str, schema: str | None) -> str:
        if self._own is None:
            return "archive"
        where = self._url.get_secret_value().rpartition("@")[2].partition("?")[0]
        marked = xxhash.xxh3_64_hexdigest(f"{where} {schema} {table}".encode())
        return f"{table} {marked[:8]}"  # what tells it from tables of that name elsewhere

    async def ask(self, series: Series, ranges: Sequence[Range]) -> list[Piece]:
        """Return what is known of these ranges, pieces within them that do not overlap, in order.

        Raises:
            SourceUnavailable: When the server cannot be reached, fails, or takes too long.
            InvalidInput: When this reads a table of your own.
        """
        work = partial(self._shelf().ask, series=series, ranges=merged(ranges))
        return await self._read(work) if ranges else []

    async def keep(self, series: Series, pieces: Sequence[Piece]) -> None:
        """Keep pieces, all or none; where newer ones are there, those stay.

        It is tried again when the connection is lost, and does no harm when it had been done. Bars that a table
        cannot hold so that the same frame would come back are left out, with a line in the log that says why.

        Raises:
            SourceUnavailable: When the server cannot be reached, fails, or takes too long; nothing was kept, or,
                where only the answer was lost, all.
            InvalidInput: When there is another table of that name, or this reads a table of your own.
        """
        tables = self._shelf()
        if not pieces:
            return
        answers = answers_of(series, pieces)
        years = years_of(answers)
        if await self._read(partial(tables.lacking, years=years)):
            await self._write(partial(tables.make, years=years))
        await self._write(partial(tables.keep, series=series, answers=answers))

    async def fetch(self, symbol: str, start: pd.Timestamp, end: pd.Timestamp, interval: str) -> pd.DataFrame:
        """Return the bars of a table of your own that lie in [start, end).

        Raises:
            InvalidInput: When the table or a column is not there (listing what is), or holds another interval.
            UnknownSymbol: When it has no row of the symbol.
            NoBars: When the symbol's rows end before the range, or begin after it.
            SourceUnavailable: When the server cannot be reached, fails, or takes too long.
        """
        if self._own is None:
            raise InvalidInput("source", self.name, "an Archive that says with columns= which table it reads")
        edges = _micros(start), _micros(end)
        return await self._read(partial(self._own.fetch, symbol=symbol, edges=edges, interval=interval))

    async def close(self) -> None:
        """Let go of connections."""
        await self._database.close()

    def __repr__(self) -> str:
        """Show its name."""
        return f"<Archive {self.name}>"

    def _shelf(self) -> Tables:
        if self._tables is None:
            raise InvalidInput(
                "archive", self.name, "an Archive without columns=; a table of your own is only read"
            )
        return self._tables

    async def _read(self, work: Callable[[Session], T]) -> T:
        return await self._database.run(work, mode=READ, limit=self.timeout, retries=ASKING)

    async def _write(self, work: Callable[[Session], T]) -> T:
        limit = WRITE_FACTOR * self.timeout
        return await self._database.run(work, mode=WRITE, limit=limit, retries=self._retries)


def _checked_timeout(seconds: object) -> float:
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 < seconds <= LONGEST:
        return float(seconds)
    raise InvalidInput("timeout", seconds, f"a positive number of seconds up to {LONGEST:,}")


def _micros(moment: pd.Timestamp) -> int:
    return int(moment.as_unit("us").to_datetime64().astype("int64"))
