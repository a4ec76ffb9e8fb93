"""How does the file of a frame become one that nobody can read, alter, cut or move without its key?

A sealed file is a header (magic, version, id of the key, salt) and chunks of AES-256-GCM, each 1 MiB and its
tag, the last one shorter. Each file has a key of its own, derived from its salt, so that a chunk's number is
nonce enough; the last chunk says that it is the last. With each chunk its header and what it belongs to are
authenticated: the collection, the key and the sealed JSON of its entry, which no two writes have in common.
"""

import hashlib
import secrets
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tradecache.stores.keyring import Key, Keyring

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAGIC, VERSION = b"TCSEAL", 1
CHUNK = 1 << 20  # bytes of plain text to a chunk
TAG = 16
SALT = 16
HEADER = struct.Struct(f">6sB8s{SALT}s")
_NONCE = struct.Struct(">3xQ?")  # number of the chunk, whether it is the last


class Unreadable(ValueError):
    """Raised when a sealed file is not what was written for its entry."""


def belonging_to(collection: str, key: str, text: bytes) -> bytes:
    """Return what ties a frame to its entry: its names, and its JSON as the ledger holds it."""
    parts = [collection.encode(), key.encode(), text]
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


class Sealing:
    """Takes the bytes of a file piece by piece and writes them sealed.

    Args:
        key: Which one.
        about: What `belonging_to` returned for its entry.
        write: Takes what is to be written.
    """

    closed = False  # what pyarrow asks of a file

    def __init__(self, key: Key, about: bytes, write: Callable[[bytes], Any]) -> None:
        salt = secrets.token_bytes(SALT)
        header = HEADER.pack(MAGIC, VERSION, bytes.fromhex(key.id), salt)
        self._aead = AESGCM(key.of_file(salt))
        self._about = _digest(header, about)
        self._write = write
        self._waiting = bytearray()
        self._number = 0
        write(header)

    def write(self, content: "Buffer") -> None:
        """Take more bytes."""
        view = memoryview(content).cast("B")
        while len(self._waiting) + len(view) > CHUNK:  # a full chunk waits too: it may be the last
            room = CHUNK - len(self._waiting)
            self._waiting += view[:room]
            view = view[room:]
            self._seal(is_last=False)
        self._waiting += view

    def flush(self) -> None:
        """Do nothing: what is complete is written."""

    def finish(self) -> None:
        """Write what is left, as the last chunk."""
        self._seal(is_last=True)

    def _seal(self, *, is_last: bool) -> None:
        nonce = _NONCE.pack(self._number, is_last)
        self._write(self._aead.encrypt(nonce, self._waiting, self._about))
        self._number += 1
        self._waiting.clear()


def sealed(content: "Buffer", key: Key, about: bytes) -> bytes:
    """Return some bytes sealed, for who keeps them in one piece; `opened` is its opposite."""
    parts = bytearray()
    sealing = Sealing(key, about, parts.extend)
    sealing.write(content)
    sealing.finish()
    return bytes(parts)


class Header(NamedTuple):
    """What a sealed file says of itself: under which key it is, and its salt."""

    key_id: str
    salt: bytes


def header_of(content: "Buffer") -> Header:
    """Return the header of a sealed file.

    Raises:
        Unreadable: When it has none.
    """
    if len(memoryview(content)) < HEADER.size + TAG:
        raise Unreadable("it is cut")
    return first_header(content)


def first_header(content: "Buffer") -> Header:
    """Return the header of a sealed file of which nothing else may be written yet.

    Raises:
        Unreadable: When it has none.
    """
    view = memoryview(content)
    if len(view) < HEADER.size:
        raise Unreadable("it is cut")
    magic, version, key_id, salt = HEADER.unpack(view[: HEADER.size])
    if (magic, version) != (MAGIC, VERSION):
        raise Unreadable("it does not begin as a sealed file does")
    return Header(key_id.hex(), salt)


def opened(content: "Buffer", ring: Keyring, about: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the bytes in a sealed file, decrypted into one array, and nothing unless all of it is right.

    Raises:
        UnknownKey: When it is under a key that is not on the ring.
        Unreadable: When it was altered, cut, or belongs to another entry.
    """
    key_id, salt = header_of(content)
    view = memoryview(content)
    aead = AESGCM(ring[key_id].of_file(salt))
    extra = _digest(bytes(view[: HEADER.size]), about)
    body = view[HEADER.size :]
    count = -(-len(body) // (CHUNK + TAG))
    if len(body) - (count - 1) * (CHUNK + TAG) < TAG:
        raise Unreadable("it is cut")
    plain = np.empty(len(body) - count * TAG, np.uint8)  # not zeroed first, and in large pages
    target = memoryview(plain)  # type: ignore[arg-type]  # numpy says so only from Python 3.12 on
    for number in range(count):
        sealed = body[number * (CHUNK + TAG) : (number + 1) * (CHUNK + TAG)]
        place = target[number * CHUNK : number * CHUNK + len(sealed) - TAG]
        try:
            aead.decrypt_into(_NONCE.pack(number, number == count - 1), sealed, extra, place)
        except InvalidTag:
            raise Unreadable("it was altered, cut, or belongs to another entry") from None
    return plain


def _digest(header: bytes, about: bytes) -> bytes:
    return hashlib.sha256(header + about).digest()
