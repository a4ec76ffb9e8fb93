"""What did warming up bring, and what was there already? A chart of one warm-up, or of two."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tradecache.chartaxes import HIDDEN, add_legend, height_of, label_of, name_rows, styled, write_in_middle
from tradecache.errors import InvalidInput
from tradecache.stats import WARMED
from tradecache.units import counted, spelt_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WARM_UPS = {
    ("before", "rows_cached"): ("#0072B2", "//", "before: cached"),
    ("before", "rows_fetched"): ("#D55E00", "", "before: fetched"),
    ("after", "rows_cached"): ("#56B4E9", "\\\\", "after: cached"),
    ("after", "rows_fetched"): ("#E69F00", "..", "after: fetched"),
}
MAX_SYMBOLS = 20
ERROR = "#A00000"
ROOM = 1.4  # for what is written beside the bars


def checked_warm_up(name: str, frame: object) -> pd.DataFrame:
    """Return `frame` if it is what `warm()` returned."""
    if isinstance(frame, pd.DataFrame) and {*WARMED} <= {*frame.columns} and frame.index.is_unique:
        return frame.fillna({"error": ""})  # as it is in one that was read from a CSV file
    raise InvalidInput(
        name, frame, f"a frame that `warm()` returned: index symbol, columns {', '.join(WARMED)}"
    )


def draw_warming(axes: "Axes", warm_ups: Mapping[str, pd.DataFrame], *, bars: Mapping[str, Any]) -> None:
    """Draw how many rows of each symbol were cached and fetched by one warm-up, or by two."""
    from matplotlib.ticker import MaxNLocator

    symbols = _symbols_of(warm_ups)
    tables = {name: _with_others(frame, symbols) for name, frame in warm_ups.items()}
    most = max((_rows(table.iloc[:MAX_SYMBOLS]).max() for table in tables.values() if len(table)), default=0)
    axes.set_xlim(0, max(most, 1) * ROOM)
    height = 0.8 / len(tables)
    for number, (name, table) in enumerate(tables.items()):
        places = np.arange(len(table)) + height * (number - (len(tables) - 1) / 2)
        _draw_warm_up(axes, name, table, places, height=height, bars=bars)
    name_rows(axes, [label_of(str(label)) for label in next(iter(tables.values())).index])
    axes.set_xlabel("rows of bars")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    said = "\n".join(_spelt_warm_up(name, frame) for name, frame in warm_ups.items())
    axes.set_title(f"Warming (n = {len(symbols):,} symbols)\n{said}", fontsize="medium")
    if not symbols:
        write_in_middle(axes, "no symbols were warmed")
    elif not most and (points := max(int(frame["points"].sum()) for frame in warm_ups.values())):
        write_in_middle(axes, f"no bars were warmed ({counted(points, 'price point')})")
    add_legend(axes)


def rows_of(warm_ups: Mapping[str, pd.DataFrame]) -> int:
    """Return how many rows the chart will have."""
    return min(len(_symbols_of(warm_ups)), MAX_SYMBOLS + 1)


def _symbols_of(warm_ups: Mapping[str, pd.DataFrame]) -> list[Any]:
    return list(dict.fromkeys(symbol for frame in warm_ups.values() for symbol in frame.index))


def _with_others(frame: pd.DataFrame, symbols: list[Any]) -> pd.DataFrame:
    """Return a row for each of the first symbols, and one for all others together."""
    shown_rows = frame.reindex(symbols[:MAX_SYMBOLS])
    others = frame[frame.index.isin(symbols[MAX_SYMBOLS:])]
    if len(symbols) <= MAX_SYMBOLS:
        return shown_rows
    faults = int((others["error"] != "").sum())
    row = others[["rows_cached", "rows_fetched"]].sum().to_dict()
    row |= {"seconds": others["seconds"].max(), "error": f"{faults:,} failed" if faults else ""}
    summed = pd.DataFrame([row], index=[f"{len(symbols) - MAX_SYMBOLS:,} others"])
    return pd.concat([shown_rows, summed])


def _rows(table: pd.DataFrame) -> pd.Series:
    return table[["rows_cached", "rows_fetched"]].fillna(0).sum(axis=1)


def _draw_warm_up(
    axes: "Axes", name: str, table: pd.DataFrame, places: Any, *, height: float, bars: Mapping[str, Any]
) -> None:
    from matplotlib.patches import Patch

    left = np.zeros(len(table))
    for column in ("rows_cached", "rows_fetched"):
        colour, hatch, label = WARM_UPS[name, column]
        rows = table[column].fillna(0).to_numpy(dtype="float64")
        style = {
            "color": colour, "hatch": hatch, "edgecolor": "white", "height": height, "linewidth": 0.3,
            "label": label if rows.any() else HIDDEN,
        }  # fmt: skip
        axes.barh(places, rows, left=left, **styled(style, bars, artist=Patch))
        left = left + rows
    size = min(8.5, height_of(axes) * height / max(len(table), 1))
    for place, end, (_, row) in zip(places, left, table.iterrows(), strict=True):
        _say_beside(axes, (place, end), row, size=size)


def _say_beside(axes: "Axes", bar: tuple[float, float], row: pd.Series, *, size: float) -> None:
    """Write beside a bar how long it took and what went wrong; a bar that goes on outside says how long it is."""
    if pd.isna(row["seconds"]):
        return  # this warm-up was not asked for the symbol
    place, end = bar
    edge = axes.get_xlim()[1]
    text = spelt_seconds(row["seconds"])
    is_outside = end > edge
    if is_outside:
        text = f"{end:,.0f} rows, slowest {text} →"
    fault = str(row["error"]).partition(":")[0]
    if fault:
        axes.plot(min(end, edge), place, "X", color=ERROR, markersize=6, clip_on=False, label=HIDDEN)
        text = f"{fault}, {text}"
    axes.annotate(
        text, (min(end, edge), place), (-8 if is_outside else 8, 0), textcoords="offset points", va="center",
        ha="right" if is_outside else "left", fontsize=size, color=ERROR if fault else "black",
        bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"} if is_outside else None,
    )  # fmt: skip


def _spelt_warm_up(name: str, frame: pd.DataFrame) -> str:
    fetched, cached, requests = (frame[each].sum() for each in ("rows_fetched", "rows_cached", "requests"))
    slowest = spelt_seconds(frame["seconds"].max()) if len(frame) else "0 s"
    said = f"{name}: {fetched:,} rows fetched in {requests:,} requests, {cached:,} cached, slowest {slowest}"
    faults = int((frame["error"] != "").sum())
    return f"{said}, {faults:,} failed" if faults else said
