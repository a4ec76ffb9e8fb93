"""The real ccxt, asking a web server on the loopback that answers as exchanges do."""

import asyncio
import contextlib
import itertools
import time
from email.utils import formatdate

import pandas as pd
import pytest
from loops import run
from provider import Reply, serving

from tradecache.barframes import normal_bars
from tradecache.errors import InvalidInput, NoBars, RateLimited, SourceUnavailable, UnknownSymbol
from tradecache.sources import CCXT, Guard, Retries, as_source, traits_of

pytest.importorskip("ccxt")

MINUTE = 60_000  # milliseconds, as exchanges count
START = pd.Timestamp("2024-01-02 14:30", tz="UTC")
MARKET = {
    "symbol": "BTCUSDT",
    "status": "TRADING",
    "baseAsset": "BTC",
    "quoteAsset": "USDT",
    "isSpotTradingAllowed": True,
    "permissions": ["SPOT"],
    "filters": [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.00", "tickSize": "0.01"},
        {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000.0", "stepSize": "0.00001"},
    ],
}
NO_PAUSE = Retries(first=0.001, longest=0.002, jitter=0)


def millis(moment):
    return int(moment.timestamp() * 1000)


def candle(at, step=MINUTE):
    """Return a candle as Binance sends it: prices as text, more columns than anybody needs."""
    price = 42_000 + at // step % 1_000
    return [at, f"{price}.10", f"{price + 5}.00", f"{price - 5}.00", f"{price}.50", "12.50000000",
            at + step - 1, "525000.0", 100, "6.2", "260000.0", "0"]  # fmt: skip


def binance(request, *, traded=lambda _: True, newest=None, step=MINUTE, market=MARKET):
    """Answer as Binance does: from the first candle that is not before `startTime`, at most `limit`."""
    if request.path.endswith("/exchangeInfo"):
        return Reply({"timezone": "UTC", "serverTime": 1, "symbols": [market]})
    assert request.path.endswith("/klines")
    newest = millis(START + pd.Timedelta("2D")) if newest is None else newest
    since, limit = int(request.query["startTime"]), int(request.query["limit"])
    times = range(-(-since // step) * step, newest, step)
    return Reply([candle(at, step) for at in itertools.islice(filter(traded, times), min(limit, 1000))])


@contextlib.contextmanager
def exchange(answer=binance):
    """Yield a server and a source that takes it for Binance."""
    with serving(answer) as server:
        config = {
            "urls": {"api": {"public": f"{server.address}/api/v3"}},
            "options": {"fetchMarkets": {"types": ["spot"]}},
            "enableRateLimit": False,
        }
        yield server, CCXT("binance", config=config)


async def fetched(source, start=START, length="10min", interval="1m", symbol="BTC/USDT"):
    """Fetch, and close the connections again."""
    try:
        return await source.fetch(symbol, start, start + pd.Timedelta(length), interval)
    finally:
        await source.close()


def test_candles_are_bars():
    """Candles come as bars of the range, in UTC, with numbers as numbers."""
    with exchange() as (_, source):
        frame = run(fetched(source))
    bars = normal_bars(frame, interval="1m", start=START, end=START + pd.Timedelta("10min"))
    assert list(bars.index) == list(pd.date_range(START, periods=10, freq="min", unit="us"))
    assert bars.iloc[0].to_dict() == {
        "open": 42430.1,
        "high": 42435,
        "low": 42425,
        "close": 42430.5,
        "volume": 12.5,
    }


def test_only_what_was_asked_for_is_asked_of_the_exchange():
    """One short range is one request, for as many candles as it has bars, after the list of markets."""
    with exchange() as (server, source):
        run(fetched(source))
    assert [request.path for request in server.requests] == ["/api/v3/exchangeInfo", "/api/v3/klines"]
    query = server.requests[1].query
    assert query == {"symbol": "BTCUSDT", "interval": "1m", "startTime": str(millis(START)), "limit": "10"}


def test_a_long_range_is_fetched_page_by_page():
    """A range of more candles than one answer holds is complete, and no candle is asked for twice."""
    with exchange() as (server, source):
        frame = run(fetched(source, length="2500min"))
    assert list(frame.index) == list(pd.date_range(START, periods=2500, freq="min"))
    pages = server.paths("klines")
    assert [page.query["limit"] for page in pages] == ["1000", "1000", "500"]


def test_a_gap_in_trading_ends_nothing():
    """A halt that is longer than a page leaves a hole, and the candles after it come."""
    halted = range(millis(START) + 5 * MINUTE, millis(START) + 2_000 * MINUTE)

    def answer(request):
        """Answer as exchanges do that look only as far as `limit` candles from `since`."""
        if request.path.endswith("/exchangeInfo"):
            return binance(request)
        page_end = int(request.query["startTime"]) + int(request.query["limit"]) * MINUTE
        return binance(request, traded=lambda at: at not in halted, newest=page_end)

    with exchange(answer) as (_, source):
        frame = run(fetched(source, length="2010min"))
    assert [len(frame), frame.index[4], frame.index[5]] == [
        15,
        START + pd.Timedelta("4min"),
        START + pd.Timedelta("2000min"),
    ]


def test_daily_weekly_and_monthly_candles_have_names_of_their_own():
    """Intervals are asked for by the exchange's names, and come back under ours."""
    with exchange(lambda request: binance(request, step=86_400_000)) as (server, source):
        for interval in ("1d", "1wk", "1mo"):
            run(fetched(source, pd.Timestamp("2024-01-01"), "3D", interval))
    assert [request.query["interval"] for request in server.paths("klines")] == ["1d", "1w", "1M"]


def test_no_candles_are_an_empty_frame():
    """A range without trades is an empty frame with the columns of bars."""
    with exchange(lambda request: binance(request, newest=0)) as (_, source):
        frame = run(fetched(source))
    assert (len(frame), list(frame.columns)) == (0, ["open", "high", "low", "close", "volume"])


def test_an_unknown_market_is_an_unknown_symbol():
    """A symbol that is not among the exchange's markets is named, and no candles are asked for."""
    with exchange() as (server, source), pytest.raises(UnknownSymbol, match="NOPE/USDT") as caught:
        run(fetched(source, symbol="NOPE/USDT"))
    assert type(caught.value.__cause__).__name__ == "BadSymbol"
    assert server.paths("klines") == []


@pytest.mark.parametrize(
    ("headers", "wait"), [({"Retry-After": "7"}, 7), ({}, None), ({"Retry-After": "soon"}, None)]
)
@pytest.mark.parametrize("status", [418, 429])
def test_too_many_requests_are_a_rate_limit(status, headers, wait):
    """HTTP 429, and 418 with which Binance bans, are rate limits, with the time to wait if it is told."""

    def answer(request):
        limited = Reply({"code": -1003, "msg": "Too much request weight used."}, status, headers)
        return limited if request.path.endswith("/klines") else binance(request)

    with exchange(answer) as (_, source), pytest.raises(RateLimited) as caught:
        run(fetched(source))
    assert caught.value.retry_after == wait


def test_a_date_is_a_time_to_wait_too():
    """`Retry-After` as a date counts from the exchange's own clock."""

    def answer(request):
        headers = {"Retry-After": formatdate(time.time() + 120, usegmt=True)}
        return Reply({}, 429, headers) if request.path.endswith("/klines") else binance(request)

    with exchange(answer) as (_, source), pytest.raises(RateLimited) as caught:
        run(fetched(source))
    assert caught.value.retry_after == pytest.approx(120, abs=30)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply("<html>Bad gateway</html>", 502), "ExchangeNotAvailable"),
        (
            Reply({"code": 0, "msg": "Service unavailable from a restricted location"}, 451),
            "ExchangeNotAvailable",
        ),
        (
            Reply({"code": -1001, "msg": "Internal error; unable to process your request."}, 500),
            "DISCONNECTED|-1001",
        ),
        (Reply(status=0), "ExchangeNotAvailable"),
    ],
    ids=["bad gateway", "not here", "internal error", "connection lost"],
)
def test_what_fails_is_unavailable(reply, words):
    """Errors of the exchange and of the network are `SourceUnavailable`, with ccxt's error as the cause."""

    def answer(request):
        return reply if request.path.endswith("/klines") else binance(request)

    with exchange(answer) as (_, source), pytest.raises(SourceUnavailable, match=words) as caught:
        run(fetched(source))
    assert type(caught.value.__cause__).__module__ == "ccxt.base.errors"


