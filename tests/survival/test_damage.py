import contextlib
import logging
import random
import shutil
import sqlite3
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from loops import run
from servants import frame_of

from tradecache import StoreError, TradeCache
from tradecache.clock import Clock
from tradecache.stores.entries import row_of
from tradecache.stores.ledger import PAGE, PUT
from tradecache.stores.local import LocalStore
from tradecache.stores.payloads import Owner

COLLECTION = "bars/test"
START = datetime(2024, 6, 3, tzinfo=UTC)


def text_frame(rows=40):
    """Return a frame that takes the long way in and out of Arrow: text, gaps, a time zone of its own."""
    return pd.DataFrame(
        {
            "name": [f"row {n}" if n % 3 else None for n in range(rows)],
            "price": [n + 0.5 if n % 5 else np.nan for n in range(rows)],
            "when": pd.date_range("2024", periods=rows, freq="h", tz="Europe/Vienna"),
        }
    ).astype({"name": "str"})


def flip(path, position, bit=0):
    """Flip one bit of a file in place."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def payload_of(folder, key):
    (path,) = folder.glob(f"bars/test/{key}.*.arrow")
    return path


def quarantined(folder):
    return sorted(path.name.partition("-")[2] for path in folder.glob("quarantine/*"))


def ledgers_aside(folder):
    return [name for name in quarantined(folder) if name.endswith(".db")]


def warnings_of(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def store(tmp_path):
    store = LocalStore(tmp_path, clock=Clock())
    yield store
    store.close()


def put(store, key, frame):
    run(store.put(key, {"frame": frame}, collection=COLLECTION))


def got(store, key):
    found = run(store.get(key, collection=COLLECTION))
    return None if found is None else found["frame"]


DAMAGES = {
    "emptied": lambda content: b"",
    "cut by a byte": lambda content: content[:-1],
    "cut in half": lambda content: content[: len(content) // 2],
    "grown": lambda content: content + b"\0",
    "zeroed": lambda content: bytes(len(content)),
    "reversed": lambda content: content[::-1],
    "text": lambda content: b"hello",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_payload_is_a_logged_miss(store, tmp_path, caplog, damage):
    """A payload that is not what was written is a miss, a line in the log and a file in quarantine/."""
    put(store, "good", frame_of(1))
    put(store, "bad", frame_of(2))
    path = payload_of(tmp_path, "bad")
    path.write_bytes(damage(path.read_bytes()))
    assert got(store, "bad") is None
    assert quarantined(tmp_path) == [path.name]
    assert [record.levelname for record in warnings_of(caplog)] == ["WARNING"]
    assert "'bad' in 'bars/test' put aside" in caplog.text
    assert got(store, "bad") is None  # and no second line
    assert len(warnings_of(caplog)) == 1
    put(store, "bad", frame_of(3))
    pd.testing.assert_frame_equal(got(store, "bad"), frame_of(3))
    pd.testing.assert_frame_equal(got(store, "good"), frame_of(1))


def test_deleted_payload_is_a_logged_miss(store, tmp_path, caplog):
    """An entry whose payload somebody has deleted is a miss and a line in the log."""
    put(store, "bad", frame_of(1))
    payload_of(tmp_path, "bad").unlink()
    assert got(store, "bad") is None
    assert "put aside (no file): its file is missing" in caplog.text
    assert run(store.verify()) == []
    put(store, "bad", frame_of(2))
    pd.testing.assert_frame_equal(got(store, "bad"), frame_of(2))


def test_payload_of_another_entry_is_no_answer(store, tmp_path):
    """A payload that was swapped with an intact one of the same size is damaged too."""
    for number, key in enumerate(["one", "two"]):
        put(store, key, frame_of(number))
    one, two = payload_of(tmp_path, "one"), payload_of(tmp_path, "two")
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    assert [got(store, "one"), got(store, "two")] == [None, None]
    assert quarantined(tmp_path) == sorted([one.name, two.name])


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("frame", [frame_of(7), text_frame()], ids=["numbers", "text"])
def test_no_flipped_bit_of_a_payload_is_served(tmp_path, compression, frame):
    """Wherever in a payload one bit is flipped, from the magic to the footer, the entry is a miss."""
    with closing(LocalStore(tmp_path, clock=Clock(), compression=compression)) as store:
        put(store, "0", frame)
        size = payload_of(tmp_path, "0").stat().st_size
        places = sorted({0, 7, 8, size - 1, size - 7, *range(0, size, max(1, size // 50))})
        for place in places:
            put(store, f"{place}", frame)
            flip(payload_of(tmp_path, f"{place}"), place, place % 8)
        assert [key for key in map(str, places) if got(store, key) is not None] == []
        assert len(quarantined(tmp_path)) == len(places)


def test_verify_finds_damage_that_reads_have_not_met(store, tmp_path, caplog):
    """verify() names each damaged entry and what was wrong, puts it aside, and finds nothing the next time."""
    for number, key in enumerate(["cut", "flipped", "good", "gone"]):
        put(store, key, frame_of(number))
        assert got(store, key) is not None
    path = payload_of(tmp_path, "cut")
    path.write_bytes(path.read_bytes()[:-10])
    flip(payload_of(tmp_path, "flipped"), 700)
    payload_of(tmp_path, "gone").unlink()
    assert {key: fault.split(" ")[:2] for _, key, fault in run(store.verify())} == {
        "cut": ["it", "has"],
        "flipped": ["its", "checksum"],
        "gone": ["its", "file"],
    }
    assert len(quarantined(tmp_path)) == 2
    assert run(store.verify()) == []
    assert len(warnings_of(caplog)) == 3


def edit(folder, statement, *values):
    """Change the ledger behind its back, as a flipped bit would that SQLite does not notice."""
    with closing(sqlite3.connect(folder / "ledger-1.db", isolation_level=None)) as ledger:
        assert ledger.execute(statement, values).rowcount == 1


EDITS = {
    "value": "value = CAST(replace(CAST(value AS TEXT), '100.0', '900.0') AS BLOB)",
    "value that is no JSON": "value = x'7b2270'",
    "empty value": "value = x''",
    "value of another type": "value = 'text'",
    "created": "created = created + 1",
    "expires": "expires = created + 1000000000000",
    "checksum": "checksum = checksum + 1",
    "path": "path = 'bars/test/other.arrow', payload = 1",
}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS)
def test_damaged_row_is_a_logged_miss(tmp_path, caplog, change):
    """A row that is not what was written is a miss for every way to ask, and a line in the log."""
    with TradeCache(tmp_path) as cache:
        good = cache.store_price("AAPL", 99, 1, timestamp=START)
        bad = cache.store_price("AAPL", 100, 1, timestamp=START + timedelta(1))
    with TradeCache(tmp_path) as cache:
        edit(tmp_path, f"UPDATE entries SET {change} WHERE key = ?", bad)
        assert cache.get_latest_price("AAPL").price == 99
        assert cache.prices()["price"].tolist() == [99]
        assert cache.get_price("AAPL", bad) is None
        assert cache.get_price("AAPL", good).price == 99
        assert cache.verify().empty
    assert "put aside (no file): the checksum of its row differs" in caplog.text
    assert len(warnings_of(caplog)) == 1


RENAMES = {
    "another symbol": "collection = 'symbol:AAPM'",
    "no symbol": "collection = 'symbol: '",
    "no collection": "collection = ''",
    "a blob": "collection = x'41'",
    "no text": "collection = CAST(x'73796d626f6c3aff' AS TEXT)",
    "another id": "key = replace(key, '202', '302')",
    "an id that is a blob": "key = x'41'",
    "an id that is no text": "key = CAST(x'32ff' AS TEXT)",
}


@pytest.mark.parametrize("change", RENAMES.values(), ids=RENAMES)
def test_renamed_row_is_not_served_under_its_new_name(tmp_path, change):
    """A row that damage has given another symbol or id is served under neither, and disturbs no other."""
    with TradeCache(tmp_path) as cache:
        data_id = cache.store_price("AAPL", 100, 1)
        kept = cache.store_price("MSFT", 1, 1)
        edit(tmp_path, f"UPDATE entries SET {change} WHERE key = ?", data_id)
        assert cache.latest().index.tolist() == ["MSFT"]
        assert cache.prices()["symbol"].tolist() == ["MSFT"]
        for symbol in ("AAPL", "AAPM"):
            assert cache.get_price(symbol, data_id) is None
            assert cache.get_price(symbol, data_id.replace("202", "302", 1)) is None
            assert cache.get_latest_price(symbol) is None
        cache.verify()
        assert cache.verify().empty
        assert cache.get_price("MSFT", kept).price == 1


def filled(folder):
    """Fill a folder with points and frames, replace and delete some, close it; return what is true at the end."""
    points, frames = {}, {}
    with TradeCache(folder) as cache:
        for n in range(90):
            symbol, moment = f"S{n % 4}", START + timedelta(hours=n)
            points[symbol, cache.store_price(symbol, n + 1, n, timestamp=moment)] = n + 1.0
        for address in list(points)[::3]:
            assert cache.delete_price(*address)
            del points[address]
        for n in range(12):
            frames[f"frame {n % 6}"] = n
            put(cache.core.stack.durable, f"frame {n % 6}", frame_of(n))
    return points, frames


def prices_alone(points):
    return {1.0, *points.values()}


def true_or_missing(folder, points, frames):
    """Ask for everything in every way; return how many answers there were, and raise for one that is wrong."""
    with TradeCache(folder) as cache:
        by_id = {address: cache.get_price(*address) for address in points}
        assert {a: p.price for a, p in by_id.items() if p} == {a: points[a] for a, p in by_id.items() if p}
        found = cache.prices().query("symbol != 'NEW'")
        prices = set(zip(found["symbol"], found["price"], strict=True))
        assert prices <= {(symbol, price) for (symbol, _), price in points.items()}
        assert len(prices) == len(found)
        assert set(cache.latest()["price"]) <= prices_alone(points)
        values = run(cache.core.stack.durable.get_many(list(frames), collection=COLLECTION))
        by_key = {key: value["frame"] for key, value in zip(frames, values, strict=True) if value}
        for key, frame in by_key.items():
            pd.testing.assert_frame_equal(frame, frame_of(frames[key]))
        cache.verify()
        cache.purge()
        data_id = cache.store_price("NEW", 1, 1)
        assert cache.get_price("NEW", data_id).price == 1
    return sum(point is not None for point in by_id.values()) + len(by_key)


@pytest.mark.slow
def test_no_flipped_bit_of_the_ledger_makes_wrong_data(tmp_path):
    """Wherever bits of the ledger flip, each read gives the true value, a miss or a StoreError; nothing else."""
    points, frames = filled(tmp_path / "whole")
    rng = random.Random(1)
    answers = []
    for n in range(100):
        folder = shutil.copytree(tmp_path / "whole", tmp_path / "damaged")
        ledger = folder / "ledger-1.db"
        size = ledger.stat().st_size
        for _ in range(rng.choice([1, 1, 3, 30])):
            flip(ledger, rng.randrange(size) if n % 4 else rng.randrange(100), rng.randrange(8))
        with contextlib.suppress(StoreError):
            answers.append(true_or_missing(folder, points, frames))
        shutil.rmtree(folder)
    whole = len(points) + len(frames)
    assert max(answers) == whole
    assert min(answers) < whole
    assert sum(answers) > 0.5 * whole * len(answers)  # damage costs what it hits, and hardly more


def overwrite(path, position, content):
    with path.open("r+b") as file:
        file.seek(position)
        file.write(content)


def damage_in_use(path, damage):
    """Damage a file that SQLite has open in this process: to open and close it here would end SQLite's locks."""
    copy = path.with_suffix(".copy")
    subprocess.run(["cp", path, copy], check=True)
    damage(copy)
    subprocess.run(["cp", copy, path], check=True)
    copy.unlink()


