"""What the charts of latency, of what is stored and of warming show, asked of the Axes."""

import io
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from charts import Asked, drawn, legend, rows, said, widths
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.dates import num2date
from matplotlib.figure import Figure

from tradecache import InvalidInput, InvalidSymbol
from tradecache.holdings import EXPIRIES, OCCUPANCY
from tradecache.lifecharts import STATES
from tradecache.plots import Plots
from tradecache.provenance import COVERED
from tradecache.settings import Settings
from tradecache.sizecharts import DATASETS
from tradecache.stats import Warmed, warmed_frame
from tradecache.units import spelt_bytes, spelt_seconds
from tradecache.warmcharts import WARM_UPS

DAY = 86_400


pytestmark = pytest.mark.usefixtures("agg")


class Held:
    """A cache that holds what it is told."""

    def __init__(self, *, spans=(), entries=(), sizes=()) -> None:
        self.spans = typed(spans, COVERED)
        self.entries = typed(entries, EXPIRIES)
        self.sizes = typed(sizes, OCCUPANCY)

    def coverage(self, symbols=None, start=None, end=None, *, interval=None, source=None):
        return self.spans

    def expiries(self, symbols=None):
        return self.entries

    def occupancy(self):
        return self.sizes


def typed(records, types):
    frame = pd.DataFrame(records, columns=list(types))
    times = [name for name, kind in types.items() if kind.startswith("datetime64")]
    return frame.assign(**{name: pd.to_datetime(frame[name], utc=True) for name in times}).astype(types)


def span(symbol, start, end, state, *, interval="1d", source="sample"):
    times = pd.Timestamp(start, tz="UTC"), pd.Timestamp(end, tz="UTC")
    return (symbol, source, interval, *times, state, "bars", 1, 8, pd.NaT, pd.NaT)


def entry(ttl, *, dataset="prices", count=1):
    return (
        "A",
        dataset,
        "local",
        count,
        pd.NaT,
        np.timedelta64("NaT", "us") if ttl is None else np.timedelta64(round(ttl * 1e6), "us"),
    )


def timed(*reads):
    """Return a cache that answered each read of (operation, dataset, tier, seconds)."""
    cache = Asked()
    for operation, dataset, tier, seconds in reads:
        cache.telemetry.record(operation, dataset, "A", tier, 1, 24, seconds)
    return cache


