"""What the charts show, asked of the Axes."""

import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from charts import Asked, drawn, heights, legend, said
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.dates import num2date
from matplotlib.figure import Figure

from tradecache import InvalidInput, TradeCache
from tradecache.plots import Plots
from tradecache.settings import Settings

SERVED = ("none", "disk", "memory", "memory", "disk", "disk", "memory", "memory", "memory")


pytestmark = pytest.mark.usefixtures("agg")


@pytest.fixture
def plots():
    return Plots(Asked(*SERVED))


def test_bars_are_the_shares_of_the_tiers(plots, ax):
    """Each bin is a stack of bars: from memory, from disk, missed; together they are all requests."""
    plots.hit_rate(window=3, ax=ax)

    memory, disk, missed = heights(ax)
    assert memory == pytest.approx([1 / 3, 1 / 3, 1.0])
    assert disk == pytest.approx([1 / 3, 2 / 3, 0.0])
    assert missed == pytest.approx([1 / 3, 0.0, 0.0])
    tops = [bar.get_y() + bar.get_height() for bar in ax.containers[2]]
    assert tops == pytest.approx([1.0, 1.0, 1.0])


def test_bars_lie_where_their_time_is(plots, ax):
    """Bins begin at their seconds since the first read, and are as wide as the window."""
    plots.hit_rate(window=3, ax=ax)

    for bars in ax.containers:
        assert [bar.get_x() for bar in bars] == [0, 3, 6]
        assert [bar.get_width() for bar in bars] == [3, 3, 3]


def test_line_is_the_hit_rate_since_the_beginning(plots, ax):
    """The line is the cumulative hit rate, which is known at the end of each bin."""
    plots.hit_rate(window=3, ax=ax)

    (line,) = ax.lines
    assert line.get_xdata().tolist() == [3, 6, 9]
    assert line.get_ydata().tolist() == [2 / 3, 5 / 6, 8 / 9]


def test_quiet_bins_are_empty(ax):
    """A bin without requests has no bar and no point on the line."""
    Plots(Asked("disk", "memory")).hit_rate(window=0.25, ax=ax)

    assert [sum(stack) for stack in zip(*heights(ax), strict=True)] == [1, 0, 0, 0, 1]
    assert ax.lines[0].get_xdata().tolist() == [0.25, 1.25]


def test_axes_say_what_they_are(plots, ax):
    """Labels, units, limits and the number of reads are on the chart."""
    plots.hit_rate(ax=ax)

    assert (ax.get_xlabel(), ax.get_ylabel()) == ("seconds since the first read", "share of reads")
    assert ax.get_title() == "Hit rate (n = 9 reads)"
    assert ax.get_ylim() == (0, 1.02)
    assert ax.get_xlim()[0] <= 0
    assert [ax.yaxis.get_major_formatter()(share) for share in (0, 0.5, 1)] == ["0%", "50%", "100%"]
    assert sorted(legend(ax)) == ["from disk", "from memory", "hit rate since the beginning", "missed"]


def test_a_lone_bin_is_as_wide_as_its_window(ax):
    """One read, or several within one window, are a bar of the window's width, and a point that is marked."""
    Plots(Asked("disk")).hit_rate(window=5, ax=ax)

    assert [bars[0].get_width() for bars in ax.containers] == [5, 5]
    assert ax.lines[0].get_xdata().tolist() == [5]
    assert ax.lines[0].get_marker() == "o"


def test_the_legend_stays_within_given_axes(plots):
    """On one of several Axes the legend covers none of the others; on new Axes it lies below."""
    figure, axes = plt.subplots(2)
    plots.hit_rate(ax=axes[0])
    figure.canvas.draw()
    assert axes[0].bbox.fully_containsx(axes[0].get_legend().get_window_extent().x0)
    assert axes[0].bbox.y0 <= axes[0].get_legend().get_window_extent().y0

    alone = plots.hit_rate()
    alone.figure.canvas.draw()
    assert alone.get_legend().get_window_extent().y1 < alone.bbox.y0


