import base64

import pytest
from pydantic import SecretStr

from tradecache.errors import UnknownKey
from tradecache.stores.keyring import Keyring
from tradecache.stores.tags import ID_DIGITS

WHOLE = [bytes([number] * 32) for number in (1, 2)]
ONE, TWO = (SecretStr(base64.urlsafe_b64encode(whole).decode()) for whole in WHOLE)


def test_a_key_has_an_id_that_tells_nothing():
    """The id and the check of a key are always the same, unlike another key's, and no part of it."""
    one, again, two = Keyring([ONE]).first, Keyring([ONE]).first, Keyring([TWO]).first
    assert (one.id, one.check) == (again.id, again.check)
    assert one.id != two.id
    assert one.check != two.check
    assert len(one.id) == ID_DIGITS
    assert bytes.fromhex(one.id) not in WHOLE[0]
    assert not {one.id, one.check} & {one.names.hex(), one.of_file(b"").hex()}


def test_each_purpose_has_a_key_of_its_own():
    """What is derived for names, files and ids is all different, and files of other salts have other keys."""
    key = Keyring([ONE]).first
    derived = [key.names, key.of_file(b"1" * 16), key.of_file(b"2" * 16), bytes.fromhex(key.check), WHOLE[0]]
    assert len(set(derived)) == len(derived)


def test_the_first_one_seals_and_all_open():
    """What one key has sealed is opened by that key alone; a key that is there twice counts once."""
    ring = Keyring([TWO, ONE, TWO])
    assert [key.id for key in ring.keys] == [Keyring([TWO]).first.id, Keyring([ONE]).first.id]
    token = Keyring([ONE]).first.seal(b"words")
    assert ring[Keyring([ONE]).first.id].opened(token) == b"words"
    with pytest.raises(ValueError, match="its token is not what was written"):
        ring.first.opened(token)
    with pytest.raises(UnknownKey, match="the key 00, which is not among those given"):
        ring["00"]
    assert "00" not in ring


@pytest.mark.parametrize("token", ["", "gAAAAA", "é", b"\xff", "A" * 100])
def test_what_is_no_token_is_refused(token):
    """Whatever stands in place of a token is refused alike."""
    with pytest.raises(ValueError, match="its token is not what was written"):
        Keyring([ONE]).first.opened(token)


def test_all_keys_as_one():
    """As one for the library's wrapper, the ring encrypts with its first key and opens with any."""
    one, ring = Keyring([ONE]).first, Keyring([TWO, ONE])
    assert ring.first.opened(ring.fernet.encrypt(b"words")) == b"words"
    assert ring.fernet.decrypt(one.seal(b"words")) == b"words"
