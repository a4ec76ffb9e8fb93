import copy
import inspect
import pickle
import re
from pathlib import Path

import pytest

from tradecache import errors
from tradecache.errors import TradeCacheError, shorten

FOLDER = Path("prices")
ROWS = [(2, "price", -1.0, "positive"), (5, "volume", float("inf"), "finite")]


class Shelf:
    """A store that lists nothing."""


EXAMPLES = {
    "InvalidInput": (
        errors.InvalidInput("by", "tiers", "tier or symbol"),
        {"field": "by", "value": "tiers", "allowed": "tier or symbol"},
        "by is 'tiers', but must be tier or symbol",
    ),
    "InvalidPrice": (
        errors.InvalidPrice("volume", -1, "zero or more"),
        {"field": "volume", "value": -1, "allowed": "zero or more"},
        "volume is -1, but must be zero or more",
    ),
    "InvalidSymbol": (
        errors.InvalidSymbol("", "longer"),
        {"field": "symbol", "value": "", "allowed": "longer"},
        "symbol is '', but must be longer",
    ),
    "InvalidTTL": (
        errors.InvalidTTL(0, "more"),
        {"field": "ttl", "value": 0, "allowed": "more"},
        "ttl is 0, but must be more",
    ),
    "InvalidPrices": (
        errors.InvalidPrices(ROWS),
        {"rows": ROWS, "field": "price", "value": -1.0, "allowed": "positive"},
        "nothing was stored: row 2: price is -1.0, but must be positive; row 5: volume is inf, but must be finite",
    ),
    "InvalidBars": (
        errors.InvalidBars([(None, "columns", ["x"], "open, high, low, close")]),
        {
            "rows": [(None, "columns", ["x"], "open, high, low, close")],
            "field": "columns",
            "value": ["x"],
            "allowed": "open, high, low, close",
        },
        "nothing was stored: columns is ['x'], but must be open, high, low, close",
    ),
    "EntryTooLarge": (
        errors.EntryTooLarge(size=2000, max_size=1000, collection="symbol:A", key="k"),
        {"size": 2000, "max_size": 1000, "collection": "symbol:A", "key": "k"},
        "'k' in 'symbol:A' takes 2,000 bytes, but max_entry_bytes allows 1,000",
    ),
    "NotStorable": (
        errors.NotStorable("it holds a set"),
        {"reason": "it holds a set"},
        "this value cannot be stored: it holds a set",
    ),
    "NotEnumerable": (
        errors.NotEnumerable(Shelf()),
        {"store": "Shelf"},
        (
            "Shelf cannot list all its keys (py-key-value's stores stop at 10,000); "
            "get_price, store_price and delete_price work with it, questions by time need a LocalStore"
        ),
    ),
    "StoreError": (
        errors.StoreError(FOLDER, OSError("broken")),
        {"folder": FOLDER, "reason": "broken"},
        "the cache in prices failed (broken)",
    ),
    "StoreBusy": (
        errors.StoreBusy(FOLDER, "locked"),
        {"folder": FOLDER, "reason": "locked"},
        "the cache in prices is locked by another process (locked)",
    ),
    "StoreFault": (
        errors.StoreFault(FOLDER, "disk I/O error"),
        {"folder": FOLDER, "reason": "disk I/O error"},
        "the cache in prices met an I/O error (disk I/O error)",
    ),
    "StoreFull": (
        errors.StoreFull(FOLDER, "full"),
        {"folder": FOLDER, "reason": "full"},
        "the cache in prices has no space left, so nothing was changed (full)",
    ),
    "StoreReadOnly": (
        errors.StoreReadOnly(FOLDER, "read-only"),
        {"folder": FOLDER, "reason": "read-only"},
        "the cache in prices may not be written; choose another cache_dir or set TRADECACHE_CACHE_DIR (read-only)",
    ),
    "StoreDamaged": (
        errors.StoreDamaged(FOLDER, "malformed"),
        {"folder": FOLDER, "reason": "malformed"},
        "the cache in prices has a damaged ledger, and a new one could not be made (malformed)",
    ),
    "CacheClosed": (
        errors.CacheClosed(),
        {},
        "this cache is closed; make a new one, the data is still in its folder",
    ),
    "WrongThread": (
        errors.WrongThread(),
        {},
        "a sync method of TradeCache was called from its own event loop; await TradingDataCache there",
    ),
    "SourceError": (
        errors.SourceError("HTTP 500", source="yfinance", symbol="AAPL"),
        {"reason": "HTTP 500", "source": "yfinance", "symbol": "AAPL"},
        "yfinance did not answer for 'AAPL' (HTTP 500)",
    ),
    "RateLimited": (
        errors.RateLimited(30, source="yfinance"),
        {"retry_after": 30, "source": "yfinance", "symbol": "", "reason": ""},
        "yfinance was asked too often; ask again in 30 s",
    ),
    "SourceUnavailable": (
        errors.SourceUnavailable("timed out"),
        {"reason": "timed out", "source": "", "symbol": ""},
        "the source did not answer (timed out)",
    ),
    "UnknownSymbol": (
        errors.UnknownSymbol("APPL", source="yfinance"),
        {"symbol": "APPL", "source": "yfinance", "reason": ""},
        "yfinance knows no symbol 'APPL'",
    ),
    "UnknownKey": (
        errors.UnknownKey("0123456789abcdef"),
        {"id": "0123456789abcdef"},
        "it is encrypted under the key 0123456789abcdef, which is not among those given",
    ),
    "WrongKey": (
        errors.WrongKey("/tmp/c", "is encrypted: set encryption_key"),
        {"folder": "/tmp/c", "reason": "is encrypted: set encryption_key"},
        "the cache in /tmp/c is encrypted: set encryption_key; nothing in it was changed",
    ),
    "NoBars": (
        errors.NoBars("closed"),
        {"reason": "closed"},
        "there are no bars in this range: closed",
    ),
    "NestingRefused": (
        errors.NestingRefused("uvloop.Loop"),
        {"loop": "uvloop.Loop"},
        (
            "uvloop.Loop cannot be nested; write `await main()` in the cell instead of asyncio.run(main()), "
            "or use TradeCache, which needs neither"
        ),
    ),
    "MissingDependency": (
        errors.MissingDependency("nest-asyncio2>=1.7.3", "notebook"),
        {"package": "nest-asyncio2>=1.7.3", "extra": "notebook"},
        "this needs nest-asyncio2>=1.7.3; install it with: pip install 'tradecache[notebook]'",
    ),
}
UNLIKE_PYTHON_S = {"SourceError", "RateLimited"}  # which has no word for them
each_example = pytest.mark.parametrize(("error", "values", "sentence"), EXAMPLES.values(), ids=EXAMPLES)