def middle_of_noise(path):
    overwrite(path, 3 * PAGE, random.Random(3).randbytes(12 * PAGE))


LEDGER_DAMAGES = {
    "header overwritten": lambda path: overwrite(path, 0, b"\xff" * 100),
    "garbage": lambda path: path.write_bytes(random.Random(2).randbytes(50_000)),
    "text": lambda path: path.write_text("hello"),
    "emptied": lambda path: path.write_bytes(b""),
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "first page zeroed": lambda path: overwrite(path, 0, bytes(PAGE)),
    "root of the table zeroed": lambda path: overwrite(path, PAGE, bytes(PAGE)),
    "a page zeroed": lambda path: overwrite(path, 3 * PAGE, bytes(PAGE)),
    "a page of noise": lambda path: overwrite(path, 3 * PAGE, random.Random(3).randbytes(PAGE)),
    "last page of noise": lambda path: overwrite(
        path, path.stat().st_size - PAGE, random.Random(4).randbytes(PAGE)
    ),
}


@pytest.mark.parametrize("damage", LEDGER_DAMAGES.values(), ids=LEDGER_DAMAGES)
def test_damaged_ledger_is_put_aside_and_the_cache_goes_on(tmp_path, caplog, damage):
    """A damaged ledger goes to quarantine/ with a line in the log; what it still yields is kept, and is true."""
    points, frames = filled(tmp_path)
    damage(tmp_path / "ledger-1.db")
    answers = true_or_missing(tmp_path, points, frames)
    assert "ledger-1.db" in quarantined(tmp_path)
    assert "the ledger was damaged" in caplog.text
    caplog.clear()
    assert true_or_missing(tmp_path, points, frames) <= answers
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("length", [1, 100, PAGE, 2 * PAGE])
def test_ledger_with_its_end_cut_off(tmp_path, length):
    """A ledger that has lost its last bytes loses what was in them, and nothing else."""
    points, frames = filled(tmp_path)
    ledger = tmp_path / "ledger-1.db"
    ledger.write_bytes(ledger.read_bytes()[:-length])
    answers = true_or_missing(tmp_path, points, frames)
    assert answers > 0.5 * (len(points) + len(frames))
    assert true_or_missing(tmp_path, points, frames) == answers


