"""What can be seen of a cache at a glance, and how is that drawn?"""

import html
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tradecache.cache import TradingDataCache
from tradecache.telemetry import HITS, READS, Event

MEBI = 1024**2
WIDTH, HEIGHT = 160, 36  # of the line, in pixels
LABELS = {
    "memory": "from memory",
    "disk": "from disk",
    "source": "fetched",
    "none": "missed",
    "error": "failed",
}
HEADS = ("time", "operation", "dataset", "symbol", "tier", "outcome", "rows", "ms")
NUMBERS = {"rows", "ms"}


class Glance(NamedTuple):
    """The counters of a cache, its memory tier, and its last requests."""

    tiers: dict[str, int]
    """How many reads each tier answered, see `LABELS`."""
    stale: int
    bytes: int
    max_bytes: int
    entries: int
    recent: list[Event]
    """The newest first."""

    @property
    def requests(self) -> int:
        """How many reads there were."""
        return sum(self.tiers.values())

    @property
    def hits(self) -> int:
        """How many of them memory or disk answered."""
        return sum(self.tiers[tier] for tier in HITS)

    @property
    def hit_rate(self) -> float | None:
        """Their share, None before the first read."""
        return self.hits / self.requests if self.requests else None

    def rates_since(self, before: "Glance") -> list[float]:
        """Return the hit rate of the reads since an earlier glance, if there were any, in a list."""
        asked, served = self.requests - before.requests, self.hits - before.hits
        if asked < 0:  # the counters were reset meanwhile
            asked, served = self.requests, self.hits
        return [served / asked] if asked else []


def glance_at(cache: TradingDataCache, *, recent: int) -> Glance:
    """Return what can be seen of a cache without asking its folder."""
    tiers, stale = dict.fromkeys(LABELS, 0), 0
    for key, counts in cache.telemetry.counts().items():
        if key.operation in READS:
            tiers[key.tier] += counts.requests
            stale += counts.requests * key.is_stale
    memory = cache.stack.memory.occupancy()
    sizes = memory["bytes"], memory["max_bytes"], memory["entries"]
    return Glance(tiers, stale, *sizes, cache.telemetry.last_events(recent))


def drawn(seen: Glance, rates: Sequence[float], *, is_live: bool) -> str:
    """Return a glance as HTML without scripts, its values escaped.

    Args:
        seen: What was seen.
        rates: Hit rates over the last looks, 0 to 1, for the line.
        is_live: Whether it goes on.
    """
    parts = [_head(seen, rates, is_live=is_live), _tiers(seen)]
    if seen.recent:
        parts.append(_recent(seen.recent))
    text = f'<div class="tradecache-monitor">{"".join(parts)}</div>'
    return text.encode(errors="replace").decode()  # a symbol may hold what UTF-8 cannot


def _head(seen: Glance, rates: Sequence[float], *, is_live: bool) -> str:
    rate = "\N{EN DASH}" if seen.hit_rate is None else f"{seen.hit_rate:.1%}"
    stale = f", {seen.stale:,} of them stale" if seen.stale else ""
    memory = (
        f"{seen.bytes / MEBI:,.1f} of {seen.max_bytes / MEBI:,.0f} MiB in memory, {seen.entries:,} entries"
    )
    words = (
        f"<div>hits of {seen.requests:,} requests{stale}</div><div class='tradecache-faint'>{memory}</div>"
    )
    state = "● live" if is_live else "■ stopped"
    return (
        f'<div class="tradecache-head"><span class="tradecache-rate">{rate}</span><div>{words}</div>'
        f'{_line(rates)}<span class="tradecache-faint">{state}</span></div>'
    )


def _line(rates: Sequence[float]) -> str:
    step = WIDTH / max(len(rates) - 1, 1)
    points = " ".join(
        f"{place * step:.1f},{HEIGHT - 2 - rate * (HEIGHT - 4):.1f}" for place, rate in enumerate(rates)
    )
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="hit rate of the last looks"'
    return f'<svg class="tradecache-line" {box}><polyline points="{points}"/></svg>'


def _tiers(seen: Glance) -> str:
    rows = (
        f'<tr><th>{label}</th><td class="tradecache-number">{seen.tiers[tier]:,}</td><td>'
        f'<div class="tradecache-bar tradecache-{tier}" style="width:{_percent(seen, tier):.1f}%"></div></td></tr>'
        for tier, label in LABELS.items()
    )
    return f'<table class="tradecache-tiers">{"".join(rows)}</table>'


def _percent(seen: Glance, tier: str) -> float:
    return 100 * seen.tiers[tier] / max(seen.requests, 1)


def _recent(events: Sequence[Event]) -> str:
    heads = "".join(_cell("th", name, "time (UTC)" if name == "time" else name) for name in HEADS)
    rows = "".join(f"<tr>{''.join(_cells(event))}</tr>" for event in events)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _cells(event: Event) -> Iterator[str]:
    """Return a request as cells; its time of day is UTC."""
    moment = time.strftime("%H:%M:%S", time.gmtime(event.time))
    values = (moment, event.operation, event.dataset, event.symbol, event.tier, event.outcome)
    texts = (*values, f"{event.rows:,}", f"{event.seconds * 1000:,.3f}")
    return (_cell("td", name, text) for name, text in zip(HEADS, texts, strict=True))


def _cell(tag: str, name: str, text: str) -> str:
    kind = ' class="tradecache-number"' if name in NUMBERS else ""
    return f"<{tag}{kind}>{html.escape(text)}</{tag}>"
