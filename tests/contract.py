"""What must every store of ours do, whatever it is made of?

`ProtocolContract` holds for anything that speaks the key-value protocol, a whole stack included;
`StoreContract` adds what only a store itself offers: to enumerate, to destroy, to cull.
"""

import asyncio
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from framecases import FRAMES, UNSTORABLE_FRAMES, bars
from key_value.aio.errors import InvalidTTLError, SerializationError
from key_value.aio.protocols.key_value import (
    AsyncCullProtocol,
    AsyncDestroyCollectionProtocol,
    AsyncDestroyStoreProtocol,
    AsyncEnumerateCollectionsProtocol,
    AsyncEnumerateKeysProtocol,
    AsyncKeyValueProtocol,
)
from loops import run
from pandas.testing import assert_frame_equal

from tradecache.errors import InvalidInput, InvalidTTL, NotStorable

HOUR = 3600.0
CENTURY = 100 * 365.25 * 86400

VALUES = {
    "nothing": {},
    "null": {"a": None, "b": [None, None], "c": {"d": None}, "null": "null"},
    "booleans": {"a": True, "b": [True, False], "c": {"d": False}, "true": "true"},
    "integers": {"a": 1, "b": -42, "c": 10**18, "1": "1"},
    "an integer of 100 bits": {"a": 2**100, "b": [-(2**100)]},
    "floats": {"a": 1.0, "b": 1.23456789012345e10, "c": 5e-324, "d": -0.0, "e": 1.7976931348623157e308},
    "infinity": {"a": math.inf, "b": [-math.inf]},
    "text": {"a": "", "b": "two\nlines\tand a tab", "c": "null", "d": '"\\', "e": "a\0b"},
    "text of the world": {"née": "Hello 世界 🌍 émojis", "键": "\u202eright to left"},
    "long text": {"a": "x" * 1_000_000},
    "a deep mapping": {"a": {"b": {"c": {"d": {"e": "deep"}}}}},
    "lists of mappings": {"items": [{"id": n, "tags": ["a", {"b": n}]} for n in range(1000)]},
    "mappings of lists": {"fruit": ["apple", "pear"], "empty": [], "none": {}},
    "a frame's name for something else": {"frame": "picture", "frames": [1]},
}

UNSTORABLE = {
    "a datetime": ({"a": datetime(2024, 1, 1, tzinfo=UTC)}, "'a'"),
    "a date in a list": ({"a": [1, datetime(2024, 1, 1, tzinfo=UTC).date()]}, r"'a\[1\]'"),
    "a UUID": ({"a": UUID(int=1)}, "'a'"),
    "bytes": ({"a": {"b": b"raw"}}, "'a.b'"),
    "a set": ({"a": {1, 2}}, "'a'"),
    "a Decimal": ({"a": Decimal(1)}, "'a'"),
    "a numpy number": ({"a": [{"b": np.int64(1)}]}, r"'a\[0\].b'"),
    "an object": ({"a": object()}, "'a'"),
    "a number as a key": ({"a": {1: "one"}}, "'a' has the key 1"),
    "a number as a name": ({2: "two"}, "key 2"),
    "a frame under another name": ({"bars": bars()}, "'bars'"),
    "a frame further down": ({"a": {"frame": bars()}}, "'a.frame'"),
    "a Series": ({"frame": bars()["close"]}, "'frame'"),
    "no mapping": (["a", 1], "not a mapping"),
}

INVALID_TTLS = [
    0,
    -1,
    -0.001,
    math.nan,
    math.inf,
    -math.inf,
    1e300,
    True,
    False,
    np.True_,
    "60",
    b"60",
    [],
    1j,
]

NAMES = {
    "plain": "AAPL",
    "long": "test_key" * 125,
    "very long": "x" * 10_000,
    "many parts": "part/" * 1000,
    "punctuation": "test_key!@#$%^&*()",
    "unicode": "née 世界 🌍",
    "a line break": "a\nb",
    "NUL": "a\0b",
    "upwards": "../../etc/passwd",
    "absolute": "/etc/passwd",
    "a drive": "C:\\Windows\\system32",
    "a device": "CON",
    "dots": "..",
    "a wildcard": "%",
    "a quote": "'; DROP TABLE entries; --",
    "a compound": "a::b",
    "a file of ours": "changes",
    "a folder of ours": "quarantine",
}


