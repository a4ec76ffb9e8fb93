import contextlib
import os
import random
import sqlite3
import time
from collections import Counter
from contextlib import closing

import pandas as pd
import pytest
from children import wait_until
from servants import BULK, frame_of, get_frame, put_frame

from tradecache import TradeCache

KILLS = 30


class Told:
    """What the killed writers said they had done."""

    def __init__(self):
        self.prices, self.bulks, self.frames = {}, set(), {}
        self.deleting, self.deleted = set(), set()

    def hear(self, kind, name, number):
        match kind:
            case "price":
                self.prices[name] = number
            case "bulk":
                self.bulks.add(number)
            case "frame":
                self.frames[name] = number
            case "deleting":
                self.deleting.add(name)
            case "deleted":
                self.deleted.add(name)


def killed_at_random(nursery, folder, life, told):
    """Let a writer live for a random number of writes and a random moment more; return how many it told."""
    rng = random.Random(life)
    child = nursery.start("servants:write_until_killed", str(folder), life)
    count = rng.choice([0, rng.randrange(1, 60)])
    for _ in range(count):
        told.hear(*child.hear())
    time.sleep(rng.uniform(0, 0.004 if count else 0.03))
    child.kill()
    for line in child.rest():
        told.hear(*line)
    child.end()


def assert_kept(cache, told):
    assert cache.verify().empty
    points = cache.prices()
    assert_prices_kept(cache, points, told)
    bulks = Counter(points.loc[points["symbol"] != "ONE", "volume"])
    assert set(bulks.values()) <= {BULK}
    assert told.bulks <= set(bulks)
    for key, number in told.frames.items():
        found = get_frame(cache, key)
        assert found["number"] >= number
        pd.testing.assert_frame_equal(found["frame"], frame_of(found["number"]))


def assert_prices_kept(cache, points, told):
    stored = set(points.loc[points["symbol"] == "ONE", "volume"])
    for data_id, number in told.prices.items():
        found = cache.get_price("ONE", data_id)
        if data_id in told.deleted:
            assert found is None
            assert number not in stored
        elif found is not None or data_id not in told.deleting:
            assert (found.price, found.volume) == (number + 1, number)
            assert number in stored


@pytest.mark.slow
@pytest.mark.parametrize("watched", [False, True], ids=["nobody else", "somebody else has it open"])
def test_acknowledged_writes_survive_kills(nursery, tmp_path, watched):
    """After each of many kills all that was acknowledged is there, bulks are whole, and nothing is damaged."""
    told = Told()
    with contextlib.ExitStack() as opened:
        witnesses = [opened.enter_context(TradeCache(tmp_path))] if watched else []
        for life in range(1, KILLS + 1):
            killed_at_random(nursery, tmp_path, life, told)
            with TradeCache(tmp_path) as heir:
                for cache in [heir, *witnesses]:
                    assert_kept(cache, told)
    assert len(told.prices) > KILLS
    assert told.bulks
    assert told.frames
    assert told.deleted
    assert not list(tmp_path.glob("quarantine/*"))


def left_over(folder):
    """Return the files of payloads, whether named or temporary."""
    return sorted(path.name for path in folder.glob("bars/**/*") if ".arrow" in path.name)


def grow_old(folder):
    """Let two hours pass for every file, as the file system tells it."""
    then = time.time() - 7200
    for path in folder.glob("bars/**/*.arrow*"):
        os.utime(path, (then, then))


def test_payload_of_a_killed_writer_is_swept_when_it_is_old(nursery, tmp_path):
    """A payload whose writer died before entering it is left alone by purge() for an hour, then deleted."""
    with TradeCache(tmp_path) as cache:
        put_frame(cache, "kept", 1)
        kept = left_over(tmp_path)
        with closing(sqlite3.connect(tmp_path / "ledger-1.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            child = nursery.start("servants:put_one_frame", str(tmp_path), "lost", 2, 50)
            wait_until(lambda: list(tmp_path.glob("bars/**/lost.*.arrow")))
            (orphan,) = set(left_over(tmp_path)) - set(kept)
            child.kill()
            child.end()
        assert cache.purge()["orphan_files"] == 0
        assert left_over(tmp_path) == sorted([*kept, orphan])
        grow_old(tmp_path)
        assert cache.purge()["orphan_files"] == 1
        assert left_over(tmp_path) == kept
        assert get_frame(cache, "lost") is None
        assert get_frame(cache, "kept")["number"] == 1


def test_half_written_payload_is_swept_when_it_is_old(nursery, tmp_path):
    """A process killed in the middle of writing a payload leaves a temporary file, which purge() sweeps later."""
    with TradeCache(tmp_path) as cache:
        put_frame(cache, "frame", 1)
        kept = left_over(tmp_path)
        child = nursery.start("servants:put_one_frame", str(tmp_path), "frame", 2, 100_000, 200_000)
        assert list(child.rest()) == ["open"]
        child.end()
        (half,) = set(left_over(tmp_path)) - set(kept)
        assert half.endswith(".arrow.tmp")
        assert cache.purge()["orphan_files"] == 0
        assert get_frame(cache, "frame")["number"] == 1
        grow_old(tmp_path)
        assert cache.purge()["orphan_files"] == 1
        assert left_over(tmp_path) == kept


def test_purge_leaves_a_file_that_is_about_to_be_entered(nursery, tmp_path):
    """purge() in one process never takes the payload that another one has written and not yet entered."""
    with TradeCache(tmp_path) as cache:
        put_frame(cache, "first", 1)
        with closing(sqlite3.connect(tmp_path / "ledger-1.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            child = nursery.start("servants:put_one_frame", str(tmp_path), "slow", 2, 50)
            wait_until(lambda: list(tmp_path.glob("bars/**/slow.*.arrow")))
            swept = cache.core.stack.durable._payloads.sweep(set(), older_than=3600)
        assert swept == []
        assert list(child.rest()) == ["open", "done"]
        child.end()
        assert get_frame(cache, "slow")["number"] == 2
