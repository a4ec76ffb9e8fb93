import base64
import json
import logging
import os
import random
import shutil
import sqlite3
import struct
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from children import wait_until
from framecases import bars
from hypothesis import settings as examples
from hypothesis.stateful import run_state_machine_as_test
from key_value.aio.stores.memory import MemoryStore
from key_value.aio.stores.redis import RedisStore
from loops import run
from pandas.testing import assert_frame_equal
from redis.asyncio import Redis
from scripts import answer, run_command, run_script, start_script, without_package
from test_prices_law import PricesLaw

from tradecache import NotStorable, Settings, SourceUnavailable, StoreBusy, StoreError, TradeCache, WrongKey
from tradecache.clock import Clock
from tradecache.errors import InvalidInput
from tradecache.flights import Flights
from tradecache.rekeying import rekey
from tradecache.sealing import Sealed, sealed
from tradecache.seals import Seal, names_of
from tradecache.stack import build_stack
from tradecache.stores.arrow import as_table, write_table
from tradecache.stores.cipher import CHUNK, HEADER, TAG
from tradecache.stores.keyring import Keyring, Names
from tradecache.stores.ledger import COLUMNS, Row, row_checksum
from tradecache.stores.local import LocalStore
from tradecache.stores.payloads import Owner, Payloads
from tradecache.stores.values import value_text

KEYS = [base64.urlsafe_b64encode(bytes([number] * 32)).decode() for number in range(1, 5)]
ONE, TWO, THREE, OTHER = KEYS
SYMBOL = "ZANZIBAR"
PRICE = 123.456789
WHERE = "mine"
VALUE = {"price": PRICE, "note": "plain words"}
CLI = [sys.executable, "-m", "tradecache"]


def chosen(folder: Path, *keys: str, hashed: bool = False, **more) -> Settings:
    return Settings(cache_dir=folder, encryption_key=keys, hashed_names=hashed, **more)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def open_stack(folder, clock):
    """Return what opens the stack of the folder with some keys."""
    opened = []

    def open_stack(*keys, hashed=False, **more):
        opened.append(build_stack(chosen(folder, *keys, hashed=hashed, **more), clock=Clock(clock)))
        return opened[-1]

    yield open_stack
    for each in opened:
        each.durable.close()


@pytest.fixture
def stack(open_stack):
    return open_stack(ONE)


@pytest.fixture
def disk(stack):
    """The sealed store, without memory in front."""
    return stack.sealed


@pytest.fixture
def make(folder, clock):
    """Return what makes one more cache on the folder, with some keys."""
    made = []

    def make(*keys, hashed=False, source=None, **more):
        made.append(
            TradeCache(settings=chosen(folder, *keys, hashed=hashed, **more), clock=clock, source=source)
        )
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def ledger_of(folder: Path) -> sqlite3.Connection:
    (path,) = folder.glob("ledger-*.db")
    return sqlite3.connect(path, isolation_level=None)


def rows_of(folder: Path) -> list[Row]:
    with closing(ledger_of(folder)) as ledger:
        return [
            Row._make(row)
            for row in ledger.execute(f"SELECT {COLUMNS} FROM entries ORDER BY collection, key")
        ]


def row_of(folder: Path, key: str) -> Row:
    (found,) = [row for row in rows_of(folder) if row.key == key]
    return found


def plant(folder: Path, row: Row) -> None:
    """Enter a row as somebody does who can write to the folder and knows how checksums are made."""
    checksum = row_checksum(
        row.collection, row.key, row.created, row.expires, row.value, row.path, row.payload
    )
    with closing(ledger_of(folder)) as ledger:
        (guard,) = ledger.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'").fetchone() or (
            None,
        )
        ledger.execute("DROP TRIGGER IF EXISTS sealed")
        marks = ", ".join("?" * len(row))
        ledger.execute(
            f"INSERT OR REPLACE INTO entries ({COLUMNS}) VALUES ({marks})", row._replace(checksum=checksum)
        )
        if guard:
            ledger.execute(guard)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def content_of(folder: Path) -> dict[str, bytes]:
    """Return what is in every file but those that change by themselves when a folder is opened."""
    by_themselves = ("-wal", "-shm", ".lock", "changes")
    return {
        str(path): path.read_bytes() for path in files_of(folder) if not path.name.endswith(by_themselves)
    }


def holders(folder: Path, *needles: bytes) -> list[str]:
    """Return the files of a folder that hold one of these in their name or in any of their bytes."""
    return [
        str(path.relative_to(folder))
        for path in [folder, *folder.rglob("*")]
        if any(n in path.name.encode() or (path.is_file() and n in path.read_bytes()) for n in needles)
    ]


def flipped(content: bytes, place: int, bit: int = 0) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    return bytes(changed)