class TestLatency:
    """How long reads took."""

    def test_each_tier_has_a_line_with_its_quantiles(self, ax):
        """The label says how many reads there were, p50 and p95; on the line they are marked."""
        seconds = np.linspace(1e-3, 101e-3, 101)
        Plots(timed(*[("get", "prices", "memory", each) for each in seconds])).latency(ax=ax)

        (line,) = ax.lines
        assert legend(ax) == ["from memory (n = 101): p50 51 ms, p95 96 ms"]
        marked = line.get_xydata()[line.get_markevery()]
        assert marked.ravel().tolist() == pytest.approx([0.051, 0.5, 0.096, 0.95])

    def test_quantiles_are_those_of_stats(self, make, ax):
        """The marked times are p50 and p95 of `stats`."""
        cache = make("synthetic")
        for _ in range(3):
            cache.bars("A", "2024-01-02", "2024-02-02")
        cache.plot.latency(ax=ax, by="operation")

        (line,) = ax.lines
        expected = cache.stats(by="operation").loc["bars", ["p50_us", "p95_us"]] / 1e6
        assert line.get_xdata()[line.get_markevery()] == pytest.approx(expected.tolist())

    @given(st.lists(st.floats(0, 1e5), min_size=1, max_size=50))
    def test_lines_rise_from_none_to_all(self, seconds):
        """A line goes from the shortest time at 0% to the longest at 100%, and never falls."""
        ax = Figure().subplots()
        Plots(timed(*[("get", "prices", "disk", each) for each in seconds])).latency(ax=ax)

        times, shares = ax.lines[0].get_data()
        assert (shares[0], shares[-1]) == (0, 1)
        assert [times[0], times[-1]] == pytest.approx([max(min(seconds), 1e-9), max(*seconds, 1e-9)])
        assert (np.diff(times) >= -1e-9 * times[1:]).all()
        assert ax.get_xlim()[0] <= times[0]
        assert times[-1] < ax.get_xlim()[1]

    def test_tiers_are_told_apart(self, ax):
        """Each tier has its own colour, line style and marker, and a name for people."""
        tiers = ("error", "none", "source", "disk", "memory")
        Plots(timed(*[("bars", "bars 1d", tier, 0.01) for tier in tiers])).latency(ax=ax)

        names = [label.split(" (")[0] for label in legend(ax)]
        assert names == ["from memory", "from disk", "fetched", "missed", "failed"]
        styles = [(line.get_color(), line._unscaled_dash_pattern, line.get_marker()) for line in ax.lines]
        assert [len({*map(str, each)}) for each in zip(*styles, strict=True)] == [5, 5, 5]

    def test_writes_are_no_reads(self, ax):
        """Puts and deletes are left out."""
        Plots(timed(("put", "prices", "disk", 1.0), ("get", "prices", "disk", 0.1))).latency(ax=ax)

        assert ax.get_title() == "Latency (n = 1 reads)"
        assert legend(ax) == ["from disk (n = 1): p50 100 ms, p95 100 ms"]

    def test_eight_datasets_are_drawn(self, ax):
        """Of more than eight datasets those with the most reads are drawn; the title counts the others."""
        reads = [("bars", f"bars {n}m", "memory", 0.01) for n in range(10) for _ in range(n + 1)]
        Plots(timed(*reads)).latency(by="dataset", ax=ax)

        assert [label.split(" (")[0] for label in legend(ax)] == [f"bars {n}m" for n in range(9, 1, -1)]
        assert ax.get_title() == "Latency (n = 55 reads; 2 more datasets not shown)"

    def test_times_are_written_for_people(self, ax):
        """The logarithmic axis has ticks such as 10 µs and 1 s."""
        Plots(timed(("get", "prices", "memory", 2e-5), ("bars", "bars 1d", "source", 1.0))).latency(ax=ax)

        assert ax.get_xscale() == "log"
        ticks = [ax.xaxis.get_major_formatter()(tick) for tick in ax.get_xticks()]
        assert {"10 µs", "1 ms", "1 s", "1 min"} <= {*ticks}

    @pytest.mark.parametrize("by", ["symbol", None, 3, ["tier"]])
    def test_other_splits_are_refused(self, by):
        """`by` is one of three."""
        with pytest.raises(InvalidInput, match=r"^by is .*tier, dataset, operation"):
            Plots(timed()).latency(by=by)


