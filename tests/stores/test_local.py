import os
import signal
import sqlite3
import stat
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
from contract import StoreContract, as_stored
from framecases import WITHOUT_ARROW_TYPE, bars, daily
from loops import run
from pandas.testing import assert_frame_equal

from tradecache.bridge import finish
from tradecache.clock import Clock
from tradecache.errors import CacheClosed, EntryTooLarge, InvalidInput, NotStorable
from tradecache.stores.ledger import Row, row_checksum
from tradecache.stores.local import SWEEP_EVERY, LocalStore

SERIES = "bars/yfinance/BRK.B/1d"
YEAR = "2024-01-01_2025-01-01"


class TestLocalStoreContract(StoreContract):
    """The durable tier does what every store does."""

    @pytest.fixture
    def store(self, tmp_path, clock):
        store = LocalStore(tmp_path / "cache", clock=Clock(clock))
        yield store
        store.close()


@pytest.fixture
def open_store(tmp_path, clock):
    """Open stores on one folder, and close them at the end."""
    stores = []

    def opened(**options):
        stores.append(LocalStore(tmp_path / "cache", clock=Clock(clock), **options))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store):
    return open_store()


def payloads(store: LocalStore) -> list[Path]:
    """Return the payload files of a store, quarantine included."""
    return sorted(store.folder.rglob("*.arrow"))


def grow_old(path: Path, seconds: float) -> None:
    """Make a file look as if it was written so many seconds ago."""
    written = path.stat().st_mtime - seconds
    os.utime(path, (written, written))


def test_keys_are_in_order(store):
    """Keys and collections come in the order of their code points, cut to a limit from the front."""
    run(store.put_many(["b", "é", "a", "B", "10", "9"], [{}] * 6, collection="c"))
    run(store.put("k", {}, collection="a"))
    assert run(store.keys("c")) == ["10", "9", "B", "a", "b", "é"]
    assert run(store.keys("c", limit=2)) == ["10", "9"]
    assert run(store.collections()) == ["a", "c"]
    assert run(store.collections(limit=1)) == ["a"]


def test_scan_by_range(store):
    """A scan gives the live entries with start <= key < end in order, and knows no other collection."""
    run(store.put_many([f"2024-0{n}" for n in range(1, 7)], [{"n": n} for n in range(1, 7)], collection="c"))
    run(store.put("2024-03", {"n": 0}, collection="d"))

    def found(**options):
        return [entry.key[-1] for entry in run(store.scan("c", **options))]

    assert found() == ["1", "2", "3", "4", "5", "6"]
    assert found(start="2024-03") == ["3", "4", "5", "6"]
    assert found(end="2024-03") == ["1", "2"]
    assert found(start="2024-02", end="2024-05") == ["2", "3", "4"]
    assert found(start="2024-05", end="2024-02") == []
    assert found(start="2024-02", end="2024-05", last=2) == ["3", "4"]


def test_scan_the_last(store):
    """`last` gives so many entries from the end, still in order."""
    run(store.put_many(["a", "b", "c"], [{}] * 3, collection="c"))

    def last(count):
        return [entry.key for entry in run(store.scan("c", last=count))]

    assert [last(0), last(1), last(2), last(9), last(None)] == [
        [],
        ["c"],
        ["b", "c"],
        ["a", "b", "c"],
        ["a", "b", "c"],
    ]
    with pytest.raises(InvalidInput, match="limit is -1"):
        last(-1)


def test_scan_tells_value_and_times(store, clock):
    """An entry of a scan has its JSON, and when it was made and expires in microseconds since the epoch."""
    run(store.put("k", {"n": 1}, collection="c", ttl=0.5))
    now = round(clock.now.timestamp() * 1e6)
    assert run(store.scan("c")) == [("k", b'{"n":1}', now, now + 500_000)]


