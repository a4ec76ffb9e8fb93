"""What does the cache buy? The main job on real prices: points first, then bars."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from tqdm.auto import tqdm

from tradecache.bardemo import show_bars
from tradecache.errors import InvalidInput
from tradecache.frames import TradeCache
from tradecache.samples import sample_points

FLEETING, TTL = "FB", 2.0  # the symbol that the demo lets expire, and after how many seconds
PICTURE = "tradecache-hit-rate.png"


class Step(NamedTuple):
    """One line of the report."""

    step: str
    points: int
    memory: int
    disk: int
    missed: int
    seconds: float

    @property
    def microseconds(self) -> float:
        """Time for one point."""
        return self.seconds / max(self.points, 1) * 1e6


def run_demo(*, picture: Path | None = None) -> int:
    """Run the demo in a temporary folder, print what happened, and save a chart.

    Args:
        picture: Where the chart goes; `tradecache-hit-rate.png` in the current folder by default.

    Returns:
        0 when every point that should have come back did, 1 otherwise.

    Raises:
        InvalidInput: When no chart can be saved there.
        MissingDependency: When bokeh_sampledata is not installed.
    """
    path = _checked_picture(picture or Path(PICTURE))
    points = sample_points()
    first, last = points["timestamp"].iloc[0], points["timestamp"].iloc[-1]
    print(
        f"{len(points):,} daily closes of {', '.join(sorted(points['symbol'].unique()))}, {first:%Y-%m-%d} to {last:%Y-%m-%d}\n"
    )
    with tempfile.TemporaryDirectory(prefix="tradecache-demo-") as folder, TradeCache(folder) as cache:
        steps = _tour(cache, points, folder)
        _save_chart(cache, path)
        _report(cache, steps)
        print("\ndaily bars, read through the cache: how many came from where\n")
        wrong = show_bars(Path(folder) / "bars")
        print(f"hit rate over time: {path.resolve()}")
    return int(_lost(steps, points) + wrong > 0)


def _tour(cache: TradeCache, points: pd.DataFrame, folder: str) -> list[Step]:
    began = time.perf_counter()
    where = list(zip(points["symbol"], cache.store_prices(points), strict=True))
    stored = Step("store all, in one transaction", len(points), 0, 0, 0, time.perf_counter() - began)
    steps = [
        stored,
        _read(cache, "read each, cold", where),
        _read(cache, "read each again", where),
        _restart(folder),
    ]
    few = points[points["symbol"] == FLEETING]
    began = time.perf_counter()
    fleeting = list(zip(few["symbol"], cache.store_prices(few, ttl=TTL), strict=True))
    stored_again = Step(
        f"store {FLEETING} again, to live {TTL:g} s", len(few), 0, 0, 0, time.perf_counter() - began
    )
    steps += [stored_again, _read(cache, "read these", fleeting)]
    time.sleep(TTL)
    return [*steps, _read(cache, f"read these after {TTL:g} s", fleeting)]


def _read(cache: TradeCache, name: str, where: Sequence[tuple[str, str]]) -> Step:
    before = _served(cache)
    began = time.perf_counter()
    for symbol, data_id in tqdm(where, desc=name, unit=" points", leave=False, disable=None):
        cache.get_price(symbol, data_id)
    seconds = time.perf_counter() - began
    served = _served(cache) - before
    return Step(name, len(where), int(served["memory"]), int(served["disk"]), int(served["none"]), seconds)


def _served(cache: TradeCache) -> pd.Series:
    stats = cache.stats(by="tier")
    return pd.Series(
        {
            "memory": stats.loc["memory", "hits"],
            "disk": stats.loc["disk", "hits"],
            "none": stats.loc["disk", "misses"],
        }
    )


def _restart(folder: str) -> Step:
    """Read everything as one frame in a new process, as a notebook does after its kernel was restarted."""
    command = [sys.executable, "-m", "tradecache.demo", folder]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own module
    found = json.loads(done.stdout)
    return Step("a new process: all as one frame", found["rows"], 0, found["rows"], 0, found["seconds"])


def _report(cache: TradeCache, steps: list[Step]) -> None:
    rows = [{**step._asdict(), "us/point": round(step.microseconds, 1)} for step in steps]
    frame = pd.DataFrame(rows).set_index("step")
    frame["seconds"] = frame["seconds"].round(3)
    print("what was served from which tier, and how fast")
    print(frame.to_string(), "\n")
    print("cache.stats()")
    print(cache.stats(by="tier").round(3).to_string(), "\n")
    print("cache.latest()")
    print(cache.latest().drop(columns="age").to_string(), "\n")
    print("cache.get_cache_statistics()")
    print(cache.get_cache_statistics())


def _checked_picture(path: Path) -> Path:
    """Return `path` if a chart can be saved there, which is better known before the work than after it."""
    if path.suffix.lower() != ".png":
        raise InvalidInput("output", str(path), "the name of a .png file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InvalidInput("output", str(path), "a file that may be written; choose one with --output")
    return path


def _save_chart(cache: TradeCache, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    cache.plot.hit_rate(ax=figure.subplots())
    figure.savefig(path, dpi=120)


def _lost(steps: list[Step], points: pd.DataFrame) -> int:
    """Return how many points did not come back although they should have, or did although they had expired."""
    reads = [step for step in steps if not step.step.startswith("store")]
    fleeting = int((points["symbol"] == FLEETING).sum())
    expected = (len(points), len(points), len(points), fleeting, 0)
    came = [step.memory + step.disk for step in reads]
    for step, want, got in zip(reads, expected, came, strict=True):
        if want != got:
            print(f"{step.step}: {got:,} points came back where {want:,} should have", file=sys.stderr)
    return sum(abs(want - got) for want, got in zip(expected, came, strict=True))


def _child(folder: str) -> None:
    with TradeCache(folder) as cache:
        began = time.perf_counter()
        rows = len(cache.prices())
        answer: dict[str, Any] = {"rows": rows, "seconds": time.perf_counter() - began}
    print(json.dumps(answer))


if __name__ == "__main__":
    _child(sys.argv[1])