def put(store, key="k", value=VALUE, *, ttl=None, where=WHERE):
    run(store.put(key, value, collection=where, ttl=ttl))


def get(store, key="k", *, where=WHERE):
    return run(store.get(key, collection=where))


def market(rows: int) -> pd.DataFrame:
    """Return bars that a market can have had."""
    return bars(rows).assign(high=200.0, low=1.0)


# what is refused


def test_a_flipped_bit_anywhere_in_a_row_is_a_miss(folder, disk):
    """Whichever byte of a sealed value is altered, with a checksum that fits, nothing but the value is served."""
    put(disk)
    put(disk, "other")
    row = row_of(folder, "k")
    misses = 0
    for place in range(len(row.value)):
        plant(folder, row._replace(value=flipped(row.value, place, place % 7)))
        found = get(disk)
        assert found in (None, VALUE)
        misses += found is None
        assert get(disk, "other") == VALUE
    assert misses >= len(row.value) - 2  # base64 has bits that mean nothing, at its end
    plant(folder, row)
    assert get(disk) == VALUE


def test_a_flipped_bit_is_put_aside_and_logged(folder, disk, caplog):
    """A bad entry is logged without its value, and gone for good; one that has replaced it meanwhile is not."""
    put(disk)
    row = row_of(folder, "k")
    plant(folder, row._replace(value=flipped(row.value, 150)))
    with caplog.at_level(logging.WARNING, logger="tradecache"):
        assert get(disk) is None
    assert "'k' in 'mine' is not served: its token is not what was written" in caplog.text
    assert "plain words" not in caplog.text
    assert rows_of(folder) == []
    put(disk)
    assert get(disk) == VALUE


@pytest.mark.parametrize("left", [0, 1, 38, 71, 72, 100, 200, -3, -1])
def test_a_cut_row_is_a_miss(folder, disk, left):
    """A value that was cut anywhere is a miss."""
    put(disk)
    row = row_of(folder, "k")
    plant(folder, row._replace(value=row.value[:left]))
    assert get(disk) is None


def test_a_cut_token_is_a_miss(folder, disk):
    """A token that was cut to any length, in JSON that is right, is a miss."""
    put(disk)
    row = row_of(folder, "k")
    value = json.loads(row.value)
    token = value["__encrypted_data__"]
    for left in range(len(token)):
        text = json.dumps({**value, "__encrypted_data__": token[:left]}, separators=(",", ":"))
        plant(folder, row._replace(value=text.encode()))
        assert get(disk) is None


@pytest.mark.parametrize("version", [0, -5, True, 2, 1.0, "1", None])
def test_only_the_exact_version_is_accepted(folder, disk, version):
    """A value that says another version than the int 1 is a miss."""
    put(disk)
    row = row_of(folder, "k")
    text = json.dumps({**json.loads(row.value), "__encryption_version__": version}, separators=(",", ":"))
    plant(folder, row._replace(value=text.encode()))
    assert get(disk) is None


def test_entries_that_were_exchanged_are_misses(folder, disk):
    """A ciphertext that was moved to another key or another collection is a miss there."""
    put(disk, "a", {"n": 1})
    put(disk, "b", {"n": 2})
    put(disk, "a", {"n": 3}, where="another")
    one, two, three = row_of(folder, "b"), rows_of(folder)[0], rows_of(folder)[1]
    assert (two.collection, three.collection) == ("another", "mine")
    plant(folder, one._replace(value=three.value))
    plant(folder, three._replace(value=two.value))
    plant(folder, two._replace(value=one.value))
    assert [get(disk, "a"), get(disk, "b"), get(disk, "a", where="another")] == [None, None, None]


def test_one_bad_entry_does_not_stop_the_others(folder, disk):
    """`get_many`, `ttl_many` and `scan` answer what is right, whatever is wrong beside it."""
    for key in "abc":
        put(disk, key, {"key": key})
    plant(folder, row_of(folder, "b")._replace(value=row_of(folder, "a").value))
    assert run(disk.get_many(list("abc"), collection=WHERE)) == [{"key": "a"}, None, {"key": "c"}]
    plant(folder, row_of(folder, "a")._replace(key="b"))
    assert [entry.key for entry in run(disk.scan(WHERE))] == ["a", "c"]
    assert [row.key for row in rows_of(folder)] == ["a", "c"]
    assert run(disk.ttl_many(list("abc"), collection=WHERE))[1] == (None, None)


