"""What is not as it was sealed is never served, whether it is a value or a frame."""

import json
import logging
import random

import pandas as pd
import pytest
from framecases import bars
from loops import run
from pandas.testing import assert_frame_equal
from vaults import BIG, ONE, SYMBOL, VALUE, WHERE, flipped, get, market, plant, put, row_of, rows_of

from tradecache.stores.arrow import as_table, write_table
from tradecache.stores.cipher import CHUNK, HEADER, TAG
from tradecache.stores.payloads import Owner, Payloads


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
