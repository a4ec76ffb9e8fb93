"""What can be asked of a cache with %tradecache, in a cell?"""

import argparse
import shlex
from types import SimpleNamespace
from typing import Any, NoReturn, get_args

import pandas as pd
from IPython.core.error import TryNext, UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class

from tradecache.cache import TradingDataCache
from tradecache.errors import CacheClosed, InvalidInput
from tradecache.frames import TradeCache
from tradecache.stats import By

NAME = "tradecache"
MAGIC = f"%{NAME}"
USUAL = "cache"  # the variable that is meant where none is named
ONLY_INTERVAL = "only bars of this length, such as 1d"
COMMANDS = ("stats", "coverage", "warm", "clear")


@magics_class
class TradeCacheMagics(Magics):
    """The magic `%tradecache`; each of its commands returns what a method of `TradeCache` returns."""

    shell: InteractiveShell  # without one there is no magic, though `Magics` allows for it

    @line_magic
    def tradecache(self, line: str) -> pd.DataFrame | pd.Series | None:
        """Ask a TradeCache of this notebook.

            %tradecache stats [tier | symbol | dataset | operation]
            %tradecache coverage [SYMBOL ...] [--start --end --interval --source]
            %tradecache warm SYMBOL ... [--start --end --interval --source] [--quiet]
            %tradecache clear [SYMBOL ...] [--start --end --interval --source] [--all]

        Each takes --cache NAME, the variable that holds the cache: `cache` by default, else the only open one.
        `%tradecache warm -h` tells more of one command.

        Raises:
            UsageError: When something else is asked than that, or of no cache.
        """
        try:
            chosen = _parser().parse_args(_words(line) or ["-h"])
        except _HelpShown:
            return None
        cache = self._cache(chosen.cache)
        try:
            answer: pd.DataFrame | pd.Series = chosen.ask(cache, chosen)
        except (InvalidInput, CacheClosed) as error:
            raise UsageError(str(error)) from error
        return answer

    def _cache(self, name: str | None) -> TradeCache:
        """Return the cache that is meant.

        One that is named is meant also when it is closed, and so is the variable `cache`: else another one would be
        cleared in its place.
        """
        namespace = self.shell.user_ns
        wanted = namespace.get(USUAL if name is None else name)
        if issubclass(type(wanted), TradeCache):
            found: TradeCache = wanted
            return found
        if name is not None or issubclass(type(wanted), TradingDataCache):
            raise UsageError(f"{name or USUAL} is no TradeCache, but a {type(wanted).__name__}")
        caches = _caches(namespace)
        names = {id(cache): name for name, cache in caches.items() if not cache.core.is_closed}
        if not names:
            raise UsageError("there is no TradeCache here; make one: cache = tradecache.TradeCache(...)")
        if len(names) > 1:
            raise UsageError(f"there are several: {', '.join(names.values())}; name one with --cache")
        return caches[next(iter(names.values()))]


def load(ipython: InteractiveShell) -> None:
    """Add the magic, and what completes its commands."""
    ipython.register_magics(TradeCacheMagics)
    completers = ipython.strdispatchers["complete_command"]
    if not any(completers.s_matches(MAGIC)):
        ipython.set_hook("complete_command", complete, str_key=MAGIC)


def unload(ipython: InteractiveShell) -> None:
    """Remove the magic; IPython cannot remove a completer, so that stays and says nothing."""
    ipython.magics_manager.magics["line"].pop(NAME, None)
    ipython.magics_manager.registry.pop(TradeCacheMagics.__name__, None)


def complete(shell: InteractiveShell, event: SimpleNamespace) -> list[str]:
    """Return which words may stand where the cursor is."""
    before = event.text_until_cursor.removesuffix(event.symbol).split()
    if NAME not in shell.magics_manager.magics["line"]:
        raise TryNext
    if len(before) == 1:
        return list(COMMANDS)
    if before[1:] == ["stats"]:
        return list(get_args(By))
    raise TryNext


def _caches(namespace: dict[str, Any]) -> dict[str, TradeCache]:
    """Return the variables that hold a cache, without those of IPython's own, such as `_` and `_1`."""
    found = [(name, value) for name, value in namespace.items() if not str(name).startswith("_")]
    # by its type: a proxy of something that is not there yet would raise if it were asked what it is
    return {name: value for name, value in found if issubclass(type(value), TradeCache)}


