"""How are Yahoo's bars fetched through the package yfinance?"""

import contextlib
import importlib
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import pandas as pd

from tradecache.bridge import in_thread
from tradecache.errors import (
    InvalidInput,
    MissingDependency,
    NoBars,
    RateLimited,
    SourceUnavailable,
    UnknownSymbol,
)
from tradecache.sources.retryafter import retry_after

DAYS = {"1m": 30, "2m": 60, "5m": 60, "15m": 60, "30m": 60, "60m": 730, "90m": 60, "1h": 730}
"""How far back Yahoo has intraday bars; longer ones it has from the beginning."""
INTERVALS = (*DAYS, "1d", "1wk", "1mo")
MARGIN = pd.Timedelta(hours=1)  # a request that begins a second before the window is refused as a whole
LONGEST_MINUTES = pd.Timedelta(days=7)  # of one request for 1m
NOT_FOUND = 404
PATIENCE = 10.0  # seconds for one of the HTTP requests that a call makes

CALENDARS = {
    "": "XNYS", "AS": "XAMS", "AT": "ASEX", "AX": "XASX", "BA": "XBUE", "BD": "XBUD", "BK": "XBKK",
    "BO": "XBOM", "BR": "XBRU", "CO": "XCSE", "DE": "XETR", "F": "XFRA", "HE": "XHEL", "HK": "XHKG",
    "IC": "XICE", "IR": "XDUB", "IS": "XIST", "JK": "XIDX", "JO": "XJSE", "KL": "XKLS", "KQ": "XKRX",
    "KS": "XKRX", "L": "XLON", "LS": "XLIS", "MC": "XMAD", "MI": "XMIL", "MX": "XMEX", "NS": "XBOM",
    "NZ": "XNZE", "OL": "XOSL", "PA": "XPAR", "PR": "XPRA", "SA": "BVMF", "SI": "XSES", "SN": "XSGO",
    "SR": "XSAU", "SS": "XSHG", "ST": "XSTO", "SW": "XSWX", "SZ": "XSHG", "T": "XTKS", "TA": "XTAE",
    "TL": "XTAL", "TO": "XTSE", "TW": "XTAI", "TWO": "XTAI", "V": "XTSE", "VI": "XWBO", "WA": "XWAR",
}  # fmt: skip
"""The market calendar of each suffix of Yahoo's symbols; none is a stock of the United States."""
CURRENCIES = ("USD", "EUR", "GBP", "JPY", "CAD", "AUD", "INR", "KRW", "USDT", "BTC", "ETH")


class YFinance:
    """Yahoo Finance. Prices are adjusted for splits; for dividends too where `adjusted`.

    Unadjusted bars have `adj_close`, `dividends` and `stock_splits` beside them, as of the day they were
    fetched. Yahoo restates whole histories after a split, which a cache cannot know: `refresh` them then.

    While a request is under way, yfinance raises its errors (`config.debug.hide_exceptions` is off), because
    otherwise a rate limit or a broken network could not be told from a symbol without trades.

    Args:
        adjusted: Whether open, high, low and close are adjusted for dividends.
        session: A session of curl_cffi or requests for all requests; yfinance's own by default.
        rate_limit: (requests, seconds), of all processes; what yfinance's documentation recommends by default.
    """

    budget = "yfinance"  # whether prices are adjusted or not
    concurrency = 2
    timeout = 60.0  # a call may make several requests, for a cookie, a token and the time zone
    settle = pd.Timedelta(hours=4)  # volumes are edited late

    def __init__(
        self,
        *,
        adjusted: bool = False,
        session: Any = None,
        rate_limit: tuple[int, float] | None = (2, 5.0),
    ) -> None:
        self.adjusted = adjusted
        self.rate_limit = rate_limit
        self.name = "yfinance adjusted" if adjusted else "yfinance"
        self._session = session

    def calendar_for(self, symbol: str) -> str | None:
        """Return a symbol's market calendar; None for currencies, futures and markets that are not known.

        >>> source = YFinance()
        >>> source.calendar_for("AAPL"), source.calendar_for("VOD.L"), source.calendar_for("BTC-USD")
        ('XNYS', 'XLON', None)
        """
        if "=" in symbol or symbol.startswith("^") or symbol.rpartition("-")[2] in CURRENCIES:
            return None
        return CALENDARS.get(symbol.partition(".")[2])

    def window(self, interval: str) -> pd.Timedelta | None:
        """Return how far back an interval can be had."""
        days = DAYS.get(interval)
        return None if days is None else pd.Timedelta(days, "D") - MARGIN

    def max_range(self, interval: str) -> pd.Timedelta | None:
        """Return the longest range of one request."""
        return LONGEST_MINUTES if interval == "1m" else self.window(interval)

    async def fetch(self, symbol: str, start: pd.Timestamp, end: pd.Timestamp, interval: str) -> pd.DataFrame:
        """Fetch bars with `yfinance.Ticker(symbol).history`.

        Raises:
            InvalidInput: For an interval that Yahoo does not have.
            RateLimited: For HTTP 429.
            SourceUnavailable: When Yahoo cannot be reached, or answers with an error.
            UnknownSymbol: When Yahoo has no such symbol, or none any more.
            NoBars: When the range lies outside of what Yahoo keeps.
            MissingDependency: When yfinance is not installed.
        """
        if interval not in INTERVALS:
            raise InvalidInput("interval", interval, f"one of {', '.join(INTERVALS)}")
        return await in_thread(self._history, symbol, start, end, interval)

    def __repr__(self) -> str:
        """Show whether prices are adjusted."""
        return f"<YFinance adjusted={self.adjusted}>"

    def _history(self, symbol: str, start: pd.Timestamp, end: pd.Timestamp, interval: str) -> pd.DataFrame:
        yf = _library()
        yf.data.YfData.cache_get.cache_clear()  # which also keeps errors, and prices that were restated since
        ticker = yf.Ticker(symbol, session=self._session)
        with _raising.during(yf.config.debug):
            try:
                frame: pd.DataFrame = ticker.history(
                    start=start, end=end, interval=interval, auto_adjust=self.adjusted, timeout=PATIENCE
                )
            except Exception as error:
                raise _meaning(yf, ticker, error) from error
        return frame


