"""What is a sealed value, and is it one of ours, for the place where it was found?

It is a Fernet token in clear company of its version, the id of its key and whether names are hidden (`tags.py`).
In the token stand, before the value: collection, key, the moment of expiry and whether a frame belongs to it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from tradecache.errors import UnknownKey
from tradecache.naming import KINDS
from tradecache.stores.keyring import Keyring, Names
from tradecache.stores.tags import TOKEN, Tag


class NotSealed(Exception):
    """Raised when a value is not one that was sealed for its place; it is never served."""


class Opened(NamedTuple):
    """What was in a sealed value.

    Attributes:
        collection: Where it was put, by its clear name.
        key: Under which key.
        expires: In microseconds since the epoch; None: never.
        has_frame: Whether a frame belongs to it.
        text: The value without its frame, as JSON.
    """

    collection: str
    key: str
    expires: int | None
    has_frame: bool
    text: bytes


class Seal:
    """Makes values into sealed ones, and sealed ones into what they were.

    Args:
        ring: The keys: with the first one values are sealed, and all of them open what they can.
        names: Hides the names of collections; None: they stay as they are.
        wrong_key: Returns the error to raise for a value under a key that was not given, by the key's id; None
            for one that counts as not sealed.
    """

    def __init__(
        self,
        ring: Keyring,
        names: Names | None = None,
        *,
        wrong_key: Callable[[str], Exception | None] | None = None,
    ) -> None:
        self.ring = ring
        self.names = names
        self.tag = Tag(ring.first.id, names is not None)
        self._wrong_key = wrong_key

    def hidden(self, collection: str) -> str:
        """Return what a collection is called in the store."""
        return collection if self.names is None else self.names.hidden(collection)

    def spelt(self, opened: Opened) -> dict[str, Any]:
        """Return a sealed value in the form that stores hold it in, under the first key."""
        head = to_json(opened[:-1])
        return self.tag.spelt(self.ring.first.seal(head + b"\n" + opened.text))

    def opened_at(
        self, collection: str | None, key: str, value: Mapping[str, Any], *, has_frame: bool | None = None
    ) -> Opened:
        """Open a value and see that it belongs where it was found.

        Args:
            collection: By the name that it has in the store; None where that is not known any more.
            key: Under which it was found.
            value: As the store holds it.
            has_frame: Whether a frame was found with it; None where nobody looked.

        Raises:
            NotSealed: When it was not sealed with one of the keys, was altered, or belongs elsewhere.
        """
        opened = self._opened(value)
        if opened.key != key or (collection is not None and self.hidden(opened.collection) != collection):
            raise NotSealed("it was sealed for another place")
        if has_frame is not None and has_frame != opened.has_frame:
            raise NotSealed("its frame is missing" if opened.has_frame else "a frame was put beside it")
        return opened

    def _opened(self, value: Mapping[str, Any]) -> Opened:
        """Open a value, wherever it was found."""
        try:
            tag = Tag.read(value)
            if tag.hashed != self.tag.hashed:
                raise NotSealed("its name is not hidden as it should be")
            return _told(self.ring[tag.key_id].opened(value[TOKEN]))
        except UnknownKey as error:
            refusal = self._wrong_key(error.id) if self._wrong_key is not None else None
            raise refusal or NotSealed(str(error)) from None
        except ValueError as error:
            raise NotSealed(str(error)) from None

    def sealed_bytes(self, content: bytes) -> bytes:
        """Return bytes sealed for a file of their own, behind the id of the key."""
        return self.ring.first.id.encode() + b" " + self.ring.first.seal(content)

    def opened_bytes(self, content: bytes) -> bytes:
        """Return what was sealed by `sealed_bytes`.

        Raises:
            ValueError: When it was not, or under a key that was not given.
        """
        key_id, _, token = content.partition(b" ")
        try:
            return self.ring[key_id.decode("ascii", "replace")].opened(token)
        except UnknownKey as error:
            raise ValueError(str(error)) from None


def names_of(ring: Keyring, secret: bytes | None = None) -> Names:
    """Return what hides names: with a folder's own secret, else by the last key, which a rotation keeps longest."""
    return Names(ring.keys[-1].names if secret is None else secret, kinds=tuple(KINDS))


def _told(plain: bytes) -> Opened:
    """Return what is in the plain text of a token.

    Raises:
        ValueError: When that is nothing of ours.
    """
    head, _, text = plain.partition(b"\n")
    try:
        collection, key, expires, has_frame = from_json(head)
    except (TypeError, ValueError):
        raise ValueError("what is in its token is nothing of ours") from None
    return Opened(collection, key, expires, has_frame, text)