class TestCoverage:
    """Which ranges are stored."""

    def test_spans_lie_where_their_time_is(self, ax):
        """Each span is a bar in its symbol's row, in the style of its state."""
        spans = [
            span("A", "2024-01-01", "2024-02-01", "final"),
            span("B", "2024-01-05", "2024-01-07", "stale"),
        ]
        Plots(Held(spans=spans)).coverage(ax=ax)

        assert rows(ax) == ["A", "B"]
        assert legend(ax) == ["final", "stale"]
        final, stale = ax.collections
        x, y = stale.get_paths()[0].vertices[:, 0], stale.get_paths()[0].vertices[:, 1]
        assert [f"{num2date(edge):%Y-%m-%d}" for edge in (x.min(), x.max())] == ["2024-01-05", "2024-01-07"]
        assert (y.min(), y.max()) == pytest.approx((0.65, 1.35))
        assert (final.get_hatch() or "", stale.get_hatch()) == (STATES["final"][2], STATES["stale"][2])
        assert (ax.get_xlabel(), ax.get_title()) == ("time (UTC)", "Coverage (n = 2 series)")

    def test_states_are_told_apart(self):
        """Each state has a colour of its own, and what has none of the plain ones has a hatch."""
        assert len({colour for colour, _, _ in STATES.values()}) == len(STATES)
        assert (
            len({hatch for _, _, hatch in STATES.values()}) == len(STATES) - 1
        )  # final is dark, closed is light

    def test_axis_is_the_range_that_was_asked_for(self, make, ax):
        """With start and end the axis shows them exactly, and what is not stored between them is missing."""
        cache = make("sample")
        cache.bars("IBM", "2010-03-01", "2010-06-01")

        cache.plot.coverage("IBM", start="2010-01-01", end="2010-12-31", ax=ax)

        assert [f"{num2date(edge):%Y-%m-%d %H:%M}" for edge in ax.get_xlim()] == [
            "2010-01-01 00:00",
            "2010-12-31 23:59",
        ]
        assert {"final", "missing"} <= {*legend(ax)}

    def test_bars_are_the_spans_of_coverage(self, make, ax):
        """Together the bars of each state are as long as the spans that `coverage` lists."""
        cache = make("synthetic")
        cache.bars(["A", "B"], "2024-01-02", "2024-03-01")
        cache.bars("B", "2024-04-02", None)

        cache.plot.coverage(start="2024-01-01", end="2024-07-01", ax=ax)

        frame = cache.coverage(start="2024-01-01", end="2024-07-01")
        days = (frame["end"] - frame["start"]).dt.total_seconds().groupby(frame["state"]).sum() / DAY
        found = {to_hex(each.get_facecolor()[0]).upper(): 0.0 for each in ax.collections}
        for each in ax.collections:
            found[to_hex(each.get_facecolor()[0]).upper()] += sum(
                np.ptp(path.vertices[:, 0]) for path in each.get_paths()
            )
        assert found == pytest.approx({STATES[str(state)][0]: total for state, total in days.items()})

    def test_what_has_nothing_stored_has_an_empty_row(self, make, ax):
        """Symbols that were asked for keep their order; one without bars has a row that says so."""
        cache = make("sample")
        cache.bars("IBM", "2010-03-01", "2010-06-01")

        cache.plot.coverage(["ZZZ", "IBM"], ax=ax)

        assert rows(ax) == ["ZZZ (nothing stored)", "IBM"]

    def test_labels_say_what_differs(self, ax):
        """Interval and source are in the labels where there is more than one."""
        spans = [span("A", "2024", "2025", "final", interval=each) for each in ("1d", "1h")]
        Plots(Held(spans=spans)).coverage(ax=ax)

        assert rows(ax) == ["A 1d", "A 1h"]

    def test_forty_rows_are_drawn(self):
        """Of many series the first forty are drawn; the title counts the others."""
        spans = [span(f"S{number:03}", "2024", "2025", "final") for number in range(100)]
        axes = Plots(Held(spans=spans)).coverage()

        assert rows(axes) == [f"S{number:03}" for number in range(40)]
        assert axes.get_title() == "Coverage (n = 100 series; 60 more series not shown)"
        axes.figure.canvas.draw()
        boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
        assert all(upper.y0 >= lower.y1 for upper, lower in itertools.pairwise(boxes))

    def test_low_axes_show_what_they_have_room_for(self):
        """On low Axes fewer rows are drawn, so that their labels can be read."""
        spans = [span(f"S{number:03}", "2024", "2025", "final") for number in range(100)]
        low = Figure(figsize=(6, 1.5)).subplots()
        Plots(Held(spans=spans)).coverage(ax=low)

        assert 3 <= len(rows(low)) < 20
        assert low.get_title() == f"Coverage (n = 100 series; {100 - len(rows(low))} more series not shown)"

    def test_options_reach_the_bars(self, ax):
        """Other options are those of `Axes.broken_barh`."""
        Plots(Held(spans=[span("A", "2024", "2025", "final")])).coverage(ax=ax, alpha=0.5)

        assert ax.collections[0].get_alpha() == 0.5

    @pytest.mark.parametrize(("name", "value"), [("start", "no date"), ("end", 5), ("interval", "1 parsec")])
    def test_wrong_arguments_are_named(self, make, name, value):
        """What is no moment or no interval is an error that names the argument."""
        with pytest.raises(InvalidInput, match=name):
            make("sample").plot.coverage("A", **{name: value})

    def test_range_has_an_order(self, make):
        """An end before the start is refused."""
        with pytest.raises(InvalidInput, match=r"^end is '2020', but must be at or after start, 2024"):
            make("sample").plot.coverage("A", start="2024", end="2020")

    def test_long_names_do_not_hide_each_other(self, ax):
        """Series whose names are the same where they are cut off have a row each."""
        spans = [span("x" * 40 + end, "2024", "2025", "final") for end in "ab"]
        Plots(Held(spans=spans)).coverage(ax=ax)

        assert rows(ax) == ["x" * 23 + "…"] * 2

    @pytest.mark.parametrize("symbols", [5, ["A", None], ""])
    def test_wrong_symbols_are_errors(self, make, symbols):
        """What is no symbol is refused."""
        with pytest.raises((InvalidInput, InvalidSymbol), match="symbol"):
            make("sample").plot.coverage(symbols)


