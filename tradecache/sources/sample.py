"""Where do the bars of five real stocks come from without a network?"""

import pandas as pd

from tradecache.errors import InvalidInput, NoBars, UnknownSymbol
from tradecache.samples import sample_bars


class SampleData:
    """Daily bars of AAPL, FB, GOOG, IBM and MSFT, March 2000 to March 2013, from the package bokeh_sampledata.

    Raw prices as they were traded, with `adj_close` beside them.
    """

    name = "sample"
    calendar_for = "XNYS"
    adjusted = False
    budget = ""  # nobody is asked over a network
    settle = pd.Timedelta(0)

    def first(self, symbol: str, interval: str) -> pd.Timestamp | None:  # noqa: ARG002 - there is one interval
        """Return the first session of a symbol."""
        bars = sample_bars().get(symbol)
        return None if bars is None else bars.index[0]

    async def fetch(self, symbol: str, start: pd.Timestamp, end: pd.Timestamp, interval: str) -> pd.DataFrame:
        """Return the bars in [start, end).

        Raises:
            InvalidInput: For any interval but "1d".
            UnknownSymbol: For any symbol but the five.
            NoBars: For a range before the symbol was listed, or after the data end.
            MissingDependency: When bokeh_sampledata is not installed.
        """
        if interval != "1d":
            raise InvalidInput("interval", interval, "'1d', the only one that the sample data have")
        bars = sample_bars().get(symbol)
        if bars is None:
            raise UnknownSymbol(symbol, reason=f"there are {', '.join(sample_bars())}")
        if end <= bars.index[0]:
            raise NoBars("before_listing")
        if start > bars.index[-1]:
            raise NoBars("outside_window")
        first, last = bars.index.searchsorted([start, end])
        return bars.iloc[first:last]

    def __repr__(self) -> str:
        """Show which stocks there are, without loading them."""
        return "<SampleData AAPL FB GOOG IBM MSFT>"
