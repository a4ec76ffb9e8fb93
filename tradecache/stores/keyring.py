"""Which keys are there, and what is made of each: one for small values, one for frames, one for names?"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from tradecache.errors import UnknownKey
from tradecache.stores.tags import ID_DIGITS

NAME_DIGITS = 32  # of a hidden name, in hex
BYTES = 32


class Key:
    """One key: nothing is encrypted with it, but with keys that are derived from it by HKDF-SHA256.

    Attributes:
        id: Tells keys apart, and tells nothing about them.
        check: Tells whether a key of this id is this one.
        fernet: What small values are encrypted with.
    """

    __slots__ = ("_frames", "_names", "check", "fernet", "id")

    def __init__(self, key: SecretStr) -> None:
        whole = base64.urlsafe_b64decode(key.get_secret_value())
        self.id = _derived(whole, "id").hex()[:ID_DIGITS]
        self.check = _derived(whole, "check").hex()
        self.fernet = Fernet(base64.urlsafe_b64encode(_derived(whole, "values")))
        self._frames = _derived(whole, "frames")
        self._names = _derived(whole, "names")

    def seal(self, content: bytes) -> bytes:
        """Return some bytes as a Fernet token."""
        return self.fernet.encrypt(content)

    def opened(self, token: bytes | str) -> bytes:
        """Return what is in a token.

        Raises:
            ValueError: When it is none of this key's, or was altered.
        """
        try:
            return self.fernet.decrypt(token)
        except (InvalidToken, TypeError, ValueError):  # the last for what is not ASCII
            raise ValueError("its token is not what was written") from None

    def of_file(self, salt: bytes) -> bytes:
        """Return the key of one file, which no other file has."""
        return _derived(self._frames, "file", salt=salt)

    @property
    def names(self) -> bytes:
        """What names are hidden with where a store has no secret of its own for them."""
        return self._names

    def __repr__(self) -> str:
        """Show the id, which may be seen."""
        return f"Key({self.id!r})"


class Keyring:
    """Several keys: with the first one everything is encrypted, and all of them open what they can.

    Args:
        keys: Each 32 bytes in base64 for URLs; those that are there twice count once.
    """

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        made = [Key(key) for key in keys]
        self._keys = {key.id: key for key in made}
        self.first = made[0]

    def __contains__(self, key_id: object) -> bool:
        """Whether a key of this id is here."""
        return key_id in self._keys

    def __getitem__(self, key_id: str) -> Key:
        """Return the key of an id.

        Raises:
            UnknownKey: When there is none.
        """
        try:
            return self._keys[key_id]
        except KeyError:
            raise UnknownKey(key_id) from None

    @property
    def keys(self) -> list[Key]:
        """All of them, in order."""
        return list(self._keys.values())

    @property
    def fernet(self) -> MultiFernet:
        """All of them as one for small values: the first one encrypts, and any opens."""
        return MultiFernet([key.fernet for key in self.keys])

    def __repr__(self) -> str:
        """Show the ids, which may be seen."""
        return f"Keyring({list(self._keys)!r})"


class Names:
    """Hides names behind hashes that nobody can make who has not the secret.

    Args:
        secret: 32 bytes.
        kinds: How names begin of which that beginning stays: it says what is held, and not of what.
    """

    def __init__(self, secret: bytes, *, kinds: Sequence[str] = ()) -> None:
        self._secret = secret
        self._kinds = tuple(kinds)
        self.hidden = lru_cache(maxsize=100_000)(self._hidden)
        """Returns the hidden name of a name."""

    def _hidden(self, name: str) -> str:
        kind = next((kind for kind in self._kinds if name.startswith(kind)), "")
        if name == kind:
            return name  # which says nothing more
        return kind + hmac.new(self._secret, name.encode(), hashlib.sha256).hexdigest()[:NAME_DIGITS]

    def __repr__(self) -> str:
        """Show nothing."""
        return "Names()"


def _derived(key: bytes, purpose: str, *, salt: bytes | None = None) -> bytes:
    return HKDF(SHA256(), length=BYTES, salt=salt, info=f"tradecache 1 {purpose}".encode()).derive(key)
