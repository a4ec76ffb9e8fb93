import asyncio

import pytest
from loops import run
from scripts import run_script

from tradecache.errors import RateLimited, SourceUnavailable
from tradecache.flights import Flights, locks, notes

HOLDER = """
import asyncio, sys
from pathlib import Path
from tradecache.flights import Flights

async def main():
    async with Flights(Path(sys.argv[1])).alone("series"):
        print("held", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "flights"


async def visit(flights, log, name, inside=None):
    async with flights.alone("series") as landing:
        log.append(("in", name))
        await asyncio.sleep(0)
        if inside is not None:
            inside(landing)
        log.append(("out", name))


def is_one_at_a_time(log):
    return all(log[n][0] == "in" and log[n + 1] == ("out", log[n][1]) for n in range(0, len(log), 2))


def test_tasks_come_in_one_at_a_time(folder):
    """Of 50 tasks that want the same series, each is alone while it has it."""
    log = []

    async def main():
        flights = Flights(folder)
        await asyncio.gather(*(visit(flights, log, number) for number in range(50)))

    run(main())
    assert len(log) == 100
    assert is_one_at_a_time(log)


def test_two_caches_on_one_folder_exclude_each_other(folder):
    """Locks of two objects, as of two caches, processes or event loops, are one lock."""
    log = []

    async def main():
        pair = [Flights(folder), Flights(folder)]
        await asyncio.gather(*(visit(pair[number % 2], log, number) for number in range(20)))

    run(main())
    assert is_one_at_a_time(log)


def test_other_series_do_not_wait(folder):
    """While one series is held, another is free."""

    async def main():
        flights = Flights(folder)
        async with flights.alone("one"), asyncio.timeout(10), flights.alone("other"):
            return True

    assert run(main())


def test_a_cancelled_wait_leaves_the_lock_free(folder):
    """Who gives up waiting, or is cancelled while he has it, keeps nobody out."""

    async def main():
        flights, log = Flights(folder), []
        async with flights.alone("series"):
            waiting = asyncio.create_task(visit(Flights(folder), log, "late"))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        async with asyncio.timeout(10):
            await visit(flights, log, "next")
        return log

    assert run(main()) == [("in", "next"), ("out", "next")]


def test_the_lock_of_a_killed_process_is_taken_over(folder, tmp_path):
    """When the process that has it is killed, the next one has it within seconds."""
    script = f"""
        import os, signal, subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", {HOLDER!r}, sys.argv[1]], stdout=subprocess.PIPE)
        child.stdout.readline()

        import asyncio, time
        from pathlib import Path
        from tradecache.flights import Flights

        async def main():
            flights = Flights(Path(sys.argv[1]))
            try:
                async with asyncio.timeout(0.2), flights.alone("series"):
                    print("not held")
            except TimeoutError:
                print("waited")
            child.send_signal(signal.SIGKILL)
            began = time.monotonic()
            async with flights.alone("series"):
                print("taken over", time.monotonic() - began < 5)

        asyncio.run(main())
        child.wait()
    """
    done = run_script(script, folder)
    assert done.stdout.split("\n")[:2] == ["waited", "taken over True"], done.stderr


def test_who_waited_learns_of_the_failure(folder):
    """An error reaches whoever waited for the same range, with its type and its values, and nobody later."""

    async def main():
        flights, heard = Flights(folder), {}
        begun = asyncio.Event()

        async def fail():
            async with flights.alone("series") as landing:
                begun.set()
                await asyncio.sleep(0.05)
                landing.failed(RateLimited(7.0, source="acme", symbol="AAPL"), [(0, 10)])

        async def wait(name, ranges, who):
            await begun.wait()
            async with who.alone("series") as landing:
                heard[name] = landing.failure(ranges)

        await asyncio.gather(
            fail(),
            wait("same", [(2, 5)], flights),
            wait("other cache", [(2, 5)], Flights(folder)),
            wait("wider", [(2, 50)], flights),
        )
        async with flights.alone("series") as landing:
            heard["later"] = landing.failure([(2, 5)])
        return heard

    heard = run(main())
    for name in ("same", "other cache"):
        error = heard[name]
        assert isinstance(error, RateLimited)
        assert (error.retry_after, error.symbol, error.source) == (7.0, "AAPL", "acme")
    assert (heard["wider"], heard["later"]) == (None, None)


def test_a_success_takes_the_note_back(folder):
    """After an attempt that went well there is nothing to learn."""

    async def main():
        async with Flights(folder).alone("series") as landing:
            landing.failed(SourceUnavailable("down"), [(0, 10)])
            landing.went_well()
            return landing.failure([(0, 10)])

    assert run(main()) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"ended": 1e18, "ranges": [[0, 9]], "kind": "Path", "args": [], "values": {}}']
)
def test_a_damaged_note_is_no_note(folder, text):
    """What is not a note of ours is not believed."""

    async def main():
        async with Flights(folder).alone("series") as landing:
            landing.failed(SourceUnavailable("down"), [(0, 9)])
        (note,) = folder.glob("*.failed")
        note.write_text(text)
        async with Flights(folder).alone("series") as landing:  # as another process would
            return landing.failure([(0, 9)])

    assert run(main()) is None


def test_what_flights_leave_behind(folder):
    """Notes, also unfinished ones, and the lock files of series are found by their room."""

    async def main():
        async with Flights(folder).alone("series") as landing:
            landing.failed(SourceUnavailable("down"), [(0, 9)])

    run(main())
    (folder / "0123.tmp").touch()
    assert {path.suffix for path in notes(folder)} == {".failed", ".tmp"}
    assert [path.suffix for path in locks(folder)] == [".lock"]
    assert sorted([*notes(folder), *locks(folder)]) == sorted(folder.iterdir())
