"""The real yfinance with its own HTTP client, through a proxy on the loopback that answers as Yahoo does."""

import logging
import time
from email.utils import formatdate

import pandas as pd
import pytest
from loops import run
from provider import Reply, Request, self_signed, serving

from tradecache.barframes import normal_bars
from tradecache.errors import InvalidInput, NoBars, RateLimited, SourceUnavailable, UnknownSymbol
from tradecache.sources import Guard, Retries, YFinance, as_source, traits_of

yf = pytest.importorskip("yfinance")
from curl_cffi.requests import Session  # noqa: E402 - comes with yfinance

# yfinance 1.7 sorts in place, which pandas 3.1 will give up
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")

START, END = pd.Timestamp("2024-01-02"), pd.Timestamp("2024-01-05")
OPENS = ["2024-01-02 14:30", "2024-01-03 14:30", "2024-01-04 14:30"]  # of New York's sessions, in UTC
DELISTED = "No data found, symbol may be delisted"
COOKIE = {"Set-Cookie": "A3=d=x; Domain=.yahoo.com; Path=/; Expires=Tue, 31 Dec 2069 00:00:00 GMT"}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Keep what yfinance remembers on disk (time zones, cookies) in a folder of the tests."""
    folder = tmp_path_factory.mktemp("yfinance")
    yf.set_tz_cache_location(str(folder / "cache"))
    return self_signed(folder)


def seconds(times):
    return [int(pd.Timestamp(time, tz="UTC").timestamp()) for time in times]


def chart(times=OPENS, *, prices=100.0, zone="America/New_York", symbol="AAPL", **meta):
    """Return an answer of Yahoo's chart endpoint."""
    count = len(times)
    quote = {
        "open": [prices + n for n in range(count)],
        "high": [prices + n + 1 for n in range(count)],
        "low": [prices + n - 1 for n in range(count)],
        "close": [prices + n + 0.5 for n in range(count)],
        "volume": [1_000 + n for n in range(count)],
    }
    period = {"timezone": "EST", "start": 1704205800, "end": 1704229200, "gmtoffset": -18000}
    facts = {
        "currency": "USD", "symbol": symbol, "exchangeName": "NMS", "instrumentType": "EQUITY",
        "firstTradeDate": 345479400, "regularMarketTime": 1704315601, "gmtoffset": -18000, "timezone": "EST",
        "exchangeTimezoneName": zone, "priceHint": 2, "dataGranularity": "1d", "range": "",
        "currentTradingPeriod": {"pre": period, "regular": period, "post": period},
        "validRanges": ["1d", "5d", "max"], **meta,
    }  # fmt: skip
    indicators = {"quote": [quote], "adjclose": [{"adjclose": [price / 2 for price in quote["close"]]}]}
    if not times:
        return {
            "chart": {
                "result": [{"meta": facts, "indicators": {"quote": [{}], "adjclose": [{}]}}],
                "error": None,
            }
        }
    result = {"meta": facts, "timestamp": seconds(times), "indicators": indicators}
    return {"chart": {"result": [result], "error": None}}


def refusal(code, words):
    """Return an answer in which Yahoo says why there is none."""
    return {"chart": {"result": None, "error": {"code": code, "description": words}}}


def yahoo(prices, zone=None):
    """Return what Yahoo answers: to questions for prices, for a time zone, for a cookie, for a token."""

    def answer(request: Request) -> Reply:
        if request.path.endswith("getcrumb"):
            return Reply("token")
        if "/v8/finance/chart/" not in request.path:
            return Reply("", 404, COOKIE)
        if request.query.get("range") == "1d":
            return zone or Reply(chart(OPENS[:1]))
        return prices(request) if callable(prices) else prices

    return answer


@pytest.fixture
def asked(certificate):
    """Return a function that fetches from a Yahoo with these answers, and keeps its server for questions."""

    def ask(answer, *, symbol="AAPL", start=START, end=END, interval="1d", adjusted=False):
        with serving(answer, certificate=certificate) as server:
            session = Session(impersonate="chrome", verify=False, proxies={"https": server.address})
            ask.server = server
            source = YFinance(adjusted=adjusted, session=session)
            try:
                return run(source.fetch(symbol, start, end, interval))
            finally:
                session.close()

    return ask


