"""Which frames does a researcher put into a cache?"""

from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd

COLUMNS = ["open", "high", "low", "close", "volume"]


def bars(rows: int = 5, *, freq: str = "min", tz: str | None = "UTC", seed: int = 0) -> pd.DataFrame:
    """Return OHLCV bars with a regular index called `timestamp`."""
    index = pd.date_range("2024-01-02 14:30", periods=rows, freq=freq, tz=tz, name="timestamp")
    prices = np.random.default_rng(seed).uniform(90, 110, (rows, 4))
    frame = pd.DataFrame(prices, columns=COLUMNS[:4], index=index)
    return frame.assign(volume=np.arange(rows, dtype="int64") * 100)


def daily(rows: int = 5) -> pd.DataFrame:
    """Return OHLCV bars of naive session dates."""
    frame = bars(rows)
    frame.index = pd.date_range("2024-01-02", periods=rows, freq="D", name="timestamp")
    return frame


def with_column(values: object) -> pd.DataFrame:
    """Return two rows of closes and one more column, `extra`."""
    return daily(2)[["close"]].assign(extra=values)


FRAMES = {
    "intraday bars": bars(),
    "daily bars": daily(),
    "another time zone": bars(tz="America/New_York"),
    "nanoseconds": bars().set_axis(bars().index.as_unit("ns")),
    "a slice of rows and columns": bars(20).iloc[3:11:2, 1:4],
    "missing prices": bars().replace({"close": {bars()["close"].iloc[1]: np.nan}}),
    "only missing prices": bars().assign(close=np.nan),
    "text": with_column(["halted", "née 世界 🌍"]),
    "text with nulls": with_column(["halted", None]),
    "text as objects": with_column(pd.Series(["halted", None], dtype=object, index=daily(2).index)),
    "labels as objects": bars().set_axis(pd.Index(COLUMNS, dtype=object), axis=1),
    "categories": with_column(pd.Categorical(["buy", "sell"], categories=["sell", "hold", "buy"])),
    "ordered categories": with_column(pd.Categorical(["a", "b"], categories=["b", "a"], ordered=True)),
    "nullable integers": with_column(pd.array([1, None], dtype="Int64")),
    "nullable booleans": with_column(pd.array([True, None], dtype="boolean")),
    "booleans": with_column([True, False]),
    "small numbers": with_column(np.array([1, 2], dtype="uint8")).astype({"close": "float32"}),
    "times in a column": with_column(pd.to_datetime(["2024-01-02", None], utc=True)),
    "spans of time": with_column(pd.to_timedelta([1, 2], unit="s")),
    "dates": with_column([date(2024, 1, 2), date(2024, 1, 3)]),
    "decimals": with_column([Decimal("1.50"), Decimal("2.25")]),
    "bytes": with_column([b"\0\xff", b""]),
    "nothing but nulls": with_column([None, None]),
    "no rows": bars(0),
    "no rows of text": with_column(["halted", "open"]).iloc[:0],
    "no columns": bars()[[]],
    "no index of its own": bars().reset_index(drop=True),
    "a stepped range": bars().set_axis(pd.RangeIndex(10, 0, -2, name="row")),
    "an index without a name": bars().rename_axis(None),
    "numbers as an index": bars().set_axis(pd.Index([3, 1, 4, 1, 5], name="tick")),
    "text as an index": bars().set_axis(pd.Index(list("edcba"), name="code")),
    "months as an index": bars().set_axis(pd.period_range("2024-01", periods=5, freq="M", name="month")),
    "spans as an index": bars().set_axis(pd.timedelta_range("0s", periods=5, freq="s", name="since")),
    "repeated times": pd.concat([bars(3), bars(3)]),
    "symbol and time": pd.concat({"AAPL": bars(), "MSFT": bars(seed=1)}, names=["symbol"]),
    "a column for each symbol": pd.concat(
        {"AAPL": bars(), "MSFT": bars(seed=1)}, axis=1, names=["symbol"]
    ).swaplevel(axis=1),
    "named columns": bars().rename_axis("field", axis=1),
    "numbered columns": bars().set_axis(range(5), axis=1),
}

UNSTORABLE_FRAMES = {
    "a label twice": bars().set_axis(["a", "b", "c", "d", "a"], axis=1),
    "labels of several kinds": bars().set_axis(["a", "b", "c", 1, "1"], axis=1),
    "an index called by a number": bars().rename_axis(7),
    "lists in cells": with_column([[1, 2], [3]]),
    "objects in cells": with_column([object(), object()]),
    "several kinds in one column": with_column(["text", 1]),
    "text that is no text": with_column(pd.Series(["\ud800", "b"], dtype=object, index=daily(2).index)),
}

WITHOUT_ARROW_TYPE = {
    "complex numbers": with_column([1j, 2j]),
    "sparse numbers": with_column(pd.arrays.SparseArray([0.0, 1.0])),
    "swapped bytes": with_column(np.array([1.0, 2.0], dtype=">f8")),
}
