"""What is seen at a glance, and how it is drawn."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradecache import TradeCache
from tradecache.glance import Glance
from tradecache.panel import drawn
from tradecache.telemetry import Event, Reads

NOBODY = dict.fromkeys(("memory", "disk", "team", "source", "none", "error"), 0)


def seen(*, stale=0, recent=(), **tiers) -> Glance:
    return Glance(Reads(NOBODY | tiers, stale), 3 * 2**20, 256 * 2**20, 1234, list(recent))


def event(symbol="AAPL") -> Event:
    return Event(1_700_000_000.0, "bars", "bars 1d", symbol, "disk", True, 1000, (0, 0, 0), 48_000, 0.0125)


class Words(HTMLParser):
    """The words of an HTML text; its tags have to be well nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.open: list[str] = []
        self.names: set[str] = set()
        text.encode()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_of_a_cache(tmp_path, clock):
    """A glance has the reads by tier, what memory holds, and the newest requests first; writes are no reads."""
    with TradeCache(tmp_path, clock=clock) as cache:
        data_id = cache.store_price("A", 1.0, 1)
        cache.get_price("A", data_id)
        cache.get_price("B", "none")
        cache.prices("A")
        glance = cache.core.glance(recent=3)
        memory = cache.core.stack.memory.occupancy()

    assert glance.reads == Reads(NOBODY | {"memory": 1, "disk": 1, "none": 1}, stale=0)
    assert (glance.reads.requests, glance.reads.hits, glance.rate) == (3, 2, "3 requests, 66.7% hits")
    assert glance[1:4] == (memory["bytes"], memory["max_bytes"], 1)
    assert [each.operation for each in glance.recent] == ["prices", "get", "get"]


def test_nothing_asked_yet():
    """Before the first read there is no rate, and a dash stands for it."""
    assert seen().rate == "no requests yet"
    assert "\N{EN DASH}" in Words(drawn(seen(), [], is_live=True)).words


@pytest.mark.parametrize(
    ("before", "after", "rates"),
    [
        (seen(), seen(memory=3, source=1), [0.75]),
        (seen(memory=3, source=1), seen(memory=3, source=1), []),
        (seen(memory=3, source=1), seen(memory=4, disk=1, source=2, error=1), [0.5]),
        (seen(memory=30), seen(disk=1, none=1), [0.5]),
        (seen(memory=30), seen(), []),
    ],
)
def test_rates_between_two_glances(before, after, rates):
    """The rate between two glances is that of the reads between them, also after a reset of the counters."""
    assert after.rates_since(before) == rates


def test_drawing():
    """The drawing has the rate, the counts of each tier, what memory holds, and a row for each request."""
    words = Words(
        drawn(seen(memory=700, disk=100, source=200, stale=5, recent=[event()]), [0.1, 0.9], is_live=True)
    ).words

    assert words[:4] == [
        "80.0%",
        "hits of 1,000 requests, 5 of them stale",
        "3 MiB of 256 MiB, 1,234 entries in memory",
        "● live",
    ]
    tiers = ["from memory", "700", "from disk", "100", "fetched", "200", "missed", "0", "failed", "0"]
    assert words[4:14] == tiers
    assert words[-8:] == ["22:13:20", "bars", "bars 1d", "AAPL", "disk", "stale", "1,000", "12.500"]


def test_line():
    """The line goes from left to right, and is high where the rate is."""
    text = drawn(seen(memory=1), [0.0, 0.5, 1.0], is_live=True)

    assert 'points="0.0,34.0 80.0,18.0 160.0,2.0"' in text


def test_whether_it_goes_on():
    """One that has stopped says so."""
    assert "■ stopped" in drawn(seen(), [], is_live=False)


@given(st.text(st.characters(exclude_categories=())), st.lists(st.floats(0, 1), max_size=5))
def test_any_symbol_is_text(symbol, rates):
    """Whatever a symbol is, it is drawn as text, well nested, and can be sent as UTF-8."""
    odd = f"<script>{symbol}</script>"
    text = drawn(seen(memory=1, recent=[event(odd)]), rates, is_live=True)

    parsed = Words(text)
    assert "script" not in parsed.names
    assert odd.encode(errors="replace").decode() in parsed.words
