"""Which copies of a folder's entries, on a server that others write to, may still be trusted?"""

import os
import secrets
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from tradecache.stores.disk import replace_private

FILE = "shared-memory.json"


class Stamp(NamedTuple):
    """Which folder a copy was made of, and since when what was copied is trusted."""

    folder: str
    since: str


_FORM = TypeAdapter(Stamp)


class TrustMark:
    """A folder's mark, which each copy of an entry carries. Where it is renewed, older copies count for nothing.

    It is renewed by who has deleted an entry and could not tell the server. Every process that uses the folder sees
    that with its next look, which costs a microsecond.

    Args:
        folder: The folder; None for a store without one, whose copies are always trusted.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / FILE
        self._seen: tuple[int, int] | None = None
        self._stamp = Stamp(folder="", since="")
        if self._path is not None and not self._path.exists():
            self._write(Stamp(folder=secrets.token_hex(8), since=secrets.token_hex(8)))

    def stamp(self) -> Stamp:
        """Return the mark as it is now."""
        if self._path is None:
            return self._stamp
        try:
            status = os.stat(self._path)  # noqa: PTH116 - half the cost
        except FileNotFoundError:  # somebody has cleared the folder away
            self._write(Stamp(folder=secrets.token_hex(8), since=secrets.token_hex(8)))
            return self._stamp
        seen = status.st_mtime_ns, status.st_ino
        if seen != self._seen:
            self._read(seen)
        return self._stamp

    def trusts(self, stamp: Stamp) -> bool:
        """Whether a copy with this stamp is trusted: one of another folder always is."""
        mine = self.stamp()
        return stamp.folder != mine.folder or stamp.since == mine.since

    def renew(self) -> None:
        """Let no copy count that was made before."""
        if self._path is not None:
            self._write(Stamp(folder=self.stamp().folder, since=secrets.token_hex(8)))

    def _read(self, seen: tuple[int, int]) -> None:
        assert self._path is not None  # noqa: S101 - told to the type checker
        try:
            self._stamp = _FORM.validate_json(self._path.read_bytes())
        except ValidationError:  # damaged
            self._write(Stamp(folder=secrets.token_hex(8), since=secrets.token_hex(8)))
            return
        self._seen = seen

    def _write(self, stamp: Stamp) -> None:
        assert self._path is not None  # noqa: S101 - told to the type checker
        replace_private(self._path, _FORM.dump_json(stamp))
        self._stamp, self._seen = stamp, None
