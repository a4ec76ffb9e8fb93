"""How do price points become a frame, and the rows of a frame price points?"""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from tradecache.errors import InvalidInput, InvalidSymbol
from tradecache.models import ALLOWED, PriceData, means
from tradecache.stores.abilities import Entry

log = logging.getLogger("tradecache")

COLUMNS = {"symbol": "str", "price": "float64", "volume": "float64", "expires_at": "datetime64[us, UTC]"}
_SCHEMA = {
    "symbol": pa.string(),
    "price": pa.float64(),
    "volume": pa.float64(),
    "timestamp": pa.timestamp("us", "UTC"),
}
POINTS = TypeAdapter(list[PriceData])
"""Turns rows into points and points into JSON values, many at once."""


Columns = Mapping[str, Sequence[Any]]
"""The columns of a frame of price points, by the names of their fields."""
Fault = tuple[int, str, object, str]
"""A row's position, the field, its value and what is allowed."""


class Latest(NamedTuple):
    """The newest live point of a symbol, and the seconds it has left (None: for ever)."""

    point: PriceData
    ttl: float | None


def point_in(entry: Entry) -> PriceData | None:
    """Return the point that is stored in an entry; what is no point is a logged miss."""
    try:
        return PriceData.model_validate_json(entry.value)
    except ValidationError as error:
        log.warning("%r is no price point: %s", entry.key, error.errors(include_input=False))
        return None


def points_frame(entries: Sequence[Entry]) -> pd.DataFrame:
    """Return entries as a frame: index `timestamp` (UTC), columns symbol, price, volume, expires_at.

    What is stored but is no point is left out and logged.
    """
    try:
        table = _table([entry.value for entry in entries])
    except pa.ArrowInvalid:
        found = [(entry, point) for entry in entries if (point := point_in(entry)) is not None]
        entries = [entry for entry, _ in found]
        table = _table([point.model_dump_json().encode() for _, point in found])
    stamps = table["timestamp"].cast(pa.int64()).to_numpy().view("M8[us]")
    expires = np.array([np.iinfo("i8").min if e.expires is None else e.expires for e in entries], "i8").view(
        "M8[us]"
    )
    columns = {
        "symbol": table["symbol"].to_pandas().astype("str"),
        "price": table["price"].to_numpy(),
        "volume": table["volume"].to_numpy(),
        "expires_at": pd.DatetimeIndex(expires).tz_localize("UTC"),
    }
    frame = pd.DataFrame(
        {
            name: np.asarray(column) if name in {"price", "volume"} else column.array
            for name, column in columns.items()
        }
    )
    frame.index = pd.DatetimeIndex(stamps, name="timestamp").tz_localize("UTC")
    return frame.astype(COLUMNS)


def _table(texts: Sequence[bytes]) -> pa.Table:
    import pyarrow.json

    schema = pa.schema(_SCHEMA)
    if not texts:
        return schema.empty_table()
    reader = pa.BufferReader(pa.py_buffer(b"\n".join(texts)))
    options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    table = pyarrow.json.read_json(reader, parse_options=options)
    if len(table) != len(texts) or not _is_sound(table):
        raise pa.ArrowInvalid("not every text is a price point")
    return table


def _is_sound(table: pa.Table) -> bool:
    if any(column.null_count for column in table.columns):
        return False
    return bool(table["price"].to_numpy().min() > 0 and table["volume"].to_numpy().min() >= 0)


def points_between(columns: Columns, rows: Sequence[int]) -> tuple[list[PriceData], list[Fault]]:
    """Return some rows of a frame's columns as price points, and what is wrong where they are none.

    Args:
        columns: As `columns_of` gives them.
        rows: Their positions, at least one, in a row.
    """
    some = {name: column[rows[0] : rows[-1] + 1] for name, column in columns.items()}
    meant = [[each if means(name, each) else None for each in column] for name, column in some.items()]
    try:
        return POINTS.validate_python(
            [dict(zip(some, row, strict=True)) for row in zip(*meant, strict=True)]
        ), []
    except ValidationError as error:
        return [], _faults(error, columns, rows[0])


def columns_of(frame: pd.DataFrame) -> Columns:
    """Return the columns of a frame that a price point is made of.

    Args:
        frame: Columns symbol, price, volume, and timestamp (or an index of timestamps), aware.

    Raises:
        InvalidInput: When a column is missing or there twice.
    """
    if not isinstance(frame, pd.DataFrame):
        raise InvalidInput("frame", frame, "a DataFrame")
    if "timestamp" not in frame.columns and isinstance(frame.index, pd.DatetimeIndex):
        frame = frame.assign(timestamp=frame.index)
    names = list(frame.columns)
    if any(names.count(name) != 1 for name in ALLOWED):
        allowed = "symbol, price, volume and timestamp (or an index of timestamps), each of them once"
        wrong = ", ".join(
            f"{name} is there {names.count(name)} times" for name in ALLOWED if names.count(name) != 1
        )
        raise InvalidInput("frame.columns", names, f"{allowed}: {wrong}")
    return {name: frame[name].tolist() for name in ALLOWED}


def _faults(error: ValidationError, columns: Columns, first: int) -> list[Fault]:
    faults = []
    for fault in error.errors():
        row, field = first + int(fault["loc"][0]), str(fault["loc"][1])
        cause = fault.get("ctx", {}).get("error")
        allowed = cause.allowed if isinstance(cause, InvalidSymbol) else ALLOWED[field]
        faults.append((row, field, columns[field][row], allowed))
    return faults


def latest_frame(found: Mapping[str, Latest | None], *, now: datetime) -> pd.DataFrame:
    """Return one row for each symbol that has a live point: price, volume, timestamp, age, ttl."""
    live = {symbol: each for symbol, each in found.items() if each is not None}
    points = [each.point for each in live.values()]
    stamps = pd.DatetimeIndex([point.timestamp for point in points], dtype="datetime64[us, UTC]")
    frame = pd.DataFrame(
        {
            "price": np.array([point.price for point in points], dtype="float64"),
            "volume": np.array([point.volume for point in points], dtype="float64"),
            "timestamp": stamps,
            "age": pd.Timestamp(now).as_unit("us") - stamps,
            "ttl": pd.to_timedelta(
                np.array([each.ttl for each in live.values()], dtype="float64"), unit="s"
            ).as_unit("us"),
        },
        index=pd.Index(list(live), dtype="str", name="symbol"),
    )
    return frame.astype({"age": "timedelta64[us]"})
