"""The budgets of a process, of a machine and of a team: one contract, and what each has of its own."""

import asyncio
import itertools
import logging
import signal
import struct
import time

import pytest
import xxhash
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loops import run
from servers import RedisServer

from tradecache import InvalidInput, RateLimited, Settings, TradeCache
from tradecache.credentials import SecretURL
from tradecache.outage import LONGEST_PAUSE
from tradecache.redisclient import redis_client
from tradecache.sources import (
    CCXT,
    Files,
    SampleData,
    Synthetic,
    YFinance,
    as_source,
    budgetfile,
    budgetredis,
)
from tradecache.sources.budget import Budgets, OwnBudget
from tradecache.sources.budgetfile import LEAST_LOOKS, LOCK_WAIT, MAGIC, FileBudget, Holder
from tradecache.sources.budgetredis import PATIENCE, RedisLink
from tradecache.sources.pace import LONGEST_HOLD, Turn


class Seconds:
    """A clock that counts seconds, and goes on when it is told to."""

    def __init__(self, now=1_700_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def server():
    with RedisServer() as server:
        yield server


@pytest.fixture
def patient(monkeypatch):
    """Have a server that is up never taken for one that is down, however much this machine has to do."""
    monkeypatch.setattr(budgetredis, "PATIENCE", 20.0)


class Asked:
    """What a budget is asked of a source."""

    def __init__(self, name="asked", **traits):
        self.name = name
        vars(self).update(traits)

    async def fetch(self, symbol, start, end, interval):
        raise AssertionError


class BudgetContract:
    """What every budget does; `make` makes one, and `later` has time go by."""

    SPAN = 10.0

    async def later(self, seconds):
        self.clock.now += seconds

    def test_so_many_begin_and_the_next_waits(self, make):
        """The limit's requests begin at once; the next is told when to come, and then begins."""

        async def work():
            budget = make((3, self.SPAN))
            turns = [await budget.take() for _ in range(4)]
            await self.later(turns[-1].wait)
            return turns, await budget.take()

        turns, then = run(work())
        assert [turn.wait for turn in turns[:3]] == [0, 0, 0]
        assert 0 < turns[3].wait <= self.SPAN
        assert (turns[3].is_hold, then.wait) == (False, 0)

    def test_places_come_free_one_by_one(self, make):
        """A place is free `seconds` after the request in it began, and not with all the others."""

        async def work():
            budget = make((2, self.SPAN))
            await budget.take()
            await self.later(self.SPAN / 2)
            await budget.take()
            await self.later((await budget.take()).wait)
            return await budget.take(), await budget.take()

        free, none = run(work())
        assert free.wait == 0
        assert 0 < none.wait < 0.9 * self.SPAN

    def test_who_is_told_to_wait_takes_nothing(self, make):
        """One who asks in vain, and gives up, is in nobody's way."""

        async def work():
            budget = make((2, self.SPAN))
            turns = [await budget.take() for _ in range(9)]
            await self.later(turns[-1].wait + self.SPAN / 10)
            return [(await budget.take()).wait for _ in range(2)]

        assert run(work()) == [0, 0]

    def test_a_place_given_back_is_free(self, make):
        """The place of a request that does not begin is another's; who took none gives none back."""

        async def work():
            budget = make((2, self.SPAN))
            await budget.take()
            turn = await budget.take()
            await budget.give_back(turn)
            await budget.give_back(Turn())
            return (await budget.take()).wait, (await budget.take()).wait

        again, beyond = run(work())
        assert again == 0
        assert beyond > 0

    @pytest.mark.parametrize("limit", [None, (5, 0.01)], ids=["no limit", "limit"])
    def test_a_hold_is_for_all(self, make, limit):
        """While a provider wants to be left alone nobody begins; a shorter hold does not shorten a longer one."""

        async def work():
            budget = make(limit)
            await budget.hold(self.SPAN)
            await budget.hold(self.SPAN / 4)
            held = await budget.take()
            await self.later(held.wait + 0.002)
            return held, await budget.take()

        held, then = run(work())
        assert held.is_hold
        assert self.SPAN / 2 < held.wait <= self.SPAN + 0.001
        assert (then.wait, then.is_hold) == (0, False)

    def test_without_a_limit_nobody_waits(self, make):
        """Where there is no limit every request begins."""

        async def work():
            budget = make(None)
            return {(await budget.take()).wait for _ in range(20)}

        assert run(work()) == {0}


class SharedContract(BudgetContract):
    """What a budget does that several count in; each call of `make` is another process."""

    def test_all_count_together(self, make):
        """What one begins is in the way of the others."""

        async def work():
            budgets = [make((4, self.SPAN)) for _ in range(3)]
            return [(await budget.take()).wait for budget in budgets * 2]

        waits = run(work())
        assert waits[:4] == [0, 0, 0, 0]
        assert min(waits[4:]) > 0

    def test_providers_do_not_know_of_each_other(self, make):
        """Another provider has another budget, whatever it is called."""

        async def work():
            names = ["provider", "other", "../provider", "pro/vider", "Pröv{}ider", "*", "x" * 300]
            budgets = [make((1, self.SPAN), name) for name in names]
            return {(await budget.take()).wait for budget in budgets}

        assert run(work()) == {0}

    def test_each_keeps_to_a_limit_of_its_own(self, make):
        """Of several limits for one provider each caller keeps to its own, counting everybody's requests."""

        async def work():
            strict, lax = make((1, self.SPAN)), make((4, self.SPAN))
            return [(await each.take()).wait for each in (lax, lax, strict, lax, lax, lax)]

        assert [bool(wait) for wait in run(work())] == [False, False, True, False, False, True]

    def test_a_strict_one_forgets_nothing_that_a_lax_one_looks_back_at(self, make):
        """Who looks back at few requests keeps as many in mind as the others need."""

        async def work():
            strict, lax = make((1, 0.001)), make((6, self.SPAN))
            waits = []
            for budget in [lax, strict] * 3:
                waits.append((await budget.take()).wait)
                await self.later(0.002)
            return waits, (await lax.take()).wait

        waits, then = run(work())
        assert waits == [0] * 6
        assert then > 0

    @pytest.mark.parametrize("limit", [None, (9, 0.01)], ids=["no limit", "limit"])
    def test_a_hold_is_seen_by_the_others(self, make, limit):
        """What a provider asked of one holds all of them, whether they have a limit or not."""

        async def work():
            await make((3, self.SPAN)).hold(self.SPAN)
            return await make(limit).take()

        turn = run(work())
        assert turn.is_hold
        assert self.SPAN / 2 < turn.wait <= self.SPAN + 0.001


def written(most, held, begun, *, tail=b""):
    """Return a budget's file with a right checksum, whatever its numbers are."""
    body = struct.pack(f"=Qdd{len(begun)}d", most, *held, *begun) + tail
    return MAGIC + xxhash.xxh3_64_digest(body) + body


class TestHolder:
    """Who has the lock."""

    def stands_still(self, marks, *, every=1.0):
        holder = Holder()
        return [
            holder.stands_still(mark, number * every, patience=LOCK_WAIT) for number, mark in enumerate(marks)
        ]

    def test_one_and_the_same(self):
        """One who is there at every look counts as frozen after many looks, and after some seconds."""
        looks = [1] * LEAST_LOOKS
        assert self.stands_still(looks) == [False] * (LEAST_LOOKS - 1) + [True]
        assert not any(self.stands_still(looks, every=0.9 * LOCK_WAIT / LEAST_LOOKS))

    def test_one_after_the_other(self):
        """However long the lock is never free, nobody counts as frozen while it goes from one to the other."""
        assert not any(self.stands_still(range(1000)))
        assert not any(self.stands_still(number // (LEAST_LOOKS - 1) for number in range(1000)))

    def test_who_is_slow_himself(self):
        """Who looks seldom has seen too little to say so."""
        assert not any(self.stands_still([1] * (LEAST_LOOKS - 1), every=3600.0))


class TestOwnBudget(BudgetContract):
    """What a process counts alone."""

    @pytest.fixture
    def make(self):
        self.clock = Seconds(0.0)
        return lambda limit, _="": OwnBudget(limit, monotonic=self.clock)


class TestFileBudget(SharedContract):
    """What all processes of a machine count."""

    numbers = itertools.count()

    @pytest.fixture
    def make(self, tmp_path):
        self.clock = Seconds()
        return lambda limit, name="provider": FileBudget(tmp_path / "new", name, limit, wall=self.clock)

    def test_files_are_private(self, make, tmp_path):
        """Folder and files are for their owner only."""
        run(make((1, 5.0)).take())
        paths = [tmp_path / "new", *(tmp_path / "new").iterdir()]
        assert {path.stat().st_mode & 0o077 for path in paths} == {0}

    def test_without_limit_and_hold_there_is_no_file(self, make, tmp_path):
        """A source without a limit leaves nothing in the folder, which is not even made."""
        run(make(None).take())
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize("limit", [None, (2, 5.0)], ids=["no limit", "limit"])
    @pytest.mark.parametrize(
        "damage",
        [lambda raw: b"", lambda raw: raw[:-3], lambda raw: raw[:12], lambda raw: raw + b"x",
         lambda raw: bytes(len(raw)), lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), lambda raw: b"junk" * 1000],
        ids=["empty", "cut", "head", "longer", "zeros", "a bit", "junk"],
    )  # fmt: skip
    def test_a_damaged_file_is_begun_anew(self, make, tmp_path, caplog, limit, damage):
        """Damage is a warning that names the file, once, and the budget begins anew."""
        caplog.set_level(logging.WARNING, logger="tradecache")
        run(make((2, 5.0)).hold(3600))
        path = tmp_path / "new" / "provider.budget"
        path.write_bytes(damage(path.read_bytes()))
        assert run(make(limit).take()).wait == 0
        assert run(make(limit).take()).wait == 0
        assert [record.args[0] for record in caplog.records] == [path]

    @pytest.mark.parametrize("limit", [None, (2, 5.0)], ids=["no limit", "limit"])
    @pytest.mark.parametrize(
        "content",
        [MAGIC + xxhash.xxh3_64_digest(b"ab") + b"ab", written(2, (0, 0), [1.0], tail=b"xyz"),
         written(2**63, (0, 0), [1.0]), written(2, (float("nan"),) * 2, []), written(2, (0, 0), [float("nan")] * 2),
         written(2, (0, 0), [float("inf")] * 2), written(2, (float("-inf"), float("inf")), [])],
        ids=["short", "tail", "many", "no hold", "no times", "no end", "for ever"],
    )  # fmt: skip
    def test_another_shape_is_damage_too(self, make, tmp_path, caplog, limit, content):
        """A file with a right checksum and a content that nobody has written is a warning, and begun anew."""
        caplog.set_level(logging.WARNING, logger="tradecache")
        run(make((2, 5.0)).hold(0))
        path = tmp_path / "new" / "provider.budget"
        path.write_bytes(content)
        assert [run(make(limit).take()).wait for _ in range(2)] == [0, 0]
        assert [record.args[0] for record in caplog.records] == [path]

    @pytest.mark.parametrize("limit", [None, (2, 5.0)], ids=["no limit", "limit"])
    @pytest.mark.parametrize("seconds", [1e9, float("inf")])
    def test_a_hold_in_a_file_has_an_end(self, make, tmp_path, limit, seconds):
        """However long a hold is that a file tells of, it is over after the longest one."""
        run(make((2, 5.0)).hold(0))
        path = tmp_path / "new" / "provider.budget"
        path.write_bytes(written(2, (self.clock.now, self.clock.now + seconds), []))
        assert run(make(limit).take()).wait == LONGEST_HOLD
        self.clock.now += LONGEST_HOLD
        assert run(make(limit).take()).wait == 0

    def test_nobody_is_held_to_millions(self, make, tmp_path):
        """A limit of more requests than can be counted is none."""
        budget = make((10**9, 5.0))
        assert {run(budget.take()).wait for _ in range(3)} == {0}
        assert not (tmp_path / "new").exists()

    def test_who_waits_needs_no_lock(self, make, tmp_path):
        """One who has to wait is told so while another has the lock."""
        budget = make((1, 5.0))
        run(budget.take())
        with FileLock(tmp_path / "new" / "provider.lock", preserve_lock_file=True):
            began = time.monotonic()
            assert run(budget.take()).wait == 5
        assert time.monotonic() - began < 1

    def test_who_is_slow_himself_passes_nobody(self, make, tmp_path, monkeypatch):
        """One whose own loop had no time to look at the lock waits for it, and takes no place that there is not."""
        monkeypatch.setattr(budgetfile, "LOCK_WAIT", 0.2)
        budget = make((1, 5.0))
        run(budget.hold(0))  # so that there is a file

        async def work():
            with FileLock(tmp_path / "new" / "provider.lock", preserve_lock_file=True):
                task = asyncio.create_task(budget.take())
                await asyncio.sleep(0)
                time.sleep(0.4)  # noqa: ASYNC251 - as a computation would
                await asyncio.sleep(0.001)
            return (await task).wait, (await budget.take()).wait

        assert run(work()) == (0, 5)

    def test_a_clock_that_is_set_back_blocks_nobody(self, make):
        """Requests and holds of the far future count as of now: the wait is as long as it was meant to be."""
        budget, other = make((1, 5.0)), make(None)
        run(budget.take())
        self.clock.now -= 1e8
        assert run(budget.take()).wait == pytest.approx(5)
        self.clock.now += 5
        assert run(budget.take()).wait == 0
        run(budget.hold(60))
        self.clock.now -= 1e8
        assert run(other.take()).wait == pytest.approx(60)
        self.clock.now += 61
        assert (run(other.take()).wait, run(budget.take()).wait) == (0, 0)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
    @given(
        limits=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 12)), min_size=1, max_size=3),
        moves=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.booleans()), max_size=60),
    )
    def test_law(self, tmp_path, limits, moves):
        """A request begins exactly when fewer than `requests` others began in the last `seconds`, of anybody."""
        clock, begun, name = Seconds(), [], str(next(self.numbers))
        budgets = [FileBudget(tmp_path, name, limit, wall=clock) for limit in limits]
        for who in budgets:  # each has said by now how far it looks back
            run(who.hold(0))
        for who, quarters, is_given_back in moves:
            clock.now += quarters / 4
            requests, seconds = limits[who % len(limits)]
            recent = [at for at in begun if at > clock.now - seconds]
            turn = run(budgets[who % len(limits)].take())
            assert (turn.wait == 0) == (len(recent) < requests)
            if turn.wait:
                assert turn.wait == recent[-requests] + seconds - clock.now
            elif is_given_back:
                run(budgets[who % len(limits)].give_back(turn))
            else:
                begun.append(clock.now)

    def test_a_lock_that_is_never_let_go_of_is_an_error(self, make, tmp_path):
        """Somebody who is frozen with the lock in hand does not freeze the others, the less once he is known."""
        budget, took = make((2, 5.0)), []
        run(budget.take())
        with FileLock(tmp_path / "new" / "provider.lock", preserve_lock_file=True):
            for _ in range(2):
                began = time.monotonic()
                with pytest.raises(
                    TimeoutError, match=r"one process has had provider\.budget locked for 3 s"
                ):
                    run(budget.take())
                took.append(time.monotonic() - began)
        assert run(budget.take()).wait == 0
        assert LOCK_WAIT <= took[0] < LOCK_WAIT + 2
        assert took[1] < LOCK_WAIT / 2

    def test_threads_take_turns(self, make):
        """Many tasks in many threads begin exactly as many requests as there are places."""

        async def hammer():
            budget = make((50, 5.0))
            turns = await asyncio.gather(*(budget.take() for _ in range(20)))
            return [turn.wait for turn in turns]

        async def work():
            return await asyncio.gather(*(asyncio.to_thread(run, hammer()) for _ in range(8)))

        waits = list(itertools.chain.from_iterable(run(work())))
        assert (waits.count(0), len(waits)) == (50, 160)


