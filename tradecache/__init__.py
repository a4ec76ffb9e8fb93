"""A two-tier market-data cache with a pandas face, for research in notebooks."""

import importlib
import logging

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
    ServerAwayWarning,
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
    UnknownKey,
    UnknownSymbol,
    WrongKey,
    WrongThread,
)
from tradecache.frames import TradeCache
from tradecache.models import PriceData
from tradecache.notebook import load_ipython_extension, unload_ipython_extension
from tradecache.settings import Settings

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
    "ServerAwayWarning",
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
    "UnknownKey",
    "UnknownSymbol",
    "WrongKey",
    "WrongThread",
    "load_ipython_extension",
    "unload_ipython_extension",
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