def charts(server):
    return [request for request in server.paths("/chart/") if "period1" in request.query]


def test_prices_are_bars(asked):
    """Raw prices come with session dates as labels, and adjusted closes, dividends and splits beside them."""
    frame = asked(yahoo(Reply(chart())))
    bars = normal_bars(frame, interval="1d", start=START, end=END)
    assert list(bars.index) == list(pd.date_range(START, periods=3, unit="us"))
    assert bars.iloc[0].to_dict() == {
        "open": 100, "high": 101, "low": 99, "close": 100.5, "volume": 1_000,
        "adj_close": 50.25, "dividends": 0, "stock_splits": 0,
    }  # fmt: skip


def test_adjusted_prices_are_another_series(asked):
    """With `adjusted` all prices are adjusted for dividends, and kept under another name."""
    frame = asked(yahoo(Reply(chart())), adjusted=True)
    bars = normal_bars(frame, interval="1d", start=START, end=END)
    assert bars.iloc[0][["open", "close"]].to_dict() == {"open": 50, "close": 50.25}
    assert (YFinance(adjusted=True).name, YFinance().name) == ("yfinance adjusted", "yfinance")


def test_the_range_is_asked_for_in_the_exchange_s_days(asked):
    """One request, from midnight to midnight in the exchange's time zone."""
    asked(yahoo(Reply(chart())))
    (request,) = charts(asked.server)
    midnights = seconds(["2024-01-02 05:00", "2024-01-05 05:00"])
    assert [int(request.query[name]) for name in ("period1", "period2")] == midnights
    assert request.query["interval"] == "1d"


def test_minutes_are_in_utc(asked):
    """Minute bars are asked for by instants, and are true instants."""
    start = pd.Timestamp("2024-01-02 14:30", tz="UTC")
    times = ["2024-01-02 14:30", "2024-01-02 14:31"]
    periods = [[{"timezone": "EST", "start": 1704205800, "end": 1704229200, "gmtoffset": -18000}]]
    answer = chart(times, tradingPeriods=periods, dataGranularity="1m")
    end = start + pd.Timedelta("2min")
    frame = asked(yahoo(Reply(answer)), start=start, end=end, interval="1m")
    assert list(normal_bars(frame, interval="1m", start=start, end=end).index) == [
        start,
        start + pd.Timedelta("1min"),
    ]
    (request,) = charts(asked.server)
    assert [int(request.query[name]) for name in ("period1", "period2")] == seconds(
        ["2024-01-02 14:30", "2024-01-02 14:32"]
    )


def test_a_session_of_tokyo_keeps_its_date(asked):
    """A daily bar that begins on the day before in UTC is labelled with its own date."""
    times = ["2024-01-04 00:00", "2024-01-05 00:00"]
    zone = Reply(chart(times[:1], zone="Asia/Tokyo", symbol="7203.T"))
    answer = yahoo(Reply(chart(times, zone="Asia/Tokyo", symbol="7203.T")), zone)
    frame = asked(answer, symbol="7203.T", start=pd.Timestamp("2024-01-04"), end=pd.Timestamp("2024-01-06"))
    bars = normal_bars(frame, interval="1d", start=pd.Timestamp("2024-01-04"), end=pd.Timestamp("2024-01-06"))
    assert list(bars.index) == [pd.Timestamp("2024-01-04"), pd.Timestamp("2024-01-05")]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(chart([])), "no_trades"),
        (
            Reply(refusal("Bad Request", "Data doesn't exist for startDate = 1, endDate = 2"), 400),
            "no_trades",
        ),
        (
            Reply(
                refusal(
                    "Unprocessable Entity",
                    "1m data not available for startTime=1 and endTime=2. "
                    "The requested range must be within the last 30 days.",
                ),
                422,
            ),
            "outside_window",
        ),
    ],
    ids=["empty", "no data", "too old"],
)
def test_absence_has_a_reason(asked, reply, reason):
    """An empty answer is `no_trades`, and a range that Yahoo keeps no longer is `outside_window`."""
    with pytest.raises(NoBars) as caught:
        asked(yahoo(reply))
    assert caught.value.reason == reason


