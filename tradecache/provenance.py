"""Where did the bars of an answer come from, what would be fetched, what is stored? As frames."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from tradecache.bars import Answer
from tradecache.segments import Series
from tradecache.timeline import Range

EXPLAINED = {
    "symbol": "str", "source": "str", "interval": "str", "start": "datetime64[us, UTC]",
    "end": "datetime64[us, UTC]", "tier": "str", "why": "str", "rows": "int64", "seconds": "float64",
}  # fmt: skip
PLANNED = {
    "symbol": "str", "source": "str", "interval": "str", "start": "datetime64[us, UTC]", "end": "datetime64[us, UTC]",
}  # fmt: skip
COVERED = {
    "symbol": "str", "source": "str", "interval": "str", "start": "datetime64[us, UTC]",
    "end": "datetime64[us, UTC]", "state": "str", "outcome": "str", "rows": "int64", "bytes": "int64",
    "fetched_at": "datetime64[us, UTC]", "fresh_until": "datetime64[us, UTC]",
}  # fmt: skip
FAILED = {"error": "str", "message": "str", "is_left_out": "bool"}


class Covered(NamedTuple):
    """A span of a series, in which state it is, and what is stored for it."""

    series: Series
    start: int
    end: int
    state: str
    outcome: str
    rows: int
    bytes: int
    fetched_at: int | None
    fresh_until: int | None


def explain_frame(answers: Iterable[Answer]) -> pd.DataFrame:
    """Return one row for each span of some answers, in order."""
    rows = [
        (answer.series.symbol, answer.series.source, answer.series.interval, *span)
        for answer in answers
        for span in answer.spans
    ]
    return _frame(rows, EXPLAINED)


def plan_frame(plans: Iterable[tuple[Series, Sequence[Range]]]) -> pd.DataFrame:
    """Return one row for each request that a source would be sent."""
    rows = [
        (series.symbol, series.source, series.interval, start, end)
        for series, ranges in plans
        for start, end in ranges
    ]
    return _frame(rows, PLANNED)


def coverage_frame(spans: Iterable[Covered]) -> pd.DataFrame:
    """Return one row for each span of some series."""
    rows = [(each.series.symbol, each.series.source, each.series.interval, *each[1:]) for each in spans]
    return _frame(rows, COVERED)


def failures_frame(answers: Iterable[Answer]) -> pd.DataFrame:
    """Return one row for each symbol that the source could not give: index symbol; error, message, is_left_out."""
    rows = [
        (answer.series.symbol, type(answer.error).__name__, str(answer.error), answer.is_partial)
        for answer in answers
        if answer.error is not None
    ]
    return _frame(rows, {"symbol": "str", **FAILED}).set_index("symbol")


def _frame(rows: Sequence[tuple[Any, ...]], types: dict[str, str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(types))
    for name, kind in types.items():
        if kind.startswith("datetime64"):
            stamps = pd.array(frame[name].to_numpy(dtype="object"), dtype="Int64")
            missing = stamps.isna()
            plain = pd.DatetimeIndex(stamps.to_numpy(dtype="int64", na_value=0).view("M8[us]"), tz="UTC")
            frame[name] = pd.Series(plain).where(~missing)
    return frame.astype(types)
