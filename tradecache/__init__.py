"""A two-tier market-data cache with a pandas face, for research in notebooks."""

import logging

from tradecache.cache import TradingDataCache, warm_cache
from tradecache.errors import (
    CacheClosed,
    EntryTooLarge,
    InvalidInput,
    InvalidPrice,
    InvalidPrices,
    InvalidSymbol,
    InvalidTTL,
    MissingDependency,
    NotEnumerable,
    NotStorable,
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreFault,
    StoreFull,
    StoreReadOnly,
    TradeCacheError,
    WrongThread,
)
from tradecache.frames import TradeCache
from tradecache.models import PriceData
from tradecache.settings import Settings

__all__ = [
    "CacheClosed",
    "EntryTooLarge",
    "InvalidInput",
    "InvalidPrice",
    "InvalidPrices",
    "InvalidSymbol",
    "InvalidTTL",
    "MissingDependency",
    "NotEnumerable",
    "NotStorable",
    "PriceData",
    "Settings",
    "StoreBusy",
    "StoreDamaged",
    "StoreError",
    "StoreFault",
    "StoreFull",
    "StoreReadOnly",
    "TradeCache",
    "TradeCacheError",
    "TradingDataCache",
    "WrongThread",
    "warm_cache",
]

logging.getLogger("tradecache").addHandler(logging.NullHandler())
