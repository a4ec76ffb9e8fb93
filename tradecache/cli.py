"""What can be done from a command line?"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tradecache.errors import InvalidInput, TradeCacheError

INTERRUPTED = 130  # what a shell expects of a command that Ctrl-C has ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0, 1 when something is wrong with the cache, 2 for bad usage."""
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
    helps = {
        "info": "where the cache is and how much is in it",
        "verify": "read everything on disk and put what is damaged into quarantine",
        "purge": "delete what has expired and files that nothing names",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("--cache-dir", help="the folder (default: TRADECACHE_CACHE_DIR or the user's)")
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _run(chosen: argparse.Namespace) -> int:
    if chosen.command == "demo":
        from tradecache.demo import run_demo

        return run_demo(picture=chosen.output)
    return _keep_house(chosen)


def _keep_house(chosen: argparse.Namespace) -> int:
    from tradecache.frames import TradeCache

    if chosen.cache_dir is not None and not Path(chosen.cache_dir).is_dir():
        raise InvalidInput("--cache-dir", chosen.cache_dir, "a folder that is there")
    with TradeCache(chosen.cache_dir) as cache:
        answer: pd.DataFrame | pd.Series = getattr(cache, chosen.command)()
    if chosen.json:
        spelt = answer.to_dict(orient="records") if isinstance(answer, pd.DataFrame) else answer.to_dict()
        print(json.dumps(spelt, default=int))
    elif isinstance(answer, pd.DataFrame) and answer.empty:
        print("all is well")
    else:
        with pd.option_context("display.max_colwidth", None):  # a path is of use only as a whole
            print(answer.to_string())
    return int(chosen.command == "verify" and len(answer) > 0)
