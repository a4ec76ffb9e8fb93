"""How does what a provider sent become a frame of bars in the one form that is stored?"""

import logging
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tradecache.errors import InvalidBars
from tradecache.intervals import Interval, interval_of
from tradecache.stores.arrow import in_utc
from tradecache.stores.sizes import owned

log = logging.getLogger("tradecache")

PRICES = ["open", "high", "low", "close"]
COLUMNS = [*PRICES, "volume"]
MISSING = ("", "nan", "NaN", "None", "null")
"""How a missing number is written in text."""
TIMES = "a time, or text in ISO 8601"
FLOAT, WHOLE = np.dtype("float64"), np.dtype("int64")
PLAIN = ([FLOAT] * 4 + [FLOAT], [FLOAT] * 4 + [WHOLE])
FEW = 3  # labels, of which two may be close for a reason
DAY = 86_400_000_000  # microseconds
SYMBOLS = ("symbol", "ticker")
"""Columns that say whose bars they are."""
LABELS = ("timestamp", "datetime", "date", "time")
"""Columns that may hold the labels where the index does not, in the order in which they are looked for."""


def empty_bars(interval: str | Interval) -> pd.DataFrame:
    """Return a frame of no bars, with the index and the columns that bars of `interval` have."""
    zone = "UTC" if interval_of(interval).is_intraday else None
    index = pd.DatetimeIndex([], dtype="M8[us]", name="timestamp").tz_localize(zone)
    return pd.DataFrame({name: np.empty(0) for name in COLUMNS}, index=index)


def normal_bars(
    frame: pd.DataFrame,
    *,
    interval: str | Interval,
    start: pd.Timestamp,
    end: pd.Timestamp,
    name: str = "",
    copy: bool = True,
) -> pd.DataFrame:
    """Return what a provider sent as bars of our form, and leave `frame` as it is.

    The form: index `timestamp` in microseconds, strictly increasing, in UTC for intraday bars and without a
    zone (session dates) for longer ones; columns open, high, low, close (float64), volume (float64, or int64
    when whole numbers came), then the others, in lower case.

    Repaired, with a note in the log: labels in a column, in another order, more than once (the last one is
    kept), outside [start, end), without a zone (taken as UTC) or not at the start of their day, week or
    month; numbers as objects; bars without any price (dropped). Labels in another zone become UTC, or the
    dates they show there.

    Args:
        frame: What came; no rows at all make an empty frame, whatever the columns.
        interval: How long each bar is.
        start: The first moment that was asked for, as sources are given it.
        end: The first moment after it.
        name: Whose bars they are, for the log.
        copy: Whether the result has to have arrays of its own, as whoever sent the frame may write to his.

    Raises:
        InvalidBars: When columns are missing, and naming each row that is no bar: a price that is missing or
            infinite, a high below its low, an infinite volume, a label that is no time. Negative prices are
            real for some futures, and pass.
    """
    if not isinstance(frame, pd.DataFrame):
        raise InvalidBars([(None, "frame", frame, "a DataFrame")])
    kind = interval_of(interval)
    if len(frame) == 0:
        return empty_bars(kind)
    if _is_in_form(frame, kind, start, end):
        return _own(frame, kind, copy=copy)
    notes = _Notes(name)
    labelled = _labelled(_plainly_named(frame), kind, notes)
    ordered = _ordered(labelled, notes)
    _check_interval(frame, ordered, kind)
    asked = _in_range(ordered, start, end, notes)
    bars = _priced(_numeric(asked), notes)
    _check(bars)
    return bars


def _own(frame: pd.DataFrame, interval: Interval, *, copy: bool) -> pd.DataFrame:
    """Return a frame that is in form under labels of our own; with `copy`, on arrays of its own."""
    own = owned(frame) if copy else frame.copy(deep=False)
    labels = pd.DatetimeIndex(own.index.array.view("M8[us]"), name="timestamp", copy=False)
    own.index = in_utc(labels) if interval.is_intraday else labels
    return own


