import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from children import wait_until
from servants import NOBODY

from tradecache import InvalidInput, StoreReadOnly, TradeCache

PRICES = [1.0, 2.0, 3.0]
WRITES = {
    "a point": ("store_price", "AAPL", 9.0),
    "a bulk": ("store_prices", 9),
    "a frame": ("put_frame", "frame", 9),
    "a frame of a new name": ("put_frame", "other", 9),
    "a deletion": ("delete_frame", "frame"),
    "an invalidation": ("invalidate", "AAPL"),
}


@pytest.fixture
def folder():
    """Make a folder that an unprivileged child can reach and own."""
    base = Path(tempfile.mkdtemp())
    folder = base / "cache"
    folder.mkdir()
    base.chmod(0o755)
    if not os.getuid():
        os.chown(folder, NOBODY, NOBODY)
    yield folder
    for path in [base, *base.glob("**/")]:
        path.chmod(0o700)
    shutil.rmtree(base)


@pytest.fixture
def unprivileged(nursery):
    with contextlib.ExitStack() as ending:

        def start(folder, **settings):
            child = nursery.start("servants:serve_as_nobody", str(folder), settings)
            ending.callback(child.end)
            return child

        yield start


def opened(child):
    assert child.hear() == "open"
    return child


def fill(child):
    """Store points and a frame; return the ids."""
    ids = [child.ask("store_price", "AAPL", price) for price in PRICES]
    child.ask("put_frame", "frame", 7)
    return ids


