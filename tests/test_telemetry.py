"""What was asked, by whom it was answered, and how long it took: counted exactly, remembered within bounds."""

import os
import signal
import threading
from collections import Counter

import pytest
from clocks import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from tradecache.clock import Clock
from tradecache.telemetry import (
    LATENCIES,
    MAX_BINS,
    MAX_EVENTS,
    SERVED_BY,
    Bin,
    Event,
    Telemetry,
    Timed,
    Together,
)


@pytest.fixture
def telemetry(clock):
    return Telemetry(Clock(clock).epoch)


def test_event_is_as_it_was_recorded(telemetry, clock):
    """An event holds what was recorded, and the clock's time at its end."""
    telemetry.record("get", "prices", "AAPL", "disk", 1, 24, 0.25)
    clock.advance(5)
    telemetry.record("bars", "bars 1d", "", "disk", 7, 336, 0.5, True, (5, 0, 0))

    begin = FakeClock().now.timestamp()
    assert telemetry.events() == [
        Event(begin, "get", "prices", "AAPL", "disk", False, 1, (0, 0, 0), 24, 0.25),
        Event(begin + 5, "bars", "bars 1d", "", "disk", True, 7, (5, 0, 0), 336, 0.5),
    ]


def test_the_newest_events(telemetry):
    """A few of the newest events are read out, newest first."""
    for n in range(5):
        telemetry.record("get", "prices", "A", "memory", 1, 24, float(n))

    assert [event.seconds for event in telemetry.last_events(2)] == [4.0, 3.0]
    assert [event.seconds for event in telemetry.last_events(9)] == [4.0, 3.0, 2.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("operation", "tier", "is_stale", "outcome"),
    [
        ("get", "memory", False, "hit"),
        ("bars", "disk", False, "hit"),
        ("bars", "disk", True, "stale"),
        ("bars", "team", False, "hit"),
        ("bars", "source", False, "miss"),
        ("latest", "none", False, "miss"),
        ("prices", "error", False, "error"),
        ("put", "disk", False, "done"),
        ("put", "error", False, "error"),
        ("delete", "none", False, "miss"),
        ("warm", "disk", False, "done"),
        ("warm", "source", False, "done"),
    ],
)
def test_outcomes(telemetry, operation, tier, is_stale, outcome):
    """What became of a request follows from what it was and who answered."""
    telemetry.record(operation, "prices", "A", tier, 1, 24, 0.0, is_stale)

    assert telemetry.events()[0].outcome == outcome


def test_requests_and_rows_are_counted(telemetry):
    """Requests, rows and bytes are counted by operation, dataset, symbol, tier and staleness."""
    for rows in (1, 2, 3):
        telemetry.record("prices", "prices", "AAPL", "disk", rows, 24 * rows, 0.0)
    telemetry.record("prices", "prices", "MSFT", "disk", 9, 216, 0.0)

    assert telemetry.counts() == {
        ("prices", "prices", "AAPL", "disk", False): (3, 6, 144, 0, 0, 0),
        ("prices", "prices", "MSFT", "disk", False): (1, 9, 216, 0, 0, 0),
    }


def test_only_the_newest_events_are_remembered(clock):
    """Events are bounded, counts are not."""
    telemetry = Telemetry(Clock(clock).epoch, max_events=3)

    for n in range(10):
        telemetry.record("get", "prices", str(n % 2), "memory", 1, 24, float(n))

    assert [event.seconds for event in telemetry.events()] == [7.0, 8.0, 9.0]
    assert sum(counts.requests for counts in telemetry.counts().values()) == 10


def test_bound_of_events(telemetry):
    """By default a hundred thousand events are remembered."""
    for _ in range(MAX_EVENTS + 1):
        telemetry.record("get", "prices", "A", "memory", 1, 24, 0.0)

    assert len(telemetry.events()) == MAX_EVENTS == 100_000


def test_reset_forgets_everything(telemetry):
    """After a reset there are no events and no counts."""
    telemetry.record("get", "prices", "AAPL", "disk", 1, 24, 0.25)

    telemetry.reset()

    assert (telemetry.events(), telemetry.counts()) == ([], {})


