import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tradecache.errors import UnknownKey
from tradecache.stores.cipher import (
    CHUNK,
    HEADER,
    TAG,
    Sealing,
    Unreadable,
    belonging_to,
    header_of,
    opened,
    sealed,
)
from tradecache.stores.keyring import Keyring

ONE, TWO = (SecretStr(base64.urlsafe_b64encode(bytes([number] * 32)).decode()) for number in (1, 2))
RING = Keyring([ONE])
ABOUT = belonging_to("c", "k", b"{}")


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 5])
def test_any_size_comes_back(size):
    """Bytes of any size come back, chunk by chunk, the last of which is never empty but where all is."""
    content = os.urandom(size)
    closed = sealed(content, RING.first, ABOUT)
    assert len(closed) == HEADER.size + size + TAG * max(1, -(-size // CHUNK))
    assert opened(closed, RING, ABOUT).tobytes() == content
    assert header_of(closed).key_id == RING.first.id


@given(st.lists(st.binary(max_size=50)), st.binary(max_size=40))
def test_in_pieces_as_in_one(pieces, about):
    """However the bytes come, they are sealed as one."""
    parts = bytearray()
    sealing = Sealing(RING.first, about, parts.extend)
    for piece in pieces:
        sealing.write(piece)
    sealing.finish()
    assert opened(parts, RING, about).tobytes() == b"".join(pieces)


def test_no_two_are_alike():
    """The same bytes sealed twice have nothing in common but what they say of themselves."""
    one, two = (sealed(b"x" * 100, RING.first, ABOUT) for _ in range(2))
    assert one[:15] == two[:15]
    assert not set(zip(range(15, 200), one[15:], strict=False)) >= set(
        zip(range(15, 200), two[15:], strict=False)
    )


@given(st.binary(min_size=1, max_size=100), st.data())
def test_whatever_is_altered_is_refused(content, data):
    """With any byte altered, cut at any place, or lengthened, nothing is opened."""
    closed = sealed(content, RING.first, ABOUT)
    place = data.draw(st.integers(0, len(closed) - 1))
    altered = bytearray(closed)
    altered[place] ^= 1 << data.draw(st.integers(0, 7))
    for wrong in (bytes(altered), closed[:place], closed + closed[: place + 1]):
        with pytest.raises((Unreadable, UnknownKey)):
            opened(wrong, RING, ABOUT)


@pytest.mark.parametrize(
    "about", [("d", "k", b"{}"), ("c", "l", b"{}"), ("c", "k", b"[]"), ("ck", "", b"{}")]
)
def test_what_belongs_elsewhere_is_refused(about):
    """What was sealed for one entry is not opened for another, also where their names run together alike."""
    with pytest.raises(Unreadable, match="belongs to another entry"):
        opened(sealed(b"x", RING.first, ABOUT), RING, belonging_to(*about))


def test_an_unknown_key_is_named():
    """What is under a key that was not given names that key, and is opened when it is given, too."""
    closed = sealed(b"x", RING.first, ABOUT)
    with pytest.raises(UnknownKey, match=RING.first.id):
        opened(closed, Keyring([TWO]), ABOUT)
    assert opened(closed, Keyring([TWO, ONE]), ABOUT).tobytes() == b"x"
