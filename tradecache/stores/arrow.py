"""How does a DataFrame become the bytes of an Arrow IPC file, and come back without being copied?"""

import json
import mmap
from collections.abc import Hashable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from tradecache.errors import NotStorable

STREAMED = 1 << 20  # bytes from which on a table is written piece by piece
_NUMBERS = {"float64", "float32", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"}
_PLAIN = frozenset(map(np.dtype, _NUMBERS))


pd.Index([], dtype="str")  # pandas and pyarrow load each other with the first text: now, not in a first read


Content = mmap.mmap | bytearray | np.ndarray[Any, np.dtype[np.uint8]]
"""The bytes of a file: mapped, read, or decrypted."""


class Writable(Protocol):
    """A file to write to."""

    def write(self, content: Any) -> Any:
        """Write all of `content`."""


def as_table(frame: pd.DataFrame) -> pa.Table:
    """Return `frame` in Arrow's form, numbers in the memory where they lie.

    Args:
        frame: As `normal_value` leaves it: unique column names, nothing that Arrow would rename.

    Raises:
        NotStorable: When Arrow has no type for a column; the message names it.
    """
    batch = _plain_batch(frame)
    if batch is not None:
        return pa.table(batch)
    try:
        return pa.Table.from_pandas(frame, preserve_index=None).combine_chunks()
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise NotStorable(f"Arrow cannot hold its frame: {error}") from error


def write_table(table: pa.Table, file: Writable, *, compression: str) -> None:
    """Write a table as an Arrow IPC file, readable by pyarrow, polars and DuckDB.

    Args:
        table: What `as_table` returned.
        file: Where to; a large table comes column by column, without a copy of all of it.
        compression: "none", "lz4" or "zstd", for each of the file's buffers.
    """
    is_large = table.nbytes >= STREAMED
    sink = pa.PythonFile(file, mode="w") if is_large else pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=None if compression == "none" else compression)
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=max(1, table.num_rows))
    if not is_large:
        file.write(sink.getvalue())


def _plain_batch(frame: pd.DataFrame) -> pa.RecordBatch | None:
    """Return a frame of numbers, labelled by times in UTC or without a zone, as Arrow on the same memory.

    None for any other: what pyarrow does for all kinds of frames takes longer than to write a few bars.
    """
    index, names = frame.index, frame.columns
    if not isinstance(index, pd.DatetimeIndex) or index.hasnans or str(index.tz) not in {"UTC", "None"}:
        return None
    dtypes = tuple(frame.dtypes.tolist())
    if names.dtype != "str" or not _PLAIN.issuperset(dtypes) or index.name in names:
        return None
    columns = [column.to_numpy() for _, column in frame.items()]
    if any(column.dtype.kind == "f" and np.isnan(column).any() for column in columns):
        return None  # which Arrow knows as missing
    zone = None if index.tz is None else "UTC"
    schema = _schema_of(tuple(names), names.name, dtypes, index.name, index.unit, zone)
    labels = pa.array(index.asi8).view(schema.types[-1])
    return pa.RecordBatch.from_arrays([*map(pa.array, columns), labels], schema=schema)


@lru_cache(maxsize=100)
def _schema_of(
    names: tuple[str, ...],
    columns_name: Hashable,
    dtypes: tuple[np.dtype[Any], ...],
    index_name: Hashable,
    unit: str,
    zone: str | None,
) -> pa.Schema:
    """Return the schema that pyarrow gives to frames of these columns and this index."""
    times = pd.DatetimeIndex([], name=index_name, dtype=f"M8[{unit}]").tz_localize(zone)
    columns = {name: np.empty(0, dtype) for name, dtype in zip(names, dtypes, strict=True)}
    frame = pd.DataFrame(columns, index=times, columns=pd.Index(names, dtype="str", name=columns_name))
    return pa.Table.from_pandas(frame, preserve_index=None).schema


def decode_frame(mapping: Content) -> pd.DataFrame:
    """Return the frame in a privately mapped (or read, or decrypted) Arrow IPC file, its columns lying there.

    The mapping is copy-on-write (`mmap.ACCESS_COPY`), so whoever holds the frame last may write to it in
    place and the file stays as it is. Columns that numpy cannot view (text, nulls, compressed) are copied.

    Raises:
        pa.ArrowException: When the bytes are no Arrow IPC file.
    """
    base = pa.py_buffer(mapping)
    reader = pa.ipc.open_file(base)
    names, kinds = tuple(reader.schema.names), tuple(reader.schema.types)
    schema = _schema_read((reader.schema.metadata or {}).get(b"pandas", b"{}"), names, kinds)
    if schema is None or reader.num_record_batches > 1:
        return _copied(reader)
    batch = reader.get_batch(0) if reader.num_record_batches else _empty_batch(reader.schema)
    columns = batch.columns
    if any(column.null_count or column.offset for column in columns):
        return _copied(reader)
    views = zip(columns, schema.dtypes, strict=True)
    arrays = [_view(column, dtype, mapping, base) for column, dtype in views]
    if schema.range_index is not None:
        return _frame(arrays, schema.range_index.view(), schema)
    labels = arrays.pop(schema.index_at)
    return _frame(arrays, _index(labels, kinds[schema.index_at], schema.index_name), schema)


