"""What can go wrong, as one tree of errors that keep their values and build their own sentences.

TradeCacheError
├── InvalidInput          (ValueError)       an argument that cannot be what it claims to be
│   ├── InvalidPrice                         one field of one price point
│   ├── InvalidPrices                        rows of a frame of price points; nothing was stored
│   ├── InvalidBars                          rows of a frame of bars, or the frame itself; nothing was stored
│   ├── InvalidSymbol                        a name that cannot be kept apart from others
│   └── InvalidTTL        (InvalidTTLError)  a time to live that is not a positive, finite number
├── EntryTooLarge         (EntryTooLargeError, ValueError)  larger than `max_entry_bytes`
├── NotStorable           (SerializationError, TypeError)   a value that is neither JSON nor a frame
├── StoreError            (OSError)          the folder on disk did not do what it was asked
│   ├── StoreBusy         (TimeoutError)     another process kept the ledger locked; transient
│   ├── StoreFault                           the system reported an I/O error; transient
│   ├── StoreFull                            no space left on the device
│   ├── StoreReadOnly     (PermissionError)  the folder may not be written
│   └── StoreDamaged                         the ledger is damaged, and a new one could not be made
├── WrongKey              (PermissionError)  a folder is encrypted and the keys do not fit, or it is not
├── SourceError                              a source of bars did not answer
│   ├── RateLimited                          too many requests; may pass
│   ├── SourceUnavailable (ConnectionError)  the network, the provider or a time limit; may pass
│   └── UnknownSymbol     (LookupError)      the provider has no such instrument
├── NoBars                (LookupError)      a source's answer: there are none in this range, and why
├── UnknownKey            (LookupError)      something is encrypted under a key that was not given
├── NotEnumerable         (NotImplementedError)  a store that was passed in cannot list all its keys
├── CacheClosed           (RuntimeError)     a cache was used after `close()`
├── WrongThread           (RuntimeError)     a sync call from inside the private loop, which would wait for itself
├── NestingRefused        (RuntimeError)     asyncio cannot be patched, another loop than its own is in use
└── MissingDependency     (ImportError)      an optional package is not installed

and three warnings (UserWarning): StaleDataWarning, bars that are no longer fresh were handed out,
MissingBarsWarning, some of several symbols could not be had, and ServerAwayWarning, a shared server does not answer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from key_value.aio.errors import EntryTooLargeError, InvalidTTLError, SerializationError

MAX_SHOWN_ROWS = 5


class TradeCacheError(Exception):
    """The root: everything that tradecache raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Take the values along, so that an error can be copied and sent from one process to another."""
        return rebuilt, (type(self), self.args, self.__dict__)


def rebuilt(kind: type[TradeCacheError], args: tuple[Any, ...], values: dict[str, Any]) -> TradeCacheError:
    """Return an error with the values of another, whatever its constructor asks for."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(values)
    return error