class TestTTL:
    """What expires when."""

    def test_curve_falls_when_something_expires(self, ax):
        """The share alive falls at each expiry; what lives for ever is the floor."""
        entries = [entry(10), entry(60), entry(60), entry(None)]
        Plots(Held(entries=entries)).ttl(ax=ax)

        curve, rug = ax.lines
        assert curve.get_xdata()[1:-1].tolist() == [10, 60]
        assert curve.get_ydata().tolist() == [1.0, 0.75, 0.25, 0.25]
        assert curve.get_drawstyle() == "steps-post"
        assert rug.get_xdata().tolist() == [10, 60]
        assert rug.get_marker() == "|"
        assert legend(ax) == ["prices (n = 4, 1 for ever)"]

    def test_rows_are_what_is_counted(self, ax):
        """An entry of many rows weighs as many; what is stale already is below the curve's start, and said."""
        entries = [entry(-5, dataset="bars 1d", count=100), entry(DAY, dataset="bars 1d", count=300)]
        Plots(Held(entries=entries)).ttl(ax=ax)

        assert ax.lines[0].get_ydata().tolist() == [0.75, 0.0, 0.0]
        assert legend(ax) == ["bars 1d (n = 400, 100 stale)"]
        assert ax.get_title() == "Time to live (n = 400 rows, 2 entries)"

    def test_each_dataset_has_a_curve(self, ax):
        """Datasets have curves of their own, told apart by line style, those with more rows first."""
        Plots(Held(entries=[entry(10), entry(20, dataset="bars 1d", count=9)])).ttl(ax=ax)

        curves = [line for line in ax.lines if not line.get_label().startswith("_")]
        assert [line.get_label() for line in curves] == ["bars 1d (n = 9)", "prices (n = 1)"]
        assert len({(line.get_linestyle(), line.get_color()) for line in curves}) == 2

    @given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e9)), min_size=1, max_size=30))
    def test_share_alive_is_that_of_the_entries(self, ttls):
        """At any time the curve is the share of entries whose time is not up."""
        ax = Figure().subplots()
        Plots(Held(entries=[entry(ttl) for ttl in ttls])).ttl(ax=ax)

        left = np.array([np.inf if ttl is None else round(ttl * 1e6) / 1e6 for ttl in ttls])
        left = np.where(left > 0, np.maximum(left, 1e-3), left)
        times, alive = ax.lines[0].get_data()
        assert alive[1:-1] == pytest.approx([(left > time).mean() for time in times[1:-1]])
        assert (alive[0], alive[-1]) == pytest.approx(((left > 0).mean(), np.isinf(left).mean()))
        assert (np.diff(times) >= 0).all()

    def test_times_are_written_for_people(self, ax):
        """From seconds to weeks the axis has ticks such as 1 min, 1 h and 7 d."""
        Plots(Held(entries=[entry(3), entry(20 * DAY)])).ttl(ax=ax)

        ticks = [ax.xaxis.get_major_formatter()(tick) for tick in ax.get_xticks()]
        assert {"1 s", "1 min", "1 h", "1 d", "7 d", "30 d"} <= {*ticks}

    def test_cache_draws_its_points_and_bars(self, make, ax):
        """Points and bars of a cache are drawn, or those of some symbols."""
        cache = make("synthetic")
        cache.store_price("A", 1, 1, ttl=60)
        cache.store_price("B", 1, 1)
        cache.bars("A", "2024-01-02", "2024-02-02")

        cache.plot.ttl("B", ax=ax)
        assert legend(ax) == ["prices (n = 1, 1 for ever)"]
        assert len(legend(cache.plot.ttl())) == 2


