"""How is an object shown in a notebook?

As a table in the page's own colours, so that it can be read in a light and in a dark theme; there is no script and
no style sheet, and every value is escaped. Nothing is read, and nothing may raise: that would fail the cell.
"""

from collections import Counter
from collections.abc import Mapping
from html import escape

from pydantic import BaseModel, ByteSize

from tradecache.telemetry import READS, Counts, Key

MIB = 1024**2
UNITS = {"d": 86400.0, "h": 3600.0, "min": 60.0}
CELL = "text-align:left;vertical-align:top;padding:.2em .6em"
FAINT = "opacity:.65"
FRAME = "display:inline-block;width:6em;height:.7em;margin-right:.6em;border:1px solid"
FILLING = "display:block;height:100%;background:currentColor;opacity:.6"


def cache_card(
    where: str,
    *,
    source: str,
    rate: str,
    is_closed: bool,
    memory: Mapping[str, int],
    counts: Mapping[Key, Counts],
) -> str:
    """Return the card of a cache: where it is, what each tier holds and answered, and how often it was hit.

    Args:
        where: The folder.
        source: The name of the source that it asks for bars.
        rate: Requests and hits, in words.
        is_closed: Whether it is.
        memory: The memory tier's `occupancy()`.
        counts: The telemetry's `counts()`.
    """
    reads, stale = _reads(counts)
    faults = f"{_counted(reads['error'], 'error')}, {_counted(stale, 'stale answer')}"
    rows = [
        _row("memory", _bar(memory) + escape(f"{_held(memory)}, {_counted(reads['memory'], 'hit')}")),
        _row("disk", escape(_asked_disk(reads))),
        _row("source", escape(f"{source}, {_counted(reads['source'], 'fetch', 'fetches')}")),
        _row("in all", escape(f"{rate}, {faults}")),
    ]
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


def _reads(counts: Mapping[Key, Counts]) -> tuple[Counter[str], int]:
    """Return how many reads each tier answered, and how many answers were stale."""
    reads: Counter[str] = Counter()
    stale = 0
    for key, count in counts.items():
        if key.operation in READS:
            reads[key.tier] += count.requests
            stale += count.requests * key.is_stale
    return reads, stale


def _asked_disk(reads: Counter[str]) -> str:
    hits, asked = reads["disk"], reads.total() - reads["memory"]  # for all that memory cannot answer
    rate = f", {hits / asked:.1%}" if asked else ""
    return f"{_counted(hits, 'hit')} of {_counted(asked, 'request')}{rate}"


def _bar(memory: Mapping[str, int]) -> str:
    """Draw how full the memory is; the words beside it say the same."""
    share = min(1.0, memory["bytes"] / memory["max_bytes"])
    filling = f"<span style='{FILLING};width:{share:.0%}'></span>"
    return f"<span aria-hidden='true' style='{FRAME}'>{filling}</span>"


def _held(memory: Mapping[str, int]) -> str:
    size = f"{memory['bytes'] / MIB:,.1f} of {memory['max_bytes'] / MIB:,.1f} MiB"
    return f"{size}, {_counted(memory['entries'], 'entry', 'entries')}"


def _counted(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _spelt(value: object) -> str:
    """Spell a setting. A secret's own `str` hides it.

    >>> _spelt(ByteSize(268435456)), _spelt(5400.0), _spelt(0.05)
    ('268,435,456 bytes (256 MiB)', '5,400 s (1.5 h)', '0.05 s')
    """
    if isinstance(value, ByteSize):
        return f"{int(value):,} bytes ({_rounded(value / MIB)} MiB)"
    if isinstance(value, float):  # every setting that is one is a time
        return f"{value:,.12g} s{_longer(value)}"
    return str(value)


def _longer(seconds: float) -> str:
    """Spell a time in the longest unit that it fills, "" below a minute."""
    unit = next((name for name, length in UNITS.items() if seconds >= length), None)
    return f" ({_rounded(seconds / UNITS[unit])} {unit})" if unit else ""


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"  # noqa: PLR2004 - four digits either way, or more