def _library() -> Any:
    try:
        return importlib.import_module("yfinance")
    except ImportError as error:
        raise MissingDependency("yfinance", "yfinance") from error


class _Raising:
    """Lets yfinance raise its errors as long as at least one call is under way; its setting is the process's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._was_hiding = True

    @contextlib.contextmanager
    def during(self, settings: Any) -> Iterator[None]:
        """Change `settings`, yfinance's `config.debug`, while a call is under way."""
        with self._lock:
            if self._calls == 0:
                self._was_hiding, settings.hide_exceptions = settings.hide_exceptions, False
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                if self._calls == 0:
                    settings.hide_exceptions = self._was_hiding


_raising = _Raising()


def _meaning(yf: Any, ticker: Any, error: Exception) -> Exception:
    """Say in our errors what it means that yfinance raised one."""
    errors = yf.exceptions
    if isinstance(error, errors.YFRateLimitError):
        return RateLimited(_wait(error), reason=error)
    if isinstance(error, errors.YFPricesMissingError):
        return _absence(ticker, error)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.YFTzMissingError):
        status = _status(yf, ticker.ticker)
    if status == NOT_FOUND:
        return UnknownSymbol(ticker.ticker)
    if status is not None:
        return SourceUnavailable(f"HTTP {status}")
    return SourceUnavailable(f"{type(error).__name__}: {error}")


def _wait(error: BaseException) -> float | None:
    """Return the seconds that Yahoo wants to be left alone, if its answer says so.

    yfinance's error does not hold the answer, but the function that raised it still does.
    """
    said = [frame.f_locals.get("response") for frame, _ in traceback.walk_tb(error.__traceback__)]
    waits = [retry_after(getattr(response, "headers", None)) for response in said]
    return next((wait for wait in reversed(waits) if wait is not None), None)


def _absence(ticker: Any, error: Any) -> Exception:
    """Say what it means that Yahoo sent no prices; it rarely says so itself, and then in one of these words."""
    said = error.yahoo_reason
    if said is None:
        has_answered = (
            "symbol" in ticker.history_metadata
        )  # an empty answer tells of the symbol, a failure not
        return NoBars("no_trades") if has_answered else SourceUnavailable("an answer without a chart")
    words = said.lower()
    if "delisted" in words:
        return UnknownSymbol(ticker.ticker, reason=said)
    if "must be within the last" in words or "data not available" in words:
        return NoBars("outside_window")
    if "data doesn't exist" in words:
        return NoBars("no_trades")
    return SourceUnavailable(said)


def _status(yf: Any, symbol: str) -> int:
    """Return how Yahoo answered the question for a symbol's time zone, which yfinance remembers."""
    url = f"{yf.const._BASE_URL_}/v8/finance/chart/{symbol}"
    answer = yf.data.YfData().cache_get(url=url, params={"range": "1d", "interval": "1d"}, timeout=10)
    return int(answer.status_code)
