"""What do the two ends of a range of time mean?"""

from datetime import UTC, date, datetime
from typing import Any

import pandas as pd

from tradecache.errors import InvalidInput

Moment = str | date | datetime | pd.Timestamp
"""A moment as a researcher writes it: "2013-03-01", a date, a datetime, a Timestamp; UTC where it says nothing."""

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


def _edge(moment: object, name: str, side: str) -> datetime:
    if not isinstance(moment, (str, date)) or moment == "":
        raise InvalidInput(name, moment, ALLOWED)
    try:
        edge = _in_utc(pd.Timestamp(_spelt(moment, side)))
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInput(name, moment, ALLOWED) from error
    if pd.isna(edge):
        raise InvalidInput(name, moment, ALLOWED)
    return edge.to_pydatetime(warn=False)


def _spelt(moment: Any, side: str) -> Any:
    """Widen what names a span (a day, a month, a minute) to its edge; leave an instant as it is."""
    if isinstance(moment, str) and pd.Timestamp(moment).tz is None:
        return getattr(pd.Period(moment), side)
    if isinstance(moment, date) and not isinstance(moment, datetime):
        return getattr(pd.Period(moment, freq="D"), side)
    return moment


def _in_utc(moment: pd.Timestamp) -> pd.Timestamp:
    return moment.tz_localize(UTC) if moment.tz is None else moment.tz_convert(UTC)
