"""How does everything in a folder come under a new key, or under a first one, while others go on working?

Entry by entry: each is read, sealed anew and entered in place of what was read, if that is still there. Nothing
that others write or delete meanwhile is lost or comes back, and after a kill the next run goes on.
"""

import asyncio
import logging
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import pandas as pd
from filelock import FileLock, Timeout
from pydantic_core import from_json

from tradecache.bridge import shared_bridge
from tradecache.errors import InvalidInput, MissingDependency, StoreBusy, StoreError, StoreFull, WrongKey
from tradecache.flights import LOCKS, locks, notes
from tradecache.settings import Settings
from tradecache.stores.access import Access, told
from tradecache.stores.arrow import Content
from tradecache.stores.disk import QUARANTINE, QUARANTINED
from tradecache.stores.entries import owner_of, payload_of, row_of
from tradecache.stores.ledger import COLUMNS, PAGE, Row, newest_number
from tradecache.stores.payloads import SEALED, DamagedPayload, Owner, Payload, Payloads
from tradecache.stores.salvage import leftovers, only_one_process
from tradecache.stores.tags import START, TAG_BYTES, tag_of
from tradecache.stores.values import value_text

try:
    from tradecache.seals import NotSealed, Opened, Seal, names_of
    from tradecache.stores import keycard
    from tradecache.stores.keyring import Keyring
    from tradecache.stores.sealedfiles import SealedFiles, is_begun, key_of
    from tradecache.stores.unlocking import Keyed, check_keys, secret_of
except ImportError as missing:
    raise MissingDependency("cryptography", "encryption") from missing

T = TypeVar("T")

log = logging.getLogger("tradecache")

BATCH = 200  # rows that are read at a time
FRESH = 300.0  # seconds for which a file that holds nothing yet is taken for one that is being written
ENTRY = 2500  # bytes that a plain entry grows by: sealed, it takes a page of its own; and a third of its value beside them
SPARE = 1 << 20  # bytes that are to be free when all is done
PASSES = 20  # over what is left, before others are taken to write faster than this
COUNTS = (
    "sealed_anew", "put_aside", "superseded", "left", "files_deleted", "quarantine_deleted", "not_deleted",
    "not_compacted"
)  # fmt: skip
REMAINDER = (
    f"SELECT {COLUMNS} FROM entries WHERE (collection, key) > (?, ?) AND "  # noqa: S608 - our own columns
    f"substr(value, 1, {TAG_BYTES}) IS NOT ? ORDER BY collection, key LIMIT {BATCH}"
)
SIZES = (
    f"SELECT COALESCE(SUM(CASE WHEN substr(value, 1, {len(START)}) = x'{START.hex()}' THEN 0 "  # noqa: S608
    f"ELSE {ENTRY} + length(value) / 3 END), 0), COALESCE(MAX(CASE WHEN path IS NULL THEN 0 ELSE size END), 0) "
    "FROM entries"
)
CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)"
EXCHANGE = (
    "UPDATE OR IGNORE entries SET collection = ?, size = ?, checksum = ?, value = ?, path = ?, payload = ? "
    "WHERE collection = ? AND key = ? AND checksum = ?"
)
REMOVE = "DELETE FROM entries WHERE collection = ? AND key = ? AND checksum = ?"


class _FullMidway(StoreFull):
    """Raised when there is no space left for the rest."""

    sentence = (
        "has no space left, and only a part of it is encrypted: make room and run `tradecache rekey` again"
    )


class Exchange(NamedTuple):
    """What is to stand in place of an entry."""

    old: Row
    new: Row


def rekey(settings: Settings) -> pd.Series:
    """Encrypt everything in the folder with the first key of `settings.encryption_key`.

    What is there may be under the other keys given, or not encrypted at all, and names become what
    `settings.hashed_names` says. Other processes may go on where only the key changes, and have to begin anew
    for the rest. When all of it is done, the other keys may be thrown away, and the folder holds nothing of what
    was: unused pages of the ledger and files without an entry are gone, and `quarantine/` is emptied.

    Returns:
        Counts: entries sealed anew, damaged ones put aside, ones in whose place a newer one was, ones left as
        they are (run it again), files deleted, files deleted in quarantine, files that could not be deleted or
        lie in quarantine and are nobody's of ours, and 1 where another process, or a lack of room, kept the
        ledger from giving up its unused pages (run it again).

    Raises:
        InvalidInput: Without a key, or for a folder that holds no cache; nothing was made or changed there.
        WrongKey: When a key in use is not among those given.
        StoreBusy: When another `rekey` is at work in the folder.
        StoreFull: When there is not room enough; when it is found out before anything has changed, how much is needed.
        StoreReadOnly: When the folder may not be written.
    """
    if not settings.encryption_key:
        raise InvalidInput(
            "encryption_key", None, "set, the new key first: TRADECACHE_ENCRYPTION_KEY=new,old"
        )
    folder = settings.cache_dir
    try:
        if not folder.is_dir() or not newest_number(folder):
            raise InvalidInput("cache_dir", folder, "the folder of a cache, with a ledger in it")
        _guard_of(settings).admit(folder)  # before anything is made there
    except WrongKey:
        raise
    except OSError as error:
        raise told(folder, error) from error
    lock = FileLock(folder / "rekey.lock", thread_local=False, preserve_lock_file=True, mode=0o600)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise StoreBusy(folder, "another rekey is at work") from error
    except OSError as error:
        raise told(folder, error) from error
    try:
        return shared_bridge().run(_rekeyed(settings))
    finally:
        lock.release()


