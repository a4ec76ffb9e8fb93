"""One warning when a server goes, one line when it is back, and few who ask meanwhile."""

import itertools
import logging

import pytest

from tradecache.outage import LONGEST_PAUSE, Outage


class Seconds:
    """A clock that never runs backwards."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def seconds():
    return Seconds()


@pytest.fixture
def outage(seconds):
    return Outage("the server", instead="life goes on", monotonic=seconds)


def test_all_is_well(outage):
    """Where nothing has failed, everybody may ask."""
    assert [outage.may_try(), outage.may_try(), outage.is_on] == [True, True, False]


def test_one_warning(outage, caplog):
    """However often it fails, one warning is issued for each outage, with the reason."""
    caplog.set_level(logging.INFO)
    for _ in range(2):
        for _ in range(3):
            outage.failed(ConnectionError("refused"))
        outage.went_well()
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "the server does not answer (ConnectionError: refused): life goes on until it does"
    ] * 2
    assert sum("answers again" in record.message for record in caplog.records) == 2


def test_one_asks_after_each_pause(outage, seconds):
    """While it lasts, one caller asks after each pause, and pauses grow up to a limit."""
    outage.failed(OSError())
    asked = []
    for _ in range(400):
        seconds.now += 0.1
        tries = [outage.may_try() for _ in range(5)]
        assert sum(tries) <= 1
        if any(tries):
            asked.append(seconds.now)
            outage.failed(OSError())
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert 0.2 < asked[0] - 100 < 0.5
    assert max(pauses) == pytest.approx(LONGEST_PAUSE, abs=0.11)
    assert len(asked) < 20
