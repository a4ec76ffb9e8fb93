import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradecache.errors import InvalidInput
from tradecache.stores.names import checked_address, checked_keys, checked_limit


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8")))
def test_any_text_is_a_name(collection, key):
    """Collection and key may be any text, and are left as they are."""
    assert checked_address(collection, key) == (collection, key)


@pytest.mark.parametrize("collection", [None, ""])
def test_no_collection_is_the_default(collection):
    """No collection, or an empty name, means py-key-value's default collection."""
    assert checked_address(collection, "k") == ("default_collection", "k")


@pytest.mark.parametrize("wrong", [5, b"k", 1.5, ["k"], object()])
def test_what_is_no_text_is_no_name(wrong):
    """A name that is no str is a TypeError that shows it."""
    with pytest.raises(TypeError, match=r"key is .*, but must be a str"):
        checked_address("c", wrong)
    with pytest.raises(TypeError, match=r"collection is .*, but must be a str"):
        checked_address(wrong, "k")


def test_no_key_is_no_name():
    """A key, unlike a collection, has no default."""
    with pytest.raises(TypeError, match="key is None"):
        checked_address("c", None)


@pytest.mark.parametrize(
    ("collection", "key", "field"), [("c", "a\ud800b", "key"), ("\udfff", "k", "collection")]
)
def test_half_a_character_is_no_name(collection, key, field):
    """A lone half of a surrogate pair, which UTF-8 cannot hold, is an error that names the field."""
    with pytest.raises(InvalidInput, match=f"{field} is .*, but must be text that UTF-8 can hold"):
        checked_address(collection, key)


@pytest.mark.parametrize("keys", [[], ["a"], ("a", "b")])
def test_keys_are_a_sequence(keys):
    """Any sequence of keys is taken as it is."""
    assert checked_keys(keys) is keys


@pytest.mark.parametrize("keys", ["abc", b"abc", ""])
def test_one_text_is_no_sequence_of_keys(keys):
    """A single str where several keys are meant is an error, not a list of letters."""
    with pytest.raises(TypeError, match="must be a sequence of str"):
        checked_keys(keys)


@pytest.mark.parametrize("limit", [None, 0, 1, 10**9])
def test_limits(limit):
    """A limit is zero or more, or None for all."""
    assert checked_limit(limit) == limit


@pytest.mark.parametrize("limit", [-1, -5, 1.0, "1", True, False, []])
def test_what_is_no_limit(limit):
    """Anything else is an error that says what is allowed."""
    with pytest.raises(
        InvalidInput, match=r"limit is .*, but must be zero or a positive int, or None for all"
    ):
        checked_limit(limit)