@pytest.mark.parametrize("page", [3, 5, 8])
def test_entries_beside_a_damaged_page_are_kept(tmp_path, page):
    """A damaged page costs the entries that were on it, and few beside them."""
    points, frames = filled(tmp_path)
    overwrite(tmp_path / "ledger-1.db", page * PAGE, random.Random(page).randbytes(PAGE))
    assert true_or_missing(tmp_path, points, frames) > 0.7 * (len(points) + len(frames))


def test_two_stores_go_on_when_one_finds_damage(started, tmp_path):
    """When damage is found, every cache open on the folder, here and elsewhere, goes on with the same new ledger."""
    points, _ = filled(tmp_path)
    theirs = started()
    with TradeCache(tmp_path) as one, TradeCache(tmp_path) as two:
        damage_in_use(tmp_path / "ledger-1.db", middle_of_noise)
        assert len(one.prices()) < len(points)
        assert ledgers_aside(tmp_path) == ["ledger-1.db"]
        ids = [cache.store_price("AAPL", n + 1, n) for n, cache in enumerate([one, two])]
        ids.append(theirs.ask("store_price", "AAPL", 3.0))
        for cache in (one, two):
            assert [cache.get_price("AAPL", each).price for each in ids] == [1, 2, 3]
            assert cache.prices("AAPL")["price"].tolist() == [1, 2, 3]
        assert [theirs.ask("get_price", "AAPL", each) for each in ids] == [1, 2, 3]
        kept = one.prices()
        pd.testing.assert_frame_equal(two.prices(), kept)
    with TradeCache(tmp_path) as heir:
        pd.testing.assert_frame_equal(heir.prices(), kept)
    assert ledgers_aside(tmp_path) == ["ledger-1.db"]


