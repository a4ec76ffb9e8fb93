"""How does a DataFrame travel through stores and wrappers that know nothing but JSON?"""

import binascii
import logging
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import pandas as pd
import pyarrow as pa
from key_value.aio.protocols.key_value import AsyncKeyValue
from key_value.aio.wrappers.base import BaseWrapper

from tradecache.errors import TradeCacheError
from tradecache.stores.arrow import as_table, decode_frame, write_table
from tradecache.stores.values import FRAME, normal_value

log = logging.getLogger("tradecache")

ARROW = "__arrow__"
"""The name, in the value of a store, of what was a frame: an Arrow IPC file with zstd, in base64."""


class FrameCodec(BaseWrapper):
    """Lets any store, and any wrapper around it, take values with a DataFrame under "frame".

    What comes back is equal to what was put, types and the index's unit included. What cannot be read as a frame is a
    logged miss.

    Args:
        key_value: The store.
    """

    def __init__(self, key_value: AsyncKeyValue) -> None:
        self.key_value = key_value

    async def get(self, key: str, *, collection: str | None = None) -> dict[str, Any] | None:
        """Return a value, with its frame."""
        return decoded(await self.key_value.get(key, collection=collection), key)

    async def get_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[dict[str, Any] | None]:
        """Return values, in order."""
        found = await self.key_value.get_many(keys, collection=collection)
        return [decoded(value, key) for key, value in zip(keys, found, strict=True)]

    async def ttl(
        self, key: str, *, collection: str | None = None
    ) -> tuple[dict[str, Any] | None, float | None]:
        """Return a value and the seconds it has left."""
        value, left = await self.key_value.ttl(key, collection=collection)
        return decoded(value, key), left

    async def ttl_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[tuple[dict[str, Any] | None, float | None]]:
        """Return values and the seconds they have left, in order."""
        found = await self.key_value.ttl_many(keys, collection=collection)
        return [(decoded(value, key), left) for key, (value, left) in zip(keys, found, strict=True)]

    async def put(
        self,
        key: str,
        value: Mapping[str, Any],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store a value, its frame encoded.

        Raises:
            NotStorable: When Arrow has no type for a column.
        """
        await self.key_value.put(key, encoded(value), collection=collection, ttl=ttl)

    async def put_many(
        self,
        keys: Sequence[str],
        values: Sequence[Mapping[str, Any]],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store values, their frames encoded."""
        await self.key_value.put_many(keys, list(map(encoded, values)), collection=collection, ttl=ttl)


def encoded(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value with its frame as text."""
    normal, _ = normal_value(value)
    if not isinstance(normal.get(FRAME), pd.DataFrame):
        return normal
    text = binascii.b2a_base64(arrow_bytes(normal.pop(FRAME)), newline=False).decode("ascii")
    return {**normal, ARROW: text}


def arrow_bytes(frame: pd.DataFrame) -> pa.Buffer:
    """Return a frame, as `normal_value` leaves it, as an Arrow IPC file with zstd."""
    sink = pa.BufferOutputStream()
    write_table(as_table(frame), sink, compression="zstd")
    return sink.getvalue()


def decoded(value: Mapping[str, Any] | None, key: str) -> dict[str, Any] | None:
    """Return a value with its frame as a DataFrame; None for none, and for what is no frame of ours."""
    if value is None or ARROW not in value:
        return None if value is None else dict(value)
    rest = dict(value)
    try:
        content = bytearray(binascii.a2b_base64(rest.pop(ARROW), strict_mode=True))
        return {**rest, FRAME: decode_frame(content)}
    except (pa.ArrowException, TradeCacheError, ValueError, TypeError, KeyError, OSError) as error:
        log.warning("%r holds no frame of ours: %s", key, error)
        return None
