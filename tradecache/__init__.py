"""A two-tier market-data cache with a pandas face, for research in notebooks."""

import importlib
import logging
import typing

from tradecache.cache import TradingDataCache, warm_cache
from tradecache.errors import (
    CacheClosed,
    EntryTooLarge,
    InvalidBars,
    InvalidInput,
    InvalidPrice,
    InvalidPrices,
    InvalidSymbol,
    InvalidTTL,
    MissingBarsWarning,
    MissingDependency,
    NestingRefused,
    NoBars,
    NotEnumerable,
    NotStorable,
    RateLimited,
    SourceError,
    SourceUnavailable,
    StaleDataWarning,
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreFault,
    StoreFull,
    StoreReadOnly,
    TradeCacheError,
    UnknownSymbol,
    WrongThread,
)
from tradecache.frames import TradeCache
from tradecache.models import PriceData
from tradecache.settings import Settings

if typing.TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = [
    "CacheClosed",
    "EntryTooLarge",
    "InvalidBars",
    "InvalidInput",
    "InvalidPrice",
    "InvalidPrices",
    "InvalidSymbol",
    "InvalidTTL",
    "MissingBarsWarning",
    "MissingDependency",
    "NestingRefused",
    "NoBars",
    "NotEnumerable",
    "NotStorable",
    "PriceData",
    "RateLimited",
    "Settings",
    "SourceError",
    "SourceUnavailable",
    "StaleDataWarning",
    "StoreBusy",
    "StoreDamaged",
    "StoreError",
    "StoreFault",
    "StoreFull",
    "StoreReadOnly",
    "TradeCache",
    "TradeCacheError",
    "TradingDataCache",
    "UnknownSymbol",
    "WrongThread",
    "warm_cache",
]

logging.getLogger("tradecache").addHandler(logging.NullHandler())

_ROOMS = ("freshness", "sources")
"""Public modules that are loaded when they are first named, for what they cost."""


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return importlib.import_module(f"tradecache.{name}")
    raise AttributeError(f"module 'tradecache' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_ROOMS]


def load_ipython_extension(ipython: "InteractiveShell") -> None:
    """Give a notebook `%tradecache`; this is what `%load_ext tradecache` calls."""
    from tradecache.magics import load

    load(ipython)


def unload_ipython_extension(ipython: "InteractiveShell") -> None:
    """Take `%tradecache` away again; this is what `%unload_ext tradecache` calls."""
    from tradecache.magics import unload

    unload(ipython)
