"""Under which keys is a folder encrypted, and may it be opened with those that are given?

`encryption.json` beside the ledger lists the ids of the keys in use, each with a check value and with the
secret that names are hidden with, encrypted under that key. A trigger in the ledger refuses whatever is not
encrypted under one of them, also from a process that has opened the folder before it was encrypted.
"""

import contextlib
import hmac
import json
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tradecache.errors import WrongKey
from tradecache.stores.disk import sync_folder
from tradecache.stores.keyring import BYTES, Key, Keyring
from tradecache.stores.values import SEALED_START

FILE, LOCK = "encryption.json", "encryption.lock"
PLAIN, NAMES, LOST = "plain", "names", "lost"
"""What a `rekey` that has not ended may still have to do: encrypt plain entries, change names, also those whose
secret was lost."""
VERSION = 1
TRIGGER = "sealed"
REFUSAL = (
    "this folder takes only entries that are encrypted with its present keys: start anew with one of them"
)
ENCRYPTS = "`tradecache rekey` encrypts it"


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


def is_encrypted(folder: Path) -> bool:
    """Whether a folder says of itself that it is encrypted."""
    return (folder / FILE).exists()


def read_card(folder: Path) -> Card | None:
    """Return the card of a folder, None where there is none.

    Raises:
        WrongKey: When there is one that cannot be read, for then nobody knows which keys fit.
    """
    try:
        text = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WrongKey(folder, f"is encrypted, and its {FILE} cannot be read: {error.strerror}") from error
    try:
        return _card(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError):
        reason = f"is encrypted, and its {FILE} is damaged: delete that file and run `tradecache rekey`"
        raise WrongKey(folder, reason) from None