@pytest.mark.parametrize("everywhere", [False, True], ids=["prices", "everything"])
def test_too_many_requests_are_a_rate_limit(asked, everywhere):
    """HTTP 429 is `RateLimited`, never an absence: also where the very first question meets it."""
    limited = Reply("Too Many Requests", 429)
    with pytest.raises(RateLimited, match="Too Many Requests") as caught:
        asked(yahoo(limited, limited if everywhere else None), symbol="LIMIT" if everywhere else "AAPL")
    assert caught.value.retry_after is None


@pytest.mark.parametrize("everywhere", [False, True], ids=["prices", "everything"])
@pytest.mark.parametrize(
    ("said", "wait"), [(lambda: "77", 77), (lambda: formatdate(time.time() + 120, usegmt=True), 120)],
    ids=["seconds", "date"],
)  # fmt: skip
def test_how_long_yahoo_wants_to_be_left_alone_is_known(asked, said, wait, everywhere):
    """`Retry-After` of a 429 comes with the error, though yfinance's own error does not hold it."""
    limited = Reply("Too Many Requests", 429, {"Retry-After": said()})
    with pytest.raises(RateLimited) as caught:
        asked(yahoo(limited, limited if everywhere else None), symbol="ALONE" if everywhere else "AAPL")
    assert caught.value.retry_after == pytest.approx(wait, abs=30)


@pytest.mark.parametrize("times", range(3))
def test_an_unknown_symbol_is_named(asked, times):
    """A symbol that Yahoo does not find is unknown, each time it is asked for."""
    missing = Reply(refusal("Not Found", DELISTED), 404)
    with pytest.raises(UnknownSymbol, match="'NOPE'"):
        asked(yahoo(missing, missing), symbol="NOPE")


def test_a_symbol_that_is_gone_is_unknown(asked):
    """A symbol whose time zone is still remembered, but which Yahoo has no longer, is unknown."""
    asked(yahoo(Reply(chart())))
    with pytest.raises(UnknownSymbol, match="delisted"):
        asked(yahoo(Reply(refusal("Not Found", DELISTED), 404)))


@pytest.mark.parametrize(
    "reply",
    [
        Reply("<html>Bad gateway</html>", 502),
        Reply({"finance": {"result": None, "error": {"code": "Internal Server Error"}}}, 500),
        Reply(refusal("Unauthorized", "Invalid Crumb"), 401),
        Reply({"chart": {"result": None, "error": None}}),
        Reply(status=0),
    ],
    ids=["bad gateway", "internal error", "unauthorized", "nothing", "connection lost"],
)
@pytest.mark.parametrize("question", ["prices", "time zone"])
def test_what_fails_is_unavailable(asked, reply, question):
    """An error of Yahoo's or of the network is `SourceUnavailable`, not an absence and no unknown symbol."""
    answer = yahoo(reply) if question == "prices" else yahoo(reply, reply)
    with pytest.raises(SourceUnavailable) as caught:
        asked(answer, symbol="AAPL" if question == "prices" else "FRESH")
    assert caught.value.__cause__ is not None
    assert "delisted" not in str(caught.value)


def test_nobody_at_the_other_end_is_unavailable(certificate):
    """A refused connection is `SourceUnavailable`."""
    with serving(yahoo(Reply(chart())), certificate=certificate) as server:
        session = Session(proxies={"https": server.address})
    with pytest.raises(SourceUnavailable):
        run(YFinance(session=session).fetch("AAPL", START, END, "1d"))
    session.close()


