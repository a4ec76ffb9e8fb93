"""How are URLs and keys taken as settings without ever being shown?"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import SecretStr

from tradecache.errors import InvalidInput

KEY_BYTES = 32
SHOWN = "**********"
HIDDEN_VALUES = ("key", "secret", "token", "password")  # what a query's name holds whose value is not shown


class SecretURL(SecretStr):
    """A URL that is shown without its password, and without what its query keeps secret."""

    @property
    def scheme(self) -> str:
        """What it begins with: "redis", "postgresql"."""
        return urlsplit(self.get_secret_value()).scheme

    def _display(self) -> str:
        return without_secrets(self.get_secret_value())


class SecretKey(SecretStr):
    """An encryption key, which is never shown."""


def without_secrets(url: str) -> str:
    """Return a URL as it may be shown.

    >>> without_secrets("redis://me:secret@host:6379/0")
    'redis://me:***@host:6379/0'
    """
    parts = urlsplit(url)
    if _is_cut(url):
        return f"{parts.scheme}://***"
    who, at, where = parts.netloc.rpartition("@")
    name, colon, _ = who.partition(":")
    shown = [(key, "***" if _is_secret(key) else value) for key, value in parse_qsl(parts.query)]
    netloc = f"{name}{':***' if colon else ''}{at}{where}"
    return parts._replace(netloc=netloc, query=urlencode(shown, safe="*:/"), fragment="").geturl()


def checked_url(field: str, value: object, schemes: Sequence[str]) -> SecretURL:
    """Return a URL of one of these schemes; `field` is where it was given.

    Raises:
        InvalidInput: Without its password.
    """
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    allowed = f"a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}"
    if not isinstance(text, str):
        raise InvalidInput(field, type(text).__name__, allowed)
    port = _port(text)
    if port < 0:
        raise InvalidInput(field, SHOWN, allowed + ", with a port of at most 65535")
    parts = urlsplit(text)
    if _is_cut(text):
        raise InvalidInput(
            field, without_secrets(text), allowed + ", its password quoted (urllib.parse.quote)"
        )
    if parts.scheme == "file" and (parts.netloc or not parts.path.startswith("/")):
        raise InvalidInput(field, text, "file:///absolute/path, with three slashes, for a folder")
    is_complete = parts.path if parts.scheme == "file" else parts.hostname
    if parts.scheme not in schemes or not is_complete or port == 0:
        raise InvalidInput(field, without_secrets(text), allowed)
    return SecretURL(text)


def checked_key(value: object) -> SecretKey:
    """Return an encryption key: 32 bytes, in base64 for URLs, as `Fernet.generate_key()` makes them.

    Raises:
        InvalidInput: Without the key.
    """
    text: Any = value.get_secret_value() if isinstance(value, SecretStr) else value
    text = text.decode("ascii", "replace") if isinstance(text, bytes) else text
    allowed = "32 random bytes in URL-safe base64, as `tradecache new-key` prints them"
    try:
        is_key = len(base64.b64decode(text, altchars=b"-_", validate=True)) == KEY_BYTES
    except (TypeError, ValueError, binascii.Error):
        is_key = False
    if not is_key:
        raise InvalidInput("encryption_key", SHOWN, allowed)
    return SecretKey(text)


def _port(url: str) -> int:
    """Return the port of a URL; 80 where it has none, and -1 where it can have none."""
    try:
        port = urlsplit(url).port
    except ValueError:  # whose words would show the URL
        return -1
    return 80 if port is None else port


def _is_cut(url: str) -> bool:
    """Whether a password that was not quoted ends the host's part too early."""
    parts = urlsplit(url)
    return "@" in parts.path + parts.query + parts.fragment


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in HIDDEN_VALUES)
