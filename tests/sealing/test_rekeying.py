"""`rekey` brings everything under a new key, while others go on working."""

import base64
import json
import sqlite3
import struct
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from children import wait_until
from framecases import bars
from pandas.testing import assert_frame_equal
from scripts import run_command, start_script
from vaults import (
    ONE,
    PRICE,
    SYMBOL,
    THREE,
    TWO,
    chosen,
    fill,
    holders,
    ledger_of,
    market,
    plant,
    row_of,
    rows_of,
    snapshot,
)

from tradecache import Settings, StoreBusy, StoreError, WrongKey
from tradecache.errors import InvalidInput
from tradecache.rekeying import rekey
from tradecache.seals import Seal
from tradecache.stores.keyring import Keyring
from tradecache.stores.ledger import COLUMNS
from tradecache.stores.values import value_text

CLI = [sys.executable, "-m", "tradecache"]


# what is refused
# frames
# housekeeping
# keys
# nothing in clear
# hidden names
# changing keys


def ids_in(folder):
    return sorted(json.loads((folder / "encryption.json").read_text())["keys"])


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("began", [[], [ONE]], ids=["plain", "encrypted"])
def test_rekey_keeps_everything(make, folder, began, hashed):
    """`rekey` changes no answer, no lifetime and no creation; afterwards the new key alone opens the folder."""
    cache = make(*began)
    fill(cache, count=20)
    cache.store_price(SYMBOL, 1, 1, ttl=1234.5)
    expected, expiries = cache.prices(), cache.expiries()
    series = cache.bars(SYMBOL, interval="1m", source="local")
    cache.close()
    before = {(row.key, row.created, row.expires, row.used) for row in rows_of(folder)}
    done = rekey(chosen(folder, TWO, *began, hashed=hashed))
    assert (done["sealed_anew"], done["left"], done["not_compacted"]) == (22, 0, 0)
    assert {(row.key, row.created, row.expires, row.used) for row in rows_of(folder)} == before
    cache = make(TWO, hashed=hashed)
    assert_frame_equal(cache.prices(), expected)
    assert_frame_equal(cache.expiries(), expiries)
    assert_frame_equal(cache.bars(SYMBOL, interval="1m", source="local"), series)
    assert cache.verify().empty
    assert len(ids_in(folder)) == 1
    assert len(list(folder.rglob("*.arrow*"))) == 1
    cache.close()
    assert rekey(chosen(folder, TWO, hashed=hashed))["sealed_anew"] == 0


def test_rekey_changes_names_both_ways(make, folder):
    """`rekey` hides names and shows them again, with the same key or a new one; empty folders go, too."""
    cache = make(ONE)
    fill(cache, count=5)
    expected = cache.prices()
    cache.close()
    for keys, hashed in (([ONE], True), ([TWO, ONE], False), ([TWO], True), ([THREE, TWO], True)):
        rekey(chosen(folder, *keys, hashed=hashed))
        assert bool(holders(folder, SYMBOL.encode())) is not hashed
        cache = make(keys[0], hashed=hashed)
        assert_frame_equal(cache.prices(), expected)
        assert len(cache.bars(SYMBOL, interval="1m", source="local")) == 3000
        cache.close()


def test_rekey_needs_the_old_key(make, folder):
    """Without a key in use, or without any, `rekey` changes nothing."""
    cache = make(ONE)
    cache.store_price(SYMBOL, 1, 1)
    cache.close()
    before = snapshot(folder)
    with pytest.raises(WrongKey):
        rekey(chosen(folder, TWO))
    with pytest.raises(InvalidInput, match="encryption_key is None, but must be set, the new key first"):
        rekey(chosen(folder))
    with pytest.raises(InvalidInput, match="cache_dir"):
        rekey(chosen(folder / "none", ONE))
    assert snapshot(folder) == before