def test_several_processes_find_damage_at_once(started, tmp_path):
    """When several processes meet the damage at the same time, one ledger is put aside, once."""
    points, frames = filled(tmp_path)
    children = [started() for _ in range(3)]
    middle_of_noise(tmp_path / "ledger-1.db")
    for child in children:
        child.tell(["prices", "S1"])
    answers = [child.hear() for child in children]
    assert answers == [answers[0]] * 3
    assert set(answers[0]) <= set(points.values())
    assert ledgers_aside(tmp_path) == ["ledger-1.db"]
    assert true_or_missing(tmp_path, points, frames) >= len(answers[0])


def leaf_of_noise(path, number):
    """Overwrite one leaf of the table: the root, on page 2, names the pages of its cells."""
    root = path.read_bytes()[PAGE : 2 * PAGE]
    cell = int.from_bytes(root[12 + 2 * number : 14 + 2 * number], "big")
    page = int.from_bytes(root[cell : cell + 4], "big")
    overwrite(path, (page - 1) * PAGE, random.Random(3).randbytes(PAGE))


@pytest.mark.parametrize("known", [True, False], ids=["by an open cache", "on opening"])
def test_write_under_way_while_damage_is_found_is_kept(tmp_path, known):
    """A transaction that is under way when another cache finds damage is waited for, and kept."""
    filled(tmp_path)
    written, go_on = threading.Event(), threading.Event()
    store = LocalStore(tmp_path, clock=Clock())
    other = LocalStore(tmp_path, clock=Clock()) if known else None
    owner = Owner("test", "slow", b'{"n":1}')

    def write_slowly(connection):
        connection.execute(PUT, row_of(owner, None, created=Clock().micros(), expires=None))
        written.set()
        assert go_on.wait(60)

    def find_damage():
        with closing(other or LocalStore(tmp_path, clock=Clock())) as finder:
            run(finder.verify())
            return run(finder.get("slow", collection="test"))

    with closing(store), ThreadPoolExecutor() as pool, contextlib.ExitStack() as ending:
        ending.callback(go_on.set)
        writing = pool.submit(store._access.ledger.write, write_slowly)
        assert written.wait(60)
        damage_in_use(tmp_path / "ledger-1.db", lambda path: leaf_of_noise(path, 2 if known else 0))
        finding = pool.submit(find_damage)
        while not (tmp_path / "rebuild.lock").exists():
            assert not finding.done()
        go_on.set()
        writing.result()
        assert finding.result() == {"n": 1}
        assert run(store.get("slow", collection="test")) == {"n": 1}
    assert ledgers_aside(tmp_path) == ["ledger-1.db"]