class TestRedisBudget(SharedContract):
    """What all machines count, by a real server's clock."""

    SPAN = 0.8

    async def later(self, seconds):
        await asyncio.sleep(seconds)  # the server's clock cannot be set

    @pytest.fixture
    def link(self, server, patient):
        link = RedisLink(SecretURL(server.url))
        run(link.run("redis.call('FLUSHALL')", [], []))
        yield link
        run(link.close())

    @pytest.fixture
    def make(self, link):
        return lambda limit, name="provider": link.budget(name, limit)

    def test_keys_expire_by_themselves(self, make, link):
        """Every key has an end: the span and a second for requests, its own end for a hold."""

        async def work():
            await make((3, 2.0)).take()
            await make((5, 4.0)).take()
            await make((3, 2.0)).take()
            await make(None).hold(30)
            keys = await link.run("return redis.call('KEYS', '*')", [], [])
            return {key: await link.run("return redis.call('PTTL', KEYS[1])", [key], []) for key in keys}

        ends = run(work())
        names = [f"tradecache:budget:{{provider}}:{name}" for name in ("begun", "held", "kept")]
        assert sorted(ends) == names
        assert 29_000 < ends[names[1]] <= 30_000
        assert all(4_000 < ends[name] <= 5_000 for name in (names[0], names[2]))

    def test_no_more_is_kept_than_somebody_looks_back_at(self, make, link):
        """However many requests begin, the server keeps twice as many as the largest limit."""

        async def work():
            for _ in range(50):
                await make((4, 0.0001)).take()
            return await link.run(
                "return redis.call('ZCARD', KEYS[1])", ["tradecache:budget:{provider}:begun"], []
            )

        assert run(work()) == 8

    def test_a_server_s_clock_that_is_set_back_blocks_nobody(self, make, link):
        """Requests of the far future count as of now."""

        async def work():
            budget = make((2, 0.2))
            await budget.take()
            script = "redis.call('ZADD', KEYS[1], '9e15', 'a', '8e15', 'b')"
            await link.run(script, ["tradecache:budget:{provider}:begun"], [])
            waited = (await budget.take()).wait
            await asyncio.sleep(waited)
            return waited, (await budget.take()).wait

        waited, then = run(work())
        assert 0 < waited <= 0.2
        assert then == 0

    def test_requests_of_one_microsecond_are_several(self, make):
        """Many who ask at once take exactly as many places as there are."""

        async def work():
            turns = await asyncio.gather(*(make((30, 5.0)).take() for _ in range(100)))
            return sum(not turn.wait for turn in turns)

        assert run(work()) == 30

    def test_a_source_without_a_limit_asks_now_and_then(self, server, patient):
        """Whether a provider wants to be left alone is asked at most once a second."""
        link, clock = RedisLink(SecretURL(server.url)), Seconds(0.0)

        async def work():
            budget = link.budget("rare", None)
            budget._monotonic = clock
            first = (await budget.take()).wait
            await link.budget("rare", None).hold(60)
            second = (await budget.take()).wait
            clock.now += 1.1
            return first, second, (await budget.take()).wait

        first, second, third = run(work())
        run(link.close())
        assert (first, second) == (0, 0)
        assert third == pytest.approx(60, abs=1)

    def test_several_loops_share_connections(self, link):
        """A budget is of use in one event loop after another, and in several at once."""

        async def several():
            return [(await link.budget("loops", (20, 5.0)).take()).wait for _ in range(3)]

        async def at_once():
            return await asyncio.gather(*(asyncio.to_thread(run, several()) for _ in range(4)))

        waits = [*run(several()), *itertools.chain.from_iterable(run(at_once()))]
        assert waits == [0] * 15


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_either_scheme_is_understood(redis_server, tmp_path, scheme, caplog, patient):
    """A URL of a Valkey server is one of a Redis server; two machines count together in it."""
    caplog.set_level(logging.WARNING, logger="tradecache")
    url = SecretURL(redis_server.url.replace("redis", scheme, 1))

    async def work():
        machines = [Budgets(tmp_path / name, url=url) for name in "ab"]
        budgets = [machine.of(Asked(rate_limit=(2, 60.0))) for machine in machines]
        waits = [(await budget.take()).wait for budget in budgets * 2]
        for machine in machines:
            await machine.close()
        return waits

    waits = run(work())
    assert waits[:2] == [0, 0]
    assert min(waits[2:]) > 50
    assert caplog.records == []


