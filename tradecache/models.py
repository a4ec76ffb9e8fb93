"""What is a price point, what may a symbol be, and how is an id made from a timestamp?"""

import os
import secrets
import time
import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tradecache.errors import InvalidInput, InvalidPrice, InvalidSymbol
from tradecache.forks import fork_safe_lock

MAX_SYMBOL = 255  # characters; the longest option and futures names of exchanges have about 40


def checked_symbol(symbol: object) -> str:
    """Return `symbol` if it can be kept apart from every other name and found again.

    Case, accents and emoji are kept as they are: "brk.b" and "BRK.B" are two symbols.

    Raises:
        InvalidSymbol: For what is no str, is empty, longer than 255 characters, begins or ends with white
            space, or holds control characters or halves of surrogate pairs.
    """
    if not isinstance(symbol, str):
        raise InvalidSymbol(symbol, "a str")
    if not 0 < len(symbol) <= MAX_SYMBOL:
        raise InvalidSymbol(symbol, f"1 to {MAX_SYMBOL} characters long (it has {len(symbol):,})")
    if symbol.isascii() and symbol.isprintable() and symbol[0] != " " != symbol[-1]:
        return symbol
    if symbol != symbol.strip():
        raise InvalidSymbol(symbol, "without white space at its ends")
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in symbol):
        raise InvalidSymbol(symbol, "free of control characters and lone surrogates")
    return symbol


def is_symbol(text: str) -> bool:
    """Whether `checked_symbol` would accept it.

    >>> is_symbol("BRK.B"), is_symbol(" ")
    (True, False)
    """
    try:
        checked_symbol(text)
    except InvalidSymbol:
        return False
    return True


def _utc(moment: datetime) -> datetime:
    """Return a plain datetime in UTC; what a Timestamp holds below a microsecond is cut off."""
    if moment.tzinfo is UTC and type(moment) is datetime:
        return moment
    try:
        utc = moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{moment} is outside the years 1 to 9999 in UTC") from error
    if type(utc) is datetime:
        return utc
    return datetime(
        utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, tzinfo=UTC
    )


def checked_id(data_id: object) -> str:
    """Return `data_id` if it can be one.

    Raises:
        InvalidInput: For what is no str.
    """
    if not isinstance(data_id, str):
        raise InvalidInput("data_id", data_id, "a str, as store_price returns it")
    return data_id


class PriceData(BaseModel):
    """One price point: what one unit of `symbol` cost at one moment, and how much of it was traded.

    Attributes:
        symbol: The instrument's name, kept as given (see `checked_symbol`).
        price: In the instrument's currency; positive and finite.
        volume: Units traded; zero or more, finite; fractions are fine.
        timestamp: An aware datetime, kept in UTC with microseconds.

    Raises:
        pydantic.ValidationError: (a ValueError) naming the field and the value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=False)

    symbol: Annotated[str, Field(strict=True), AfterValidator(checked_symbol)]
    price: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    volume: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    timestamp: Annotated[AwareDatetime, AfterValidator(_utc)]


_ADAPTER = TypeAdapter(PriceData)
validated_point = _ADAPTER.validator.validate_python
"""Makes a point of a mapping of its fields, a third cheaper than `PriceData.model_validate`."""
point_value = _ADAPTER.serializer.to_python
"""Makes a mapping of a point; `mode="json"` for one that JSON can hold."""

ALLOWED = {
    "symbol": "the name of an instrument, as a str",
    "price": "a positive, finite number",
    "volume": "zero or a positive, finite number",
    "timestamp": "a datetime with a time zone (pandas: .tz_localize('UTC')), in the years 1 to 9999",
}


def price_point(*, symbol: str, price: float, volume: float, timestamp: datetime) -> PriceData:
    """Build a `PriceData`, with one plain sentence where a field is not what it should be.

    Raises:
        InvalidPrice: Naming the field, the value and what is allowed.
        InvalidSymbol: When it is the symbol.
    """
    checked_symbol(symbol)
    for field, value in (("price", price), ("volume", volume), ("timestamp", timestamp)):
        if not means(field, value):
            raise InvalidPrice(field, value, ALLOWED[field])
    try:
        return PriceData(symbol=symbol, price=price, volume=volume, timestamp=timestamp)
    except ValidationError as error:
        raise _first_fault(error) from None


def means(field: str, value: object) -> bool:
    """Whether `value` is of a kind that `field` can mean: no boolean as a number, no number as a time."""
    if field == "timestamp":
        return isinstance(value, datetime) or (isinstance(value, str) and ":" in value)
    return not isinstance(value, bool)


def _first_fault(error: ValidationError) -> InvalidPrice:
    fault: Any = error.errors()[0]
    field = str(fault["loc"][0])
    return InvalidPrice(field, fault["input"], ALLOWED[field])


class IdMaker:
    """Makes ids that sort by timestamp, then by when they were made, and never repeat.

    An id is the timestamp in ISO 8601 (UTC, microseconds), the nanosecond at which it was made (never the
    same one twice in a process) and 32 random bits that keep processes apart:
    `2013-03-01T21:00:00.000000Z-18a3f6c2d4e5f678-9c01fe55`.
    """

    def __init__(self) -> None:
        self._lock = fork_safe_lock()
        self._last = 0
        self.take_mark()

    def take_mark(self) -> None:
        """Take a new mark, as a forked child must."""
        self._mark = secrets.token_hex(4)

    def ids(self, stamps: list[str]) -> list[str]:
        """Return one id for each stamp of `stamp`'s form, increasing where stamps are equal."""
        with self._lock:
            first = max(time.time_ns(), self._last + 1)
            self._last = first + len(stamps)
        return [f"{stamp}-{first + n:016x}-{self._mark}" for n, stamp in enumerate(stamps)]


def stamp(moment: datetime) -> str:
    """Return `moment` as fixed-width ISO 8601 text in UTC, which sorts as time does.

    >>> stamp(datetime(2013, 3, 1, 21, tzinfo=UTC))
    '2013-03-01T21:00:00.000000Z'
    """
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")[:-6] + "Z"


_maker = IdMaker()
new_ids = _maker.ids

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_maker.take_mark)
