"""How is an object shown in a notebook?

As a table in the page's own colours, so that it can be read in a light and in a dark theme; there is no script and
no style sheet, and every value is escaped. Nothing is read, and nothing may raise: that would fail the cell.
"""

from html import escape

from pydantic import BaseModel, ByteSize

from tradecache.glance import Glance
from tradecache.units import counted, spelt_bytes, spelt_rate, spelt_seconds

CELL = "text-align:left;vertical-align:top;padding:.2em .6em"
FAINT = "opacity:.65"
FRAME = "display:inline-block;width:6em;height:.7em;margin-right:.6em;border:1px solid"
FILLING = "display:block;height:100%;background:currentColor;opacity:.6"
MINUTE = 60.0


def cache_card(where: str, *, source: str, seen: Glance, is_closed: bool) -> str:
    """Return the card of a cache: where it is, what each tier holds and answered, and how often it was hit.

    Args:
        where: The folder.
        source: The name of the source that it asks for bars.
        seen: What it holds and was asked.
        is_closed: Whether it is.
    """
    tiers = seen.reads.tiers
    faults = f"{counted(tiers['error'], 'error')}, {counted(seen.reads.stale, 'stale answer')}"
    rows = [
        _row("memory", _bar(seen) + escape(f"{seen.memory}, {counted(tiers['memory'], 'hit')}")),
        _row("disk", escape(_asked_disk(seen))),
        _row("source", escape(f"{source}, {counted(tiers['source'], 'fetch', 'fetches')}")),
        _row("in all", escape(f"{seen.rate}, {faults}")),
    ]
    if tiers["team"]:
        rows.insert(2, _row("team", escape(counted(tiers["team"], "hit"))))
    return _card(f"<b>TradeCache</b> {escape(where)}{' (closed)' if is_closed else ''}", rows)


def settings_card(settings: BaseModel) -> str:
    """Return the card of some settings: what each is set to, and where that is not the default, the default."""
    rows = []
    for name, field in type(settings).model_fields.items():
        value, usual = getattr(settings, name), field.get_default(call_default_factory=True)
        shown = escape(_spelt(value))
        if name in settings.model_fields_set and value != usual:
            rows.append(_row(name, f"<b>{shown}</b>", f"<b>changed</b>, default: {escape(_spelt(usual))}"))
        else:
            rows.append(_row(name, shown, f"<span style='{FAINT}'>default</span>"))
    return _card("<b>Settings</b>", rows)


def _card(title: str, rows: list[str]) -> str:
    """Return a table; its title and its rows are HTML already."""
    caption = f"<caption style='{CELL};caption-side:top'>{title}</caption>"
    card = f"<table>{caption}<tbody>{''.join(rows)}</tbody></table>"
    return card.encode(errors="replace").decode()  # a folder's name may hold what UTF-8 cannot


def _row(name: str, *cells: str) -> str:
    """Return a row of a table; its cells are HTML already."""
    row = "".join(f"<td style='{CELL}'>{cell}</td>" for cell in cells)
    return f"<tr><th scope='row' style='{CELL}'>{escape(name)}</th>{row}</tr>"


def _asked_disk(seen: Glance) -> str:
    hits = seen.reads.tiers["disk"]
    asked = seen.reads.requests - seen.reads.tiers["memory"]  # for all that memory cannot answer
    rate = f", {spelt_rate(hits, asked)}" if asked else ""
    return f"{counted(hits, 'hit')} of {counted(asked, 'request')}{rate}"


def _bar(seen: Glance) -> str:
    """Draw how full the memory is; the words beside it say the same."""
    share = min(1.0, seen.memory_bytes / seen.max_memory_bytes)
    filling = f"<span style='{FILLING};width:{share:.0%}'></span>"
    return f"<span aria-hidden='true' style='{FRAME}'>{filling}</span>"


def _spelt(value: object) -> str:
    """Spell a setting; a float is a time in seconds. A secret's own `str` hides it.

    >>> _spelt(ByteSize(268435456)), _spelt(5400.0), _spelt(0.05)
    ('268,435,456 bytes (256 MiB)', '5,400 s (1.5 h)', '0.05 s')
    """
    if isinstance(value, ByteSize):
        return f"{int(value):,} bytes ({spelt_bytes(value)})"
    if isinstance(value, float):
        longer = f" ({spelt_seconds(value)})" if value >= MINUTE else ""
        return f"{value:,.12g} s{longer}"
    return str(value)