def test_rekey_does_not_bless_what_was_planted(make, folder):
    """In an encrypted folder a plain entry, or an exchanged one, does not become a right one by `rekey`."""
    cache = make(ONE)
    one, two = cache.store_price(SYMBOL, 1, 1), cache.store_price(SYMBOL, 2, 1)
    cache.close()
    plant(folder, row_of(folder, one)._replace(key="planted", value=b'{"price":1.0}'))
    plant(folder, row_of(folder, two)._replace(value=row_of(folder, one).value))
    done = rekey(chosen(folder, TWO, ONE))
    assert (done["sealed_anew"], done["put_aside"]) == (1, 2)
    assert make(TWO).prices()["price"].to_list() == [1]


def test_a_plain_entry_with_an_encrypted_file_is_put_aside(make, folder):
    """Where a plain folder is encrypted, an entry that names an encrypted file was planted, and stops nothing."""
    cache = make()
    cache.store_price(SYMBOL, PRICE, 1)
    cache.store_bars(SYMBOL, market(100), interval="1m")
    cache.close()
    (row,) = [row for row in rows_of(folder) if row.path]
    sealed = f"{row.path}.sealed"
    (folder / row.path).rename(folder / sealed)
    plant(folder, row._replace(path=sealed))
    done = rekey(chosen(folder, ONE))
    assert (done["put_aside"], done["left"]) == (1, 0)
    assert make(ONE).prices()["price"].to_list() == [PRICE]


def test_the_newer_of_two_wins_when_names_change(make, folder, clock):
    """Where an entry is already there under its new name, the one under its old name makes room for it."""
    cache = make(ONE, hashed=True)
    data_id = cache.store_price(SYMBOL, 2, 1)
    cache.close()
    new = row_of(folder, data_id)
    seal = cache.core.stack.sealed.seal
    opened = seal.opened_at(new.collection, new.key, json.loads(new.value))
    old = Seal(seal.ring).spelt(opened._replace(text=opened.text.replace(b"2.0", b"1.0")))
    plant(folder, new._replace(collection=opened.collection, value=value_text(old)))
    done = rekey(chosen(folder, ONE, hashed=True))
    assert (done["sealed_anew"], done["superseded"]) == (0, 1)
    assert make(ONE, hashed=True).prices()["price"].to_list() == [2]


def test_one_rekey_at_a_time(make, folder):
    """A second `rekey` is refused while one is at work."""
    make(ONE).close()
    code = """
        import sys, time
        from filelock import FileLock
        with FileLock(sys.argv[1]):
            print("held", flush=True)
            sys.stdin.read()
    """
    process = start_script(code, folder / "rekey.lock")
    assert process.stdout.readline() == "held\n"
    with pytest.raises(StoreBusy, match="another rekey"):
        rekey(chosen(folder, ONE))
    process.communicate()
    rekey(chosen(folder, ONE))


def sealed_with(key: str, folder: Path) -> int:
    """Count the entries under a key, however busy the ledger is."""
    mark = Keyring(Settings(encryption_key=key).encryption_key).first.id
    with closing(ledger_of(folder)) as ledger:
        query = "SELECT COUNT(*) FROM entries WHERE CAST(substr(value, 1, 72) AS TEXT) LIKE ?"
        return ledger.execute(query, (f"%{mark}%",)).fetchone()[0]


@pytest.mark.parametrize(("began", "hashed"), [([], True), ([ONE], False)], ids=["plain", "encrypted"])
def test_a_killed_rekey_goes_on(make, folder, began, hashed):
    """A `rekey` that is killed again and again loses nothing; the next one goes on, and the last one ends it."""
    cache = make(*began)
    fill(cache, count=3000)
    expected, series = cache.prices(), cache.bars(SYMBOL, interval="1m", source="local")
    cache.close()
    keys = ",".join([TWO, *began])
    code = """
        import sys
        from tradecache import Settings
        from tradecache.rekeying import rekey
        rekey(Settings(cache_dir=sys.argv[1], encryption_key=sys.argv[2], hashed_names=sys.argv[3] == "True"))
    """
    unfinished = 0
    for goal in (1, 150, 500, 1200, 2000, 2800):
        process = start_script(code, folder, keys, hashed)
        wait_until(lambda: sealed_with(TWO, folder) >= goal or process.poll() is not None)  # noqa: B023
        process.kill()
        process.communicate()
        tags = {row.value[:72] for row in rows_of(folder)}
        unfinished += len(tags) > 1
        if not began and (folder / "encryption.json").exists() and len(tags) > 1:
            with pytest.raises(WrongKey, match="only partly encrypted"):
                make(TWO, hashed=hashed)
            with pytest.raises(WrongKey, match="is encrypted"):
                make()
    assert unfinished
    rekey(chosen(folder, TWO, *began, hashed=hashed))
    cache = make(TWO, hashed=hashed)
    assert_frame_equal(cache.prices(), expected)
    assert_frame_equal(cache.bars(SYMBOL, interval="1m", source="local"), series)
    assert cache.verify().empty
    cache.close()
    plain = [str(PRICE).encode(), struct.pack("<d", PRICE), b"ARROW1"]
    assert holders(folder, *plain) == []
    assert len(list(folder.rglob("*.arrow*"))) == 1


