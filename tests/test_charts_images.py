"""Do the charts still look as they did? Pictures that are compared with `pytest --mpl`."""

from datetime import UTC, datetime

import numpy as np
import pytest
from charts import Asked
from matplotlib.figure import Figure

from tradecache.plots import Plots
from tradecache.stats import Warmed, warmed_frame

pictured = pytest.mark.mpl_image_compare(
    baseline_dir="baseline", remove_text=True, tolerance=10, style="default", savefig_kwargs={"dpi": 60}
)


def new_axes():
    return Figure(figsize=(8, 4), layout="constrained").subplots()


@pictured
def test_picture_of_hit_rate():
    """A cache that is warmed: stacked shares of all five kinds, and the line above the dark bars."""
    rng = np.random.default_rng(7)
    tiers = ["memory", "disk", "source", "none", "error"]
    shares = [[part * done for part in (0.7, 0.3)] + [part * (1 - done) for part in (0.7, 0.2, 0.1)]
              for done in np.linspace(0, 1, 600)]  # fmt: skip
    asked = [str(rng.choice(tiers, p=each)) for each in shares]
    return Plots(Asked(*asked)).hit_rate(window=20, ax=new_axes()).figure


@pictured
def test_picture_of_latency():
    """Five tiers, each with a line and two markers of its own."""
    rng = np.random.default_rng(7)
    cache = Asked()
    for power, tier in enumerate(["memory", "disk", "source", "none", "error"]):
        for seconds in rng.lognormal(power * 2 - 11, 0.7, 200):
            cache.telemetry.record("get", "prices", "A", tier, 1, 24, float(seconds))
    return Plots(cache).latency(ax=new_axes()).figure


@pictured
def test_picture_of_coverage(make, clock):
    """Three stocks, of which one came late and one was never asked for, over a longer range than is stored."""
    clock.now = datetime(2013, 6, 3, tzinfo=UTC)
    cache = make("sample")
    cache.bars(["GOOG", "IBM"], "2003-01-01", "2009-12-31")
    cache.bars("IBM", "2011-01-01", "2012-12-31")
    symbols = ["GOOG", "IBM", "MSFT"]
    return cache.plot.coverage(symbols, start="2002-01-01", end="2013-05-31", ax=new_axes()).figure


@pictured
def test_picture_of_warming():
    """A cold and a second warm-up of two stocks, and one symbol that nobody knows."""
    cold = [Warmed("IBM", 0, 0, 3270, 1, 0.4, ""), Warmed("FB", 0, 50, 150, 1, 0.3, "")]
    warm = [Warmed("IBM", 0, 3270, 0, 0, 0.01, ""), Warmed("FB", 0, 200, 100, 1, 0.2, "")]
    fault = Warmed("ZZZ", 0, 0, 0, 1, 0.1, "UnknownSymbol: no 'ZZZ'")
    before, after = warmed_frame([*cold, fault]), warmed_frame([*warm, fault])
    return Plots(Asked()).warming(before, after, ax=new_axes()).figure
