"""Which keys, collections and limits does a store accept?"""

from collections.abc import Sequence

from key_value.aio._utils.constants import DEFAULT_COLLECTION_NAME

from tradecache.errors import InvalidInput


def checked_address(collection: str | None, key: str) -> tuple[str, str]:
    """Return collection and key; no collection means the default one.

    Raises:
        TypeError: When one of them is no str.
        InvalidInput: When one of them is no text that UTF-8 can hold: a lone half of a surrogate pair.
    """
    if not isinstance(key, str):
        raise TypeError(f"key is {key!r}, but must be a str")
    if collection is not None and not isinstance(collection, str):
        raise TypeError(f"collection is {collection!r}, but must be a str")
    _check_text("key", key)
    if not collection:
        return DEFAULT_COLLECTION_NAME, key
    _check_text("collection", collection)
    return collection, key


def checked_keys(keys: Sequence[str]) -> Sequence[str]:
    """Return `keys`, which must not be a single str.

    Raises:
        TypeError: When it is one.
    """
    if isinstance(keys, (str, bytes)):
        raise TypeError(f"keys is {keys!r}, but must be a sequence of str")
    return keys


def checked_limit(limit: object) -> int | None:
    """Return `limit`; None means no limit.

    Raises:
        InvalidInput: When it is negative or no int.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise InvalidInput("limit", limit, "zero or a positive int, or None for all")
    return limit


def _check_text(name: str, text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(name, text, "text that UTF-8 can hold") from error
