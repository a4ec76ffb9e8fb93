"""How do an entry's JSON and its payload become a row of the ledger, and a row these again?"""

from tradecache.stores.ledger import Row, row_checksum
from tradecache.stores.payloads import Owner, Payload


def row_of(owner: Owner, payload: Payload | None, *, created: int, expires: int | None) -> Row:
    """Return the row of an entry; times in microseconds since the epoch."""
    path, size, file = payload or (None, 0, None)
    checksum = row_checksum(owner.collection, owner.key, created, expires, owner.text, path, file)
    return Row(
        collection=owner.collection,
        key=owner.key,
        created=created,
        expires=expires,
        used=created,
        size=len(owner.text) + size,
        checksum=checksum,
        value=owner.text,
        path=path,
        payload=file,
    )


def owner_of(row: Row) -> Owner:
    """Return to which entry the payload of a row belongs."""
    return Owner(row.collection, row.key, row.value)


def payload_of(row: Row) -> Payload | None:
    """Return the payload of a row, None where it has none."""
    if row.path is None or row.payload is None:
        return None
    return Payload(row.path, row.size - len(row.value), row.payload)
