import pytest
from children import wait_until
from servants import BULK


def is_full(answer):
    return isinstance(answer, dict) and answer.get("error") == "StoreFull"


def store_until_full(child, *order):
    """Give an order with growing numbers until the disk is full; return the answers before that."""
    answers = []
    while True:
        answer = child.ask(*order, len(answers) + 1)
        if is_full(answer):
            assert "has no space left, so nothing was changed" in answer["text"]
            return answers
        assert not isinstance(answer, dict), answer
        answers.append(answer)


def test_points_on_a_full_disk(disk):
    """A full disk makes StoreFull; what was acknowledged stays readable, and room makes the cache work again."""
    child = disk.open()
    child.ask("fill_disk", 40_000)
    ids = store_until_full(child, "store_price", "AAPL")
    assert len(ids) > 3
    assert child.ask("prices", "AAPL") == [float(n + 1) for n in range(len(ids))]
    assert [child.ask("get_price", "AAPL", each) for each in ids] == [n + 1.0 for n in range(len(ids))]
    assert child.ask("latest") == {"AAPL": float(len(ids))}
    child.ask("make_room")
    ids.append(child.ask("store_price", "AAPL", 0.5))
    assert child.ask("get_price", "AAPL", ids[-1]) == 0.5
    assert child.ask("verify") == 0
    heir = disk.open()
    assert [heir.ask("get_price", "AAPL", each) for each in ids] == [*range(1, len(ids)), 0.5]


def test_bulk_on_a_full_disk_is_not_torn(disk):
    """A bulk that does not fit on the disk is not there at all."""
    child = disk.open()
    child.ask("fill_disk", 60_000)
    bulks = len(store_until_full(child, "store_prices"))
    heir = disk.open()
    for each in (child, heir):
        assert sum(len(each.ask("prices", f"BULK{n}")) for n in range(3)) == bulks * BULK
    child.ask("make_room")
    assert child.ask("store_prices", bulks + 1) is None


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_frames_on_a_full_disk(disk, compression):
    """A frame that does not fit leaves the old one in its place, and nothing of itself."""
    child = disk.open(compression=compression)
    child.ask("put_frame", "frame", 1, 1000)
    files = child.ask("files")
    child.ask("fill_disk", 4096)
    for rows in (500, 5_000, 50_000):
        assert is_full(child.ask("put_frame", "frame", 2, rows))
        assert is_full(child.ask("put_frame", "other", 2, rows))
    assert child.ask("get_frame", "frame") == 1
    assert child.ask("get_frame", "other") is None
    assert child.ask("files") == files
    heir = disk.open(compression=compression)
    assert heir.ask("get_frame", "frame") == 1
    child.ask("make_room")
    child.ask("put_frame", "frame", 3, 1000)
    assert heir.ask("get_frame", "frame") == 3
    assert child.ask("verify") == 0


def test_full_disk_without_a_byte_to_spare(disk):
    """On a disk without any room an open cache and a new one both read, and say StoreFull to a write."""
    child = disk.open()
    data_id = child.ask("store_price", "AAPL", 1.0)
    child.ask("put_frame", "frame", 1)
    child.ask("fill_disk")
    store_until_full(child, "store_price", "MSFT")
    for each in (child, disk.open()):
        assert each.ask("get_price", "AAPL", data_id) == 1
        assert each.ask("latest")["AAPL"] == 1
        assert each.ask("get_frame", "frame") == 1
        assert is_full(each.ask("put_frame", "frame", 2))
        assert each.ask("get_frame", "frame") == 1


def test_full_disk_when_nobody_has_the_cache_open(disk):
    """A cache that was closed can be opened and read on a full disk, and written to once there is room."""
    child = disk.open()
    data_id = child.ask("store_price", "AAPL", 1.0)
    child.ask("put_frame", "frame", 1)
    child.ask("close")
    child.ask("fill_disk")
    heir = disk.open()
    assert heir.ask("get_price", "AAPL", data_id) == 1
    assert heir.ask("get_frame", "frame") == 1
    assert heir.ask("prices", "AAPL") == [1]
    assert is_full(heir.ask("store_price", "AAPL", 2.0))
    assert is_full(heir.ask("delete_price", "AAPL", data_id))
    assert heir.ask("get_price", "AAPL", data_id) == 1
    child.ask("make_room")
    later = heir.ask("store_price", "AAPL", 2.0)
    assert heir.ask("get_price", "AAPL", later) == 2
    assert disk.open().ask("prices", "AAPL") == [1, 2]


def test_deleting_makes_room(disk):
    """When the cache itself has filled the disk, deleting a frame makes room for another."""
    child = disk.open()
    frames = 0
    while not is_full(child.ask("put_frame", f"frame {frames}", frames, 20_000)):
        frames += 1
    assert child.ask("delete_frame", "frame 0") is True
    assert child.ask("put_frame", "again", 7, 20_000) is None
    assert child.ask("get_frame", "again") == 7
    assert [child.ask("get_frame", f"frame {n}") for n in range(1, frames)] == list(range(1, frames))


def test_purge_on_a_full_disk(disk):
    """purge() does what it can on a full disk, where there is no room to rewrite the ledger."""
    child = disk.open()
    for price in range(1, 200):
        child.ask("store_price", "AAPL", float(price))
    child.ask("fill_disk")
    assert child.ask("purge") == {"expired_entries": 0, "orphan_files": 0, "orphan_bytes": 0}
    assert child.ask("prices", "AAPL") == [float(price) for price in range(1, 200)]
    child.ask("make_room")
    assert child.ask("verify") == 0


def test_cache_that_cannot_be_made_on_a_full_disk(disk):
    """Where there is no room for a new cache, that is StoreFull, and there is a cache once there is room."""
    child = disk.open()
    child.ask("fill_disk")
    assert is_full(child.ask("open_another"))
    child.ask("make_room")
    assert child.ask("open_another") is None


def test_damage_on_a_full_disk(disk):
    """A damaged ledger for whose successor there is no room is one clear error, and mended when there is room."""
    child = disk.open()
    for price in range(1, 200):
        child.ask("store_price", "AAPL", float(price))
    child.ask("close")
    child.ask("fill_disk")
    child.ask("damage")
    heir = disk.open()
    answer = heir.ask("prices", "AAPL")
    assert answer["error"] in {"StoreDamaged", "StoreFull"}
    assert heir.ask("prices", "AAPL")["error"] == answer["error"]
    heir.ask("make_room")
    wait_until(lambda: isinstance(heir.ask("prices", "AAPL"), list))
    prices = heir.ask("prices", "AAPL")
    assert 100 < len(prices) < 199
    assert set(prices) <= {float(price) for price in range(1, 200)}
