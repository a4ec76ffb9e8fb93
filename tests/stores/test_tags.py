"""The beginning of sealed values, which the ledger's trigger compares byte for byte."""

import base64

import pytest
from key_value.aio.wrappers.encryption.fernet import ENCRYPTION_VERSION

from tradecache import Settings
from tradecache.seals import Opened, Seal, names_of
from tradecache.stores.keycard import guard_of, new_card
from tradecache.stores.keyring import Keyring
from tradecache.stores.tags import FORM, START, TAG_BYTES, Tag, tag_of
from tradecache.stores.values import value_text

RING = Keyring(Settings(encryption_key=base64.urlsafe_b64encode(b"1" * 32).decode()).encryption_key)
KEY = RING.first
VALUE = Tag(KEY.id, hashed=True).spelt(b"token")


def test_the_form_is_the_librarys():
    """Values are sealed in the version of encryption that py-key-value's own wrapper knows."""
    assert FORM == ENCRYPTION_VERSION


@pytest.mark.parametrize("hashed", [False, True])
def test_what_a_seal_spells_begins_with_its_tag(hashed):
    """A sealed value's JSON begins with the bytes of its tag, which the trigger in the ledger lets in."""
    seal = Seal(RING, names_of(RING) if hashed else None)
    text = value_text(seal.spelt(Opened("c", "k", None, False, b"{}")))
    tag = Tag(KEY.id, hashed)
    assert text[:TAG_BYTES] == tag.start()
    assert text.startswith(START)
    assert text[:TAG_BYTES].hex() in guard_of(new_card(KEY, hashed=hashed))
    assert tag_of(text) == tag
    assert seal.opened_at("c" if not hashed else None, "k", seal.spelt(Opened("c", "k", None, False, b"{}")))


def test_these_bytes_never_change():
    """Folders of earlier versions begin their values so, and triggers in them compare with it."""
    start = b'{"__encryption_version__":1,"__key__":"0123456789abcdef","__hashed__":1,'
    assert Tag("0123456789abcdef", hashed=True).start() == start


@pytest.mark.parametrize(
    "text", [b"", b"{}", START, START + b"\xff" * 99, b" " + value_text(VALUE), value_text(VALUE).decode(), 1]
)
def test_what_is_not_sealed_has_no_tag(text):
    """Whatever else the ledger holds has no tag."""
    assert tag_of(text) is None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"__key__": 1}, "it is not sealed"),
        ({"__encrypted_data__": None}, "it is not sealed"),
        ({"more": 1}, "it is not sealed"),
        ({"__encryption_version__": 2}, "it is sealed in a version that is not ours"),
        ({"__encryption_version__": True}, "it is sealed in a version that is not ours"),
        ({"__hashed__": True}, "it does not say whether its name is hidden"),
        ({"__hashed__": 2}, "it does not say whether its name is hidden"),
    ],
    ids=str,
)
def test_a_tag_is_read_as_it_was_spelt(change, fault):
    """A tag comes back from its value, and from nothing that is like one."""
    assert Tag.read(VALUE) == Tag(KEY.id, hashed=True)
    assert Tag.read(VALUE | {"frame": 1}) == Tag(KEY.id, hashed=True)
    with pytest.raises(ValueError, match=fault):
        Tag.read(VALUE | change)
