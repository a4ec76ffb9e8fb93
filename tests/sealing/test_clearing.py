"""`rekey` leaves nothing of a folder as it was, deletes nothing of anybody else's, and looks for room first."""

import json
import os
import subprocess
import sys

import pytest
from key_value.aio.stores.memory import MemoryStore
from mounts import seclusion
from scripts import HERE, environment, run_command
from vaults import ONE, PRICE, SYMBOL, TWO, chosen, holders, market

from tradecache import InvalidInput, TradeCache, UnknownKey, WrongKey
from tradecache.rekeying import rekey

CLI = [sys.executable, "-m", "tradecache"]
PLAIN = str(PRICE).encode()


@pytest.fixture
def plain(make, folder):
    """A plain folder with a point and bars."""
    cache = make()
    cache.store_price(SYMBOL, PRICE, 1)
    cache.store_bars(SYMBOL, market(50).assign(close=PRICE), interval="1m")
    cache.close()
    return folder


def leave(folder, name):
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(PLAIN)
    return path


def test_what_died_processes_left_is_deleted(plain):
    """Older ledgers, new ones and temporary files that others left are counted and gone."""
    (plain / "ledger-1.db").rename(plain / "ledger-3.db")
    names = [
        "ledger-1.db", "ledger-2.db-wal", "ledger-4.new", ".0123456789abcdef.ledger-3.db",
        ".0123456789abcdef.encryption.json", ".k.0123456789abcdef.arrow.tmp", "bars/k.0123456789abcdef.arrow",
    ]  # fmt: skip
    for name in names:
        leave(plain, name)
    locks = list(plain.glob("locks/*.lock"))
    done = rekey(chosen(plain, ONE))
    assert (done["files_deleted"], done["not_deleted"]) == (len(names) + len(locks), 0)
    assert holders(plain, PLAIN) == []
    assert [path.name for path in plain.glob("ledger-*")] == ["ledger-3.db"]


def test_what_is_not_ours_is_left(plain, make):
    """Files that are called as none of ours stay, in quarantine too, where they are counted, and stop nothing."""
    kept = [
        leave(plain, name) for name in ("project/mine.arrow", "quarantine/samples.txt", "quarantine/kept/x")
    ]
    gone = leave(plain, "quarantine/1795960482078756238-k.arrow")
    done = rekey(chosen(plain, ONE, hashed=True))
    assert (done["quarantine_deleted"], done["not_deleted"], done["left"]) == (1, 2, 0)
    assert [path.read_bytes() for path in kept] == [PLAIN] * 3
    assert not gone.exists()
    assert make(ONE, hashed=True).prices()["price"].to_list() == [PRICE]


def test_a_folder_that_is_no_cache_is_refused(folder, tmp_path):
    """In a folder without a ledger nothing is made, encrypted or deleted, and a shell is told which one it is."""
    mine = leave(folder, "project/data.0123456789abcdef.arrow")
    with pytest.raises(InvalidInput, match=r"cache_dir is .* must be the folder of a cache"):
        rekey(chosen(folder, ONE, hashed=True))
    assert sorted(folder.rglob("*")) == [mine.parent, mine]
    for where in (folder, tmp_path / "none"):
        env = {"TRADECACHE_ENCRYPTION_KEY": ONE, "TRADECACHE_CACHE_DIR": str(where)}
        done = run_command([*CLI, "rekey"], env=env)
        assert done.returncode == 2
        assert done.stderr.startswith(f"tradecache: the folder is {where}\n")
    assert not (tmp_path / "none").exists()
    assert sorted(folder.rglob("*")) == [mine.parent, mine]


@pytest.mark.parametrize("age", [0, 3600])
def test_a_file_that_is_being_written_stays(make, folder, age):
    """A temporary file with a header under the new key stays, and so does a new one without any; an old one goes."""
    cache = make(ONE)
    cache.store_bars(SYMBOL, market(50), interval="1m")
    cache.close()
    (sealed,) = folder.rglob("*.sealed")
    begun, empty = (sealed.with_name(f".{n}.0123456789abcdef.arrow.sealed.tmp") for n in "ab")
    begun.write_bytes(sealed.read_bytes()[:31])
    empty.touch()
    for path in (begun, empty):
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    rekey(chosen(folder, ONE))
    assert (begun.exists(), empty.exists()) == (True, not age)