def test_a_secure_connection_is_one_for_either_scheme():
    """rediss:// and valkeys:// are connections with TLS, the others are none."""
    kinds = {
        scheme: redis_client(
            SecretURL(f"{scheme}://me:word@host:1/2")
        ).connection_pool.connection_class.__name__
        for scheme in ("redis", "rediss", "valkey", "valkeys")
    }
    assert kinds == {
        "redis": "Connection", "rediss": "SSLConnection", "valkey": "Connection", "valkeys": "SSLConnection",
    }  # fmt: skip


def test_who_is_refused_by_the_machine_takes_no_place_of_the_team(redis_server, tmp_path, patient):
    """Where the machine's budget is used up, as after an outage, the other machines have all of the team's."""
    url = SecretURL(redis_server.url)
    source = Asked(rate_limit=(2, 60.0))

    async def work():
        alone, here, there = (Budgets(tmp_path / "here"), Budgets(tmp_path / "here", url=url),
                              Budgets(tmp_path / "there", url=url))  # fmt: skip
        offline, mine, theirs = (each.of(source) for each in (alone, here, there))
        taken = [(await offline.take()).wait for _ in range(2)]
        refused = [(await mine.take()).wait for _ in range(5)]
        free = [(await theirs.take()).wait for _ in range(2)]
        await here.close()
        await there.close()
        return taken, refused, free

    taken, refused, free = run(work())
    assert (taken, free) == ([0, 0], [0, 0])
    assert min(refused) > 50


