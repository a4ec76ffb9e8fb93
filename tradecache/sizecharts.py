"""How much does each tier hold of what, and how much may it? A chart of bytes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tradecache.chartaxes import HIDDEN, Floats, add_legend, name_rows, styled, write_in_middle
from tradecache.units import spelt_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DATASETS = {
    "bars": ("#0072B2", ""),
    "prices": ("#E69F00", "//"),
    "views": ("#009E73", "\\\\"),
    "history": ("#CC79A7", ".."),
    "other": ("#BBBBBB", "xx"),
}
BOUNDED = {"disk": "bars"}
"""Which dataset a tier's limit is for, where it is not for all of them."""
APART = 50  # times: sizes that differ by more do not fit on one linear axis
ROOM = 1.15
ROOM_FOR_SIZE = 0.13  # of the width of the Axes
SIZE_TICKS = [0, *(2**power for power in range(10, 61, 5))]
LINEAR_BYTES = 1024  # a logarithmic axis begins beyond that, and has a zero


def draw_occupancy(axes: "Axes", held: pd.DataFrame, *, bars: Mapping[str, Any]) -> None:
    """Draw how many bytes each tier holds of which dataset, and how many it may hold."""
    tiers = list(dict.fromkeys(held["tier"]))
    table = held.pivot_table(index="tier", columns="dataset", values="bytes", aggfunc="sum", fill_value=0)
    sizes = table.reindex(index=tiers, columns=[name for name in DATASETS if name in table])
    limits = held.groupby("tier")["max_bytes"].max()
    _as_bytes(axes, [int(end) for end in [*sizes.sum(axis=1), *limits.dropna()] if end > 0])
    _stack(axes, sizes, bars)
    for row, tier in enumerate(tiers):
        _mark_limit(axes, row, int(sizes.loc[tier].sum()), limits[tier], BOUNDED.get(tier, ""))
    name_rows(axes, [_spelt_use(tier, sizes.loc[tier], limits[tier]) for tier in tiers])
    is_linear = axes.get_xscale() == "linear"
    axes.set_xlabel("bytes" if is_linear else "bytes (logarithmic; parts of a bar by their share)")
    entries = held.groupby("tier")["entries"].sum()
    counts = ", ".join(f"{tier}: n = {entries[tier]:,}" for tier in tiers)
    axes.set_title(f"Occupancy (entries in {counts})")
    if not sizes.to_numpy().any():
        write_in_middle(axes, "nothing stored")
    add_legend(axes)


def _as_bytes(axes: "Axes", ends: list[int]) -> None:
    """Make the x axis one of bytes: linear, or logarithmic where the ends are too far apart."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MultipleLocator, NullLocator

    most = max(ends, default=LINEAR_BYTES)
    is_logarithmic = most > APART * min(ends, default=most)
    if is_logarithmic:
        axes.set_xscale("symlog", linthresh=LINEAR_BYTES, base=2, linscale=2)
        axes.xaxis.set_major_locator(FixedLocator(SIZE_TICKS))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MultipleLocator(2.0 ** int(np.log2(most / 3))))
    axes.set_xlim(0, most * (16 if is_logarithmic else ROOM))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: spelt_bytes(size)))


def _stack(axes: "Axes", sizes: pd.DataFrame, bars: Mapping[str, Any]) -> None:
    """Draw a bar for each tier, as long as all it holds; each dataset has its share of that length."""
    from matplotlib.patches import Patch

    edges = _edges(axes, sizes)
    for number, dataset in enumerate(map(str, sizes)):
        colour, hatch = DATASETS[dataset]
        style = {
            "color": colour, "hatch": hatch, "edgecolor": "white", "height": 0.5, "linewidth": 0.3,
            "label": dataset if sizes[dataset].any() else HIDDEN,
        }  # fmt: skip
        left, right = edges[:, number], edges[:, number + 1]
        axes.barh(range(len(sizes)), right - left, left=left, **styled(style, bars, artist=Patch))
        for row, size in enumerate(sizes[dataset]):
            _say_size(axes, row, (left[row], right[row]), size)


def _edges(axes: "Axes", sizes: pd.DataFrame) -> Floats:
    """Return where the parts of each bar begin and end.

    On a logarithmic axis, parts that lay where their sum is would look the smaller the later they came.
    """
    totals = sizes.sum(axis=1).to_numpy(dtype="float64")
    shares = sizes.cumsum(axis=1).to_numpy() / np.maximum(totals, 1)[:, None]
    scale = axes.xaxis.get_transform()
    lengths = scale.transform(totals)[:, None] * shares
    ends = scale.inverted().transform(lengths.ravel()).reshape(shares.shape)
    return np.column_stack([np.zeros(len(sizes)), ends])


def _say_size(axes: "Axes", row: int, ends: tuple[float, float], size: int) -> None:
    """Write in a part of a bar how much it is, if there is room."""
    left, right = axes.transData.transform([(end, row) for end in ends])[:, 0]
    if right - left < ROOM_FOR_SIZE * axes.bbox.width:
        return
    middle = axes.transData.inverted().transform(((left + right) / 2, 0))[0]
    box = {"boxstyle": "square,pad=0.2", "facecolor": "white", "edgecolor": "none"}
    axes.text(middle, row, spelt_bytes(size), ha="center", va="center", fontsize="small", bbox=box)


def _mark_limit(axes: "Axes", row: int, size: int, limit: Any, dataset: str) -> None:
    """Draw where a tier is full, or say at the end of its bar that it never is."""
    if pd.isna(limit):
        axes.annotate("no limit", (size, row), (5, 0), textcoords="offset points", va="center")
        return
    axes.plot([limit, limit], [row - 0.32, row + 0.32], color="black", linewidth=2.5, label=HIDDEN)
    text = f"limit {spelt_bytes(limit)}" + (f" for {dataset}" if dataset else "")
    axes.annotate(text, (limit, row - 0.32), (0, 3), textcoords="offset points", ha="center", va="bottom")


def _spelt_use(tier: str, sizes: pd.Series, limit: Any) -> str:
    name = f"{tier}\n{spelt_bytes(int(sizes.sum()))}"
    if pd.isna(limit):
        return name
    used = sizes.get(BOUNDED[tier], 0) if tier in BOUNDED else sizes.sum()
    return f"{name}\n{_spelt_percent(used / limit)} used"


def _spelt_percent(share: float) -> str:
    return "< 0.1%" if 0 < share < 0.001 else f"{share:.1%}"  # noqa: PLR2004 - what would be written as 0.0%