def test_large_numbers_are_grouped(ax):
    """The number of reads in the title has separators."""
    Plots(Asked(*["memory"] * 1234)).hit_rate(ax=ax)

    assert ax.get_title() == "Hit rate (n = 1,234 reads)"


def test_not_by_colour_alone(ax):
    """Each kind of bar has a colour that every eye tells apart, and a hatch of its own for print."""
    Plots(Asked("memory", "disk", "source", "none", "error")).hit_rate(ax=ax)

    kinds = [bars[0] for bars in ax.containers]
    colours = ["#0072B2", "#E69F00", "#009E73", "#BBBBBB", "#000000"]
    assert [to_hex(bar.get_facecolor()).upper() for bar in kinds] == colours
    assert len({bar.get_hatch() for bar in kinds}) == 5
    lightness = [np.dot(bar.get_facecolor()[:3], (0.2126, 0.7152, 0.0722)) for bar in kinds]
    assert all(abs(a - b) > 0.05 for a, b in itertools.combinations(lightness, 2))


def test_who_answered_is_named(ax):
    """What was fetched, missed or failed has bars of its own, which with the hits add up to all reads."""
    Plots(Asked("source", "none", "error", "memory")).hit_rate(window=4, ax=ax)

    assert {"fetched", "missed", "failed"} <= {*legend(ax)}
    assert np.sum(heights(ax), axis=0) == pytest.approx([1.0])


def test_what_never_happened_is_not_named(ax):
    """Where nothing was fetched, missed or failed there are no bars of that."""
    Plots(Asked("disk", "memory")).hit_rate(ax=ax)

    assert sorted(legend(ax)) == ["from disk", "from memory", "hit rate since the beginning"]


def test_long_times_are_dates(ax):
    """After more than two hours x is the time in UTC, and a bin is as wide as its window."""
    Plots(Asked(*["memory"] * 5, step=3600)).hit_rate(window=3600, ax=ax)

    assert ax.get_xlabel() == "time (UTC)"
    first = ax.containers[0][0]
    assert num2date(first.get_x()).isoformat() == "2024-06-03T14:30:00+00:00"
    assert first.get_width() == pytest.approx(1 / 24)
    ax.figure.canvas.draw()
    assert "16:00" in [label.get_text() for label in ax.get_xticklabels()]


def test_history_is_drawn_on_dates(make, clock, ax):
    """The reads of an earlier session are drawn by the minute, at their time."""
    with make(settings=Settings(keep_history=86_400)) as earlier:
        earlier.get_price("A", "none")
    clock.advance(60)
    cache = make(settings=Settings(keep_history=86_400))

    cache.plot.hit_rate(history=cache.history(), ax=ax)

    assert ax.get_xlabel() == "time (UTC)"
    assert ax.get_title() == "Hit rate (n = 1 reads)"
    assert num2date(ax.containers[0][0].get_x()).strftime("%H:%M") == "14:30"


def test_symbols_have_lines(ax):
    """By symbol, each line is the hit rate of one symbol since the beginning; the most wanted comes first."""
    asked = [("A", "none"), ("B", "memory"), ("A", "disk"), ("", "disk"), ("A", "memory")]
    Plots(Asked(*asked)).hit_rate(by="symbol", window=1, ax=ax)

    assert legend(ax) == ["A (n = 3)", "several at once (n = 1)", "B (n = 1)"]
    assert ax.lines[0].get_xdata().tolist() == pytest.approx([1, 3, 5])
    assert ax.lines[0].get_ydata().tolist() == pytest.approx([0, 1 / 2, 2 / 3])
    assert ax.get_title() == "Hit rate by symbol (n = 5 reads)"
    assert ax.get_ylabel() == "hit rate since the beginning"