def defined():
    """Return the error classes of the package, by name."""
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, TradeCacheError)
    }


def drawn():
    """Return the tree in the docstring: the names of each class's bases, by its name."""
    root, *lines = errors.__doc__.split("\n\n")[1].splitlines()
    branch, tree = [root], {root: ["Exception"]}
    for line in lines:
        indent, name, others = re.match(r"([│ ]*[├└]── )(\w+) +(?:\(([\w, ]+)\))?", line).groups()
        branch[len(indent) // 4 :] = [name]
        tree[name] = [branch[-2], *filter(None, (others or "").split(", "))]
    return tree


def test_the_tree_is_as_drawn():
    """The docstring draws every class, below its parent, with the other errors that it also is."""
    assert drawn() == {name: [base.__name__ for base in kind.__bases__] for name, kind in defined().items()}


def test_every_error_has_an_example():
    """The tests below look at every class but the root."""
    assert sorted(EXAMPLES) == sorted(set(defined()) - {"TradeCacheError"})


@each_example
def test_an_error_keeps_its_values_and_builds_its_sentence(error, values, sentence):
    """What it is about can be read from an error's attributes, and from its one sentence."""
    assert {name: getattr(error, name) for name in values} == values
    assert str(error) == sentence


@each_example
def test_an_error_resembles_a_built_in(error, values, sentence):
    """Whoever knows only Python's errors catches it under one of those."""
    known = (ValueError, TypeError, LookupError, OSError, RuntimeError, ImportError)
    assert isinstance(error, known) == (type(error).__name__ not in UNLIKE_PYTHON_S)


@each_example
@pytest.mark.parametrize(
    "copied", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy]
)
def test_an_error_crosses_processes(error, values, sentence, copied):
    """A copy, such as the one that a worker process sends, is the same error with the same values and notes."""
    error.add_note("in worker 3")
    try:
        same = copied(error)
        assert (type(same), str(same), same.args, vars(same)) == (
            type(error),
            sentence,
            error.args,
            vars(error),
        )
    finally:
        del error.__notes__


@pytest.mark.parametrize("kind", defined().values())
def test_an_error_says_when_it_is_raised(kind):
    """Each class but the root has a docstring that says when it is raised."""
    assert kind is TradeCacheError or kind.__doc__.startswith("Raised ")


def test_many_rows_are_summed_up():
    """The sentence names five rows and counts the others; all are kept."""
    error = errors.InvalidPrices([(row, "price", 0, "positive") for row in range(12)])
    assert str(error).count("row ") == 5
    assert str(error).endswith("; row 4: price is 0, but must be positive; and 7 more")
    assert len(error.rows) == 12


@pytest.mark.parametrize(
    ("value", "shown"),
    [("x" * 200, "'" + "x" * 76 + "..."), ("short", "'short'"), ("x" * 78, repr("x" * 78))],
)
def test_long_values_are_cut(value, shown):
    """A value takes at most 80 characters of a sentence."""
    assert shorten(value) == shown
