"""One provider, asked by many processes, some of whom die; it writes down when each request began."""

import asyncio
import contextlib
import logging
import random
import signal
import time
from functools import partial

import pytest
from children import wait_until
from loops import run
from provider import Reply, serving

from tradecache.sources.budgetfile import LOCK_WAIT, FileBudget

LATE = 0.1  # seconds between a place and the request that has it, on a machine with much to do
PROCESSES, DAYS = 4, 5
CROWD = 6


class Web:
    """A provider with a diary, and children who ask it."""

    def __init__(self, nursery, folder, ending):
        self._nursery, self._folder, self._ending = nursery, folder, ending
        self.refusals = []
        self.server = ending.enter_context(serving(self._answer))

    def _answer(self, request):
        return self.refusals.pop() if self.refusals else Reply("1.5")

    def start(self, name, *, limit, budgets="budgets", redis=None, source="web", patience=20.0):
        """Start a process with a cache folder of its own."""
        folders = str(self._folder / name), str(self._folder / budgets)
        given = redis, self.server.address, limit, source, patience
        child = self._nursery.start("budgeters:hammer", *folders, *given)
        self._ending.callback(child.end)
        assert child.hear() == "open"
        return child

    def begun(self, pids=None):
        """Return when requests began, in order, by the clock that all processes have in common."""
        requests = [each.query for each in self.server.requests]
        return sorted(float(each["at"]) for each in requests if pids is None or int(each["pid"]) in pids)

    def keeps(self, limit, pids=None):
        """Whether in no span more requests began than the limit allows."""
        requests, seconds = limit
        begun = self.begun(pids)
        return all(
            later - earlier >= seconds - LATE for earlier, later in zip(begun, begun[requests:], strict=False)
        )


@pytest.fixture
def web(nursery, tmp_path):
    with contextlib.ExitStack() as ending:
        yield Web(nursery, tmp_path, ending)


def finished(children):
    """Hear what came of all orders."""
    return [list(iter(child.hear, "done")) for child in children]


