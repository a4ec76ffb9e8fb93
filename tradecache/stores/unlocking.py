"""May an encrypted folder be opened with the keys that are given, and how is it made ready for them?"""

import hmac
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from tradecache.errors import StoreError, WrongKey
from tradecache.stores import keycard
from tradecache.stores.access import Access
from tradecache.stores.keycard import Card
from tradecache.stores.keyring import Keyring
from tradecache.stores.ledger import newest_number
from tradecache.stores.tags import CARD, Tag, is_encrypted, tag_of


class Keyed:
    """Guards the ledger of who has keys: it is neither made nor mended without its card and its trigger.

    Args:
        ring: The keys given.
        hashed: Whether names are hidden.
    """

    def __init__(self, ring: Keyring, *, hashed: bool) -> None:
        self.ring = ring
        self.hashed = hashed
        self.card: Card | None = None
        """What the folder said when it was opened, for one that is deleted meanwhile."""

    def admit(self, folder: Path) -> None:
        """See that the keys fit; a folder that is begun anew gets its card first.

        Raises:
            WrongKey: When they do not.
        """
        card = keycard.read_card(folder)
        if card is not None:
            self.check(folder, card)
        elif self.card is not None and not newest_number(folder):
            keycard.create_card(folder, self.card)

    def check(self, folder: Path, card: Card) -> None:
        """See that keys and names are those of a card, also of one that was written after the folder was opened.

        Raises:
            WrongKey: When they are not.
        """
        has_first = _is_settled(folder, card, self.ring, hashed=self.hashed)
        if self.card is None:
            return
        lost_key = not has_first and self.ring.first.id in self.card.keys
        if lost_key or (self.hashed and card.secret(self.ring) != self.card.secret(self.ring)):
            raise WrongKey(folder, "was made anew by another process meanwhile: start anew")

    def trigger(self, folder: Path) -> str:
        """Return the trigger of a new ledger."""
        card = keycard.read_card(folder) or self.card
        return "" if card is None else keycard.guard_of(card).replace("TRIGGER", "TRIGGER IF NOT EXISTS", 1)

    def settle(self, folder: Path, connection: sqlite3.Connection) -> None:
        """Give a ledger its trigger, and a folder that has lost its card that one again.

        Raises:
            WrongKey: Where it holds by now what is not encrypted, or under another key.
        """
        if self.card is None:  # it is only being opened
            return
        if not is_encrypted(folder):
            check_held(folder, keycard.starts(connection), self.ring)
            keycard.create_card(folder, self.card)
        keycard.with_guard(connection, keycard.read_card(folder) or self.card)


def unlocked(access: Access, guard: Keyed) -> Card:
    """Return the card of a folder, once the keys fit and its ledger takes nothing else.

    Args:
        access: To its ledger, with this guard.
        guard: It gets the card.

    Raises:
        WrongKey: When it may not be opened so; no entry was changed.
        StoreError: One of its kinds, when its card cannot be written.
    """
    try:
        return _unlocked(access, guard)
    except (StoreError, WrongKey):
        raise
    except OSError as error:
        raise access.meaning(error) from error


def _unlocked(access: Access, guard: Keyed) -> Card:
    ring, hashed = guard.ring, guard.hashed
    held = [] if is_encrypted(access.folder) else access.at_once(lambda x: x.run(keycard.starts))
    if access.read_only:
        guard.card = _card_as_it_is(access.folder, ring, hashed=hashed, held=held)
        return guard.card
    guard.card = _card_with_first_key(access.folder, ring, hashed=hashed, held=held)
    _set_guard(access, guard.card)
    return guard.card


def wrong_key(folder: Path, key_id: str) -> WrongKey | None:
    """Return the error that is to be raised for an entry under a key that was not given.

    None where that is no key of the folder's: then the entry is damaged.
    """
    card = keycard.read_card(folder)
    if card is None or key_id not in card.keys:
        return None
    return WrongKey(folder, f"is by now encrypted under the key {key_id}: start anew with that key")


def _card_as_it_is(folder: Path, ring: Keyring, *, hashed: bool, held: Iterable[bytes]) -> Card:
    """Return the card where nothing can be written, and so no new key be used."""
    card = keycard.read_card(folder)
    if card is None:
        return _first_card(folder, ring, hashed=hashed, held=held)
    _is_settled(folder, card, ring, hashed=hashed)
    return card


def _card_with_first_key(folder: Path, ring: Keyring, *, hashed: bool, held: Iterable[bytes]) -> Card:
    """Return the card, which is made or lengthened where it has to be."""
    card = keycard.read_card(folder)
    if card is not None and _is_settled(folder, card, ring, hashed=hashed):
        return card
    with keycard.one_at_a_time(folder):
        card = keycard.read_card(folder)
        if card is None:
            card = _first_card(folder, ring, hashed=hashed, held=held)
        elif not _is_settled(folder, card, ring, hashed=hashed):
            card = card.with_key(ring.first, secret_of(folder, card, ring))
        keycard.write_card(folder, card)
    return card


def _set_guard(access: Access, card: Card) -> None:
    """See that the ledger takes only what is encrypted."""
    if access.at_once(lambda x: x.run(keycard.guard_in)) == keycard.guard_of(card):
        return
    with keycard.one_at_a_time(access.folder):
        newest = keycard.read_card(access.folder) or card
        access.at_once(lambda x: x.write(lambda c: keycard.set_guard(c, newest)))


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
        raise WrongKey(folder, f"is encrypted, and the check of a key in its {CARD} is not that key's")


def secret_of(folder: Path, card: Card, ring: Keyring) -> bytes:
    """Return the secret of hidden names of a folder.

    Raises:
        WrongKey: When it cannot be opened.
    """
    try:
        return card.secret(ring)
    except ValueError:
        raise WrongKey(folder, f"is encrypted, and the secret of names in its {CARD} is damaged") from None


def _is_settled(folder: Path, card: Card, ring: Keyring, *, hashed: bool) -> bool:
    """Whether nothing need be added to a card before something is written.

    Raises:
        WrongKey: When the folder may not be opened so.
    """
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
    card = keycard.new_card(ring.first, hashed=hashed)
    for tag in check_held(folder, held, ring):
        if tag.hashed or hashed:
            raise WrongKey(folder, f"has lost its {CARD}: `tradecache rekey` makes it anew")
        card = card.with_key(ring[tag.key_id], card.secret(ring))
    return card


def check_held(folder: Path, held: Iterable[bytes], ring: Keyring) -> list[Tag]:
    """Return the tags of a ledger's entries, all of which are under keys of the ring.

    Raises:
        WrongKey: When they are not.
    """
    tags: list[Tag] = []
    for tag in map(tag_of, held):
        if tag is None:
            raise WrongKey(folder, "holds entries that are not encrypted: `tradecache rekey` encrypts it")
        if tag.key_id not in ring:
            raise WrongKey(folder, f"holds entries under the key {tag.key_id}, which is not given")
        tags.append(tag)
    return tags