def _is_in_form(frame: pd.DataFrame, interval: Interval, start: pd.Timestamp, end: pd.Timestamp) -> bool:
    """Whether there is nothing to do, as is usual where bars go in one by one."""
    index = frame.index
    if type(frame.columns) is not pd.Index or frame.columns.name is not None:
        return False
    if frame.columns.tolist() != COLUMNS or frame.dtypes.tolist() not in PLAIN:
        return False
    if not (isinstance(index, pd.DatetimeIndex) and _has_labels_of_ours(index, interval)):
        return False
    if not start <= index[0] <= index[-1] < end:
        return False
    *prices, volume = (column.to_numpy() for _, column in frame.items())
    are_finite = all(np.isfinite(price).all() for price in prices)
    return bool(are_finite and (prices[1] >= prices[2]).all() and not np.isinf(volume).any())


def _has_labels_of_ours(index: pd.DatetimeIndex, interval: Interval) -> bool:
    """Whether labels are in order, in the unit and the zone in which they are stored, and as far apart."""
    labels = index.asi8
    if (index.name, index.unit) != ("timestamp", "us") or index.hasnans or not (np.diff(labels) > 0).all():
        return False
    if interval.is_intraday:
        return str(index.tz) == "UTC" and not _are_closer(index, interval)
    return interval.text == "1d" and index.tz is None and not (labels % DAY).any()


class _Notes:
    """What was repaired in one answer: a line in the log for each."""

    def __init__(self, name: str) -> None:
        self._name = name or "bars"

    def say(self, count: int, what: str, *, level: int = logging.INFO) -> None:
        """Note that `count` bars needed something; of none there is nothing to say."""
        if count:
            log.log(level, "%s: %s %s", self._name, f"{count:,}", what)


