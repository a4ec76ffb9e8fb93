"""How long is a bar, and where does each one begin?"""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from tradecache.errors import InvalidInput

SECOND = 1_000_000
MINUTE = 60 * SECOND  # also: bars within a day are labelled with whole minutes, not always with whole hours
MONTH = 30 * 86_400 * SECOND  # about; only `floor` and `next` know how long a month is
_UNITS = {"m": 60 * SECOND, "h": 3_600 * SECOND, "d": 86_400 * SECOND, "wk": 604_800 * SECOND, "mo": MONTH}
_LENGTHS = {
    "m": (1, 2, 3, 5, 10, 15, 30, 45, 90),
    "h": (1, 2, 3, 4, 6, 8, 12),
    "d": (1,),
    "wk": (1,),
    "mo": (1, 3),
}
_ALIASES = {"60m": "1h", "120m": "2h", "240m": "4h", "24h": "1d", "7d": "1wk", "1D": "1d", "1W": "1wk"} | {
    f"{minutes}min": f"{minutes}m"
    for minutes in _LENGTHS["m"]  # pandas' names, but not its "1M", which reads as a minute
}
FIRST_MONDAY = 4 * 86_400 * SECOND  # 1970-01-05


@dataclass(frozen=True, slots=True)
class Interval:
    """The length of a bar: "1m", "1h", "1d", "1wk", "1mo" and the like.

    Attributes:
        text: Its name, in one spelling.
        is_intraday: Whether bars are labelled by their start in UTC; the others by the date of their first
            session, without a time zone.
        microseconds: Its length; of months, about.
    """

    text: str
    is_intraday: bool
    microseconds: int

    @property
    def months(self) -> int:
        """How many months long it is; 0 for what is no number of months."""
        return int(self.text[:-2]) if self.text.endswith("mo") else 0

    def floor(self, moment: int) -> int:
        """Return the start of the bar that contains a moment (microseconds since the epoch).

        Weeks begin on Mondays, months on the first, quarters in January, April, July and October.
        """
        if self.months:
            month = month_of(moment)
            return month_start(month - month % self.months)
        first = FIRST_MONDAY if self.text.endswith("wk") else 0
        return moment - (moment - first) % self.microseconds

    def next(self, moment: int) -> int:
        """Return the start of the bar after the one that contains a moment."""
        start = self.floor(moment)
        if self.months:
            return month_start(month_of(start) + self.months)
        return start + self.microseconds


def interval_of(interval: str | timedelta | Interval) -> Interval:
    """Return the interval of that name or length.

    >>> interval_of("60m").text, interval_of(timedelta(minutes=5)).text
    ('1h', '5m')

    Raises:
        InvalidInput: Listing what is allowed.
    """
    if isinstance(interval, Interval):
        return interval
    found = None
    if isinstance(interval, str):
        found = _BY_NAME.get(_ALIASES.get(interval, interval))
    elif isinstance(interval, timedelta):
        found = _BY_LENGTH.get(round(interval / timedelta(microseconds=1)))
    if found is None:
        raise InvalidInput("interval", interval, f"one of {', '.join(_BY_NAME)}")
    return found


def month_of(moment: int) -> int:
    """Return the months since January 1970 of a moment (microseconds since the epoch)."""
    return int(np.datetime64(moment, "us").astype("M8[M]").astype("int64"))


def month_start(month: int) -> int:
    """Return the first moment of a month, told by the months since January 1970."""
    return int(np.datetime64(month, "M").astype("M8[us]").astype("int64"))


_BY_NAME = {
    f"{length}{unit}": Interval(f"{length}{unit}", unit in {"m", "h"}, length * microseconds)
    for unit, microseconds in _UNITS.items()
    for length in _LENGTHS[unit]
}
_BY_LENGTH = {each.microseconds: each for each in _BY_NAME.values() if not each.months}
