"""What does read-through buy? Real daily bars: cold, a longer range, again, a restart, one bar that has expired."""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from tradecache.frames import TradeCache
from tradecache.samples import sample_bars

HALF_YEAR = ("2012-07-02", "2012-12-31")
WHOLE_YEAR = ("2012-01-03", "2012-12-31")
SESSION = datetime(2013, 2, 27, 15, 30, tzinfo=UTC)  # an hour after the opening in New York
LATER = timedelta(minutes=10)


class Step(NamedTuple):
    """One line of the report: how many bars came from where, and what had to be asked for."""

    step: str
    bars: int
    memory: int
    disk: int
    source: int
    requests: int
    ms: float


def show_bars(folder: Path) -> int:
    """Read the bars of the five stocks through a cache in `folder`, and print what happened.

    Returns:
        How many of the answers were not what the data say.
    """
    symbols, clock = sorted(sample_bars()), _Clock(SESSION)
    wrong = 0
    with TradeCache(folder, source="sample", clock=clock) as cache:
        steps = []
        for name, start, end in (
            ("half a year, cold", *HALF_YEAR),
            ("the whole year: the other half", *WHOLE_YEAR),
            ("the whole year again", *WHOLE_YEAR),
            ("up to now, while the market is open", WHOLE_YEAR[0], None),
        ):
            step, is_true = _ask(cache, name, symbols, start, end)
            steps.append(step)
            wrong += not is_true
        steps.append(_restart(folder, symbols))
        clock.now += LATER
        plan = cache.plan(symbols, WHOLE_YEAR[0])
        step, is_true = _ask(cache, "ten minutes later: today's bar", symbols, WHOLE_YEAR[0], None)
        steps.append(step)
        wrong += not is_true
        print(pd.DataFrame(steps).set_index("step").round(1).to_string(), "\n")
        print(f"cache.plan(symbols, {WHOLE_YEAR[0]!r}) after these ten minutes: one gap has opened")
        print(plan.drop(columns=["source", "interval"]).to_string(index=False), "\n")
        print("cache.explain(), of AAPL")
        explained = cache.explain().query("symbol == 'AAPL' and rows > 0")
        print(explained[["start", "end", "tier", "why", "rows"]].to_string(index=False), "\n")
    return wrong


class _Clock:
    """A wall clock of which the demo decides what time it is."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def _ask(cache: TradeCache, name: str, symbols: list[str], start: str, end: str | None) -> tuple[Step, bool]:
    """Ask for bars; return what happened, and whether they are what the data say."""
    requests = len(cache.plan(symbols, start, end))
    began = time.perf_counter()
    frame = cache.bars(symbols, start, end, layout="long")
    milliseconds = (time.perf_counter() - began) * 1e3
    last = end or f"{SESSION:%Y-%m-%d}"
    truth = pd.concat({symbol: bars.loc[start:last] for symbol, bars in sample_bars().items()})
    is_true = frame["close"].sort_index().tolist() == truth["close"].sort_index().tolist()
    rows = cache.explain().groupby("tier")["rows"].sum()
    memory, disk, source = (int(rows.get(tier, 0)) for tier in ("memory", "disk", "source"))
    return Step(name, len(frame), memory, disk, source, requests, milliseconds), is_true


def _restart(folder: Path, symbols: list[str]) -> Step:
    """Ask for the whole year in a new process, as a notebook does after its kernel was restarted."""
    command = [sys.executable, "-m", "tradecache.bardemo", str(folder), *symbols]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own module
    return Step(*json.loads(done.stdout))


def _child(folder: str, symbols: list[str]) -> None:
    with TradeCache(folder, source="sample") as cache:
        step, _ = _ask(cache, "a new process: the whole year", symbols, *WHOLE_YEAR)
    print(json.dumps(step))


if __name__ == "__main__":
    _child(sys.argv[1], sys.argv[2:])
