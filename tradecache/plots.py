"""What does the cache look like? Charts on matplotlib Axes."""

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from tradecache.errors import InvalidInput
from tradecache.stats import Window

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = {  # Okabe and Ito's colours for every eye, and hatches for print
    "memory": ("#0072B2", "", "from memory"),
    "disk": ("#E69F00", "//", "from disk"),
    "missed": ("#BBBBBB", "..", "missed"),
}


class Charted(Protocol):
    """What a chart needs to know of a cache."""

    def hit_rate(self, window: Window | None = None) -> pd.DataFrame:
        """Return shares of requests over time."""


class Plots:
    """The charts of one cache, `cache.plot.*`. Each draws on `ax`, or on new Axes, and returns them."""

    def __init__(self, cache: Charted) -> None:
        self._cache = cache

    def hit_rate(self, *, window: Window | None = None, ax: "Axes | None" = None, **line: Any) -> "Axes":
        """Draw which share of the reads each tier served over time, and the hit rate since the beginning.

        Args:
            window: Width of each bin, see `TradeCache.hit_rate`.
            ax: Where to draw; new Axes by default.
            **line: Passed on to the `Axes.plot` of the cumulative hit rate.

        Returns:
            The Axes: x in seconds since the first read, y from 0 to 100%. The line has a point at the end of
            each bin that had reads. The legend is below Axes that are alone in a figure with a layout engine,
            as new ones are, and inside of others.
        """
        frame = self._cache.hit_rate(window)
        frame = frame.assign(missed=1.0 - frame["hit_rate"])
        width = _bin_width(frame.index)
        axes = _new_axes() if ax is None else _checked_axes(ax)
        seconds = _seconds(frame.index)
        bottom = np.zeros(len(frame))
        for column, (colour, hatch, label) in STYLES.items():
            share = frame[column].fillna(0.0).to_numpy()
            axes.bar(
                seconds, share, width=width, bottom=bottom, align="edge", color=colour,
                hatch=hatch, edgecolor="white", linewidth=0.3, label=label,
            )  # fmt: skip
            bottom = bottom + share
        busy = frame["requests"].to_numpy() > 0
        style: dict[str, Any] = {"color": "black", "linewidth": 1.8, "label": "hit rate since the beginning"}
        axes.plot(seconds[busy] + width, frame["cumulative"].to_numpy()[busy], **style | line)
        axes.set(xlabel="seconds since the first read", ylabel="share of reads", ylim=(0, 1.02))
        axes.set_title(f"Hit rate (n = {int(frame['requests'].sum()):,} reads)")
        _as_percent(axes)
        below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 4}
        is_below = _has_room_below(axes)
        axes.legend(**(below if is_below else {"loc": "best"}), frameon=not is_below)
        return axes


def _new_axes() -> "Axes":
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    return axes


def _has_room_below(axes: "Axes") -> bool:
    """Whether a legend below would be seen, and cover nothing."""
    figure = axes.get_figure()
    return figure is not None and len(figure.axes) == 1 and figure.get_layout_engine() is not None


def _checked_axes(ax: object) -> "Axes":
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise InvalidInput("ax", ax, "a matplotlib Axes (one of those that plt.subplots returns)")
    return ax


def _seconds(index: pd.Index) -> "np.ndarray[Any, np.dtype[np.float64]]":
    if not len(index):
        return np.zeros(0)
    return np.asarray((index - index[0]).total_seconds(), dtype="float64")


def _as_percent(axes: "Axes") -> None:
    from matplotlib.ticker import PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))


def _bin_width(index: pd.Index) -> float:
    """Return the width of a bin in seconds: what the frame was resampled by."""
    if not isinstance(index, pd.DatetimeIndex) or not isinstance(index.freq, pd.offsets.Tick):
        return 0.0
    return pd.Timedelta(index.freq).total_seconds()
