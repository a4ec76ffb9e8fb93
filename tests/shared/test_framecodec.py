"""Frames in stores, and through wrappers, that know JSON only."""

import pytest
from contract import ProtocolContract, as_stored
from cryptography.fernet import Fernet
from framecases import FRAMES, UNSTORABLE_FRAMES
from key_value.aio.stores.memory import MemoryStore
from key_value.aio.wrappers.compression import CompressionWrapper
from key_value.aio.wrappers.encryption import FernetEncryptionWrapper
from key_value.aio.wrappers.limit_size import LimitSizeWrapper
from key_value.aio.wrappers.statistics import StatisticsWrapper
from loops import run
from pandas.testing import assert_frame_equal

from tradecache.clock import Clock
from tradecache.errors import NotStorable
from tradecache.framecodec import ARROW, FrameCodec
from tradecache.stores.local import LocalStore
from tradecache.stores.safenames import SafeNames, server_name


@pytest.mark.filterwarnings("ignore:Coroutine factory method key_value:UserWarning")  # about wrong types
class TestContract(ProtocolContract):
    """Frames encoded, names made safe: still a store."""

    @pytest.fixture
    def store(self, tmp_path, clock):
        store = LocalStore(tmp_path, clock=Clock(clock))
        yield FrameCodec(SafeNames(store, prefix="x."))
        store.close()


@pytest.fixture
def wrapped():
    """Return a codec over most of py-key-value's wrappers."""
    inner = CompressionWrapper(MemoryStore(), min_size_to_compress=1)
    sealed = FernetEncryptionWrapper(inner, fernet=Fernet(Fernet.generate_key()))
    return FrameCodec(StatisticsWrapper(LimitSizeWrapper(sealed, max_size=50_000_000)))


@pytest.mark.parametrize("name", FRAMES)
def test_every_frame(wrapped, name):
    """Every frame that a folder can hold comes back as it was, through every wrapper."""
    run(wrapped.put("k", {"frame": FRAMES[name], "n": 1}, collection="c"))

    value = run(wrapped.get("k", collection="c"))

    assert_frame_equal(value.pop("frame"), as_stored(FRAMES[name]))
    assert value == {"n": 1}
    ((many, ttl),) = run(wrapped.ttl_many(["k"], collection="c"))
    assert_frame_equal(many["frame"], as_stored(FRAMES[name]))
    assert ttl is None


@pytest.mark.parametrize("name", UNSTORABLE_FRAMES)
def test_frames_that_arrow_cannot_hold(wrapped, name):
    """They are refused with the column's name, and nothing is stored."""
    frame = (
        UNSTORABLE_FRAMES[name][0] if isinstance(UNSTORABLE_FRAMES[name], tuple) else UNSTORABLE_FRAMES[name]
    )
    with pytest.raises(NotStorable):
        run(wrapped.put("k", {"frame": frame}, collection="c"))
    assert run(wrapped.get("k", collection="c")) is None


@pytest.mark.parametrize("planted", [1, None, "", "no base64", "aGVsbG8=", {"a": 1}])
def test_what_is_no_frame_of_ours(planted, caplog):
    """It is a logged miss, and one such value does not hide the others."""
    store = MemoryStore()
    codec = FrameCodec(store)
    run(store.put("bad", {ARROW: planted, "n": 1}, collection="c"))
    run(codec.put("good", {"frame": FRAMES["daily bars"]}, collection="c"))

    bad, good = run(codec.get_many(["bad", "good"], collection="c"))

    assert bad is None
    assert_frame_equal(good["frame"], FRAMES["daily bars"], check_freq=False)
    assert "'bad' holds no frame of ours" in caplog.text


def test_names_are_kept_apart():
    """No two names are one on the server, also where the server joins collection and key by two colons."""
    names = [
        "a",
        "A",
        "a_b",
        "a b",
        "a::b",
        "a",
        "b::c",
        "*",
        "x" * 120,
        "x" * 121,
        "x" * 122,
        "é",
        "e\u0301",
        "",
    ]
    found = {server_name(name) for name in names}

    assert len(found) == len(set(names))
    assert not any("::" in name or len(name) > 120 for name in found)