def test_eight_symbols_are_drawn(ax):
    """Of many symbols the eight asked for most often are drawn, none like another; the title counts the rest."""
    asked = [(f"S{number}", "memory") for number in range(11) for _ in range(number + 1)]
    Plots(Asked(*asked)).hit_rate(by="symbol", ax=ax)

    assert [label.split(" ")[0] for label in legend(ax)] == [f"S{number}" for number in range(10, 2, -1)]
    assert ax.get_title() == "Hit rate by symbol (n = 66 reads; 3 more symbols not shown)"
    assert len({(str(line.get_linestyle()), line.get_marker()) for line in ax.lines}) == 8
    assert len({line.get_marker() for line in ax.lines}) == len({line.get_color() for line in ax.lines}) == 8


@pytest.mark.parametrize("symbol", ["$A$B$", "_hidden", "x" * 255])
def test_any_symbol_can_be_named(symbol):
    """Dollars are no formula, an underscore does not hide a line, and long names are shortened."""
    axes = Plots(Asked((symbol, "memory"))).hit_rate(by="symbol")

    assert drawn(axes)
    assert legend(axes)[0].strip().startswith(symbol[:20])
    assert len(legend(axes)[0]) < 40


def test_given_axes_are_drawn_on_and_returned(plots, ax):
    """With `ax` nothing new is made, and what is on it stays."""
    ax.plot([0, 1], [0, 1], label="mine")

    result = plots.hit_rate(ax=ax)

    assert result is ax
    assert plt.get_fignums() == []
    assert len(ax.lines) == 2


def test_each_of_several_axes_may_be_given(plots):
    """One of a row of Axes may be given; the others stay empty."""
    _, axes = plt.subplots(1, 2)

    plots.hit_rate(ax=axes[1])

    assert [len(each.containers) for each in axes] == [0, 3]
    assert len(plt.get_fignums()) == 1


def test_without_axes_one_figure_is_made(plots):
    """Without `ax` one new figure with one Axes is made, and its Axes are returned."""
    plt.subplots()

    result = plots.hit_rate()

    assert isinstance(result, Axes)
    assert result.figure.axes == [result]
    assert len(plt.get_fignums()) == 2


def test_options_reach_the_line(plots, ax):
    """Other options are those of `Axes.plot`, for the line."""
    plots.hit_rate(ax=ax, color="red", linestyle=":", label="all")

    assert (ax.lines[0].get_color(), ax.lines[0].get_linestyle()) == ("red", ":")
    assert "all" in legend(ax)


def test_short_spellings_are_options_too(plots, ax):
    """`lw` and `c` take the place of the chart's own width and colour."""
    plots.hit_rate(ax=ax, lw=5, c="red")

    assert (ax.lines[0].get_linewidth(), ax.lines[0].get_color()) == (5, "red")


def test_unknown_option_is_an_error(plots, ax):
    """An option that `Axes.plot` does not know is matplotlib's error."""
    with pytest.raises(AttributeError, match="colour_of_line"):
        plots.hit_rate(ax=ax, colour_of_line="red")


@pytest.mark.parametrize("kind", ["ax", "figure", "array", "number", "polar"])
def test_what_is_no_axes_is_named(plots, kind):
    """A figure, an array of Axes or anything else for `ax`, polar Axes too, is an error that says so; nothing is drawn."""
    figure, axes = plt.subplots(1, 2)
    wrong = {
        "ax": "ax",
        "figure": figure,
        "array": axes,
        "number": 5,
        "polar": Figure().add_subplot(projection="polar"),
    }[kind]

    with pytest.raises(InvalidInput, match=r"(?s)^ax is .*, but must be a plain matplotlib Axes"):
        plots.hit_rate(ax=wrong)

    assert [len(each.containers) for each in axes] == [0, 0]


def test_settings_of_matplotlib_are_left_alone(plots):
    """Drawing changes no rcParams."""
    before = dict(mpl.rcParams)

    drawn(plots.hit_rate())

    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("tiers", [(), ("memory",), ("none",), ("error", "error"), SERVED])