BUSY = """
import json, sys
from tradecache import Settings, TradeCache

with TradeCache(settings=Settings(cache_dir=sys.argv[1], encryption_key=sys.argv[2])) as cache:
    print("begun", flush=True)
    gone, mine = [], []
    old = sys.stdin.readline().strip().split(",")
    for number in range(600):
        mine.append(cache.store_price("NEW", number + 1, 1))
        if number % 3 == 0:
            assert cache.delete_price("OLD", old[number])
            gone.append(old[number])
        if number % 5 == 0:
            assert cache.delete_price("NEW", mine.pop())
        assert cache.get_price("OLD", old[number + 1] if number % 3 == 0 else old[-1]) is not None
    print(json.dumps([mine, gone]), flush=True)
"""


def test_others_write_and_delete_during_a_rekey(make, folder):
    """What another process writes while `rekey` is at work is there afterwards, and what it deletes is gone."""
    cache = make(ONE)
    for number in range(3000):
        cache.store_price("OLD", number + 1, 1)
    from_before = list(ids_of(cache, "OLD"))
    process = start_script(BUSY, folder, f"{TWO},{ONE}")
    assert process.stdout.readline() == "begun\n"
    process.stdin.write(",".join(from_before) + "\n")
    process.stdin.flush()
    done = [rekey(chosen(folder, TWO, ONE)) for _ in range(3)]
    said, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    mine, gone = json.loads(said)
    assert sum(each["sealed_anew"] for each in done) > 0
    rekey(chosen(folder, TWO, ONE))
    after = make(TWO)
    assert sorted(ids_of(after, "NEW")) == sorted(mine)
    assert sorted(ids_of(after, "OLD")) == sorted(set(from_before) - set(gone))
    assert after.verify().empty


def ids_of(cache, symbol):
    return [
        row.key for row in rows_of(Path(cache.settings.cache_dir)) if row.collection == f"symbol:{symbol}"
    ]


def test_a_cache_that_is_open_with_the_old_key_harms_nothing(make, folder):
    """Who still has the old key after a `rekey` is told so when reading and writing, and nothing is put aside."""
    old = make(ONE)
    data_id = old.store_price(SYMBOL, PRICE, 1)
    old.store_bars(SYMBOL, market(100), interval="1m")
    rekey(chosen(folder, TWO, ONE))
    asks = [lambda: old.get_price(SYMBOL, data_id), lambda: old.bars(SYMBOL, interval="1m", source="local")]
    for ask in (*asks, old.prices, old.coverage, old.verify):
        with pytest.raises(WrongKey, match="is by now encrypted under the key"):
            ask()
    with pytest.raises(StoreError, match="only entries that are encrypted with its present keys"):
        old.store_price(SYMBOL, 2, 1)
    with pytest.raises(StoreError, match="only entries"):
        old.store_prices(
            pd.DataFrame({"symbol": ["A"], "price": [1.0], "volume": [1.0], "timestamp": [bars().index[0]]})
        )
    after = make(TWO)
    assert after.prices()["price"].to_list() == [PRICE]
    assert len(after.bars(SYMBOL, interval="1m", source="local")) == 100
    assert not (folder / "quarantine").exists()


