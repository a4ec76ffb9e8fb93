"""How are small JSON values and DataFrames kept in a folder that outlives the process?"""

import asyncio
import logging
import math
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsFloat, TypeVar

import pandas as pd
from key_value.aio.protocols.key_value import AsyncKeyValue
from pydantic_core import from_json

from tradecache.clock import MICRO, Clock, checked_ttl, lifetime
from tradecache.errors import EntryTooLarge, InvalidInput, StoreError, WrongKey
from tradecache.steps import STEP, Watch, in_steps
from tradecache.stores import housekeeping
from tradecache.stores.abilities import Entry, Item, Suspicion
from tradecache.stores.access import Access
from tradecache.stores.entries import owner_of, payload_of, row_of
from tradecache.stores.ledger import COLUMNS, Row, row_checksum
from tradecache.stores.names import checked_address, checked_keys, checked_limit
from tradecache.stores.payloads import DamagedPayload, Form, Owner, Payload, Payloads, PlainFiles
from tradecache.stores.tags import START, Keyless, locked
from tradecache.stores.values import FRAME, normal_value, value_text

if TYPE_CHECKING:
    from tradecache.stores.keycard import Card
    from tradecache.stores.keyring import Keyring
    from tradecache.stores.unlocking import Keyed

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger("tradecache")

WORD = 8  # bytes, of a number; text is longer, but this is about how long encoding takes
LARGE = 1 << 20  # bytes; larger payloads are written in a worker thread, to keep the loop free
MISSING = "its file is missing"
SWEEP_EVERY = 64  # writes between two small steps of removing what has expired