def test_scan_leaves_out_what_has_expired(store, clock):
    """The last live entry is found behind any number of expired ones."""
    run(store.put("a", {}, collection="c"))
    run(store.put_many([f"b{n}" for n in range(50)], [{}] * 50, collection="c", ttl=10))
    clock.advance(10)
    assert [entry.key for entry in run(store.scan("c", last=1))] == ["a"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_only_the_owner_may_look(store, open_store):
    """Every folder that the store makes has mode 0700, every file 0600, whatever the umask."""
    before = os.umask(0)
    try:
        other = open_store()
        run(other.put("k", {"frame": bars()}, collection=SERIES))
        run(store.put("k", {"n": 1}))
        damaged = payloads(store)[0]
        damaged.write_bytes(b"damaged")
        run(store.get("k", collection=SERIES))
    finally:
        os.umask(before)
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in [store.folder, *store.folder.rglob("*")]}
    assert found == {path: 0o700 if path.is_dir() else 0o600 for path in found}
    assert len(found) > 8


def test_a_payload_is_where_it_is_said_to_be(store):
    """A frame lies at <collection>/<key>.<id>.arrow, with names made safe, and plain pyarrow reads it."""
    run(store.put(YEAR, {"frame": daily(), "outcome": "bars"}, collection=SERIES))
    (path,) = payloads(store)
    folder, name = path.relative_to(store.folder).parent, path.name
    assert folder.as_posix() == "bars/yfinance/BRK%2EB/1d"
    assert (name[: len(YEAR) + 1], len(name)) == (f"{YEAR}.", len(YEAR) + 1 + 16 + len(".arrow"))
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    assert table.column_names == ["open", "high", "low", "close", "volume", "timestamp"]
    assert_frame_equal(table.to_pandas(), as_stored(daily()))


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_compression(open_store, compression):
    """Frames come back from any compression, another store reads them, and constant ones take less room."""
    store = open_store(compression=compression)
    frame = bars(10_000).assign(close=1.0, open=1.0)
    run(store.put("k", {"frame": frame}))
    assert_frame_equal(run(store.get("k"))["frame"], as_stored(frame))
    assert_frame_equal(run(open_store(compression="none").get("k"))["frame"], as_stored(frame))
    size = payloads(store)[0].stat().st_size
    plain = frame.memory_usage().sum()
    assert size > plain if compression == "none" else size < 0.9 * plain


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_what_was_read_may_be_written_to_and_the_file_stays(open_store, compression):
    """Writing to a frame in place, as its only holder, changes neither the file nor the next reader's frame."""
    store = open_store(compression=compression)
    run(store.put("k", {"frame": bars()}))
    content = payloads(store)[0].read_bytes()
    mine = run(store.get("k"))["frame"]
    mine.loc[:, "close"] = 0.0
    mine.iloc[2, :4] = -1.0
    assert mine["close"].tolist() == [0.0, 0.0, -1.0, 0.0, 0.0]
    assert payloads(store)[0].read_bytes() == content
    assert_frame_equal(run(store.get("k"))["frame"], as_stored(bars()))


@pytest.mark.parametrize("name", WITHOUT_ARROW_TYPE)
def test_a_frame_without_an_arrow_type_is_refused(store, name):
    """A column that Arrow has no type for is an error; the old value stays and no file is left."""
    run(store.put("k", {"n": 1}))
    with pytest.raises(NotStorable, match="Arrow cannot hold its frame"):
        run(store.put("k", {"frame": WITHOUT_ARROW_TYPE[name]}))
    assert run(store.get("k")) == {"n": 1}
    assert payloads(store) == []


def test_text_that_is_no_text_is_refused(store):
    """Half a surrogate pair in a value cannot be stored, and the old value stays."""
    run(store.put("k", {"n": 1}))
    for value in ({"a": "\ud800"}, {"a": [{"\ud800": 1}]}, {"frame": bars(), "note": "\ud800"}):
        with pytest.raises(NotStorable, match="UTF-8"):
            run(store.put("k", value))
    assert run(store.get("k")) == {"n": 1}
    assert payloads(store) == []


