"""How are bars read from a table of somebody's own, whatever its columns are called?"""

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa

from tradecache.archiveform import index_of, numbers_of
from tradecache.barframes import COLUMNS, empty_bars
from tradecache.database import Session, columns_of, moment, quoted, setting
from tradecache.errors import InvalidInput, NoBars, UnknownSymbol
from tradecache.intervals import Interval, interval_of

FIELDS = ("symbol", "interval", "timestamp", *COLUMNS)
NUMBERS = ("int2", "int4", "int8", "float4", "float8", "numeric")
WHOLE = ("int2", "int4", "int8")
TIMES = ("date", "timestamp", "timestamptz")
MANY = 50  # names of tables that a message lists


class OwnTable:
    """A table or view of somebody's own, which is only read.

    Args:
        table: Its name.
        schema: Where it is; None: as the server's `search_path` says.
        columns: What its columns are called, of `FIELDS`; what is not among them has the name that it has here.
            `volume` may be None: there is none.
        interval: Which bars it holds; None: a column says it.
        zone: The time zone of times without one, and in which times with one show the date of a daily bar.

    Raises:
        InvalidInput: Naming the argument.
    """

    def __init__(
        self,
        table: str,
        schema: str | None,
        columns: Mapping[str, str | None],
        *,
        interval: str | None,
        zone: str,
    ) -> None:
        self.table = table
        self._schema = schema
        self._relation = ("" if schema is None else quoted(schema, field="schema") + ".") + quoted(
            table, field="table"
        )
        self.interval = None if interval is None else interval_of(interval).text
        self._columns = _checked_columns(columns, has_interval=self.interval is None)
        self._zone = _checked_zone(zone)

    def fetch(self, session: Session, symbol: str, edges: tuple[int, int], interval: str) -> pd.DataFrame:
        """Return the bars of a symbol in [start, end), which are microseconds since the epoch.

        Raises:
            InvalidInput: When the table, one of its columns or the interval is not there.
            UnknownSymbol: When the table has no row of the symbol.
            NoBars: When the rows of the symbol end before the range, or begin after it.
        """
        kind = interval_of(interval)
        if self.interval not in (None, kind.text):
            raise InvalidInput("interval", interval, f"{self.interval!r}, which table {self.table} holds")
        kinds = self._checked_kinds(session, kind)
        session.settle(symbol=symbol, interval=kind.text, zone=self._zone)
        label, (first, last) = self._times(kinds, kind, edges)
        numbers = ", ".join(self._number(name, kinds) for name in COLUMNS)
        at = self._named("timestamp")
        where = f"{self._same()} AND {at} >= {first} AND {at} < {last}"
        found = session.read(f"SELECT {label}, {numbers} FROM {self._relation} WHERE {where}")
        if not len(found):
            self._check_absence(session, symbol, label, edges)
            return empty_bars(kind)
        return _frame(found, kind)

    def _named(self, field: str) -> str:
        return quoted(str(self._columns[field]), field="columns")

    def _same(self) -> str:
        """Return the condition that says of what the bars are."""
        symbol = f"{self._named('symbol')}::text = {setting('symbol')}"
        if self.interval is not None:
            return symbol
        return f"{symbol} AND {self._named('interval')}::text = {setting('interval')}"

    def _number(self, field: str, kinds: Mapping[str, str]) -> str:
        name = self._columns[field]
        if name is None:
            return "'NaN'::double precision"
        is_whole = field == "volume" and kinds[name] in WHOLE
        return f"{self._named(field)}::{'bigint' if is_whole else 'double precision'}"

    def _times(
        self, kinds: Mapping[str, str], kind: Interval, edges: tuple[int, int]
    ) -> tuple[str, list[str]]:
        """Return SQL for the label of a bar, and for the edges, such that an index on the column serves."""
        name, of_column, zone = (
            self._named("timestamp"),
            kinds[str(self._columns["timestamp"])],
            setting("zone"),
        )
        naive = [f"({moment(edge)} AT TIME ZONE 'UTC')" for edge in edges]
        if kind.is_intraday and of_column == "timestamptz":
            return name, [moment(edge) for edge in edges]
        if kind.is_intraday:
            return f"({name} AT TIME ZONE {zone})", [
                f"({moment(edge)} AT TIME ZONE {zone})" for edge in edges
            ]
        if of_column == "timestamptz":
            return f"({name} AT TIME ZONE {zone})", [f"({edge} AT TIME ZONE {zone})" for edge in naive]
        return f"{name}::timestamp", naive

    def _check_absence(self, session: Session, symbol: str, label: str, edges: tuple[int, int]) -> None:
        """Raise what it means that there are no rows in a range."""
        where = f"{self._named('symbol')}::text = {setting('symbol')}"
        of_all = session.read(f"SELECT min({label}), max({label}) FROM {self._relation} WHERE {where}")
        if of_all.column(0).null_count:
            raise UnknownSymbol(symbol)
        first, last = (int(numbers_of(column, "int64")[0]) for column in of_all.columns)
        if edges[1] <= first or edges[0] > last:
            raise NoBars("outside_window")  # a table may grow, at both ends

    def _checked_kinds(self, session: Session, kind: Interval) -> dict[str, str]:
        kinds = columns_of(session, self._relation)
        if not kinds:
            raise InvalidInput("table", self.table, f"one of {', '.join(self._tables(session))}")
        for field, name in self._columns.items():
            self._check_column(field, name, kinds, kind)
        return kinds

    def _check_column(self, field: str, name: str | None, kinds: Mapping[str, str], kind: Interval) -> None:
        if name is None:
            return
        where = f"columns[{field!r}]"
        if name not in kinds:
            raise InvalidInput(where, name, f"a column of table {self.table}: {', '.join(kinds)}")
        allowed = TIMES[1 if kind.is_intraday else 0 :] if field == "timestamp" else NUMBERS
        if field not in ("symbol", "interval") and kinds[name] not in allowed:
            raise InvalidInput(where, name, f"a column of type {' or '.join(allowed)}; it is {kinds[name]}")

    def _tables(self, session: Session) -> list[str]:
        """Return the names of the tables that there are instead."""
        query = """SELECT relname::text AS name FROM pg_class
            WHERE relkind IN ('r', 'v', 'm', 'f', 'p') AND relnamespace NOT IN
            ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) AND NOT relispartition
            AND ($1::text IS NULL OR relnamespace::regnamespace::text = $1) ORDER BY relname LIMIT $2"""
        found = session.ask(query, self._schema, MANY).column("name").to_pylist()
        return found or ["those of this database, which has none that we see"]