def test_a_planted_plain_entry_is_refused(folder, disk):
    """An entry that was never encrypted is a miss, by its key and in a list."""
    put(disk)
    plant(folder, row_of(folder, "k")._replace(key="planted", value=b'{"price":1.0}'))
    assert get(disk, "planted") is None
    plant(folder, row_of(folder, "k")._replace(key="planted", value=b'{"price":1.0}'))
    assert [entry.key for entry in run(disk.scan(WHERE))] == ["k"]
    assert [row.key for row in rows_of(folder)] == ["k"]


@pytest.mark.parametrize("expires", [None, 4 * 10**15], ids=["stripped", "lengthened"])
def test_the_sealed_expiry_counts(folder, disk, clock, expires):
    """An entry whose expiry was stripped or put off in the ledger lives no longer than it was stored for."""
    put(disk, ttl=60)
    plant(folder, row_of(folder, "k")._replace(expires=expires))
    assert run(disk.ttl("k", collection=WHERE)) == (VALUE, 60)
    assert run(disk.scan(WHERE))[0].expires == round((clock.now.timestamp() + 60) * 1e6)
    clock.now += pd.Timedelta("60s")
    assert run(disk.ttl("k", collection=WHERE)) == (None, None)
    assert run(disk.scan(WHERE)) == []
    assert len(rows_of(folder)) == 1


# frames

BIG = market(50_000)  # three chunks


@pytest.fixture
def framed(stack, folder):
    """Put a large frame and return its file."""
    put(stack.frames, "f", {"frame": BIG, "n": 1})
    (path,) = folder.rglob("*.arrow.sealed")
    return path


def test_a_large_frame_comes_back(framed, disk):
    """A frame of several chunks comes back, can be written to, and lies in a file of its own kind."""
    assert framed.stat().st_size > 2 * CHUNK
    found = get(disk, "f")
    assert_frame_equal(found["frame"], BIG, check_freq=False)
    assert found["n"] == 1
    found["frame"].iloc[0, 0] = 1.0
    assert framed.stat().st_mode & 0o777 == 0o600


def test_a_flipped_bit_anywhere_in_a_file_is_a_miss(framed, folder, disk):
    """Whichever part of a sealed file is altered, its entry is a miss, and the file goes into quarantine."""
    content, row = framed.read_bytes(), row_of(folder, "f")
    chunk, size = CHUNK + TAG, len(content)
    edges = [HEADER.size + n * chunk for n in range(3)]
    places = [
        *range(HEADER.size),
        *edges,
        *(edge - 1 for edge in edges),
        *(edge - TAG for edge in edges[1:]),
        size - 1,
    ]
    places += random.Random(7).sample(range(size), 20)
    for place in places:
        framed.write_bytes(flipped(content, place, place % 8))
        assert get(disk, "f") is None, place
        assert not framed.exists()
        framed.write_bytes(content)
        plant(folder, row)
    assert get(disk, "f") is not None
    assert len(list((folder / "quarantine").iterdir())) == len(places)


def test_a_cut_or_lengthened_file_is_a_miss(framed, folder, disk):
    """A file that was cut, at the end of a chunk too, or lengthened is a miss, also where the ledger agrees."""
    content, row = framed.read_bytes(), row_of(folder, "f")
    chunk = CHUNK + TAG
    sizes = [
        0,
        1,
        HEADER.size,
        HEADER.size + TAG,
        HEADER.size + chunk,
        HEADER.size + 2 * chunk,
        len(content) - 1,
    ]
    for left in [*sizes, len(content) + 1, len(content) + TAG]:
        framed.write_bytes((content + bytes(100))[:left])
        plant(folder, row._replace(size=row.size - len(content) + left))
        assert get(disk, "f") is None, left
        framed.write_bytes(content)
    plant(folder, row)
    assert get(disk, "f") is not None


def test_chunks_that_changed_places_are_a_miss(framed, folder, disk):
    """Two chunks of one file cannot stand in each other's place."""
    content, chunk = framed.read_bytes(), CHUNK + TAG
    head, one, two, rest = (
        content[: HEADER.size],
        content[HEADER.size :][:chunk],
        content[HEADER.size + chunk :][:chunk],
        content[HEADER.size + 2 * chunk :],
    )
    framed.write_bytes(head + two + one + rest)
    assert get(disk, "f") is None


def test_files_that_were_exchanged_are_misses(folder, disk):
    """A frame cannot stand beside the JSON of another entry, whether files or the rows' paths were exchanged."""
    for key in "abcd":
        put(disk, key, {"frame": bars(), "key": key})
    rows = {row.key: row for row in rows_of(folder)}
    a, b = (folder / rows[key].path for key in "ab")
    contents = a.read_bytes(), b.read_bytes()
    a.write_bytes(contents[1])
    b.write_bytes(contents[0])
    plant(folder, rows["c"]._replace(path=rows["d"].path))
    plant(folder, rows["d"]._replace(path=rows["c"].path))
    assert run(disk.get_many(list("abcd"), collection=WHERE)) == [None] * 4