def test_what_replaces_a_payload_deletes_its_file(store):
    """Overwriting, deleting, destroying: a payload file goes with its entry."""
    goodbyes = [
        lambda: store.put("k", {"n": 1}, collection="c"),
        lambda: store.put_many(["j", "k"], [{"n": 1}, {"n": 2}], collection="c"),
        lambda: store.put_all([("c", "k", {"n": 1})], ttl=None),
        lambda: store.delete("k", collection="c"),
        lambda: store.delete_many(["k"], collection="c"),
        lambda: store.destroy_collection("c"),
        store.destroy,
    ]
    for goodbye in goodbyes:
        run(store.put("k", {"frame": bars()}, collection="c"))
        run(store.put("k", {"frame": bars()}, collection="c"))
        assert len(payloads(store)) == 1
        run(goodbye())
        assert payloads(store) == []


def test_a_put_of_many_keeps_payloads_beside_it(store):
    """Plain values put in one transaction leave the payloads of other keys alone."""
    run(store.put("frame", {"frame": bars()}))
    run(store.put_many(["a", "b"], [{"n": 1}, {"n": 2}]))
    run(store.put("c", {"n": 3}))
    assert len(run(store.get("frame"))["frame"]) == 5
    assert run(store.get_many(["a", "b", "c"])) == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_put_all_is_all_or_nothing(store):
    """One value of several collections that cannot be stored, and none is."""
    good, bad = ("a", "k", {"n": 1}), ("b", "k", {"n": object()})
    with pytest.raises(NotStorable):
        run(store.put_all([good, bad], ttl=None))
    assert run(store.collections()) == []
    run(store.put_all([good, ("b", "k", {"n": 2})], ttl=60))
    assert [run(store.ttl("k", collection=where)) for where in "ab"] == [({"n": 1}, 60.0), ({"n": 2}, 60.0)]


def test_the_largest_entry(open_store):
    """An entry over `max_entry_bytes` is an error that tells both sizes; the old value stays, no file is left."""
    store = open_store(max_entry_bytes=5000)
    run(store.put("k", {"frame": bars(5)}, collection="c"))
    too_large = [{"frame": bars(100)}, {"text": "x" * 5000}, {"frame": bars(5), "text": "x" * 3000}]
    for value in too_large:
        with pytest.raises(
            EntryTooLarge, match=r"'k' in 'c' takes [\d,]+ bytes, but max_entry_bytes allows 5,000"
        ):
            run(store.put("k", value, collection="c"))
    with pytest.raises(EntryTooLarge):
        run(store.put_many(["j", "k"], [{"n": 1}, {"text": "x" * 5000}], collection="c"))
    assert len(run(store.get("k", collection="c"))["frame"]) == 5
    assert run(store.keys("c")) == ["k"]
    assert len(payloads(store)) == 1


def test_it_is_bounded_on_disk(open_store, clock):
    """With `disk_bytes`, the payloads that were used least recently go first, and small values stay."""
    store = open_store(disk_bytes=100_000)
    run(store.put("point", {"n": 1}))
    for n in range(7):
        clock.advance(1)
        run(store.put(f"{n}", {"frame": bars(400, seed=n)}))  # 23 KB each
        run(store.get("0"))
    assert run(store.keys()) == ["0", "4", "5", "6", "point"]
    assert run(store.usage())["bytes"] <= 100_000
    assert len(payloads(store)) == 4


def test_a_smaller_bound_is_kept_after_a_restart(open_store, clock):
    """A folder that is larger than `disk_bytes` when it is opened is brought under it by the next write."""
    store = open_store()
    for n in range(6):
        run(store.put(f"{n}", {"frame": bars(400, seed=n)}))
        clock.advance(1)
    bounded = open_store(disk_bytes=50_000)
    run(bounded.put("point", {"n": 1}))
    assert run(bounded.keys()) == ["4", "5", "point"]
    assert len(payloads(store)) == 2


