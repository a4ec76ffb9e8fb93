"""Sources of bars: the built-in ones, and what makes a source of anything else."""

from tradecache.retries import Retries
from tradecache.sources.base import FunctionSource, Source, Traits, traits_of
from tradecache.sources.catalog import as_source
from tradecache.sources.ccxt import CCXT
from tradecache.sources.files import Files
from tradecache.sources.guard import Guard, guarded
from tradecache.sources.sample import SampleData
from tradecache.sources.synthetic import Synthetic
from tradecache.sources.yfinance import YFinance

__all__ = [
    "CCXT",
    "Files",
    "FunctionSource",
    "Guard",
    "Retries",
    "SampleData",
    "Source",
    "Synthetic",
    "Traits",
    "YFinance",
    "as_source",
    "guarded",
    "traits_of",
]