def test_who_is_refused_by_the_team_takes_no_place_of_the_machine(redis_server, tmp_path, patient):
    """Who is refused by the team's budget has taken no place of the machine's."""
    url = SecretURL(redis_server.url)

    async def work():
        here, there = Budgets(tmp_path / "here", url=url), Budgets(tmp_path / "there", url=url)
        source = Asked(rate_limit=(2, 60.0))
        mine, theirs = here.of(source), there.of(source)
        await theirs.take()
        await theirs.take()
        refused = [(await mine.take()).wait for _ in range(5)]
        await here.close()
        await there.close()
        machine = Budgets(tmp_path / "here").of(source)
        return refused, [(await machine.take()).wait for _ in range(3)]

    refused, alone = run(work())
    assert min(refused) > 50
    assert alone[:2] == [0, 0]
    assert alone[2] > 50


@pytest.mark.parametrize("failure", ["dead", "frozen"])
def test_without_the_server_the_machine_keeps_to_the_limit(redis_server, tmp_path, caplog, failure):
    """A dead or frozen Redis costs one short wait and one warning; then it is asked again now and then."""
    caplog.set_level(logging.INFO, logger="tradecache")
    clock = Seconds(0.0)
    budgets = Budgets(tmp_path, url=SecretURL(redis_server.url), monotonic=clock)
    budget = budgets.of(Asked(rate_limit=(1000, 3600.0)))

    async def timed(times=1):
        began = time.monotonic()
        waits = [(await budget.take()).wait for _ in range(times)]
        return waits, time.monotonic() - began

    async def work():
        await budget.take()
        redis_server.kill() if failure == "dead" else redis_server.send(signal.SIGSTOP)
        first, others = await timed(), await timed(100)
        clock.now += LONGEST_PAUSE + 1
        _, again = await timed(50)  # of whom one tries
        redis_server.start() if failure == "dead" else redis_server.send(signal.SIGCONT)
        clock.now += LONGEST_PAUSE + 1
        await timed(2)
        count = await budgets._link.run(
            "return redis.call('ZCARD', KEYS[1])", ["tradecache:budget:{asked}:begun"], []
        )
        await budgets.close()
        return first, others, again, count

    (waits, first), (more, others), again, count = run(work())
    assert set(waits + more) == {0}
    assert first < 2 * PATIENCE + 0.5
    assert others < 2
    assert again < 2 * PATIENCE + 2
    assert count >= 2
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in told] == ["WARNING", "INFO"]
    assert "each machine keeps to the rate limits by itself" in told[0][1]
    assert told[1][1].startswith(f"the count of requests at {redis_server.url} answers again")


