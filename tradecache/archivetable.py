"""Which tables hold an archive, and how are they made, read and written?"""

from collections.abc import Iterable, Sequence
from itertools import groupby

import pandas as pd
import pyarrow as pa

from tradecache.archivecoverage import Answer, Known, Seen, joined, painted
from tradecache.archiveform import (
    TIMES,
    Form,
    Numbers,
    Rows,
    extras_of,
    numbers_of,
    packed_columns,
    rows_of,
    unpacked,
)
from tradecache.barframes import COLUMNS
from tradecache.database import NAME_BYTES, Session, columns_of, moment, quoted, setting
from tradecache.errors import InvalidInput
from tradecache.intervals import interval_of
from tradecache.segments import Series
from tradecache.shelves import Piece
from tradecache.timeline import Range, cut, merged

KEY = Series._fields
SUFFIX_BYTES = len("_coverage")  # what the names of the other tables have after that of the first
SERIES = " AND ".join(f"{name} = {setting(name)}" for name in KEY)
TEXT = 'text COLLATE "C" NOT NULL'  # compared byte by byte, which fills the index faster
TEXTS = ", ".join(f"{name} {TEXT}" for name in KEY)
NUMBERS = ", ".join(f"{name} double precision" for name in COLUMNS)
BARS_COLUMNS = f"""{TEXTS}, timestamp timestamptz NOT NULL, {NUMBERS}, extra jsonb,
    PRIMARY KEY (symbol, interval, timestamp, source) WITH (fillfactor = 100)"""
"""The key has the order in which other tools ask, who seldom say which source; bars come in order and do not change,
so that its pages need no room."""
COVERAGE_COLUMNS = f"""{TEXTS}, "start" timestamptz NOT NULL, "end" timestamptz NOT NULL,
    outcome text NOT NULL, fetched_at timestamptz NOT NULL, form text,
    PRIMARY KEY (symbol, interval, source, "start")"""
HYPERTABLE = (
    "SELECT create_hypertable($1::regclass, 'timestamp', chunk_time_interval => INTERVAL '1 year')::text"
)
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))::text"
PARTS, PART_ROWS = 4, 100_000  # of a large read, which several of the server's processes may share
STAGED = "tradecache_staged"


