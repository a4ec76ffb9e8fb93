"""What does each tier hold, and until when? As frames."""

from collections.abc import Iterator, Mapping
from datetime import datetime

import pandas as pd

from tradecache.segments import LOCAL
from tradecache.settings import Settings

EXPIRIES = {
    "symbol": "str", "dataset": "str", "source": "str", "rows": "int64",
    "expires_at": "datetime64[us, UTC]", "ttl": "timedelta64[us]",
}  # fmt: skip
OCCUPANCY = {"tier": "str", "dataset": "str", "entries": "int64", "bytes": "int64", "max_bytes": "Int64"}
DATASETS = {"symbol:": "prices", "bars/": "bars", "views/": "views", "history": "history"}
"""What a collection belongs to, by how its name begins."""

Sizes = Mapping[str, tuple[int, int]]
"""How many entries and bytes there are of each collection."""


def expiries_frame(points: pd.DataFrame, spans: pd.DataFrame | None, *, now: datetime) -> pd.DataFrame:
    """Return price points and spans of bars as one frame, one to a row, with what is left of their time.

    Args:
        points: As `TradeCache.prices` returns them.
        spans: As `TradeCache.coverage` returns them.
        now: What time it is, aware.
    """
    prices = points[["symbol", "expires_at"]].assign(dataset="prices", source=LOCAL, rows=1)
    parts = [prices]
    if spans is not None:
        stored = spans[spans["outcome"] != ""].rename(columns={"fresh_until": "expires_at"})
        parts.append(stored.assign(dataset="bars " + stored["interval"]))
    names = [name for name in EXPIRIES if name != "ttl"]
    frame = pd.concat([part[names] for part in parts if len(part)] or [prices[names]], ignore_index=True)
    return frame.assign(ttl=frame["expires_at"] - pd.Timestamp(now))[list(EXPIRIES)].astype(EXPIRIES)


def occupancy_frame(memory: Sizes, disk: Sizes, settings: Settings) -> pd.DataFrame:
    """Return one row for each tier and dataset, and a row of zeros where a tier is empty."""
    rows = [
        *_held("memory", memory, settings.memory_bytes),
        *_held("disk", disk, settings.disk_bytes),
    ]
    return pd.DataFrame(rows, columns=list(OCCUPANCY)).astype(OCCUPANCY)


def _held(tier: str, sizes: Sizes, limit: int | None) -> Iterator[tuple[str, str, int, int, int | None]]:
    totals: dict[str, tuple[int, int]] = {} if sizes else {"prices": (0, 0)}
    for collection, (entries, size) in sizes.items():
        dataset = next((name for start, name in DATASETS.items() if collection.startswith(start)), "other")
        before = totals.get(dataset, (0, 0))
        totals[dataset] = before[0] + entries, before[1] + size
    for dataset, (entries, size) in sorted(totals.items()):
        yield tier, dataset, entries, size, limit
