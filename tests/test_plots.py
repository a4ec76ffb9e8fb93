"""What the charts show, asked of the Axes."""

import io
import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from clocks import FakeClock
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tradecache import InvalidInput, TradeCache
from tradecache.clock import Clock
from tradecache.plots import Plots
from tradecache.stats import hit_rate_frame
from tradecache.telemetry import Telemetry

SERVED = ("none", "disk", "memory", "memory", "disk", "disk", "memory", "memory", "memory")


class Asked:
    """A cache that was asked once a second, and answered as told."""

    def __init__(self, *tiers: str) -> None:
        wall = FakeClock()
        self.telemetry = Telemetry(Clock(wall).epoch)
        for tier in tiers:
            self.telemetry.record("get", "prices", "A", tier, 1, 0.001)
            wall.advance(1)

    def hit_rate(self, window=None):
        return hit_rate_frame(self.telemetry, window=window)


@pytest.fixture(autouse=True)
def _agg():
    before = mpl.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(before)


@pytest.fixture
def plots():
    return Plots(Asked(*SERVED))


@pytest.fixture
def ax():
    return Figure().subplots()  # of no pyplot figure


def heights(ax: Axes) -> list[list[float]]:
    return [[bar.get_height() for bar in bars] for bars in ax.containers]


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def drawn(ax: Axes) -> bytes:
    picture = io.BytesIO()
    ax.figure.savefig(picture, format="png")
    return picture.getvalue()


def test_bars_are_the_shares_of_the_tiers(plots, ax):
    """Each bin is a stack of three bars: from memory, from disk, missed; together they are all requests."""
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
    assert sorted(texts(ax)) == ["from disk", "from memory", "hit rate since the beginning", "missed"]


def test_a_lone_bin_is_as_wide_as_its_window(ax):
    """One read, or several within one window, are a bar of the window's width."""
    Plots(Asked("disk")).hit_rate(window=5, ax=ax)

    assert [bars[0].get_width() for bars in ax.containers] == [5, 5, 5]
    assert ax.lines[0].get_xdata().tolist() == [5]


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


def test_not_by_colour_alone(plots, ax):
    """Each kind of bar has a colour that every eye tells apart, and a hatch of its own for print."""
    plots.hit_rate(ax=ax)

    kinds = [bars[0] for bars in ax.containers]
    assert [to_hex(bar.get_facecolor()).upper() for bar in kinds] == ["#0072B2", "#E69F00", "#BBBBBB"]
    assert len({bar.get_hatch() for bar in kinds}) == 3
    lightness = [np.dot(bar.get_facecolor()[:3], (0.2126, 0.7152, 0.0722)) for bar in kinds]
    assert all(abs(a - b) > 0.05 for a, b in itertools.combinations(lightness, 2))


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
    assert "all" in texts(ax)


def test_unknown_option_is_an_error(plots, ax):
    """An option that `Axes.plot` does not know is matplotlib's error."""
    with pytest.raises(AttributeError, match="colour_of_line"):
        plots.hit_rate(ax=ax, colour_of_line="red")


@pytest.mark.parametrize("kind", ["ax", "figure", "array", "number"])
def test_what_is_no_axes_is_named(plots, kind):
    """A figure, an array of Axes or anything else for `ax` is an error that says so; nothing is drawn."""
    figure, axes = plt.subplots(1, 2)
    wrong = {"ax": "ax", "figure": figure, "array": axes, "number": 5}[kind]

    with pytest.raises(InvalidInput, match=r"(?s)^ax is .*, but must be a matplotlib Axes"):
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
        def hit_rate(self, window=None):
            return frame

    Plots(Fixed()).hit_rate(ax=ax)

    assert list(frame.columns) == list(before.columns)
