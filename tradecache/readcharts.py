"""How were the reads served, and how fast? Charts of requests."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tradecache.chartaxes import (
    LINES,
    MAX_LINES,
    Floats,
    add_legend,
    as_dates,
    as_durations,
    as_percent,
    day_numbers,
    label_of,
    left_out,
    styled,
    write_in_middle,
)
from tradecache.palette import SERVED, STYLED
from tradecache.units import DAY, HOUR, spelt_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ALWAYS = ("memory", "disk")
"""Whose bars are drawn, and named, also where they served nothing."""
LONG = 2 * HOUR  # seconds since the first read say little beyond that
MARKS = 12  # on a line with many points, lest it becomes a string of beads
LEVELS = 1000  # points of a distribution, however many reads there were
QUANTILES = (0.5, 0.95)
SHORTEST = 1e-9
USUAL = (1e-5, 1.0)  # seconds, for an axis without reads


def draw_rates(axes: "Axes", frame: pd.DataFrame, *, is_dated: bool, line: Mapping[str, Any]) -> None:
    """Draw stacked shares of the tiers, and the hit rate since the beginning as a line."""
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    places, width = _set_times(axes, frame.index, is_dated=is_dated)
    bottom = np.zeros(len(frame))
    for tier, (colour, hatch, label) in SERVED.items():
        share = frame[tier].fillna(0.0).to_numpy()
        if tier in ALWAYS or share.any():
            axes.bar(
                places, share, width=width, bottom=bottom, align="edge", color=colour,
                hatch=hatch, edgecolor="white", linewidth=0.3, label=label,
            )  # fmt: skip
            bottom = bottom + share
    busy = frame["requests"].to_numpy() > 0
    style = {
        "color": "black", "linewidth": 1.8, "label": "hit rate since the beginning",
        "path_effects": [withStroke(linewidth=3.4, foreground="white")],  # lest it is lost on dark bars
        "marker": "o" if busy.sum() == 1 else "",  # a line of one point is not seen
    }  # fmt: skip
    axes.plot(
        places[busy] + width, frame["cumulative"].to_numpy()[busy], **styled(style, line, artist=Line2D)
    )
    _finish_rates(axes, frame, "share of reads")
    axes.set_title(f"Hit rate (n = {int(frame['requests'].sum()):,} reads)")


def draw_symbol_rates(axes: "Axes", frame: pd.DataFrame, *, line: Mapping[str, Any]) -> None:
    """Draw the hit rate since the beginning of each of the symbols that were asked for most often."""
    from matplotlib.lines import Line2D

    counts = frame.groupby("symbol")["requests"].sum().sort_values(ascending=False, kind="stable")
    places, width = _set_times(axes, frame.index, is_dated=_is_long(frame.index))
    for place, (symbol, count) in enumerate(counts.head(MAX_LINES).items()):
        colour, dashes, marker = LINES[place]
        is_drawn = ((frame["symbol"] == symbol) & (frame["requests"] > 0)).to_numpy()
        each = max(1, int(is_drawn.sum()) // MARKS)
        style = {
            "color": colour, "linestyle": dashes, "marker": marker, "markevery": (place % each, each),
            "markersize": 5, "label": f"{label_of(str(symbol))} (n = {count:,})",
        }  # fmt: skip
        axes.plot(
            places[is_drawn] + width,
            frame["cumulative"].to_numpy()[is_drawn],
            **styled(style, line, artist=Line2D),
        )
    _finish_rates(axes, frame, "hit rate since the beginning")
    axes.set_ylim(bottom=-0.02)  # room for markers
    others = left_out(len(counts) - MAX_LINES, "symbols")
    axes.set_title(f"Hit rate by symbol (n = {int(counts.sum()):,} reads{others})")


def _finish_rates(axes: "Axes", frame: pd.DataFrame, label: str) -> None:
    axes.set(ylabel=label, ylim=(0, 1.02))
    as_percent(axes)
    if len(frame):
        add_legend(axes)
        return
    axes.set_xlim(0, 1)
    write_in_middle(axes, "no reads yet")


def _set_times(axes: "Axes", index: pd.Index, *, is_dated: bool) -> tuple[Floats, float]:
    """Label the x axis; return where on it each bin begins, and how wide one is."""
    width = _bin_width(index)
    if not len(index) or not (is_dated or _is_long(index)):
        axes.set_xlabel("seconds since the first read")
        return _seconds(index), width
    as_dates(axes)
    axes.set_xlabel("time (UTC)")
    return day_numbers(pd.DatetimeIndex(index)), width / DAY


def _is_long(index: pd.Index) -> bool:
    return len(index) > 0 and bool((index.max() - index.min()).total_seconds() > LONG)


def _seconds(index: pd.Index) -> Floats:
    if not len(index):
        return np.zeros(0)
    return np.asarray((index - index.min()).total_seconds(), dtype="float64")


def _bin_width(index: pd.Index) -> float:
    """Return the width of a bin in seconds: what the frame was resampled by."""
    if isinstance(index, pd.DatetimeIndex) and isinstance(index.freq, pd.offsets.Tick):
        return pd.Timedelta(index.freq).total_seconds()
    steps = np.diff(np.unique(_seconds(index)))  # the bins of several symbols lie on one grid
    return float(steps.min()) if len(steps) else 0.0


def draw_latency(axes: "Axes", reads: pd.DataFrame, *, by: str, line: Mapping[str, Any]) -> None:
    """Draw which share of the reads was answered within how many seconds, a line for each tier or the like."""
    reads = reads.assign(seconds=reads["seconds"].clip(lower=SHORTEST))
    counts = reads[by].value_counts()
    names = [tier for tier in SERVED if tier in counts.index] if by == "tier" else list(counts.index)
    for place, name in enumerate(names[:MAX_LINES]):
        look = LINES[STYLED.index(name) if by == "tier" else place]
        _draw_quantiles(axes, name, reads.loc[reads[by] == name, "seconds"].to_numpy(), look, line)
    least, most = (reads["seconds"].min(), reads["seconds"].max()) if len(reads) else USUAL
    as_durations(axes, least=least, most=most)
    axes.set(xlabel="time until the answer (markers: p50, p95)", ylabel="share of reads", ylim=(0, 1.02))
    as_percent(axes)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    axes.set_title(f"Latency (n = {len(reads):,} reads{left_out(len(names) - MAX_LINES, f'{by}s')})")
    if not len(reads):
        write_in_middle(axes, "no reads yet")
    add_legend(axes)


def _draw_quantiles(
    axes: "Axes", name: str, seconds: Floats, look: tuple[str, Any, str], line: Mapping[str, Any]
) -> None:
    from matplotlib.lines import Line2D

    levels = np.union1d(np.linspace(0, 1, int(np.clip(len(seconds), 2, LEVELS))), QUANTILES)
    colour, dashes, marker = look
    style = {
        "color": colour, "linestyle": dashes, "linewidth": 1.8, "marker": marker, "markersize": 7,
        "markevery": np.searchsorted(levels, QUANTILES).tolist(),
        "label": _spelt_latency(SERVED[name].label if name in SERVED else label_of(name), seconds),
    }  # fmt: skip
    axes.plot(np.quantile(seconds, levels), levels, **styled(style, line, artist=Line2D))


def _spelt_latency(name: str, seconds: Floats) -> str:
    half, most = (spelt_seconds(float(each)) for each in np.quantile(seconds, QUANTILES))
    return f"{name} (n = {len(seconds):,}): p50 {half}, p95 {most}"
