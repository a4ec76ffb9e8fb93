"""Whoever sees the files learns neither values nor, where they are hidden, names."""

import shutil

import pytest
from loops import run
from pandas.testing import assert_frame_equal
from vaults import ONE, PRICE, SYMBOL, chosen, fill, flipped, holders, market, plant, put, rows_of

from tradecache import SourceUnavailable
from tradecache.flights import Flights
from tradecache.rekeying import rekey
from tradecache.stores.keyring import Names


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
