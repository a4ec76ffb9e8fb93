"""What do bars cost here, and in ArcticDB on LMDB, pandas with Parquet files, and diskcache?

Measured side by side on the same data, a seeded random walk: 98,280 and 1,000,000 one-minute bars (390 a day)
and 2,520 daily bars of 500 symbols; open, high, low and close are float64, volume is int64. Each contender has
processes of its own (`contenders.py`), the peers with an environment of their own, since ArcticDB needs an older
pandas. The environment is made once, with pip, in the folder that --peers names.

"Memory": a process that has the store open and has read the same before. The peers keep no frames in memory, so
theirs is a read from the page cache. "First read": a new process that opens the store and reads once, timed
from after the import of its package (what that imports only when needed counts), with the files in the page
cache. The last 25 bars are asked for by a range of time everywhere. Wide frames are one `bars` call here,
`read_batch` in ArcticDB, one read for each symbol in the others; theirs are joined by `pandas.concat`. Bars are
appended one at a time, 500 to each of 3 series of 98,280; Parquet and diskcache, which write the whole series
anew, append only the first 10. Every store runs as it comes.

All contenders take turns in each round, another one first each time, and each figure is the median over the
rounds. Before the rounds all must give the same answer. The ratio is ArcticDB's figure over ours, or where the
goal says so, our own from before.

    python benchmarks/bars.py [--json] [--rounds 7] [--peers FOLDER] [--save]
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import pandas as pd
import platformdirs
from contenders import CONTENDERS, DAYS, GROWN, MINUTES
from report import tell

REQUIREMENTS = ["arcticdb==6.28.2", "diskcache==5.6.3", "pandas<3", "pyarrow"]
ROWS = 1_000_000
SESSION = 390  # minutes
SYMBOLS = [f"S{number:03}" for number in range(500)]
SESSIONS = 2_520
APPENDS = 500
TURN = 50  # appends of one contender before it is the next one's turn
REWRITES = 10  # appends of those that write everything anew
NOISE = 1.1  # what counts as no slower
PROGRAM = str(Path(__file__).with_name("contenders.py"))
COMPILED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""The environment in which processes find compiled modules."""

T = TypeVar("T")
Question = list[str]
Costs = dict[str, dict[str, float]]
"""Medians by what was measured and contender."""


class Figure(NamedTuple):
    """One line of the table: a median for each contender, and what ours is held against."""

    what: str
    unit: str
    ours: float
    arcticdb: float
    parquet: float
    diskcache: float
    ratio: float
    goal: str
    met: bool | None


class Child:
    """A process of one contender that answers requests."""

    def __init__(self, python: str, name: str, folder: Path) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [python, PROGRAM, "serve", name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=COMPILED,
        )

    def ask(self, method: str, *about: Any) -> Any:
        """Return what a method of `contenders.Bench` returns."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([method, *about]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} failed at {method} {about}; its error is above")
        return json.loads(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()  # closes its input, which ends it


def peers_python(folder: Path) -> str:
    """Return the Python of the peers' environment, which is made when it is not there yet."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    note = folder / "installed.json"
    if not note.exists() or json.loads(note.read_text()) != REQUIREMENTS:
        print(f"making an environment for the peers in {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True, env=COMPILED
        )
        note.write_text(json.dumps(REQUIREMENTS))
    return str(python)


def walk(index: pd.DatetimeIndex, *, rng: np.random.Generator) -> pd.DataFrame:
    """Return bars of a random walk."""
    count = len(index)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.0005, count)))
    first = np.concatenate([[100.0], close[:-1]])
    spread = np.abs(rng.normal(0, 0.02, (2, count)))
    prices = {
        "open": first,
        "high": np.maximum(first, close) + spread[0],
        "low": np.minimum(first, close) - spread[1],
        "close": close,
    }
    return pd.DataFrame({**prices, "volume": rng.integers(1, 1_000_000, count)}, index=index)


