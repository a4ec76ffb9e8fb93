"""How often was a key asked for lately? A count-min sketch that forgets."""

CEILING = 15  # the largest count: beyond it, more often is not more worth keeping
WIDTH = 1 << 14
ROWS = 4
_HALVES = bytes(n // 2 for n in range(256))


class Frequency:
    """Approximate counts of how often keys were asked for, halved from time to time.

    A count-min sketch (Cormode and Muthukrishnan, 2005) with the ageing of TinyLFU (Einziger, Friedman and
    Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", 2017): the count of a key is the least of
    its counters, so collisions can only make it look more frequent, and old fame fades.

    Args:
        width: Counters in each of the four rows, a power of two; a byte each.
    """

    __slots__ = ("_mask", "_rows", "width")

    def __init__(self, width: int = WIDTH) -> None:
        self.width = width
        self._mask = width - 1
        self._rows = tuple(bytearray(width) for _ in range(ROWS))

    def add(self, hashed: int) -> int:
        """Count one request for the key with this hash; return its count before."""
        before = CEILING
        for row, at in zip(self._rows, self._places(hashed), strict=True):
            count = row[at]
            if count < CEILING:
                row[at] = count + 1
            before = min(before, count)
        return before

    def count(self, hashed: int) -> int:
        """Return how often the key with this hash was asked for, lately and roughly."""
        return min(row[at] for row, at in zip(self._rows, self._places(hashed), strict=True))

    def halve(self) -> None:
        """Forget half of what was counted."""
        for row in self._rows:
            row[:] = row.translate(_HALVES)

    @property
    def nbytes(self) -> int:
        """Memory of the counters, in bytes."""
        return ROWS * self.width

    def _places(self, hashed: int) -> tuple[int, int, int, int]:
        mask, spread = self._mask, hashed * 0x9E3779B97F4A7C15
        return hashed & mask, (spread >> 20) & mask, (spread >> 36) & mask, (spread >> 52) & mask