def test_chart_of_anything_can_be_drawn(tiers):
    """No reads at all, a single one, only misses: each makes a picture, without a warning."""
    axes = Plots(Asked(*tiers)).hit_rate()

    assert drawn(axes).startswith(b"\x89PNG")
    assert axes.get_title() == f"Hit rate (n = {len(tiers)} reads)"
    assert axes.get_ylim() == (0, 1.02)
    assert said(axes) == ([] if tiers else ["no reads yet"])


def test_cache_draws_itself(tmp_path, ax):
    """`cache.plot.hit_rate` draws the cache's reads, also after it was closed."""
    with TradeCache(tmp_path) as cache:
        for _ in range(3):
            cache.get_price("A", "none")

    assert cache.plot.hit_rate(ax=ax) is ax
    assert ax.get_title() == "Hit rate (n = 3 reads)"


def test_frame_of_the_cache_is_left_alone(ax):
    """Drawing does not change the frame it was given."""
    frame = Asked(*SERVED).hit_rate(3)
    before = frame.copy()

    class Fixed:
        def hit_rate(self, window=None, *, by="tier", history=None):
            return frame

    Plots(Fixed()).hit_rate(ax=ax)

    assert list(frame.columns) == list(before.columns)


CHARTS = {
    "hit_rate": lambda plot, **options: plot.hit_rate(**options),
    "hit_rate by symbol": lambda plot, **options: plot.hit_rate(by="symbol", **options),
    "latency": lambda plot, **options: plot.latency(**options),
    "coverage": lambda plot, **options: plot.coverage(**options),
    "coverage of a range": lambda plot, **options: plot.coverage("A", start="2020", end="2021", **options),
    "ttl": lambda plot, **options: plot.ttl(**options),
    "occupancy": lambda plot, **options: plot.occupancy(**options),
}


class Positional:
    """Plots whose methods are called with one positional argument more."""

    def __init__(self, plots) -> None:
        self._plots = plots

    def __getattr__(self, name):
        return lambda *given, **options: getattr(self._plots, name)(*given, None, None, **options)


@pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS)
class TestEveryChart:
    """What holds for each of the charts of a cache."""

    def test_empty_cache_has_a_chart(self, make, chart):
        """Of an empty cache there is a labelled chart of one new figure, without a warning."""
        axes = chart(make().plot)

        assert drawn(axes).startswith(b"\x89PNG")
        assert axes.get_xlabel()
        assert "n = " in axes.get_title()
        assert "nothing stored" in str(axes.get_yticklabels()) or said(axes)
        assert len(plt.get_fignums()) == 1

    def test_drawing_is_no_request(self, make, chart):
        """Drawing adds nothing to the requests."""
        cache = make("synthetic")
        cache.store_price("A", 1, 1, ttl=60)
        cache.bars("A", "2024-01-02", "2024-02-02")
        before = cache.events(), cache.stats()

        assert drawn(chart(cache.plot))

        pd.testing.assert_frame_equal(cache.events(), before[0])
        pd.testing.assert_frame_equal(cache.stats(), before[1])

    def test_given_axes_are_the_only_ones(self, make, ax, chart):
        """With `ax` that is drawn on and returned; no figure is made."""
        assert chart(make("synthetic").plot, ax=ax) is ax
        assert plt.get_fignums() == []

    def test_what_is_no_axes_is_an_error(self, make, chart):
        """Anything else for `ax` is named, and leaves no figure behind."""
        with pytest.raises(InvalidInput, match=r"^ax is 5, but must be a plain matplotlib Axes"):
            chart(make().plot, ax=5)
        assert plt.get_fignums() == []

    def test_unknown_options_are_errors(self, make, ax, chart):
        """An option that the artist does not know is matplotlib's error."""
        cache = make("synthetic")
        cache.store_price("A", 1, 1)
        cache.bars("A", "2020-01-02", "2020-02-02")
        with pytest.raises(AttributeError, match="colour"):
            chart(cache.plot, ax=ax, colour="red")

    def test_positions_are_refused(self, make, chart):
        """Axes are given by name."""
        with pytest.raises(TypeError, match="positional argument"):
            chart(Positional(make().plot))
