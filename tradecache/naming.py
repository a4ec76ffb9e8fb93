"""What are collections and datasets called?"""

OF_POINTS, OF_BARS, OF_VIEWS, OF_HISTORY = "symbol:", "bars/", "views/", "history"
"""How the names of collections begin: price points, segments of bars, what was put together, counts of requests."""
PRICES = "prices"
"""The dataset of price points."""

KINDS = {OF_POINTS: PRICES, OF_BARS: "bars", OF_VIEWS: "views", OF_HISTORY: "history"}


def kind_of(collection: str) -> str:
    """Return what a collection holds: "prices", "bars", "views", "history", or "other" for what is not ours.

    >>> kind_of("symbol:AAPL"), kind_of("bars/sample/AAPL/1d"), kind_of("mine")
    ('prices', 'bars', 'other')
    """
    return next((kind for start, kind in KINDS.items() if collection.startswith(start)), "other")


def bars_dataset(interval: str) -> str:
    """Return the dataset of bars of an interval.

    >>> bars_dataset("1d")
    'bars 1d'
    """
    return f"bars {interval}"