def test_an_older_frame_cannot_come_back_beside_newer_json(folder, disk):
    """The frame that an entry had before is refused beside what it has now: the two are bound together."""
    put(disk, "k", {"frame": bars(), "version": 1})
    old = folder / row_of(folder, "k").path
    content = old.read_bytes()
    put(disk, "k", {"frame": bars(seed=1), "version": 2})
    (folder / row_of(folder, "k").path).write_bytes(content)
    assert get(disk) is None


def test_json_without_its_frame_is_a_miss(folder, disk):
    """A row whose frame was taken away, or to which one was given, is a miss."""
    put(disk, "with", {"frame": bars()})
    put(disk, "without", {"n": 1})
    with_one, without = row_of(folder, "with"), row_of(folder, "without")
    plant(folder, with_one._replace(path=None, payload=None))
    plant(folder, without._replace(path=with_one.path, payload=with_one.payload, size=with_one.size))
    assert run(disk.get_many(["with", "without"], collection=WHERE)) == [None, None]


def test_a_planted_plain_file_is_refused(folder, disk):
    """A frame in a file that is not encrypted is a miss, whatever its name and whatever its row says."""
    put(disk, "k", {"frame": bars()})
    row = row_of(folder, "k")
    planted = Payloads(folder).write(Owner(WHERE, "k", row.value), bars())
    plant(
        folder, row._replace(path=planted.path, payload=planted.checksum, size=len(row.value) + planted.size)
    )
    assert get(disk) is None
    put(disk, "k", {"frame": bars()})
    path = folder / row_of(folder, "k").path
    with path.open("wb") as file:
        write_table(as_table(bars()), file, compression="none")
    assert get(disk) is None


def test_compressed_and_small_and_empty_frames(open_stack):
    """Frames of every size, compressed too, come back."""
    stack = open_stack(ONE, compression="zstd")
    for rows in (0, 1, 2, 30_000):
        put(stack.sealed, str(rows), {"frame": bars(rows)})
        assert_frame_equal(get(stack.sealed, str(rows))["frame"], bars(rows), check_freq=False)
    assert stack.durable.mapped_from is None


# housekeeping


def test_verify_finds_what_is_wrong_with_seals(make, folder):
    """`verify` lists altered values, exchanged values and altered files, and nothing else."""
    cache = make(ONE)
    one, two, _ = (cache.store_price(SYMBOL, price, 1) for price in (1, 2, 3))
    cache.store_bars(SYMBOL, market(100), interval="1m")
    assert cache.verify().empty
    plant(folder, row_of(folder, one)._replace(value=row_of(folder, two).value))
    (path,) = folder.rglob("*.sealed")
    path.write_bytes(flipped(path.read_bytes(), 2000))
    found = cache.verify()
    assert found["fault"].to_list() == [
        "it was altered, cut, or belongs to another entry",
        "it was sealed for another place",
    ]
    assert cache.verify().empty


def test_purge_and_eviction_know_sealed_files(make, folder, clock):
    """Files that nothing names are swept, and `disk_bytes` holds, with encrypted files as with plain ones."""
    cache = make(ONE, disk_bytes=60_000)
    for symbol in "ABCD":
        cache.store_bars(symbol, market(500), interval="1m")
        clock.now += pd.Timedelta("1s")
    assert len(list(folder.rglob("*.sealed"))) < 4
    orphan = folder / "orphan.0123456789abcdef.arrow.sealed"
    orphan.write_bytes(b"x")
    assert run_purge(cache, age=0)["orphan_files"] == 1
    assert not orphan.exists()


def run_purge(cache, *, age):
    return cache._run(cache.core.stack.durable.purge(orphan_age=age))


# keys


def snapshot(folder):
    return content_of(folder), rows_of(folder)


def test_a_wrong_key_is_one_clear_error(make, folder):
    """Who opens an encrypted folder with another key, or none, is told so, and nothing is changed or deleted."""
    cache = make(ONE)
    cache.store_price(SYMBOL, PRICE, 1)
    cache.store_bars(SYMBOL, market(100), interval="1m")
    cache.close()
    before = snapshot(folder)
    with pytest.raises(
        WrongKey, match=r"is encrypted under the key [0-9a-f]{16}, but encryption_key has"
    ) as wrong:
        make(TWO)
    assert str(folder) in str(wrong.value)
    assert "give the old key after the new one" in str(wrong.value)
    with pytest.raises(WrongKey, match="is encrypted: set encryption_key"):
        make()
    assert snapshot(folder) == before
    assert not (folder / "quarantine").exists()
    assert make(ONE).prices()["price"].to_list() == [PRICE]