def _plainly_named(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with one level of columns, in snake case, and one level of index."""
    names = [_plain(name) for name in _one_level(frame.columns)]
    if len(set(names)) < len(names) or not set(COLUMNS) <= set(names):
        allowed = f"{', '.join(COLUMNS)}, each of them once, and no other name twice"
        raise InvalidBars([(None, "columns", list(frame.columns), allowed)])
    named = frame.set_axis(names, axis="columns")
    for name in SYMBOLS:
        if name in names and len(several := named[name].unique()) > 1:
            raise InvalidBars([(None, name, several.tolist(), "the same in all rows: bars of one symbol")])
    return _without_symbol(named)


def _one_level(columns: pd.Index) -> Sequence[Hashable]:
    """Return the level that names the fields; the others may name one symbol only."""
    if not isinstance(columns, pd.MultiIndex):
        return list(columns)
    levels = [columns.get_level_values(level) for level in range(columns.nlevels)]
    fields = max(levels, key=lambda level: len({_plain(name) for name in level} & set(COLUMNS)))
    if any(len(level.unique()) > 1 for level in levels if level is not fields):
        raise InvalidBars([(None, "columns", list(columns), "those of one symbol")])
    return list(fields)


def _without_symbol(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame without those levels of its index that say the same of every row."""
    levels = frame.index.names if isinstance(frame.index, pd.MultiIndex) else []
    says = [frame.index.get_level_values(number) for number in range(len(levels))]
    needless: list[Hashable] = [
        number
        for number, level in enumerate(says)
        if not isinstance(level, pd.DatetimeIndex) and len(level.unique()) == 1
    ]
    return frame.droplevel(needless) if needless else frame


def _plain(name: Hashable) -> str:
    """Return a column's name in snake case.

    >>> _plain("Adj Close")
    'adj_close'
    """
    return "_".join(str(name).lower().replace("-", " ").split())


def _labelled(frame: pd.DataFrame, interval: Interval, notes: _Notes) -> pd.DataFrame:
    """Return the frame with labels of our form as its index, taken from a column where the index holds none."""
    column = None
    if not isinstance(frame.index, (pd.DatetimeIndex, pd.PeriodIndex)):
        column = next((name for name in LABELS if name in frame.columns), None)
    labels = frame.index if column is None else frame[column]
    notes.say(0 if column is None else len(frame), "labels taken from a column")
    times = _times(labels, interval)
    if times.hasnans:
        missing = np.flatnonzero(times.isna()).tolist()
        raise InvalidBars([(f"row {row}", "timestamp", pd.NaT, "a time") for row in missing])
    kept = frame if column is None else frame.drop(columns=column)
    return kept.set_axis(_in_form(times, interval, notes))


def _times(labels: Any, interval: Interval) -> pd.DatetimeIndex:
    """Return labels as times."""
    if isinstance(labels, pd.PeriodIndex):
        return labels.to_timestamp()
    if pd.api.types.is_numeric_dtype(labels):
        raise InvalidBars([(None, "timestamp", labels[:1].tolist()[0], TIMES)])
    try:
        return pd.DatetimeIndex(pd.to_datetime(labels, format="ISO8601"))
    except (ValueError, TypeError):
        return _times_of_several_zones(labels, interval)


def _times_of_several_zones(labels: Any, interval: Interval) -> pd.DatetimeIndex:
    """Return labels that are written with summer's and winter's offsets: as UTC, or as the dates they show."""
    try:
        if interval.is_intraday:
            return pd.DatetimeIndex(pd.to_datetime(labels, format="ISO8601", utc=True))
        shown = (pd.to_datetime(label, format="ISO8601").tz_localize(None) for label in labels)
        return pd.DatetimeIndex(list(shown))
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidBars([(None, "timestamp", str(error), TIMES)]) from error


def _in_form(times: pd.DatetimeIndex, interval: Interval, notes: _Notes) -> pd.DatetimeIndex:
    if interval.is_intraday:
        naive = len(times) if times.tz is None else 0
        notes.say(naive, "labels without a zone taken as UTC", level=logging.WARNING)
        times = times.tz_localize("UTC") if times.tz is None else times.tz_convert("UTC")
        return times.as_unit("us").rename("timestamp")
    shown = times.tz_localize(None)
    first = _first_days(shown, interval)
    notes.say(int((first != shown).sum()), f"labels moved to the start of their {interval.text}")
    return first.as_unit("us").rename("timestamp")


def _first_days(times: pd.DatetimeIndex, interval: Interval) -> pd.DatetimeIndex:
    """Return the session dates that label bars: the Monday of a week, the first of a month."""
    days = times.normalize()
    if interval.text.endswith("wk"):
        return days - pd.to_timedelta(days.day_of_week, unit="D")
    if interval.text.endswith("mo"):
        months = days.to_numpy().astype("M8[M]")
        return pd.DatetimeIndex((months - months.astype("int64") % interval.months).astype("M8[us]"))
    return days


def _ordered(bars: pd.DataFrame, notes: _Notes) -> pd.DataFrame:
    if not bars.index.is_monotonic_increasing:
        notes.say(len(bars), "bars put in order")
        bars = bars.sort_index(kind="stable")
    again = bars.index.duplicated(keep="last")
    notes.say(int(again.sum()), "bars came again, the last one of each label is kept")
    return bars[~again] if again.any() else bars


def _check_interval(frame: pd.DataFrame, bars: pd.DataFrame, interval: Interval) -> None:
    """Raise InvalidBars for bars that are shorter than they are said to be, such as minutes as days."""
    index = pd.DatetimeIndex(bars.index)
    is_crowded = not interval.is_intraday and len(frame) >= FEW and len(bars) <= len(frame) / 2
    if is_crowded or (interval.is_intraday and _are_closer(index, interval)):
        allowed = f"labels of bars that are {interval.text} long (say which interval= they have)"
        raise InvalidBars([(None, "timestamp", f"{len(frame):,} labels closer than that", allowed)])


def _are_closer(index: pd.DatetimeIndex, interval: Interval) -> bool:
    """Whether most labels are closer to the next one than a bar is long."""
    closer = np.count_nonzero(np.diff(index.asi8) < interval.microseconds)
    return len(index) >= FEW and bool(2 * closer > len(index) - 1)


def _in_range(bars: pd.DataFrame, start: pd.Timestamp, end: pd.Timestamp, notes: _Notes) -> pd.DataFrame:
    first, last = (int(bars.index.searchsorted(edge)) for edge in (start, end))
    notes.say(len(bars) - max(0, last - first), "bars outside the range that was asked for are left out")
    return bars.iloc[first:last]


def _numeric(bars: pd.DataFrame) -> pd.DataFrame:
    """Return the bars with the five columns first, all as numbers, and the others as they are.

    Other columns that hold numbers as objects become numbers too.
    """
    columns = {name: _numbers(bars[name]).astype("float64") for name in PRICES}
    columns["volume"] = _plain_numbers(_numbers(bars["volume"]))
    others = {name: _plain_type(bars[name]) for name in bars.columns if name not in columns}
    index = pd.DatetimeIndex(bars.index, freq=None)  # type: ignore[arg-type]  # the stubs know only text
    return pd.DataFrame({**columns, **others}, index=index)


def _numbers(column: pd.Series) -> pd.Series:
    """Return a column as numbers, whatever they came as.

    Raises:
        InvalidBars: Naming the rows that hold none.
    """
    if column.dtype.kind in "iuf":
        return column
    numbers = _parsed(column) if column.dtype.kind == "O" else pd.Series(np.nan, index=column.index)
    lost = numbers.isna() & column.notna()
    if lost.any():
        lost &= ~column.map(str).isin(MISSING)
    if lost.any():
        faults = zip(column.index[lost], column[lost], strict=True)
        raise InvalidBars([(label, str(column.name), value, "a number") for label, value in faults])
    return numbers


def _parsed(column: pd.Series) -> pd.Series:
    """Return the numbers that objects are, NaN for each that is none."""
    nothing = pd.Series(np.nan, index=column.index)
    try:
        numbers = pd.to_numeric(column, errors="coerce")
    except TypeError:  # lists, and the like
        return nothing
    return numbers if numbers.dtype.kind in "iuf" else nothing


def _plain_numbers(numbers: pd.Series) -> pd.Series:
    """Return numbers as int64 when they came as whole ones, else as float64."""
    is_whole = pd.api.types.is_integer_dtype(numbers.dtype) and not numbers.hasnans
    is_whole = is_whole and not (numbers.dtype.kind == "u" and (numbers > np.iinfo("int64").max).any())
    return numbers.astype("int64" if is_whole else "float64")


def _plain_type(column: pd.Series) -> pd.Series:
    """Return a column of objects as the numbers or the text that they are, and one that may have NA without."""
    if column.dtype != object:
        is_nullable = pd.api.types.is_extension_array_dtype(column.dtype) and column.dtype.kind in "iuf"
        return _plain_numbers(column) if is_nullable else column
    try:
        return _plain_numbers(_numbers(column))
    except InvalidBars:
        return column.infer_objects()


def _priced(bars: pd.DataFrame, notes: _Notes) -> pd.DataFrame:
    """Drop the bars that have no price at all."""
    empty = np.isnan(bars[PRICES].to_numpy()).all(axis=1)
    notes.say(int(empty.sum()), "bars without any price are left out", level=logging.WARNING)
    return bars[~empty] if empty.any() else bars


def _check(bars: pd.DataFrame) -> None:
    """Raise InvalidBars for what cannot have happened on a market."""
    faults = [
        (position, field, "a finite number")
        for field in PRICES
        for position in np.flatnonzero(~np.isfinite(bars[field].to_numpy())).tolist()
    ]
    volumes = np.isinf(bars["volume"].to_numpy(dtype="float64"))  # none is known of an index, and that is NaN
    faults += [
        (position, "volume", "a finite number or NaN") for position in np.flatnonzero(volumes).tolist()
    ]
    upside_down = np.flatnonzero(bars["high"].to_numpy() < bars["low"].to_numpy()).tolist()
    faults += [(position, "high", f"at least low, {bars['low'].iloc[position]}") for position in upside_down]
    if faults:
        faults.sort(key=lambda fault: fault[0])
        raise InvalidBars(
            [(bars.index[at], field, bars[field].iloc[at].item(), allowed) for at, field, allowed in faults]
        )
