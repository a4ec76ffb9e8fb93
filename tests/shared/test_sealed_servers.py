"""With a key, nothing that leaves for a server can be read, altered or exchanged there."""

import base64
import logging
import re
import struct
import tempfile

import pandas as pd
import pytest
from barsources import bars_at
from pandas.testing import assert_frame_equal

from tradecache import Settings, TradeCache

OLD, NEW, OTHER = (base64.urlsafe_b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))
TRUTH = bars_at(pd.bdate_range("2015-01-02", "2024-05-31"))
RANGE = ("2015-01-02", "2024-05-31")


class Truth:
    """A source that has the same bars of every symbol, and counts its questions."""

    name = "truth"

    def __init__(self):
        self.questions = 0

    async def fetch(self, symbol, start, end, interval):
        self.questions += 1
        first, last = TRUTH.index.searchsorted([start, end])
        return TRUTH.iloc[first:last]


@pytest.fixture
def member(tmp_path, redis_server, clock):
    """Return what makes members of a team: each a folder of its own, one server."""
    made = []

    def make(keys=OLD, source=None, **options):
        settings = Settings(
            memory_url=redis_server.url, team_url=redis_server.url, encryption_key=keys, **options
        )
        folder = tempfile.mkdtemp(dir=tmp_path)
        made.append(TradeCache(folder, source=source or Truth(), settings=settings, clock=clock))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


@pytest.fixture
def server(redis_server):
    """Return a client that sees what the server holds, as its administrator does."""
    import redis

    with redis.Redis(port=redis_server.port) as client:
        yield client


def contents(server):
    """Return every key and value of a server as one text of bytes, and what base64 hides in them."""
    whole = b""
    for key in server.keys("*"):
        value = server.get(key)
        whole += key + value
        for part in re.findall(rb"[A-Za-z0-9+/_-]{100,}", value):
            whole += base64.b64decode(part[: len(part) // 4 * 4].translate(bytes.maketrans(b"-_", b"+/")))
    return whole


@pytest.mark.parametrize("hashed", [False, True])
def test_no_price_can_be_found(member, server, hashed):
    """Neither as text nor as eight bytes; with hashed names the symbol neither."""
    one, other = (member(hashed_names=hashed) for _ in range(2))
    data_id = one.store_price("ZZTOP", 1234.56789, 2)
    frame = one.bars("ZZTOP", *RANGE)

    assert other.get_price("ZZTOP", data_id).price == 1234.56789
    assert_frame_equal(other.bars("ZZTOP", *RANGE), frame)
    assert (other.stats()["hits"].to_dict(), set(other.explain()["tier"])) == (
        {"memory": 1, "disk": 0, "team": 1},
        {"team"},
    )
    found = contents(server)
    assert b"1234.56789" not in found
    assert not any(struct.pack("<d", value) in found for value in frame["close"].head(50))
    assert b"ARROW" not in found
    assert (b"ZZTOP" in found) is not hashed


def test_plain_it_could_be(member, server):
    """The search above finds a price where there is no key: it is one that can fail."""
    cache = member(keys=())
    cache.store_price("ZZTOP", 1234.56789, 2)
    cache.bars("ZZTOP", *RANGE)

    found = contents(server)
    assert b"1234.56789" in found
    assert b"ARROW" in found


@pytest.mark.parametrize("how", ["exchanged", "of another symbol", "a bit", "cut", "plain"])
def test_what_was_tampered_with(member, server, how):
    """An entry that was exchanged, moved, altered, cut, or put there in plain is a miss: the source is asked."""
    one, source = member(), Truth()
    one.bars(["AAPL", "MSFT"], *RANGE)
    mine = sorted(key for key in server.keys("*AAPL*") if b"bars" in key)
    values = [server.get(key) for key in mine]
    if how == "exchanged":
        values.reverse()
    elif how == "of another symbol":
        values = [server.get(key.replace(b"AAPL", b"MSFT")) for key in mine]
    elif how == "a bit":
        values = [value[:700] + bytes([value[700] ^ 1]) + value[701:] for value in values]
    elif how == "cut":
        values = [value[: len(value) // 2] for value in values]
    else:
        member(keys=()).bars("PLAIN", *RANGE)
        values = [server.get(key.replace(b"AAPL", b"PLAIN")) for key in mine]
    for key, value in zip(mine, values, strict=True):
        server.set(key, value)

    frame = member(source=source).bars("AAPL", *RANGE)

    assert_frame_equal(frame, TRUTH, check_freq=False)
    assert source.questions == 1


def test_a_frame_beside_another_value(member, server):
    """The frame of one entry cannot stand beside the value of another, although both are of this key."""
    import json

    one, source = member(), Truth()
    one.bars("AAPL", *RANGE)
    one.bars("MSFT", "2016-01-04", "2024-05-31")
    for key in server.keys("*AAPL*"):
        entry, foreign = (json.loads(server.get(each)) for each in (key, key.replace(b"AAPL", b"MSFT")))
        entry["value"]["__sealed_arrow__"] = foreign["value"]["__sealed_arrow__"]
        server.set(key, json.dumps(entry))

    assert_frame_equal(member(source=source).bars("AAPL", *RANGE), TRUTH, check_freq=False)
    assert source.questions == 1


def test_another_key_writes_over_nothing(member, server, caplog):
    """Who has another key asks the source, says so once, and leaves what the others have as it is."""
    one = member()
    one.bars("AAPL", *RANGE)
    before = {key: server.get(key) for key in server.keys("*bars*")}
    source = Truth()

    stranger = member(keys=OTHER, source=source)
    assert_frame_equal(stranger.bars("AAPL", *RANGE), TRUTH, check_freq=False)

    assert source.questions == 1
    assert {key: server.get(key) for key in before} == before
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1
    assert "which is not among those given" in said[0]


def test_rotation(member):
    """Who has the new key and the old one reads what the old one wrote; names stay the same, hashed ones too."""
    member(hashed_names=True).bars("AAPL", *RANGE)
    source = Truth()

    frame = member(keys=[NEW, OLD], source=source, hashed_names=True).bars("AAPL", *RANGE)

    assert_frame_equal(frame, TRUTH, check_freq=False)
    assert source.questions == 0