def test_purge_removes_what_has_expired(store, clock):
    """Purging deletes expired entries with their files, and says how many."""
    run(store.put("short", {"frame": bars()}, ttl=10))
    run(store.put("shorter", {"n": 1}, ttl=5))
    run(store.put("long", {"frame": bars()}))
    clock.advance(10)
    assert run(store.purge()) == {"expired_entries": 2, "orphan_files": 0, "orphan_bytes": 0}
    assert run(store.usage())["entries"] == 1
    assert len(payloads(store)) == 1
    assert run(store.purge())["expired_entries"] == 0


def test_purge_sweeps_orphans_that_are_old_enough(store):
    """A file without an entry goes when it is older than `orphan_age`: until then its writer may enter it."""
    run(store.put("k", {"frame": bars()}, collection=SERIES))
    (kept,) = payloads(store)
    orphans = [kept.with_name("2023.0123456789abcdef.arrow"), kept.with_name(".2023.0123.arrow.tmp")]
    fresh = kept.with_name("2022.0123456789abcdef.arrow")
    foreign = store.folder / "notes.txt"
    for path in (*orphans, fresh, foreign):
        path.write_bytes(b"x" * 100)
    for path in (kept, *orphans, foreign):
        grow_old(path, 3601)
    grow_old(fresh, 3500)
    assert run(store.purge()) == {"expired_entries": 0, "orphan_files": 2, "orphan_bytes": 200}
    assert [path.exists() for path in (kept, *orphans, fresh, foreign)] == [True, False, False, True, True]
    assert run(store.purge(orphan_age=0.0))["orphan_files"] == 1
    assert len(run(store.get("k", collection=SERIES))["frame"]) == 5


def test_purge_gives_pages_back(store):
    """After a purge the ledger's file is smaller than what it held."""
    run(store.put_many([f"{n}" for n in range(2000)], [{"text": "x" * 500}] * 2000, ttl=10))
    run(store.purge())
    before = run(store.usage())["ledger_bytes"]
    run(store.destroy())
    run(store.purge())
    assert run(store.usage())["ledger_bytes"] < 100_000 < before


def test_writes_sweep_what_has_expired(store, clock):
    """Writing removes expired entries in small steps, files included, without anybody purging."""
    run(store.put("frame", {"frame": bars()}, ttl=10))
    run(store.put_many([f"{n}" for n in range(600)], [{}] * 600, ttl=10))
    clock.advance(10)
    left = []
    for _ in range(3):
        for n in range(64):
            run(store.put(f"new-{n}", {}))
        left.append(run(store.usage())["entries"] - 64)
    assert left == [345, 89, 0]
    assert payloads(store) == []


def test_what_was_written_is_there_after_a_restart(open_store, clock):
    """A new store on the folder finds values, frames, and the time that is left."""
    store = open_store()
    run(store.put("k", {"frame": bars(), "n": 1}, collection=SERIES, ttl=100))
    run(store.put("é", {"n": 2}))
    store.close()
    clock.advance(40)
    again = open_store()
    value, left = run(again.ttl("k", collection=SERIES))
    assert (value["n"], left) == (1, 60.0)
    assert_frame_equal(value["frame"], as_stored(bars()))
    assert run(again.get("é")) == {"n": 2}


def test_two_stores_on_one_folder_see_each_other(open_store):
    """What one store puts and deletes the other finds put and deleted at once."""
    one, other = open_store(), open_store()
    run(one.put("k", {"n": 1}))
    assert run(other.get("k")) == {"n": 1}
    run(other.put("k", {"frame": bars()}))
    assert len(run(one.get("k"))["frame"]) == 5
    run(one.put("k", {"frame": bars(3)}))
    assert len(run(other.get("k"))["frame"]) == 3
    run(one.delete("k"))
    assert run(other.get("k")) is None


