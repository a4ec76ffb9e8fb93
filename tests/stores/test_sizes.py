import numpy as np
import pandas as pd
import pytest
from contract import as_stored
from framecases import FRAMES, bars
from pandas.testing import assert_frame_equal

from tradecache.stores.sizes import compact, size_of


def owner(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def test_a_larger_value_is_larger():
    """More or longer text, more names, more levels and more rows take more bytes."""
    growing = [
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": "x"}, {"a": "x" * 1000}),
        ({"a": 1}, {"a" * 1000: 1}),
        ({"a": [1]}, {"a": [1, 2, 3]}),
        ({"a": {"b": 1}}, {"a": {"b" * 1000: 1}}),
        ({"frame": bars(10)}, {"frame": bars(10), "note": "x" * 100}),
        ({"frame": bars(0)}, {"frame": bars(1000)}),
        ({"frame": bars()[["close"]]}, {"frame": bars()}),
        ({"frame": pd.DataFrame({"raw": [b"x"]})}, {"frame": pd.DataFrame({"raw": [b"x" * 1000]})}),
    ]
    for small, large in growing:
        assert size_of(small, flat=False) < size_of(large, flat=False)


def test_a_frame_takes_what_its_arrays_take():
    """A large frame takes the bytes of its columns and its index, and little more."""
    frame = bars(100_000)
    assert 100_000 * 48 < size_of({"frame": frame}, flat=False) < 100_000 * 48 + 20_000


def test_looking_at_a_range_makes_no_array_of_it():
    """A range of a million rows as an index takes a few bytes."""
    frame = pd.DataFrame({"close": np.zeros(1_000_000, dtype="int8")})
    assert 1_000_000 < size_of({"frame": compact(frame)}, flat=False) < 1_020_000


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_what_stands_on_its_own_is_left_alone(frame):
    """A large frame that keeps no more alive than it shows is not copied."""
    large = as_stored(pd.concat([frame] * 3_000))
    assert compact(large) is large


def test_a_few_numbers_are_copied():
    """A small frame of numbers becomes an equal one with arrays of its own."""
    small = bars(10)
    copy = compact(small)
    assert_frame_equal(copy, small)
    assert not np.shares_memory(copy["close"].to_numpy(), small["close"].to_numpy())
    assert not np.shares_memory(copy.index.asi8, small.index.asi8)


def test_a_few_numbers_let_go_of_the_others():
    """A few rows of numbers, of a million, have arrays of their own."""
    large = bars(100_000)
    part = compact(large.iloc[4:8])
    assert_frame_equal(part, large.iloc[4:8])
    assert owner(part["close"].to_numpy()).nbytes == 4 * 8 * 4
    assert owner(part.index.asi8).nbytes == 4 * 8


@pytest.mark.parametrize(
    "name", ["text", "categories", "times in a column", "another time zone", "daily bars"]
)
def test_a_small_part_of_a_large_frame_is_copied(name):
    """A few rows of a large frame become a frame of their own, equal, and let go of the others."""
    large = as_stored(pd.concat([FRAMES[name]] * 20_000))
    part = compact(large.iloc[4:8])
    assert_frame_equal(part, large.iloc[4:8])
    assert owner(part["close"].to_numpy()).nbytes <= 4 * 8 * len(part.columns)
    assert owner(part.index.asi8).nbytes == 4 * 8


def test_the_text_of_a_small_part_is_copied():
    """A few rows of a large frame let go of the text of all the others."""
    large = bars(40_000).assign(note=[f"note {n}" for n in range(40_000)])
    part = compact(large.iloc[4:8])
    assert part["note"].tolist() == ["note 4", "note 5", "note 6", "note 7"]
    assert large.iloc[4:8]["note"].array.__arrow_array__().get_total_buffer_size() > 400_000
    assert part["note"].array.__arrow_array__().get_total_buffer_size() < 1000


def test_columns_of_one_block_are_counted_once():
    """The columns of one array share it; that alone is no reason for a copy."""
    frame = pd.DataFrame(np.zeros((1000, 20)))
    assert compact(frame) is frame
    assert compact(frame.iloc[:, :15]) is not None
    few = compact(frame.iloc[:, :2])
    assert owner(few[0].to_numpy()).nbytes == 2 * 8 * 1000
