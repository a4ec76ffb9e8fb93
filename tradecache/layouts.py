"""In which shape are the bars of several symbols handed out?"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from tradecache.errors import InvalidInput

Layout = Literal["wide", "long"]
OnError = Literal["warn", "raise", "ignore"]
"""What becomes of the error of one of several symbols."""
Places = np.ndarray[tuple[int], np.dtype[np.intp]]


def chosen_columns(frame: pd.DataFrame, columns: Sequence[str] | None) -> pd.DataFrame:
    """Return some columns of a frame of bars, in the order asked for.

    Raises:
        InvalidInput: Naming those that it does not have.
    """
    if columns is None:
        return frame
    if isinstance(columns, str):
        raise InvalidInput("columns", columns, "several names in a list")
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InvalidInput("columns", missing, f"among {', '.join(map(str, frame.columns))}")
    return frame[list(columns)]


def long_frame(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the bars of several symbols below one another: index (symbol, timestamp)."""
    return pd.concat(dict(frames), names=["symbol", "timestamp"])


def wide_frame(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the bars of several symbols beside one another: columns (field, symbol), fields first.

    The index is the union of theirs; where a symbol has no bar, its floats are NaN and its integers
    become floats. A field that only some symbols have is there for these.
    """
    index = _union([pd.DatetimeIndex(frame.index) for frame in frames.values()])
    places = {symbol: _places(pd.DatetimeIndex(frame.index), index) for symbol, frame in frames.items()}
    fields = dict.fromkeys(name for frame in frames.values() for name in frame.columns)
    columns = [
        _Column(name, symbol, frame[name], places[symbol])
        for name in fields
        for symbol, frame in frames.items()
        if name in frame.columns
    ]
    labels = pd.MultiIndex.from_tuples([column[:2] for column in columns], names=["field", "symbol"])
    kinds = [_kind(column) for column in columns]
    if any(kind is None for kind in kinds):  # `in` will not do: a dtype of floats equals None
        parts = [column.data.reindex(index) for column in columns]
        return pd.concat(parts, axis="columns").set_axis(labels, axis="columns")
    blocks = {
        kind: _block([column for column, its in zip(columns, kinds, strict=True) if its == kind], kind, index)
        for kind in dict.fromkeys(kinds)
    }
    if len(blocks) == 1:
        return next(iter(blocks.values())).set_axis(labels, axis="columns")
    return pd.concat(blocks.values(), axis="columns").reindex(columns=labels)


class _Column(NamedTuple):
    """One field of one symbol, and where its rows lie among all rows (None: they are all rows)."""

    field: str
    symbol: str
    data: pd.Series
    places: Places | None


def _union(indexes: Sequence[pd.DatetimeIndex]) -> pd.DatetimeIndex:
    first = indexes[0]
    if all(other is first or other.equals(first) for other in indexes[1:]):
        return first.rename("timestamp")
    joined = np.unique(np.concatenate([index.asi8 for index in indexes]))
    stamps = pd.DatetimeIndex(joined.view(f"M8[{first.unit}]"), name="timestamp")
    return stamps if first.tz is None else stamps.tz_localize("UTC").tz_convert(first.tz)


def _places(own: pd.DatetimeIndex, union: pd.DatetimeIndex) -> Places | None:
    return None if len(own) == len(union) else union.asi8.searchsorted(own.asi8)


def _kind(column: _Column) -> Any:
    """Return the type of numbers that a column has in the wide frame; None where numpy has none."""
    kind = column.data.dtype
    if not isinstance(kind, np.dtype) or kind.kind not in "fiu":
        return None
    return kind if column.places is None else np.result_type(kind, np.float64)


def _block(columns: Sequence[_Column], kind: Any, index: pd.DatetimeIndex) -> pd.DataFrame:
    """Return columns of one type as a frame on one array."""
    array = np.empty((len(columns), len(index)), dtype=kind)
    for row, column in zip(array, columns, strict=True):
        if column.places is None:
            row[:] = column.data.to_numpy()
        else:
            row.fill(np.nan)
            row[column.places] = column.data.to_numpy()
    labels = pd.MultiIndex.from_tuples([column[:2] for column in columns], names=["field", "symbol"])
    return pd.DataFrame(array.T, index=index, columns=labels, copy=False)