def as_stored(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what every tier gives back for `frame`: text is `str`, an index of times has no `freq`."""
    result = frame.infer_objects()
    if frame.columns.nlevels == 1:
        result.columns = frame.columns.infer_objects()
    if isinstance(result.index, (pd.DatetimeIndex, pd.TimedeltaIndex)):
        result.index = result.index._with_freq(None)
    return result


class ProtocolContract:
    """Get, put, delete and time to live; a subclass gives the fixture `store`."""

    @pytest.fixture
    def store(self, tmp_path, clock):
        """Give a new, empty store whose entries expire by `clock`."""
        raise NotImplementedError

    def test_it_speaks_the_protocol(self, store):
        """A store is a key-value store in py-key-value's sense."""
        assert isinstance(store, AsyncKeyValueProtocol)

    def test_nothing_is_in_an_empty_store(self, store):
        """What was never put is None, has no TTL, and cannot be deleted."""
        assert run(store.get("k", collection="c")) is None
        assert run(store.ttl("k", collection="c")) == (None, None)
        assert run(store.get_many(["k", "l"], collection="c")) == [None, None]
        assert run(store.ttl_many(["k", "l"], collection="c")) == [(None, None), (None, None)]
        assert run(store.delete("k", collection="c")) is False
        assert run(store.delete_many(["k", "l"], collection="c")) == 0

    def test_put_then_get(self, store):
        """What was put is what is got, as often as one asks."""
        run(store.put("k", {"price": 1.5}, collection="c"))
        assert run(store.get("k", collection="c")) == {"price": 1.5}
        assert run(store.get("k", collection="c")) == {"price": 1.5}
        assert run(store.ttl("k", collection="c")) == ({"price": 1.5}, None)

    def test_keys_and_collections_are_apart(self, store):
        """A value is found under its own key and collection only."""
        run(store.put("k", {"n": 1}, collection="c"))
        run(store.put("l", {"n": 2}, collection="c"))
        run(store.put("k", {"n": 3}, collection="d"))
        run(store.put("k", {"n": 4}))
        found = [run(store.get(key, collection=where)) for key, where in [("k", "c"), ("l", "c"), ("k", "d")]]
        assert found == [{"n": 1}, {"n": 2}, {"n": 3}]
        assert run(store.get("l", collection="d")) is None
        assert run(store.get("k")) == {"n": 4}

    def test_no_collection_and_an_empty_one_are_the_default(self, store):
        """Without a collection, or with an empty name, the default collection is meant."""
        run(store.put("k", {"n": 1}))
        assert run(store.get("k", collection=None)) == {"n": 1}
        assert run(store.get("k", collection="")) == {"n": 1}

    def test_the_newest_value_wins(self, store):
        """A put replaces value and TTL of the one before."""
        run(store.put("k", {"n": 1}, ttl=10))
        run(store.put("k", {"n": 2}))
        assert run(store.ttl("k")) == ({"n": 2}, None)
        run(store.put("k", {"n": 3}, ttl=20))
        assert run(store.ttl("k")) == ({"n": 3}, 20.0)

    def test_delete_once(self, store):
        """A deleted key is gone, and deleting it again says so."""
        run(store.put("k", {"n": 1}))
        assert run(store.delete("k")) is True
        assert run(store.get("k")) is None
        assert run(store.delete("k")) is False

    def test_put_after_delete(self, store):
        """A key that was deleted can be put again."""
        run(store.put("k", {"n": 1}))
        run(store.delete("k"))
        run(store.put("k", {"n": 2}))
        assert run(store.get("k")) == {"n": 2}

    def test_many_at_once(self, store):
        """The operations on many keys keep their order and answer None where there is nothing."""
        run(store.put_many(["a", "b"], [{"n": 1}, {"n": 2}], collection="c"))
        assert run(store.get_many(["b", "x", "a"], collection="c")) == [{"n": 2}, None, {"n": 1}]
        assert run(store.get("a", collection="c")) == {"n": 1}
        assert run(store.delete_many(["a", "x", "b"], collection="c")) == 2
        assert run(store.get_many(["a", "b"], collection="c")) == [None, None]
        assert run(store.delete_many(["a", "b"], collection="c")) == 0

    def test_many_take_any_sequence(self, store):
        """Keys and values may be tuples; a single str is no sequence of keys, and counts must match."""
        run(store.put_many(("a", "b"), ({"n": 1}, {"n": 2})))
        assert run(store.get_many(("a", "b"))) == [{"n": 1}, {"n": 2}]
        with pytest.raises(ValueError, match="3 values for 2 keys"):
            run(store.put_many(["a", "b"], [{"n": 3}, {"n": 3}, {"n": 3}]))
        with pytest.raises(TypeError, match="sequence of str"):
            run(store.put_many("ab", [{"n": 3}, {"n": 3}]))
        assert run(store.get_many(["a", "b"])) == [{"n": 1}, {"n": 2}]

    def test_many_with_a_ttl(self, store, clock):
        """The keys of one put_many expire together."""
        run(store.put_many(["a", "b"], [{"n": 1}, {"n": 2}], ttl=10))
        run(store.put("c", {"n": 3}))
        assert run(store.ttl_many(["a", "b", "c"])) == [({"n": 1}, 10.0), ({"n": 2}, 10.0), ({"n": 3}, None)]
        clock.advance(10)
        assert run(store.ttl_many(["a", "b", "c"])) == [(None, None), (None, None), ({"n": 3}, None)]

    def test_many_with_one_key_twice(self, store):
        """Of one key put twice at once, the last value stays."""
        run(store.put_many(["a", "a"], [{"n": 1}, {"n": 2}]))
        assert run(store.get("a")) == {"n": 2}
        assert run(store.delete_many(["a", "a"])) == 1

    def test_many_frames_at_once(self, store):
        """Frames and plain values may be put together."""
        run(store.put_many(["a", "b"], [{"frame": bars()}, {"n": 2}]))
        found = run(store.get_many(["b", "a"]))
        assert found[0] == {"n": 2}
        assert_frame_equal(found[1]["frame"], as_stored(bars()))

    def test_many_of_nothing(self, store):
        """No keys are no work and no error."""
        run(store.put_many([], []))
        assert run(store.get_many([])) == []
        assert run(store.delete_many([])) == 0

    def test_no_text_is_no_key(self, store):
        """A key or a collection that is no str is an error at once."""
        with pytest.raises(TypeError, match="key is 5"):
            run(store.put(5, {"n": 1}))
        with pytest.raises(TypeError, match="key is 5"):
            run(store.get(5))
        with pytest.raises(TypeError, match="collection is 5"):
            run(store.put("k", {"n": 1}, collection=5))

    @pytest.mark.parametrize("ttl", [0.05, 1, 2.5, np.float64(60), Decimal(90), CENTURY])
    def test_it_expires_exactly_at_its_time(self, store, clock, ttl):
        """A value lives for its TTL to the microsecond, and not a microsecond longer."""
        run(store.put("k", {"n": 1}, ttl=ttl))
        assert run(store.ttl("k")) == ({"n": 1}, pytest.approx(float(ttl), abs=1e-6))
        clock.advance(float(ttl) - 2e-6)
        assert run(store.get("k")) == {"n": 1}
        clock.advance(2e-6)
        assert run(store.get("k")) is None
        assert run(store.ttl("k")) == (None, None)
        assert run(store.get_many(["k"])) == [None]
        assert run(store.delete("k")) is False

    @pytest.mark.parametrize("micros", [1, 50_000, 300_001, 1_234_567, 59_999_999])
    def test_times_that_no_float_holds(self, store, clock, micros):
        """Expiry is exact to the microsecond whenever it was put, and `ttl` tells every microsecond."""
        for day in range(20):
            clock.now += timedelta(days=1, microseconds=day * 7_654_321)
            run(store.put("k", {"n": day}, ttl=micros / 1e6))
            assert run(store.ttl("k")) == ({"n": day}, micros / 1e6)
            clock.now += timedelta(microseconds=micros - 1)
            assert run(store.ttl("k")) == ({"n": day}, 1e-6)
            clock.now += timedelta(microseconds=1)
            assert run(store.ttl("k")) == (None, None)

    def test_the_time_left_goes_down(self, store, clock):
        """`ttl` tells the seconds that are left, from memory and from disk alike."""
        run(store.put("k", {"n": 1}, ttl=2 * HOUR))
        clock.advance(HOUR)
        run(store.get("k"))
        assert run(store.ttl("k")) == ({"n": 1}, HOUR)
        clock.advance(HOUR - 0.5)
        assert run(store.ttl("k")) == ({"n": 1}, 0.5)

    def test_a_put_after_the_expiry_lives_anew(self, store, clock):
        """An expired key can be put again and lives for its new TTL."""
        run(store.put("k", {"n": 1}, ttl=10))
        clock.advance(11)
        run(store.put("k", {"n": 2}, ttl=10))
        clock.advance(9)
        assert run(store.ttl("k")) == ({"n": 2}, 1.0)

    def test_the_time_left_is_never_negative(self, store, clock):
        """A value that expires while it is read is there with time left, or it is not there."""
        for ttl in range(1, 8):
            clock.tick = 0.0
            run(store.put("k", {"n": 1}, ttl=ttl))
            clock.tick = 1.0
            found = [run(store.ttl("k")) for _ in range(8)]
            assert all(left > 0 for value, left in found if value is not None)
            assert found[-1] == (None, None)

    def test_a_wall_clock_that_steps_back(self, store, clock):
        """A clock set back by an hour neither revives what has expired nor keeps what should expire."""
        run(store.put("old", {"n": 1}, ttl=10))
        run(store.put("new", {"n": 2}, ttl=100))
        clock.advance(20)
        assert run(store.get("old")) is None
        clock.advance(-HOUR)
        assert run(store.get("old")) is None
        assert run(store.ttl("new")) == ({"n": 2}, 80.0)
        clock.advance(80)
        assert run(store.get("new")) is None

    @pytest.mark.parametrize("ttl", INVALID_TTLS, ids=repr)
    def test_an_invalid_ttl_changes_nothing(self, store, ttl):
        """A TTL that is no positive, finite number is an error, and the old value and its TTL stay."""
        run(store.put("k", {"n": 1}, ttl=60))
        with pytest.raises(InvalidTTL, match="ttl is "):
            run(store.put("k", {"n": 2}, ttl=ttl))
        with pytest.raises(InvalidTTLError):
            run(store.put_many(["k", "l"], [{"n": 2}, {"n": 2}], ttl=ttl))
        assert run(store.ttl_many(["k", "l"])) == [({"n": 1}, 60.0), (None, None)]

    @pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
    def test_values_come_back(self, store, value):
        """Whatever JSON can hold comes back as it was."""
        run(store.put("k", value))
        assert run(store.get("k")) == value

    def test_not_a_number_comes_back(self, store):
        """NaN, which JSON does not know, comes back as NaN."""
        run(store.put("k", {"a": math.nan, "b": [math.nan]}))
        found = run(store.get("k"))
        assert math.isnan(found["a"])
        assert math.isnan(found["b"][0])

    def test_types_come_back(self, store):
        """An int stays an int, a float a float, and a bool a bool."""
        run(store.put("k", {"a": 1, "b": 1.0, "c": True, "d": [1, 1.0, True]}))
        found = run(store.get("k"))
        assert [type(each) for each in (found["a"], found["b"], found["c"], *found["d"])] == [
            int,
            float,
            bool,
            int,
            float,
            bool,
        ]

    def test_tuples_become_lists(self, store):
        """A tuple comes back as the list that JSON makes of it, from every tier."""
        run(store.put("k", {"a": (1, "two", 3.0), "b": {"c": ((),)}}))
        assert run(store.get("k")) == {"a": [1, "two", 3.0], "b": {"c": [[]]}}

    def test_what_was_got_belongs_to_the_caller(self, store):
        """Changing a value that was put or got never changes what is stored."""
        mine = {"n": 1, "deep": {"list": [1, {"a": 1}]}}
        run(store.put("k", mine))
        mine["deep"]["list"][1]["a"] = 2
        found = run(store.get("k"))
        found["n"] = 3
        found["deep"]["list"].append(4)
        found["deep"]["list"][1]["a"] = 5
        assert run(store.get("k")) == {"n": 1, "deep": {"list": [1, {"a": 1}]}}

    @pytest.mark.parametrize(("value", "place"), UNSTORABLE.values(), ids=UNSTORABLE)
    def test_what_cannot_be_stored_changes_nothing(self, store, value, place):
        """A value that is neither JSON nor a frame is an error that names the place; the old one stays."""
        run(store.put("k", {"n": 1}, ttl=60))
        with pytest.raises(NotStorable, match=place):
            run(store.put("k", value))
        with pytest.raises(SerializationError):
            run(store.put_many(["k", "l"], [{"frame": bars()}, value]))
        assert run(store.ttl("k")) == ({"n": 1}, 60.0)
        assert run(store.get("l")) is None

    def test_too_deep_a_value_is_refused(self, store):
        """A value that holds itself, or is nested without end, is an error and no endless work."""
        endless = {"a": []}
        endless["a"].append(endless["a"])
        with pytest.raises(NotStorable, match="nested deeper"):
            run(store.put("k", endless))
        assert run(store.get("k")) is None

    @pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
    def test_frames_come_back(self, store, frame):
        """A frame comes back equal, with its dtypes, labels and index, and with what stands beside it."""
        run(store.put("k", {"frame": frame, "source": "test", "range": [1, 2]}, collection="bars/x"))
        found = run(store.get("k", collection="bars/x"))
        result = found.pop("frame")
        assert found == {"source": "test", "range": [1, 2]}
        assert_frame_equal(result, as_stored(frame), check_index_type=True, check_freq=False)
        assert result.columns.dtype == as_stored(frame).columns.dtype

    def test_frames_lose_what_arrow_does_not_keep(self, store):
        """The `freq` of an index and `attrs` are gone from every tier alike, and a subclass is a DataFrame."""
        frame = type("Mine", (pd.DataFrame,), {})(bars())
        frame.attrs["note"] = object()
        run(store.put("k", {"frame": frame}))
        for _ in range(2):
            result = run(store.get("k"))["frame"]
            assert (type(result), result.index.freq, result.attrs) == (pd.DataFrame, None, {})
        assert frame.index.freq is not None
        assert "note" in frame.attrs

    @pytest.mark.parametrize("frame", UNSTORABLE_FRAMES.values(), ids=UNSTORABLE_FRAMES)
    def test_frames_that_cannot_be_stored_change_nothing(self, store, frame):
        """A frame that would not come back as it was is an error, and the old value stays."""
        run(store.put("k", {"n": 1}))
        with pytest.raises(NotStorable, match="frame"):
            run(store.put("k", {"frame": frame}))
        assert run(store.get("k")) == {"n": 1}

    @pytest.mark.parametrize("name", ["intraday bars", "text with nulls", "missing prices", "categories"])
    def test_a_frame_that_was_got_may_be_written_to(self, store, name):
        """The caller may write in place to what he got, and the cache never sees it."""
        expected = as_stored(FRAMES[name])
        run(store.put("k", {"frame": FRAMES[name]}))
        for _ in range(2):
            mine = run(store.get("k"))["frame"]
            mine.iloc[0, :] = mine.iloc[1, :]
            mine["close"] += 1
            mine.index.name = mine.columns.name = "changed"
            mine.attrs["note"] = "mine"
            assert mine["close"].iloc[1] != expected["close"].iloc[1]
            assert_frame_equal(run(store.get("k"))["frame"], expected, check_freq=False)

    def test_a_frame_that_was_put_may_be_written_to(self, store):
        """The caller goes on with his own frame, and the cache never sees it."""
        mine = bars()
        run(store.put("k", {"frame": mine}))
        mine.iloc[0, 0] = 0.0
        mine["close"] *= 2
        mine.columns = list("abcde")
        assert_frame_equal(run(store.get("k"))["frame"], as_stored(bars()))

    def test_a_frame_that_was_got_outlives_the_entry(self, store):
        """A frame stays whole, and writable, after its key was overwritten and deleted."""
        run(store.put("k", {"frame": bars()}))
        mine = run(store.get("k"))["frame"]
        run(store.put("k", {"frame": bars(seed=1)}))
        assert_frame_equal(run(store.get("k"))["frame"], as_stored(bars(seed=1)))
        run(store.delete("k"))
        assert_frame_equal(mine, as_stored(bars()))
        mine.iloc[:, 0] = 0.0
        assert mine["open"].sum() == 0.0

    def test_a_frame_and_a_plain_value_replace_each_other(self, store):
        """A key may hold a frame, then JSON, then a frame."""
        for value in ({"frame": bars()}, {"n": 1}, {"frame": None}):
            run(store.put("k", value))
            assert run(store.get("k")).keys() == value.keys()
        run(store.put("k", {"frame": bars(seed=2)}))
        assert_frame_equal(run(store.get("k"))["frame"], as_stored(bars(seed=2)))

    def test_frames_expire(self, store, clock):
        """A frame expires as any value does."""
        run(store.put("k", {"frame": bars()}, ttl=10))
        value, left = run(store.ttl("k"))
        assert (len(value["frame"]), left) == (5, 10.0)
        clock.advance(10)
        assert run(store.get("k")) is None

    @pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
    def test_any_name_is_found_again(self, store, name):
        """A key and a collection may be called anything, with a frame and without."""
        run(store.put(name, {"n": 1}, collection="plain"))
        run(store.put("plain", {"n": 2}, collection=name))
        run(store.put(name, {"frame": bars(), "n": 3}, collection=name))
        assert run(store.get(name, collection="plain")) == {"n": 1}
        assert run(store.get("plain", collection=name)) == {"n": 2}
        assert run(store.get(name, collection=name))["n"] == 3
        assert run(store.delete(name, collection=name)) is True
        assert run(store.get(name, collection="plain")) == {"n": 1}

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (("a::b", "c"), ("a", "b::c")),
            (("a/b", "c"), ("a", "b/c")),
            (("a\0b", "c"), ("a", "b\0c")),
            (("a", "K"), ("a", "k")),
            (("A", "k"), ("a", "k")),
            (("a", "e\u0301"), ("a", "\u00e9")),
            (("a", "k"), ("a", "k ")),
            (("a", "x" * 10_000 + "1"), ("a", "x" * 10_000 + "2")),
        ],
        ids=repr,
    )
    def test_names_that_look_alike_are_kept_apart(self, store, one, other):
        """Two different addresses never share a value, however they would be joined, folded or cut."""
        for where, value in ((one, 1), (other, 2)):
            run(store.put(where[1], {"n": value}, collection=where[0]))
        assert run(store.get(one[1], collection=one[0])) == {"n": 1}
        for where, rows in ((one, 1), (other, 2)):
            run(store.put(where[1], {"frame": bars(rows)}, collection=where[0]))
        assert len(run(store.get(one[1], collection=one[0]))["frame"]) == 1
        assert run(store.delete(one[1], collection=one[0])) is True
        assert len(run(store.get(other[1], collection=other[0]))["frame"]) == 2

    def test_a_name_that_is_no_text_is_refused(self, store):
        """A name that UTF-8 cannot hold is an error of ours, and changes nothing."""
        for key, collection in (("\ud800", "c"), ("k", "\ud800")):
            for value in ({"n": 1}, {"frame": bars()}):
                with pytest.raises(InvalidInput, match="UTF-8"):
                    run(store.put(key, value, collection=collection))
            with pytest.raises(InvalidInput, match="UTF-8"):
                run(store.put_many(["a", key], [{"n": 1}, {"n": 2}], collection=collection))
        assert run(store.get("a", collection="c")) is None

    def test_many_collections(self, store):
        """A thousand collections hold one value each."""

        async def fill_and_read():
            for n in range(1000):
                await store.put("k", {"n": n}, collection=f"symbol:{n}")
            return [(await store.get("k", collection=f"symbol:{n}"))["n"] for n in range(1000)]

        assert run(fill_and_read()) == list(range(1000))

    def test_tasks_of_one_loop(self, store):
        """Tasks that put, overwrite, read and delete their own keys at once do not disturb each other."""

        async def work(name):
            for n in range(5):
                key = f"{name}-{n}"
                assert await store.get(key) is None
                await store.put(key, {"n": n})
                assert await store.get(key) == {"n": n}
                await store.put(key, {"n": -n, "frame": bars()})
                assert (await store.get(key))["n"] == -n
                assert await store.delete(key) is True
                assert await store.get(key) is None

        async def all_of_them():
            await asyncio.gather(*(work(name) for name in range(10)))

        run(all_of_them())

    def test_a_second_event_loop(self, store):
        """A store belongs to no event loop: another one, and a loop within a running program, may use it."""

        async def put():
            await store.put("k", {"frame": bars(), "n": 1})

        async def get_from_another_loop():
            return await asyncio.to_thread(lambda: run(store.get("k")))

        run(put())
        assert run(store.get("k"))["n"] == 1
        assert run(get_from_another_loop())["n"] == 1

    def test_eight_threads(self, store):
        """Eight threads with a loop each see whole values only, and find what they wrote."""
        together = threading.Barrier(8)

        async def work(name):
            for n in range(20):
                await store.put("shared", {"a": n, "b": n})
                await store.put(f"{name}-{n}", {"frame": bars(3), "n": n}, ttl=60)
                seen = await store.get("shared")
                assert seen["a"] == seen["b"]
                assert (await store.get(f"{name}-{n}"))["n"] == n
                assert await store.delete(f"{name}-{n}") is True

        def thread(name):
            together.wait()
            run(work(name))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(thread, range(8)))