def test_a_second_fetch_is_a_second_request(asked):
    """What yfinance keeps of the first answer is not served again: prices may have been restated."""
    answers = iter([Reply(chart(prices=100.0)), Reply(chart(prices=50.0))])
    answer = yahoo(lambda _: next(answers))
    assert [asked(answer)["Open"].iloc[0], asked(answer)["Open"].iloc[0]] == [100, 50]


def test_behind_a_guard_a_failure_that_passes_is_not_seen(certificate):
    """A bad gateway, then prices: the guard asks again, and does not get the same failure from a memory."""
    troubles = iter([Reply("<html>", 502)] * 2)  # yfinance itself asks a second time, with another cookie
    answer = yahoo(lambda _: next(troubles, Reply(chart())))
    with serving(answer, certificate=certificate) as server:
        session = Session(impersonate="chrome", verify=False, proxies={"https": server.address})
        guard = Guard(YFinance(session=session, rate_limit=None), retries=Retries(first=0.001, jitter=0))
        assert len(run(guard.fetch("AAPL", START, END, "1d"))) == 3
        assert guard.requests == 2
        session.close()


def test_yfinance_hides_its_errors_again(asked):
    """The setting that makes yfinance raise is as it was, after an answer and after an error."""
    for setting in (True, False):
        yf.config.debug.hide_exceptions = setting
        asked(yahoo(Reply(chart())))
        with pytest.raises(SourceUnavailable):
            asked(yahoo(Reply("", 502)))
        assert yf.config.debug.hide_exceptions is setting
    yf.config.debug.hide_exceptions = True


def test_nothing_is_printed(asked, capsys, caplog):
    """An unknown symbol and a failure are errors and nothing else: no output, nothing on yfinance's logger."""
    caplog.set_level(logging.WARNING, logger="yfinance")
    with pytest.raises(SourceUnavailable):
        asked(yahoo(Reply("", 502)))
    assert (capsys.readouterr(), caplog.records) == (("", ""), [])


def test_limits_are_yahoo_s():
    """Minutes: a week at once, a month back; other intraday bars 60 or 730 days, with an hour to spare."""
    traits = traits_of(YFinance())
    limits = {text: (traits.max_range(text), traits.window(text)) for text in ("1m", "5m", "1h", "1d")}
    hour = pd.Timedelta("1h")
    assert limits == {
        "1m": (pd.Timedelta("7D"), pd.Timedelta("30D") - hour),
        "5m": (pd.Timedelta("60D") - hour, pd.Timedelta("60D") - hour),
        "1h": (pd.Timedelta("730D") - hour, pd.Timedelta("730D") - hour),
        "1d": (None, None),
    }
    assert (traits.rate_limit, traits.adjusted) == ((2, 5.0), False)


@pytest.mark.parametrize(
    ("symbol", "calendar"),
    [
        ("AAPL", "XNYS"), ("BRK-B", "XNYS"), ("VOD.L", "XLON"), ("7203.T", "XTKS"), ("BHP.AX", "XASX"),
        ("BTC-USD", None), ("EURUSD=X", None), ("ES=F", None), ("^GSPC", None), ("ABC.XY", None),
    ],
)  # fmt: skip
def test_calendar_is_read_off_the_symbol(symbol, calendar):
    """A suffix names the market; what trades elsewhere, or on a market that is not known, has no calendar."""
    assert traits_of(YFinance()).calendar_for(symbol) == calendar


def test_every_calendar_is_one():
    """exchange_calendars knows every calendar that a symbol may have."""
    calendars = pytest.importorskip("exchange_calendars")
    from tradecache.sources.yfinance import CALENDARS

    assert set(CALENDARS.values()) <= set(calendars.get_calendar_names())


def test_an_interval_that_yahoo_does_not_have_is_named():
    """Four-hour bars are refused before anybody is asked, listing what there is."""
    with pytest.raises(InvalidInput, match="interval is '4h', but must be one of 1m, 2m, "):
        run(YFinance().fetch("AAPL", START, END, "4h"))


def test_name():
    """The source is called by its name."""
    assert (as_source("yfinance").name, repr(YFinance())) == ("yfinance", "<YFinance adjusted=False>")
