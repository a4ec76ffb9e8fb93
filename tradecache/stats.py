"""How do counters and events become frames?"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from tradecache.errors import InvalidInput
from tradecache.settings import Settings
from tradecache.telemetry import Event, Telemetry
from tradecache.wrappers import TierStatistics

By = Literal["tier", "symbol", "dataset", "operation"]
READS = ("get", "latest", "prices", "bars")
TIERS = ("memory", "disk")
MAX_BINS = 1_000_000  # more than that is a slip of the pen, and would fill the memory
MICROSECOND = pd.Timedelta(1, "us")

WARMED = {
    "points": "int64",
    "rows_cached": "int64",
    "rows_fetched": "int64",
    "requests": "int64",
    "seconds": "float64",
    "error": "str",
}

Window = str | float | timedelta
"""A width of time: seconds, a timedelta, or as pandas spells it."""

SERVED = {"memory", "disk"}
PASSED = ("memory", "disk", "source")
ASKED = {"get": ("memory", "disk"), "latest": ("disk",), "prices": ("disk",), "bars": PASSED}
"""Whom an operation asks, in turn. Questions about points by time go past memory, to disk."""

COLUMNS = {
    "requests": "int64",
    "hits": "int64",
    "misses": "int64",
    "errors": "int64",
    "hit_rate": "float64",
    "rows": "int64",
    "p50_us": "float64",
    "p95_us": "float64",
}
EVENTS = {
    "operation": "str",
    "dataset": "str",
    "symbol": "str",
    "tier": "str",
    "hit": "bool",
    "rows": "int64",
    "seconds": "float64",
}


def events_frame(telemetry: Telemetry) -> pd.DataFrame:
    """Return one row for each remembered request: index `time` (UTC), columns as in `EVENTS`."""
    frame = pd.DataFrame(telemetry.events(), columns=list(Event._fields))
    stamps = (frame.pop("time").astype("float64") * 1e6).round().astype("int64").to_numpy().view("M8[us]")
    frame["hit"] = frame["tier"].isin(SERVED)
    frame.index = pd.DatetimeIndex(stamps, name="time").tz_localize("UTC")
    return frame[list(EVENTS)].astype(EVENTS)


def stats_frame(telemetry: Telemetry, *, by: str = "tier") -> pd.DataFrame:
    """Return counters and latencies, one row for each tier, symbol, dataset or operation.

    Reads count as requests, hits and misses; by="operation" has the writes too. By tier, a request that
    memory could not serve is a miss of memory and a request to disk. Counts are exact since the cache was
    made or `reset_stats`; latencies (microseconds) are of the remembered events.
    """
    if by not in get_args(By):
        raise InvalidInput("by", by, f"one of {', '.join(get_args(By))}")
    if by == "tier":
        return _by_tier(telemetry)
    place = {"operation": 0, "dataset": 1, "symbol": 2}[by]
    table: dict[str, dict[str, int]] = {}
    for key, (requests, rows) in telemetry.counts().items():
        if by != "operation" and key[0] not in READS:
            continue
        row = table.setdefault(key[place], _no_requests())
        row["requests"] += requests
        row[_outcome(key[3])] += requests
        row["rows"] += rows
    frame = _typed(table, by)
    _add_latencies(frame, telemetry, lambda event: event[place + 1], reads_only=by != "operation")
    return frame.sort_index()


def _by_tier(telemetry: Telemetry) -> pd.DataFrame:
    """By tier: who was asked, who answered. Questions about points by time go past memory, to disk.

    A tier is asked when those before it could not answer. There is a source only where bars were asked for.
    """
    table = {tier: _no_requests() for tier in ("memory", "disk")}
    for (operation, _, _, tier), (requests, rows) in telemetry.counts().items():
        asked = ASKED.get(operation, ())
        for each in asked:
            row = table.setdefault(each, _no_requests())
            if tier in PASSED and PASSED.index(tier) < PASSED.index(each):
                break
            row["requests"] += requests
            if each == tier:
                row["hits"] += requests
                row["rows"] += rows
                break
            row["errors" if tier == "error" and each == asked[-1] else "misses"] += requests
    frame = _typed(table, "tier")
    _add_latencies(frame, telemetry, lambda event: event.tier, reads_only=True)
    return frame


def _no_requests() -> dict[str, int]:
    return dict.fromkeys(("requests", "hits", "misses", "errors", "rows"), 0)


def _outcome(tier: str) -> str:
    return "hits" if tier in SERVED else "errors" if tier == "error" else "misses"


def _typed(rows: dict[str, dict[str, int]], name: str) -> pd.DataFrame:
    frame = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=list(COLUMNS))
    answered = frame["hits"] + frame["misses"]
    frame["hit_rate"] = frame["hits"] / answered.where(answered > 0)
    frame.index = pd.Index(list(rows), dtype="str", name=name)
    return frame.astype(COLUMNS)


def _add_latencies(frame: pd.DataFrame, telemetry: Telemetry, of: Any, *, reads_only: bool) -> None:
    seconds: dict[str, list[float]] = {}
    for event in telemetry.events():
        if not reads_only or event.operation in READS:
            seconds.setdefault(of(event), []).append(event.seconds)
    for label, found in seconds.items():
        if label in frame.index:
            frame.loc[label, ["p50_us", "p95_us"]] = np.quantile(found, [0.5, 0.95]) * 1e6


def hit_rate_frame(telemetry: Telemetry, *, window: Window | None = None) -> pd.DataFrame:
    """Return the hit rate of reads over time.

    Args:
        telemetry: The events.
        window: Width of each bin, as seconds, a timedelta or as pandas spells it ("10s"); a hundredth of the
            time by default.

    Returns:
        Index `time` (UTC, each bin's start); columns requests, memory, disk (shares of the requests that
        each tier served, 0 to 1), hit_rate (their sum) and cumulative (the hit rate since the beginning).
    """
    events = events_frame(telemetry)
    reads = events[events["operation"].isin(READS)]
    width = _width(window, reads.index)
    flags = pd.DataFrame(
        {"requests": 1, **{tier: reads["tier"] == tier for tier in TIERS}}, index=reads.index
    )
    bins = (
        flags.astype("int64").resample(width, origin="start").sum() if len(flags) else flags.astype("int64")
    )
    result = pd.DataFrame({"requests": bins["requests"]})
    for tier in TIERS:
        result[tier] = bins[tier] / bins["requests"].where(bins["requests"] > 0)
    result["hit_rate"] = result["memory"] + result["disk"]
    hits = (bins["memory"] + bins["disk"]).cumsum()
    result["cumulative"] = hits / bins["requests"].cumsum()
    return result.astype(
        {"requests": "int64", **dict.fromkeys(("memory", "disk", "hit_rate", "cumulative"), "float64")}
    )


def _width(window: Window | None, index: pd.Index) -> pd.Timedelta:
    span = index.max() - index.min() if len(index) else pd.Timedelta(0)
    if window is None:
        return max(span / 100, pd.Timedelta(milliseconds=1)).ceil("us")
    try:
        width = pd.Timedelta(window) if isinstance(window, (str, timedelta)) else pd.Timedelta(seconds=window)
    except (ValueError, TypeError) as error:
        raise InvalidInput("window", window, 'a width like "10s", seconds, or a timedelta') from error
    least = max(span / MAX_BINS, MICROSECOND)
    if not width >= least:
        raise InvalidInput("window", window, f"at least {least.total_seconds():g} seconds")
    return width


def counts_by_symbol(counts: Mapping[str, int], *, name: str) -> pd.Series:
    """Return counts as a Series with the symbols as its index."""
    index = pd.Index(list(counts), dtype="str", name="symbol")
    return pd.Series(list(counts.values()), index=index, name=name, dtype="int64")


def warm_frame(rows: Sequence[tuple[str, int, float, str]]) -> pd.DataFrame:
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


def warmed_frame(reports: Sequence[Warmed]) -> pd.DataFrame:
    """Return one row for each symbol that was warmed: index symbol, the other fields as columns."""
    frame = pd.DataFrame(reports, columns=list(Warmed._fields))
    return frame.astype({"symbol": "str", **WARMED}).set_index("symbol")


def info_series(
    where: str, settings: Settings, memory: Mapping[str, int], disk: Mapping[str, int]
) -> pd.Series:
    """Return where the cache is and what each tier holds and may hold, in bytes and entries."""
    values: dict[str, Any] = {"cache_dir": where}
    values |= {f"memory_{name}": value for name, value in memory.items()}
    values |= {f"disk_{name}": value for name, value in disk.items()}
    values["disk_max_bytes"] = settings.disk_bytes
    return pd.Series(values, name="tradecache", dtype="object")


def hits(telemetry: Telemetry) -> tuple[int, int]:
    """Return how many reads there were, and how many of them memory or disk served."""
    reads = [(key[3], count) for key, (count, _) in telemetry.counts().items() if key[0] in READS]
    return sum(count for _, count in reads), sum(count for tier, count in reads if tier in SERVED)


def totals(statistics: TierStatistics) -> dict[str, int | float]:
    """Return what the outermost statistics wrapper has counted, with the hit rate in percent."""
    gets, hits, misses = statistics.totals("get")
    return {
        "total_gets": gets,
        "cache_hits": hits,
        "cache_misses": misses,
        "hit_rate_percent": 100.0 * hits / gets if gets else 0.0,
        "total_puts": statistics.totals("put")[0],
        "total_deletes": statistics.totals("delete")[0],
    }