def test_nobody_at_the_other_end_is_unavailable():
    """A refused connection is `SourceUnavailable`."""
    with serving(binance) as server:
        address = server.address
    source = CCXT("binance", config={"urls": {"api": {"public": f"{address}/api/v3"}}})
    with pytest.raises(SourceUnavailable):
        run(fetched(source))


def test_a_market_that_was_opened_later_has_no_bars_before():
    """A range that ends before the exchange lists the market is `before_listing`, and no candles are asked for."""
    market = MARKET | {"onboardDate": millis(START)}
    with exchange(lambda request: binance(request, market=market)) as (server, source):
        with pytest.raises(NoBars) as caught:
            run(fetched(source, START - pd.Timedelta("1h")))
        assert len(run(fetched(source, START - pd.Timedelta("5min")))) == 10
    assert caught.value.reason == "before_listing"
    assert len(server.paths("klines")) == 1


def test_markets_are_loaded_once_for_all_who_wait():
    """Many first requests at once load the markets once, and one that is cancelled ends it for no other."""

    async def all_at_once(source):
        tasks = [
            asyncio.create_task(source.fetch("BTC/USDT", START, START + pd.Timedelta("1min"), "1m"))
            for _ in range(5)
        ]
        await asyncio.sleep(0)
        tasks[0].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await source.close()
        return outcomes

    with exchange() as (server, source):
        first, *others = run(all_at_once(source))
    assert isinstance(first, asyncio.CancelledError)
    assert [len(frame) for frame in others] == [1] * 4
    assert len(server.paths("exchangeInfo")) == 1


