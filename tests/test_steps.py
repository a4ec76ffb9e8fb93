import asyncio
import threading

import pytest
from loops import run

from tradecache.steps import STEP, GivenUp, Watch, in_steps


@pytest.mark.parametrize("count", [0, 1, STEP, STEP + 1, 3 * STEP])
def test_every_item_comes_once_and_in_order(count):
    """The slices are the sequence, none longer than a step."""

    async def main():
        return [some async for some in in_steps(range(count))]

    found = run(main())
    assert [item for some in found for item in some] == list(range(count))
    assert all(0 < len(some) <= STEP for some in found)


def test_a_single_slice_waits_for_nothing():
    """Work of one step is finished without the event loop."""

    async def main():
        return [len(some) async for some in in_steps(range(STEP))]

    work = main()
    with pytest.raises(StopIteration) as end:
        work.send(None)
    assert end.value.value == [STEP]


def test_others_have_the_loop_between_two_slices():
    """What else is to be done is done in between, and not only in the end."""

    async def main():
        log = []

        async def long():
            nonlocal log
            async for _ in in_steps(range(3 * STEP)):
                log += ["slice"]

        async def other():
            log.append("other")

        await asyncio.gather(long(), other())
        return log

    assert run(main()) == ["slice", "other", "slice", "slice"]


def test_a_cancellation_arrives_between_two_slices():
    """Cancelled work ends at the next slice."""

    async def main():
        seen = []

        async def long():
            async for some in in_steps(range(10 * STEP)):
                seen.append(len(some))
                if len(seen) == 3:
                    task.cancel()

        task = asyncio.create_task(long())
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled(), len(seen)

    assert run(main()) == (True, 3)


def test_work_aside_gives_its_result_or_its_error():
    """A thread does the work while the loop goes on."""

    async def main():
        name = await Watch().aside(lambda: threading.current_thread().name)
        with pytest.raises(ZeroDivisionError):
            await Watch().aside(lambda: 1 // 0)
        return name

    assert run(main()) != threading.current_thread().name


def test_work_that_is_given_up_has_stopped_when_the_cancellation_is_raised():
    """The caller is told only after the thread has noticed and cleaned up."""

    async def main():
        watch, log = Watch(), []
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def work():
            try:
                for number in watch.over(iter(int, 1)):
                    if not log:
                        log.append(number)
                        loop.call_soon_threadsafe(begun.set)
            except GivenUp:
                log.append("rolled back")
                raise

        task = asyncio.create_task(watch.aside(work))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return log

    assert run(main()) == [0, "rolled back"]
