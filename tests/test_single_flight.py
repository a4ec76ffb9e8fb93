"""One question to the source for those who ask at the same instant: tasks, threads, processes."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from barsources import TruthSource, bars_at
from children import wait_until
from loops import run
from pandas.testing import assert_frame_equal
from scripts import end_of, start_script

from tradecache import SourceUnavailable, TradeCache, TradingDataCache

pytestmark = pytest.mark.usefixtures("no_pauses")
TRUTH = bars_at(pd.bdate_range("2024-01-02", "2024-03-28"))
RANGE = ("2024-01-02", "2024-03-28")
MANY = 50
WORKER = """
import json, os, sys, time
from pathlib import Path
import pandas as pd
from barsources import bars_at
import tradecache as tc

folder, signs, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
truth = bars_at(pd.bdate_range("2024-01-02", "2024-03-28"))

def provider(symbol, start, end, interval):
    with (signs / "calls").open("a") as calls:
        calls.write(f"{name}\\n")
    while not (signs / "answer").exists():
        time.sleep(0.005)
    first, last = truth.index.searchsorted([start, end])
    return truth.iloc[first:last]

cache = tc.TradeCache(folder, source=provider)
(signs / f"ready {name}").touch()
while not (signs / "go").exists():
    time.sleep(0.001)
frame = cache.bars("AAPL", "2024-01-02", "2024-03-28")
print(json.dumps([frame.equals(truth), cache.explain()["tier"].tolist()]))
"""


class Gated(TruthSource):
    """Answers when it is let, also from another thread."""

    def __init__(self) -> None:
        super().__init__(TRUTH)
        self.gate = threading.Event()
        self.questions = 0

    async def fetch(self, *asked):
        self.questions += 1
        while not self.gate.is_set():  # noqa: ASYNC110 - an asyncio.Event is of one loop, and there are several
            await asyncio.sleep(0.001)
        return await super().fetch(*asked)


@pytest.fixture
def source():
    return Gated()


@pytest.fixture
def signs(tmp_path):
    folder = tmp_path / "signs"
    folder.mkdir()
    return folder


def lines(path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def fail_once(source: TruthSource, error: Exception) -> None:
    """Have the first question fail, and those after it not."""
    usual = source.spoil

    def spoil(*_):
        source.spoil = usual
        raise error

    source.spoil = spoil


async def ask_often(cache, source, times: int) -> list:
    asking = [asyncio.create_task(cache.bars("AAPL", *RANGE)) for _ in range(times)]
    for _ in range(20):
        await asyncio.sleep(0.001)
    source.gate.set()
    return await asyncio.gather(*asking, return_exceptions=True)


def test_tasks(tmp_path, source):
    """50 tasks that ask for one cold range make one question, and all get the data."""

    async def work():
        async with TradingDataCache(tmp_path, source=source) as cache:
            return await ask_often(cache, source, MANY)

    answers = run(work())
    assert source.questions == 1
    for answer in answers:
        assert_frame_equal(answer, TRUTH, check_freq=False)


@pytest.mark.parametrize("error", [SourceUnavailable("down"), TypeError("'NoneType' is not subscriptable")])
def test_tasks_when_the_source_fails(tmp_path, source, error):
    """If the source raises, every waiter gets that error, and the next request asks again."""
    fail_once(source, error)

    async def work():
        async with TradingDataCache(tmp_path, source=source) as cache:
            return await ask_often(cache, source, MANY), await cache.bars("AAPL", *RANGE)

    answers, afterwards = run(work())
    assert source.questions == 2
    assert [str(answer) for answer in answers] == [str(error)] * MANY or all(
        isinstance(answer, SourceUnavailable) for answer in answers
    )
    assert_frame_equal(afterwards, TRUTH, check_freq=False)


@pytest.mark.parametrize("caches", [1, 2])
def test_threads(tmp_path, source, caches):
    """50 threads make one question, whether they share a cache object or only its folder."""
    objects = [TradeCache(tmp_path, source=source) for _ in range(caches)]
    start = threading.Barrier(MANY + 1)

    def ask(number):
        start.wait()
        return objects[number % caches].bars("AAPL", *RANGE)

    with ThreadPoolExecutor(MANY) as pool:
        asking = [pool.submit(ask, number) for number in range(MANY)]
        start.wait()
        wait_until(lambda: source.questions > 0)
        time.sleep(0.2)  # those that are to wait should have come by now; if not, the test is only easier
        source.gate.set()
        answers = [each.result() for each in asking]
    assert source.questions == 1
    for answer in answers:
        assert_frame_equal(answer, TRUTH, check_freq=False)
    for cache in objects:
        cache.close()


def test_processes(tmp_path, signs):
    """4 processes that ask at the same instant make one question, and all get the data."""
    children = [start_script(WORKER, tmp_path / "cache", signs, str(number)) for number in range(4)]
    wait_until(lambda: len(list(signs.glob("ready *"))) == 4)
    (signs / "go").touch()
    wait_until(lambda: lines(signs / "calls"))
    time.sleep(0.3)  # the others come to the lock meanwhile
    (signs / "answer").touch()
    answers = []
    for child in children:
        code, said, complaints = end_of(child)
        assert (code, complaints) == (0, "")
        answers.append(json.loads(said))
    assert [is_true for is_true, _ in answers] == [True] * 4
    assert len(lines(signs / "calls")) == 1
    assert sorted(tiers for _, tiers in answers)[:3] == [["disk"]] * 3


def test_the_fetching_process_is_killed(tmp_path, signs):
    """If the process that asks the source is killed, another takes over within a few seconds."""
    doomed = start_script(WORKER, tmp_path / "cache", signs, "doomed")
    (signs / "go").touch()
    wait_until(lambda: lines(signs / "calls"))
    heir = start_script(WORKER, tmp_path / "cache", signs, "heir")
    wait_until((signs / "ready heir").exists)
    time.sleep(0.2)  # the heir comes to the lock
    assert lines(signs / "calls") == ["doomed"]
    killed = time.monotonic()
    doomed.kill()
    doomed.communicate()
    wait_until(lambda: lines(signs / "calls") == ["doomed", "heir"])
    assert time.monotonic() - killed < 5
    (signs / "answer").touch()
    code, said, complaints = end_of(heir)
    assert (code, complaints, json.loads(said)) == (0, "", [True, ["source"]])