def test_a_plain_cache_that_is_open_harms_nothing(make, folder):
    """Who has opened a folder before it was encrypted writes nothing plain into it, and puts nothing aside."""
    plain = make()
    data_id = plain.store_price(SYMBOL, PRICE, 1)
    plain.store_bars(SYMBOL, market(100), interval="1m")
    rekey(chosen(folder, ONE))
    with pytest.raises(WrongKey, match="is encrypted: set encryption_key"):
        plain.get_price(SYMBOL, data_id)
    with pytest.raises(WrongKey):
        plain.verify()
    with pytest.raises(StoreError, match="only entries"):
        plain.store_price(SYMBOL, 2, 1)
    after = make(ONE)
    assert after.prices()["price"].to_list() == [PRICE]
    assert len(after.bars(SYMBOL, interval="1m", source="local")) == 100
    assert after.verify().empty


def test_a_mended_ledger_is_guarded_again(make, folder):
    """When a damaged ledger was mended, it still takes nothing that is not encrypted."""
    cache = make(ONE)
    cache.store_price(SYMBOL, PRICE, 1)
    cache.close()
    (path,) = folder.glob("ledger-*.db")
    with path.open("r+b") as file:
        file.write(b"this is no database any more, not at all")
    make(ONE).store_price(SYMBOL, 2, 1)
    insert = f"INSERT INTO entries ({COLUMNS}) VALUES ({', '.join('?' * 10)})"
    with closing(ledger_of(folder)) as ledger, pytest.raises(sqlite3.IntegrityError, match="only entries"):
        ledger.execute(insert, ("c", "k", 0, None, 0, 2, 0, b"{}", None, None))


# from a shell


def shell(*arguments, **env):
    return run_command(
        [*CLI, *map(str, arguments)], env={f"TRADECACHE_{name}": each for name, each in env.items()}
    )


def test_keys_from_a_shell(make, folder, tmp_path):
    """`new-key` prints a key that `rekey` takes from the environment or a file, never from its arguments."""
    cache = make()
    cache.store_price(SYMBOL, PRICE, 1)
    cache.close()
    key = shell("new-key").stdout.strip()
    assert len(base64.urlsafe_b64decode(key)) == 32
    assert shell("new-key").stdout.strip() != key
    done = shell("rekey", "--json", CACHE_DIR=str(folder), ENCRYPTION_KEY=key)
    assert (done.returncode, json.loads(done.stdout)["sealed_anew"]) == (0, 1)
    newer = tmp_path / "key"
    newer.write_text(TWO + "\n")
    done = shell("rekey", "--cache-dir", folder, "--key-file", newer, ENCRYPTION_KEY=key)
    assert (done.returncode, done.stderr) == (0, f"tradecache: the folder is {folder}\n")
    assert make(TWO).prices()["price"].to_list() == [PRICE]


def test_a_shell_is_told_what_is_wrong(make, folder):
    """A wrong key, or none, is one line on stderr and an exit code."""
    make(ONE).store_price(SYMBOL, PRICE, 1)
    wrong = shell("info", CACHE_DIR=str(folder), ENCRYPTION_KEY=TWO)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert "is encrypted under the key" in wrong.stderr
    none = shell("rekey", CACHE_DIR=str(folder))
    assert (none.returncode, "new-key" in none.stderr or "encryption_key" in none.stderr) == (2, True)


def test_keys_from_standard_input(make, folder):
    """`--key-file -` reads the keys from standard input."""
    cache = make()
    cache.store_price(SYMBOL, PRICE, 1)
    cache.close()
    code = """
        import sys
        from tradecache.cli import main
        sys.exit(main(["rekey", "--cache-dir", sys.argv[1], "--key-file", "-"]))
    """
    process = start_script(code, folder)
    _, complaints = process.communicate(ONE + "\n", timeout=60)
    assert (process.returncode, complaints) == (0, f"tradecache: the folder is {folder}\n")
    assert make(ONE).prices()["price"].to_list() == [PRICE]