def test_foreign_commits(open_store, clock):
    """The number of foreign commits grows when another store has written, and not by the store's own writes."""
    one, other = open_store(), open_store()
    writes = [
        lambda store: store.put("k", {"n": 1}),
        lambda store: store.put("k", {"frame": bars()}),
        lambda store: store.put_many(["a", "b"], [{}, {}]),
        lambda store: store.delete("k"),
        lambda store: store.destroy(),
    ]
    for write in writes:
        before = one.foreign_commits()
        clock.advance(1)
        run(write(one))
        run(one.put("k", {"n": 2}))
        assert one.foreign_commits() == before
        clock.advance(1)
        run(write(other))
        assert one.foreign_commits() > before


def test_sizes(store):
    """`sizes` counts entries and bytes of each collection; together they are those of `usage`."""
    run(store.put("k", {"frame": bars()}, collection="a"))
    run(store.put("l", {"n": 1}, collection="b"))
    run(store.put("m", {"n": 1}, collection="b"))

    sizes, usage = run(store.sizes()), run(store.usage())

    assert sizes["b"] == (2, 2 * len('{"n":1}'))
    assert [sum(each) for each in zip(*sizes.values(), strict=True)] == [usage["entries"], usage["bytes"]]


def test_usage(store):
    """`usage` counts entries, payloads and their bytes, and says how large the ledger's file is."""
    run(store.put("k", {"frame": bars()}))
    run(store.put("l", {"n": 1}))
    found = run(store.usage())
    assert found.pop("ledger_bytes") > 0
    size = payloads(store)[0].stat().st_size
    assert found == {
        "entries": 2,
        "payloads": 1,
        "bytes": size + len("{}") + len('{"n":1}'),
        "quarantined": 0,
    }


def test_verify_finds_what_is_damaged(store):
    """`verify` reads everything, names each damaged entry, and puts it aside."""
    for key in ("flipped", "missing", "whole"):
        run(store.put(key, {"frame": bars()}, collection="c"))
    run(store.put("point", {"n": 1}))
    run(store.get("flipped", collection="c"))
    flipped, missing, _ = payloads(store)
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    missing.unlink()
    faults = run(store.verify())
    assert [(collection, key) for collection, key, _ in faults] == [("c", "flipped"), ("c", "missing")]
    assert "checksum" in faults[0][2]
    assert "missing" in faults[1][2]
    assert run(store.keys("c")) == ["whole"]
    assert run(store.get("point")) == {"n": 1}
    assert len(list((store.folder / "quarantine").iterdir())) == 1
    assert run(store.usage())["quarantined"] == 2
    assert run(store.verify()) == []


def test_a_path_out_of_the_folder_is_never_followed(store, tmp_path):
    """A ledger row that points elsewhere is a miss; what lies there is neither read nor deleted."""
    outside = tmp_path / "outside.arrow"
    run(store.put("k", {"frame": bars()}, collection="c"))
    payloads(store)[0].rename(outside)
    for path in (f"../{outside.name}", str(outside), "c/../../outside.arrow"):
        run(store.put("k", {"frame": bars()}, collection="c"))
        row = store._access.ledger.get("c", "k")._replace(path=path)
        store._access.ledger.write(
            lambda connection, row=row: connection.execute(
                "UPDATE entries SET path = ?, checksum = ? WHERE key = 'k'", (row.path, checksum_of(row))
            )
        )
        assert run(store.get("k", collection="c")) is None
    assert outside.exists()


def checksum_of(row: Row) -> int:
    return row_checksum(row.collection, row.key, row.created, row.expires, row.value, row.path, row.payload)


def test_a_closed_store_says_so(store):
    """After `close` every operation is one clear error, and closing again is none."""
    run(store.put("k", {"n": 1}))
    store.close()
    store.close()
    for operation in (store.get("k"), store.put("k", {}), store.keys(), store.purge(), store.usage()):
        with pytest.raises(CacheClosed):
            run(operation)


