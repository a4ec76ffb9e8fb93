"""How often was a key asked for lately? A count-min sketch that forgets."""

ROWS = 4
CEILING = 255  # the largest count of one byte
SAMPLES = 10  # increments per counter before all counts are halved


class Frequency:
    """Approximate counts of how often keys were asked for, halved from time to time.

    A count-min sketch (Cormode and Muthukrishnan, 2005) with the ageing of TinyLFU (Einziger, Friedman and
    Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", 2017): the count of a key is the least of
    its counters, so collisions can only make it look more frequent, and old fame fades.

    Args:
        width: Counters in each of the four rows, a power of two; a byte each.
    """

    __slots__ = ("_left", "_mask", "_rows", "width")

    def __init__(self, width: int = 1024) -> None:
        self.width = width
        self._mask = width - 1
        self._rows = tuple(bytearray(width) for _ in range(ROWS))
        self._left = width * SAMPLES

    def add(self, hashed: int) -> None:
        """Count one request for the key with this hash."""
        one, two, three, four = self._rows
        mask = self._mask
        spread = hashed * 0x9E3779B97F4A7C15
        for row, at in (
            (one, hashed & mask),
            (two, (spread >> 20) & mask),
            (three, (spread >> 36) & mask),
            (four, (spread >> 52) & mask),
        ):
            if row[at] < CEILING:
                row[at] += 1
        self._left -= 1
        if self._left <= 0:
            self._age()

    def count(self, hashed: int) -> int:
        """Return how often the key with this hash was asked for, lately and roughly."""
        one, two, three, four = self._rows
        mask = self._mask
        spread = hashed * 0x9E3779B97F4A7C15
        return min(
            one[hashed & mask],
            two[(spread >> 20) & mask],
            three[(spread >> 36) & mask],
            four[(spread >> 52) & mask],
        )

    @property
    def nbytes(self) -> int:
        """Memory of the counters, in bytes."""
        return ROWS * self.width

    def _age(self) -> None:
        halves = bytes(n // 2 for n in range(256))
        for row in self._rows:
            row[:] = row.translate(halves)
        self._left = self.width * SAMPLES // 2
