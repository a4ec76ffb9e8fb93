"""What do all charts share? Axes, legends, styles, and axes in units for people."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tradecache.errors import InvalidInput
from tradecache.units import DAY, HOUR, MINUTE, YEAR, spelt_seconds

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

Floats = np.ndarray[Any, np.dtype[np.float64]]

# Okabe and Ito's colours for every eye, grey and black; line styles and markers for print
LINES: tuple[tuple[str, Any, str], ...] = (
    ("#0072B2", "-", "o"),
    ("#E69F00", "--", "s"),
    ("#009E73", "-.", "^"),
    ("#999999", ":", "D"),
    ("#000000", (0, (5, 1)), "v"),
    ("#D55E00", (0, (3, 1, 1, 1, 1, 1)), "P"),
    ("#CC79A7", (0, (1, 1)), "X"),
    ("#56B4E9", (0, (8, 2)), "*"),
)
MAX_LINES = len(LINES)

TICKS = (
    *(10.0**power for power in range(-9, 2)),
    MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, DAY, 7 * DAY, 30 * DAY, YEAR, 10 * YEAR, 100 * YEAR,
)  # fmt: skip
LEAST_ROW = 6.6
"""How many points a row of a horizontal chart needs for its name: the default Axes of matplotlib have room for 40."""
EDGE = 1.2
"""How many times the data's ends the ends of a logarithmic axis are away at least."""
FEW = 30
"""How many times its beginning an axis ends at that needs ticks between those of `TICKS`."""
MAX_NAME = 24
HIDDEN = "_"
"""The label of what is not named in a legend, as all that begins with an underscore."""
LEGEND_DROP = 36.0
"""How far below the Axes their legend begins, in points: there is room for the ticks' labels and the axis' one."""
LEGEND_WIDTH, SAMPLE_WIDTH = 125, 12
"""How many characters a row of a legend has room for, and how many each sample of colour takes of them."""
USUAL_WIDTH, LEAST_WIDTH, LEAST_HEIGHT = 8.0, 5.0, 1.5
"""How wide a figure is in which so many have room, and how large one is at least below whose Axes a legend fits, in
inches."""


def axes_for(ax: object, *, height: float = 4.0) -> "Axes":
    """Return `ax`, or new Axes alone in a figure that is `height` inches high.

    Raises:
        InvalidInput: When `ax` is something else.
    """
    from matplotlib.axes import Axes

    if ax is None:
        import matplotlib.pyplot as plt

        return plt.subplots(figsize=(8, height), layout="constrained")[1]
    if not isinstance(ax, Axes) or ax.name != "rectilinear":
        raise InvalidInput("ax", ax, "a plain matplotlib Axes (one of those that plt.subplots returns)")
    return ax


def styled(
    default: Mapping[str, Any], options: Mapping[str, Any], *, artist: "type[Artist]"
) -> dict[str, Any]:
    """Return a chart's own style with the caller's options in its place, short spellings (lw, c) among them."""
    from matplotlib.cbook import normalize_kwargs

    return {**default, **normalize_kwargs(dict(options), artist)}


def add_legend(axes: "Axes") -> None:
    """Name what is drawn: below Axes that are alone in a figure with a layout, else inside of them."""
    from matplotlib.transforms import ScaledTranslation

    handles, labels = axes.get_legend_handles_labels()
    figure = axes.get_figure(root=True)
    if not handles or figure is None:
        return
    if not _has_room_below(axes):
        legend = axes.legend(loc="best", fontsize="small")
    else:
        drop = ScaledTranslation(0, -LEGEND_DROP / 72, figure.dpi_scale_trans)
        columns = int(LEGEND_WIDTH * _width_of(axes) / USUAL_WIDTH) // (max(map(len, labels)) + SAMPLE_WIDTH)
        legend = axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, 0.0), bbox_transform=axes.transAxes + drop, fontsize="small",
            ncols=min(max(columns, 1), len(labels)), frameon=False,
        )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)  # a symbol may have dollar signs


def _has_room_below(axes: "Axes") -> bool:
    """Whether a legend below would be seen, and cover nothing."""
    figure = axes.get_figure(root=True)
    if figure is None or len(figure.axes) > 1 or figure.get_layout_engine() is None:
        return False
    return _width_of(axes) >= LEAST_WIDTH and figure.get_figheight() >= LEAST_HEIGHT


def _width_of(axes: "Axes") -> float:
    """Return how wide the figure or the part of one is that Axes are in, in inches."""
    part, figure = axes.get_figure(root=False), axes.get_figure(root=True)
    return float(part.bbox.width / figure.dpi) if part is not None and figure is not None else USUAL_WIDTH


def write_in_middle(axes: "Axes", text: str) -> None:
    """Write in the middle of Axes why there is nothing on them."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#555555")


def name_rows(axes: "Axes", names: Sequence[str]) -> None:
    """Give each row of a horizontal chart its name, the first one at the top, as large as there is room for."""
    rows = max(len(names), 1)
    size = min(0.8 * height_of(axes) / rows, 10)
    axes.set_yticks(range(len(names)), names, fontsize=size, parse_math=False)
    axes.set_ylim(rows - 0.4, -0.6)


def rows_on(axes: "Axes", most: int) -> int:
    """Return for how many rows there is room."""
    return int(np.clip(height_of(axes) / LEAST_ROW, 3, most))


def height_of(axes: "Axes") -> float:
    """Return how high Axes are in points, before a layout engine has moved them."""
    figure = axes.get_figure(root=True)
    return float(axes.get_window_extent().height * 72 / (figure.dpi if figure is not None else 72))


def label_of(name: str) -> str:
    """Return a symbol or a dataset as it is written on a chart."""
    if not name:
        return "several at once"
    short = name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"
    return f" {short}" if short.startswith("_") else short  # matplotlib hides what begins with an underscore


def left_out(count: int, what: str) -> str:
    """Return the end of a title that says how much was left out, "" when nothing was."""
    return f"; {count:,} more {what} not shown" if count > 0 else ""


def as_percent(axes: "Axes") -> None:
    """Write the shares on the y axis as percentages."""
    from matplotlib.ticker import PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))


def as_dates(axes: "Axes") -> None:
    """Write the day numbers on the x axis (see `day_numbers`) as dates and times in UTC."""
    from datetime import UTC

    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(tz=UTC)
    axes.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, tz=UTC)
    axes.xaxis.set_major_formatter(formatter)


def day_numbers(times: "pd.DatetimeIndex | pd.Series") -> Floats:
    """Return aware times as the numbers of days that matplotlib draws dates by."""
    from matplotlib.dates import date2num

    plain = pd.DatetimeIndex(times).tz_convert("UTC").tz_localize(None).to_numpy()
    return np.asarray(date2num(plain))


def as_durations(axes: "Axes", *, least: float, most: float) -> None:
    """Make the x axis a logarithmic one of seconds that shows `least` to `most`, with ticks in units for people."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    left = max((tick for tick in TICKS if tick * EDGE < least), default=TICKS[0])
    right = min((tick for tick in TICKS if tick > EDGE * most), default=2 * most)
    between = [2 * left, 5 * left] if right < FEW * left else []
    axes.set_xlim(left, right)  # before the scale, which would fit the limits to what may be a single value
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted({*TICKS, *between})))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: spelt_seconds(seconds)))