def test_a_key_does_not_fit_a_plain_folder(make, folder):
    """A folder with plain entries is not opened with a key: the error says what encrypts it."""
    cache = make()
    cache.store_price(SYMBOL, PRICE, 1)
    cache.close()
    before = snapshot(folder)
    with pytest.raises(
        WrongKey, match="holds entries that are not encrypted: `tradecache rekey` encrypts it"
    ):
        make(ONE)
    assert snapshot(folder) == before
    assert len(make().prices()) == 1


def test_several_keys(make, folder):
    """The first key encrypts, and the others open what was written before; all have to be given."""
    make(ONE).store_price(SYMBOL, 1, 1)
    both = make(TWO, ONE)
    both.store_price(SYMBOL, 2, 1)
    assert both.prices()["price"].to_list() == [1, 2]
    ids = [key.id for key in Keyring(chosen(folder, ONE, TWO).encryption_key).keys]
    assert sorted(json.loads((folder / "encryption.json").read_text())["keys"]) == sorted(ids)
    for keys in ([ONE], [TWO]):
        with pytest.raises(WrongKey):
            make(*keys)
    assert len(make(ONE, TWO).prices()) == 2
    assert len(make(OTHER, TWO, ONE).prices()) == 2


def test_the_card_is_private_and_holds_no_key(make, folder):
    """`encryption.json` is for its owner only; neither it nor any other file has a key in it."""
    make(ONE, hashed=True).store_price(SYMBOL, 1, 1)
    assert (folder / "encryption.json").stat().st_mode & 0o777 == 0o600
    assert holders(folder, ONE.encode(), base64.urlsafe_b64decode(ONE)) == []


def test_a_damaged_card_is_a_clear_error(make, folder):
    """With a damaged `encryption.json` nothing is opened, and the error says what makes it anew."""
    cache = make(ONE, hashed=True)
    cache.store_price(SYMBOL, 1, 1)
    cache.close()
    card = folder / "encryption.json"
    for damaged in ("", "{}", "[]", '{"version": 9}', card.read_text().replace('"check"', '"chalk"')):
        card.write_text(damaged)
        with pytest.raises(WrongKey, match="delete that file and run `tradecache rekey`"):
            make(ONE, hashed=True)
    card.unlink()
    with pytest.raises(WrongKey, match=r"has lost its encryption\.json"):
        make(ONE, hashed=True)
    assert rekey(chosen(folder, ONE, hashed=True))["put_aside"] == 0
    assert make(ONE, hashed=True).prices()["price"].to_list() == [1]


def test_a_lost_card_is_made_anew(make, folder):
    """Where names are plain and the entries are under the keys given, a lost `encryption.json` is made anew."""
    cache = make(ONE)
    cache.store_price(SYMBOL, 1, 1)
    cache.close()
    (folder / "encryption.json").unlink()
    with pytest.raises(WrongKey, match="holds entries under the key"):
        make(TWO)
    assert make(TWO, ONE).prices()["price"].to_list() == [1]


def test_names_that_are_hidden_or_not_are_no_surprise(make, folder):
    """A folder is opened only with the `hashed_names` that it was made with."""
    make(ONE, hashed=True).close()
    with pytest.raises(WrongKey, match="has hashed names: `tradecache rekey`"):
        make(ONE)


def test_nothing_tells_a_key(make, folder, caplog):
    """No repr, log, error or traceback with its locals' reprs has a key in it."""
    with caplog.at_level(logging.DEBUG, logger="tradecache"):
        cache = make(ONE, TWO)
        cache.store_price(SYMBOL, PRICE, 1)
    ring = Keyring(cache.settings.encryption_key)
    with pytest.raises(WrongKey) as wrong:
        make(THREE)
    seal = cache.core.stack.sealed
    told = [repr(each) for each in (cache, cache.settings, ring, ring.first, seal, Names(b"secret"))]
    told += [caplog.text, str(wrong.value), repr(wrong.value), cache.settings._repr_html_()]
    assert all(key not in text for text in told for key in KEYS)
    assert all("secret" not in text for text in told[:6])


def test_crypto_is_loaded_only_with_a_key(tmp_path):
    """Without a key, neither `cryptography` nor the rooms that need it are loaded."""
    code = """
        import json, sys
        from tradecache import TradeCache
        with TradeCache(sys.argv[1]) as cache:
            cache.store_price("A", 1, 1)
            cache.prices()
        rooms = ("cryptography", "tradecache.sealing", "tradecache.stores.keyring", "tradecache.stores.cipher")
        print(json.dumps([name for name in rooms if name in sys.modules]))
    """
    assert answer(code, tmp_path / "c") == []