class InvalidInput(TradeCacheError, ValueError):
    """Raised when an argument cannot be what it claims to be."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field = field
        self.value = value
        self.allowed = allowed
        super().__init__(f"{field} is {shorten(value)}, but must be {allowed}")


def checked_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """Return `value` if it is one of the choices.

    Raises:
        InvalidInput: Listing them.
    """
    if isinstance(value, str) and value in choices:
        return value
    raise InvalidInput(name, value, f"one of {', '.join(choices)}")


class InvalidPrice(InvalidInput):
    """Raised when one field of a price point is not what a price point can hold."""


class InvalidSymbol(InvalidInput):
    """Raised when a symbol cannot be stored under its own name and found again."""

    def __init__(self, value: object, allowed: str) -> None:
        super().__init__("symbol", value, allowed)


class InvalidTTL(InvalidInput, InvalidTTLError):
    """Raised when a time to live is not a positive, finite number of seconds."""

    def __init__(self, value: object, allowed: str) -> None:
        super().__init__("ttl", value, allowed)


class InvalidPrices(InvalidInput):
    """Raised when rows of a frame are not price points; nothing of the frame was stored.

    `rows` holds one `(position, field, value, allowed)` for each fault, in the order of the frame;
    `field`, `value` and `allowed` are those of the first.
    """

    def __init__(self, rows: Sequence[tuple[int, str, object, str]]) -> None:
        self.rows = list(rows)
        _, self.field, self.value, self.allowed = self.rows[0]
        shown = "; ".join(
            f"row {position}: {field} is {shorten(value)}, but must be {allowed}"
            for position, field, value, allowed in self.rows[:MAX_SHOWN_ROWS]
        )
        more = len(self.rows) - MAX_SHOWN_ROWS
        tail = f"; and {more} more" if more > 0 else ""
        Exception.__init__(self, f"nothing was stored: {shown}{tail}")


class InvalidBars(InvalidInput):
    """Raised when a frame, or rows of it, cannot be bars; nothing of it was stored.

    `rows` holds one `(timestamp, field, value, allowed)` for each fault, in the order of the frame, with None
    as timestamp where the fault is the frame's; `field`, `value` and `allowed` are those of the first.
    """

    def __init__(self, rows: Sequence[tuple[object, str, object, str]]) -> None:
        self.rows = list(rows)
        _, self.field, self.value, self.allowed = self.rows[0]
        shown = "; ".join(
            f"{'' if label is None else f'{label}: '}{field} is {shorten(value)}, but must be {allowed}"
            for label, field, value, allowed in self.rows[:MAX_SHOWN_ROWS]
        )
        more = len(self.rows) - MAX_SHOWN_ROWS
        tail = f"; and {more} more" if more > 0 else ""
        Exception.__init__(self, f"nothing was stored: {shown}{tail}")


class EntryTooLarge(TradeCacheError, EntryTooLargeError, ValueError):
    """Raised when a value takes more bytes than `max_entry_bytes`; the old value stays."""

    def __init__(self, *, size: int, max_size: int, collection: str, key: str) -> None:
        self.size, self.max_size, self.collection, self.key = size, max_size, collection, key
        Exception.__init__(
            self,
            f"{key!r} in {collection!r} takes {size:,} bytes, but max_entry_bytes allows {max_size:,}",
        )


class NotStorable(TradeCacheError, SerializationError, TypeError):
    """Raised when a value is neither JSON nor a DataFrame that Arrow can hold."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        Exception.__init__(self, f"this value cannot be stored: {reason}")


class NotEnumerable(TradeCacheError, NotImplementedError):
    """Raised when a store that was passed in cannot list all its keys, and the question needs them.

    `store` is the name of its class.
    """

    def __init__(self, store: object) -> None:
        self.store = type(store).__name__
        super().__init__(
            f"{self.store} cannot list all its keys (py-key-value's stores stop at 10,000); "
            "get_price, store_price and delete_price work with it, questions by time need a LocalStore"
        )


class StoreError(TradeCacheError, OSError):
    """Raised when the cache folder did not do what it was asked; `folder` and `reason` say where and why."""

    sentence = "failed"

    def __init__(self, folder: Path, reason: object) -> None:
        self.folder = folder
        self.reason = str(reason)
        super().__init__(f"the cache in {folder} {self.sentence} ({self.reason})")


class StoreBusy(StoreError, TimeoutError):
    """Raised when another process kept the ledger locked for longer than `lock_wait` seconds."""

    sentence = "is locked by another process"


class StoreFault(StoreError):
    """Raised when the operating system reported an I/O error that may pass."""

    sentence = "met an I/O error"


class StoreFull(StoreError):
    """Raised when there is no space left; the old value is still there."""

    sentence = "has no space left, so nothing was changed"


class StoreReadOnly(StoreError, PermissionError):
    """Raised when the folder may not be written; what is in it can still be read."""

    sentence = "may not be written; choose another cache_dir or set TRADECACHE_CACHE_DIR"


class StoreDamaged(StoreError):
    """Raised when the ledger is damaged and could not be put aside; most damage is mended without an error."""

    sentence = "has a damaged ledger, and a new one could not be made"


class WrongKey(TradeCacheError, PermissionError):
    """Raised when a folder is encrypted under other keys than those given, or when one of both is not encrypted.

    Nothing was read, changed or deleted. `folder` and `reason` say where and why, never with a key.
    """

    def __init__(self, folder: object, reason: str) -> None:
        self.folder = folder
        self.reason = reason
        super().__init__(f"the cache in {folder} {reason}; nothing in it was changed")


