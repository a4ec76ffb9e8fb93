"""A folder that is encrypted stays so, whatever becomes of its ledger while it is open, and whoever mends that."""

import hashlib
import shutil
import time

import pytest
from vaults import ONE, PRICE, SYMBOL, THREE, TWO, chosen, fill, holders, market

from tradecache import StoreError, WrongKey
from tradecache.rekeying import rekey
from tradecache.stores.ledger import LOOK_EVERY


def everything(folder):
    """Return every file of a folder, to the byte and the moment."""
    return {
        path.name: (hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def begin_anew(cache, folder):
    """Delete the folder under an open cache and have it write again."""
    shutil.rmtree(folder)
    time.sleep(LOOK_EVERY + 0.1)  # a ledger is looked for no sooner
    return cache.store_price(SYMBOL, PRICE, 1)


def damage(folder):
    """Make the ledger unreadable in place, as a fault of the disk does."""
    (path,) = folder.glob("ledger-*.db")
    for tail in ("-wal", "-shm"):
        path.with_name(path.name + tail).unlink(missing_ok=True)
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)


@pytest.mark.parametrize("hashed", [False, True])
def test_a_deleted_folder_is_begun_anew_encrypted(make, folder, hashed):
    """Where the folder is deleted under an open cache, what it begins anew has its card, and nobody writes plain."""
    cache = make(ONE, hashed=hashed)
    data_id = begin_anew(cache, folder)
    with pytest.raises(WrongKey, match="is encrypted"):
        make()
    assert cache.get_price(SYMBOL, data_id).price == PRICE
    assert make(ONE, hashed=hashed).prices()["price"].to_list() == [PRICE]
    assert holders(folder, str(PRICE).encode()) == []


def test_a_plain_folder_that_was_begun_anew_by_another_is_refused(make, folder):
    """Where another process begins the deleted folder anew and plain, who has a key writes nothing beside that."""
    keyed, plain = make(ONE), None
    keyed.store_price(SYMBOL, 1, 1)
    shutil.rmtree(folder)
    plain = make()
    plain.store_price(SYMBOL, 2, 1)
    time.sleep(LOOK_EVERY + 0.1)
    with pytest.raises(WrongKey, match="holds entries that are not encrypted"):
        keyed.store_price(SYMBOL, 3, 1)
    assert plain.prices()["price"].to_list() == [2]


def test_two_that_begin_anew_have_one_card(make, folder):
    """Who finds a deleted folder begun anew under another secret of names is told, and hides nothing by the old one."""
    cache = make(ONE, hashed=True)
    cache.store_price(SYMBOL, 1, 1)
    shutil.rmtree(folder)
    make(ONE, hashed=True).store_price(SYMBOL, 2, 1)
    time.sleep(LOOK_EVERY + 0.1)
    with pytest.raises(WrongKey, match="was made anew by another process meanwhile"):
        cache.store_price(SYMBOL, 3, 1)


def test_a_process_without_a_key_mends_no_encrypted_ledger(make, folder):
    """Who opened a folder before it was encrypted does not mend its ledger, for the new one would take anything."""
    plain = make()
    plain.store_price(SYMBOL, PRICE, 1)
    rekey(chosen(folder, ONE))
    damage(folder)
    time.sleep(LOOK_EVERY + 0.1)
    for ask in (
        lambda: plain.store_price("PLAIN", 1, 1),
        plain.prices,
        lambda: plain.store_bars("B", market(5), interval="1m"),
    ):
        with pytest.raises((WrongKey, StoreError)):
            ask()
    assert holders(folder, b"PLAIN") == []
    make(ONE).store_price(SYMBOL, 2, 1)
    with pytest.raises((WrongKey, StoreError)):
        plain.store_price("PLAIN", 1, 1)
    assert make(ONE).prices()["symbol"].to_list() == [SYMBOL]


@pytest.mark.parametrize("harm", ["intact", "damaged", "no changes", "empty", "none"])
@pytest.mark.parametrize(
    ("keys", "more"), [([], {}), ([TWO], {}), ([ONE], {"hashed": True})], ids=["none", "wrong", "names"]
)
def test_a_wrong_key_changes_not_one_byte(make, folder, harm, keys, more):
    """Who has not the keys changes nothing, also where the ledger is damaged, empty or gone."""
    cache = make(ONE)
    fill(cache, count=5)
    cache.close()
    {
        "intact": lambda: None,
        "damaged": lambda: damage(folder),
        "no changes": (folder / "changes").unlink,
        "empty": lambda: (folder / "ledger-1.db").write_bytes(b""),
        "none": (folder / "ledger-1.db").unlink,
    }[harm]()
    before = everything(folder)
    with pytest.raises(WrongKey):
        make(*keys, **more)
    assert everything(folder) == before
    if keys == [TWO] and harm != "none":
        with pytest.raises(WrongKey, match="is encrypted under the key"):
            rekey(chosen(folder, THREE, *keys))
        assert everything(folder) == before
