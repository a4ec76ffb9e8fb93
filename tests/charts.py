"""What the tests of charts ask: what is on these Axes?"""

import io

from clocks import FakeClock
from matplotlib.axes import Axes

from tradecache.clock import Clock
from tradecache.stats import events_frame, hit_rate_frame
from tradecache.telemetry import Telemetry


class Asked:
    """A cache that was asked once every `step` seconds, and answered as told: tiers, or (symbol, tier)."""

    def __init__(self, *answers: str | tuple[str, str], step: float = 1.0) -> None:
        wall = FakeClock()
        self.telemetry = Telemetry(Clock(wall).epoch)
        for answer in answers:
            symbol, tier = ("A", answer) if isinstance(answer, str) else answer
            self.telemetry.record("get", "prices", symbol, tier, 1, 24, 0.001)
            wall.advance(step)

    def hit_rate(self, window=None, *, by="tier", history=None):
        return hit_rate_frame(self.telemetry, window=window, by=by, history=history)

    def events(self):
        return events_frame(self.telemetry)


def heights(ax: Axes) -> list[list[float]]:
    return [[bar.get_height() for bar in bars] for bars in ax.containers]


def widths(ax: Axes) -> list[list[float]]:
    return [[bar.get_width() for bar in bars] for bars in ax.containers]


def legend(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def said(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def rows(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def drawn(ax: Axes) -> bytes:
    picture = io.BytesIO()
    ax.figure.savefig(picture, format="png")
    return picture.getvalue()
