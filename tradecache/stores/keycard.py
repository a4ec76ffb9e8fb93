"""Under which keys is a folder encrypted, and how does its ledger take nothing else?

`encryption.json` beside the ledger lists the ids of the keys in use, each with a check value and with the
secret that names are hidden with, encrypted under that key. A trigger in the ledger refuses whatever is not
encrypted under one of them, also from a process that has opened the folder before it was encrypted.
"""

import contextlib
import json
import os
import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tradecache.errors import WrongKey
from tradecache.stores.disk import replace_private
from tradecache.stores.keyring import BYTES, Key, Keyring
from tradecache.stores.tags import CARD, START, TAG_BYTES, Tag

LOCK = "encryption.lock"
PLAIN, NAMES, LOST = "plain", "names", "lost"
"""What a `rekey` that has not ended may still have to do: encrypt plain entries, change names, also those whose
secret was lost."""
VERSION = 1
TRIGGER = "sealed"
REFUSAL = (
    "this folder takes only entries that are encrypted with its present keys: start anew with one of them"
)


@dataclass(frozen=True, slots=True)
class Card:
    """What `encryption.json` says.

    Attributes:
        keys: The ids of the keys in use, each with its check value.
        names: By key id, the secret of hidden names, encrypted.
        hashed: Whether names are hidden.
        unfinished: What a `rekey` has begun and not ended.
    """

    keys: dict[str, str]
    names: dict[str, str]
    hashed: bool = False
    unfinished: tuple[str, ...] = ()

    def secret(self, ring: Keyring) -> bytes:
        """Return the secret of hidden names.

        Raises:
            ValueError: When no key opens it.
        """
        for key in ring.keys:
            if key.id in self.names:
                return key.opened(self.names[key.id])
        raise ValueError("no secret of names is under these keys")

    def with_key(self, key: Key, secret: bytes) -> "Card":
        """Return a card with one more key."""
        token = key.seal(secret).decode()
        return replace(self, keys=self.keys | {key.id: key.check}, names=self.names | {key.id: token})

    def only(self, key: Key, *, unfinished: tuple[str, ...] = ()) -> "Card":
        """Return a card with no other key."""
        kept = {key.id: self.keys[key.id]}
        return replace(self, keys=kept, names={key.id: self.names[key.id]}, unfinished=unfinished)


def changed(card: Card, *, hashed: bool, unfinished: tuple[str, ...]) -> Card:
    """Return a card while a `rekey` is at work."""
    return replace(card, hashed=hashed, unfinished=unfinished)


def read_card(folder: Path) -> Card | None:
    """Return the card of a folder, None where there is none.

    Raises:
        WrongKey: When there is one that cannot be read, for then nobody knows which keys fit.
        OSError: When the folder may not be entered.
    """
    try:
        text = (folder / CARD).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if not os.access(folder, os.X_OK):  # nobody knows whether there is one
            raise
        raise WrongKey(folder, f"is encrypted, and its {CARD} cannot be read: {error.strerror}") from error
    try:
        return _card(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        reason = f"is encrypted, and its {CARD} is damaged: delete that file and run `tradecache rekey`"
        raise WrongKey(folder, reason) from None


def _card(found: dict[str, Any]) -> Card:
    if found["version"] != VERSION:
        raise ValueError
    keys = {str(name): str(each["check"]) for name, each in found["keys"].items()}
    names = {str(name): str(each["names"]) for name, each in found["keys"].items()}
    if not keys or not all(map(_is_hex, [*keys, *keys.values()])):
        raise ValueError
    return Card(keys, names, bool(found["hashed_names"]), tuple(map(str, found["unfinished"])))


def _is_hex(text: str) -> bool:
    return len(bytes.fromhex(text)) * 2 == len(text)


def write_card(folder: Path, card: Card) -> None:
    """Write the card of a folder, for its owner only, all of it or nothing.

    Raises:
        OSError: When it cannot be written.
    """
    replace_private(folder / CARD, _spelt(card), fsync=True)


def create_card(folder: Path, card: Card) -> None:
    """Write the card of a folder that has none; where another process is faster, its card stays.

    Raises:
        OSError: When it cannot be written.
    """
    temporary = folder / f".{secrets.token_hex(8)}.{CARD}"
    try:
        replace_private(temporary, _spelt(card), fsync=True)
        os.link(temporary, folder / CARD)
    except FileExistsError:
        return
    finally:
        temporary.unlink(missing_ok=True)


def _spelt(card: Card) -> bytes:
    said = {
        "version": VERSION,
        "keys": {name: {"check": check, "names": card.names[name]} for name, check in card.keys.items()},
        "hashed_names": card.hashed,
        "unfinished": list(card.unfinished),
    }
    return json.dumps(said, indent=1).encode()


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the lock of the card, among threads and processes; it is let go of when its holder dies.

    Raises:
        OSError: When it cannot be had.
    """
    from filelock import FileLock  # when first needed, for what it costs

    with FileLock(folder / LOCK, thread_local=False, preserve_lock_file=True, mode=0o600):
        yield


def new_card(key: Key, *, hashed: bool) -> Card:
    """Return the card of a folder that begins with one key."""
    return Card({}, {}, hashed).with_key(key, secrets.token_bytes(BYTES))


def starts(connection: sqlite3.Connection) -> list[bytes]:
    """Return how the values of a ledger begin: each tag once, and one empty one for all that have none."""
    size = len(START)
    query = (
        f"SELECT DISTINCT CASE WHEN substr(value, 1, {size}) = x'{START.hex()}' "  # noqa: S608
        f"THEN substr(value, 1, {TAG_BYTES}) ELSE x'' END FROM entries"
    )
    return [row[0] for row in connection.execute(query)]


def guard_of(card: Card) -> str:
    """Return the trigger that refuses entries under other keys than those of a card, or with other names."""
    tags = sorted(Tag(key_id, card.hashed).start().hex() for key_id in card.keys)
    allowed = ", ".join(f"x'{tag}'" for tag in tags)
    return (
        f"CREATE TRIGGER {TRIGGER} BEFORE INSERT ON entries "
        f"WHEN typeof(NEW.value) != 'blob' OR substr(NEW.value, 1, {TAG_BYTES}) NOT IN ({allowed}) "
        f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
    )


def guard_in(connection: sqlite3.Connection) -> str | None:
    """Return the trigger that a ledger has."""
    query = "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = ?"
    found = connection.execute(query, (TRIGGER,)).fetchone()
    return found[0] if found else None


def set_guard(connection: sqlite3.Connection, card: Card) -> None:
    """Have a ledger take only what a card allows; in a transaction of the caller's."""
    connection.execute(f"DROP TRIGGER IF EXISTS {TRIGGER}")
    connection.execute(guard_of(card))


def with_guard(connection: sqlite3.Connection, card: Card) -> None:
    """Give a ledger that has none its guard, as after damage was mended."""
    if guard_in(connection) is not None:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        set_guard(connection, card)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