class _FrameSchema(NamedTuple):
    """What a file's schema says of its frame, worked out once for all files that have the same.

    Attributes:
        dtypes: Of each column of the file, as numpy views it.
        range_index: The index, where it is a range.
        index_at: Which column of the file is the index; their number, where none is.
        index_name: What the index is called.
        columns: The names of the frame's columns.
        kinds: Their types.
    """

    dtypes: tuple[np.dtype[Any], ...]
    range_index: pd.RangeIndex | None
    index_at: int
    index_name: str | None
    columns: pd.Index
    kinds: tuple[pa.DataType, ...]


@lru_cache(maxsize=100)
def _schema_read(about: bytes, names: tuple[str, ...], kinds: tuple[pa.DataType, ...]) -> _FrameSchema | None:
    """Return what a schema says; None where numpy cannot view what it describes."""
    known = json.loads(about)
    if not _is_simple(known):
        return None
    columns = {column["field_name"] or column["name"]: column for column in known["columns"]}
    if not all(
        _is_plain(kind, columns.get(name, {}).get("numpy_type"))
        for name, kind in zip(names, kinds, strict=True)
    ):
        return None
    dtypes = tuple(map(_dtype, kinds))
    (where,) = known["index_columns"]
    numbers, at, name = None, len(names), None
    if isinstance(where, dict):
        numbers = pd.RangeIndex(where["start"], where["stop"], where["step"], name=where["name"])
    else:
        at, name = names.index(where), columns[where]["name"]
    others = [n for n in range(len(names)) if n != at]
    labels = pd.Index([names[n] for n in others], dtype="str", name=known["column_indexes"][0]["name"])
    return _FrameSchema(dtypes, numbers, at, name, labels, tuple(kinds[n] for n in others))


def _frame(arrays: list[Any], index: pd.Index, schema: _FrameSchema) -> pd.DataFrame:
    series = {
        n: _column(array, kind) for n, (array, kind) in enumerate(zip(arrays, schema.kinds, strict=True))
    }
    frame = pd.DataFrame(series, index=index, copy=False)
    frame.columns = schema.columns.view()  # of one's own, since its name can be changed
    return frame


def _copied(reader: Any) -> pd.DataFrame:
    """Take the long way, for frames that numpy cannot view; a copy, so that it may be written."""
    frame: pd.DataFrame = reader.read_pandas()
    return frame.copy()


def _is_simple(about: dict[str, Any]) -> bool:
    """One index level and one level of str column names: what a frame of bars looks like."""
    labels = about.get("column_indexes", [])
    return len(about.get("index_columns", [])) == 1 and [c["pandas_type"] for c in labels] == ["unicode"]


def _is_plain(kind: pa.DataType, numpy_type: str | None) -> bool:
    if pa.types.is_timestamp(kind):
        return kind.tz in (None, "UTC")
    return numpy_type in _NUMBERS and kind == pa.from_numpy_dtype(np.dtype(numpy_type))


def _dtype(kind: pa.DataType) -> np.dtype[Any]:
    return np.dtype(f"M8[{kind.unit}]" if pa.types.is_timestamp(kind) else kind.to_pandas_dtype())


def _view(column: pa.Array, dtype: np.dtype[Any], mapping: Content, base: pa.Buffer) -> np.ndarray[Any, Any]:
    if not len(column):
        return np.empty(0, dtype=dtype)
    data = column.buffers()[1]
    offset = data.address - base.address
    if 0 <= offset < base.size:
        return np.frombuffer(mapping, dtype=dtype, count=len(column), offset=offset)
    return np.frombuffer(data, dtype=dtype, count=len(column)).copy()  # decompressed: not in the mapping


def _index(array: np.ndarray[Any, Any], kind: pa.DataType, name: str | None) -> pd.Index:
    index: pd.Index
    if not pa.types.is_timestamp(kind):
        index = pd.Index(array, name=name, copy=False)
        return index
    index = pd.DatetimeIndex(array, name=name, copy=False)
    return in_utc(index) if kind.tz else index


def in_utc(index: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Return times without a zone as times in UTC, on the same array: `tz_localize` would copy it."""
    aware = index.array.view(pd.DatetimeTZDtype(index.unit, "UTC"))
    return pd.DatetimeIndex(aware, name=index.name, copy=False)


def _column(array: np.ndarray[Any, Any], kind: pa.DataType) -> Any:
    return _index(array, kind, None) if pa.types.is_timestamp(kind) else array


def _empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], type=field.type) for field in schema], schema=schema)
