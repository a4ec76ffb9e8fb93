import contextlib
import itertools
import os
import sqlite3
from contextlib import closing

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loops import run
from servants import frame_of

from tradecache import InvalidInput, InvalidSymbol, TradeCache
from tradecache.clock import Clock
from tradecache.stores.ledger import PUT, Row, row_checksum
from tradecache.stores.local import LocalStore

KEPT = [
    "../../etc/passwd",
    "..",
    ".",
    "/etc/passwd",
    "~/x",
    "a::b",
    "a",
    "b",
    "a:b",
    "symbol:a",
    "C:\\Windows",
    "\\\\host\\share",
    "CON",
    "con",
    "nul.txt",
    "COM1",
    "BRK.B",
    "brk.b",
    "Brk.B",
    "é",
    "e\u0301",
    "🚀",
    "👨\u200d👩\u200d👧",
    "מחיר",
    "股票",
    "\u202eLPAA",
    "*",
    "?",
    "[a-z]*",
    "%",
    "%2E%2E",
    "a%00b",
    "_",
    "' OR 1=1 --",
    '"; DROP TABLE entries; --',
    "$(touch x)",
    "{}",
    "%s%n",
    "None",
    "quarantine",
    "changes",
    "ledger-1.db",
    "x.arrow",
    "x" * 255,
    "x" * 254 + "y",
    "🚀" * 255,
]
REFUSED = {
    "NUL": "a\0b",
    "newline": "a\nb",
    "tab": "a\tb",
    "escape": "\x1b[31m",
    "10,000 characters": "x" * 10_000,
    "256 characters": "x" * 256,
    "empty": "",
    "blank": " ",
    "blank before": " AAPL",
    "blank behind": "AAPL ",
    "a line's end": "AAPL\r\n",
    "half a surrogate pair": "a\ud800",
    "the other half": "\udfff",
    "bytes": b"AAPL",
    "a number": 7,
    "nothing": None,
}


