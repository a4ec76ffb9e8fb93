import math
from collections import UserDict
from enum import StrEnum
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
from contract import UNSTORABLE, VALUES, as_stored
from framecases import FRAMES, UNSTORABLE_FRAMES, bars
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from pydantic_core import from_json, to_json

from tradecache.errors import NotStorable
from tradecache.stores.values import MAX_DEPTH, copied_value, normal_value

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
)
JSON = st.recursive(
    SCALARS, lambda below: st.lists(below) | st.tuples(below) | st.dictionaries(st.text(max_size=5), below)
)


class Side(StrEnum):
    """What only looks like a str."""

    BUY = "buy"


def listed(item):
    """Return an item with lists where it has tuples, as JSON gives it back."""
    if isinstance(item, (list, tuple)):
        return [listed(below) for below in item]
    return {key: listed(below) for key, below in item.items()} if isinstance(item, dict) else item


@settings(max_examples=50)
@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), JSON, max_size=5))
def test_a_normal_value_is_what_json_gives_back(value):
    """Whatever JSON can hold is normal, and a normal value is the same before and after JSON."""
    normal, flat = normal_value(value)
    assert normal == listed(value) == from_json(to_json(normal, inf_nan_mode="constants"))
    assert normal_value(normal) == (normal, flat)
    assert copied_value(normal, flat=flat) == normal


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, True),
        ({"a": 1, "b": "x", "c": None, "d": math.inf}, True),
        ({"a": []}, False),
        ({"a": {}}, False),
    ],
)
def test_flat(value, expected):
    """A value of scalars only is flat, so that copying it takes one step."""
    assert normal_value(value)[1] is expected


def test_any_mapping_will_do():
    """Mappings of any kind become dictionaries, at the top and below."""
    value = UserDict({"a": MappingProxyType({"b": UserDict({"c": 1})})})
    assert normal_value(value) == ({"a": {"b": {"c": 1}}}, False)


@pytest.mark.parametrize(
    ("item", "kind"),
    [(Side.BUY, "Side"), (np.float64(1.5), "float64"), (np.True_, "bool"), (np.str_("x"), "str_")],
)
def test_look_alikes_are_refused(item, kind):
    """What only looks like JSON would come back as another type, so it is refused by its type's name."""
    with pytest.raises(NotStorable, match=f"'a' is .* of type {kind}, which JSON cannot hold"):
        normal_value({"a": item})


@pytest.mark.parametrize(("value", "place"), UNSTORABLE.values(), ids=UNSTORABLE)
def test_the_error_names_the_place(value, place):
    """A value that cannot be stored is an error that says where."""
    with pytest.raises(NotStorable, match=place):
        normal_value(value)


def test_depth():
    """As many levels as allowed are stored, one more is not."""

    def nested(levels):
        return {"a": nested(levels - 1)} if levels else 1

    assert normal_value(nested(MAX_DEPTH)) == (nested(MAX_DEPTH), False)
    with pytest.raises(NotStorable, match=f"nested deeper than {MAX_DEPTH} levels"):
        normal_value(nested(MAX_DEPTH + 2))


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_copies_share_nothing(value):
    """A copy of a normal value has no mapping and no list in common with it."""

    def containers(item):
        if isinstance(item, dict):
            yield id(item)
        for below in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
            yield from containers(below)

    normal, flat = normal_value(value)
    copy = copied_value(normal, flat=flat)
    assert copy == normal
    assert set(containers(copy)).isdisjoint(containers(normal))
    assert set(containers(normal)).isdisjoint(containers(value))


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_a_frame_is_pinned(frame):
    """A frame is kept equal, without `freq`, `attrs` and text as objects, and the caller's stays as it was."""
    before = frame.copy()
    normal, flat = normal_value({"frame": frame})
    assert flat is False
    assert_frame_equal(normal["frame"], as_stored(frame), check_freq=True)
    again = normal_value(normal)[0]["frame"]
    assert_frame_equal(again, normal["frame"])
    assert_frame_equal(frame, before, check_freq=True)


def test_a_frame_is_not_copied():
    """Pinning and copying a frame of numbers shares its arrays, whatever its size."""
    frame = bars(1000)
    normal, _ = normal_value({"frame": frame})
    copy = copied_value(normal, flat=False)
    for other in (normal["frame"], copy["frame"]):
        assert np.shares_memory(frame["close"].to_numpy(), other["close"].to_numpy())
        assert np.shares_memory(frame.index.asi8, other.index.asi8)


@pytest.mark.parametrize(
    ("name", "reason"),
    {
        "a label twice": "'frame' has the column 'a' more than once",
        "labels of several kinds": "'frame' has columns named by several types",
        "an index called by a number": "'frame' has an index called 7, which is not a str",
        "lists in cells": "'frame' holds mixed objects in its column 'extra'",
        "objects in cells": "'frame' holds mixed objects in its column 'extra'",
        "several kinds in one column": "'frame' holds mixed.* objects in its column 'extra'",
        "text that is no text": "'frame' holds text that UTF-8 cannot hold",
    }.items(),
)
def test_a_frame_that_would_come_back_changed_is_refused(name, reason):
    """The error says what of the frame cannot be kept."""
    with pytest.raises(NotStorable, match=reason):
        normal_value({"frame": UNSTORABLE_FRAMES[name]})


def test_a_long_value_is_cut_in_the_error():
    """The error shows the start of a large value, not all of it."""
    with pytest.raises(NotStorable) as caught:
        normal_value({"a": [np.arange(100_000)]})
    assert len(str(caught.value)) < 300
    with pytest.raises(NotStorable) as caught:
        normal_value({"frame": pd.concat([bars().T] * 2)[[]].T})
    assert "'open' more than once" in str(caught.value)