def test_totals(telemetry):
    """Totals count what `counts` does, of all symbols together, with how long it took."""
    telemetry.record("get", "prices", "A", "memory", 1, 24, 2**-19)
    telemetry.record("get", "prices", "B", "memory", 2, 48, 2**-18)
    telemetry.record("bars", "bars 1d", "A", "disk", 9, 90, 3600.0, True)
    telemetry.record("bars", "bars 1d", "A", "disk", 9, 90, 0.5)
    totals = telemetry.totals()
    telemetry.reset()

    places = {
        tuple(group): [n for n, count in enumerate(t.latencies) if count] for group, t in totals.items()
    }
    assert {tuple(group): total[:4] for group, total in totals.items()} == {
        ("get", "prices", "memory", False): (2, 3, 72, 3 * 2**-19),
        ("bars", "bars 1d", "disk", True): (1, 9, 90, 3600.0),
        ("bars", "bars 1d", "disk", False): (1, 9, 90, 0.5),
    }
    assert list(places.values()) == [[0], [len(LATENCIES)], [LATENCIES.index(0.5)]]
    assert [group.outcome for group in totals] == ["hit", "stale", "hit"]
    assert telemetry.totals() == {}


def test_exact_under_threads(telemetry):
    """Eight threads that record at once, while another reads, lose nothing."""
    barrier = threading.Barrier(9)

    def record():
        barrier.wait()
        for _ in range(1000):
            telemetry.record("get", "prices", "AAPL", "memory", 1, 24, 0.0)

    threads = [threading.Thread(target=record) for _ in range(8)]
    for thread in threads:
        thread.start()
    barrier.wait()
    while any(thread.is_alive() for thread in threads):
        telemetry.events()
        telemetry.counts()
    for thread in threads:
        thread.join()

    assert telemetry.counts() == {("get", "prices", "AAPL", "memory", False): (8000, 8000, 192_000, 0, 0, 0)}
    assert len(telemetry.events()) == 8000


def test_what_was_read_out_does_not_change(telemetry):
    """Events and counts that were read out are the reader's."""
    telemetry.record("get", "prices", "AAPL", "disk", 1, 24, 0.25)
    events, counts = telemetry.events(), telemetry.counts()

    telemetry.record("get", "prices", "AAPL", "disk", 1, 24, 0.25)

    assert (len(events), list(counts.values())) == (1, [(1, 1, 24, 0, 0, 0)])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # other tests have threads running
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_forked_child_can_record(telemetry):
    """A child that was forked in the instant in which a thread was recording can record."""
    with telemetry._lock:
        child = os.fork()
        if not child:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)  # ends a child that waits for the lock
            telemetry.record("get", "prices", "AAPL", "disk", 1, 24, 0.25)
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


def test_reads(telemetry):
    """Reads are counted by the tier that answered, whatever the symbol; what is no read is not."""
    for symbol in ("A", "B"):
        telemetry.record("get", "prices", symbol, "memory", 1, 24, 0.0)
    telemetry.record("bars", "bars 1d", "A", "disk", 5, 240, 0.0, True)
    telemetry.record("put", "prices", "A", "disk", 1, 24, 0.0)
    telemetry.record("warm", "prices", "A", "disk", 1, 24, 0.0)

    reads = telemetry.reads()

    assert reads.tiers == {"memory": 2, "disk": 1, "team": 0, "source": 0, "none": 0, "error": 0}
    assert (reads.stale, reads.requests, reads.hits) == (1, 3, 3)
    telemetry.reset()
    assert telemetry.reads().requests == 0


