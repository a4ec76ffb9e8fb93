"""For how long does an HTTP answer ask to be left alone?"""

import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime


def retry_after(headers: Mapping[str, str] | None, *, now: float | None = None) -> float | None:
    """Return the seconds in a header `Retry-After`, which holds them or a date; None where it says nothing.

    It may be any number that is not negative, infinity too. A date is taken relative to the answer's own `Date`, so that the provider's clock is the only one.

    Args:
        headers: Of the answer, their names in any case.
        now: Seconds since 1970 where the answer has no `Date`; the system's by default.

    >>> retry_after({"retry-after": "30"})
    30.0
    >>> retry_after({"Retry-After": "Tue, 02 Jan 2024 15:00:00 GMT", "Date": "Tue, 02 Jan 2024 14:58:30 GMT"})
    90.0
    """
    said = {name.lower(): value.strip() for name, value in (headers or {}).items()}
    text = said.get("retry-after", "")
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    until, sent = _instant(text), _instant(said.get("date", ""))
    if until is None:
        return None
    if sent is None:
        sent = time.time() if now is None else now
    return max(0.0, until - sent)


def _instant(text: str) -> float | None:
    """Return the seconds since 1970 that a date of HTTP means, None for anything else."""
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):  # the last for a year that no computer counts to
        return None
