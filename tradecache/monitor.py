"""What does a cache do right now? A widget that shows it while cells run."""

import atexit
import functools
import time
import weakref
from collections import deque
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import anywidget
import traitlets

from tradecache.bridge import shared_bridge
from tradecache.cache import TradingDataCache
from tradecache.errors import InvalidInput
from tradecache.glance import Glance, glance_at
from tradecache.panel import STYLE, drawn

SHORTEST, LONGEST = 0.05, 60.0  # seconds between two looks
MOST_RECENT = 50
TICKS = 120  # how many looks back the line reaches
QUIET = 3.0  # seconds without a change after which plain HTML stands where the widget was
VIEW = "application/vnd.jupyter.widget-view+json"


class Monitor(anywidget.AnyWidget):
    """Hit rate, tiers and the last requests of a cache, a few times a second.

    It looks from the background, so it goes on while a cell runs, and sends only what has changed. When nothing
    has changed for three seconds, plain HTML that looks the same takes its place until something does: this is what
    a saved notebook shows, also where no widget can be. It stops with the cache, or by `stop`.

    Args:
        cache: Whose; it is not kept alive by this.
        every: Seconds between two looks, 0.05 to 60.
        recent: How many of the last requests are shown, 0 to 50.
        clock: Seconds, for how long it has been quiet.

    Raises:
        InvalidInput: Naming the argument.
    """

    _esm = files("tradecache").joinpath("monitor.js").read_text("utf-8")
    _css = files("tradecache").joinpath("monitor.css").read_text("utf-8") + STYLE
    drawn = traitlets.Unicode().tag(sync=True)
    """What is shown, as HTML."""
    is_stopped = True
    """Whether it looks no more. Also of one whose arguments were refused: a widget is closed when it is let go of."""

    def __init__(
        self,
        cache: TradingDataCache,
        *,
        every: float = 0.25,
        recent: int = 8,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _check("every", every, SHORTEST, LONGEST, kind=(int, float))
        _check("recent", recent, 0, MOST_RECENT, kind=int)
        super().__init__()
        self._glance: Callable[[], Glance] = functools.partial(
            glance_at, cache.telemetry, cache.stack.memory.occupancy, recent=recent
        )  # not of the cache itself, which it must not keep alive
        self.seen = self._glance()
        """What was seen last."""
        self.is_stopped = False
        self._cache = weakref.ref(cache)
        self._line: deque[float] = deque(maxlen=TICKS)
        self._clock = clock
        self._changed = clock()
        self._places: list[Any] = []
        self._is_plain = False
        self._draw()
        self._stop = shared_bridge().every(every, self._look_again)
        self._gone = weakref.finalize(cache, self._stop)
        _live.add(self)

    def look(self) -> None:
        """Show how things are now; with the cache gone or closed, stop."""
        if self.is_stopped:
            return
        now = self._clock()
        before, self.seen = self.seen, self._glance()
        if self.seen != before:
            self._changed = now
            self._line += self.seen.rates_since(before)
            self._draw()
        self._place(is_plain=now - self._changed > QUIET)
        cache = self._cache()
        if cache is None or cache.is_closed:
            self._end()

    def stop(self) -> None:
        """Stop looking; the last state stays, as plain HTML."""
        self.look()
        self._end()

    def close(self) -> None:
        """Stop looking, and take the widget away."""
        self.stop()
        super().close()

    async def _look_again(self) -> None:
        self.look()

    def _draw(self) -> None:
        self.drawn = drawn(self.seen, list(self._line), is_live=not self.is_stopped)

    def _place(self, *, is_plain: bool) -> None:
        """Have the widget in each of its places in the notebook, or plain HTML."""
        if is_plain != self._is_plain:
            self._is_plain = is_plain
            for place in self._places:
                place.update(self.bundle(), raw=True)

    def _end(self) -> None:
        if self.is_stopped:
            return
        self.is_stopped = True
        self._gone.detach()
        self._glance = functools.partial(_same, self.seen)  # lets go of what memory holds
        _live.discard(self)
        self._stop()
        self._draw()
        self._is_plain = False  # so that what stands there is drawn anew
        self._place(is_plain=True)

    def bundle(self) -> dict[str, Any]:
        """Return what stands in a notebook, by MIME type: while it moves the widget, and always its HTML and text."""
        live = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        css = f"<style>{self._css}</style>"
        plain = {"text/html": css + self.drawn, "text/plain": repr(self)}
        return plain if self._is_plain else {VIEW: live} | plain

    def _ipython_display_(self) -> None:
        """Show it, in a place whose contents can be replaced."""
        from IPython.display import display

        self._place(is_plain=self.is_stopped)
        place = display(self.bundle(), raw=True, display_id=True)
        if place is not None:
            self._places.append(place)

    def __repr__(self) -> str:
        """Say what it shows."""
        return f"<Monitor {self.seen.rate}{', stopped' if self.is_stopped else ''}>"


def _same(seen: Glance) -> Glance:
    return seen


_live: "weakref.WeakSet[Monitor]" = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Stop what goes on while there still is somebody to send its last state to."""
    for monitor in list(_live):
        monitor.stop()


def _check(name: str, value: object, least: float, most: float, *, kind: Any) -> None:
    """Raise InvalidInput unless `value` is a number between two others."""
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:  # type: ignore[operator]  # it is one
        kinds = "a whole number" if kind is int else "a number"
        raise InvalidInput(name, value, f"{kinds} from {least:g} to {most:g}")
