"""What is stored, of which symbol and source? Read without asking anybody: no library, no network."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from tradecache.errors import InvalidInput, SourceUnavailable
from tradecache.export import checked_path, write_frame
from tradecache.frames import TradeCache
from tradecache.naming import PRICES, bars_dataset
from tradecache.ranges import Moment
from tradecache.segments import LOCAL
from tradecache.sources.catalog import as_source

EVER = ("1700", "2299")  # wider than any bars that can be stored
FOLDERS = "files:"
STATES = ("final", "fresh", "stale")
HELD = {
    "symbol": "str", "dataset": "str", "source": "str", "entries": "int64", "rows": "int64", "bytes": "int64",
    "first": "datetime64[us, UTC]", "last": "datetime64[us, UTC]", "final": "Int64", "fresh": "Int64",
    "stale": "Int64",
}  # fmt: skip


class Held(NamedTuple):
    """What is stored of one symbol in one dataset from one source."""

    symbol: str
    dataset: str
    source: str
    entries: int
    rows: int
    bytes: int
    first: pd.Timestamp | None
    last: pd.Timestamp | None
    final: int | None = None
    fresh: int | None = None
    stale: int | None = None


class Exported(NamedTuple):
    """A file that was written, how many rows it has, and of which symbols there were none to write."""

    path: Path
    rows: int
    without: list[str]


class StoredOnly:
    """The name of a source without the source: what is stored under it is read, and nobody is asked."""

    first = pd.Timestamp(9999, 1, 1)  # bars that begin so late are never worth a question
    settle = pd.Timedelta(0)

    def __init__(self, name: str) -> None:
        self.name = name

    async def fetch(self, symbol: str, start: pd.Timestamp, end: pd.Timestamp, interval: str) -> pd.DataFrame:
        """Refuse.

        Raises:
            SourceUnavailable: Always.
        """
        raise SourceUnavailable(f"{interval} from {start} to {end} is not stored", symbol=symbol)

    def __repr__(self) -> str:
        """Show the name."""
        return f"<StoredOnly {self.name}>"


def stored_name(source: str) -> str:
    """Return the name under which bars of a source are kept, without its library.

    >>> stored_name("ccxt:binance")
    'ccxt:binance'
    """
    return as_source(source).name if source.startswith(FOLDERS) else source


def stored_coverage(
    cache: TradeCache,
    symbols: Sequence[str] | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    *,
    interval: str | None = None,
    source: str | None = None,
) -> pd.DataFrame:
    """Return `TradeCache.coverage`, where a source is only a name: its library need not be installed."""
    frame = cache.coverage(symbols, start, end, interval=interval)
    return frame if source is None else frame[frame["source"] == stored_name(source)]


def held_frame(cache: TradeCache, symbols: Sequence[str] | None = None) -> pd.DataFrame:
    """Return how much is stored of some symbols (default: all), in order.

    Returns:
        One row for each symbol, dataset ("prices", "bars 1d") and source: entries (points, or spans as `coverage`
        counts them), rows, bytes (as frames in memory), first and last (UTC; labels of bars), and for bars how
        many of the rows are final, fresh and stale (NA for price points).
    """
    rows = [*_held_points(cache.prices(symbols)), *_held_bars(cache, cache.coverage(symbols))]
    frame = pd.DataFrame(rows, columns=list(HELD)).astype(HELD)
    return frame.sort_values(["symbol", "dataset", "source"], ignore_index=True)


def export_stored(
    cache: TradeCache,
    path: str | Path,
    symbols: Sequence[str],
    start: Moment | None = None,
    end: Moment | None = None,
    *,
    interval: str | None = None,
    source: str | None = None,
) -> Exported | None:
    """Write stored price points, or with an interval stored bars, fresh or not, to a file.

    Args:
        cache: Where they are.
        path: A .parquet, .csv or .feather file.
        symbols: Which ones.
        start: The first moment; from the beginning by default.
        end: The last moment, included.
        interval: How long a bar is; None: price points.
        source: Where the bars came from; by default the only source of which some are stored.

    Returns:
        What was written; None, and no file, when nothing of it is stored.

    Raises:
        InvalidInput: For another suffix, and when there is more than one source to choose from.
    """
    chosen = checked_path(path)
    if interval is None:
        frame = cache.prices(symbols, start, end)
        found = set(frame["symbol"])
    else:
        wanted = _only_source(cache.coverage(symbols, interval=interval)) if source is None else source
        frame = _stored_bars(cache, symbols, start, end, interval=interval, source=stored_name(wanted))
        found = set(frame.index.get_level_values("symbol"))
    if frame.empty:
        return None
    without = [symbol for symbol in dict.fromkeys(symbols) if symbol not in found]
    return Exported(write_frame(frame, chosen), len(frame), without)


def _only_source(coverage: pd.DataFrame) -> str:
    """Return the source that all stored bars are from."""
    names = sorted(coverage.loc[coverage["rows"] > 0, "source"].unique())
    if len(names) > 1:
        raise InvalidInput("source", None, f"one of {', '.join(map(repr, names))}, which all have such bars")
    return names[0] if names else LOCAL


def _stored_bars(
    cache: TradeCache,
    symbols: Sequence[str],
    start: Moment | None,
    end: Moment | None,
    *,
    interval: str,
    source: str,
) -> pd.DataFrame:
    """Return stored bars, in the long layout."""
    begin = EVER[0] if start is None else start  # without one it would be the source's `first`
    stop = EVER[1] if end is None else end
    whom: Any = LOCAL if source == LOCAL else StoredOnly(source)
    return cache.bars(symbols, begin, stop, interval=interval, source=whom, layout="long")


def _held_points(points: pd.DataFrame) -> Iterator[Held]:
    for symbol, some in points.groupby("symbol"):
        size = int(some.memory_usage(index=True).sum())
        yield Held(str(symbol), PRICES, LOCAL, len(some), len(some), size, some.index[0], some.index[-1])


def _held_bars(cache: TradeCache, coverage: pd.DataFrame) -> Iterator[Held]:
    stored = coverage[coverage["outcome"] != ""]
    for series, spans in stored.groupby(["symbol", "interval", "source"]):
        symbol, interval, source = map(str, series)
        rows, size = (int(spans[name].sum()) for name in ("rows", "bytes"))
        states = [int(spans.loc[spans["state"] == state, "rows"].sum()) for state in STATES]
        first, last = _edges(cache, spans[spans["rows"] > 0])
        yield Held(symbol, bars_dataset(interval), source, len(spans), rows, size, first, last, *states)


def _edges(cache: TradeCache, spans: pd.DataFrame) -> tuple[pd.Timestamp | None, pd.Timestamp | None]:
    """Return the labels of the first and the last bar: spans reach further, so their bars are looked at."""
    labels: list[pd.Timestamp] = []
    ends: list[Any] = list(spans.iloc[[0, -1]].itertuples()) if len(spans) else []
    for span in ends:
        bars = _stored_bars(
            cache, [span.symbol], span.start, span.end, interval=span.interval, source=span.source
        )
        labels += bars.index[[0, -1]].get_level_values("timestamp").tolist() if len(bars) else []
    return (_utc(min(labels)), _utc(max(labels))) if labels else (None, None)


def _utc(moment: pd.Timestamp) -> pd.Timestamp:
    return moment.tz_localize("UTC") if moment.tz is None else moment
