"""What does it cost to count a request, and to look at what was counted?

Counting is `Telemetry.record` with the system's clock, with and without a history, over 500 symbols, until the
buffer of events is full and beyond. Side by side, in one process and in turn, with what a service would use:
prometheus_client, one labelled counter and one histogram for each request (which keep neither rows, bytes nor
events). Looking is each frame and a picture of the hit rate, of 100,000 events. Each figure is the median over
rounds of the mean cost of one operation.

    python benchmarks/telemetry.py [--json] [--rounds 9] [--save]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import matplotlib.figure
from prometheus_client import CollectorRegistry, Counter, Histogram
from report import tell

from tradecache.clock import Clock
from tradecache.stats import events_frame, hit_rate_frame, stats_frame
from tradecache.telemetry import MAX_EVENTS, Telemetry

BATCH = 20_000
SYMBOLS = [f"S{number}" for number in range(500)]
GOAL = 2.0  # microseconds for each event


def telemetry(bin_seconds: float | None = None) -> Telemetry:
    """Return telemetry whose buffer is full."""
    made = Telemetry(Clock().epoch, bin_seconds=bin_seconds)
    for number in range(MAX_EVENTS):
        tier = "memory" if number % 3 else "disk"
        made.record("bars", "bars 1d", SYMBOLS[number % 500], tier, 250, 12_000, 1e-4 * (1 + number % 7))
    return made


def counting(made: Telemetry) -> Callable[[], None]:
    """Return what records a batch of requests."""

    def batch() -> None:
        for number in range(BATCH):
            made.record("bars", "bars 1d", SYMBOLS[number % 500], "memory", 250, 12_000, 1e-4)

    return batch


def prometheus() -> Callable[[], None]:
    """Return what counts a batch of requests as a service would."""
    registry = CollectorRegistry()
    labels = ("operation", "dataset", "symbol", "tier")
    requests = Counter("requests", "Requests.", labels, registry=registry)
    seconds = Histogram("seconds", "Seconds.", ("tier",), registry=registry)

    def batch() -> None:
        for number in range(BATCH):
            requests.labels("bars", "bars 1d", SYMBOLS[number % 500], "memory").inc()
            seconds.labels("memory").observe(1e-4)

    return batch


def looks(made: Telemetry) -> dict[str, Callable[[], Any]]:
    """Return the ways to look at what was counted."""
    from tradecache.plots import Plots

    class Charted:
        def hit_rate(self, window: Any = None, **options: Any) -> Any:
            return hit_rate_frame(made, window=window, **options)

    plots = Plots(Charted())  # type: ignore[arg-type]  # of which only the hit rate is drawn
    return {
        "events()": lambda: events_frame(made),
        "stats(by='tier')": lambda: stats_frame(made, by="tier"),
        "stats(by='symbol')": lambda: stats_frame(made, by="symbol"),
        "hit_rate()": lambda: hit_rate_frame(made),
        "hit_rate(by='symbol')": lambda: hit_rate_frame(made, by="symbol"),
        "plot.hit_rate()": lambda: plots.hit_rate(ax=mpl.figure.Figure().subplots()),
    }


def seconds_of(work: Callable[[], Any]) -> float:
    """Return how long some work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--save", action="store_true")
    chosen = parser.parse_args()
    sides = {
        "one event": counting(telemetry()),
        "one event, with a history": counting(telemetry(60.0)),
        "prometheus_client": prometheus(),
    }
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(chosen.rounds):
        for name, work in sides.items():
            taken[name].append(seconds_of(work) / BATCH * 1e6)
    theirs = statistics.median(taken.pop("prometheus_client"))
    rows: list[dict[str, Any]] = []
    for name, found in taken.items():
        ours = statistics.median(found)
        rows.append({
            "what": name, "ours": ours, "theirs": theirs, "unit": "us", "goal": f"< {GOAL:g} us",
            "met": ours < GOAL, "ratio": theirs / ours,
        })  # fmt: skip
    for name, look in looks(telemetry()).items():
        look()
        found = statistics.median(seconds_of(look) for _ in range(chosen.rounds))
        rows.append({"what": f"{name} of {MAX_EVENTS:,} events", "ours": found * 1e3, "unit": "ms"})
    tell("telemetry", rows, chosen, digits=2, width=120)


if __name__ == "__main__":
    main()
