"""How does a DataFrame become the bytes of an Arrow IPC file, and come back without being copied?"""

import json
import mmap
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tradecache.errors import NotStorable

_PLAIN = {"float64", "float32", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"}


def encode_frame(frame: pd.DataFrame, *, compression: str) -> pa.Buffer:
    """Return `frame` as an Arrow IPC file, readable by pyarrow, polars and DuckDB.

    Args:
        frame: As `normal_value` leaves it: unique column names, nothing that Arrow would rename.
        compression: "none", "lz4" or "zstd", for each of the file's buffers.

    Raises:
        NotStorable: When Arrow has no type for a column; the message names it.
    """
    try:
        table = pa.Table.from_pandas(frame, preserve_index=None).combine_chunks()
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise NotStorable(f"Arrow cannot hold its frame: {error}") from error
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=None if compression == "none" else compression)
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=max(1, table.num_rows))
    return sink.getvalue()


def decode_frame(mapping: mmap.mmap | bytearray) -> pd.DataFrame:
    """Return the frame in a privately mapped Arrow IPC file, its columns lying on the mapping.

    The mapping is copy-on-write (`mmap.ACCESS_COPY`), so whoever holds the frame last may write to it in
    place and the file stays as it is. Columns that numpy cannot view (text, nulls, compressed) are copied.

    Raises:
        pa.ArrowException: When the bytes are no Arrow IPC file.
    """
    base = pa.py_buffer(mapping)
    reader = pa.ipc.open_file(base)
    about = json.loads((reader.schema.metadata or {}).get(b"pandas", b"{}"))
    if reader.num_record_batches > 1 or not _is_simple(about):
        return _copied(reader)
    batch = reader.get_batch(0) if reader.num_record_batches else _empty_batch(reader.schema)
    plain = {column["field_name"] or column["name"]: column["numpy_type"] for column in about["columns"]}
    if not all(_is_plain(batch.column(n), plain.get(name)) for n, name in enumerate(batch.schema.names)):
        return _copied(reader)
    arrays = {name: _view(batch.column(n), mapping, base) for n, name in enumerate(batch.schema.names)}
    return _frame(arrays, about, batch.schema)


def _frame(arrays: dict[str, Any], about: dict[str, Any], schema: pa.Schema) -> pd.DataFrame:
    index: pd.Index | pd.RangeIndex
    (where,) = about["index_columns"]
    if isinstance(where, dict):
        index = pd.RangeIndex(where["start"], where["stop"], where["step"], name=where["name"])
    else:
        (name,) = (c["name"] for c in about["columns"] if (c["field_name"] or c["name"]) == where)
        index = _index(arrays.pop(where), schema.field(where).type, name)
    columns = pd.Index(list(arrays), dtype="str", name=about["column_indexes"][0]["name"])
    series = {name: _column(array, schema.field(name).type) for name, array in arrays.items()}
    frame = pd.DataFrame(series, index=index, copy=False)
    frame.columns = columns
    return frame


def _copied(reader: Any) -> pd.DataFrame:
    """Take the long way, for frames that numpy cannot view; a copy, so that it may be written."""
    frame: pd.DataFrame = reader.read_pandas()
    return frame.copy()


def _is_simple(about: dict[str, Any]) -> bool:
    """One index level and one level of str column names: what a frame of bars looks like."""
    labels = about.get("column_indexes", [])
    return len(about.get("index_columns", [])) == 1 and [c["pandas_type"] for c in labels] == ["unicode"]


def _is_plain(column: pa.Array, numpy_type: str | None) -> bool:
    if column.null_count or column.offset:
        return False
    if pa.types.is_timestamp(column.type):
        return column.type.tz in (None, "UTC")
    return numpy_type in _PLAIN and column.type == pa.from_numpy_dtype(np.dtype(numpy_type))


def _view(column: pa.Array, mapping: mmap.mmap | bytearray, base: pa.Buffer) -> np.ndarray[Any, Any]:
    kind = column.type
    dtype = np.dtype(f"M8[{kind.unit}]") if pa.types.is_timestamp(kind) else np.dtype(kind.to_pandas_dtype())
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
    if not kind.tz:
        return index
    in_utc = index.array.view(pd.DatetimeTZDtype(kind.unit, "UTC"))  # tz_localize would copy
    return pd.DatetimeIndex(in_utc, name=name, copy=False)


def _column(array: np.ndarray[Any, Any], kind: pa.DataType) -> Any:
    return _index(array, kind, None) if pa.types.is_timestamp(kind) else array


def _empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], type=field.type) for field in schema], schema=schema)
