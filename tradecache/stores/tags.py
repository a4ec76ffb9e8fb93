"""How is it known, also without a key, that a value or a folder is encrypted, and under which key?

What is said of a sealed value in clear stands at its beginning, always in the same bytes: the ledger, which knows
no JSON, lets in and finds what begins so.
"""

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic_core import to_json

from tradecache.errors import WrongKey
from tradecache.stores.values import FRAME

CARD = "encryption.json"
"""The file in which a folder says that it is encrypted."""

VERSION, KEY, HASHED, TOKEN = "__encryption_version__", "__key__", "__hashed__", "__encrypted_data__"
FIELDS = frozenset({VERSION, KEY, HASHED, TOKEN})
"""What a sealed value holds, besides a frame."""

FORM = 1  # of sealed values: what py-key-value calls their encryption version
ID_DIGITS = 16  # of a key's id, in hex
START = to_json({VERSION: FORM, KEY: ""})[:-2]
"""How every sealed value begins: what follows is the id of its key."""


class Tag(NamedTuple):
    """What is said of a sealed value in clear: the id of its key, and whether its name is hidden."""

    key_id: str
    hashed: bool

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Self:
        """Return the tag of a sealed value.

        Raises:
            ValueError: When that is no sealed value of ours.
        """
        if not FIELDS <= value.keys() <= FIELDS | {FRAME} or {type(value[KEY]), type(value[TOKEN])} != {str}:
            raise ValueError("it is not sealed")
        if type(value[VERSION]) is not int or value[VERSION] != FORM:
            raise ValueError("it is sealed in a version that is not ours")
        if type(value[HASHED]) is not int or value[HASHED] not in {0, 1}:
            raise ValueError("it does not say whether its name is hidden")
        return cls(value[KEY], bool(value[HASHED]))

    def spelt(self, token: bytes) -> dict[str, Any]:
        """Return a sealed value with this tag."""
        return {**self._clear(), TOKEN: token.decode()}

    def start(self) -> bytes:
        """Return how a value with this tag begins in the ledger."""
        return to_json(self._clear())[:-1] + b","

    def _clear(self) -> dict[str, Any]:
        return {VERSION: FORM, KEY: self.key_id, HASHED: int(self.hashed)}


TAG_BYTES = len(Tag("0" * ID_DIGITS, hashed=False).start())


def tag_of(text: object) -> Tag | None:
    """Return the tag of a value as the ledger holds it; None for one that is not sealed."""
    if not isinstance(text, bytes):
        return None
    key_id = text[len(START) : len(START) + ID_DIGITS].decode("ascii", "replace")
    tags = (Tag(key_id, hashed) for hashed in (False, True))
    return next((tag for tag in tags if text[:TAG_BYTES] == tag.start()), None)


def is_encrypted(folder: Path) -> bool:
    """Whether a folder says of itself that it is encrypted."""
    return os.path.exists(folder / CARD)  # noqa: PTH110 - no error where it may not be looked: opening it names that


def locked(folder: Path) -> WrongKey:
    """Return the error for an encrypted folder where no key is given."""
    return WrongKey(folder, "is encrypted: set encryption_key or TRADECACHE_ENCRYPTION_KEY")


class Keyless:
    """Guards the ledger of who has no key: it is left alone from the moment in which its folder is encrypted."""

    def admit(self, folder: Path) -> None:
        """Refuse an encrypted folder.

        Raises:
            WrongKey: Where it is one, also by now.
        """
        if is_encrypted(folder):
            raise locked(folder)

    def trigger(self, folder: Path) -> str:  # noqa: ARG002
        """Return nothing: anything may be entered."""
        return ""

    def settle(self, folder: Path, connection: sqlite3.Connection) -> None:
        """Do nothing."""
