"""Where do the frames of the durable tier lie on disk, and are they what was written?"""

import errno
import mmap
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import pandas as pd
import pyarrow as pa
import xxhash

from tradecache.stores.arrow import Content, Writable, as_table, decode_frame, write_table
from tradecache.stores.disk import QUARANTINE, quarantined, sync_folder

if TYPE_CHECKING:
    from tradecache.stores.keyring import Keyring

SUFFIX = ".arrow"
SEALED = ".arrow.sealed"
SUFFIXES = (SUFFIX, SEALED)
TEMPORARY = tuple(f"{suffix}.tmp" for suffix in SUFFIXES)
MAX_NAME = 100  # bytes of a folder's or file's name before its unique id
MAX_DEPTH = 8  # folders below each other; what is left of a collection's name is one folder
CHUNK = 1 << 20  # bytes to a write: one of all of a large file takes twice as long on a busy machine
MAPPED = 1 << 20  # bytes from which on a payload is mapped and not read
MAX_VERIFIED = 200_000

_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Through no link, and without waiting for the other end of a pipe."""

_UNSAFE = re.compile(rb"[^A-Za-z0-9_=^-]")
_RESERVED = re.compile(rb"(?i)con|prn|aux|nul|com[0-9]|lpt[0-9]|changes|quarantine")
"""Names that are devices on Windows, and the two of ours that have no dot."""


class DamagedPayload(Exception):
    """Raised when a payload is missing, cut, altered, or not where a payload may lie."""


class LockedPayload(Exception):
    """Raised when a payload is encrypted and there is no key: nothing is known to be wrong with it."""


class Payload(NamedTuple):
    """What the ledger knows of a payload file: where it is below the folder, its size and its xxh3."""

    path: str
    size: int
    checksum: int


class Payloads:
    """Immutable Arrow IPC files below one folder, `<collection's parts>/<key>.<id>.arrow`.

    A file is written under a temporary name, renamed, and never changed again. Names are made safe, and
    may look alike on a file system that ignores case; the random id keeps them apart and the ledger, not
    the name, says what a file holds.

    With keys they are encrypted, called `.arrow.sealed`, and no others are read (see `cipher.py`).
    """

    def __init__(
        self,
        folder: Path,
        *,
        compression: str = "none",
        fsync: bool = False,
        ring: "Keyring | None" = None,
    ) -> None:
        self.folder = folder
        self.ring = ring
        if ring is not None:
            import tradecache.stores.cipher  # noqa: F401 - now, not in a first read
        self._compression = compression
        self._fsync = fsync
        self._verified: dict[str, tuple[int, int]] = {}
        self._root = os.path.realpath(folder)

    @property
    def mapped_from(self) -> int | None:
        """Bytes of a file from which on it is mapped and not read; None where all are decompressed or decrypted."""
        return MAPPED if self._compression == "none" and self.ring is None else None

    def write(self, collection: str, key: str, frame: pd.DataFrame, *, text: bytes = b"") -> Payload:
        """Write `frame`, as `normal_value` leaves it, into a new file, and return where it is.

        Args:
            collection: Of its entry.
            key: Of its entry.
            frame: What to write.
            text: The JSON of its entry, to which it is bound where it is encrypted.

        Raises:
            NotStorable: When Arrow cannot hold the frame.
            OSError: When the file cannot be written; then no part of it is left.
        """
        table = as_table(frame)
        return self._new_file(
            collection, key, text, lambda file: write_table(table, file, compression=self._compression)
        )

    def write_bytes(self, collection: str, key: str, content: memoryview, *, text: bytes) -> Payload:
        """Write what is in another payload's file into a new one, as `write` does."""
        return self._new_file(collection, key, text, lambda file: file.write(content))

    def _new_file(self, collection: str, key: str, text: bytes, fill: Callable[[Writable], None]) -> Payload:
        where = "/".join(safe_name(part) for part in collection.split("/", MAX_DEPTH - 1))
        name = f"{safe_name(key)}.{secrets.token_hex(8)}{SUFFIX if self.ring is None else SEALED}"
        directory = self.folder / where
        self._make(directory)
        temporary = directory / f".{name}.tmp"
        try:
            with _NewFile(temporary) as file:
                self._fill(file, fill, collection, key, text)
                if self._fsync:
                    os.fsync(file.descriptor)
            temporary.rename(directory / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if self._fsync:
            sync_folder(directory)
        return Payload(f"{where}/{name}", file.size, file.checksum)

    def _fill(
        self, file: "_NewFile", fill: Callable[[Writable], None], collection: str, key: str, text: bytes
    ) -> None:
        if self.ring is None:
            fill(file)
            return
        from tradecache.stores.cipher import Sealing, belonging_to

        sealing = Sealing(self.ring.first, belonging_to(collection, key, text), file.write)
        fill(sealing)
        sealing.finish()

    def _make(self, directory: Path) -> None:
        """Make a folder and those above it, each for its owner only."""
        if directory.is_dir():
            return
        self._make(directory.parent)
        directory.mkdir(exist_ok=True, mode=0o700)

    def read(
        self, payload: Payload, *, collection: str = "", key: str = "", text: bytes = b""
    ) -> pd.DataFrame:
        """Return the frame in a payload's file, mapped where it is uncompressed and not encrypted.

        Args:
            payload: Which one.
            collection: Of its entry, as `key` and `text` are; they count where it is encrypted.
            key: See there.
            text: See there.

        Raises:
            FileNotFoundError: When there is no such file (another process may have replaced the entry).
            DamagedPayload: When it is not what was written.
            UnknownKey: When it is encrypted under a key that was not given.
            LockedPayload: When it is encrypted, and no key was given.
        """
        content = self.content(payload, collection=collection, key=key, text=text)
        try:
            return decode_frame(content)
        except MemoryError:
            raise  # nothing is wrong with the file
        except Exception as error:  # its checksum fits, so it was planted, or written by another version
            raise DamagedPayload(f"it is no Arrow file of ours: {error}") from error

    def content(self, payload: Payload, *, collection: str = "", key: str = "", text: bytes = b"") -> Content:
        """Return the Arrow file in a payload's file, verified, and decrypted where it was encrypted, as `read` does."""
        if self.ring is not None:
            return self._opened(payload, collection, key, text)
        if payload.path.endswith(SEALED):
            raise LockedPayload("it is encrypted")
        mapping, written = self._map(payload)
        if self._verified.get(payload.path) != written:
            if checksum(mapping) != payload.checksum:
                raise DamagedPayload("its checksum differs")
            if len(self._verified) >= MAX_VERIFIED:
                self._verified.clear()
            self._verified[payload.path] = written
        return mapping

    def _opened(self, payload: Payload, collection: str, key: str, text: bytes) -> Content:
        """Return what is in a sealed file; what it is authenticated by says more than its checksum."""
        from tradecache.stores.cipher import Unreadable, belonging_to, opened

        if not payload.path.endswith(SEALED):
            raise DamagedPayload("it is not encrypted")
        assert self.ring is not None  # noqa: S101 - told to the type checker
        mapping, _ = self._map(payload)
        try:
            return opened(mapping, self.ring, belonging_to(collection, key, text))
        except Unreadable as error:
            raise DamagedPayload(str(error)) from None

    def _map(self, payload: Payload) -> tuple[mmap.mmap | bytearray, tuple[int, int]]:
        """Map a file; read a small one, because a mapping holds a descriptor for as long as its frame lives."""
        path = self._inside(payload.path)
        try:
            descriptor = os.open(path, _READ)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise DamagedPayload("it is a link") from error
            raise
        try:
            status = os.fstat(descriptor)
            if status.st_size != payload.size or not status.st_size:
                raise DamagedPayload(f"it has {status.st_size:,} bytes, not {payload.size:,}")
            mapping = _content(descriptor, payload.size)
        finally:
            os.close(descriptor)
        return mapping, (status.st_mtime_ns, status.st_ino)

    def _inside(self, path: str) -> str:
        """Return the full path; whatever a ledger says, nothing outside the folder is opened or removed."""
        if not isinstance(path, str):
            raise DamagedPayload("its path is no text")
        parts = path.split("/")
        full = f"{self._root}/{path}"
        if path in self._verified:
            return full
        if ".." in parts or not path.endswith(SUFFIXES) or any(c in path for c in "\\:\0") or path[0] == "/":
            raise DamagedPayload("its path leads out of the folder")
        if os.path.realpath(os.path.dirname(full)) != os.path.normpath(os.path.dirname(full)):  # noqa: PTH120
            raise DamagedPayload("its path leads through a link")
        return full

    def remove(self, paths: Iterable[str | None]) -> None:
        """Delete payload files that no entry names any more; absent ones are fine."""
        for path in paths:
            if not path:
                continue
            self._verified.pop(path, None)
            try:
                os.unlink(self._inside(path))  # noqa: PTH108
            except (OSError, DamagedPayload):
                continue  # a file left behind is swept by purge()

    def distrust(self, path: str) -> None:
        """Have the checksum of a file verified again the next time it is read."""
        self._verified.pop(path, None)

    def quarantine(self, path: str) -> Path | None:
        """Move a damaged payload to `quarantine/`; return where it went, None when there was no file."""
        self._verified.pop(path, None)
        try:
            return quarantined(self.folder, Path(self._inside(path)))
        except (OSError, DamagedPayload):
            return None

    def sweep(self, known: set[str], *, older_than: float) -> list[tuple[str, int]]:
        """Delete files that no entry names and that are older than `older_than` seconds.

        The age guard is for another process that has written a file and is about to enter it.

        Returns:
            The path and the size in bytes of each deleted file.
        """
        swept = []
        limit = time.time() - older_than  # a file's age is told by the file system's clock
        for path, status in self.files():
            if path in known or status.st_mtime > limit:
                continue
            (self.folder / path).unlink(missing_ok=True)
            swept.append((path, status.st_size))
        return swept

    def files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield every payload and left-over temporary file, as a path below the folder and its status."""
        for directory, below, names in os.walk(self.folder):
            if Path(directory) == self.folder and QUARANTINE in below:
                below.remove(QUARANTINE)
            for name in names:
                if name.endswith((*SUFFIXES, *TEMPORARY)):
                    full = Path(directory, name)
                    try:
                        yield full.relative_to(self.folder).as_posix(), full.lstat()
                    except FileNotFoundError:
                        continue  # removed by another process since it was listed


class _NewFile:
    """A file for its owner only, which is made, and whose checksum is known once all is written."""

    closed = False  # what pyarrow asks of a file

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self.descriptor = os.open(path, flags, 0o600)
        self.size = 0
        self._hash = xxhash.xxh3_64()

    def write(self, content: pa.Buffer | bytes | memoryview) -> None:
        """Write all of `content`, at most `CHUNK` bytes at a time."""
        view = memoryview(content)
        self._hash.update(view)
        self.size += len(view)
        while view:
            view = view[os.write(self.descriptor, view[:CHUNK]) :]

    def flush(self) -> None:
        """Do nothing: what is written is with the system."""

    @property
    def checksum(self) -> int:
        """The checksum of what was written."""
        return _signed(self._hash.intdigest())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def _content(descriptor: int, size: int) -> mmap.mmap | bytearray:
    if size >= MAPPED:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    content = bytearray(size)
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        count = file.readinto(content)
    if count != size:
        raise DamagedPayload(f"it has {count:,} bytes, not {size:,}")
    return content


def checksum(content: mmap.mmap | bytearray) -> int:
    """Return the xxh3 (64 bits) of some bytes as the signed integer that SQLite stores."""
    return _signed(xxhash.xxh3_64_intdigest(content))


def _signed(digest: int) -> int:
    return digest - 2**63


def safe_name(text: str) -> str:
    """Return a file name for any text: ASCII letters and digits as they are, the rest percent-encoded.

    >>> safe_name("BRK.B"), safe_name("../../etc"), safe_name("CON")
    ('BRK%2EB', '%2E%2E%2F%2E%2E%2Fetc', '%43ON')
    """
    raw = text.encode("utf-8", "surrogatepass")
    name = _UNSAFE.sub(lambda found: b"%" + found[0].hex().upper().encode(), raw)
    if _RESERVED.fullmatch(raw):
        name = b"%" + raw[:1].hex().upper().encode() + raw[1:]
    if len(name) > MAX_NAME:
        name = name[: MAX_NAME - 17].rstrip(b"%") + b"~" + xxhash.xxh3_64_hexdigest(raw).encode()
    return name.decode("ascii") or "%"
