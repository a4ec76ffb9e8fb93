"""What do child processes do that ask one provider together?"""

import contextlib
import itertools
import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pandas as pd
from children import orders, say
from loops import run

from tradecache import RateLimited, Settings, TradeCache
from tradecache.barframes import COLUMNS
from tradecache.bridge import in_thread
from tradecache.credentials import SecretURL
from tradecache.sources import budgetredis
from tradecache.sources.budget import Budgets
from tradecache.sources.budgetfile import FileBudget
from tradecache.sources.retryafter import retry_after

DAY = pd.Timedelta(1, "D")
START = pd.Timestamp("2024-01-01")


class WebSource:
    """Asks a web server for bars, by one HTTP request each, and tells it when the request began."""

    def __init__(self, address: str, limit: tuple[int, float] | None, name: str = "web") -> None:
        self.name = name
        self.address = address
        self.rate_limit = limit
        self.settle = pd.Timedelta(0)

    async def fetch(self, symbol: str, start: pd.Timestamp, end: pd.Timestamp, interval: str) -> pd.DataFrame:
        """Return what the server says."""
        asked = f"{self.address}/bars?symbol={symbol}&at={time.monotonic()!r}&pid={os.getpid()}"
        close = await in_thread(_got, asked)
        return pd.DataFrame(dict.fromkeys(COLUMNS, float(close)), index=[start])


def _got(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            raise RateLimited(retry_after(dict(error.headers))) from error


def hammer(
    folder: str,
    budgets: str,
    server: str | None,
    address: str,
    limit: list[float] | None,
    name: str,
    patience: float,
) -> None:
    """Answer each order, a number of days, by asking for each of them; say what came of each."""
    budgetredis.PATIENCE = patience
    settings = Settings(cache_dir=folder, budget_dir=budgets, memory_url=server)
    source = WebSource(address, None if limit is None else (int(limit[0]), limit[1]), name)
    with TradeCache(source=source, settings=settings) as cache:
        say("open")
        for first, days in orders():
            for day in range(first, first + days):
                say(_asked(cache, START + day * DAY))
            say("done")


def _asked(cache: TradeCache, day: pd.Timestamp) -> Any:
    try:
        return len(cache.bars("AAPL", day, day))
    except RateLimited as limited:
        return ["RateLimited", limited.retry_after]


def churn(folder: str) -> None:
    """Take places until killed, each of which changes the file; say the first."""
    budget = FileBudget(Path(folder), "churned", (1_000_000, 0.001))

    async def work() -> None:
        for number in itertools.count():
            await budget.take()
            if number == 10:
                say("churning")

    run(work())


def fork_between(folder: str, server: str) -> None:
    """Take places before a fork, and in both processes after it; say how many began in each."""
    budgetredis.PATIENCE = 20.0
    budgets = Budgets(Path(folder), url=SecretURL(server))
    budget = budgets.of(WebSource("", (4, 600.0)))

    async def begun(times: int) -> int:
        return sum([not (await budget.take()).wait for _ in range(times)])

    first = run(begun(2))
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, str(run(begun(1))).encode())
        os._exit(0)
    os.close(write)
    theirs = int(os.read(read, 10))
    os.waitpid(child, 0)
    say([first, theirs, run(begun(3))])
    run(budgets.close())


def take_on_a_disk(folder: str) -> None:
    """Follow orders on a disk that is full, or read-only, for a time; answer with the wait of each request."""
    budgets = Budgets(Path(folder) / "budgets", monotonic=lambda: clock[0])
    clock = [0.0]
    ballast = Path(folder) / "ballast"
    budget = budgets.of(WebSource("", (3, 600.0)))
    for order in orders():
        match order:
            case "fill":
                with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                    while file.write(bytes(512)):
                        pass
                say("done")
            case "take":
                clock[0] += 10  # later than anything rests
                say((run(budget.take())).wait)
            case "file":
                say((run(FileBudget(Path(folder) / "budgets", "web", (3, 600.0)).take())).wait)
