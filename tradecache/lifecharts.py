"""Which ranges are stored, and until when does what is stored live? Charts of spans and times to live."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tradecache.chartaxes import (
    HIDDEN,
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
    name_rows,
    rows_on,
    styled,
    write_in_middle,
)
from tradecache.units import DAY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STATES = {
    "final": ("#0072B2", "white", ""),
    "fresh": ("#009E73", "white", ".."),
    "stale": ("#E69F00", "black", "//"),
    "missing": ("#FFFFFF", "#999999", "xx"),
    "closed": ("#CCCCCC", "#CCCCCC", ""),
}
"""Colour, colour of the hatch, and hatch of each state."""
SERIES = ["symbol", "source", "interval"]
MAX_ROWS = 40
STORED = ("final", "fresh", "stale")
LEAST_SPAN = 0.003
"""Which part of the axis a span that is stored takes at least."""
SOONEST = 1e-3
UNTIL_NOTHING = (1.0, 7 * DAY)  # what the axis shows where nothing will expire
RUG = 0.04  # of the height
Limits = tuple[datetime | None, datetime | None]
Series = tuple[str, pd.DataFrame]


def series_of(spans: pd.DataFrame, symbols: Sequence[str] | None) -> list[Series]:
    """Return the spans of each series with the name of its row, in the order of `symbols` if there are any.

    A symbol of which nothing is stored has a row without spans.
    """
    several = [name for name in ("interval", "source") if len(spans[name].unique()) > 1]
    found: dict[str, list[Series]] = {}
    for _, own in spans.groupby(SERIES, sort=False):
        first = own.iloc[0]
        found.setdefault(first["symbol"], []).append(
            (" ".join([label_of(first["symbol"]), *first[several]]), own)
        )
    rows: list[Series] = []
    for symbol in found if symbols is None else symbols:
        rows += found.get(symbol, [(f"{label_of(symbol)} (nothing stored)", spans.iloc[:0])])
    return rows


def draw_coverage(axes: "Axes", series: Sequence[Series], *, limits: Limits, bars: Mapping[str, Any]) -> None:
    """Draw a row for each series, with each span in the colour and hatch of its state."""
    drawn = series[: rows_on(axes, MAX_ROWS)]
    _set_range(axes, series, limits)
    for state in STATES:
        found = [spans[spans["state"] == state] for _, spans in drawn]
        _draw_state(axes, state, {row: spans for row, spans in enumerate(found) if len(spans)}, bars)
    name_rows(axes, [name for name, _ in drawn])
    axes.set(xlabel="time (UTC)", ylabel="series")
    axes.set_title(f"Coverage (n = {len(series):,} series{left_out(len(series) - len(drawn), 'series')})")
    if not series:
        write_in_middle(axes, "no bars stored")
    add_legend(axes)


def _draw_state(axes: "Axes", state: str, rows: Mapping[int, pd.DataFrame], bars: Mapping[str, Any]) -> None:
    """Draw the spans that are in one state, which is named in the legend once."""
    from matplotlib.collections import PolyCollection

    colour, ink, hatch = STATES[state]
    least = LEAST_SPAN * float(np.ptp(axes.get_xlim()))
    style = {"facecolor": colour, "edgecolor": ink, "hatch": hatch, "linewidth": 0.5 if hatch else 0}
    for number, (row, spans) in enumerate(rows.items()):
        starts, widths = _places(spans, least=least if state in STORED else 0.0)
        options = styled(style | {"label": HIDDEN if number else state}, bars, artist=PolyCollection)
        axes.broken_barh(list(zip(starts, widths, strict=True)), (row - 0.35, 0.7), **options)


def _places(spans: pd.DataFrame, *, least: float) -> tuple[Floats, Floats]:
    """Return where spans begin and how wide they are drawn: a minute among years would not be seen."""
    starts, ends = day_numbers(spans["start"]), day_numbers(spans["end"])
    return starts, np.maximum(ends - starts, least)


def _set_range(axes: "Axes", series: Sequence[Series], limits: Limits) -> None:
    """Have the time axis show what was asked for, else all that there is."""
    edges = [pd.Timestamp(limit) for limit in limits if limit is not None]
    edges += [
        edge for _, spans in series if len(spans) for edge in (spans["start"].min(), spans["end"].max())
    ]
    if not edges:
        axes.set_xticks([])
        return
    first = min(edges) if limits[0] is None else pd.Timestamp(limits[0])
    last = max(edges) if limits[1] is None else pd.Timestamp(limits[1])
    last = last if first < last else first + pd.Timedelta(1, "D")
    as_dates(axes)
    axes.set_xlim(*day_numbers(pd.DatetimeIndex([first, last])))


def draw_ttl(axes: "Axes", entries: pd.DataFrame, *, line: Mapping[str, Any]) -> None:
    """Draw which share of the rows will still be alive as time passes, a curve for each dataset."""
    entries = entries.assign(left=entries["ttl"].dt.total_seconds())
    coming = entries.loc[entries["left"] > 0, "left"].clip(lower=SOONEST)
    least, most = (coming.min(), coming.max()) if len(coming) else UNTIL_NOTHING
    as_durations(axes, least=least, most=most)
    counts = entries.groupby("dataset")["rows"].sum().sort_values(ascending=False, kind="stable")
    for place, dataset in enumerate(counts.index[:MAX_LINES]):
        _draw_lives(axes, entries[entries["dataset"] == dataset], place, line)
    bottom = -RUG * (min(len(counts), MAX_LINES) + 1)
    axes.set(xlabel="time from now", ylabel="share of rows still alive", ylim=(bottom, 1.02))
    axes.set_yticks(np.linspace(0, 1, 6))
    as_percent(axes)
    total = f"n = {entries['rows'].sum():,} rows, {len(entries):,} entries"
    axes.set_title(f"Time to live ({total}{left_out(len(counts) - MAX_LINES, 'datasets')})")
    if not len(entries):
        write_in_middle(axes, "nothing stored")
    elif not len(coming):
        write_in_middle(axes, "nothing expires")
    add_legend(axes)


def _draw_lives(axes: "Axes", entries: pd.DataFrame, place: int, line: Mapping[str, Any]) -> None:
    """Draw the curve of one dataset, and at its foot a tick for each moment at which something expires."""
    from matplotlib.lines import Line2D

    times, alive = _survival(entries, axes.get_xlim())
    colour, dashes, _ = LINES[place]
    style = {
        "color": colour, "linestyle": dashes, "linewidth": 1.8, "drawstyle": "steps-post",
        "label": _spelt_lives(entries),
    }  # fmt: skip
    axes.plot(times, alive, **styled(style, line, artist=Line2D))
    foot = np.full(len(times) - 2, -RUG * (place + 1))
    axes.plot(times[1:-1], foot, "|", color=colour, markersize=6, label=HIDDEN)


def _survival(entries: pd.DataFrame, limits: tuple[float, float]) -> tuple[Floats, Floats]:
    """Return the times at which something expires, between the limits, and the share alive from each on."""
    rows, left = entries["rows"].to_numpy(dtype="float64"), entries["left"].fillna(np.inf).to_numpy()
    is_coming = np.isfinite(left) & (left > 0)
    times, which = np.unique(np.maximum(left[is_coming], SOONEST), return_inverse=True)
    gone = np.bincount(which, weights=rows[is_coming], minlength=len(times)).cumsum()
    alive = rows[left > 0].sum() - np.concatenate([[0.0], gone])
    share = alive / max(rows.sum(), 1.0)
    return np.concatenate([limits[:1], times, limits[1:]]), np.append(share, share[-1])


def _spelt_lives(entries: pd.DataFrame) -> str:
    left, rows = entries["left"], entries["rows"]
    kinds = {"for ever": rows[left.isna()].sum(), "stale": rows[left <= 0].sum()}
    said = [f"n = {rows.sum():,}", *(f"{count:,} {kind}" for kind, count in kinds.items() if count)]
    return f"{label_of(entries['dataset'].iloc[0])} ({', '.join(said)})"
