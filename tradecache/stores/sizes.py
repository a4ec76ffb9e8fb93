"""How many bytes of memory does a value keep alive?"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

ENTRY_BYTES = 420  # what an entry of the memory tier costs beside its value and its names
FRAME_BYTES = 5632  # the objects that a frame without rows is made of
COLUMN_BYTES = 640  # and those of each column


SMALL = 4096  # cells of numbers up to which a frame is copied unexamined


def size_of(value: Mapping[str, Any], *, flat: bool) -> int:
    """Return about how many bytes a value takes in memory."""
    if flat:
        return sys.getsizeof(value) + sum(map(sys.getsizeof, value)) + sum(map(sys.getsizeof, value.values()))
    return _bytes_of(value)


def compact(frame: pd.DataFrame) -> pd.DataFrame:
    """Return `frame`, or a copy where it is a small part of arrays that it would keep alive as a whole.

    The ten rows of a slice share the arrays of all the rows that they were cut from.
    """
    if 0 < frame.size <= SMALL and _are_fixed_width(frame.dtypes.tolist()):
        return owned(frame)
    arrays = _arrays(frame)
    owners = {id(owner): (owner, size) for owner, size in map(_owner, arrays)}
    alive = sum(size for _, size in owners.values())
    if alive <= 2 * sum(array.nbytes for array in arrays) + FRAME_BYTES:
        return frame
    copy = owned(frame)
    for n, array in enumerate(arrays[1:]):
        if isinstance(array, pd.arrays.ArrowExtensionArray):  # to pandas, these never need a copy
            copy.isetitem(n, array.take(np.arange(len(frame))))
    return copy


def owned(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a copy that has arrays of its own, those of its index among them."""
    copy = frame.copy()
    copy.index = frame.index.copy(deep=True)
    return copy


def _bytes_of(item: Any) -> int:
    if isinstance(item, pd.DataFrame):
        return FRAME_BYTES + COLUMN_BYTES * (1 + item.shape[1]) + bytes_of_arrays(item)
    if isinstance(item, Mapping):
        return sys.getsizeof(item) + sum(sys.getsizeof(key) + _bytes_of(below) for key, below in item.items())
    if isinstance(item, list):
        return sys.getsizeof(item) + sum(map(_bytes_of, item))
    return sys.getsizeof(item)


def bytes_of_arrays(frame: pd.DataFrame) -> int:
    """Return how many bytes the index and the columns of a frame take."""
    dtypes = frame.dtypes.tolist()
    if _are_fixed_width(dtypes):
        columns = len(frame) * sum(int(dtype.itemsize) for dtype in dtypes)  # without a Series for each
    else:
        columns = sum(_bytes_of_array(column.array) for _, column in frame.items())
    return _bytes_of_array(_index_array(frame)) + columns


def _are_fixed_width(dtypes: Sequence[Any]) -> bool:
    return all(isinstance(dtype, np.dtype) and not dtype.hasobject for dtype in dtypes)


def _bytes_of_array(array: Any) -> int:
    is_plain = isinstance(array, pd.arrays.NumpyExtensionArray)
    cells = sum(map(sys.getsizeof, array)) if is_plain and array.to_numpy().dtype == object else 0
    return int(array.nbytes) + cells


def _arrays(frame: pd.DataFrame) -> list[Any]:
    """Return what holds the index and each column."""
    return [_index_array(frame), *(column.array for _, column in frame.items())]


def _index_array(frame: pd.DataFrame) -> Any:
    """Return what holds the index: itself, where that is no array."""
    index = frame.index
    return index if isinstance(index, (pd.RangeIndex, pd.MultiIndex)) else index.array


def _owner(array: Any) -> tuple[object, int]:
    """Return what owns the memory of an array, and how much of it there is."""
    if isinstance(array, pd.arrays.ArrowExtensionArray):
        data = array.__arrow_array__()
        return data, data.get_total_buffer_size()
    is_plain = isinstance(array, pd.arrays.NumpyExtensionArray)
    owner = array.to_numpy() if is_plain else getattr(array, "asi8", array)  # times as integers are no copy
    while isinstance(getattr(owner, "base", None), np.ndarray):
        owner = owner.base
    return owner, owner.nbytes