def _checked_columns(columns: Mapping[str, str | None], *, has_interval: bool) -> dict[str, str | None]:
    fields = [field for field in FIELDS if field != "interval" or has_interval]
    if not isinstance(columns, Mapping):
        raise InvalidInput("columns", columns, f"a dict with names for {', '.join(FIELDS)}")
    for field, name in columns.items():
        if field not in fields:
            raise InvalidInput("columns", field, f"names for {', '.join(fields)}")
        if name is not None or field != "volume":
            quoted(name, field=f"columns[{field!r}]")
    return {field: columns.get(field, field) for field in fields}


def _checked_zone(zone: str) -> str:
    try:
        return ZoneInfo(zone).key
    except (ValueError, TypeError, OSError, KeyError, AttributeError):
        raise InvalidInput("zone", zone, "a time zone, such as 'UTC' or 'America/New_York'") from None


def _frame(found: pa.Table, kind: Interval) -> pd.DataFrame:
    labels, *numbers = found.columns
    index = index_of(numbers_of(labels, "int64"), kind.is_intraday)
    columns: dict[str, Any] = {
        name: numbers_of(
            column, "int64" if pa.types.is_integer(column.type) and not column.null_count else "float64"
        )
        for name, column in zip(COLUMNS, numbers, strict=True)
    }
    return pd.DataFrame(columns, index=index, copy=False)
