"""What can be done from a command line?"""

import argparse
import base64
import json
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tradecache.credentials import KEY_BYTES
from tradecache.errors import InvalidInput, TradeCacheError
from tradecache.settings import Settings

if TYPE_CHECKING:
    from tradecache.frames import TradeCache
    from tradecache.sources.base import Source

INTERRUPTED = 130  # what a shell expects of a command that Ctrl-C has ended
STORED_SOURCE = "the source, as in `tradecache warm` or as shown by `tradecache coverage`; it is not asked"
STATS_ARE = """
What counts requests lives in a process and ends with it (TradeCache.stats), so here it is what is stored: one
row for each symbol, dataset ("prices" are points, "bars 1d" are bars of a day) and source. entries are points,
or spans as `tradecache coverage` counts them; bytes are what the rows take as frames in memory; first and last
are timestamps in UTC, of bars their labels; final, fresh and stale say how many bars are in which state.
"""
METRICS_ARE = """
It shows what is on disk, and what the processes that use the folder have counted where they keep a history
(TRADECACHE_KEEP_HISTORY=true, or Settings(keep_history=True)): requests, rows and bytes by tier, dataset and
operation, up to a minute late. It cannot see their memory, how long requests took, nor how often a source was asked:
for these, call cache.serve_metrics() in the process itself. Counters begin with the history that is still kept.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0, 1 when something is wrong with the cache or a symbol, 2 for bad usage."""
    chosen = _parser().parse_args(arguments)
    try:
        code = _run(chosen)
        print(end="", flush=True)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except (TradeCacheError, OSError) as error:
        print(f"tradecache: {error}", file=sys.stderr)
        return 2 if isinstance(error, InvalidInput) else 1
    return code


