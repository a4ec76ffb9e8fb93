"""Which copies of a folder's entries, on a server that others write to, may still be trusted?"""

import logging
import os
import platform
import secrets
import uuid
from pathlib import Path
from typing import NamedTuple

import xxhash
from pydantic import TypeAdapter, ValidationError

from tradecache.stores.disk import replace_private

FILE = "shared-memory.json"

log = logging.getLogger("tradecache")


class Stamp(NamedTuple):
    """Which folder a copy was made of, and since when what was copied is trusted."""

    folder: str
    since: str


_FORM = TypeAdapter(Stamp)


class TrustMark:
    """A folder's mark, which each copy of an entry carries. Where it is renewed, older copies count for nothing.

    It is renewed by who has deleted an entry and could not tell the server. Every process that uses the folder sees
    that with its next look, which costs a microsecond. Where it cannot be written, it is renewed for this process alone.

    Args:
        folder: The folder; None for a store without one, whose copies are always trusted.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / FILE
        self._seen: tuple[int, int] | None = None
        self._is_own = False
        """Whether the mark could not be written, so that this process has one that the others do not see."""
        self._stamp = Stamp(folder="", since="")

    def stamp(self) -> Stamp:
        """Return the mark as it is now."""
        if self._path is None or self._is_own:
            return self._stamp
        try:
            status = os.stat(self._path)  # noqa: PTH116 - half the cost
            seen = status.st_mtime_ns, status.st_ino
            if seen != self._seen:
                self._stamp, self._seen = _FORM.validate_json(self._path.read_bytes()), seen
        except (OSError, ValidationError):  # there is none yet, it is damaged, or may not be read
            self._renew(self._path)
        return self._stamp

    def trusts(self, stamp: Stamp) -> bool:
        """Whether a copy with this stamp is trusted: one of another folder always is."""
        mine = self.stamp()
        return stamp.folder != mine.folder or stamp.since == mine.since

    def renew(self) -> None:
        """Let no copy count that was made before."""
        if self._path is not None:
            self.stamp()  # which may know another folder by now
            self._renew(self._path)

    def _renew(self, path: Path) -> None:
        self._stamp, self._seen = Stamp(_id_of(path.parent), since=secrets.token_hex(8)), None
        try:
            replace_private(path, _FORM.dump_json(self._stamp))
            self._is_own = False
        except OSError as error:
            self._is_own = True
            log.debug("the mark of copies in %s cannot be written: %s", path.parent, error)


def _id_of(folder: Path) -> str:
    """Return what tells a folder from those elsewhere: the same one also when its mark was lost, or all of it."""
    whole = f"{platform.node()} {uuid.getnode()} {os.path.realpath(folder)}"
    return xxhash.xxh3_64_hexdigest(whole.encode("utf-8", "surrogateescape"))