def minutes(count: int) -> pd.DatetimeIndex:
    """Return the labels of one-minute bars, 390 on each weekday from 14:30 UTC."""
    days = pd.bdate_range("2015-01-02", periods=-(-count // SESSION)) + pd.Timedelta("14h30min")
    each = np.arange(SESSION) * np.timedelta64(1, "m")
    labels = (days.to_numpy()[:, None] + each).ravel()[:count]
    return pd.DatetimeIndex(labels, tz="UTC", name="timestamp").as_unit("us")


def make_data(folder: Path) -> str:
    """Write the data that every contender is given; return the label of the 25th bar from the end."""
    rng = np.random.default_rng(7)
    bars = walk(minutes(ROWS), rng=rng)
    bars.to_parquet(folder / MINUTES)
    days = pd.bdate_range("2015-01-02", periods=SESSIONS, name="timestamp", unit="us")
    parts = [walk(days, rng=rng).assign(symbol=symbol) for symbol in SYMBOLS]
    pd.concat(parts).to_parquet(folder / DAYS)
    (folder / "symbols.json").write_text(json.dumps(SYMBOLS))
    return str(bars.index[-25].isoformat())


def agree(children: Iterable[Child], question: Question) -> None:
    """Have every contender read once, and see that all found the same."""
    found = {child.name: child.ask("check", question) for child in children}
    for name, answer in found.items():
        if not all(math.isclose(*pair, rel_tol=1e-9) for pair in zip(answer, found["ours"], strict=True)):
            raise RuntimeError(f"{name} answers {question} otherwise than ours: {found}")


def medians(found: Mapping[str, Mapping[str, list[float]]], *, scale: float = 1e3) -> Costs:
    return {
        what: {name: statistics.median(costs) * scale for name, costs in each.items()}
        for what, each in found.items()
    }


def lists() -> dict[str, dict[str, list[float]]]:
    return defaultdict(lambda: defaultdict(list))


def in_turn(contenders: Sequence[T], number: int) -> list[T]:
    """Return the contenders with another one first in each round, so that none is always first."""
    first = number % len(contenders)
    return [*contenders[first:], *contenders[:first]]


def measure_memory(children: list[Child], questions: Mapping[str, Question], rounds: int) -> Costs:
    """Ask what was asked before, in processes that stay."""
    for question in questions.values():
        agree(children, question)
    found = lists()
    for number in range(rounds):
        for what, question in questions.items():
            for child in in_turn(children, number):
                found[what][child.name].append(child.ask("time", question))
    return medians(found)


def measure_first(
    pythons: Mapping[str, str], folder: Path, questions: Mapping[str, Question], rounds: int
) -> tuple[Costs, Costs, Costs]:
    """Ask in a new process each time; return milliseconds, the MiB that it added, milliseconds of imports."""
    took, added, imports = lists(), lists(), lists()
    for number in range(rounds + 1):
        for what, question in questions.items():
            for name, python in in_turn(list(pythons.items()), number):
                command = [python, PROGRAM, "once", name, str(folder), *question]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=COMPILED)
                seconds, resident, imported = json.loads(done.stdout)
                if number:  # the first round brings files into the page cache, and compiles modules
                    took[what][name].append(seconds)
                    added[what][name].append(resident)
                    imports[what][name].append(imported)
    return medians(took), medians(added, scale=1), medians(imports)


def measure_writes(children: list[Child], rounds: int) -> dict[str, float]:
    found = lists()
    for number in range(2 * rounds):
        for child in in_turn(children, number):
            found["write"][child.name].append(child.ask("write", f"WRITTEN{number}"))
    return medians(found)["write"]


def measure_appends(children: list[Child]) -> dict[str, float]:
    """Append to several series in turns of some bars; return the milliseconds of one append."""
    found = lists()
    for number in range(GROWN):
        took: dict[str, float] = defaultdict(float)
        for first in range(0, APPENDS, TURN):
            for child in in_turn(children, first // TURN):
                if child.name in {"ours", "arcticdb"}:
                    took[child.name] += child.ask("append", f"GROWN{number}", first, TURN) / APPENDS
                elif first == 0:
                    took[child.name] = child.ask("append", f"GROWN{number}", first, REWRITES) / REWRITES
        for name, seconds in took.items():
            found["append"][name].append(seconds)
    return medians(found)["append"]


def figure(what: str, costs: Mapping[str, float], *, at_least: float = 0, unit: str = "ms") -> Figure:
    """Return a line that holds ours against ArcticDB's."""
    ratio = costs["arcticdb"] / costs["ours"]
    goal = f">= {at_least:g}x faster" if at_least else ""
    return Figure(what, unit, **costs, ratio=ratio, goal=goal, met=ratio >= at_least if at_least else None)


def against_before(what: str, costs: Mapping[str, float], before: float) -> Figure:
    """Return a line that holds ours against our own from before."""
    ratio = before / costs["ours"]
    goal = f"no slower than before ({before:.3g})"
    return Figure(what, "ms", **costs, ratio=ratio, goal=goal, met=ratio >= 1 / NOISE)


YEAR_READ, DECADE_READ = "98,280 rows", "1,000,000 rows"
TAIL, WIDE = "last 25 of 1,000,000 rows", "500 symbols x 2,520 days, wide"
GROWN_READ = f"98,280 rows and {APPENDS} appended"


def measure(python: str, rounds: int) -> list[Figure]:
    """Measure everything, all contenders in turn."""
    pythons = {name: sys.executable if name == "ours" else python for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = make_data(folder)
        questions: dict[str, Question] = {
            YEAR_READ: ["read", "YEAR"],
            DECADE_READ: ["read", "DECADE"],
            TAIL: ["since", "DECADE", start],
            WIDE: ["wide"],
        }
        with ExitStack() as stack:
            children = [stack.enter_context(Child(each, name, folder)) for name, each in pythons.items()]
            for child in children:
                child.ask("fill")
            memory = measure_memory(children, questions, rounds)
            held = {child.name: child.ask("held") for child in children}
            write = measure_writes(children, rounds)
            append = measure_appends(children)
            both = [child for child in children if child.name in {"ours", "arcticdb"}]
            regrown = {YEAR_READ: questions[YEAR_READ], GROWN_READ: ["read", "GROWN0"]}
            grown = measure_memory(both, regrown, rounds)
        questions[GROWN_READ] = regrown[GROWN_READ]
        first, added, imports = measure_first(pythons, folder, questions, rounds)
    nothing = {"parquet": math.nan, "diskcache": math.nan}
    for costs in (grown[GROWN_READ], first[GROWN_READ]):
        costs.update(nothing)  # their series has grown by fewer bars
    return [
        figure(f"{YEAR_READ}, memory", memory[YEAR_READ], at_least=10),
        figure(f"{DECADE_READ}, memory", memory[DECADE_READ], at_least=50),
        figure(f"{YEAR_READ}, first read", first[YEAR_READ], at_least=1),
        figure(f"{DECADE_READ}, first read", first[DECADE_READ], at_least=2),
        figure(f"{TAIL}, memory", memory[TAIL], at_least=10),
        figure(f"{TAIL}, first read", first[TAIL], at_least=1),
        figure(f"{WIDE}, memory", memory[WIDE], at_least=3),
        figure(f"{WIDE}, first read", first[WIDE], at_least=1),
        figure(f"write {YEAR_READ}", write, at_least=2),
        figure(f"append one bar, mean of {APPENDS}", append, at_least=2),
        against_before(f"{GROWN_READ}, memory", grown[GROWN_READ], grown[YEAR_READ]["ours"]),
        against_before(f"{GROWN_READ}, first read", first[GROWN_READ], first[YEAR_READ]["ours"]),
        figure(f"the imports before a first read of {YEAR_READ}", imports[YEAR_READ]),
        figure(f"resident memory that a first read of {DECADE_READ} adds", added[DECADE_READ], unit="MiB"),
        figure(f"resident memory that a first read of {WIDE} adds", added[WIDE], unit="MiB"),
        figure("resident memory that writing and reading all of it adds", held, unit="MiB"),
    ]


def versions(python: str) -> dict[str, str]:
    """Return what was measured against what."""
    names = ["arcticdb", "diskcache", "pandas", "pyarrow"]
    code = f"from importlib.metadata import version; print([version(name) for name in {names}])"
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    theirs = zip(names, json.loads(done.stdout.replace("'", '"')), strict=True)
    ours = {name: version(name) for name in ("tradecache", "pandas", "pyarrow")}
    return ours | {f"peers' {name}": found for name, found in theirs}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--peers",
        type=Path,
        default=platformdirs.user_cache_path("tradecache-benchmarks") / "peers",
        help="the folder of the peers' environment (%(default)s)",
    )
    parser.add_argument("--save", action="store_true", help="write the JSON to benchmarks/results/ too")
    chosen = parser.parse_args()
    python = peers_python(chosen.peers.absolute())
    figures = measure(python, chosen.rounds)
    rows = [
        {name: None if value != value else value for name, value in each._asdict().items()}  # noqa: PLR0124
        for each in figures
    ]
    tell("bars", rows, chosen, digits=3, width=250, versions=versions(python))


if __name__ == "__main__":
    main()
