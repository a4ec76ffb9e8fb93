"""How do counters and events become frames?"""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from tradecache.errors import InvalidInput, checked_choice
from tradecache.settings import Settings
from tradecache.telemetry import (
    BIN_SECONDS,
    HITS,
    READS,
    Bin,
    Counts,
    Event,
    Kind,
    Telemetry,
    Tier,
    cached_of,
    outcome_of,
)
from tradecache.wrappers import TierStatistics

By = Literal["tier", "symbol", "dataset", "operation"]
Split = Literal["tier", "symbol"]
MAX_BINS = 1_000_000  # more than that is a slip of the pen, and would fill the memory
MICROSECOND = pd.Timedelta(1, "us")

Window = str | float | timedelta
"""A width of time: seconds, a timedelta, or as pandas spells it."""

PASSED = ("memory", "disk", "team", "source")
ASKED = {"get": ("memory", "disk"), "latest": ("disk",), "prices": ("disk",), "bars": PASSED}
"""Whom an operation asks, in turn. Questions about points by time go past memory, to disk."""

COLUMNS = {
    "requests": "int64",
    "hits": "int64",
    "fetches": "int64",
    "misses": "int64",
    "errors": "int64",
    "stale": "int64",
    "hit_rate": "float64",
    "rows": "int64",
    "rows_cached": "int64",
    "bytes": "int64",
    "p50_us": "float64",
    "p95_us": "float64",
}
EVENTS = {
    "operation": "str",
    "dataset": "str",
    "symbol": "str",
    "tier": "str",
    "outcome": "str",
    "rows": "int64",
    "rows_cached": "int64",
    "bytes": "int64",
    "seconds": "float64",
}
RATES = {
    "requests": "int64",
    **dict.fromkeys((*get_args(Tier), "hit_rate", "cumulative"), "float64"),
}
HISTORY = {
    "operation": "str",
    "dataset": "str",
    "tier": "str",
    "outcome": "str",
    "requests": "int64",
    "rows": "int64",
    "bytes": "int64",
}


def events_frame(telemetry: Telemetry) -> pd.DataFrame:
    """Return one row for each remembered request: index `time` (UTC), columns as in `EVENTS`."""
    events = telemetry.events()
    frame = pd.DataFrame(events, columns=list(Event._fields))
    frame["outcome"] = [event.outcome for event in events]
    frame["rows_cached"] = [event.rows_cached for event in events]
    frame.index = _in_utc(frame.pop("time"))
    return frame[list(EVENTS)].astype(EVENTS)


def _in_utc(seconds: pd.Series) -> pd.DatetimeIndex:
    """Return seconds since the epoch as an index `time`."""
    stamps = (seconds.astype("float64") * 1e6).round().astype("int64").to_numpy().view("M8[us]")
    return pd.DatetimeIndex(stamps, name="time").tz_localize("UTC")


def stats_frame(telemetry: Telemetry, *, by: str = "tier") -> pd.DataFrame:
    """Return counters and latencies, one row for each tier, symbol, dataset or operation.

    In each row, requests = hits + fetches + misses + errors. Only reads count; by="operation" has the writes
    too. By tier, a request that memory could not serve is a miss of memory and a request to disk. Counts are exact
    since the cache was made or `reset_stats`; latencies (microseconds) are of the remembered events.
    """
    checked_choice("by", by, get_args(By))
    if by == "tier":
        return _by_tier(telemetry)
    table: dict[str, dict[str, int]] = {}
    for kind, counts in telemetry.counts().items():
        if by == "operation" or kind.operation in READS:
            row = table.setdefault(getattr(kind, by), _no_requests())
            _add(row, _outcome(kind), counts, rows=counts.rows)
            row["stale"] += counts.requests * kind.is_stale
            row["rows_cached"] += cached_of(kind.operation, kind.tier, rows=counts.rows, cached=counts.cached)
    frame = _typed(table, by)
    if by == "operation":
        frame.loc[~frame.index.isin(READS), "hit_rate"] = np.nan  # a write is done, or not
    _add_latencies(frame, telemetry, by, reads_only=by != "operation")
    return frame.sort_index()