class TestOccupancy:
    """How much each tier holds."""

    SIZES = (
        ("memory", "bars", 2, 600, 1000),
        ("memory", "prices", 1, 200, 1000),
        ("disk", "bars", 3, 900, None),
    )

    def test_bars_are_the_bytes_of_each_tier(self, ax):
        """Each dataset is a part of its tier's bar, as long as its bytes where the axis is linear."""
        Plots(Held(sizes=self.SIZES)).occupancy(ax=ax)

        assert np.array(widths(ax)) == pytest.approx(np.array([[600, 900], [200, 0]]))
        assert legend(ax) == ["bars", "prices"]
        assert ax.get_xlabel() == "bytes"
        assert ax.get_title() == "Occupancy (entries in memory: n = 3, disk: n = 3)"

    def test_limits_are_marked(self, ax):
        """A tier's limit is a vertical mark; where there is none, the bar's end says so."""
        Plots(Held(sizes=self.SIZES)).occupancy(ax=ax)

        (mark,) = ax.lines
        assert mark.get_xdata().tolist() == [1000, 1000]
        assert {"limit 1,000 B", "no limit"} <= {*said(ax)}
        assert rows(ax) == ["memory\n800 B\n80.0% used", "disk\n900 B"]

    def test_limit_of_the_disk_is_for_bars(self, ax):
        """Of the disk only bars count against the limit."""
        sizes = [("disk", "bars", 1, 500, 1000), ("disk", "prices", 1, 400, 1000)]
        Plots(Held(sizes=sizes)).occupancy(ax=ax)

        assert "limit 1,000 B for bars" in said(ax)
        assert rows(ax) == ["disk\n900 B\n50.0% used"]

    def test_tiny_bars_are_seen(self, ax):
        """Far below the limit the axis is logarithmic: the bar ends at its bytes, its parts are shares of it."""
        sizes = [("memory", "bars", 1, 3 * 2**20, 2**38), ("memory", "prices", 1, 2**20, 2**38)]
        Plots(Held(sizes=sizes)).occupancy(ax=ax)

        (bars,), (prices,) = ax.containers
        assert prices.get_x() + prices.get_width() == pytest.approx(4 * 2**20)
        left, middle, right = (
            ax.transData.transform((x, 0))[0]
            for x in (0, prices.get_x(), prices.get_x() + prices.get_width())
        )
        assert right - left > 0.2 * ax.bbox.width
        assert (middle - left) / (right - left) == pytest.approx(0.75)
        assert "3 MiB" in said(ax)
        assert bars.get_x() == 0

    def test_datasets_are_told_apart(self):
        """Each dataset has a colour and a hatch of its own."""
        assert len({colour for colour, _ in DATASETS.values()}) == len(DATASETS)
        assert len({hatch for _, hatch in DATASETS.values()}) == len(DATASETS)

    def test_cache_draws_what_it_holds(self, make, ax):
        """The bars of a real cache are as long as its tiers are full."""
        cache = make("synthetic", settings=Settings(memory_bytes=2**20))
        cache.bars("A", "2020-01-02", "2024-02-02")
        cache.store_price("A", 1, 1)

        cache.plot.occupancy(ax=ax)

        ends = np.sum(widths(ax), axis=0)
        assert ends == pytest.approx(cache.occupancy().groupby("tier", sort=False)["bytes"].sum().tolist())
        assert "limit 1 MiB" in said(ax)


def warmed(*reports):
    return warmed_frame([Warmed(*report) for report in reports])


