"""What was asked, by whom it was answered, and how long it took: counted exactly, remembered within bounds."""

import os
import signal
import threading

import pytest
from clocks import FakeClock

from tradecache.clock import Clock
from tradecache.telemetry import MAX_EVENTS, SERVED_BY, Event, Telemetry


@pytest.fixture
def telemetry(clock):
    return Telemetry(Clock(clock).epoch)


def test_event_is_as_it_was_recorded(telemetry, clock):
    """An event holds what was recorded, and the clock's time at its end."""
    telemetry.record("get", "prices", "AAPL", "disk", 1, 0.25)
    clock.advance(5)
    telemetry.record("put", "prices", "", "disk", 7, 0.5)

    begin = FakeClock().now.timestamp()
    assert telemetry.events() == [
        Event(begin, "get", "prices", "AAPL", "disk", 1, 0.25),
        Event(begin + 5, "put", "prices", "", "disk", 7, 0.5),
    ]


def test_requests_and_rows_are_counted(telemetry):
    """Counts are kept by operation, dataset, symbol and tier."""
    for rows in (1, 2, 3):
        telemetry.record("prices", "prices", "AAPL", "disk", rows, 0.0)
    telemetry.record("prices", "prices", "MSFT", "disk", 9, 0.0)

    assert telemetry.counts() == {
        ("prices", "prices", "AAPL", "disk"): (3, 6),
        ("prices", "prices", "MSFT", "disk"): (1, 9),
    }


def test_only_the_newest_events_are_remembered(clock):
    """Events are bounded, counts are not."""
    telemetry = Telemetry(Clock(clock).epoch, max_events=3)

    for n in range(10):
        telemetry.record("get", "prices", str(n % 2), "memory", 1, float(n))

    assert [event.seconds for event in telemetry.events()] == [7.0, 8.0, 9.0]
    assert sum(requests for requests, _ in telemetry.counts().values()) == 10


def test_bound_of_events(telemetry):
    """By default a hundred thousand events are remembered."""
    for _ in range(MAX_EVENTS + 1):
        telemetry.record("get", "prices", "A", "memory", 1, 0.0)

    assert len(telemetry.events()) == MAX_EVENTS == 100_000


def test_reset_forgets_everything(telemetry):
    """After a reset there are no events and no counts."""
    telemetry.record("get", "prices", "AAPL", "disk", 1, 0.25)

    telemetry.reset()

    assert (telemetry.events(), telemetry.counts()) == ([], {})


def test_exact_under_threads(telemetry):
    """Eight threads that record at once, while another reads, lose nothing."""
    barrier = threading.Barrier(9)

    def record():
        barrier.wait()
        for _ in range(1000):
            telemetry.record("get", "prices", "AAPL", "memory", 1, 0.0)

    threads = [threading.Thread(target=record) for _ in range(8)]
    for thread in threads:
        thread.start()
    barrier.wait()
    while any(thread.is_alive() for thread in threads):
        telemetry.events()
        telemetry.counts()
    for thread in threads:
        thread.join()

    assert telemetry.counts() == {("get", "prices", "AAPL", "memory"): (8000, 8000)}
    assert len(telemetry.events()) == 8000


def test_what_was_read_out_does_not_change(telemetry):
    """Events and counts that were read out are the reader's."""
    telemetry.record("get", "prices", "AAPL", "disk", 1, 0.25)
    events, counts = telemetry.events(), telemetry.counts()

    telemetry.record("get", "prices", "AAPL", "disk", 1, 0.25)

    assert (len(events), list(counts.values())) == (1, [(1, 1)])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # other tests have threads running
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_forked_child_can_record(telemetry):
    """A child that was forked in the instant in which a thread was recording can record."""
    with telemetry._lock:
        child = os.fork()
        if not child:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)  # ends a child that waits for the lock
            telemetry.record("get", "prices", "AAPL", "disk", 1, 0.25)
            os._exit(len(telemetry.events()))
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 1
    assert telemetry.events() == []


def test_nobody_served_yet():
    """Before any read, no tier has served."""
    seen = []
    thread = threading.Thread(target=lambda: seen.append(SERVED_BY.get()))
    thread.start()
    thread.join()

    assert seen == ["none"]