def _by_tier(telemetry: Telemetry) -> pd.DataFrame:
    """By tier: who was asked, who answered.

    A tier is asked when those before it could not answer. There is a team only where the cache has one, and a source
    only where bars were asked for.
    """
    own = [tier for tier in HITS if tier != "team" or telemetry.has_team]
    table = {tier: _no_requests() for tier in own}
    for kind, counts in telemetry.counts().items():
        for tier, outcome in asked_of(kind, has_team=telemetry.has_team):
            row = table.setdefault(tier, _no_requests())
            _add(row, outcome, counts, rows=counts.rows_from(tier, last=kind.tier))
            row["stale"] += counts.requests * (kind.is_stale and tier == kind.tier)
    for tier in own:
        table[tier]["rows_cached"] = table[tier]["rows"]
    frame = _typed(table, "tier")
    frame.loc[frame.index == "source", "hit_rate"] = np.nan  # what it gives was not cached
    _add_latencies(frame, telemetry, "tier", reads_only=True)
    return frame


def asked_of(kind: Kind, *, has_team: bool) -> list[tuple[str, str]]:
    """Return the tiers that reads of a kind came to, in turn, each with the column that they count in there."""
    asked = [tier for tier in _asked(kind) if tier != "team" or has_team]
    return [(tier, _outcome_at(tier, kind, asked)) for tier in asked]


def _asked(kind: Kind) -> tuple[str, ...]:
    """Return the tiers that requests of a kind came to, in turn, up to the one that had the last of it."""
    asked = ASKED.get(kind.operation, ())
    if kind.tier in PASSED:
        return tuple(tier for tier in asked if PASSED.index(tier) <= PASSED.index(kind.tier))
    return asked


def _outcome_at(tier: str, kind: Kind, asked: Sequence[str]) -> str:
    """Return the column that a request counts in at one of the tiers that it came to."""
    if tier == kind.tier:
        return _outcome(kind)
    return "errors" if kind.tier == "error" and tier == asked[-1] else "misses"


def _add(row: dict[str, int], outcome: str, counts: Counts, *, rows: int) -> None:
    row["requests"] += counts.requests
    row[outcome] += counts.requests
    row["rows"] += rows
    row["bytes"] += counts.bytes * rows // max(counts.rows, 1)


def _no_requests() -> dict[str, int]:
    return dict.fromkeys((name for name, kind in COLUMNS.items() if kind == "int64"), 0)


def _outcome(kind: Kind) -> str:
    """Return the column that a request counts in."""
    if kind.tier in HITS:
        return "hits"
    return {"source": "fetches", "error": "errors"}.get(kind.tier, "misses")


def _typed(rows: dict[str, dict[str, int]], name: str) -> pd.DataFrame:
    frame = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=list(COLUMNS))
    frame["hit_rate"] = frame["hits"] / frame["requests"].where(frame["requests"] > 0)
    frame.index = pd.Index(list(rows), dtype="str", name=name)
    return frame.astype(COLUMNS)


def _add_latencies(frame: pd.DataFrame, telemetry: Telemetry, by: str, *, reads_only: bool) -> None:
    place = Event._fields.index(by)
    found = [
        (event[place], event.seconds)
        for event in telemetry.events()
        if not reads_only or event.operation in READS
    ]
    seconds = pd.DataFrame(found, columns=["label", "seconds"]).astype({"seconds": "float64"})
    grouped = seconds.groupby("label")["seconds"]
    frame["p50_us"] = grouped.quantile(0.5).reindex(frame.index) * 1e6
    frame["p95_us"] = grouped.quantile(0.95).reindex(frame.index) * 1e6