def _card(found: dict[str, Any]) -> Card:
    if found["version"] != VERSION:
        raise ValueError
    keys = {str(name): str(each["check"]) for name, each in found["keys"].items()}
    names = {str(name): str(each["names"]) for name, each in found["keys"].items()}
    if not keys or any(len(bytes.fromhex(name)) != len(name) // 2 for name in keys):
        raise ValueError
    return Card(keys, names, bool(found["hashed_names"]), tuple(map(str, found["unfinished"])))


def write_card(folder: Path, card: Card) -> None:
    """Write the card of a folder, for its owner only, all of it or nothing."""
    said = {
        "version": VERSION,
        "keys": {name: {"check": check, "names": card.names[name]} for name, check in card.keys.items()},
        "hashed_names": card.hashed,
        "unfinished": list(card.unfinished),
    }
    temporary = folder / f".{secrets.token_hex(8)}.{FILE}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(said, indent=1))
            file.flush()
            os.fsync(descriptor)
        temporary.replace(folder / FILE)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(folder)


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the lock of the card, among threads and processes; it is let go of when its holder dies."""
    from filelock import FileLock  # when first needed, for what it costs

    with FileLock(folder / LOCK, thread_local=False, preserve_lock_file=True, mode=0o600):
        yield


def new_card(key: Key, *, hashed: bool, unfinished: tuple[str, ...] = ()) -> Card:
    """Return the card of a folder that begins with one key."""
    return Card({}, {}, hashed, unfinished).with_key(key, secrets.token_bytes(BYTES))


def check_keys(folder: Path, card: Card, ring: Keyring) -> None:
    """See that every key in use is among those given.

    Raises:
        WrongKey: Naming the ids of those that are missing.
    """
    missing = [name for name in card.keys if name not in ring]
    if missing:
        given = ", ".join(key.id for key in ring.keys)
        raise WrongKey(
            folder,
            f"is encrypted under the key {' and the key '.join(missing)}, but encryption_key has {given}: "
            "give the old key after the new one (TRADECACHE_ENCRYPTION_KEY=new,old), or choose another folder",
        )
    if any(not hmac.compare_digest(ring[name].check, check) for name, check in card.keys.items()):
        raise WrongKey(folder, f"is encrypted, and the check of a key in its {FILE} is not that key's")


def admitted(folder: Path, ring: Keyring, *, hashed: bool, held: Iterable[bytes], read_only: bool) -> Card:
    """Return the card of a folder that may be opened, which is made or lengthened where it has to be.

    Args:
        folder: Of the cache.
        ring: The keys given.
        hashed: Whether names are to be hidden.
        held: How the values of its entries begin, looked at only where there is no card.
        read_only: Whether nothing can be written, and so no new key be used.

    Raises:
        WrongKey: When it may not be opened so; nothing was changed.
    """
    if ring is None:
        if is_encrypted(folder):
            raise WrongKey(folder, "is encrypted: set encryption_key or TRADECACHE_ENCRYPTION_KEY")
        return None
    card = read_card(folder)
    if card is not None and (_is_settled(folder, card, ring, hashed=hashed) or read_only):
        return card
    with contextlib.nullcontext() if read_only else one_at_a_time(folder):
        card = read_card(folder)
        if card is None:
            card = _first_card(folder, ring, hashed=hashed, held=held)
        elif not _is_settled(folder, card, ring, hashed=hashed):
            card = card.with_key(ring.first, secret_of(folder, card, ring))
        if not read_only:
            write_card(folder, card)
    return card


def secret_of(folder: Path, card: Card, ring: Keyring) -> bytes:
    """Return the secret of hidden names of a folder.

    Raises:
        WrongKey: When it cannot be opened.
    """
    try:
        return card.secret(ring)
    except ValueError:
        raise WrongKey(folder, f"is encrypted, and the secret of names in its {FILE} is damaged") from None


def _is_settled(folder: Path, card: Card, ring: Keyring, *, hashed: bool) -> bool:
    """Whether nothing need be added to a card before something is written."""
    check_keys(folder, card, ring)
    if card.unfinished:
        raise WrongKey(folder, "is only partly encrypted: run `tradecache rekey` again to finish it")
    if card.hashed != hashed:
        names = "hashed" if card.hashed else "plain"
        raise WrongKey(
            folder, f"has {names} names: `tradecache rekey` changes them to what hashed_names says"
        )
    secret_of(folder, card, ring)
    return ring.first.id in card.keys


def _first_card(folder: Path, ring: Keyring, *, hashed: bool, held: Iterable[bytes]) -> Card:
    """Return a card for a folder without one: it is empty, or somebody has lost the file."""
    card = new_card(ring.first, hashed=hashed)
    for start in held:
        tag = tag_of(start)
        if tag is None:
            raise WrongKey(folder, f"holds entries that are not encrypted: {ENCRYPTS}")
        if tag.key_id not in ring:
            raise WrongKey(folder, f"holds entries under the key {tag.key_id}, which is not given")
        if tag.hashed or hashed:
            raise WrongKey(folder, f"has lost its {FILE}: `tradecache rekey` makes it anew")
        card = card.with_key(ring[tag.key_id], card.secret(ring))
    return card


@dataclass(frozen=True, slots=True)
class Tag:
    """What is said of a sealed value in clear: its key, and whether its name is hidden."""

    key_id: str
    hashed: bool


VERSION_OF_VALUES = 1
_HEAD = '{"__encryption_version__":%d,"__key__":"%s","__hashed__":%d,'
TAG_BYTES = len(_HEAD % (VERSION_OF_VALUES, "0" * 16, 0))


def spelt(tag: Tag) -> bytes:
    """Return how a value with a tag begins in the ledger."""
    return (_HEAD % (VERSION_OF_VALUES, tag.key_id, tag.hashed)).encode()


def tag_of(value: object) -> Tag | None:
    """Return the tag of a value as the ledger holds it; None for one that is not sealed."""
    if not isinstance(value, bytes):
        return None
    head = value[:TAG_BYTES]
    for hashed in (False, True):
        tag = Tag(head[39:55].decode("ascii", "replace"), hashed)
        if head == spelt(tag):
            return tag
    return None


def starts(connection: sqlite3.Connection) -> list[bytes]:
    """Return how the values of a ledger begin: each tag once, and one empty one for all that have none."""
    size = len(SEALED_START)
    query = (
        f"SELECT DISTINCT CASE WHEN substr(value, 1, {size}) = x'{SEALED_START.hex()}' "  # noqa: S608
        f"THEN substr(value, 1, {TAG_BYTES}) ELSE x'' END FROM entries"
    )
    return [row[0] for row in connection.execute(query)]


def guard_of(card: Card) -> str:
    """Return the trigger that refuses entries under other keys than those of a card, or with other names."""
    tags = sorted(spelt(Tag(key_id, card.hashed)).hex() for key_id in card.keys)
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


def with_guard(folder: Path, connection: sqlite3.Connection) -> None:
    """Give a ledger that has none its guard, as after damage was mended."""
    if guard_in(connection) is not None:
        return
    card = read_card(folder)
    if card is None:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        set_guard(connection, card)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
