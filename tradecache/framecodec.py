"""How does a DataFrame travel through stores and wrappers that know nothing but JSON?"""

import binascii
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
from key_value.aio.protocols.key_value import AsyncKeyValue
from pydantic_core import to_json

from tradecache.errors import TradeCacheError, UnknownKey
from tradecache.stores.arrow import as_table, decode_frame, write_table
from tradecache.stores.mapped import Address, Mapped
from tradecache.stores.values import FRAME, normal_value

if TYPE_CHECKING:
    from tradecache.stores.keyring import Keyring

log = logging.getLogger("tradecache")

KEY = "__key__"
"""The name under which a sealed value tells the id of its key."""
UNREADABLE = pa.ArrowException, TradeCacheError

ARROW = "__arrow__"
"""The name, in the value of a store, of what was a frame: an Arrow IPC file with zstd, in base64."""
SEALED = "__sealed_arrow__"
"""The same where that file is encrypted."""


class FrameCodec(Mapped):
    """Lets any store, and any wrapper around it, take values with a DataFrame under "frame".

    What comes back is equal to what was put, types and the index's unit included. What cannot be read as a frame is a
    logged miss. A frame that Arrow has no type for is NotStorable, and a value under a key that is not on the ring
    an UnknownKey.

    Args:
        key_value: The store.
        ring: The keys with which frames are encrypted, bound to their place and to the value beside them; with keys,
            plain frames are refused. None: frames are not encrypted.
    """

    def __init__(self, key_value: AsyncKeyValue, *, ring: "Keyring | None" = None) -> None:
        super().__init__(key_value)
        self._ring = ring

    def into(self, value: Mapping[str, Any], address: Address) -> dict[str, Any]:
        """Return a value with its frame as text."""
        normal, _ = normal_value(value)
        if not isinstance(normal.get(FRAME), pd.DataFrame):
            return normal
        content = arrow_bytes(normal.pop(FRAME))
        if self._ring is None:
            return {**normal, ARROW: _text(content)}
        from tradecache.stores.cipher import sealed

        return {**normal, SEALED: _text(sealed(content, self._ring.first, _bound(address, normal)))}

    def out(self, value: dict[str, Any], address: Address) -> dict[str, Any] | None:
        """Return a value with its frame as a DataFrame; None for what is no frame of ours."""
        if self._ring is None and KEY in value:
            raise UnknownKey(str(value[KEY]))  # who has no key writes over nothing either
        if not {ARROW, SEALED} & value.keys():
            return value
        rest = dict(value)
        try:
            frame = (
                decode_frame(bytearray(_bytes(rest.pop(ARROW))))
                if self._ring is None
                else self._opened(rest, address)
            )
        except UnknownKey:
            raise
        except (*UNREADABLE, KeyError, TypeError, ValueError, OSError) as error:
            log.warning("%r holds no frame of ours: %s", address[1], _reason(error))
            return None
        return {**rest, FRAME: frame}

    def _opened(self, rest: dict[str, Any], address: Address) -> pd.DataFrame:
        """Return the frame of a value, of which `rest` is left then.

        Raises:
            ValueError: When it was not encrypted for this place.
            UnknownKey: When it was, with a key that is not on the ring.
        """
        from tradecache.stores.cipher import opened

        assert self._ring is not None  # noqa: S101 - told to the type checker
        content = _bytes(rest.pop(SEALED))
        rest.pop(FRAME, None)
        return decode_frame(opened(content, self._ring, _bound(address, rest)))


def arrow_bytes(frame: pd.DataFrame) -> pa.Buffer:
    """Return a frame, as `normal_value` leaves it, as an Arrow IPC file with zstd."""
    sink = pa.BufferOutputStream()
    write_table(as_table(frame), sink, compression="zstd")
    return sink.getvalue()


def _bound(address: Address, rest: Mapping[str, Any]) -> bytes:
    """Return what a frame is bound to: where it is, and what stands beside it."""
    from tradecache.stores.cipher import belonging_to

    return belonging_to(*address, to_json(dict(sorted(rest.items()))))


def _text(content: Any) -> str:
    return binascii.b2a_base64(content, newline=False).decode("ascii")


def _bytes(text: Any) -> bytes:
    return binascii.a2b_base64(text, strict_mode=True)


def _reason(error: Exception) -> str:
    """Say what is wrong; a name that is missing is that of a frame that is not, or should not be, encrypted."""
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