def hit_rate_frame(
    telemetry: Telemetry,
    *,
    window: Window | None = None,
    by: str = "tier",
    history: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return the hit rate of reads over time.

    Args:
        telemetry: The events.
        window: Width of each bin, as seconds, a timedelta or as pandas spells it ("10s"); a hundredth of the
            time by default.
        by: "tier" for one row a bin, "symbol" for one row a bin and symbol, in a column `symbol`.
        history: What `history_frame` returned, to be counted instead of the events.

    Returns:
        Index `time` (UTC, each bin's start); columns as in `RATES`: requests; memory, disk, team, source, none and
        error, which are shares of the requests (0 to 1, NaN in a bin without any) and add up to 1; hit_rate, the share
        of memory, disk and team together; and cumulative, the hit rate since the beginning.
    """
    checked_choice("by", by, get_args(Split))
    if history is None:
        reads, least = events_frame(telemetry).assign(requests=1), pd.Timedelta(1, "ms")
    elif by == "symbol":
        raise InvalidInput("by", by, "tier where a history is given, which knows no symbols")
    else:
        reads, least = _checked_history(history), pd.Timedelta(BIN_SECONDS, "s")
    reads = reads[reads["operation"].isin(READS)]
    symbols = pd.Index(reads["symbol"].unique() if by == "symbol" else [""], dtype="str").sort_values()
    narrowest = MICROSECOND if history is None else least
    width = _width(
        window, reads.index, least=least, narrowest=narrowest, most=MAX_BINS // max(len(symbols), 1)
    )
    if not len(reads):
        return _no_rates(by)
    start = reads.index.min() if history is None else reads.index.min().floor(width)
    rows = (
        symbols.get_indexer(pd.Index(reads["symbol"]))
        if by == "symbol"
        else np.zeros(len(reads), dtype="int64")
    )
    return _rates(reads, rows, start, width, names=symbols if by == "symbol" else None)


def _rates(
    reads: pd.DataFrame, rows: Any, start: pd.Timestamp, width: pd.Timedelta, *, names: pd.Index | None
) -> pd.DataFrame:
    """Return the shares of some reads in bins from `start` on, for each of some rows of bins."""
    places = np.asarray((pd.DatetimeIndex(reads.index) - start) // width, dtype="int64")
    bins, lines = int(places.max()) + 1, 1 if names is None else len(names)
    times = pd.date_range(start, periods=bins, freq=width, name="time", unit="us")
    asked, tiers = reads["requests"].to_numpy(), reads["tier"].to_numpy()
    cells = rows * bins + places
    counts = {
        tier: np.bincount(cells, weights=asked * (tiers == tier), minlength=lines * bins)
        for tier in get_args(Tier)
    }
    table = pd.DataFrame(counts)
    requests, hits = table.sum(axis=1), table[list(HITS)].sum(axis=1)
    result = table.div(requests.where(requests > 0), axis=0)
    result.insert(0, "requests", requests)
    line = np.repeat(np.arange(lines), bins)
    so_far = requests.groupby(line).cumsum()
    result["hit_rate"] = result[list(HITS)].sum(axis=1, skipna=False)
    result["cumulative"] = hits.groupby(line).cumsum() / so_far.where(so_far > 0)
    result.index = times if names is None else times.append([times] * (lines - 1))
    if names is not None:
        result.insert(0, "symbol", names.repeat(bins))
    return result.astype(RATES)


def _no_rates(by: str) -> pd.DataFrame:
    columns = {"symbol": "str", **RATES} if by == "symbol" else RATES
    index = pd.DatetimeIndex([], dtype="datetime64[us, UTC]", name="time")
    return pd.DataFrame(columns=list(columns), index=index).astype(columns)


def history_frame(bins: Sequence[Bin]) -> pd.DataFrame:
    """Return counts of requests over time, of all sessions together.

    Returns:
        Index `time` (UTC, each bin's start), columns as in `HISTORY`: one row for each time and kind of request.
    """
    frame = pd.DataFrame(bins, columns=list(Bin._fields))
    frame["outcome"] = [outcome_of(each.operation, each.tier, is_stale=each.is_stale) for each in bins]
    sums = frame.groupby(["start", *list(HISTORY)[:4]], as_index=False)[list(HISTORY)[4:]].sum()
    sums.index = _in_utc(sums.pop("start"))
    return sums[list(HISTORY)].astype(HISTORY)


def _checked_history(history: object) -> pd.DataFrame:
    is_one = isinstance(history, pd.DataFrame) and isinstance(history.index, pd.DatetimeIndex)
    if not isinstance(history, pd.DataFrame) or not is_one or not {*HISTORY} <= {*history.columns}:
        raise InvalidInput("history", history, "a frame that `history()` returned")
    return history


def _width(
    window: Window | None, index: pd.Index, *, least: pd.Timedelta, narrowest: pd.Timedelta, most: int
) -> pd.Timedelta:
    """Return the width of a bin: a hundredth of the time, or `least`, or what was asked for.

    Raises:
        InvalidInput: For what is no width, is below the `narrowest`, or would make more than `most` bins.
    """
    span = index.max() - index.min() if len(index) else pd.Timedelta(0)
    if window is None:
        return max(span / min(100, most), least).ceil("us")
    # pandas wants days to be spelt so
    spelt = re.sub(r"(?<=\d)\s*d$", "D", window) if isinstance(window, str) else window
    try:
        width = pd.Timedelta(spelt) if isinstance(spelt, (str, timedelta)) else pd.Timedelta(seconds=spelt)
    except (ValueError, TypeError) as error:
        raise InvalidInput("window", window, 'a width like "10s", seconds, or a timedelta') from error
    lowest = max(span / most, narrowest)
    if not width >= lowest:
        raise InvalidInput("window", window, f"at least {lowest.total_seconds():g} seconds")
    return width.ceil("us")


def counts_by_symbol(counts: Mapping[str, int], *, name: str) -> pd.Series:
    """Return counts as a Series with the symbols as its index."""
    index = pd.Index(list(counts), dtype="str", name="symbol")
    return pd.Series(list(counts.values()), index=index, name=name, dtype="int64")


def points_warmed_frame(rows: Sequence[tuple[str, int, float, str]]) -> pd.DataFrame:
    """Return a warm-up's report: index symbol, columns rows, seconds, error."""
    frame = pd.DataFrame(rows, columns=["symbol", "rows", "seconds", "error"])
    types = {"symbol": "str", "rows": "int64", "seconds": "float64", "error": "str"}
    return frame.astype(types).set_index("symbol")


class Warmed(NamedTuple):
    """What warming one symbol did."""

    symbol: str
    points: int
    rows_cached: int
    rows_fetched: int
    requests: int
    seconds: float
    error: str


WARMED = {
    name: {int: "int64", float: "float64", str: "str"}[kind]
    for name, kind in Warmed.__annotations__.items()
    if name != "symbol"
}


def warmed_frame(reports: Sequence[Warmed]) -> pd.DataFrame:
    """Return one row for each symbol that was warmed: index symbol, the other fields as columns."""
    frame = pd.DataFrame(reports, columns=list(Warmed._fields))
    return frame.astype({"symbol": "str", **WARMED}).set_index("symbol")


def info_series(
    where: str,
    settings: Settings,
    memory: Mapping[str, int],
    disk: Mapping[str, int],
    servers: Mapping[str, bool],
) -> pd.Series:
    """Return where the cache is, what each tier holds and may hold, in bytes and entries, and which servers answer."""
    values: dict[str, Any] = {"cache_dir": where}
    values |= {f"{role}_server": "answers" if is_up else "away" for role, is_up in servers.items()}
    values |= {f"memory_{name}": value for name, value in memory.items()}
    values |= {f"disk_{name}": value for name, value in disk.items()}
    values["disk_max_bytes"] = settings.disk_bytes
    return pd.Series(values, name="tradecache", dtype="object")


def totals(telemetry: Telemetry, points: TierStatistics) -> dict[str, int | float]:
    """Return how many reads there were and how many memory or disk answered, and what was written of points."""
    reads = telemetry.reads()
    return {
        "total_gets": reads.requests,
        "cache_hits": reads.hits,
        "cache_misses": reads.requests - reads.hits,
        "hit_rate_percent": 100.0 * reads.hits / reads.requests if reads.requests else 0.0,
        "total_puts": points.totals("put")[0],
        "total_deletes": points.totals("delete")[0],
    }
