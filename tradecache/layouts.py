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
    if isinstance(columns, str) or not len(columns):
        raise InvalidInput("columns", columns, "several names in a list")
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InvalidInput("columns", missing, f"among {', '.join(map(str, frame.columns))}")
    return frame[list(columns)]


def long_frame(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the bars of several symbols below one another: index (symbol, timestamp).

    Those without bars have no say in the types of the columns.
    """
    filled = {symbol: frame for symbol, frame in frames.items() if len(frame)}
    return pd.concat(filled or dict(frames), names=["symbol", "timestamp"])


def wide_frame(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the bars of several symbols beside one another: columns (field, symbol), fields first.

    The index is the union of theirs; where a symbol has no bar, its floats are NaN and its integers
    become floats. A field that only some symbols have is there for these.
    """
    index = _union([pd.DatetimeIndex(frame.index) for frame in frames.values()])
    places = {symbol: _places(pd.DatetimeIndex(frame.index), index) for symbol, frame in frames.items()}
    alike = _side_by_side(frames, places, index)
    if alike is not None:
        return alike
    series = {symbol: dict(frame.items()) for symbol, frame in frames.items()}
    fields = dict.fromkeys(name for named in series.values() for name in named)
    columns = [
        _Column(str(name), symbol, named[name], places[symbol])
        for name in fields
        for symbol, named in series.items()
        if name in named
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
    whole = pd.concat(blocks.values(), axis="columns")
    return whole if whole.columns.equals(labels) else whole.reindex(columns=labels)


def _side_by_side(
    frames: Mapping[str, pd.DataFrame], places: Mapping[str, Places | None], index: pd.DatetimeIndex
) -> pd.DataFrame | None:
    """Return frames beside one another if all have the same columns of numbers, neighbours of one type."""
    first = next(iter(frames.values()))
    names, kinds = first.columns, first.dtypes.tolist()
    runs = _runs_of_numbers(kinds)
    if runs is None:
        return None
    is_full = all(place is None for place in places.values())
    count, rows = len(frames), len(index)
    arrays: list[Any] = []
    for kind, run in runs.items():
        shape = run.stop - run.start, count, rows
        if is_full:
            arrays.append(np.empty(shape, kind))
        else:
            arrays.append(np.full(shape, np.nan, np.result_type(kind, np.float64)))
    lines = [line for array in arrays for line in array]  # (symbol, time) of each field
    for at, (symbol, frame) in enumerate(frames.items()):
        if not frame.columns.equals(names):
            return None
        place = places[symbol]
        for line, kind, (_, column) in zip(lines, kinds, frame.items(), strict=True):
            if column.dtype != kind:
                return None
            line[at, slice(None) if place is None else place] = column.to_numpy()
    blocks = []
    for array, run in zip(arrays, runs.values(), strict=True):
        labels = pd.MultiIndex.from_product([names[run].tolist(), list(frames)], names=["field", "symbol"])
        blocks.append(
            pd.DataFrame(array.reshape(len(labels), rows).T, index=index, columns=labels, copy=False)
        )
    return blocks[0] if len(blocks) == 1 else pd.concat(blocks, axis="columns")


def _runs_of_numbers(kinds: Sequence[Any]) -> dict[Any, slice] | None:
    """Return which neighbours have which type of number.

    None when a column is no number, or a type comes back after another.
    """
    runs: dict[Any, slice] = {}
    for at, kind in enumerate(kinds):
        known = runs.get(kind)
        if not isinstance(kind, np.dtype) or kind.kind not in "fiu" or (known and known.stop != at):
            return None
        runs[kind] = slice(known.start if known else at, at + 1)
    return runs


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
