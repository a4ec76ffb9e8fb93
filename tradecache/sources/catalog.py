"""Which sources come with the package, and what else counts as one?"""

from pathlib import Path
from typing import Any

from tradecache.errors import InvalidInput
from tradecache.sources.base import FunctionSource, Source, checked_name
from tradecache.sources.ccxt import CCXT
from tradecache.sources.files import Files
from tradecache.sources.sample import SampleData
from tradecache.sources.synthetic import Synthetic
from tradecache.sources.yfinance import YFinance

NAMES = "'yfinance', 'ccxt:<exchange>' such as 'ccxt:binance', 'files:<folder>', 'sample' or 'synthetic'"
ALLOWED = (
    f"{NAMES}, a function of (symbol, start, end, interval), or an object with `name` and `async def fetch`"
)


def as_source(thing: Any) -> Source:
    """Return a source for its name, for a function, or for a source.

    Raises:
        InvalidInput: For anything else, listing what is allowed.
    """
    if isinstance(thing, str):
        return _named(thing)
    if isinstance(thing, type):
        raise InvalidInput("source", thing, f"{ALLOWED}; a class is none, make an object of it")
    if callable(getattr(thing, "fetch", None)) and hasattr(thing, "name"):
        checked_name(thing.name)
        found: Source = thing
        return found
    if callable(thing):
        return FunctionSource(thing)
    raise InvalidInput("source", thing, ALLOWED)


def _named(text: str) -> Source:
    """Make one of the sources that come with the package; `kind:detail` gives the detail to it."""
    kind, _, detail = text.partition(":")
    match kind, detail:
        case "yfinance", "":
            return YFinance()
        case "ccxt", exchange if exchange:
            return CCXT(exchange)
        case "files", folder if folder:
            return Files(Path(folder))
        case "sample", "":
            return SampleData()
        case "synthetic", "":
            return Synthetic()
    raise InvalidInput("source", text, ALLOWED)
