"""What do the two ends of a range of time mean?"""

from datetime import UTC, date, datetime
from typing import Any, Literal

import numpy as np
import pandas as pd

from tradecache.errors import InvalidInput

Moment = str | date | datetime | pd.Timestamp | np.datetime64
"""A moment as a researcher writes it: "2013-03-01", a date, a datetime, a Timestamp; UTC where it says nothing."""

MICROSECOND = pd.Timedelta(1, "us")

Side = Literal["start_time", "end_time"]

ALLOWED = "a date or a time, as text, date, datetime or Timestamp"


def first_moment(start: Moment | None) -> datetime | None:
    """Return the first moment that `start` includes, aware, in UTC.

    >>> first_moment("2013-03").isoformat()
    '2013-03-01T00:00:00+00:00'
    """
    return None if start is None else _edge(start, "start", "start_time")


def last_moment(end: Moment | None) -> datetime | None:
    """Return the last moment that `end` includes, as pandas' `.loc` does: a day, month or year as a whole.

    >>> last_moment("2013-03-01").isoformat()
    '2013-03-01T23:59:59.999999+00:00'
    """
    return None if end is None else _edge(end, "end", "end_time")


def _edge(moment: object, name: str, side: Side) -> datetime:
    if not isinstance(moment, (str, date, np.datetime64)):
        raise InvalidInput(name, moment, ALLOWED)
    try:
        edge = _in_utc(_spelt(moment, side))
        if pd.isna(edge):
            raise ValueError(moment)
        return edge.to_pydatetime(warn=False)
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInput(name, moment, ALLOWED) from error


def _spelt(moment: Any, side: Side) -> pd.Timestamp:
    """Widen what names a span (a day, a month, a minute) to its edge; leave an instant as it is."""
    if isinstance(moment, str):
        return _edge_of_text(moment, side)
    if isinstance(moment, date) and not isinstance(moment, datetime):
        return _edge_of(pd.Period(moment, freq="D"), side)
    return _whole_micros(pd.Timestamp(moment), side)


def _whole_micros(instant: pd.Timestamp, side: Side) -> pd.Timestamp:
    """Move a start that has nanoseconds to the first microsecond that is not before it."""
    cut = instant.as_unit("us")
    return cut + MICROSECOND if side == "start_time" and cut < instant else cut


def _edge_of_text(text: str, side: Side) -> pd.Timestamp:
    moment, span = pd.Timestamp(text), pd.Period(text)
    if not span.start_time <= moment.tz_localize(None) <= span.end_time:
        raise ValueError("a time without its day")
    return _edge_of(span, side).tz_localize(moment.tz)


def _edge_of(span: pd.Period, side: Side) -> pd.Timestamp:
    return span.start_time if side == "start_time" else span.end_time


def _in_utc(moment: pd.Timestamp) -> pd.Timestamp:
    return moment.tz_localize(UTC) if moment.tz is None else moment.tz_convert(UTC)
