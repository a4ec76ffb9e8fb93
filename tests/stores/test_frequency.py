from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradecache.stores.frequency import CEILING, Frequency


@pytest.fixture
def frequency():
    return Frequency()


def test_a_key_that_was_never_asked_for_counts_nothing(frequency):
    """A new sketch knows no key."""
    assert [frequency.count(hash(f"{n}")) for n in range(100)] == [0] * 100


def test_add_tells_the_count_before(frequency):
    """Adding tells how often the key was asked for before."""
    assert [frequency.add(hash("a")) for _ in range(4)] == [0, 1, 2, 3]
    assert frequency.count(hash("a")) == 4


def test_counts_stop_at_the_ceiling(frequency):
    """More requests than the ceiling are as good as the ceiling."""
    for _ in range(10 * CEILING):
        frequency.add(hash("a"))
    assert (frequency.count(hash("a")), frequency.add(hash("a"))) == (CEILING, CEILING)


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 20), max_size=300))
def test_no_key_looks_rarer_than_it_is(hashes):
    """Collisions can only add: a count is at least the true one, up to the ceiling."""
    frequency = Frequency(width=64)
    for hashed in hashes:
        frequency.add(hashed)
    for hashed, times in Counter(hashes).items():
        assert min(times, CEILING) <= frequency.count(hashed) <= CEILING


def test_collisions_are_rare(frequency):
    """After a scan of a thousand keys, hardly any looks as if it had been asked for twice."""
    for n in range(1000):
        frequency.add(n * 2_654_435_761)
    counts = Counter(frequency.count(n * 2_654_435_761) for n in range(1000))
    assert counts[1] > 990


def test_fame_fades(frequency):
    """Halving forgets half of each count, and in the end all of it."""
    for _ in range(9):
        frequency.add(hash("a"))
    counts = []
    for _ in range(5):
        frequency.halve()
        counts.append(frequency.count(hash("a")))
    assert counts == [4, 2, 1, 0, 0]


def test_its_memory(frequency):
    """A sketch takes one byte for each counter of its four rows."""
    assert (Frequency(width=1024).nbytes, frequency.nbytes) == (4096, 65_536)