class LocalStore(AsyncKeyValue):
    """The durable tier: an SQLite ledger, and Arrow IPC files for DataFrames, in one folder.

    A value is a mapping of JSON, and may hold one DataFrame under "frame". Several threads, event loops
    and processes may use one folder at once. An acknowledged write survives the death of the process, and
    with `sync="full"` a power loss. What is damaged is put into `quarantine/`, logged, and is a miss.

    Besides the key-value protocol there is ordered enumeration (`keys`, `scan`), without a cap.

    Args:
        folder: Made with mode 0700 when it does not exist.
        clock: Tells when entries expire.
        compression: "none" (frames are memory-mapped), "lz4" or "zstd".
        sync: "normal" or "full", see above.
        lock_wait: Seconds that an operation waits, without blocking its loop, for other processes.
        disk_bytes: Bytes of frames that are kept; the least recently used go first.
        max_entry_bytes: The largest entry accepted.
        ring: The keys of a folder that is encrypted. Frames are then encrypted here; values have to come sealed
            (`tradecache.sealing`), and others are refused.
        hashed: With keys: whether the collections that come are hidden names.

    Raises:
        StoreReadOnly: When the folder can be neither made nor opened.
        WrongKey: When the folder is encrypted under other keys, or one of both is not encrypted.
        StoreBusy, StoreFault: From any method; they are transient and may be tried again.
        StoreFull, StoreReadOnly: From writes; the old value is still there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock,
        compression: Literal["none", "lz4", "zstd"] = "none",
        sync: Literal["normal", "full"] = "normal",
        lock_wait: float = 5.0,
        disk_bytes: int | None = None,
        max_entry_bytes: int | None = None,
        ring: "Keyring | None" = None,
        hashed: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self._disk_bytes = disk_bytes
        self._clock = clock
        self._max_entry_bytes = max_entry_bytes
        self._writes = 0
        self._written = math.inf  # bytes since the last look at `disk_bytes`
        self._bounded_at = 0  # what `foreign_commits` was then
        self._quarantined = 0
        self._use: dict[tuple[str, str], int] = {}
        guard = Keyless() if ring is None else _keyed(ring, hashed=hashed)
        self._access = Access(self.folder, sync=sync, lock_wait=lock_wait, guard=guard)
        self.card: Card | None = None
        """What the folder said of its keys when it was opened; None: it is not encrypted."""
        form = PlainFiles(self.folder) if isinstance(guard, Keyless) else self._unlocked(guard)
        self._payloads = Payloads(self.folder, compression=compression, fsync=sync == "full", form=form)

    @property
    def read_only(self) -> bool:
        """Whether the folder can only be read."""
        return self._access.read_only

    @property
    def mapped_from(self) -> int | None:
        """Bytes from which on a frame is mapped when it is read; None where all are decoded."""
        return self._payloads.mapped_from

    async def get(self, key: str, *, collection: str | None = None) -> dict[str, Any] | None:
        """Return the live value of `key`, None when there is none."""
        return (await self.ttl(key, collection=collection))[0]

    async def ttl(
        self, key: str, *, collection: str | None = None
    ) -> tuple[dict[str, Any] | None, float | None]:
        """Return the live value of `key` and the seconds it has left (None: for ever)."""
        where, key = checked_address(collection, key)
        missing = ""
        while True:  # another process may replace the entry between its row and its payload, and again
            row = await self._access.run(lambda ledger: ledger.get(where, key))
            now = self._now()
            if row is None or row.has_expired(now):
                return None, None
            try:
                value = self._value(row)
            except FileNotFoundError:
                if row.path != missing:
                    missing = row.path or ""
                    continue
                await self._put_aside(row, DamagedPayload(MISSING))
                return None, None
            except (DamagedPayload, ValueError) as error:
                await self._put_aside(row, error)
                return None, None
            except WrongKey:
                raise
            except OSError as error:
                raise self._access.meaning(error) from error
            return value, None if row.expires is None else (row.expires - now) / MICRO

    async def get_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[dict[str, Any] | None]:
        """Return the live value of each key, in order, None where there is none."""
        return [await self.get(key, collection=collection) for key in checked_keys(keys)]

    async def ttl_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[tuple[dict[str, Any] | None, float | None]]:
        """Return the live value and the seconds left of each key, in order."""
        return [await self.ttl(key, collection=collection) for key in checked_keys(keys)]

    async def put(
        self,
        key: str,
        value: Mapping[str, Any],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store one value.

        Raises:
            NotStorable, EntryTooLarge, InvalidTTL: Before anything has changed.
        """
        where, key = checked_address(collection, key)
        seconds = checked_ttl(ttl)
        normal, _ = normal_value(value)
        frame = normal.pop(FRAME, None) if isinstance(normal.get(FRAME), pd.DataFrame) else None
        owner = Owner(where, key, value_text(normal))
        if frame is not None:
            row = await self._put_frame(owner, frame, seconds)
        else:
            row = self._row(owner, None, ttl=seconds)
            if not await self._access.run(lambda ledger: ledger.put(row)):
                self._payloads.remove(await self._write(lambda c: housekeeping.replace(c, row)))
        await self._after_write(row.size if row.path else 0)

    async def put_many(
        self,
        keys: Sequence[str],
        values: Sequence[Mapping[str, Any]],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store several values, all checked before the first is stored.

        JSON values are stored in one transaction, all or none; with frames among them, one by one.
        """
        if len(checked_keys(keys)) != len(values):
            raise InvalidInput("values", f"{len(values)} values for {len(keys)} keys", "as many as the keys")
        seconds = checked_ttl(ttl)
        addresses = [checked_address(collection, key) for key in keys]
        normal = [normal_value(value)[0] for value in values]
        if any(isinstance(value.get(FRAME), pd.DataFrame) for value in normal):
            for (where, key), value in zip(addresses, normal, strict=True):
                await self.put(key, value, collection=where, ttl=seconds)
            return
        await self.put_all(
            [(*address, value) for address, value in zip(addresses, normal, strict=True)], ttl=seconds
        )

    async def put_all(self, items: Sequence[Item], *, ttl: SupportsFloat | None) -> None:
        """Store JSON values under `(collection, key)` in one transaction: all of them or none."""
        seconds = checked_ttl(ttl)
        rows: list[Row] = []
        async for some in in_steps(items):
            rows += [
                self._row(Owner(*checked_address(collection, key), _text(value)), None, ttl=seconds)
                for collection, key, value in some
            ]
        self._payloads.remove(await self._write_many(rows, housekeeping.replace_all))
        await self._after_write(0)

    async def delete(self, key: str, *, collection: str | None = None) -> bool:
        """Delete a key; return whether there was a live value."""
        return bool(await self.delete_many([key], collection=collection))

    async def delete_many(self, keys: Sequence[str], *, collection: str | None = None) -> int:
        """Delete several keys in one transaction; return how many had a live value."""
        addresses = [checked_address(collection, key) for key in checked_keys(keys)]
        now = self._now()
        gone = await self._write_many(addresses, housekeeping.delete)
        self._payloads.remove(path for path, _ in gone)
        return sum(expires is None or expires > now for _, expires in gone)

    async def keys(self, collection: str | None = None, *, limit: int | None = None) -> list[str]:
        """Return the keys of the live entries of a collection, in order (Unicode code points)."""
        query = (
            "SELECT key FROM entries WHERE collection = ? AND (expires IS NULL OR expires > ?) "
            "AND typeof(key) = 'text' ORDER BY key LIMIT ?"
        )
        values = (checked_address(collection, "")[0], self._now(), _sql_limit(limit))
        return [row[0] for row in await self._access.fetch(query, values)]

    async def collections(self, *, limit: int | None = None) -> list[str]:
        """Return the names of the collections that have live entries, in order."""
        query = (
            "SELECT DISTINCT collection FROM entries WHERE (expires IS NULL OR expires > ?) "
            "AND typeof(collection) = 'text' ORDER BY collection LIMIT ?"  # damage may have made it anything
        )
        return [row[0] for row in await self._access.fetch(query, (self._now(), _sql_limit(limit)))]

    async def scan(
        self, collection: str, *, start: str = "", end: str | None = None, last: int | None = None
    ) -> list[Entry]:
        """Return the live entries of a collection with `start` <= key < `end`, in order of their keys.

        Args:
            collection: Its name.
            start: The first key.
            end: The first key that is not wanted; None for no end.
            last: Only so many, from the end.

        Entries with a payload come with their JSON only. Damaged rows are put aside and left out.
        """
        beyond = "" if end is None else "AND key < ?"
        query = (
            "SELECT key, value, created, expires, checksum, path, payload FROM entries "  # noqa: S608
            f"WHERE collection = ? AND key >= ? {beyond} AND (expires IS NULL OR expires > ?) "
            f"ORDER BY key {'ASC' if last is None else 'DESC'} LIMIT ?"
        )
        bounds = [collection, start] if end is None else [collection, start, end]
        rows = await self._access.fetch(query, (*bounds, self._now(), _sql_limit(last)))
        entries = [
            Entry(key, value, created, expires)
            for key, value, created, expires, checksum, path, payload in rows
            if checksum == row_checksum(collection, key, created, expires, value, path, payload)
        ]
        if len(entries) < len(rows):
            await self._put_aside_damaged(collection)
        return entries if last is None else entries[::-1]

    async def destroy(self) -> bool:
        """Delete every entry."""
        await self._delete_where("1", ())
        return True

    async def destroy_collection(self, collection: str) -> bool:
        """Delete every entry of a collection; return whether there was one."""
        return await self._delete_where("collection = ?", (collection,)) > 0

    async def cull(self) -> None:
        """Delete what has expired."""
        await self._delete_where("expires <= ?", (self._now(),))

    async def purge(self, *, orphan_age: float = 3600.0) -> dict[str, int]:
        """Delete expired entries and payload files that no entry names; give free pages back to the disk.

        Args:
            orphan_age: Seconds that a file without an entry is left alone, for its writer to enter it.

        Returns:
            Counts: expired_entries, orphan_files, orphan_bytes.
        """
        expired = await self._delete_where("expires <= ?", (self._now(),))
        known = {
            row[0] for row in await self._access.fetch("SELECT path FROM entries WHERE path IS NOT NULL")
        }
        swept = [] if self.read_only else self._payloads.sweep(known, older_than=orphan_age)
        if not self.read_only:
            await self._access.run(lambda ledger: ledger.run(housekeeping.give_back))
        return {
            "expired_entries": expired,
            "orphan_files": len(swept),
            "orphan_bytes": sum(size for _, size in swept),
        }

    async def verify(self, *, also: Suspicion | None = None) -> list[tuple[str, str, str]]:
        """Read every entry and payload; put what is damaged into quarantine.

        Args:
            also: Looks at each value, too.

        Returns:
            `(collection, key, what was wrong)` for each damaged entry, and with both empty for a ledger that
            had to be mended since the last call.
        """
        faults = []
        for row in await self._access.fetch(f"SELECT {COLUMNS} FROM entries"):  # noqa: S608
            entry = Row._make(row)
            fault = self._fault(entry, also)
            if fault is not None and await self._is_current(entry):
                reason = str(fault)
                if isinstance(fault, OSError):  # nothing is known to be wrong with it, so it stays
                    reason = f"its file cannot be read: {fault.strerror}"
                else:
                    await self._put_aside(entry, fault)
                faults.append((entry.collection, entry.key, reason))
            await asyncio.sleep(0)
        return [("", "", repair) for repair in self._access.untold_repairs()] + faults

    async def put_aside(self, key: str, *, collection: str, suspicion: Suspicion) -> None:
        """Put an entry into quarantine, unless it is another one by now, of which nothing is wrong."""
        row = await self._access.run(lambda ledger: ledger.get(collection, key))
        fault = None if row is None else self._fault(row, suspicion)
        if row is not None and fault is not None and not isinstance(fault, OSError):
            await self._put_aside(row, fault)

    def _fault(self, row: Row, also: Suspicion | None = None) -> Exception | None:
        """Return what is wrong with an entry, read anew; None when nothing is."""
        try:
            value = self._value(row, trust=False)
        except FileNotFoundError:
            return DamagedPayload(MISSING)
        except WrongKey:
            raise
        except (DamagedPayload, ValueError, OSError) as error:
            return error
        return None if also is None else also(row.collection, row.key, value)

    def wrong_key(self, key_id: str) -> WrongKey | None:
        """Return the error that is to be raised for an entry under a key that was not given.

        None where that is no key of the folder's: then the entry is damaged.
        """
        from tradecache.stores.unlocking import wrong_key

        return wrong_key(self.folder, key_id)

    def _unlocked(self, guard: "Keyed") -> Form:
        """Read the card, once the keys fit and the ledger takes nothing else, and return the form of frames."""
        from tradecache.stores.sealedfiles import SealedFiles
        from tradecache.stores.unlocking import unlocked

        try:
            self.card = unlocked(self._access, guard)
        except BaseException:
            self.close()
            raise
        return SealedFiles(guard.ring, wrong_key=self.wrong_key)

    async def _is_current(self, row: Row) -> bool:
        """Whether an entry is still what it was, and not replaced or deleted meanwhile."""
        now = await self._access.run(lambda ledger: ledger.get(row.collection, row.key))
        return now is not None and now.checksum == row.checksum

    async def usage(self) -> dict[str, int]:
        """Return how many entries and payloads there are, their bytes, and the bytes of the ledger's file."""
        query = "SELECT COUNT(*), COUNT(path), COALESCE(SUM(size), 0) FROM entries"
        ((entries, payloads, size),) = await self._access.fetch(query)
        ledger = self._access.ledger.path
        return {
            "entries": entries,
            "payloads": payloads,
            "bytes": size,
            "ledger_bytes": ledger.stat().st_size if ledger.exists() else 0,
            "quarantined": self._quarantined + self._access.rebuilds,
        }

    async def sizes(self) -> dict[str, tuple[int, int]]:
        """Return how many entries and bytes there are of each collection."""
        query = "SELECT collection, COUNT(*), SUM(size) FROM entries GROUP BY collection"
        return {str(name): (entries, size) for name, entries, size in await self._access.fetch(query)}

    @property
    def foreign_commits(self) -> Callable[[], int]:
        """Returns a number that grows when another process (or another store on this folder) has written."""
        return self._access.ledger.foreign_commits

    def close(self) -> None:
        """Let go of the files; later calls raise `CacheClosed`."""
        self._access.close()

    def __repr__(self) -> str:
        """Name the folder."""
        return f"LocalStore({str(self.folder)!r})"

    def _now(self) -> int:
        return self._clock.micros()

    def _row(self, owner: Owner, payload: Payload | None, *, ttl: float | None) -> Row:
        now = self._now()
        row = row_of(owner, payload, created=now, expires=None if ttl is None else now + lifetime(ttl))
        most = self._max_entry_bytes
        if most is not None and row.size > most:
            raise EntryTooLarge(size=row.size, max_size=most, collection=row.collection, key=row.key)
        return row

    def _value(self, row: Row, *, trust: bool = True) -> dict[str, Any]:
        """Return the value of a row, its frame mapped; raise where row or payload are not what was written."""
        if not row.is_intact:
            raise DamagedPayload("the checksum of its row differs")
        if self.card is None and row.value.startswith(START):
            raise locked(self.folder)  # it was encrypted since it was opened
        value: dict[str, Any] = from_json(row.value)
        payload = payload_of(row)
        if payload is not None:
            if not trust:
                self._payloads.distrust(payload.path)
            value[FRAME] = self._payloads.read(payload, owner_of(row))
            if self._disk_bytes is not None:
                self._use[row.collection, row.key] = self._now()
        return value

    async def _put_frame(self, owner: Owner, frame: pd.DataFrame, ttl: float | None) -> Row:
        if frame.shape[0] * (frame.shape[1] + 1) * WORD < LARGE:
            payload = self._write_payload(owner, frame)
        else:
            payload = await asyncio.to_thread(self._write_payload, owner, frame)
        try:
            row = self._row(owner, payload, ttl=ttl)
            replaced = await self._write(lambda c: housekeeping.replace(c, row))
        except (
            Exception,
            asyncio.CancelledError,
        ):  # Ctrl-C may come after the commit: then the file is needed
            self._payloads.remove([payload.path])
            raise
        self._payloads.remove(replaced)
        return row

    def _write_payload(self, owner: Owner, frame: pd.DataFrame) -> Payload:
        try:
            return self._payloads.write(owner, frame)
        except OSError as error:
            raise self._access.meaning(error) from error

    async def _put_aside(self, row: Row, reason: Exception) -> None:
        """Move a damaged entry out of the way, so that it is a miss from now on."""
        file = self._payloads.quarantine(row.path) if row.path and not self.read_only else None
        self._quarantined += 1
        log.warning(
            "damaged entry %r in %r put aside (%s): %s", row.key, row.collection, file or "no file", reason
        )
        if not self.read_only:
            same = (row.collection, row.key, row.checksum)
            query = "DELETE FROM entries WHERE collection = ? AND key = ? AND checksum = ?"
            await self._write(lambda connection: connection.execute(query, same))

    async def _put_aside_damaged(self, collection: str) -> None:
        query = f"SELECT {COLUMNS} FROM entries WHERE collection = ?"  # noqa: S608 - our own columns
        for row in await self._access.fetch(query, (collection,)):
            entry = Row._make(row)
            if not entry.is_intact:
                await self._put_aside(entry, DamagedPayload("the checksum of its row differs"))

    async def _after_write(self, size: int) -> None:
        """Now and then remove a little of what has expired; keep frames, `size` bytes more now, within `disk_bytes`."""
        self._writes += 1
        self._written += size
        if self._disk_bytes is not None and self._bounded_at != (epoch := self.foreign_commits()):
            self._bounded_at, self._written = epoch, math.inf  # nobody knows how much others have written
        is_turn = self._writes % SWEEP_EVERY == 0
        try:
            if is_turn:
                now = self._now()
                self._payloads.remove(await self._write(lambda c: housekeeping.sweep(c, now), patience=0))
            if self._disk_bytes is not None and (self._written > 0 or is_turn):
                await self._evict(self._disk_bytes)
        except StoreError as error:  # what was written is written
            log.warning("keeping house was put off: %s", error)

    async def _evict(self, bound: int) -> None:
        """Bring the bytes of frames under `bound`, and remember how many may be written before the next look."""
        used, self._use = self._use, {}
        uses = [(when, *address) for address, when in used.items()]
        gone, total = await self._write(lambda c: housekeeping.evict(c, bound, uses), patience=0)
        self._payloads.remove(gone)
        self._written = total - bound

    async def _write(self, work: Callable[[sqlite3.Connection], T], *, patience: float | None = None) -> T:
        return await self._access.run(lambda ledger: ledger.write(work), patience=patience)

    async def _write_many(
        self, rows: Sequence[R], work: Callable[[sqlite3.Connection, Sequence[R], housekeeping.Over], T]
    ) -> T:
        """Run a transaction over rows; over many of them in a thread, and nothing of it when it is cancelled."""
        if len(rows) <= STEP:
            return await self._write(lambda c: work(c, rows, iter))
        watch = Watch()
        return await self._access.run(
            lambda ledger: ledger.write(lambda c: work(c, rows, watch.over)), watch=watch
        )

    async def _delete_where(self, condition: str, values: tuple[Any, ...]) -> int:
        gone = await self._write(lambda c: housekeeping.delete_where(c, condition, values))
        self._payloads.remove(gone)
        return len(gone)


def _keyed(ring: "Keyring", *, hashed: bool) -> "Keyed":
    from tradecache.stores.unlocking import Keyed

    return Keyed(ring, hashed=hashed)


def _text(value: Mapping[str, Any]) -> bytes:
    return value_text(normal_value(value)[0])


def _sql_limit(limit: int | None) -> int:
    most = checked_limit(limit)
    return -1 if most is None else most  # SQLite's word for no limit
