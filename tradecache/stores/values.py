"""What may a stored value hold, so that it comes back the same from every tier?"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype
from pydantic_core import PydanticSerializationError, to_json

from tradecache.errors import NotStorable, shorten

FRAME = "frame"
"""The one name under which a value may hold a DataFrame."""

MAX_DEPTH = 64
_SCALARS = frozenset({str, int, float, bool, type(None)})
_CELLS = frozenset({"boolean", "bytes", "date", "decimal", "empty", "string", "time"})
"""What a column of Python objects may hold: what Arrow gives back as it was, and nothing that can be changed."""
_NAMES = frozenset({str})


def normal_value(value: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return a copy of `value` as JSON would give it back, and whether it is flat.

    A flat value holds scalars only, so a plain `dict(value)` copies it; tuples become lists. A DataFrame
    may stand under `FRAME`; it is kept as a copy-on-write shallow copy, without what Arrow would lose: the
    index's `freq`, `attrs`, and that text was kept as objects.

    Raises:
        NotStorable: Naming the place of what is neither JSON nor a DataFrame that comes back the same.
    """
    if type(value) is not dict and not isinstance(value, Mapping):
        raise NotStorable(f"it is {shorten(value)}, not a mapping")
    if _SCALARS.issuperset(map(type, value.values())) and _NAMES.issuperset(map(type, value)):
        return dict(value), True
    result = {}
    for key, item in value.items():
        if key == FRAME and isinstance(item, pd.DataFrame):
            result[key] = _pinned(item)
        else:
            result[_name(key, "")] = _normal(item, key, depth=1)
    return result, False


def copied_value(value: dict[str, Any], *, flat: bool) -> dict[str, Any]:
    """Return a copy of a normal value that its receiver may change at will."""
    if flat:
        return value.copy()
    return {key: _copied(item) for key, item in value.items()}


def value_text(value: dict[str, Any]) -> bytes:
    """Return a normal value without its frame as the JSON that a ledger holds.

    Raises:
        NotStorable: When it holds text that is none.
    """
    try:
        return to_json(value, inf_nan_mode="constants")
    except PydanticSerializationError as error:  # half a surrogate pair
        raise NotStorable(f"it holds text that UTF-8 cannot hold: {error}") from error


def _pinned(frame: pd.DataFrame) -> pd.DataFrame:
    result = pd.DataFrame(frame)
    if any(isinstance(dtype, np.dtype) and dtype.hasobject for dtype in frame.dtypes.tolist()):
        result = _without_object_text(result)
    if (columns := _pinned_labels(frame.columns)) is not frame.columns:
        result.columns = columns
    if (index := _pinned_index(frame.index)) is not frame.index:
        result.index = index
    return result


def _without_object_text(frame: pd.DataFrame) -> pd.DataFrame:
    try:
        frame = frame.infer_objects()
    except UnicodeEncodeError as error:  # half a surrogate pair
        raise NotStorable(f"{FRAME!r} holds text that UTF-8 cannot hold: {error}") from error
    for label, column in frame.items():
        if column.dtype == object and (kind := infer_dtype(column)) not in _CELLS:
            raise NotStorable(f"{FRAME!r} holds {kind} objects in its column {shorten(label)}")
    return frame


def _pinned_labels(columns: pd.Index) -> pd.Index:
    if not columns.is_unique:
        twice = columns[columns.duplicated()][0]
        raise NotStorable(f"{FRAME!r} has the column {shorten(twice)} more than once")
    if columns.dtype == "str":
        return columns
    levels = columns.levels if isinstance(columns, pd.MultiIndex) else [columns]
    if any("mixed" in level.inferred_type for level in levels):
        raise NotStorable(f"{FRAME!r} has columns named by several types: {shorten(list(columns))}")
    return _without_objects(columns)


def _pinned_index(index: pd.Index) -> pd.Index:
    for name in index.names:
        if name is not None and not isinstance(name, str):
            raise NotStorable(f"{FRAME!r} has an index called {shorten(name)}, which is not a str")
    if isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)) and index.freq is not None:
        return type(index)(index, freq=None, copy=False)  # type: ignore[arg-type]  # None means none
    return _without_objects(index)


def _without_objects(index: pd.Index) -> pd.Index:
    return index.infer_objects() if index.dtype == object and index.nlevels == 1 else index


def _normal(item: Any, path: str, *, depth: int) -> Any:
    if type(item) in _SCALARS:
        return item
    if depth > MAX_DEPTH:
        raise NotStorable(f"{path!r} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(item, Mapping):
        return {
            _name(key, path): _normal(below, f"{path}.{key}", depth=depth + 1) for key, below in item.items()
        }
    if isinstance(item, (list, tuple)):
        return [_normal(below, f"{path}[{n}]", depth=depth + 1) for n, below in enumerate(item)]
    if isinstance(item, pd.DataFrame):
        raise NotStorable(f"{path!r} is a DataFrame, which may only stand under {FRAME!r}")
    raise NotStorable(f"{path!r} is {shorten(item)} of type {type(item).__name__}, which JSON cannot hold")


def _name(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise NotStorable(f"{path or 'the value'!r} has the key {shorten(key)}, which is not a str")
    return key


def _copied(item: Any) -> Any:
    if isinstance(item, pd.DataFrame):
        return item.copy(deep=False)
    if isinstance(item, dict):
        return {key: _copied(below) for key, below in item.items()}
    if isinstance(item, list):
        return [_copied(below) for below in item]
    return item