def test_another_loop_gets_connections_of_its_own():
    """A source that was of use in one event loop is of use in another, with connections of its own."""
    with exchange() as (_, source), asyncio.Runner() as first, asyncio.Runner() as second:
        rows = [len(first.run(source.fetch("BTC/USDT", START, START + pd.Timedelta("10min"), "1m")))]
        client = source._client
        rows.append(len(second.run(fetched(source))))
        first.run(client.close())
    assert rows == [10, 10]


def test_behind_a_guard_a_failure_that_passes_is_not_seen():
    """The markets, then a rate limit, then a bad gateway, then the candles: the guard asks on."""
    troubles = iter([Reply({}, 429, {"Retry-After": "0"}), Reply("", 502)])

    def answer(request):
        trouble = next(troubles, None) if request.path.endswith("/klines") else None
        return trouble or binance(request)

    with exchange(answer) as (_, source):
        guard = Guard(source, retries=NO_PAUSE)
        frame = run(fetched(guard))
    assert (len(frame), guard.requests) == (10, 3)


def test_limits_are_those_that_ccxt_knows():
    """A request is cut to what one answer holds; exchanges that keep few candles say how far back they go."""
    binance, kraken = traits_of(CCXT("binance")), traits_of(CCXT("kraken"))
    assert (binance.max_range("1m"), binance.window("1m")) == (pd.Timedelta("1000min"), None)
    assert (kraken.max_range("1h"), kraken.window("1h")) == (pd.Timedelta("720h"), pd.Timedelta("719h"))
    assert (binance.calendar_for("BTC/USDT"), binance.settle) == (None, pd.Timedelta("1min"))


def test_what_an_exchange_does_not_have_is_named():
    """Unknown exchanges and intervals are errors that list what there is."""
    with pytest.raises(
        InvalidInput, match=r"exchange is 'nasdaq', but must be one that ccxt knows: .*binance"
    ):
        CCXT("nasdaq")
    with pytest.raises(InvalidInput, match="interval is '1wk', but must be one that coinbase has: 1m, "):
        run(fetched(CCXT("coinbase"), interval="1wk"))


def test_name_says_which_exchange():
    """Each exchange has a name of its own, by which the source can be had again."""
    assert (as_source("ccxt:kraken").name, repr(CCXT("kraken"))) == ("ccxt:kraken", "<CCXT kraken>")


KRAKEN_PAIR = {
    "altname": "XBTUSD", "wsname": "XBT/USD", "base": "XXBT", "quote": "ZUSD", "pair_decimals": 1,
    "lot_decimals": 8, "leverage_buy": [], "fees": [[0, 0.4]], "fees_maker": [[0, 0.25]],
    "ordermin": "0.0001", "status": "online",
}  # fmt: skip


def test_another_exchange_s_own_form_is_understood():
    """Kraken's answers, with a volume-weighted price before the volume, come as the same bars."""

    def kraken(request):
        if request.path.endswith("/AssetPairs"):
            return Reply({"error": [], "result": {"XXBTZUSD": KRAKEN_PAIR}})
        if request.path.endswith("/Assets"):
            names = {"XXBT": "XBT", "ZUSD": "USD"}
            return Reply(
                {
                    "error": [],
                    "result": {
                        name: {
                            "aclass": "currency",
                            "altname": short,
                            "decimals": 10,
                            "display_decimals": 5,
                            "status": "enabled",
                        }
                        for name, short in names.items()
                    },
                }
            )
        at = millis(START) // 1000
        rows = [[at + 60 * n, "1.5", "2.0", "1.0", "1.7", "1.6", "3.25", 9] for n in range(-1, 5)]
        return Reply({"error": [], "result": {"XXBTZUSD": rows, "last": at}})

    with serving(kraken) as server:
        config = {
            "urls": {"api": {"public": server.address, "zendesk": server.address}},
            "enableRateLimit": False,
        }
        frame = run(fetched(CCXT("kraken", config=config), length="3min", symbol="BTC/USD"))
    assert list(frame.index) == list(pd.date_range(START, periods=3, freq="min"))
    assert frame.iloc[0].to_dict() == {"open": 1.5, "high": 2.0, "low": 1.0, "close": 1.7, "volume": 3.25}
