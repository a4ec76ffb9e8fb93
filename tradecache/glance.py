"""What can be seen of a cache at a glance, without asking its folder?"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tradecache.telemetry import Event, Reads, Telemetry
from tradecache.units import counted, spelt_bytes, spelt_rate


class Glance(NamedTuple):
    """The reads of a cache, what its memory tier holds (bytes, the bound, entries), and its last requests."""

    reads: Reads
    memory_bytes: int
    max_memory_bytes: int
    memory_entries: int
    recent: list[Event]
    """The newest first."""

    @property
    def memory(self) -> str:
        """What memory holds, in words."""
        size = f"{spelt_bytes(self.memory_bytes)} of {spelt_bytes(self.max_memory_bytes)}"
        return f"{size}, {counted(self.memory_entries, 'entry', 'entries')}"

    @property
    def rate(self) -> str:
        """How often it was asked and hit, in words."""
        reads = self.reads
        if not reads.requests:
            return "no requests yet"
        return f"{counted(reads.requests, 'request')}, {spelt_rate(reads.hits, reads.requests)} hits"

    def rates_since(self, before: "Glance") -> list[float]:
        """Return the hit rate of the reads since an earlier glance, if there were any, in a list."""
        now, then = self.reads, before.reads
        asked, served = now.requests - then.requests, now.hits - then.hits
        if asked < 0:  # the counters were reset meanwhile
            asked, served = now.requests, now.hits
        return [served / asked] if asked else []


def glance_at(telemetry: Telemetry, occupancy: Callable[[], Mapping[str, int]], *, recent: int = 0) -> Glance:
    """Return what there is to see, with the newest few requests.

    Args:
        telemetry: What was counted.
        occupancy: The memory tier's `occupancy`.
        recent: How many requests.
    """
    memory = occupancy()
    sizes = memory["bytes"], memory["max_bytes"], memory["entries"]
    return Glance(telemetry.reads(), *sizes, telemetry.last_events(recent))