@pytest.fixture
def killed(nursery, tmp_path):
    """Return a folder whose only writer was killed, and the prices it had acknowledged, in order."""
    folder = tmp_path / "killed"
    child = nursery.start("servants:serve", str(folder))
    assert child.hear() == "open"
    for n in range(60):
        child.ask("store_price", f"S{n % 4}", n + 1.0)
    child.kill()
    child.end()
    assert (folder / "ledger-1.db-wal").stat().st_size
    return folder, [n + 1.0 for n in range(60)]


def prices_left(folder):
    """Return the prices of a folder, sorted, after using it as one does."""
    with TradeCache(folder) as cache:
        left = sorted(cache.prices()["price"])
        assert cache.verify().empty
        assert cache.get_price("NEW", cache.store_price("NEW", 1, 1)).price == 1
        cache.purge()
    return left


def test_damaged_log_costs_its_end_at_most(killed, tmp_path):
    """A flipped bit in the write-ahead log of a dead process loses what came after it, and makes nothing up."""
    folder, prices = killed
    rng = random.Random(5)
    losses = []
    for _ in range(40):
        copy = shutil.copytree(folder, tmp_path / "copy")
        log = copy / "ledger-1.db-wal"
        flip(log, rng.randrange(log.stat().st_size), rng.randrange(8))
        left = prices_left(copy)
        assert left == prices[: len(left)]
        losses.append(len(prices) - len(left))
        shutil.rmtree(copy)
    assert min(losses) < 20 < max(losses)


COMPANIONS = {
    "log emptied": ("ledger-1.db-wal", lambda path: path.write_bytes(b"")),
    "log deleted": ("ledger-1.db-wal", lambda path: path.unlink()),
    "log of noise": ("ledger-1.db-wal", lambda path: path.write_bytes(random.Random(6).randbytes(9000))),
    "log cut": ("ledger-1.db-wal", lambda path: path.write_bytes(path.read_bytes()[:20_000])),
    "index emptied": ("ledger-1.db-shm", lambda path: path.write_bytes(b"")),
    "index deleted": ("ledger-1.db-shm", lambda path: path.unlink()),
    "index of noise": ("ledger-1.db-shm", lambda path: path.write_bytes(random.Random(7).randbytes(32768))),
    "token emptied": ("changes", lambda path: path.write_bytes(b"")),
    "token deleted": ("changes", lambda path: path.unlink()),
    "token of ones": ("changes", lambda path: path.write_bytes(b"\xff" * 16)),
    "token of noise": ("changes", lambda path: path.write_bytes(random.Random(8).randbytes(40))),
}