def test_without_cryptography(tmp_path):
    """Who sets a key and has no `cryptography` is told what installs it."""
    code = """
        import sys
        from tradecache import MissingDependency, Settings, TradeCache
        try:
            TradeCache(settings=Settings(cache_dir=sys.argv[1], encryption_key=sys.argv[2]))
        except MissingDependency as error:
            print(error)
    """
    (tmp_path / "packages").mkdir()
    done = run_script(code, tmp_path / "c", ONE, **without_package("cryptography", tmp_path / "packages"))
    assert (
        done.stdout.strip()
        == "this needs cryptography; install it with: pip install 'tradecache[encryption]'"
    )


# nothing in clear


def fill(cache, count=60):
    """Store points, bars and counts of requests; return the needles that must be found nowhere."""
    for number in range(count):
        cache.store_price(SYMBOL, PRICE + number, 7)
    frame = market(3000).assign(close=PRICE)
    cache.store_bars(SYMBOL, frame, interval="1m")
    return [
        str(PRICE).encode(), struct.pack("<d", PRICE), struct.pack(">d", PRICE), b"ARROW1", b'"price"',
        np.full(3, PRICE).tobytes(),
    ]  # fmt: skip


@pytest.mark.parametrize("hashed", [False, True])
def test_nothing_is_found_in_any_file(make, folder, hashed):
    """No price, as text or as number, is in any byte of any file; with hashed names no symbol either."""
    cache = make(ONE, hashed=hashed, keep_history=3600)
    needles = fill(cache)
    cache.bars(SYMBOL, interval="1m", source="local")
    assert holders(folder, *needles) == []
    cache.close()
    assert holders(folder, *needles) == []
    found = holders(folder, SYMBOL.encode())
    assert bool(found) is not hashed
    assert len(make(ONE, hashed=hashed, keep_history=3600).prices()) == 60


def test_nothing_is_found_after_a_plain_folder_was_encrypted(make, folder):
    """After `rekey`, nothing of what was plain is left in any file: not in free pages, logs, notes or quarantine."""
    cache = make()
    needles = fill(cache, count=400)
    cache.store_bars("GONE", market(2000).assign(close=PRICE), interval="1m")
    cache.invalidate("GONE", source="local")
    for data_id in cache.prices().index[:1]:
        assert data_id is not None
    payload = next(folder.rglob("*.arrow"))
    (folder / "quarantine").mkdir()
    shutil.copy(payload, folder / "quarantine" / "1-old.arrow")
    shutil.copy(payload, payload.with_name("orphan.0123456789abcdef.arrow"))
    shutil.copy(payload, payload.with_name(".half.0123456789abcdef.arrow.tmp"))
    (folder / "locks" / "0123.failed").write_text(SYMBOL)
    expected = cache.prices()
    cache.close()
    assert holders(folder, *needles) != []
    done = rekey(chosen(folder, ONE, hashed=True))
    assert (done["sealed_anew"], done["left"], done["put_aside"], done["quarantine_deleted"]) == (
        401,
        0,
        0,
        1,
    )
    assert holders(folder, SYMBOL.encode(), *needles) == []
    after = make(ONE, hashed=True)
    assert_frame_equal(after.prices(), expected)
    assert len(after.bars(SYMBOL, interval="1m", source="local")) == 3000


# hidden names


def test_hashed_names_change_no_answer(make, folder):
    """With hashed names everything is found as before: symbols, series, coverage, sizes by kind, history."""
    cache = make(ONE, hashed=True, keep_history=3600)
    fill(cache, count=3)
    cache.store_price("OTHER", 1, 1)
    cache.bars(SYMBOL, interval="1m", source="local")
    cache.close()
    cache = make(ONE, hashed=True, keep_history=3600)
    assert cache.latest().index.to_list() == ["OTHER", SYMBOL]
    assert cache.coverage()["symbol"].unique().tolist() == [SYMBOL]
    on_disk = cache.occupancy().query("tier == 'disk'")
    assert on_disk["dataset"].to_list() == ["bars", "history", "prices"]
    assert len(cache.history()) > 0
    assert cache.invalidate(SYMBOL, source="local")[SYMBOL] == 3000


def test_collections_are_learnt_from_what_is_right(folder, open_stack):
    """The clear name of a collection is that of an entry which belongs there; a bad one does not hide it."""
    disk = open_stack(ONE, hashed=True).sealed
    put(disk, "a", where="symbol:ONE")
    put(disk, "b", where="symbol:ONE")
    put(disk, "a", where="symbol:TWO")
    fresh = open_stack(ONE, hashed=True).sealed
    hidden = fresh.hidden("symbol:ONE")
    assert hidden.startswith("symbol:")
    assert "ONE" not in hidden
    bad = next(row for row in rows_of(folder) if (row.collection, row.key) == (hidden, "b"))
    plant(folder, bad._replace(value=flipped(bad.value, 150)))
    assert run(fresh.collections()) == ["symbol:ONE", "symbol:TWO"]
    assert run(fresh.keys("symbol:TWO")) == ["a"]