def forbid_writing(folder):
    for path in [*folder.glob("**/*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def tree(folder):
    """Return what is in a folder: names, sizes and times."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.glob("**/*")}


def assert_readable(child, ids):
    assert [child.ask("get_price", "AAPL", each) for each in ids] == PRICES
    assert child.ask("prices", "AAPL") == PRICES
    assert child.ask("latest") == {"AAPL": PRICES[-1]}
    assert child.ask("get_frame", "frame") == 7
    assert child.ask("verify") == 0


def assert_refused(child, ids):
    for order in [*WRITES.values(), ("delete_price", "AAPL", ids[0])]:
        answer = child.ask(*order)
        assert answer["error"] == "StoreReadOnly"
        assert "may not be written; choose another cache_dir" in answer["text"]


def test_read_only_folder(unprivileged, folder):
    """In a folder that may not be written everything can be read, and each write is a StoreReadOnly."""
    child = opened(unprivileged(folder))
    ids = fill(child)
    child.end()
    forbid_writing(folder)
    before = tree(folder)
    child = opened(unprivileged(folder))
    assert_readable(child, ids)
    assert_refused(child, ids)
    assert_readable(child, ids)
    assert tree(folder) == before


def test_read_only_folder_with_a_log(unprivileged, folder):
    """What a killed writer had left in the write-ahead log can be read where nothing may be written."""
    child = opened(unprivileged(folder))
    ids = fill(child)
    child.kill()
    child.end()
    assert (folder / "ledger-1.db-wal").stat().st_size
    forbid_writing(folder)
    before = tree(folder)
    child = opened(unprivileged(folder))
    assert_readable(child, ids)
    assert_refused(child, ids)
    assert tree(folder) == before


def test_read_only_folder_with_a_log_without_its_index(unprivileged, folder):
    """A log that cannot be read without writing is a StoreReadOnly: nothing is served as if it were not there."""
    child = opened(unprivileged(folder))
    fill(child)
    child.kill()
    child.end()
    (folder / "ledger-1.db-shm").unlink()
    forbid_writing(folder)
    assert unprivileged(folder).hear()["error"] == "StoreReadOnly"


def test_folder_that_becomes_read_only_and_writable_again(unprivileged, folder):
    """An open cache goes on reading when its folder becomes read-only, and writing when it may."""
    child = opened(unprivileged(folder))
    ids = fill(child)
    child.end()
    forbid_writing(folder)
    child = opened(unprivileged(folder))
    assert_readable(child, ids)
    for path in [folder, *folder.glob("**/*")]:
        path.chmod(0o700)
    assert isinstance(opened(unprivileged(folder)).ask("store_price", "AAPL", 4.0), str)
    wait_until(lambda: child.ask("prices", "AAPL") == [*PRICES, 4.0])
    assert isinstance(child.ask("store_price", "AAPL", 5.0), str)
    assert child.ask("latest") == {"AAPL": 5.0}


def test_damaged_payload_in_a_read_only_folder(unprivileged, folder):
    """A damaged payload that cannot be put aside is a miss, and the rest can be read."""
    child = opened(unprivileged(folder))
    ids = fill(child)
    child.ask("put_frame", "bad", 1)
    child.end()
    (path,) = folder.glob("bars/test/bad.*")
    path.write_bytes(path.read_bytes()[:-1])
    forbid_writing(folder)
    before = tree(folder)
    child = opened(unprivileged(folder))
    assert child.ask("get_frame", "bad") is None
    assert child.ask("get_frame", "bad") is None
    assert child.ask("get_frame", "frame") == 7
    assert child.ask("prices", "AAPL") == PRICES
    assert child.ask("verify") == 1
    assert [child.ask("get_price", "AAPL", each) for each in ids] == PRICES
    assert tree(folder) == before


def test_payload_that_may_not_be_read(unprivileged, folder):
    """A payload that may not be read is one clear error and is left where it is; it can be read once it may be."""
    child = opened(unprivileged(folder))
    ids = fill(child)
    child.ask("put_frame", "secret", 1)
    child.ask("close")
    (path,) = folder.glob("bars/test/secret.*")
    path.chmod(0)
    child = opened(unprivileged(folder))
    assert child.ask("get_frame", "secret")["error"] == "StoreReadOnly"
    assert child.ask("verify") == 1
    assert child.ask("get_frame", "frame") == 7
    assert [child.ask("get_price", "AAPL", each) for each in ids] == PRICES
    path.chmod(0o600)
    assert child.ask("get_frame", "secret") == 1
    assert child.ask("verify") == 0


def test_damaged_ledger_in_a_read_only_folder(unprivileged, folder):
    """A damaged ledger that cannot be replaced is one clear error."""
    child = opened(unprivileged(folder))
    fill(child)
    child.end()
    (folder / "ledger-1.db").write_bytes(b"hello" * 1000)
    forbid_writing(folder)
    assert unprivileged(folder).hear()["error"] == "StoreDamaged"


@pytest.mark.parametrize("mode", [0o000, 0o111, 0o333, 0o555])
def test_folder_that_may_not_be_used(unprivileged, folder, mode):
    """An empty folder that may not be entered, listed or written is a StoreReadOnly at once."""
    folder.chmod(mode)
    answer = unprivileged(folder).hear()
    assert answer["error"] == "StoreReadOnly"
    assert str(folder) in answer["text"]


def test_folder_below_one_that_may_not_be_written(unprivileged, folder):
    """A cache_dir below a folder that may not be written is a StoreReadOnly at once."""
    folder.chmod(0o555)
    assert unprivileged(folder / "below" / "it").hear()["error"] == "StoreReadOnly"


def test_read_only_disk(disk):
    """A disk mounted read-only, where even root may not write, is a read-only folder like any other."""
    child = disk.open()
    ids = fill(child)
    child.end()
    disk.forbid_writing()
    child = disk.open()
    assert_readable(child, ids)
    assert_refused(child, ids)
    assert disk.start("another").hear()["error"] == "StoreReadOnly"


@pytest.mark.parametrize("name", ["file/cache", "file", "n" * 300, "a/" + "n" * 300 + "/b"])
def test_cache_dir_that_cannot_be_made(tmp_path, name):
    """A cache_dir that is below a file, or a file, or too long, is a StoreReadOnly that names it."""
    (tmp_path / "file").write_text("hello")
    with pytest.raises(StoreReadOnly, match="may not be written; choose another cache_dir") as caught:
        TradeCache(tmp_path / name)
    assert caught.value.folder == tmp_path / name
    assert (tmp_path / "file").read_text() == "hello"


@pytest.mark.parametrize("name", ["a\0b", "", 7, b"folder"])
def test_cache_dir_that_is_no_path(name):
    """A cache_dir that can be no path is an InvalidInput that names the argument."""
    with pytest.raises(InvalidInput, match="cache_dir is"):
        TradeCache(name)
