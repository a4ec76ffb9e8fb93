"""How are the candles of crypto exchanges fetched through the package ccxt?"""

import asyncio
import contextlib
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from tradecache.barframes import COLUMNS, empty_bars
from tradecache.errors import (
    InvalidInput,
    MissingDependency,
    NoBars,
    RateLimited,
    SourceUnavailable,
    UnknownSymbol,
)
from tradecache.sources.base import bar_length
from tradecache.sources.retryafter import retry_after

TIMEFRAMES = {"1wk": "1w", "1mo": "1M"}
"""What ccxt calls the intervals for which it has names of its own."""
NEWEST = {"gate": 10_000, "hyperliquid": 5_000, "kraken": 720}
"""How many candles back some exchanges go, whatever they are asked."""
PAGE = 500  # candles of one request, where ccxt does not know an exchange's limit
EPOCH, MILLISECOND = pd.Timestamp(1970, 1, 1), pd.Timedelta(1, "ms")


class CCXT:
    """Candles of one of the exchanges that ccxt knows, by ccxt's unified symbols, such as BTC/USDT.

    ccxt itself keeps to the exchange's rate limit in one process; `rate_limit`, which is the same one for
    requests of the usual weight, has all processes keep to it together. `enableRateLimit=False` is for both.

    Args:
        exchange: The exchange's id in ccxt, such as "binance".
        config: What ccxt's constructor takes: proxies, keys, `options`, other `urls`.

    Raises:
        InvalidInput: When ccxt knows no such exchange, or it has no candles.
        MissingDependency: When ccxt is not installed.
    """

    settle = pd.Timedelta(minutes=1)
    timeout = 60.0  # the first request loads the list of all markets

    def __init__(self, exchange: str, *, config: Mapping[str, Any] | None = None) -> None:
        self.exchange = exchange
        self.name = f"ccxt:{exchange}"
        self._config = dict(config or {})
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loading: asyncio.Task[Any] | None = None
        facts = _made(exchange, self._config)
        if not facts.has.get("fetchOHLCV"):
            raise InvalidInput("exchange", exchange, "an exchange with candles")
        self.rate_limit = _rate_limit(facts)
        self._timeframes = tuple(facts.timeframes or ())
        self._longest = _longest(facts.features or {})

    def max_range(self, interval: str) -> pd.Timedelta:
        """Return the longest range that one request can answer."""
        return self._longest * bar_length(interval)

    def window(self, interval: str) -> pd.Timedelta | None:
        """Return how far back candles can be had."""
        candles = NEWEST.get(self.exchange)
        return None if candles is None else (candles - 1) * bar_length(interval)

    async def fetch(self, symbol: str, start: pd.Timestamp, end: pd.Timestamp, interval: str) -> pd.DataFrame:
        """Fetch candles with `fetch_ohlcv`, page by page.

        Raises:
            InvalidInput: For an interval that the exchange does not have.
            RateLimited: When the exchange, or the wall in front of it, wants fewer requests.
            SourceUnavailable: When the exchange cannot be reached, or answers with an error.
            UnknownSymbol: When the exchange has no such market.
            NoBars: When the market was opened after the range.
        """
        timeframe = self._timeframe(interval)
        client = self._on_this_loop()
        with _translated(client, symbol):
            await self._markets(client)
            opened = client.market(symbol).get("created")
            asked = _millis(start), _millis(end)
            if opened is not None and asked[1] <= opened:
                raise NoBars("before_listing")
            candles = await self._candles(client, symbol, timeframe, asked)
        return _frame(candles, interval)

    async def close(self) -> None:
        """Close the connections to the exchange."""
        client, self._client, loading, self._loading = self._client, None, self._loading, None
        if loading is not None:
            loading.cancel()
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.close()

    def __repr__(self) -> str:
        """Show the exchange."""
        return f"<CCXT {self.exchange}>"

    async def _candles(
        self, client: Any, symbol: str, timeframe: str, asked: tuple[int, int]
    ) -> list[list[float]]:
        since, end = asked
        step = client.parse_timeframe(timeframe) * 1_000
        most = client.feature_value(symbol, "fetchOHLCV", "limit") or PAGE
        candles: list[list[float]] = []
        while since < end:
            limit = min(most, -((since - end) // step))
            page = await client.fetch_ohlcv(symbol, timeframe, since, limit)
            candles += page
            newest = max((candle[0] for candle in page), default=0)
            since = newest + step if newest >= since else since + limit * step  # a gap is as long as a page
        return candles

    async def _markets(self, client: Any) -> None:
        """Wait until the markets are loaded, once for all who wait.

        One who gives up waiting does not end it for the others, as a plain `await` in ccxt would.
        """
        if client.markets:
            return
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(client.load_markets())
            self._loading.add_done_callback(_notice)
        await asyncio.shield(self._loading)

    def _on_this_loop(self) -> Any:
        """Return the client of the running loop; a client is of use in one loop only."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop, self._loading = _made(self.exchange, self._config), loop, None
        return self._client

    def _timeframe(self, interval: str) -> str:
        timeframe = TIMEFRAMES.get(interval, interval)
        if timeframe not in self._timeframes:
            names = {theirs: ours for ours, theirs in TIMEFRAMES.items()}
            allowed = ", ".join(names.get(each, each) for each in self._timeframes)
            raise InvalidInput("interval", interval, f"one that {self.exchange} has: {allowed}")
        return timeframe


def _notice(loading: "asyncio.Task[Any]") -> None:
    """Take notice of how loading ended: perhaps nobody waits any more."""
    if not loading.cancelled():
        loading.exception()


def _made(exchange: str, config: Mapping[str, Any]) -> Any:
    library = _library()
    if exchange not in library.exchanges:
        raise InvalidInput("exchange", exchange, f"one that ccxt knows: {', '.join(library.exchanges)}")
    return getattr(library, exchange)({**config})


def _library() -> Any:
    try:
        return importlib.import_module("ccxt.async_support")
    except ImportError as error:
        raise MissingDependency("ccxt", "ccxt") from error


def _rate_limit(facts: Any) -> tuple[int, float] | None:
    """Return how many requests in how many seconds, about one, ccxt's milliseconds between two of them allow."""
    if not facts.enableRateLimit or not facts.rateLimit:
        return None
    pause = facts.rateLimit / 1_000
    requests = max(1, round(1 / pause))
    return requests, round(requests * pause, 3)


def _longest(features: Mapping[str, Any]) -> int:
    """Return how many candles a request may bring at most; some of an exchange's markets may bring fewer."""
    kinds = [kind for kind in features.values() if kind]
    kinds += [sub for kind in kinds for sub in (kind.get("linear"), kind.get("inverse")) if sub]
    limits = [(kind.get("fetchOHLCV") or {}).get("limit") for kind in kinds]
    return max((limit for limit in limits if limit), default=PAGE)


def _millis(moment: pd.Timestamp) -> int:
    return (moment.tz_localize(None) - EPOCH) // MILLISECOND


def _frame(candles: list[list[float]], interval: str) -> pd.DataFrame:
    if not candles:
        return empty_bars(interval)
    frame = pd.DataFrame(candles, columns=["timestamp", *COLUMNS])
    labels = pd.to_datetime(frame["timestamp"], unit="ms", utc=True)
    return frame.drop(columns="timestamp").set_index(labels)


@contextlib.contextmanager
def _translated(client: Any, symbol: str) -> Iterator[None]:
    errors = importlib.import_module("ccxt.base.errors")
    try:
        yield
    except (errors.RateLimitExceeded, errors.DDoSProtection) as error:
        raise RateLimited(retry_after(client.last_response_headers), reason=error) from error
    except errors.BadSymbol as error:
        raise UnknownSymbol(symbol, reason=error) from error
    except errors.BaseError as error:
        raise SourceUnavailable(f"{type(error).__name__}: {error}") from error