@pytest.mark.slow
def test_processes_of_a_machine_keep_to_one_limit(web):
    """Several processes with caches of their own begin no more requests than one may, and all are answered."""
    limit = (3, 0.6)
    children = [web.start(f"cache{n}", limit=limit) for n in range(PROCESSES)]
    began = time.monotonic()
    for child in children:
        child.tell([0, DAYS])
    assert finished(children) == [[1] * DAYS] * PROCESSES
    assert len(web.begun()) == PROCESSES * DAYS
    assert web.keeps(limit)
    spans = -(-PROCESSES * DAYS // limit[0]) - 1
    assert time.monotonic() - began < 2 * spans * limit[1] + 5  # and no places are lost


@pytest.mark.slow
def test_the_limit_is_kept_while_processes_die(web):
    """Those who are killed, wherever they are, neither hold up the others nor let them go too fast."""
    limit = (3, 0.4)
    children = [web.start(f"cache{n}", limit=limit) for n in range(PROCESSES)]
    for child in children:
        child.tell([0, 200 if child in children[:2] else DAYS])
    for victim in children[:2]:
        victim.hear()
        time.sleep(random.random() / 4)
        victim.kill()
    assert finished(children[2:]) == [[1] * DAYS] * 2
    assert web.keeps(limit)


@pytest.mark.slow
def test_a_crowd_is_no_outage(nursery, tmp_path):
    """However many have the lock one after the other all the time, one who wants it gets it, and is not passed over."""
    children = [nursery.start("budgeters:churn", str(tmp_path)) for _ in range(CROWD)]
    for child in children:
        assert child.hear() == "churning"
    budgets = [FileBudget(tmp_path, "churned", (1_000_000, 600.0)) for _ in range(CROWD)]

    async def takes(budget):
        return [(await budget.take()).wait for _ in range(40)]

    async def work():
        return await asyncio.gather(*(takes(budget) for budget in budgets))

    assert run(work()) == [[0] * 40] * CROWD
    for child in children:
        child.kill()
        child.end()


@pytest.mark.slow
def test_a_budget_survives_kills(nursery, tmp_path, caplog):
    """However often a process is killed that changes the file all the time, the next one finds it whole and free."""
    caplog.set_level(logging.WARNING, logger="tradecache")
    budget = FileBudget(tmp_path, "churned", (1_000_000, 600.0))
    for _ in range(25):
        child = nursery.start("budgeters:churn", str(tmp_path))
        assert child.hear() == "churning"
        time.sleep(random.random() / 50)
        child.kill()
        began = time.monotonic()
        assert run(budget.take()).wait == 0
        assert time.monotonic() - began < LOCK_WAIT
        child.end()
    assert caplog.records == []


@pytest.mark.slow
def test_machines_keep_to_one_limit_with_redis(web, redis_server):
    """Two machines, each with a folder of its own, begin no more requests than one may."""
    limit = (3, 0.6)
    children = [
        web.start(f"cache{n}", limit=limit, budgets=f"machine{n % 2}", redis=redis_server.url)
        for n in range(4)
    ]
    for child in children:
        child.tell([0, DAYS])
    assert finished(children) == [[1] * DAYS] * 4
    assert web.keeps(limit)


@pytest.mark.slow
def test_a_server_that_dies_freezes_and_comes_back(web, redis_server):
    """While Redis is killed, started again, empty, and frozen, each machine keeps to the limit, and nobody fails."""
    limit = (3, 0.6)
    children = [
        web.start(f"cache{n}", limit=limit, budgets=f"machine{n % 2}", redis=redis_server.url, patience=0.25)
        for n in range(4)
    ]
    for child in children:
        child.tell([0, 3 * DAYS])
    freeze, thaw = (partial(redis_server.send, number) for number in (signal.SIGSTOP, signal.SIGCONT))
    for seen, end, begin in ((10, redis_server.kill, redis_server.start), (30, freeze, thaw)):
        wait_until(lambda seen=seen: len(web.begun()) >= seen)
        end()
        wait_until(lambda seen=seen: len(web.begun()) >= seen + 8)
        begin()
    assert finished(children) == [[1] * 3 * DAYS] * 4
    for machine in (children[::2], children[1::2]):
        assert web.keeps(limit, {child.pid for child in machine})


@pytest.mark.parametrize("limit", [None, (50, 1.0)], ids=["no limit", "limit"])
@pytest.mark.parametrize("machines", [1, 2])
def test_what_a_provider_asks_of_one_holds_the_others(web, redis_server, limit, machines):
    """After a real 429 with `Retry-After: 2` no process asks before its end, and then they are answered."""
    redis = redis_server.url if machines == 2 else None
    one, other = (
        web.start(name, limit=limit, budgets=f"machine{number % machines}", redis=redis)
        for number, name in enumerate(["one", "other"])
    )
    web.refusals = [Reply("", 429, {"Retry-After": "2"})]
    one.tell([0, 1])
    wait_until(lambda: len(web.begun()) == 1)
    time.sleep(0.5)  # until it has heard
    other.tell([0, 1])
    assert finished([one, other]) == [[1], [1]]
    first, *later = web.begun()
    assert len(later) == 2
    assert min(later) - first >= 2 - LATE


@pytest.mark.parametrize("machines", [1, 2])
def test_nobody_waits_for_hours(web, redis_server, machines):
    """After `Retry-After: 3600` every process fails at once, with the time that is left, and does not ask."""
    redis = redis_server.url if machines == 2 else None
    children = [
        web.start(f"cache{number}", limit=(50, 1.0), budgets=f"machine{number % machines}", redis=redis)
        for number in range(3)
    ]
    web.refusals = [Reply("", 429, {"Retry-After": "3600"})]
    told = []
    for child in children:
        child.tell([0, 2])
        told += finished([child])[0]
    assert {kind for kind, _ in told} == {"RateLimited"}
    assert all(3500 < left <= 3600 for _, left in told)
    assert len(web.begun()) == 1
    assert web.start("elsewhere", limit=(50, 1.0), budgets="machine0", source="other").ask(0, 1) == 1


def test_a_fork_shares_and_does_not_tangle(nursery, tmp_path, redis_server):
    """A process that has counted with a server forks, and both go on counting, together."""
    child = nursery.start("budgeters:fork_between", str(tmp_path), redis_server.url)
    assert child.hear() == [2, 1, 1]
    child.end()


def test_a_frozen_holder_freezes_nobody(nursery, tmp_path):
    """Processes that stand still in the midst of anything keep the others waiting for some seconds at most."""
    budget = FileBudget(tmp_path, "churned", (1_000_000, 600.0))
    child = nursery.start("budgeters:churn", str(tmp_path))
    assert child.hear() == "churning"
    for _ in range(3):
        child.kill(signal.SIGSTOP)
        began = time.monotonic()
        with contextlib.suppress(TimeoutError):
            assert run(budget.take()).wait == 0
        assert time.monotonic() - began < LOCK_WAIT + 1
        child.kill(signal.SIGCONT)
        time.sleep(random.random() / 100)
    child.kill()
    assert run(budget.take()).wait == 0
    child.end()


def test_a_full_disk(disk, secluded, tmp_path):
    """On a full disk the process keeps to the limit by itself; with room again all count together again."""
    child = secluded.start("budgeters:take_on_a_disk", str(tmp_path / "disk"))
    child.tell("fill")
    assert child.hear() == "done"
    waits = []
    for order in ("take", "take", "take", "take"):
        child.tell(order)
        waits.append(child.hear())
    child.end()
    assert waits[:3] == [0, 0, 0]
    assert waits[3] > 500


def test_a_read_only_disk(disk, secluded, tmp_path):
    """Where the file can be read and not written, the process keeps to the limit by itself."""
    child = secluded.start("budgeters:take_on_a_disk", str(tmp_path / "disk"))
    waits = []
    for order in ("take", "file"):
        child.tell(order)
        waits.append(child.hear())
    disk.forbid_writing()
    for _ in range(3):
        child.tell("take")
        waits.append(child.hear())
    child.end()
    assert waits[:4] == [0, 0, 0, 0]
    assert waits[4] > 500
