"""What do the tiers look like, and what are they called, wherever people see them?"""

from typing import NamedTuple


class Look(NamedTuple):
    """A colour that every eye can tell from the others, a hatch for print, and words for a read that it served."""

    colour: str
    hatch: str
    label: str


SERVED = {  # Okabe and Ito's colours, grey and black
    "memory": Look("#0072B2", "", "from memory"),
    "disk": Look("#E69F00", "//", "from disk"),
    "team": Look("#56B4E9", "--", "from the team"),
    "source": Look("#009E73", "\\\\", "fetched"),
    "none": Look("#BBBBBB", "..", "missed"),
    "error": Look("#000000", "xx", "failed"),
}
STYLED = ("memory", "disk", "source", "none", "error", "team")
"""In which order they take the styles of lines."""