class SourceError(TradeCacheError):
    """Raised when a source did not answer.

    `source` and `symbol` are filled in where they are empty when the error comes out of a source, so a source
    of your own need only say why.
    """

    sentence = "did not answer"

    def __init__(self, reason: object = "", *, source: str = "", symbol: str = "") -> None:
        self.reason = str(reason)
        self.source = source
        self.symbol = symbol
        super().__init__()

    def __str__(self) -> str:
        """Build the sentence from what is known by now."""
        about = f" for {self.symbol!r}" if self.symbol else ""
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.source or 'the source'} {self.sentence}{about}{reason}"


class RateLimited(SourceError):
    """Raised when a source was asked too often; `retry_after` are the seconds it wants to be left alone, if known."""

    sentence = "was asked too often"

    def __init__(
        self, retry_after: float | None = None, *, reason: object = "", source: str = "", symbol: str = ""
    ) -> None:
        super().__init__(reason, source=source, symbol=symbol)
        self.retry_after = retry_after

    def __str__(self) -> str:
        """Build the sentence from what is known by now."""
        wait = "" if self.retry_after is None else f"; ask again in {self.retry_after:.3g} s"
        return super().__str__() + wait


class SourceUnavailable(SourceError, ConnectionError):
    """Raised when a source cannot be reached, fails, or takes too long."""


class UnknownSymbol(SourceError, LookupError):
    """Raised when a source knows no instrument of that name."""

    def __init__(self, symbol: str = "", *, reason: object = "", source: str = "") -> None:
        super().__init__(reason, source=source, symbol=symbol)

    def __str__(self) -> str:
        """Build the sentence from what is known by now."""
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.source or 'the source'} knows no symbol {self.symbol!r}{reason}"


class NoBars(TradeCacheError, LookupError):
    """Raised by a source as its answer: there are no bars in this range, for one of `REASONS`.

    It is remembered, as bars are. Where nothing is known but that none came, a source returns an empty frame.
    """

    REASONS = ("closed", "no_trades", "before_listing", "outside_window")

    def __init__(self, reason: str) -> None:
        if reason not in self.REASONS:
            raise InvalidInput("reason", reason, f"one of {', '.join(self.REASONS)}")
        self.reason = reason
        super().__init__(f"there are no bars in this range: {reason}")


class MissingBarsWarning(UserWarning):
    """Issued when bars of several symbols were asked for and some could not be had; see `cache.failures()`."""


class StaleDataWarning(UserWarning):
    """Issued when a source failed and what is handed out instead is no longer fresh."""


class UnknownKey(TradeCacheError, LookupError):
    """Raised when something is encrypted under a key that was not given; `id` is that key's, which may be seen."""

    def __init__(self, key_id: str) -> None:
        self.id = key_id
        super().__init__(f"it is encrypted under the key {key_id}, which is not among those given")


class ServerAwayWarning(UserWarning):
    """Issued once for each outage of a server that is shared, without which everything goes on."""


class CacheClosed(TradeCacheError, RuntimeError):
    """Raised when a cache is used after `close()`."""

    def __init__(self) -> None:
        super().__init__("this cache is closed; make a new one, the data is still in its folder")


class WrongThread(TradeCacheError, RuntimeError):
    """Raised when the sync face is called from inside its own private loop, where it would wait for itself."""

    def __init__(self) -> None:
        super().__init__(
            "a sync method of TradeCache was called from its own event loop; await TradingDataCache there"
        )


class NestingRefused(TradeCacheError, RuntimeError):
    """Raised when asyncio cannot be patched because another loop than asyncio's own is in use."""

    def __init__(self, loop: str) -> None:
        self.loop = loop
        super().__init__(
            f"{loop} cannot be nested; write `await main()` in the cell instead of asyncio.run(main()), "
            "or use TradeCache, which needs neither"
        )


class MissingDependency(TradeCacheError, ImportError):
    """Raised when an optional package is not installed; the message holds the line that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"this needs {package}; install it with: pip install 'tradecache[{extra}]'")


def shorten(value: Any, limit: int = 80) -> str:
    """Show a value in a sentence: its repr, cut to `limit` characters.

    >>> shorten("x" * 200, limit=12)
    "'xxxxxxxx..."
    """
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a Timestamp before year 1 has none, and the sentence must be built
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= limit else text[: limit - 3] + "..."