class _Version(argparse.Action):
    """Looks the version up when it is asked for: in a source tree that is not installed there is none."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(version("tradecache"))
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tradecache", description="A market-data cache for research in notebooks."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the installed version and exit")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="show on real prices what the cache does (about ten seconds)")
    demo.add_argument(
        "--output", type=Path, help="where the chart goes (default: tradecache-hit-rate.png here)"
    )
    _add_housekeeping(commands)
    _add_warm(commands)
    _add_views(commands)
    _add_export(commands)
    _add_metrics(commands)
    _add_keys(commands)
    return parser


def _add_housekeeping(commands: Any) -> None:
    helps = {
        "info": "where the cache is and how much is in it",
        "verify": "read everything on disk and put what is damaged into quarantine",
        "purge": "delete what has expired and files that nothing names",
    }
    for name, text in helps.items():
        _add_common(commands.add_parser(name, help=text))


def _add_warm(commands: Any) -> None:
    warm = commands.add_parser(
        "warm", help="fetch what is not stored yet, or no longer fresh; exit code 1 when a symbol failed"
    )
    warm.add_argument("symbols", nargs="+", metavar="SYMBOL")
    warm.add_argument(
        "--source", required=True, help="yfinance, ccxt:<exchange>, files:<folder>, sample or synthetic"
    )
    _add_range(warm)
    warm.add_argument("--interval", default="1d", help="how long a bar is (default: 1d)")
    _add_common(warm)


def _add_views(commands: Any) -> None:
    coverage = commands.add_parser("coverage", help="which ranges of bars are stored, and how fresh they are")
    coverage.add_argument("symbols", nargs="*", metavar="SYMBOL", help="default: all")
    _add_range(coverage)
    coverage.add_argument("--interval", help="only bars of this length")
    coverage.add_argument("--source", help=STORED_SOURCE)
    _add_common(coverage)
    text = "how much is stored of each symbol"
    stats = commands.add_parser("stats", help=text, description=f"Show {text}.", epilog=STATS_ARE)
    stats.add_argument("symbols", nargs="*", metavar="SYMBOL", help="default: all")
    _add_common(stats)


def _add_export(commands: Any) -> None:
    text = "write what is stored to a .parquet, .csv or .feather file; nothing is fetched"
    export = commands.add_parser("export", help=text)
    export.add_argument("path", metavar="PATH")
    export.add_argument("symbols", nargs="+", metavar="SYMBOL")
    _add_range(export)
    export.add_argument("--interval", help="export bars of this length (default: price points)")
    export.add_argument("--source", help=f"{STORED_SOURCE} (default: the only one that has such bars)")
    _add_common(export)


def _add_metrics(commands: Any) -> None:
    text = "let Prometheus scrape a folder, until Ctrl-C"
    serve = commands.add_parser("serve-metrics", help=text, description=METRICS_ARE)
    serve.add_argument("--port", default="9464", help="0 chooses a free one, and says which (default: 9464)")
    serve.add_argument(
        "--address", default="127.0.0.1", help="whom to answer (default: 127.0.0.1, only this machine)"
    )
    serve.add_argument("--cache-dir", help="the folder (default: TRADECACHE_CACHE_DIR or the user's)")


def _add_keys(commands: Any) -> None:
    commands.add_parser("new-key", help="print a new encryption key; keep it where the folder is not")
    text = "encrypt everything on disk with the first key of TRADECACHE_ENCRYPTION_KEY"
    rekey = commands.add_parser(
        "rekey", help=text, description=f"{text}; the keys after it open what is there. Empties quarantine/."
    )
    rekey.add_argument(
        "--key-file",
        help="a file (- for standard input) with keys, one to a line, that come before those of the variable",
    )
    _add_common(rekey)


def _add_range(command: argparse.ArgumentParser) -> None:
    command.add_argument("--start", help="the first day or moment (UTC), such as 2012-03-01 (default: all)")
    command.add_argument("--end", help="the last one, included: 2012 is that whole year")


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--cache-dir", help="the folder (default: TRADECACHE_CACHE_DIR or the user's)")
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _run(chosen: argparse.Namespace) -> int:
    if chosen.command == "demo":
        from tradecache.demo import run_demo

        return run_demo(picture=chosen.output)
    others = {
        "warm": _warm,
        "coverage": _coverage,
        "stats": _stats,
        "export": _export,
        "serve-metrics": _serve_metrics,
        "rekey": _rekey,
        "new-key": _new_key,
    }
    return others.get(chosen.command, _keep_house)(chosen)


def _keep_house(chosen: argparse.Namespace) -> int:
    with _looked_into(chosen.cache_dir) as cache:
        answer: pd.DataFrame | pd.Series = getattr(cache, chosen.command)()
    _show(answer, as_json=chosen.json, nothing="all is well")
    return int(chosen.command == "verify" and len(answer) > 0)


def _warm(chosen: argparse.Namespace) -> int:
    from tradecache.frames import TradeCache

    source = _source(chosen.source)  # made first: for a slip in its name no folder is made
    with TradeCache(chosen.cache_dir, source=source) as cache:
        report = cache.warm(
            chosen.symbols, chosen.start, chosen.end, interval=chosen.interval,
            progress=sys.stderr.isatty() and not chosen.json,
        )  # fmt: skip
    _show(report.reset_index(), as_json=chosen.json)
    return int((report["error"] != "").any())


def _coverage(chosen: argparse.Namespace) -> int:
    from tradecache.stored import stored_coverage

    with _looked_into(chosen.cache_dir) as cache:
        answer = stored_coverage(
            cache, chosen.symbols or None, chosen.start, chosen.end,
            interval=chosen.interval, source=chosen.source,
        )  # fmt: skip
    _show(answer, as_json=chosen.json, nothing="no such bars are stored")
    return 0


def _stats(chosen: argparse.Namespace) -> int:
    from tradecache.stored import held_frame

    with _looked_into(chosen.cache_dir) as cache:
        answer = held_frame(cache, chosen.symbols or None)
    about = f" for {', '.join(chosen.symbols)}" if chosen.symbols else ""
    _show(answer, as_json=chosen.json, nothing=f"nothing is stored{about}")
    return 0


def _export(chosen: argparse.Namespace) -> int:
    from tradecache.stored import export_stored

    if chosen.source is not None and chosen.interval is None:
        raise InvalidInput("--source", chosen.source, "given with --interval: price points have no source")
    with _looked_into(chosen.cache_dir) as cache:
        done = export_stored(
            cache, chosen.path, chosen.symbols, chosen.start, chosen.end,
            interval=chosen.interval, source=chosen.source,
        )  # fmt: skip
    if done is None:
        print("tradecache: nothing of that is stored, so no file was written", file=sys.stderr)
        return 1
    print(json.dumps({"path": str(done.path), "rows": done.rows}) if chosen.json else done.path)
    if done.without:
        print(f"tradecache: nothing of that is stored for {', '.join(done.without)}", file=sys.stderr)
    return int(len(done.without) > 0)


def _serve_metrics(chosen: argparse.Namespace) -> int:
    from tradecache.exporter import MetricsServer, run_until_signalled
    from tradecache.metrics import FolderCollector

    port = int(chosen.port) if chosen.port.isdecimal() else chosen.port
    with _looked_into(chosen.cache_dir) as cache:
        server = MetricsServer(FolderCollector(cache.core), port=port, address=chosen.address)
        print(f"metrics of {cache.core.where}: {server.url}", flush=True)
        run_until_signalled(server)
    return 0


def _new_key(_: argparse.Namespace) -> int:
    print(base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode())
    return 0


def _rekey(chosen: argparse.Namespace) -> int:
    from tradecache.rekeying import rekey

    named = {} if chosen.cache_dir is None else {"cache_dir": chosen.cache_dir}
    settings = _with_keys(chosen.key_file, named)
    print(f"tradecache: the folder is {settings.cache_dir}", file=sys.stderr)
    done = rekey(settings)
    _show(done, as_json=chosen.json)
    if done["left"]:
        print("tradecache: not everything could be encrypted; run it again", file=sys.stderr)
    if done["not_compacted"]:
        print(
            "tradecache: another process uses the folder (or the disk is full), so unused pages may hold what was; run it again later",
            file=sys.stderr,
        )
    if done["not_deleted"]:
        print(
            f"tradecache: {done['not_deleted']} files were not deleted, see above; some may hold what was",
            file=sys.stderr,
        )
    return int(any(done[count] > 0 for count in ("left", "not_compacted", "not_deleted")))


def _with_keys(key_file: str | None, named: dict[str, Any]) -> Settings:
    """Return settings with the keys of a file before those of the environment."""
    if key_file is None:
        return Settings(**named)
    try:
        text = sys.stdin.read() if key_file == "-" else Path(key_file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        allowed = "a text file of keys, one to a line, as `tradecache new-key` prints them"
        raise InvalidInput("--key-file", key_file, allowed) from None
    keys = [*text.split(), *filter(None, os.environ.get("TRADECACHE_ENCRYPTION_KEY", "").split(","))]
    return Settings(**named, encryption_key=keys)


def _looked_into(folder: str | None) -> "TradeCache":
    """Return the cache in a folder that is there: who only looks makes none."""
    from tradecache.frames import TradeCache

    if folder is not None and not Path(folder).is_dir():
        raise InvalidInput("--cache-dir", folder, "a folder that is there")
    return TradeCache(folder)


def _source(text: str) -> "Source":
    from tradecache.sources.catalog import NAMES, as_source

    try:
        return as_source(text)
    except InvalidInput as error:
        if error.field != "source":  # it is a source, but its folder or its exchange is none
            raise
        raise InvalidInput("--source", text, NAMES) from error


def _show(answer: pd.DataFrame | pd.Series, *, as_json: bool, nothing: str = "") -> None:
    """Print a table, or JSON; for a table without rows a sentence."""
    if as_json:
        spelt = answer.to_dict(orient="records") if isinstance(answer, pd.DataFrame) else answer.to_dict()
        print(json.dumps(spelt, default=_plain))
    elif answer.empty:
        print(nothing)
    else:
        with pd.option_context("display.max_colwidth", None):  # a path is of use only as a whole
            print(_table(answer))


def _table(answer: pd.DataFrame | pd.Series) -> str:
    if not isinstance(answer, pd.DataFrame):
        return answer.to_string()
    counts = answer.select_dtypes("Int64")  # whose gaps `na_rep` does not reach
    shown = answer.assign(**{str(name): counts[name].astype("str") for name in counts})
    return shown.to_string(index=False, na_rep="")


def _plain(value: Any) -> str | int | None:
    """Return what JSON has no word for as what it has: moments in ISO 8601, none where there is none."""
    if pd.isna(value):
        return None
    return value.isoformat() if isinstance(value, pd.Timestamp) else int(value)