class Tables:
    """The two tables of an archive: bars, and the ranges of which nothing is missing in them.

    Without TimescaleDB bars are partitioned by the year of their timestamp, and each partition is made when the
    first bar of its year comes. With TimescaleDB they are a hypertable in chunks of a year: that branch is one
    statement, and has not been tried on a server, since none with the extension was at hand.

    Args:
        table: The name of the table of bars; that of the ranges has `_coverage` after it, partitions the year.
        schema: Where they are; None: as the server's `search_path` says.

    Raises:
        InvalidInput: For a name that PostgreSQL cannot have.
    """

    def __init__(self, table: str, schema: str | None) -> None:
        if len(quoted(table, field="table").encode()) > NAME_BYTES - SUFFIX_BYTES:
            raise InvalidInput("table", table, f"a name of at most {NAME_BYTES - SUFFIX_BYTES - 2} bytes")
        self.table, self.schema = table, schema
        self._prefix = "" if schema is None else quoted(schema, field="schema") + "."
        self.bars, self.coverage = self._named(table), self._named(f"{table}_coverage")

    def _named(self, table: str) -> str:
        return self._prefix + quoted(table, field="table")

    def lacking(self, session: Session, years: Iterable[int]) -> bool:
        """Whether tables or partitions have to be made before bars of these years are kept."""
        there = self._columns(session)
        return there is None or bool(self._lacking_years(session, years))

    def make(self, session: Session, years: Iterable[int]) -> None:
        """Make what is lacking, while no other process does.

        Raises:
            InvalidInput: When there is a table of that name with other columns.
        """
        session.ask(LOCK, f"tradecache {self.bars}")
        if self._columns(session) is None:
            self._make_tables(session)
        for year in self._lacking_years(session, years):
            self._make_partition(session, year)

    def _columns(self, session: Session) -> dict[str, str] | None:
        """Return the columns of bars; None when they are not there, or the coverage is not.

        Raises:
            InvalidInput: For another table of that name.
        """
        found = columns_of(session, self.bars)
        missing = {*KEY, "timestamp", *COLUMNS, "extra"} - set(found)
        if found and missing:
            allowed = f"the name of an archive, or of no table; this one has the columns {', '.join(found)}"
            raise InvalidInput("table", self.table, allowed)
        return found if found and columns_of(session, self.coverage) else None

    def _make_tables(self, session: Session) -> None:
        is_timescale = session.ask(
            "SELECT 1 AS one FROM pg_extension WHERE extname = $1", "timescaledb"
        ).num_rows
        divided = "" if is_timescale else "PARTITION BY RANGE (timestamp)"
        is_new = not columns_of(session, self.bars)
        session.run(f"CREATE TABLE IF NOT EXISTS {self.bars} ({BARS_COLUMNS}) {divided}")
        session.run(f"CREATE TABLE IF NOT EXISTS {self.coverage} ({COVERAGE_COLUMNS})")
        if is_timescale and is_new:
            session.ask(HYPERTABLE, self.bars)

    def _lacking_years(self, session: Session, years: Iterable[int]) -> list[int]:
        kinds = session.ask(
            "SELECT relkind::text AS kind FROM pg_class WHERE oid = to_regclass($1)", self.bars
        )
        if kinds.column("kind").to_pylist() != ["p"]:
            return []
        query = """SELECT relname::text AS name FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
            WHERE inhparent = to_regclass($1)"""
        there = set(session.ask(query, self.bars).column("name").to_pylist())
        return [year for year in years if f"{self.table}_{year}" not in there]

    def _make_partition(self, session: Session, year: int) -> None:
        """Make a partition beside the table, then attach it: so nobody who reads or writes has to wait."""
        part = self._named(f"{self.table}_{year}")
        session.run(f"CREATE TABLE {part} (LIKE {self.bars} INCLUDING ALL)")
        edges = f"FROM ('{year:04}-01-01 00:00+00') TO ('{year + 1:04}-01-01 00:00+00')"
        session.run(f"ALTER TABLE {self.bars} ATTACH PARTITION {part} FOR VALUES {edges}")

    def ask(self, session: Session, series: Series, ranges: Sequence[Range]) -> list[Piece]:
        """Return what is known of ranges, which are in order and do not overlap."""
        if not columns_of(session, self.coverage):
            return []
        _settle(session, series)
        return [piece for each in ranges for piece in self._ask_one(session, series, each)]

    def _ask_one(self, session: Session, series: Series, asked: Range) -> list[Piece]:
        known = [_within(each, asked) for each in joined(self._known(session, asked))]
        forms = {each.form: Form.of(each.form) for each in known if each.form is not None}
        filled = [each for each in known if each.form is not None]
        if not filled:
            return [Piece(each.start, each.end, each.outcome, None, each.fetched_at) for each in known]
        rows = self._rows(session, series, (filled[0].start, filled[-1].end), forms.values())
        return [_piece(each, rows, forms) for each in known]

    def _rows(self, session: Session, series: Series, within: Range, forms: Iterable[Form]) -> Rows:
        extras = sorted({name for form in forms for name in form.extras})
        if not extras:
            labels, numbers = self._packed(session, series, within)
            return Rows(labels, numbers, {}, interval=series.interval)
        texts = [f"extra->>{each}" for each in _settled(session, extras)]
        columns = ", ".join(["timestamp", *COLUMNS, *texts])
        found = session.read(f"SELECT {columns} FROM {self.bars} WHERE {SERIES} AND {_between(within)}")
        labels, *numbers = (
            numbers_of(each, "int64" if n == 0 else "float64") for n, each in enumerate(found.columns[:6])
        )
        return Rows(
            labels, numbers, dict(zip(extras, found.columns[6:], strict=True)), interval=series.interval
        )

    def _packed(self, session: Session, series: Series, within: Range) -> tuple[Numbers, list[Numbers]]:
        start, end = within
        bars = (end - start) // interval_of(series.interval).microseconds
        parts = cut([within], -(-(end - start) // min(PARTS, 1 + bars // PART_ROWS)))
        queries = [
            f"SELECT {number}, {packed_columns()} FROM {self.bars} WHERE {SERIES} AND {_between(part)}"
            for number, part in enumerate(parts)
        ]
        return unpacked(session.read(" UNION ALL ".join(queries)))

    def _known(self, session: Session, within: Range) -> list[Known]:
        """Return the rows of the coverage that overlap a range, in order."""
        first, last = map(moment, within)
        before = f'SELECT max("start") FROM {self.coverage} WHERE {SERIES} AND "start" <= {first}'
        found = session.read(
            f"""SELECT "start", "end", outcome, fetched_at, form FROM {self.coverage} WHERE {SERIES}
            AND "start" >= coalesce(({before}), {first}) AND "start" < {last} AND "end" > {first}"""
        )
        times = (numbers_of(found.column(at), "int64").tolist() for at in (0, 1, 3))
        starts, ends, fetched = times
        outcomes, forms = found.column(2).to_pylist(), found.column(4).to_pylist()
        return sorted(map(Known, starts, ends, outcomes, fetched, forms))

    def keep(self, session: Session, series: Series, answers: Sequence[Answer]) -> None:
        """Keep answers where nothing newer is there; whoever keeps of this series meanwhile has to wait."""
        _settle(session, series)
        session.ask(LOCK, "\x1f".join([self.bars, *series]))
        within = min(each.piece.start for each in answers), max(each.piece.end for each in answers)
        known = self._known(session, within)
        old, new = painted(known, answers)
        if not new:
            return
        kept = [each for each in new if each.answer.is_kept]
        self._write_coverage(session, series, known, [*old, *(each.known for each in kept)], within)
        for edges in merged((each.start, each.end) for each in new):
            session.run(f"DELETE FROM {self.bars} WHERE {SERIES} AND {_between(edges)}")
        self._write_bars(session, series, [each for each in kept if each.answer.form is not None])

    def _write_coverage(
        self, session: Session, series: Series, known: Sequence[Known], now: Sequence[Known], within: Range
    ) -> None:
        if known:
            edges = f'"start" >= {moment(known[0].start)} AND "start" < {moment(within[1])}'
            session.run(f"DELETE FROM {self.coverage} WHERE {SERIES} AND {edges}")
        rows = joined(sorted(now), of_one_time=True)
        if not rows:
            return
        starts, ends, outcomes, fetched, forms = (list(column) for column in zip(*rows, strict=True))
        times = {"start": starts, "end": ends, "fetched_at": fetched}
        columns = {name: pa.array(each, pa.int64()).view(TIMES) for name, each in times.items()}
        texts = {"outcome": pa.array(outcomes, pa.string()), "form": pa.array(forms, pa.string())}
        table = _of_series(series, pa.table(columns | texts))
        session.write(f"{self.table}_coverage", table, schema=self.schema)

    def _write_bars(self, session: Session, series: Series, filled: Sequence[Seen]) -> None:
        by_extras = sorted(filled, key=lambda each: each.extras.text())
        for extras, group in groupby(by_extras, key=lambda each: each.extras):
            frames = [each.bars for each in group]
            frames = [frame for frame in frames if len(frame)]
            if frames and extras.columns:
                self._write_staged(session, extras, frames)
            elif frames:
                table = _of_series(series, pa.concat_tables(map(rows_of, frames)))
                session.write(self.table, table, schema=self.schema)

    def _write_staged(self, session: Session, extras: Form, frames: Sequence[pd.DataFrame]) -> None:
        """Write bars with more columns than the table has: by a temporary table, from which JSON is made."""
        kinds = ["timestamptz", *("double precision" for _ in COLUMNS), *extras.kinds]
        names = [f"c{number}" for number in range(len(kinds))]
        columns = ", ".join(f"{name} {kind}" for name, kind in zip(names, kinds, strict=True))
        session.run(f"CREATE TEMPORARY TABLE {STAGED} ({columns}) ON COMMIT DROP")
        tables = [
            pa.table([*rows_of(frame).columns, *extras_of(frame, extras)], names=names) for frame in frames
        ]
        session.write(STAGED, pa.concat_tables(tables), is_temporary=True)
        plain, others = names[: 1 + len(COLUMNS)], names[1 + len(COLUMNS) :]
        settings = _settled(session, [name for name, _ in extras.columns])
        pairs = ", ".join(f"{name}, {column}" for name, column in zip(settings, others, strict=True))
        values = ", ".join([*map(setting, KEY), *plain, f"jsonb_build_object({pairs})"])
        into = ", ".join([*KEY, "timestamp", *COLUMNS, "extra"])
        session.run(f"INSERT INTO {self.bars} ({into}) SELECT {values} FROM {STAGED}; DROP TABLE {STAGED}")


def _settle(session: Session, series: Series) -> None:
    """Have `SERIES` mean this one, and its rows found by the key: in a scan settings are looked up for each row."""
    session.settle(**series._asdict())
    session.run("SET LOCAL enable_seqscan = off")


def _settled(session: Session, names: Sequence[str]) -> list[str]:
    """Return SQL that stands for names of other columns, which no SQL is made of."""
    if names:
        session.settle(**{f"extra{number}": name for number, name in enumerate(names)})
    return [setting(f"extra{number}") for number in range(len(names))]


def _between(within: Range) -> str:
    first, last = map(moment, within)
    return f"timestamp >= {first} AND timestamp < {last}"


def _within(known: Known, asked: Range) -> Known:
    return known._replace(start=max(known.start, asked[0]), end=min(known.end, asked[1]))


def _piece(known: Known, rows: Rows, forms: dict[str, Form]) -> Piece:
    frame = None if known.form is None else rows.frame(forms[known.form], known.start, known.end)
    if frame is not None and not len(frame):  # a part of a range between two of its bars
        return Piece(known.start, known.end, "no_trades", None, known.fetched_at)
    return Piece(known.start, known.end, known.outcome, frame, known.fetched_at)


def _of_series(series: Series, table: pa.Table) -> pa.Table:
    """Return rows with three columns more, which say of what they are."""
    same = [pa.repeat(pa.scalar(value, pa.string()), len(table)) for value in series]
    return pa.table([*same, *table.columns], names=[*KEY, *table.column_names])