def test_names_cannot_be_guessed():
    """A name's hash depends on the secret; its kind stays, and a name that is only its kind stays as it is."""
    one, two = (Names(secret, kinds=("symbol:", "history")) for secret in (b"1" * 32, b"2" * 32))
    assert one.hidden("symbol:A") != two.hidden("symbol:A")
    assert one.hidden("symbol:A") == one.hidden("symbol:A") != one.hidden("symbol:B")
    assert one.hidden("history") == "history"
    assert len(one.hidden("other")) == 32


def test_notes_of_failures_are_sealed(folder, stack, open_stack):
    """The note of a failed request tells those who wait and nobody else, and no file is called by the series."""
    stack.durable.close()
    shutil.rmtree(folder)
    hidden = open_stack(ONE, hashed=True).sealed
    error = SourceUnavailable("no route", symbol=SYMBOL)
    one, two = (Flights(folder / "locks", sealed=hidden) for _ in range(2))

    async def fail_and_wait():
        async with one.alone(f"bars/local/{SYMBOL}/1d") as landing:
            landing.failed(error, [(0, 10)])
        async with two.alone(f"bars/local/{SYMBOL}/1d") as landing:
            landing._began = 0
            return landing.failure([(0, 10)])

    told = run(fail_and_wait())
    assert (type(told), told.symbol, told.reason) == (SourceUnavailable, SYMBOL, "no route")
    assert list((folder / "locks").glob("*.failed"))
    assert holders(folder, SYMBOL.encode(), b"no route") == []


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
    assert (done.returncode, done.stderr) == (0, "")
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
    assert (process.returncode, complaints) == (0, "")
    assert make(ONE).prices()["price"].to_list() == [PRICE]


# other stores, memory, and all else


@pytest.mark.parametrize("hashed", [False, True])
def test_any_store_can_be_sealed(clock, hashed):
    """Over a store of another kind the same holds, and nothing is deleted there: a bad entry stays, and is a miss."""
    below = MemoryStore()
    ring = Keyring(Settings(encryption_key=ONE).encryption_key)
    store = sealed(below, seal=Seal(ring, names_of(ring) if hashed else None), clock=Clock(clock))
    put(store, "a", where="symbol:ONE", ttl=100)
    put(store, "b", where="symbol:ONE")
    where = store.hidden("symbol:ONE")
    held = run(below.get("a", collection=where))
    assert SYMBOL not in str(held)
    assert run(store.ttl("b", collection="symbol:ONE")) == (VALUE, None)
    assert run(store.ttl("a", collection="symbol:ONE"))[1] == pytest.approx(100, abs=5)
    assert run(store.collections()) == ["symbol:ONE"]
    assert sorted(run(store.keys("symbol:ONE"))) == ["a", "b"]
    run(below.put("b", held, collection=where))
    run(below.put("c", {"plain": True}, collection=where))
    assert run(store.get_many(["a", "b", "c"], collection="symbol:ONE")) == [VALUE, None, None]
    assert run(below.get("c", collection=where)) == {"plain": True}
    with pytest.raises(NotStorable, match="MemoryStore does not encrypt frames"):
        put(store, "f", {"frame": bars()})
    other = Keyring(Settings(encryption_key=TWO).encryption_key)
    stranger = Sealed(below, seal=Seal(other, names_of(ring) if hashed else None), clock=Clock(clock))
    assert get(stranger, "a", where="symbol:ONE") is None
    assert get(store, "a", where="symbol:ONE") == VALUE
    clock.now += pd.Timedelta("100s")
    assert get(store, "a", where="symbol:ONE") is None
    assert run(store.delete("a", collection="symbol:ONE"))


def test_redis_holds_nothing_in_clear(redis_server, clock):
    """Over a Redis server the seal holds: no name and no value in clear, and what was moved there is a miss."""
    ring = Keyring(Settings(encryption_key=ONE).encryption_key)

    async def ask():
        below = RedisStore(url=redis_server.url)
        store = sealed(below, seal=Seal(ring, names_of(ring)), clock=Clock(clock))
        await store.put_many(["a", "b"], [VALUE, {"n": 2}], collection=f"symbol:{SYMBOL}", ttl=60)
        where = store.hidden(f"symbol:{SYMBOL}")
        before = await store.ttl_many(["a", "b", "c"], collection=f"symbol:{SYMBOL}")
        await below.put("a", await below.get("b", collection=where), collection=where, ttl=60)
        after = await store.get_many(["a", "b"], collection=f"symbol:{SYMBOL}")
        client = Redis.from_url(redis_server.url)
        held = [(key, await client.get(key)) for key in await client.keys()]
        await client.aclose()
        await below.close()
        return before, after, held

    before, after, held = run(ask())
    assert [value for value, _ in before] == [VALUE, {"n": 2}, None]
    assert after == [None, {"n": 2}]
    assert len(held) == 2
    assert not any(needle in part for each in held for part in each for needle in (SYMBOL.encode(), b"price"))