def test_a_password_is_never_shown(tmp_path, caplog, patient):
    """Neither a refused password nor one in a URL that cannot be is seen in a warning, an error or a repr."""
    caplog.set_level(logging.DEBUG)
    with RedisServer("--requirepass", "right") as server:
        url = SecretURL(server.url.replace("//", "//me:wr0ng@"))
        budgets = Budgets(tmp_path, url=url)
        assert run(budgets.of(Asked(rate_limit=(1, 60.0))).take()).wait == 0
        run(budgets.close())
    assert "wr0ng" not in caplog.text + repr(budgets._link)
    assert "me:***@" in caplog.text
    with pytest.raises(InvalidInput) as caught:
        Budgets(tmp_path, url=SecretURL("redis://me:wr0ng@host/0?max_connections=wr0ng"))
    assert "wr0ng" not in str(caught.value).replace("max_connections=wr0ng", "")
    assert caught.value.__cause__ is None


def test_the_team_s_server_comes_before_the_memory_s(tmp_path):
    """`team_url` is where requests are counted if it is a Redis, else `memory_url`, else the folder alone."""
    redis, other = "redis://team/1", "valkey://memory/2"
    chosen = {
        (team, memory): Budgets.configured(
            Settings(budget_dir=tmp_path, team_url=team, memory_url=memory)
        )._link
        for team in (redis, "s3://bucket", None)
        for memory in (other, None)
    }
    assert [str(link and link._url) for link in chosen.values()] == [
        redis,
        redis,
        other,
        "None",
        other,
        "None",
    ]


