"""May an encrypted folder be opened with the keys that are given, and how is it made ready for them?"""

import hmac
from collections.abc import Iterable
from pathlib import Path

from tradecache.errors import WrongKey
from tradecache.stores import keycard
from tradecache.stores.access import Access
from tradecache.stores.keycard import Card
from tradecache.stores.keyring import Keyring
from tradecache.stores.tags import CARD, is_encrypted, tag_of


def unlocked(access: Access, ring: Keyring, *, hashed: bool) -> Card:
    """Return the card of a folder, once the keys fit and its ledger takes nothing else.

    Args:
        access: To its ledger.
        ring: The keys given.
        hashed: Whether names are to be hidden.

    Raises:
        WrongKey: When it may not be opened so; nothing was changed.
    """
    held = [] if is_encrypted(access.folder) else access.at_once(lambda x: x.run(keycard.starts))
    if access.read_only:
        return _card_as_it_is(access.folder, ring, hashed=hashed, held=held)
    card = _card_with_first_key(access.folder, ring, hashed=hashed, held=held)
    _guard(access, card)
    return card


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


def _guard(access: Access, card: Card) -> None:
    """See that the ledger takes only what is encrypted, now and after each repair."""
    access.ledger.guard = lambda connection: keycard.with_guard(access.folder, connection)
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
    for start in held:
        tag = tag_of(start)
        if tag is None:
            raise WrongKey(folder, "holds entries that are not encrypted: `tradecache rekey` encrypts it")
        if tag.key_id not in ring:
            raise WrongKey(folder, f"holds entries under the key {tag.key_id}, which is not given")
        if tag.hashed or hashed:
            raise WrongKey(folder, f"has lost its {CARD}: `tradecache rekey` makes it anew")
        card = card.with_key(ring[tag.key_id], card.secret(ring))
    return card