def outside(folder):
    """Return everything beside a folder, with what would show that it was touched."""
    return {
        path: (path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in folder.parent.glob("**/*")
        if path != folder and folder not in path.parents
    }


@pytest.fixture
def folder(tmp_path):
    """A folder among others; nothing beside it may change."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("root")
    (tmp_path / "passwd.arrow").write_text("kept")
    folder = tmp_path / "below" / "cache"
    folder.mkdir(parents=True)
    before = outside(folder)
    yield folder
    assert outside(folder) == before


def test_hostile_symbols_are_kept_apart_and_found_again(folder):
    """Each name that is accepted has its own points, here and in the next process, and no file elsewhere."""
    with TradeCache(folder) as cache:
        ids = {symbol: cache.store_price(symbol, n + 1, n) for n, symbol in enumerate(KEPT)}
    for _ in range(2):
        with TradeCache(folder) as cache:
            for n, symbol in enumerate(KEPT):
                assert cache.get_price(symbol, ids[symbol]).symbol == symbol
                assert cache.get_price(symbol, ids[symbol]).price == n + 1
                assert cache.get_latest_price(symbol).price == n + 1
                assert cache.prices(symbol)["price"].tolist() == [n + 1]
            assert cache.latest().index.tolist() == sorted(KEPT)
            assert cache.prices()["symbol"].tolist() == KEPT
            assert cache.verify().empty
            cache.purge()


def test_deleting_one_hostile_symbol_leaves_the_others(folder):
    """Deletions and invalidations of one name touch no other, whatever the names look like."""
    with TradeCache(folder) as cache:
        ids = {symbol: cache.store_price(symbol, n + 1, n) for n, symbol in enumerate(KEPT)}
        for symbol, other in itertools.pairwise(KEPT[:20]):
            assert cache.delete_price(symbol, ids[other]) is False
            assert cache.delete_price(symbol, ids[symbol]) is True
            assert cache.get_price(other, ids[other]) is not None
        for symbol in KEPT[20:]:
            assert cache.invalidate(symbol).tolist() == [1]
        assert cache.prices()["symbol"].tolist() == [KEPT[19]]


def test_hostile_symbols_in_a_bulk(folder):
    """store_prices takes the same names, and an error names the rows of those it refuses."""
    frame = pd.DataFrame({"symbol": KEPT, "price": range(1, len(KEPT) + 1), "volume": 0.0})
    frame.index = pd.date_range("2024-06-03", periods=len(KEPT), freq="min", tz="UTC", name="timestamp")
    with TradeCache(folder) as cache:
        cache.store_prices(frame)
        assert cache.prices()["symbol"].tolist() == KEPT
        frame["symbol"] = frame["symbol"].astype("object")
        frame.iloc[7, 0] = "a\0b"
        with pytest.raises(InvalidInput, match="nothing was stored: row 7: symbol is"):
            cache.store_prices(frame)
        assert len(cache.prices()) == len(KEPT)


@pytest.mark.parametrize("symbol", REFUSED.values(), ids=REFUSED)
def test_refused_symbols_are_refused_everywhere(folder, symbol):
    """A name that cannot be kept apart is an InvalidSymbol for every method that takes one, and leaves nothing."""
    with TradeCache(folder) as cache:
        cache.store_price("AAPL", 1, 1)
        for call in (
            lambda: cache.store_price(symbol, 1, 1),
            lambda: cache.get_price(symbol, "id"),
            lambda: cache.get_latest_price(symbol),
            lambda: cache.delete_price(symbol, "id"),
            lambda: cache.prices(["AAPL", symbol]),
            lambda: cache.latest(["AAPL", symbol]),
            lambda: cache.invalidate(["AAPL", symbol]),
            lambda: cache.warm(["AAPL", symbol]),
        ):
            with pytest.raises(InvalidSymbol, match="symbol is"):
                call()
        assert cache.latest().index.tolist() == ["AAPL"]


@pytest.mark.parametrize("data_id", ["", "../../x", "a\0b", "x" * 10_000, "🚀", "*", "'"])
def test_hostile_ids_are_not_found(folder, data_id):
    """An id that was never given is not found, whatever is in it."""
    with TradeCache(folder) as cache:
        cache.store_price("AAPL", 1, 1)
        for call in (cache.get_price, cache.delete_price):
            with contextlib.suppress(InvalidInput):
                assert not call("AAPL", data_id)
        assert len(cache.prices()) == 1


FRAME_NAMES = [*KEPT, "a\0b", "a\nb", "x" * 10_000, "", " ", "a/b/../../../c", "//", "a" * 100, "A" * 100]


def test_hostile_names_of_frames(folder):
    """Frames under any keys and collections are kept apart, found again, and lie inside the folder."""
    with TradeCache(folder) as cache:
        frames = cache.core.stack.frames
        for n, name in enumerate(FRAME_NAMES):
            run(frames.put(name, {"frame": frame_of(n, 3)}, collection="bars/keys"))
            run(frames.put("key", {"frame": frame_of(-n, 3)}, collection=f"bars/{name}"))
    with TradeCache(folder) as cache:
        frames = cache.core.stack.frames
        for n, name in enumerate(FRAME_NAMES):
            found = run(frames.get(name, collection="bars/keys"))["frame"]
            pd.testing.assert_frame_equal(found, frame_of(n, 3))
            found = run(frames.get("key", collection=f"bars/{name}"))["frame"]
            pd.testing.assert_frame_equal(found, frame_of(-n, 3))
        assert run(cache.core.stack.durable.keys("bars/keys")) == sorted(FRAME_NAMES)
        assert cache.verify().empty
        assert len(list(folder.glob("**/*.arrow"))) == 2 * len(FRAME_NAMES)
        assert cache.purge()["orphan_files"] == 0


COLLECTIONS = ["..", "/", "../..", "/etc", "quarantine", "changes", "CON/nul", "a/" * 50]


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_hostile_collections_of_frames(folder, collection):
    """A collection of any name has its files inside the folder, and those of ours stay what they are."""
    with TradeCache(folder) as cache:
        run(cache.core.stack.frames.put("key", {"frame": frame_of(1)}, collection=collection))
        data_id = cache.store_price("AAPL", 1, 1)
    with TradeCache(folder) as cache:
        found = run(cache.core.stack.frames.get("key", collection=collection))["frame"]
        pd.testing.assert_frame_equal(found, frame_of(1))
        assert cache.get_price("AAPL", data_id).price == 1
        assert cache.purge()["orphan_files"] == 0
        assert cache.verify().empty
        assert run(cache.core.stack.frames.delete("key", collection=collection)) is True
        assert not list(folder.glob("**/*.arrow"))


@pytest.mark.parametrize("name", ["a\ud800", "\udfff"])
def test_names_that_utf8_cannot_hold(folder, name):
    """Half a surrogate pair in a key or a collection is an InvalidInput, and leaves nothing behind."""
    with TradeCache(folder) as cache:
        frames = cache.core.stack.frames
        for key, collection in ((name, "bars/x"), ("key", f"bars/{name}")):
            for work in (
                lambda key=key, collection=collection: frames.put(
                    key, {"frame": frame_of(1)}, collection=collection
                ),
                lambda key=key, collection=collection: frames.get(key, collection=collection),
                lambda key=key, collection=collection: frames.delete(key, collection=collection),
            ):
                with pytest.raises(InvalidInput, match="text that UTF-8 can hold"):
                    run(work())
        assert not list(folder.glob("**/*.arrow*"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.text(st.characters(codec="utf-8"), max_size=300), unique=True, max_size=8))
def test_any_text_is_a_name(folder, names):
    """Any texts as keys of points and frames in one collection are as many entries, in the order of their code points."""
    with closing(LocalStore(folder, clock=Clock())) as store:
        for n, name in enumerate(names):
            value = {"n": n} if n % 2 else {"n": n, "frame": frame_of(n, 1)}
            run(store.put(name, value, collection="any"))
        assert run(store.keys("any")) == sorted(names)
        assert [run(store.get(name, collection="any"))["n"] for name in names] == list(range(len(names)))
        run(store.destroy())
        assert not list(folder.glob("**/*.arrow"))


LEADING_OUT = [
    "../../passwd.arrow",
    "bars/../../../passwd.arrow",
    "{parent}/passwd.arrow",
    "/etc/passwd",
    "link/passwd.arrow",
    "bars\\..\\..\\passwd.arrow",
    "",
    "a\0.arrow",
]


@pytest.mark.parametrize("path", LEADING_OUT)
def test_planted_path_leads_nowhere(folder, path):
    """A row that names a file outside the folder, however well it is made, reads, moves and deletes nothing there."""
    victim = folder.parent.parent / "passwd.arrow"
    with TradeCache(folder) as cache:
        (folder / "link").symlink_to(victim.parent)
        path = path.format(parent=victim.parent)
        for key in ("read", "delete", "replace", "verify", "expire"):
            plant(folder, key, path, expires=1 if key == "expire" else None)
        store = cache.core.stack.durable
        assert run(store.get("read", collection="bars")) is None
        run(store.delete("delete", collection="bars"))
        run(store.put("replace", {"n": 1}, collection="bars"))
        run(store.put("replace", {"frame": frame_of(1)}, collection="bars"))
        cache.verify()
        cache.purge()
        run(store.destroy())
        assert victim.read_text() == "kept"
        assert not list(folder.glob("quarantine/*"))


def plant(folder, key, path, *, expires):
    checksum = row_checksum("bars", key, 1, expires, b"{}", path, 7)
    row = Row("bars", key, 1, expires, 1, 2 + len("kept"), checksum, b"{}", path, 7)
    with closing(sqlite3.connect(folder / "ledger-1.db", isolation_level=None)) as ledger:
        ledger.execute(PUT, row)


def test_planted_links_are_not_followed(folder):
    """A payload that was replaced by a link to another file is a miss; purge() removes links, not what they name."""
    victim = folder.parent.parent / "passwd.arrow"
    with TradeCache(folder) as cache:
        run(cache.core.stack.durable.put("key", {"frame": frame_of(1)}, collection="bars/x"))
        (path,) = folder.glob("bars/x/*.arrow")
        victim_content = path.read_bytes()
        path.rename(folder / "elsewhere")
        path.symlink_to(folder / "elsewhere")
        assert run(cache.core.stack.durable.get("key", collection="bars/x")) is None
        (folder / "orphan.arrow").symlink_to(victim)
        (folder / "linked").symlink_to(victim.parent)
        run(cache.core.stack.durable.purge(orphan_age=-1e9))
        assert victim.read_text() == "kept"
        assert (folder / "elsewhere").read_bytes() == victim_content


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_planted_pipe_is_not_waited_for(folder):
    """A payload that was replaced by a pipe or a folder is a miss at once."""
    with TradeCache(folder) as cache:
        for key, make in (("pipe", os.mkfifo), ("folder", os.mkdir)):
            run(cache.core.stack.durable.put(key, {"frame": frame_of(1)}, collection="bars/x"))
            (path,) = folder.glob(f"bars/x/{key}.*.arrow")
            path.unlink()
            make(path)
            assert run(cache.core.stack.durable.get(key, collection="bars/x")) is None
