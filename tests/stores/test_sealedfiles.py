"""Payloads that are encrypted, each for the entry that it belongs to."""

import base64
import os

import pytest
from framecases import bars
from pandas.testing import assert_frame_equal

from tradecache import Settings, WrongKey
from tradecache.stores.cipher import HEADER
from tradecache.stores.keyring import Keyring
from tradecache.stores.payloads import DamagedPayload, Owner, Payloads
from tradecache.stores.sealedfiles import SealedFiles, is_begun, key_of

ONE, TWO = (
    Keyring(Settings(encryption_key=base64.urlsafe_b64encode(key * 32).decode()).encryption_key)
    for key in (b"1", b"2")
)
OWNER = Owner("c", "k", b"{}")


@pytest.fixture
def payloads(tmp_path):
    return Payloads(tmp_path, form=SealedFiles(ONE))


def test_a_frame_comes_back_to_its_owner(payloads):
    """What was written for an entry is read for it, again and again."""
    payload = payloads.write(OWNER, bars())
    for _ in range(2):
        assert_frame_equal(payloads.read(payload, OWNER), bars(), check_freq=False)


@pytest.mark.parametrize("field", Owner._fields)
def test_a_frame_belongs_to_one_entry(payloads, field):
    """For an entry of another collection, key or JSON the file is damaged, also after it was read for its own."""
    payload = payloads.write(OWNER, bars())
    payloads.read(payload, OWNER)
    other = OWNER._replace(**{field: b"{ }" if field == "text" else "other"})
    with pytest.raises(DamagedPayload, match="belongs to another entry"):
        payloads.read(payload, other)


def test_each_form_refuses_the_other(payloads, tmp_path):
    """A plain file was planted where files are encrypted; without a key an encrypted one is locked, not damaged."""
    plain = Payloads(tmp_path)
    with pytest.raises(DamagedPayload, match="it is not encrypted"):
        payloads.read(plain.write(OWNER, bars()), OWNER)
    with pytest.raises(WrongKey, match="is encrypted: set encryption_key"):
        plain.read(payloads.write(OWNER, bars()), OWNER)


def test_a_key_that_was_not_given(payloads, tmp_path):
    """A file under another key is damaged, unless somebody knows that key."""
    payload = payloads.write(OWNER, bars())
    with pytest.raises(DamagedPayload, match=f"under the key {ONE.first.id}"):
        Payloads(tmp_path, form=SealedFiles(TWO)).read(payload, OWNER)
    known = SealedFiles(TWO, wrong_key=lambda key_id: WrongKey(tmp_path, f"is under {key_id}"))
    with pytest.raises(WrongKey, match=f"is under {ONE.first.id}"):
        Payloads(tmp_path, form=known).read(payload, OWNER)


def test_the_key_of_a_file(payloads, tmp_path):
    """A file tells the id of its key; others, cut ones and missing ones tell none."""
    path = tmp_path / payloads.write(OWNER, bars()).path
    assert key_of(path) == ONE.first.id
    assert key_of(tmp_path / Payloads(tmp_path).write(OWNER, bars()).path) is None
    path.write_bytes(path.read_bytes()[: HEADER.size])
    assert key_of(path) == ONE.first.id  # nothing else is written yet
    path.write_bytes(path.read_bytes()[:20])
    assert key_of(path) is None
    path.unlink()
    assert key_of(path) is None


def test_a_file_that_was_just_made(tmp_path):
    """A new temporary file without a header may be somebody's who is writing it; an old, plain or missing one is not."""
    path, plain = (
        tmp_path / ".k.0123456789abcdef.arrow.sealed.tmp",
        tmp_path / ".k.0123456789abcdef.arrow.tmp",
    )
    assert not is_begun(path, within=60)
    path.touch()
    plain.touch()
    assert [is_begun(each, within=60) for each in (path, plain)] == [True, False]
    os.utime(path, (path.stat().st_mtime - 61,) * 2)
    assert not is_begun(path, within=60)
