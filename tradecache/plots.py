"""What does the cache look like? Charts on matplotlib Axes."""

from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from tradecache import lifecharts, readcharts, sizecharts, warmcharts
from tradecache.cache import Symbols, listed
from tradecache.chartaxes import axes_for
from tradecache.errors import InvalidInput, checked_choice
from tradecache.ranges import Moment, first_moment, last_moment
from tradecache.stats import Window
from tradecache.telemetry import READS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW, MARGINS = 0.24, 1.6  # inches


class Charted(Protocol):
    """What a chart needs to know of a cache."""

    def hit_rate(
        self, window: Window | None = None, *, by: str = "tier", history: pd.DataFrame | None = None
    ) -> pd.DataFrame:
        """Return shares of requests over time."""

    def events(self) -> pd.DataFrame:
        """Return the last requests."""

    def coverage(
        self,
        symbols: Symbols | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        interval: str | None = None,
        source: Any = None,
    ) -> pd.DataFrame:
        """Return which ranges are stored, and in which state."""

    def expiries(self, symbols: Symbols | None = None) -> pd.DataFrame:
        """Return what is stored and until when it lives."""

    def occupancy(self) -> pd.DataFrame:
        """Return how much each tier holds."""


class Plots:
    """The charts of one cache, `cache.plot.*`. Each draws on `ax`, or on new Axes, and returns them.

    Drawing is not counted as a request. What a chart cannot show for want of room is said in its title. The
    legend is below Axes that are alone in a figure with a layout engine, as new ones are, and inside of others.
    """

    def __init__(self, cache: Charted) -> None:
        self._cache = cache

    def hit_rate(
        self,
        *,
        window: Window | None = None,
        by: str = "tier",
        history: pd.DataFrame | None = None,
        ax: "Axes | None" = None,
        **line: Any,
    ) -> "Axes":
        """Draw which share of the reads each tier served over time, and the hit rate since the beginning.

        Args:
            window: Width of each bin, see `TradeCache.hit_rate`.
            by: "tier", or "symbol" for a line of the hit rate since the beginning for each of the eight symbols
                that were asked for most often.
            history: What `TradeCache.history` returned, to be drawn instead of the reads of this session.
            ax: Where to draw; new Axes by default.
            **line: Passed on to the `Axes.plot` of the cumulative hit rate, by symbol to that of each line.

        Returns:
            The Axes: x in seconds since the first read, or in UTC for a history and for more than two hours;
            y from 0 to 100%. Lines have a point at the end of each bin that had reads.

        Raises:
            InvalidInput: Naming the argument.
        """
        frame = self._cache.hit_rate(window, by=by, history=history)
        axes = axes_for(ax)
        if by == "symbol":
            readcharts.draw_symbol_rates(axes, frame, line=line)
        else:
            readcharts.draw_rates(axes, frame, is_dated=history is not None, line=line)
        return axes

    def latency(self, *, by: str = "tier", ax: "Axes | None" = None, **line: Any) -> "Axes":
        """Draw how long reads took: which share of them was answered within which time.

        Args:
            by: A line for each "tier" that answered, each "dataset" or each "operation"; at most eight.
            ax: Where to draw; new Axes by default.
            **line: Passed on to the `Axes.plot` of each line.

        Returns:
            The Axes: x in seconds, logarithmic; y from 0 to 100% of the reads remembered (see `TradeCache.events`).
            Each line has markers at p50 and p95, which are those of `TradeCache.stats`, and names them.

        Raises:
            InvalidInput: For another `by` or `ax`.
        """
        checked_choice("by", by, ("tier", "dataset", "operation"))
        events = self._cache.events()
        axes = axes_for(ax)
        readcharts.draw_latency(axes, events[events["operation"].isin(READS)], by=by, line=line)
        return axes

    def coverage(
        self,
        symbols: Symbols | None = None,
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        interval: str | None = None,
        source: Any = None,
        ax: "Axes | None" = None,
        **bars: Any,
    ) -> "Axes":
        """Draw which ranges of bars are stored, and in which state they are.

        Args:
            symbols: One or several; all that are stored by default.
            start: Where the time axis begins; where the stored bars do by default.
            end: Where the time axis ends, as in `TradeCache.bars`; where the stored bars do by default.
            interval: Only bars of this interval.
            source: Only bars of this source.
            ax: Where to draw; new Axes by default.
            **bars: Passed on to the `Axes.broken_barh` of each series and state.

        Returns:
            The Axes: x is time in UTC, y has a row for each series, 40 at most. A symbol that was asked for and
            of which nothing is stored has an empty row.

        Raises:
            InvalidInput: Naming the argument.
        """
        wanted = None if symbols is None else listed(symbols)
        limits = (first_moment(start), last_moment(end))
        if limits[0] and limits[1] and limits[0] > limits[1]:
            raise InvalidInput("end", end, f"at or after start, {start}")
        spans = self._cache.coverage(wanted, start, end, interval=interval, source=source)
        series = lifecharts.series_of(spans, wanted)
        rows = min(max(len(series), 2), lifecharts.MAX_ROWS)
        axes = axes_for(ax, height=MARGINS + ROW * rows)
        lifecharts.draw_coverage(axes, series, limits=limits, bars=bars)
        return axes

    def ttl(self, symbols: Symbols | None = None, *, ax: "Axes | None" = None, **line: Any) -> "Axes":
        """Draw what expires when: which share of the rows stored now will still be alive as time passes.

        Args:
            symbols: One or several; all by default.
            ax: Where to draw; new Axes by default.
            **line: Passed on to the `Axes.plot` of each curve.

        Returns:
            The Axes: x is time from now, logarithmic; y from 0 to 100% of the rows of each dataset, eight at most.
            Bars live as long as they are fresh. The ticks at the foot are the moments at which something expires.

        Raises:
            InvalidInput: Naming the argument.
        """
        entries = self._cache.expiries(symbols)
        axes = axes_for(ax)
        lifecharts.draw_ttl(axes, entries, line=line)
        return axes

    def occupancy(self, *, ax: "Axes | None" = None, **bars: Any) -> "Axes":
        """Draw how many bytes memory and disk hold of what, and how many they may hold.

        Args:
            ax: Where to draw; new Axes by default.
            **bars: Passed on to the `Axes.barh` of each dataset.

        Returns:
            The Axes: x in bytes, linear, or logarithmic where sizes and limits are far apart; y has a row for each
            tier. A vertical mark is a tier's limit; that of the disk is for bars alone.

        Raises:
            InvalidInput: For another `ax`.
        """
        held = self._cache.occupancy()
        axes = axes_for(ax, height=3.0)
        sizecharts.draw_occupancy(axes, held, bars=bars)
        return axes

    def warming(
        self,
        before: pd.DataFrame,
        after: pd.DataFrame | None = None,
        *,
        ax: "Axes | None" = None,
        **bars: Any,
    ) -> "Axes":
        """Draw what warming up fetched and what was cached already, of one warm-up or of two side by side.

        Args:
            before: What `TradeCache.warm` returned, of a cold cache for instance.
            after: What a later `warm` returned.
            ax: Where to draw; new Axes by default.
            **bars: Passed on to the `Axes.barh` of each warm-up's cached and of its fetched rows.

        Returns:
            The Axes: x is the number of bars, y has a row for each symbol, 20 at most, and one for all others
            together. Beside each bar are its seconds; "slowest" are the most that one symbol took, as several are
            warmed at once. A cross and the error's class mark what failed.

        Raises:
            InvalidInput: When `before` or `after` is no such frame.
        """
        warm_ups = {"before": warmcharts.checked_warm_up("before", before)}
        if after is not None:
            warm_ups["after"] = warmcharts.checked_warm_up("after", after)
        bars_drawn = len(warm_ups) * warmcharts.rows_of(warm_ups)
        axes = axes_for(ax, height=MARGINS + ROW * max(bars_drawn, 6))
        warmcharts.draw_warming(axes, warm_ups, bars=bars)
        return axes