@pytest.mark.parametrize(("name", "damage"), COMPANIONS.values(), ids=COMPANIONS)
def test_damage_beside_the_ledger(killed, name, damage):
    """Whatever happens to the files beside the ledger, the cache opens and serves what was written, or less."""
    folder, prices = killed
    damage(folder / name)
    left = prices_left(folder)
    assert left == prices[: len(left)]
    assert len(left) == len(prices) or name.endswith("-wal")


@pytest.mark.parametrize("token", [b"", b"\xff" * 16, bytes(16), b"\0\2" + bytes(14)])
def test_damaged_token_under_open_caches(started, tmp_path, token):
    """When the file that tells of changes is overwritten, writes go on and are seen by others as before."""
    ours, theirs = started(), started()
    for price in range(1, 6):
        (tmp_path / "changes").write_bytes(token)
        data_id = ours.ask("store_price", "AAPL", float(price))
        assert theirs.ask("get_price", "AAPL", data_id) == price
        (tmp_path / "changes").write_bytes(token)
        assert theirs.ask("delete_price", "AAPL", data_id) is True
        assert ours.ask("get_price", "AAPL", data_id) is None


def test_folder_deleted_under_an_open_cache(tmp_path):
    """When somebody deletes the whole folder, the open cache begins anew, and loses nothing stored after that."""
    folder = tmp_path / "cache"
    with TradeCache(folder) as cache:
        cache.store_price("AAPL", 1, 1)
        put(cache.core.stack.durable, "frame", frame_of(1))
        shutil.rmtree(folder)
        data_id = cache.store_price("AAPL", 2, 2)
        assert cache.get_price("AAPL", data_id).price == 2
        assert cache.prices()["price"].tolist() == [2]
        assert got(cache.core.stack.durable, "frame") is None
        shutil.rmtree(folder)
        put(cache.core.stack.durable, "frame", frame_of(2))
        data_id = cache.store_price("AAPL", 3, 3)
    with TradeCache(folder) as heir:
        assert heir.get_price("AAPL", data_id).price == 3
        assert heir.prices()["price"].tolist() == [3]
        pd.testing.assert_frame_equal(got(heir.core.stack.durable, "frame"), frame_of(2))


def test_reads_of_a_deleted_folder_are_misses(tmp_path):
    """Reads alone also notice that the folder is gone, and are no errors."""
    with TradeCache(tmp_path / "cache") as cache:
        data_id = cache.store_price("AAPL", 1, 1)
        put(cache.core.stack.durable, "frame", frame_of(1))
        shutil.rmtree(tmp_path / "cache")
        assert got(cache.core.stack.durable, "frame") is None
        deadline = time.monotonic() + 60
        while cache.get_price("AAPL", data_id) is not None:
            assert time.monotonic() < deadline
        assert cache.prices().empty
        assert cache.latest().empty


@pytest.mark.parametrize("damage", ["header overwritten", "garbage", "emptied", "cut in half"])
def test_ledger_damaged_under_open_caches(started, tmp_path, damage):
    """A ledger overwritten while caches have it open makes misses or a StoreError, and they go on."""
    points, frames = filled(tmp_path)
    theirs = started()
    with TradeCache(tmp_path) as cache:
        address = next(iter(points))
        assert cache.get_price(*address).price == points[address]
        damage_in_use(tmp_path / "ledger-1.db", LEDGER_DAMAGES[damage])
        for symbol, data_id in points:
            point = cache.get_price(symbol, data_id)
            assert point is None or point.price == points[symbol, data_id]
            assert theirs.ask("get_price", symbol, data_id) in (None, points[symbol, data_id])
        for key, number in frames.items():
            frame = got(cache.core.stack.durable, key)
            assert frame is None or frame.equals(frame_of(number))
        cache.store_price("NEW", 1, 1)
        theirs.ask("latest")  # by now both have met the damage, and what it took with it is gone
        data_id = cache.store_price("NEW", 1, 1)
        assert theirs.ask("get_price", "NEW", data_id) == 1
        assert cache.get_price("NEW", data_id).price == 1
    assert true_or_missing(tmp_path, points, frames) <= len(points) + len(frames)