async def _rekeyed(settings: Settings) -> pd.Series:
    guard = _guard_of(settings)
    access = Access(settings.cache_dir, sync=settings.sync, lock_wait=settings.lock_wait, guard=guard)
    try:
        return await _Rekeying(settings, access, guard).run()
    finally:
        access.close()


def _guard_of(settings: Settings) -> "_Guard":
    return _Guard(Keyring(settings.encryption_key), hashed=settings.hashed_names)


class _Guard(Keyed):
    """Lets in who has all keys of a folder, whatever has to be done there still."""

    def check(self, folder: Path, card: keycard.Card) -> None:
        """See that all keys of a card are given."""
        check_keys(folder, card, self.ring)
        secret_of(folder, card, self.ring)


class _Rekeying:
    """One run over one folder."""

    def __init__(self, settings: Settings, access: Access, guard: _Guard) -> None:
        self.folder = settings.cache_dir
        self._access = access
        self._guard = guard
        self._ring = guard.ring
        self._hashed = settings.hashed_names
        fsync = settings.sync == "full"
        self._plain = Payloads(self.folder, fsync=fsync)
        self._payloads = Payloads(self.folder, fsync=fsync, form=SealedFiles(self._ring))
        self._counts: Counter[str] = Counter()

    async def run(self) -> pd.Series:
        """Do all of it, and return the counts."""
        if self._access.ledger.refusal is not None:
            raise self._access.meaning(self._access.ledger.refusal)
        await self._check_room()
        with keycard.one_at_a_time(self.folder):
            card = self._begun()
            try:
                keycard.write_card(self.folder, card)
            except OSError as error:
                raise told(self.folder, error) from error
        try:
            return await self._run(card)
        except (StoreError, WrongKey) as error:
            if not isinstance(error, StoreFull):
                raise
            raise _FullMidway(self.folder, error.reason) from error
        except OSError as error:  # from the card
            found = told(self.folder, error)
            raise (_FullMidway(self.folder, error) if isinstance(found, StoreFull) else found) from error

    async def _run(self, card: keycard.Card) -> pd.Series:
        """Do all of it after the card was written."""
        self._guard.card = card
        with keycard.one_at_a_time(self.folder):
            await self._write(lambda c: keycard.set_guard(c, card))
        await self._access.run(lambda x: x.run(lambda c: c.execute("PRAGMA secure_delete = ON")))
        self._prepare(card)
        for _ in range(PASSES):
            self._counts["left"] = 0
            if not await self._one_pass() or self._counts["left"]:
                break
        await self._finish(card)
        return pd.Series({name: self._counts[name] for name in COUNTS}, name="rekeyed", dtype="int64")

    async def _check_room(self) -> None:
        """See that there is room for what entries grow by, for the ledger twice while it is written anew, and one frame.

        Raises:
            StoreFull: When there is not.
        """
        ((growth, largest),) = await self._access.fetch(SIZES)
        ((pages,),) = await self._access.fetch("PRAGMA page_count")
        needed = growth + 2 * (pages * PAGE + growth) + largest + SPARE
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise StoreFull(self.folder, f"a rekey needs about {needed:,} bytes, and {free:,} are free")

    def _begun(self) -> keycard.Card:
        """Return the card as it is while this is at work."""
        before = keycard.read_card(self.folder)
        starts = self._access.at_once(lambda x: x.run(keycard.starts))
        tags = [tag_of(start) for start in starts]
        if before is None:
            card = keycard.new_card(self._ring.first, hashed=self._hashed)
            unfinished = {keycard.PLAIN} if None in tags else set()
        else:
            check_keys(self.folder, before, self._ring)
            card = before.with_key(self._ring.first, secret_of(self.folder, before, self._ring))
            unfinished = set(before.unfinished)
        secret = card.secret(self._ring)
        for tag in filter(None, tags):
            if before is None and tag.key_id not in self._ring:
                raise WrongKey(self.folder, f"holds entries under the key {tag.key_id}, which is not given")
            if before is None:
                card = card.with_key(self._ring[tag.key_id], secret)
            if tag.hashed != self._hashed:
                unfinished.add(keycard.NAMES)
            if before is None and tag.hashed:
                unfinished.add(keycard.LOST)
        return keycard.changed(card, hashed=self._hashed, unfinished=tuple(sorted(unfinished)))

    def _prepare(self, card: keycard.Card) -> None:
        """Make what opens the entries as they are and what seals them anew."""
        names = names_of(self._ring, card.secret(self._ring))
        self._takes_plain = keycard.PLAIN in card.unfinished
        self._has_lost_names = keycard.LOST in card.unfinished
        self._seals = {False: Seal(self._ring), True: Seal(self._ring, names)}
        self._seal = self._seals[self._hashed]
        self._start = self._seal.tag.start()
        self._changes_names = bool(card.unfinished)

    async def _one_pass(self) -> bool:
        """Go over what is not as it should be; return whether there was anything."""
        place: tuple[str, str] = ("", "")
        found = False
        passed_over = b"" if self._has_lost_names else self._start
        while rows := await self._access.fetch(REMAINDER, (*place, passed_over)):
            exchanges: list[Exchange] = []
            for row in map(Row._make, rows):
                found |= await self._prepared(row, exchanges)
            await self._enter(exchanges)
            await self._access.run(lambda x: x.run(lambda c: c.execute(CHECKPOINT).fetchone()))
            place = rows[-1][0], rows[-1][1]
        return found

    async def _prepared(self, row: Row, exchanges: list[Exchange]) -> bool:
        """Add what is to stand in place of an entry; return whether anything was to be done with it."""
        try:
            opened = self._opened(row)
            hidden = self._seal.hidden(opened.collection)
            if row.value.startswith(self._start) and hidden == row.collection:
                return False
            owner = Owner(hidden, row.key, value_text(self._seal.spelt(opened)))
            if (old := payload_of(row)) is None:
                exchanges.append(_exchange(row, owner, None))
            else:
                new = self._payloads.write_bytes(owner, self._content(row, old))
                await self._enter([_exchange(row, owner, new)])
        except (NotSealed, DamagedPayload, ValueError) as error:
            await self._put_aside(row, error)
        except FileNotFoundError as error:
            await self._without_file(row, error)
        except (StoreError, WrongKey):
            raise
        except OSError as error:
            log.warning("%r in %r is left as it is: %s", row.key, row.collection, error)
            self._counts["left"] += 1
        return True

    def _opened(self, row: Row) -> Opened:
        """Return what an entry is, in whichever form it is kept."""
        if not row.is_intact:
            raise DamagedPayload("the checksum of its row differs")
        has_frame = payload_of(row) is not None
        tag = tag_of(row.value)
        if tag is None:
            if not self._takes_plain:
                raise NotSealed("it is not sealed, in a folder that is")
            from_json(row.value)
            return Opened(row.collection, row.key, row.expires, has_frame, row.value)
        where = None if tag.hashed and self._has_lost_names else row.collection
        return self._seals[tag.hashed].opened_at(where, row.key, from_json(row.value), has_frame=has_frame)

    def _content(self, row: Row, payload: Payload) -> Content:
        """Return the Arrow file of an entry."""
        if tag_of(row.value) is not None:
            return self._payloads.content(payload, owner_of(row))
        if payload.path.endswith(SEALED):
            raise DamagedPayload("its file is encrypted, and it is not")
        return self._plain.content(payload, owner_of(row))

    async def _enter(self, exchanges: list[Exchange]) -> None:
        """Enter all of these that are still what they were, in one transaction."""

        def work(connection: sqlite3.Connection) -> list[str]:
            return [_exchanged(connection, each) for each in exchanges]

        paths = [each.new.path for each in exchanges]
        try:
            outcomes = await self._write(work) if exchanges else []
        except (
            Exception,
            asyncio.CancelledError,
        ):  # Ctrl-C may come after the commit: then the file is needed
            self._payloads.remove(paths)
            raise
        for each, path, outcome in zip(exchanges, paths, outcomes, strict=True):
            self._counts[outcome] += 1
            self._payloads.remove([each.old.path if outcome != "gone" else None])
            self._payloads.remove([path if outcome != "sealed_anew" else None])

    async def _without_file(self, row: Row, error: Exception) -> None:
        """Put an entry aside whose file is missing, unless somebody has replaced both meanwhile."""
        now = await self._access.run(lambda ledger: ledger.get(row.collection, row.key))
        if now is not None and now.checksum == row.checksum:
            await self._put_aside(row, error)

    async def _put_aside(self, row: Row, reason: Exception) -> None:
        log.warning("%r in %r is put aside: %s", row.key, row.collection, reason)
        self._counts["put_aside"] += 1
        if row.path:
            self._payloads.quarantine(row.path)
        same = (row.collection, row.key, row.checksum)
        await self._write(lambda c: c.execute(REMOVE, same))

    async def _finish(self, card: keycard.Card) -> None:
        """Have only the new key from now on, if nothing is left under others, and clear up behind it."""
        with keycard.one_at_a_time(self.folder):
            final = card.only(self._ring.first)

            def work(connection: sqlite3.Connection) -> int:
                query = f"SELECT COUNT(*) FROM entries WHERE substr(value, 1, {TAG_BYTES}) IS NOT ?"  # noqa: S608
                (left,) = connection.execute(query, (self._start,)).fetchone()
                if not left:
                    keycard.set_guard(connection, final)
                return int(left)

            self._counts["left"] = await self._write(work)
            if self._counts["left"]:
                return
            await self._clear_up()
            keycard.write_card(self.folder, final)

    async def _clear_up(self) -> None:
        query = "SELECT path FROM entries WHERE path IS NOT NULL"
        known = {row[0] for row in await self._access.fetch(query)}
        with only_one_process(self.folder):  # else a ledger may be being mended
            self._delete(self._outdated(known), "files_deleted")
        self._delete((self.folder / QUARANTINE).glob("*"), "quarantine_deleted")
        if self._changes_names:
            self._payloads.remove_empty(but=[LOCKS])
        self._counts["not_compacted"] = int(not await self._compacted())

    def _delete(self, paths: Iterable[Path], count: str) -> None:
        """Delete files and count them; what cannot be deleted, or is not ours in quarantine, is told and left."""
        for path in sorted(paths):
            reason = "it is not of this cache's making"
            try:
                if path.parent.name != QUARANTINE or QUARANTINED.fullmatch(path.name):
                    path.unlink(missing_ok=True)
                    self._counts[count] += 1
                    continue
            except OSError as error:
                reason = str(error.strerror)
            log.warning("%s is left as it is: %s", path, reason)
            self._counts["not_deleted"] += 1

    def _outdated(self, known: set[str]) -> Iterator[Path]:
        """Yield files that may hold something in another form than the present: of no entry, or notes.

        One of no entry that is sealed under the new key is left: its writer may be about to enter it.
        """
        for name, _ in list(self._payloads.files()):
            path = self.folder / name
            is_current = key_of(path) == self._ring.first.id or is_begun(path, within=FRESH)
            if name not in known and not is_current:
                yield path
        yield from notes(self.folder / LOCKS)
        yield from locks(self.folder / LOCKS) if self._changes_names else []
        yield from leftovers(self.folder, newest_number(self.folder))

    async def _compacted(self) -> bool:
        """Have the ledger keep nothing of what was; return whether others let it."""
        try:
            await self._access.run(lambda x: x.run(lambda c: c.execute("VACUUM")))
            await self._access.run(lambda x: x.run(_emptied_log))
        except (StoreBusy, StoreFull):
            return False
        return True

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._access.run(lambda ledger: ledger.write(work))


def _exchange(row: Row, owner: Owner, payload: Payload | None) -> Exchange:
    return Exchange(row, row_of(owner, payload, created=row.created, expires=row.expires))


def _exchanged(connection: sqlite3.Connection, each: Exchange) -> str:
    """Enter one exchange; return what became of it: "sealed_anew", "superseded" or, of an entry changed meanwhile, "gone"."""
    old, new = each
    content = (new.collection, new.size, new.checksum, new.value, new.path, new.payload)
    same = (old.collection, old.key, old.checksum)
    if connection.execute(EXCHANGE, (*content, *same)).rowcount:
        return "sealed_anew"
    return "superseded" if connection.execute(REMOVE, same).rowcount else "gone"


def _emptied_log(connection: sqlite3.Connection) -> None:
    """Bring the log into the database and cut it to nothing.

    Raises:
        sqlite3.OperationalError: When another process is reading from it.
    """
    (is_busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if is_busy:
        error = sqlite3.OperationalError("the log is in use")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error