class StoreContract(ProtocolContract):
    """What a store of ours offers beyond the protocol: to enumerate, to destroy, to cull."""

    def test_it_speaks_the_other_protocols(self, store):
        """A store enumerates, destroys and culls in py-key-value's sense."""
        for protocol in (
            AsyncEnumerateKeysProtocol,
            AsyncEnumerateCollectionsProtocol,
            AsyncDestroyStoreProtocol,
            AsyncDestroyCollectionProtocol,
            AsyncCullProtocol,
        ):
            assert isinstance(store, protocol)

    def test_an_empty_store_has_no_names(self, store):
        """There is nothing to enumerate in an empty store."""
        assert run(store.keys("c")) == []
        assert run(store.collections()) == []

    def test_enumerate_keys(self, store, clock):
        """`keys` gives the live keys of one collection."""
        run(store.put_many(["b", "a", "née"], [{}, {}, {}], collection="c"))
        run(store.put("short", {}, collection="c", ttl=10))
        run(store.put("other", {}, collection="d"))
        run(store.put("default", {}))
        assert sorted(run(store.keys("c"))) == ["a", "b", "née", "short"]
        assert run(store.keys()) == ["default"]
        clock.advance(10)
        run(store.delete("b", collection="c"))
        assert sorted(run(store.keys("c"))) == ["a", "née"]

    def test_enumerate_collections(self, store, clock):
        """`collections` gives the names of the collections that have live entries."""
        run(store.put("k", {}, collection="b"))
        run(store.put("k", {}, collection="a"))
        run(store.put("l", {}, collection="a"))
        run(store.put("k", {}, collection="short", ttl=10))
        assert sorted(run(store.collections())) == ["a", "b", "short"]
        clock.advance(10)
        run(store.delete("k", collection="b"))
        assert run(store.collections()) == ["a"]

    def test_enumerate_more_than_ten_thousand(self, store):
        """Nothing is left out where other stores stop at 10,000."""
        names = [f"{n:05d}" for n in range(10_050)]

        async def fill():
            await store.put_many(names, [{}] * len(names), collection="c")
            for name in names:
                await store.put("k", {}, collection=name)

        run(fill())
        assert sorted(run(store.keys("c"))) == names
        assert sorted(run(store.collections())) == [*names, "c"]
        assert len(run(store.keys("c", limit=10_020))) == 10_020

    def test_limits(self, store):
        """A limit cuts the list; zero is none of it, None all of it; anything else is an error."""
        run(store.put_many(["a", "b", "c"], [{}, {}, {}], collection="c"))
        run(store.put("k", {}, collection="d"))
        assert [len(run(store.keys("c", limit=limit))) for limit in (0, 1, 2, 3, 4, None)] == [
            0,
            1,
            2,
            3,
            3,
            3,
        ]
        assert [len(run(store.collections(limit=limit))) for limit in (0, 1, 2, 3, None)] == [0, 1, 2, 2, 2]
        for limit in (-1, -5, 1.5, "1", True):
            with pytest.raises(InvalidInput, match="limit is"):
                run(store.keys("c", limit=limit))
            with pytest.raises(InvalidInput, match="limit is"):
                run(store.collections(limit=limit))

    def test_destroy_a_collection(self, store):
        """Destroying a collection leaves the others, and says whether there was anything."""
        run(store.put("k", {"frame": bars()}, collection="c"))
        run(store.put("k", {"n": 1}, collection="c::d"))
        assert run(store.destroy_collection("c")) is True
        assert run(store.get("k", collection="c")) is None
        assert run(store.get("k", collection="c::d")) == {"n": 1}
        assert run(store.destroy_collection("c")) is False

    def test_destroy_everything(self, store):
        """A destroyed store is empty and can be used again."""
        run(store.put("k", {"frame": bars()}, collection="c"))
        run(store.put("k", {"n": 1}))
        assert run(store.destroy()) is True
        assert run(store.collections()) == []
        assert run(store.get("k")) is None
        run(store.put("k", {"n": 2}))
        assert run(store.get("k")) == {"n": 2}

    def test_cull(self, store, clock):
        """Culling removes what has expired and nothing else."""
        run(store.put("short", {"frame": bars()}, ttl=10))
        run(store.put("long", {"n": 1}, ttl=20))
        clock.advance(10)
        run(store.cull())
        assert run(store.keys()) == ["long"]
        assert run(store.get("long")) == {"n": 1}
