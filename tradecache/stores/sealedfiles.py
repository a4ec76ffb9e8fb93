"""How are payloads kept encrypted, each bound to its entry?"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from tradecache.errors import UnknownKey
from tradecache.stores.arrow import Content, Writable
from tradecache.stores.cipher import HEADER, Sealing, Unreadable, belonging_to, first_header, opened
from tradecache.stores.keyring import Keyring
from tradecache.stores.payloads import SEALED, TEMPORARY, DamagedPayload, Mapped, Owner, Payload


class SealedFiles:
    """The form of payloads that are encrypted; no others are read.

    Args:
        ring: The keys: with the first one files are sealed, and all of them open what they can.
        wrong_key: Returns the error to raise for a file under a key that was not given, by the key's id; None
            for one that counts as damaged.
    """

    suffix = SEALED
    is_mapped = False

    def __init__(self, ring: Keyring, *, wrong_key: Callable[[str], Exception | None] | None = None) -> None:
        self._ring = ring
        self._wrong_key = wrong_key

    def check(self, path: str) -> None:
        """Refuse a file that is not encrypted.

        Raises:
            DamagedPayload: For it was planted.
        """
        if not path.endswith(SEALED):
            raise DamagedPayload("it is not encrypted")

    def fill(self, file: Writable, owner: Owner, write: Callable[[Writable], None]) -> None:
        """Encrypt what is written into the file."""
        sealing = Sealing(self._ring.first, belonging_to(*owner), file.write)
        write(sealing)
        sealing.finish()

    def opened(self, content: Mapped, payload: Payload, owner: Owner, *, is_known: bool) -> Content:  # noqa: ARG002
        """Decrypt a file; what it is authenticated by says more than its checksum, each time.

        Raises:
            DamagedPayload: When it is not what was written for this owner.
        """
        try:
            return opened(content, self._ring, belonging_to(*owner))
        except UnknownKey as error:
            refusal = self._wrong_key(error.id) if self._wrong_key is not None else None
            raise refusal or DamagedPayload(str(error)) from None
        except Unreadable as error:
            raise DamagedPayload(str(error)) from None


def key_of(path: Path) -> str | None:
    """Return the id of the key that a file is sealed under, also before all of it is written; None for others."""
    if SEALED not in path.name:
        return None
    try:
        with path.open("rb") as file:
            return first_header(file.read(HEADER.size)).key_id
    except (OSError, Unreadable):
        return None


def is_begun(path: Path, *, within: float) -> bool:
    """Whether a writer may be about to write the header of a sealed file, which he made in the last `within` seconds."""
    if not path.name.endswith(SEALED + TEMPORARY):
        return False
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_size < HEADER.size and status.st_mtime > time.time() - within
    return False
