"""What are collections and keys called on a server, so that no two are one there, and each store takes them?

Not as files are (`payloads.safe_name`): stores differ in what they take, a percent sign is not for all of them, and a
long name has to be told from every other one, since nothing else tells entries apart.
"""

import hashlib
import re
from functools import lru_cache

from key_value.aio.protocols.key_value import AsyncKeyValue

from tradecache.stores.mapped import Address, Mapped

PREFIX = "tradecache."
"""How the names of our collections begin on a server."""
LONGEST = 120  # bytes; longer ones are told by their hash
_UNSAFE = re.compile(rb"[^A-Za-z0-9.-]")


@lru_cache(maxsize=10_000)
def server_name(text: str) -> str:
    """Return a name of letters, digits, dots, hyphens and underscores: another one for each text.

    >>> server_name("symbol:BTC/USDT"), server_name("a_b")
    ('symbol_3ABTC_2FUSDT', 'a_5Fb')
    """
    raw = text.encode("utf-8", "surrogatepass")
    name = _UNSAFE.sub(lambda found: b"_" + found[0].hex().upper().encode(), raw)
    if len(name) > LONGEST:
        return f"_x{hashlib.sha256(raw).hexdigest()}"  # what is escaped never has an x there
    return name.decode("ascii")


class SafeNames(Mapped):
    """Gives a store names that it cannot mistake for others: "a::b" and "c" are not "a" and "b::c".

    Args:
        key_value: The store.
        prefix: What every collection's name begins with.
    """

    def __init__(self, key_value: AsyncKeyValue, *, prefix: str = PREFIX) -> None:
        super().__init__(key_value)
        self._prefix = prefix

    def at(self, address: Address) -> Address:
        """Return the names that collection and key have in the store."""
        collection, key = address
        return self._prefix + server_name(collection), server_name(key)