def test_a_folder_that_cannot_be_is_one_warning(tmp_path, caplog):
    """Where no file can be made, each process keeps to the limit by itself, and says so once."""
    caplog.set_level(logging.WARNING, logger="tradecache")
    (tmp_path / "file").write_text("in the way")
    budgets = Budgets(tmp_path / "file" / "budgets")

    async def work():
        budget = budgets.of(Asked(rate_limit=(2, 60.0)))
        other = budgets.of(Asked("other", rate_limit=(1, 60.0)))
        return [(await each.take()).wait for each in (budget, budget, other, budget, other)]

    waits = run(work())
    assert waits[:3] == [0, 0, 0]
    assert min(waits[3:]) > 50
    (record,) = caplog.records
    assert "each process keeps to the rate limits by itself" in record.getMessage()


def test_one_who_is_cancelled_gives_back_what_was_taken(redis_server, tmp_path):
    """A request that is cancelled while a budget is asked has taken no place of any that can be asked."""

    async def work():
        budgets = Budgets(tmp_path, url=SecretURL(redis_server.url))
        source = Asked(rate_limit=(1, 60.0))
        budget = budgets.of(source)
        with FileLock(tmp_path / "asked.lock", preserve_lock_file=True):
            task = asyncio.create_task(budget.take())
            await asyncio.sleep(0.2)
            task.cancel()
            await asyncio.wait([task])
        mine = await budget.take()
        await budgets.close()
        return task.cancelled(), mine, await Budgets(tmp_path).of(source).take()

    cancelled, mine, then = run(work())
    assert (cancelled, mine.wait) == (True, 0)
    assert then.wait > 50