class TestTogether:
    """Requests that are recorded with others."""

    def timed(self, telemetry, together, symbol):
        return Timed(telemetry, "bars", "bars 1d", symbol, together=together)

    def test_at_the_end(self, telemetry):
        """They are recorded when all of them have ended, each as it was served."""
        with Together() as together:
            for symbol in ("A", "B"):
                with self.timed(telemetry, together, symbol) as timed:
                    timed.served("memory", rows=2, columns=5)
            assert telemetry.events() == []

        assert [(e.symbol, e.tier, e.rows, e.bytes) for e in telemetry.events()] == [
            ("A", "memory", 2, 96),
            ("B", "memory", 2, 96),
        ]

    def test_none_when_closed_in_the_middle(self, telemetry):
        """None is recorded where they will be asked again."""

        def work():
            with Together() as together:
                with self.timed(telemetry, together, "A"):
                    pass
                with self.timed(telemetry, together, "B"):
                    yield

        next(generator := work())
        generator.close()

        assert telemetry.events() == []

    def test_an_error(self, telemetry):
        """What raises is an error, and ends the others too."""

        def work():
            with Together() as together:
                with self.timed(telemetry, together, "A") as timed:
                    timed.served("disk", rows=1)
                with self.timed(telemetry, together, "B"):
                    raise ValueError("odd")

        with pytest.raises(ValueError, match="odd"):
            work()

        assert [(e.symbol, e.outcome) for e in telemetry.events()] == [("A", "hit"), ("B", "error")]


class TestBins:
    """What is kept for a history."""

    @pytest.fixture
    def binned(self, clock):
        return Telemetry(Clock(clock).epoch, bin_seconds=60)

    @pytest.fixture
    def minute(self):
        began = FakeClock().now.timestamp()
        return began - began % 60

    def record(self, telemetry, symbol="A", tier="memory"):
        telemetry.record("get", "prices", symbol, tier, 1, 24, 0.0)

    def test_by_the_minute(self, binned, clock, minute):
        """Requests are counted by the minute in which they ended, whatever their symbol; quiet minutes are left out."""
        self.record(binned)
        self.record(binned, "B")
        clock.advance(180)
        self.record(binned, tier="disk")
        self.record(binned)

        assert binned.take_bins() == [
            Bin(minute, "get", "prices", "memory", False, 2, 2, 48),
            Bin(minute + 180, "get", "prices", "memory", False, 1, 1, 24),
            Bin(minute + 180, "get", "prices", "disk", False, 1, 1, 24),
        ]

    def test_taken_once(self, binned, minute):
        """What was taken is not in the next bins, which go on with the same minute."""
        self.record(binned)
        first = binned.take_bins()
        self.record(binned)

        assert (len(first), binned.take_bins()) == (1, first)
        assert binned.take_bins() == []

    def test_given_back(self, binned):
        """Bins that could not be kept are there the next time, before the others."""
        self.record(binned)
        first = binned.take_bins()
        self.record(binned, tier="disk")
        binned.give_back(first)

        assert [each.tier for each in binned.take_bins()] == ["memory", "disk"]

    def test_a_reset_loses_no_bin(self, binned):
        """What was counted before a reset is still in the bins, once."""
        self.record(binned)
        binned.reset()
        self.record(binned)

        assert [each.requests for each in binned.take_bins()] == [1, 1]

    def test_a_clock_that_was_ahead(self, binned, clock, minute):
        """After the clock was far ahead for a while, requests are in the minutes that it shows then."""
        clock.advance(86400)
        self.record(binned)
        clock.advance(-86400)
        self.record(binned)

        assert [each.start for each in binned.take_bins()] == [minute + 86400, minute]

    def test_no_more_than_so_many_are_given_back(self, binned):
        """Bins that can never be kept do not pile up."""
        self.record(binned)
        binned.give_back(binned.take_bins() * (MAX_BINS + 5))

        assert len(binned.take_bins()) == MAX_BINS

    def test_without_bins(self, telemetry):
        """Where no history is kept, there are none."""
        self.record(telemetry)

        assert telemetry.take_bins() == []

    @given(st.lists(st.one_of(st.integers(0, 90), st.sampled_from(["take", "reset", "A", "B"])), max_size=50))
    def test_nothing_is_lost_or_counted_twice(self, actions):
        """Whatever time passes, and whenever bins are taken or counters reset, bins hold each request once."""
        wall = FakeClock()
        telemetry, expected, taken = Telemetry(Clock(wall).epoch, bin_seconds=60), Counter(), []
        for action in actions:
            if action == "take":
                taken += telemetry.take_bins()
            elif action == "reset":
                telemetry.reset()
            elif isinstance(action, int):
                wall.advance(action)
            else:
                self.record(telemetry, action)
                expected[wall.now.timestamp() // 60 * 60] += 1
        taken += telemetry.take_bins()

        found = Counter()
        for each in taken:
            found[each.start] += each.requests
        assert found == expected