class TestWarming:
    """What warming up brought."""

    COLD = (("A", 0, 0, 500, 2, 0.5, ""), ("B", 0, 100, 300, 1, 1.3, ""))

    def test_bars_are_cached_and_fetched_rows(self, ax):
        """Each symbol has a bar of cached and then of fetched rows, and beside it how long that took."""
        Plots(Held()).warming(warmed(*self.COLD), ax=ax)

        assert widths(ax) == [[0, 100], [500, 300]]
        assert rows(ax) == ["A", "B"]
        assert said(ax) == ["500 ms", "1.3 s"]
        assert legend(ax) == ["before: cached", "before: fetched"]
        assert ax.get_xlabel() == "rows of bars"

    def test_before_and_after_are_side_by_side(self, ax):
        """Two warm-ups have bars above and below each other, and totals in the title."""
        after = warmed(("A", 0, 500, 0, 0, 0.01, ""), ("B", 0, 400, 0, 0, 0.02, ""))
        Plots(Held()).warming(warmed(*self.COLD), after, ax=ax)

        assert widths(ax) == [[0, 100], [500, 300], [500, 400], [0, 0]]
        above, below = ax.containers[0][0], ax.containers[2][0]
        assert above.get_y() + above.get_height() == pytest.approx(below.get_y())
        assert ax.get_title().splitlines() == [
            "Warming (n = 2 symbols)",
            "before: 800 rows fetched in 3 requests, 100 cached, slowest 1.3 s",
            "after: 0 rows fetched in 0 requests, 900 cached, slowest 20 ms",
        ]

    def test_errors_are_marked(self, ax):
        """What failed has a cross and the error's class."""
        Plots(Held()).warming(warmed(("Z", 0, 0, 0, 1, 0.1, "UnknownSymbol: no 'Z'")), ax=ax)

        assert said(ax) == ["UnknownSymbol, 100 ms"]
        assert [line.get_marker() for line in ax.lines] == ["X"]
        assert ax.get_title().endswith("1 failed")

    def test_twenty_symbols_are_drawn(self):
        """Of many symbols twenty are drawn, and one row is the sum of all others."""
        frame = warmed(*((f"S{number}", 0, 10, 5, 1, 0.1, "") for number in range(100)))
        axes = Plots(Held()).warming(frame, frame)

        assert rows(axes)[-2:] == ["S19", "80 others"]
        assert [bars[20].get_width() for bars in axes.containers] == [800, 400, 800, 400]
        assert said(axes)[20] == "1,200 rows, slowest 100 ms →"
        assert np.sum(widths(axes)) == 2 * 100 * 15

    def test_symbols_of_one_warm_up_only(self, ax):
        """A symbol that was warmed only once has one bar."""
        Plots(Held()).warming(warmed(self.COLD[0]), warmed(self.COLD[1]), ax=ax)

        assert rows(ax) == ["A", "B"]
        assert said(ax) == ["500 ms", "1.3 s"]

    def test_kinds_are_told_apart(self):
        """Each kind of bar has a colour and a hatch of its own."""
        colours, hatches, _ = zip(*WARM_UPS.values(), strict=True)
        assert len({*colours}) == len({*hatches}) == 4

    def test_cache_draws_its_warm_ups(self, make):
        """The frames of a cold and of a second warm-up are drawn; the second fetched nothing."""
        cache = make("sample")
        first, second = (
            cache.warm(["IBM", "ZZZ"], "2010-01-01", "2010-12-31", progress=False) for _ in range(2)
        )
        axes = cache.plot.warming(first, second)

        assert drawn(axes)
        assert widths(axes)[1] == widths(axes)[2] == [252, 0]
        assert [line.get_marker() for line in axes.lines] == ["X", "X"]

    def test_no_symbols_are_no_error(self):
        """A warm-up of nothing has a chart that says so."""
        axes = Plots(Held()).warming(warmed())

        assert drawn(axes)
        assert said(axes) == ["no symbols were warmed"]

    @pytest.mark.parametrize("wrong", [None, 5, pd.DataFrame({"rows": [1]}), warmed(COLD[0], COLD[0])])
    def test_other_frames_are_refused(self, wrong):
        """What `warm` did not return is named, and nothing is drawn."""
        with pytest.raises(InvalidInput, match=r"(?s)^before is .*must be a frame that `warm"):
            Plots(Held()).warming(wrong)
        if wrong is not None:
            with pytest.raises(InvalidInput, match=r"(?s)^after is .*must be a frame that `warm"):
                Plots(Held()).warming(warmed(*self.COLD), wrong)
        assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (3e-10, "0.3 ns"), (1.44e-6, "1.4 µs"), (9.96e-6, "10 µs"), (999.6e-6, "1 ms"), (60, "1 min"),
     (100, "1.7 min"), (3600, "1 h"), (7 * DAY, "7 d"), (365 * DAY, "1 y")],
)  # fmt: skip
def test_times_have_the_unit_that_suits_them(seconds, text):
    """A length of time is written with two digits or more, in the largest unit it fills."""
    assert spelt_seconds(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023.6, "1 KiB"), (1536, "1.5 KiB"), (2**28, "256 MiB"), (2**50, "1,024 TiB")],
)
def test_sizes_have_the_unit_that_suits_them(size, text):
    """A size is written in the largest binary unit that it fills."""
    assert spelt_bytes(size) == text


@pytest.mark.parametrize("size", [(8, 4), (8, 1.6), (4, 3), (2, 2), (3, 8)], ids=str)
def test_figures_of_any_size(size):
    """In a figure of any size a chart is drawn without a warning; in a small one the legend is on the Axes."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()

    Plots(Asked("none", "disk", "memory", "memory")).hit_rate(ax=axes)
    figure.savefig(io.BytesIO())

    below = axes.get_legend().get_window_extent().y1 < axes.bbox.y0
    assert below == (size[0] >= 5)


def test_price_points_alone_were_warmed(make):
    """A warm-up of symbols without bars says how many points there were."""
    cache = make()
    for _ in range(3):
        cache.store_price("A", 1.0, 1)
    axes = cache.plot.warming(cache.warm("A", progress=False))

    assert "no bars were warmed (3 price points)" in said(axes)


def test_nothing_that_expires(make):
    """Where everything lives for ever, the chart of lives says so."""
    cache = make()
    cache.store_price("A", 1.0, 1)

    assert "nothing expires" in said(cache.plot.ttl())
