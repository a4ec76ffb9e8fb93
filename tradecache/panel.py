"""How is a glance at a cache drawn, in HTML?"""

import time
from collections.abc import Iterator, Sequence
from html import escape

from tradecache.glance import Glance
from tradecache.palette import SERVED
from tradecache.telemetry import Event
from tradecache.units import counted, spelt_rate

WIDTH, HEIGHT = 160, 36  # of the line, in pixels
HEADS = ("time (UTC)", "operation", "dataset", "symbol", "tier", "outcome", "rows", "ms")
NUMBERS = {"rows", "ms"}

STYLE = "\n".join(f".tradecache-{tier} {{ background: {look.colour}; }}" for tier, look in SERVED.items())
"""The colours of the tiers, as a style sheet."""


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
    reads = seen.reads
    stale = f", {reads.stale:,} of them stale" if reads.stale else ""
    words = f"<div>hits of {counted(reads.requests, 'request')}{stale}</div>"
    memory = f'<div class="tradecache-faint">{seen.memory} in memory</div>'
    state = "● live" if is_live else "■ stopped"
    return (
        '<div class="tradecache-head">'
        f'<span class="tradecache-rate">{spelt_rate(reads.hits, reads.requests)}</span>'
        f'<div>{words}{memory}</div>{_line(rates)}<span class="tradecache-faint">{state}</span></div>'
    )


def _line(rates: Sequence[float]) -> str:
    step = WIDTH / max(len(rates) - 1, 1)
    points = " ".join(
        f"{place * step:.1f},{HEIGHT - 2 - rate * (HEIGHT - 4):.1f}" for place, rate in enumerate(rates)
    )
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="hit rate of the last looks"'
    return f'<svg class="tradecache-line" {box}><polyline points="{points}"/></svg>'


def _tiers(seen: Glance) -> str:
    most = max(seen.reads.requests, 1)
    rows = (
        f'<tr><th>{look.label}</th><td class="tradecache-number">{seen.reads.tiers[tier]:,}</td><td>'
        f'<div class="tradecache-bar tradecache-{tier}" style="width:{seen.reads.tiers[tier] / most:.1%}"></div>'
        "</td></tr>"
        for tier, look in SERVED.items()
        if tier != "team" or seen.reads.tiers[tier]  # which most caches do not have
    )
    return f'<table class="tradecache-tiers">{"".join(rows)}</table>'


def _recent(events: Sequence[Event]) -> str:
    heads = "".join(_cell("th", name, name) for name in HEADS)
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
    return f"<{tag}{kind}>{escape(text)}</{tag}>"
