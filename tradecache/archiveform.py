"""How does a frame of bars become columns of a table, and the same frame again?"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tradecache.barframes import COLUMNS
from tradecache.errors import NotStorable
from tradecache.intervals import interval_of
from tradecache.stores.arrow import in_utc

Numbers = np.ndarray[Any, Any]
Y2K = 946_684_800_000_000  # microseconds since the epoch, from which PostgreSQL counts
TIMES = pa.timestamp("us", "UTC")
EXACT = 2**53  # up to which a float64 holds each whole number
MOST = 40  # other columns, of which JSON is made by a function of at most 100 arguments
KINDS = {
    "float64": "double precision",
    "float32": "real",
    "int64": "bigint",
    "int32": "integer",
    "bool": "boolean",
    "str": "text",
}
"""The types that other columns may have, and what PostgreSQL calls them."""


class Form(NamedTuple):
    """What a frame has beside its rows: the names and types of its columns, in order."""

    columns: tuple[tuple[str, str], ...]

    @property
    def extras(self) -> dict[str, str]:
        """The columns that the table has none of, with their types."""
        return {name: kind for name, kind in self.columns if name not in COLUMNS}

    @property
    def kinds(self) -> list[str]:
        """What PostgreSQL calls the types."""
        return [KINDS[kind] for _, kind in self.columns]

    def text(self) -> str:
        """Return it as it is stored."""
        return json.dumps(self.columns, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def of(cls, text: str) -> "Form":
        """Return what was stored."""
        return cls(tuple((name, kind) for name, kind in json.loads(text)))


def form_of(frame: pd.DataFrame, *, interval: str, start: int, end: int) -> Form:
    """Return the form of bars of [start, end), if the same frame would come back.

    Raises:
        NotStorable: Naming what a table of bars cannot hold.
    """
    _check_labels(frame.index, interval=interval, start=start, end=end)
    names = frame.columns.tolist()
    if type(frame.columns) is not pd.Index or frame.columns.name is not None or len(set(names)) < len(names):
        raise NotStorable("its columns have no plain names, each of them once")
    for number, name in enumerate(names):
        _check_column(name, frame.iloc[:, number])
    if not 0 < len(names) <= MOST:
        raise NotStorable(f"it has {len(names)} columns, and not 1 to {MOST}")
    return Form(tuple((name, str(dtype)) for name, dtype in zip(names, frame.dtypes, strict=True)))


def _check_labels(index: pd.Index, *, interval: str, start: int, end: int) -> None:
    zone = "UTC" if interval_of(interval).is_intraday else "None"
    if not isinstance(index, pd.DatetimeIndex) or (index.name, index.unit, str(index.tz)) != (
        "timestamp",
        "us",
        zone,
    ):
        raise NotStorable(f"its index is not `timestamp` in microseconds, zone {zone}")
    labels = index.asi8
    if not len(labels) or index.hasnans or not (np.diff(labels) > 0).all():
        raise NotStorable("its labels do not increase")
    if labels[0] < start or labels[-1] >= end:
        raise NotStorable("its labels lie outside of its range")


def _check_column(name: object, column: pd.Series) -> None:
    kind = str(column.dtype)
    if not isinstance(name, str) or "\0" in name:
        raise NotStorable(f"the name of its column {name!r} is no text that SQL can hold")
    if kind not in (KINDS if name not in COLUMNS else ("float64", "int64")):
        raise NotStorable(f"its column {name!r} is of type {kind}")
    if name in COLUMNS and kind == "int64" and (column.abs() > EXACT).any():
        raise NotStorable(f"its column {name!r} has whole numbers that a float64 does not hold")
    if kind == "str" and column.str.contains("\0", regex=False, na=False).any():
        raise NotStorable(f"its column {name!r} has text that SQL cannot hold")


def rows_of(frame: pd.DataFrame) -> pa.Table:
    """Return labels and the five columns, which the table has, as Arrow; those that are missing as nulls."""
    labels = pa.array(frame.index.asi8).view(TIMES)  # type: ignore[attr-defined]
    missing = pa.nulls(len(frame), pa.float64())
    numbers = (
        pa.array(frame[name].to_numpy(dtype="float64")) if name in frame else missing for name in COLUMNS
    )
    return pa.table([labels, *numbers], names=["timestamp", *COLUMNS])


def extras_of(frame: pd.DataFrame, form: Form) -> list[pa.Array]:
    """Return the other columns as Arrow."""
    return [
        pa.array(frame[name].to_numpy()) if kind != "str" else pa.array(frame[name], pa.string())
        for name, kind in form.extras.items()
    ]


class Rows:
    """What the table has of a range of one series, from which frames of any form are cut.

    Args:
        labels: Microseconds since the epoch, in any order.
        numbers: The five columns.
        texts: The others, as text.
        interval: Of the series.
    """

    def __init__(
        self,
        labels: Numbers,
        numbers: Sequence[Numbers],
        texts: Mapping[str, pa.ChunkedArray],
        *,
        interval: str,
    ) -> None:
        self._labels, self._numbers = labels, dict(zip(COLUMNS, numbers, strict=True))
        self._texts = dict(texts)
        self._is_intraday = interval_of(interval).is_intraday
        if not (np.diff(labels) > 0).all():
            self._sort()

    def _sort(self) -> None:
        order = np.argsort(self._labels, kind="stable")
        self._labels = self._labels[order]
        self._numbers = {name: array[order] for name, array in self._numbers.items()}
        self._texts = {name: column.take(pa.array(order)) for name, column in self._texts.items()}

    def frame(self, form: Form, start: int, end: int) -> pd.DataFrame:
        """Return the bars of [start, end), which a frame of that form had."""
        first, last = self._labels.searchsorted((start, end)).tolist()
        columns = {name: self._column(name, kind, first, last) for name, kind in form.columns}
        return pd.DataFrame(columns, index=index_of(self._labels[first:last], self._is_intraday), copy=False)

    def _column(self, name: str, kind: str, first: int, last: int) -> Any:
        if name in self._texts:
            return _parsed(self._texts[name].slice(first, last - first), kind)
        return self._numbers[name][first:last].astype(kind, copy=False)


def packed_columns() -> str:
    """Return SQL for one row of many: labels and the five columns, each as the bytes of all its values.

    The server sends a million rows so in half the time that it takes for as many rows of six values, and
    nothing is left to do here. It may have several processes work on several such rows.
    """
    numbers = [f"string_agg(float8send(coalesce({name}, 'NaN')), '')" for name in COLUMNS]
    return ", ".join(["string_agg(timestamptz_send(timestamp), '')", *numbers])


def unpacked(table: pa.Table) -> tuple[Numbers, list[Numbers]]:
    """Return labels and the five columns from rows of a number, by which they are sorted, and `packed_columns`."""
    in_order = table.sort_by(table.column_names[0])
    labels = _joined(in_order.column(1), ">i8", "int64")
    return labels + Y2K, [_joined(column, ">f8", "float64") for column in in_order.columns[2:]]


def _joined(column: pa.ChunkedArray, sent: str, kind: str) -> Numbers:
    parts = [np.frombuffer(part.as_buffer(), sent) for part in column if part.is_valid]
    return np.concatenate(parts, dtype=kind) if parts else np.empty(0, kind)


def index_of(labels: Numbers, is_intraday: bool) -> pd.DatetimeIndex:  # noqa: FBT001
    """Return microseconds since the epoch as the labels of bars: in UTC, or as dates without a zone."""
    index = pd.DatetimeIndex(labels.view("M8[us]"), name="timestamp", copy=False)
    return in_utc(index) if is_intraday else index


def numbers_of(column: pa.ChunkedArray, kind: str) -> Numbers:
    """Return a column of numbers or times as an array of its own, nulls as NaN: the one copy that is made."""
    if not column.num_chunks:
        return np.empty(0, kind)
    is_time = pa.types.is_timestamp(column.type)
    chunks = [chunk.view(pa.int64()) if is_time else chunk for chunk in column.chunks]
    arrays = [chunk.to_numpy(zero_copy_only=False) for chunk in chunks]
    return np.concatenate(arrays, dtype=kind, casting="unsafe")


def _parsed(column: pa.ChunkedArray, kind: str) -> Any:
    """Return a column that came as text, from JSON, in the type that it had."""
    if kind == "str":
        return pd.Series(column.to_pandas(), dtype="str").array
    return numbers_of(pc.cast(column, pa.from_numpy_dtype(np.dtype(kind))), kind)