def test_repr(store):
    """The repr names the folder."""
    assert repr(store) == f"LocalStore({str(store.folder)!r})"


def test_a_bound_on_frames_lets_points_be(open_store):
    """With `disk_bytes`, values without a frame neither count nor go, however many there are."""
    store = open_store(disk_bytes=20_000)
    run(store.put("frame", {"frame": bars(20)}))
    run(store.put_many([f"{n}" for n in range(100)], [{"text": "x" * 1000}] * 100))
    for n in range(SWEEP_EVERY):
        run(store.put(f"more {n}", {"text": "x" * 1000}))
    assert run(store.get("frame")) is not None
    assert len(run(store.keys())) == 101 + SWEEP_EVERY


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells its open files there")
def test_small_frames_hold_no_files_open(open_store):
    """However many frames are held, those that are small cost no file descriptor."""
    store = open_store()
    for n in range(50):
        run(store.put(f"{n}", {"frame": bars(20, seed=n)}))
    before = len(list(Path("/proc/self/fd").iterdir()))
    held = [run(store.get(f"{n}"))["frame"] for n in range(50)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    held[0].iloc[0, 0] = -1.0
    assert run(store.get("0"))["frame"].equals(bars(20, seed=0))


def test_a_bound_holds_for_several_stores_on_one_folder(open_store):
    """With `disk_bytes`, what others have written counts, too."""
    stores = [open_store(disk_bytes=100_000) for _ in range(3)]
    for n in range(12):
        run(stores[n % 3].put(f"{n}", {"frame": bars(400, seed=n)}))  # 23 KB each
    assert run(stores[0].usage())["bytes"] <= 100_000


def test_keeping_house_fails_no_write(open_store, caplog):
    """A write after which house cannot be kept, because another process writes, is a write nevertheless."""
    store = open_store(lock_wait=0.1)
    with closing(sqlite3.connect(store.folder / "ledger-1.db", isolation_level=None)) as other:

        def take_the_lock(statement):
            if statement == "BEGIN IMMEDIATE" and not other.in_transaction:
                other.execute("BEGIN IMMEDIATE")

        store._access.ledger._connection.set_trace_callback(take_the_lock)
        for n in range(SWEEP_EVERY):
            run(store.put(f"{n}", {"n": n}))
        assert other.in_transaction
    assert "keeping house was put off" in caplog.text
    assert len(run(store.keys())) == SWEEP_EVERY


@pytest.fixture
def set_handler():
    """Set handlers of signals, and put the old ones back."""
    before = signal.getsignal(signal.SIGINT)
    yield signal.signal
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT"])
def test_ctrl_c_in_a_write_loses_nothing(open_store, statement, set_handler):
    """Ctrl-C while a frame is replaced leaves the old or the new one, and the next write works."""
    store = open_store()
    connection, under_way = store._access.ledger._connection, threading.Event()

    def press():
        under_way.wait()
        os.kill(os.getpid(), signal.SIGINT)

    def tell(found):
        if found == statement:
            under_way.set()

    def interrupted(_, frame):
        while frame is not None:
            if frame.f_code is tell.__code__:  # from where SQLite would let no exception through
                threading.Timer(0.001, press).start()
                return
            frame = frame.f_back
        raise KeyboardInterrupt

    def interrupted_put():
        finish(store.put("k", {"frame": bars(20, seed=2)}))
        time.sleep(10)  # it may arrive a little later

    set_handler(signal.SIGINT, interrupted)
    run(store.put("k", {"frame": bars(20, seed=1)}))
    connection.set_trace_callback(tell)
    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        interrupted_put()
    connection.set_trace_callback(None)
    kept = run(store.get("k"))["frame"]
    assert any(kept.equals(bars(20, seed=seed)) for seed in (1, 2))
    run(store.put("k", {"frame": bars(20, seed=3)}))
    assert run(store.get("k"))["frame"].equals(bars(20, seed=3))