def test_a_store_that_was_passed_in_is_sealed(folder, clock):
    """A cache over another store encrypts what it stores there."""
    below = MemoryStore()
    with TradeCache(settings=chosen(folder, ONE, hashed=True), clock=clock, durable=below) as cache:
        data_id = cache.store_price(SYMBOL, PRICE, 1)
        assert cache.prices()["price"].to_list() == [PRICE]
    (where,) = run(below.collections())
    assert SYMBOL not in where
    assert "__encrypted_data__" in run(below.get(data_id, collection=where))


def test_memory_is_not_encrypted(make):
    """What is in memory is handed out without a key being used."""
    cache = make(ONE)
    data_id = cache.store_price(SYMBOL, PRICE, 1)
    cache.store_bars(SYMBOL, BIG, interval="1m")
    cache.bars(SYMBOL, interval="1m", source="local")
    before = cache.core.stack.disk_statistics.totals("ttl")
    for _ in range(3):
        assert cache.get_price(SYMBOL, data_id).price == PRICE
        assert len(cache.bars(SYMBOL, interval="1m", source="local")) == len(BIG)
    assert cache.core.stack.disk_statistics.totals("ttl") == before


def test_two_stores_on_one_new_folder(tmp_path, clock):
    """Processes that begin an encrypted folder at the same time agree on one secret of names."""
    code = """
        import sys
        from tradecache import Settings, TradeCache
        settings = Settings(cache_dir=sys.argv[1], encryption_key=sys.argv[2], hashed_names=True)
        with TradeCache(settings=settings) as cache:
            cache.store_price("A", 1, 1)
    """
    folder = tmp_path / "shared"
    started = [start_script(code, folder, ONE) for _ in range(4)]
    for process in started:
        _, complaints = process.communicate(timeout=60)
        assert (process.returncode, complaints) == (0, "")
    assert len({row.collection for row in rows_of(folder)}) == 1
    with TradeCache(settings=chosen(folder, ONE, hashed=True)) as cache:
        assert len(cache.prices()) == 4


def test_a_raw_store_takes_nothing_plain(folder, disk, stack):
    """Who goes past the seal is refused by the ledger itself."""
    assert isinstance(stack.durable, LocalStore)
    with pytest.raises(StoreError, match="only entries"):
        run(stack.durable.put("k", {"plain": True}))


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else"
)
def test_a_folder_that_can_only_be_read(tmp_path):
    """Who may only read an encrypted folder reads it with its key, also behind a new one, and changes nothing."""
    code = """
        import json, os, sys, tempfile
        from pathlib import Path
        from tradecache import Settings, StoreReadOnly, TradeCache, WrongKey
        place = Path(tempfile.mkdtemp())
        folder, one, two = place / "c", *sys.argv[1:]
        def opened(*keys):
            return TradeCache(settings=Settings(cache_dir=folder, encryption_key=keys, hashed_names=True))
        with opened(one) as cache:
            cache.store_price("A", 1, 1)
        place.chmod(0o755)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        os.setuid(65534)
        said = []
        for keys in ([one], [two, one]):
            with opened(*keys) as cache:
                said.append(len(cache.prices()))
                try:
                    cache.store_price("A", 2, 1)
                except StoreReadOnly:
                    said.append("read-only")
        try:
            opened(two)
        except WrongKey:
            said.append("wrong key")
        print(json.dumps(said))
    """
    assert answer(code, ONE, TWO, env={"TMPDIR": "/tmp"}) == [1, "read-only", 1, "read-only", "wrong key"]


class SealedLaw(PricesLaw):
    """Two caches on one encrypted folder, and the dict that they must equal."""

    def open(self, n):
        settings = Settings(
            cache_dir=self.folder, memory_bytes=self.sizes[n], encryption_key=ONE, hashed_names=True
        )
        return TradeCache(settings=settings, clock=self.wall)


@pytest.mark.timeout(400)  # a counter-example takes minutes to be made small
def test_a_sealed_cache_answers_as_a_plain_one():
    """Whatever happens in whatever order, an encrypted cache with hashed names answers as the model of a plain one."""
    run_state_machine_as_test(
        SealedLaw, settings=examples(max_examples=25, stateful_step_count=40, deadline=None)
    )
