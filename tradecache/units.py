"""How are sizes, lengths of time and counts written for people?"""

MINUTE, HOUR, DAY, YEAR = 60.0, 3600.0, 86_400.0, 365 * 86_400.0
DURATIONS = {"y": YEAR, "d": DAY, "h": HOUR, "min": MINUTE, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
SIZES = {"TiB": 1024.0**4, "GiB": 1024.0**3, "MiB": 1024.0**2, "KiB": 1024.0}
ROUNDED = 0.9995
"""From which part of a unit on a value is written in it: 999.6 µs are 1 ms."""


def spelt_seconds(seconds: float) -> str:
    """Return a length of time in the unit that suits it.

    >>> spelt_seconds(14.2e-6), spelt_seconds(90), spelt_seconds(0)
    ('14 µs', '1.5 min', '0 s')
    """
    for unit, length in DURATIONS.items():
        if seconds >= length * ROUNDED:
            return f"{_rounded(seconds / length)} {unit}"
    return f"{seconds * 1e9:.1g} ns" if seconds else "0 s"


def spelt_bytes(size: float) -> str:
    """Return a size in the binary unit that suits it.

    >>> spelt_bytes(512), spelt_bytes(2654), spelt_bytes(256 * 2**20)
    ('512 B', '2.6 KiB', '256 MiB')
    """
    for unit, length in SIZES.items():
        if size >= length * ROUNDED:
            return f"{_rounded(size / length)} {unit}"
    return f"{size:,.0f} B"


def counted(count: int, one: str, several: str = "") -> str:
    """Return a count with its noun.

    >>> counted(1, "hit"), counted(1_200, "hit"), counted(2, "entry", "entries")
    ('1 hit', '1,200 hits', '2 entries')
    """
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def spelt_rate(hits: int, requests: int) -> str:
    """Return a hit rate in percent, a dash before the first request.

    >>> spelt_rate(2, 3)
    '66.7%'
    """
    return f"{hits / requests:.1%}" if requests else "\N{EN DASH}"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}".removesuffix(".0")  # noqa: PLR2004 - that is 10
