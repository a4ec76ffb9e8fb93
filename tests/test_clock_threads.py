import pytest
from clocks import FakeClock

from tradecache.clock import Clock

HOUR = 3600.0


class InterruptedClock(FakeClock):
    """A wall clock during whose next reading something else happens, as in another thread."""

    meanwhile = None

    def __call__(self):
        read = super().__call__()
        if self.meanwhile is not None:
            work, self.meanwhile = self.meanwhile, None
            work()
        return read


def step_back_and_read(wall: FakeClock, clock: Clock) -> None:
    wall.advance(-HOUR)
    clock.seconds()


@pytest.fixture
def wall():
    return InterruptedClock()


def test_a_step_while_another_thread_reads(wall):
    """A reading from before a step of the wall clock, finished after it, makes no time pass."""
    clock = Clock(wall)
    began = clock.seconds()
    wall.meanwhile = lambda: step_back_and_read(wall, clock)
    assert clock.seconds() == began
    assert clock.seconds() == began
    wall.advance(10)
    assert clock.seconds() == began + 10


def test_a_step_that_two_threads_notice(wall):
    """A step that another thread has seen to meanwhile is not made up for twice."""
    clock = Clock(wall)
    began = clock.seconds()
    wall.advance(-HOUR)
    wall.meanwhile = clock.seconds
    assert clock.seconds() == began
    wall.advance(10)
    assert clock.seconds() == began + 10
