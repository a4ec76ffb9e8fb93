"""What does each tier hold, and until when? As frames."""

from collections.abc import Iterator, Mapping

import pandas as pd

from tradecache.naming import PRICES, bars_dataset, kind_of
from tradecache.segments import LOCAL
from tradecache.settings import Settings

EXPIRIES = {
    "symbol": "str", "dataset": "str", "source": "str", "rows": "int64",
    "expires_at": "datetime64[us, UTC]", "ttl": "timedelta64[us]",
}  # fmt: skip
OCCUPANCY = {"tier": "str", "dataset": "str", "entries": "int64", "bytes": "int64", "max_bytes": "Int64"}

Sizes = Mapping[str, tuple[int, int]]
"""How many entries and bytes there are of each collection."""


def expiries_frame(points: pd.DataFrame, spans: pd.DataFrame | None, *, now: pd.Timestamp) -> pd.DataFrame:
    """Return price points and spans of bars as one frame, one to a row, with what is left of their time.

    Args:
        points: As `TradeCache.prices` returns them.
        spans: As `TradeCache.coverage` returns them.
        now: What time it is, aware.
    """
    prices = points[["symbol", "expires_at"]].assign(dataset=PRICES, source=LOCAL, rows=1)
    parts = [prices]
    if spans is not None:
        stored = spans[spans["outcome"] != ""].rename(columns={"fresh_until": "expires_at"})
        parts.append(stored.assign(dataset=stored["interval"].map(bars_dataset)))
    names = [name for name in EXPIRIES if name != "ttl"]
    frame = pd.concat([part[names] for part in parts if len(part)] or [prices[names]], ignore_index=True)
    return frame.assign(ttl=frame["expires_at"] - now)[list(EXPIRIES)].astype(EXPIRIES)


def occupancy_frame(*, memory: Sizes, disk: Sizes | None, settings: Settings) -> pd.DataFrame:
    """Return one row for each tier and dataset; an empty tier has a row of nothing, an unknown one none."""
    rows = [*_held("memory", memory, settings.memory_bytes)]
    if disk is not None:
        rows += _held("disk", disk, settings.disk_bytes)
    return pd.DataFrame(rows, columns=list(OCCUPANCY)).astype(OCCUPANCY)


def _held(tier: str, sizes: Sizes, limit: int | None) -> Iterator[tuple[str, str, int, int, int | None]]:
    totals: dict[str, tuple[int, int]] = {} if sizes else {"": (0, 0)}
    for collection, (entries, size) in sizes.items():
        dataset = kind_of(collection)
        before = totals.get(dataset, (0, 0))
        totals[dataset] = before[0] + entries, before[1] + size
    for dataset, (entries, size) in sorted(totals.items()):
        yield tier, dataset, entries, size, limit