@pytest.mark.parametrize(("span", "margin"), [(60.0, 0.05), (1.0, 0.05), (0.1, 0.01)])
def test_a_span_is_kept_a_little_longer(tmp_path, span, margin):
    """Between a place and its request some milliseconds go by: a place is free a little later than the limit says."""
    clock = Seconds(0.0)
    budget = Budgets(tmp_path, monotonic=clock).of(Asked(rate_limit=(1, span)))
    run(budget.take())
    assert run(budget.take()).wait == pytest.approx(span + margin)


def test_what_is_local_shares_nothing(tmp_path):
    """Sources that ask nobody over a network have a budget of their own; both of Yahoo's have one together."""
    budgets = Budgets(tmp_path)
    assert [type(budgets.of(source)) for source in (SampleData(), Synthetic(), Files(tmp_path))] == [
        OwnBudget
    ] * 3

    async def work():
        yahoo, adjusted = budgets.of(YFinance()), budgets.of(YFinance(adjusted=True))
        return [(await each.take()).wait for each in (yahoo, adjusted, yahoo)]

    assert run(work())[:2] == [0, 0]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["yfinance.budget", "yfinance.lock"]


def test_a_function_may_say_with_whom_it_counts(tmp_path):
    """Sources of one budget count together whatever their names are; others of one name do not."""

    def fetch(symbol, start, end, interval):
        raise AssertionError

    fetch.rate_limit, fetch.budget = (1, 60.0), "provider"
    sources = [as_source(fetch), Asked("other", rate_limit=(1, 60.0), budget="provider"),
               Asked("fetch", rate_limit=(1, 60.0))]  # fmt: skip

    async def work():
        return [bool((await Budgets(tmp_path).of(source).take()).wait) for source in sources]

    assert run(work()) == [False, True, False]


def test_exchanges_have_the_limit_that_ccxt_knows():
    """About a second's requests of an exchange are its limit, unless the user wants none."""
    pytest.importorskip("ccxt")
    limits = {name: CCXT(name).rate_limit for name in ("binance", "kraken", "okx")}
    assert limits == {"binance": (20, 1.0), "kraken": (1, 1.0), "okx": (9, 0.99)}
    assert CCXT("kraken", config={"enableRateLimit": False}).rate_limit is None


def test_a_cache_counts_with_others(tmp_path):
    """Two caches of other folders keep to one limit, and what one was told by its provider holds the other."""
    told = RateLimited(3600)

    async def limited(symbol, start, end, interval):
        asked.append(symbol)
        raise told

    asked = []
    limited.rate_limit = (5, 60.0)
    with (
        TradeCache(tmp_path / "one", source=limited) as one,
        TradeCache(tmp_path / "two", source=limited) as two,
    ):
        for cache in (one, two, one, two):
            with pytest.raises(RateLimited) as caught:
                cache.bars("AAPL", "2024-01-02", "2024-01-05")
            assert caught.value.retry_after == pytest.approx(3600, abs=30)
    assert asked == ["AAPL"]