def _words(line: str) -> list[str]:
    """Split as a shell does, but leave backslashes alone: they are in paths. A semicolon may stand at the end."""
    lexer = shlex.shlex(line.rstrip().rstrip(";"), posix=True)  # which in a notebook hides what is returned
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""
    try:
        return list(lexer)
    except ValueError as error:
        raise UsageError(f"a quotation mark is missing in: {line}") from error


class _HelpShown(Exception):
    """Raised where argparse would end the process, which is the kernel."""


class _Parser(argparse.ArgumentParser):
    """Raises where argparse prints and exits."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} -h)")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:  # noqa: ARG002 - argparse's signature
        raise _HelpShown


def _parser() -> _Parser:
    parser = _Parser(prog=MAGIC, description="Ask a TradeCache of this notebook.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_stats(commands)
    _add_coverage(commands)
    _add_warm(commands)
    _add_clear(commands)
    for command in commands.choices.values():
        text = "the variable that holds the cache (default: `cache`, else the only open one)"
        command.add_argument("--cache", metavar="NAME", help=text)
    return parser


def _add_stats(commands: Any) -> None:
    stats = commands.add_parser("stats", help="how often the cache was asked, and who answered")
    stats.add_argument("by", nargs="?", default="tier", help=f"{', '.join(get_args(By))} (default: tier)")
    stats.set_defaults(ask=lambda cache, chosen: cache.stats(by=chosen.by))


def _add_coverage(commands: Any) -> None:
    coverage = commands.add_parser("coverage", help="which ranges of bars are stored, and how fresh they are")
    coverage.add_argument("symbols", nargs="*", metavar="SYMBOL", help="default: all")
    _add_range(coverage, interval=ONLY_INTERVAL, source="only bars of this source, such as yfinance")
    coverage.set_defaults(ask=_coverage)


def _add_warm(commands: Any) -> None:
    warm = commands.add_parser("warm", help="fetch what is not stored yet, or no longer fresh")
    warm.add_argument("symbols", nargs="+", metavar="SYMBOL")
    _add_range(warm, interval="how long a bar is (default: 1d)", source="default: the cache's own")
    warm.add_argument("--quiet", action="store_true", help="show no progress bar")
    warm.set_defaults(ask=_warm, interval="1d")


def _add_clear(commands: Any) -> None:
    clear = commands.add_parser("clear", help="delete price points and bars")
    clear.add_argument("symbols", nargs="*", metavar="SYMBOL")
    own = "only bars of this source, and no price points (default: the cache's own)"
    _add_range(clear, interval=f"{ONLY_INTERVAL}, and no price points", source=own)
    clear.add_argument("--all", action="store_true", dest="every", help="of every symbol")
    clear.set_defaults(ask=_clear)


def _add_range(command: argparse.ArgumentParser, *, interval: str, source: str) -> None:
    command.add_argument("--start", help="the first day or moment (UTC), such as 2012-03-01 (default: all)")
    command.add_argument("--end", help="the last one, included: 2012 is that whole year")
    command.add_argument("--interval", help=interval)
    command.add_argument("--source", help=source)


def _coverage(cache: TradeCache, chosen: argparse.Namespace) -> pd.DataFrame:
    return cache.coverage(
        chosen.symbols or None, chosen.start, chosen.end, interval=chosen.interval, source=chosen.source
    )


def _warm(cache: TradeCache, chosen: argparse.Namespace) -> pd.DataFrame:
    return cache.warm(
        chosen.symbols, chosen.start, chosen.end, interval=chosen.interval, source=chosen.source,
        progress=not chosen.quiet,
    )  # fmt: skip


def _clear(cache: TradeCache, chosen: argparse.Namespace) -> pd.Series:
    if chosen.symbols and chosen.every:
        raise UsageError("either name symbols or give --all")
    if not chosen.symbols and not chosen.every:
        raise UsageError("this would clear every symbol; name some, or give --all")
    return cache.invalidate(
        chosen.symbols or None, chosen.start, chosen.end, interval=chosen.interval, source=chosen.source
    )
