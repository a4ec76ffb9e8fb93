"""Which real market data is there without a network?"""

from functools import cache

import pandas as pd

from tradecache.errors import MissingDependency

CLOSE = pd.Timedelta(hours=16)  # of the New York Stock Exchange and of Nasdaq


def sample_points() -> pd.DataFrame:
    """Return the daily closes of AAPL, FB, GOOG, IBM and MSFT, March 2000 to March 2013, as price points.

    They come from the package bokeh_sampledata (Quandl WIKI prices, public domain): unadjusted close and
    volume of each session, stamped with its close at 16:00 in New York (half-days too).

    Returns:
        Columns symbol, price (US dollars), volume (shares), timestamp (UTC); sorted by time.

    Raises:
        MissingDependency: When bokeh_sampledata is not installed.
    """
    data = _rows()
    closes = (data["date"] + CLOSE).dt.tz_localize("America/New_York")
    frame = pd.DataFrame(
        {
            "symbol": data["ticker"],
            "price": data["close"],
            "volume": data["volume"].astype("float64"),
            "timestamp": closes.dt.tz_convert("UTC").dt.as_unit("us"),
        }
    )
    return frame.sort_values(["timestamp", "symbol"], ignore_index=True)


@cache
def sample_bars() -> dict[str, pd.DataFrame]:
    """Return the daily bars of the same five stocks, by symbol: raw prices, and `adj_close` beside them.

    Returns:
        Frames with session dates as index `timestamp`; open, high, low, close and adj_close in US dollars,
        volume in shares.

    Raises:
        MissingDependency: When bokeh_sampledata is not installed.
    """
    data = _rows().rename(columns={"date": "timestamp"}).set_index("timestamp")
    return {str(symbol): bars.drop(columns="ticker") for symbol, bars in data.groupby("ticker")}


def _rows() -> pd.DataFrame:
    try:
        from bokeh_sampledata.stocks import data
    except ImportError as error:
        raise MissingDependency("bokeh_sampledata", "demo") from error
    rows: pd.DataFrame = data.astype({"ticker": "str", "close": "float64"})
    return rows.assign(date=pd.to_datetime(rows["date"]).dt.as_unit("us"))