DISK = """
import os, subprocess, sys
from pathlib import Path
from tradecache import Settings, StoreError, TradeCache
from tradecache.rekeying import rekey
from vaults import ONE, PRICE, SYMBOL, market

disk = Path(sys.argv[1])
disk.mkdir()
mount = lambda *options: subprocess.run(["mount", *options, str(disk)], check=True)
mount("-t", "tmpfs", "-o", "size=6m", "tmpfs")
folder = disk / "cache"

def there():
    return {(path, path.stat().st_size) for path in folder.rglob("*") if path.suffix != ".lock"}

def attempt():
    before = there()
    try:
        print(type(rekey(Settings(cache_dir=folder, encryption_key=ONE))).__name__)
    except StoreError as error:
        assert there() == before, there() ^ before
        print(type(error).__name__, error.reason)

with TradeCache(folder) as cache:
    for number in range(5):
        cache.store_bars(f"S{number}", market(2000), interval="1m")
    cache.store_price(SYMBOL, PRICE, 1)
status = os.statvfs(disk)
(disk / "filler").write_bytes(bytes(status.f_bavail * status.f_bsize - 300_000))
attempt()
TradeCache(folder).close()
mount("-o", "remount,ro")
attempt()
mount("-o", "remount,rw,size=20m")
attempt()
with TradeCache(settings=Settings(cache_dir=folder, encryption_key=ONE)) as cache:
    assert cache.prices()["price"].to_list() == [PRICE]
    assert cache.verify().empty
"""


def test_room_is_looked_for_first(tmp_path):
    """On a full disk, or one that may not be written, a `rekey` says so and changes nothing; with room it goes well."""
    env = environment() | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [*seclusion(), sys.executable, "-c", DISK, str(tmp_path / "disk")],
        env=env, text=True, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    full, read_only, well = done.stdout.splitlines()
    assert full.startswith("StoreFull a rekey needs about ")
    assert read_only.startswith("StoreReadOnly")
    assert well == "Series"


@pytest.mark.parametrize(
    "alter",
    [
        lambda said: [each.update(check="é" * 64) for each in said["keys"].values()],
        lambda said: said.update(keys={"é" * 16: next(iter(said["keys"].values()))}),
        lambda said: [each.update(names="é") for each in said["keys"].values()],
        lambda said: said.update(unfinished=None),
    ],
    ids=["check", "id", "names", "unfinished"],
)
def test_a_card_with_anything_in_it_is_one_error(make, folder, alter):
    """Whatever a card holds, it is refused with a sentence, by a cache and by `rekey`."""
    make(ONE).close()
    said = json.loads((folder / "encryption.json").read_text())
    alter(said)
    for text in (json.dumps(said), json.dumps(said, ensure_ascii=False), "[" * 100_000):
        (folder / "encryption.json").write_text(text, encoding="utf-8")
        for ask in (lambda: make(ONE), lambda: rekey(chosen(folder, ONE))):
            with pytest.raises(WrongKey, match="damaged"):
                ask()


def test_a_key_file_that_is_no_text(plain, tmp_path):
    """A file of 32 raw bytes is no file of keys, and a shell is told so without one of them."""
    raw = tmp_path / "key"
    raw.write_bytes(bytes(range(150, 182)))
    done = run_command([*CLI, "rekey", "--cache-dir", str(plain), "--key-file", str(raw)])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--key-file is" in done.stderr
    assert "a text file of keys, one to a line" in done.stderr


def test_a_wrong_key_for_a_store_that_was_passed_in(tmp_path):
    """What is under another key in a store that was passed in is one error, for one entry and for many."""
    store = MemoryStore()
    with TradeCache(settings=chosen(tmp_path / "a", ONE), durable=store) as cache:
        data_id = cache.store_price(SYMBOL, PRICE, 1)
    with TradeCache(settings=chosen(tmp_path / "b", TWO), durable=store) as cache:
        for ask in (lambda: cache.get_price(SYMBOL, data_id), lambda: cache.latest(SYMBOL), cache.prices):
            with pytest.raises(UnknownKey, match="which is not among those given"):
                ask()
    with TradeCache(settings=chosen(tmp_path / "b", TWO, ONE), durable=store) as cache:
        assert cache.prices()["price"].to_list() == [PRICE]
