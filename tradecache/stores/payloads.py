"""Where do the frames of the durable tier lie on disk, and are they what was written?"""

import contextlib
import errno
import mmap
import os
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import pandas as pd
import pyarrow as pa
import xxhash

from tradecache.stores.arrow import Content, Writable, as_table, decode_frame, write_table
from tradecache.stores.disk import QUARANTINE, quarantined, sync_folder
from tradecache.stores.tags import locked

SUFFIX = ".arrow"
SEALED = ".arrow.sealed"
SUFFIXES = (SUFFIX, SEALED)
TEMPORARY = ".tmp"
_OURS = re.compile(r".+\.[0-9a-f]{16}\.arrow(\.sealed)?|\..+\.arrow(\.sealed)?\.tmp", re.DOTALL)
"""What payloads are called, and these until all of them is written; other files are somebody else's."""
MAX_NAME = 100  # bytes of a folder's or file's name before its unique id
MAX_DEPTH = 8  # folders below each other; what is left of a collection's name is one folder
Mapped = mmap.mmap | bytearray
"""What is in a file: a large one is mapped, a small one read."""

CHUNK = 1 << 20  # bytes to a write: one of all of a large file takes twice as long on a busy machine
MAPPED = 1 << 20  # bytes from which on a payload is mapped and not read
MAX_VERIFIED = 200_000

_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Through no link, and without waiting for the other end of a pipe."""

_UNSAFE = re.compile(rb"[^A-Za-z0-9_=^-]")
_IS_SAFE = re.compile(r"[A-Za-z0-9_=^%~-]+")
_RESERVED = re.compile(rb"(?i)con|prn|aux|nul|com[0-9]|lpt[0-9]|changes|quarantine")
"""Names that are devices on Windows, and the two of ours that have no dot."""


class DamagedPayload(Exception):
    """Raised when a payload is missing, cut, altered, or not where a payload may lie."""


class Payload(NamedTuple):
    """What the ledger knows of a payload file: where it is below the folder, its size and its xxh3."""

    path: str
    size: int
    checksum: int


class Owner(NamedTuple):
    """The entry that a payload belongs to: its collection, its key, and its JSON as the ledger holds it."""

    collection: str
    key: str
    text: bytes


class Form(Protocol):
    """In which form payloads are kept: as they are, or encrypted (see `sealedfiles.py`)."""

    suffix: str
    is_mapped: bool
    """Whether a file's bytes are those of the frame."""

    def check(self, path: str) -> None:
        """Raise for a file that is in another form."""

    def fill(self, file: Writable, owner: Owner, write: Callable[[Writable], None]) -> None:
        """Have an Arrow file written into another file, for its owner."""

    def opened(self, content: Mapped, payload: Payload, owner: Owner, *, is_known: bool) -> Content:
        """Return the Arrow file that is in a file; raise where it is not what was written.

        Where `is_known`, the file has not changed since it was opened before.
        """


class PlainFiles:
    """Payloads as they are; encrypted ones in a folder are refused.

    Args:
        folder: Theirs.
    """

    suffix = SUFFIX
    is_mapped = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check(self, path: str) -> None:
        """Refuse an encrypted file.

        Raises:
            WrongKey: For nothing is known to be wrong with it.
        """
        if path.endswith(SEALED):
            raise locked(self._folder)

    def fill(self, file: Writable, owner: Owner, write: Callable[[Writable], None]) -> None:  # noqa: ARG002
        """Write into the file itself; it is bound to its owner by the ledger's checksums."""
        write(file)

    def opened(self, content: Mapped, payload: Payload, owner: Owner, *, is_known: bool) -> Content:  # noqa: ARG002
        """Return the file itself.

        Raises:
            DamagedPayload: When its checksum differs.
        """
        if not is_known and checksum(content) != payload.checksum:
            raise DamagedPayload("its checksum differs")
        return content


class Payloads:
    """Immutable Arrow IPC files below one folder, `<collection's parts>/<key>.<id>.arrow`.

    A file is written under a temporary name, renamed, and never changed again. Names are made safe, and
    may look alike on a file system that ignores case; the random id keeps them apart and the ledger, not
    the name, says what a file holds.

    Args:
        folder: Theirs.
        compression: Of the Arrow files.
        fsync: Whether a file survives a power loss once it is written.
        form: Whether files are encrypted; by default they are not. No others are read.
    """

    def __init__(
        self,
        folder: Path,
        *,
        compression: str = "none",
        fsync: bool = False,
        form: Form | None = None,
    ) -> None:
        self.folder = folder
        self._form = form or PlainFiles(folder)
        self._compression = compression
        self._fsync = fsync
        self._verified: dict[str, tuple[int, int]] = {}
        self._root = os.path.realpath(folder)

    @property
    def mapped_from(self) -> int | None:
        """Bytes of a file from which on it is mapped and not read; None where all are decompressed or decrypted."""
        return MAPPED if self._compression == "none" and self._form.is_mapped else None

    def write(self, owner: Owner, frame: pd.DataFrame) -> Payload:
        """Write `frame`, as `normal_value` leaves it, into a new file, and return where it is.

        Raises:
            NotStorable: When Arrow cannot hold the frame.
            OSError: When the file cannot be written; then no part of it is left.
        """
        table = as_table(frame)
        return self._new_file(owner, lambda file: write_table(table, file, compression=self._compression))

    def write_bytes(self, owner: Owner, content: Content) -> Payload:
        """Write what is in another payload's file into a new one, as `write` does."""
        view = memoryview(content)  # type: ignore[arg-type]  # numpy says so only from Python 3.12 on
        return self._new_file(owner, lambda file: file.write(view))

    def _new_file(self, owner: Owner, write: Callable[[Writable], None]) -> Payload:
        where = "/".join(safe_name(part) for part in owner.collection.split("/", MAX_DEPTH - 1))
        name = f"{safe_name(owner.key)}.{secrets.token_hex(8)}{self._form.suffix}"
        directory = self.folder / where
        self._make(directory)
        temporary = directory / f".{name}{TEMPORARY}"
        try:
            with _NewFile(temporary) as file:
                self._form.fill(file, owner, write)
                if self._fsync:
                    os.fsync(file.descriptor)
            temporary.rename(directory / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if self._fsync:
            sync_folder(directory)
        return Payload(f"{where}/{name}", file.size, file.checksum)

    def _make(self, directory: Path) -> None:
        """Make a folder and those above it, each for its owner only."""
        if directory.is_dir():
            return
        self._make(directory.parent)
        directory.mkdir(exist_ok=True, mode=0o700)

    def read(self, payload: Payload, owner: Owner) -> pd.DataFrame:
        """Return the frame in a payload's file, mapped where it is uncompressed and not encrypted.

        Raises:
            FileNotFoundError: When there is no such file (another process may have replaced the entry).
            DamagedPayload: When it is not what was written for this owner.
            WrongKey: When it is encrypted, and its key was not given.
        """
        content = self.content(payload, owner)
        try:
            return decode_frame(content)
        except MemoryError:
            raise  # nothing is wrong with the file
        except Exception as error:  # its checksum fits, so it was planted, or written by another version
            raise DamagedPayload(f"it is no Arrow file of ours: {error}") from error

    def content(self, payload: Payload, owner: Owner) -> Content:
        """Return the Arrow file in a payload's file, verified, and decrypted where it was encrypted, as `read` does."""
        self._form.check(payload.path)
        mapping, written = self._map(payload)
        is_known = self._verified.get(payload.path) == written
        content = self._form.opened(mapping, payload, owner, is_known=is_known)
        if not is_known:
            if len(self._verified) >= MAX_VERIFIED:
                self._verified.clear()
            self._verified[payload.path] = written
        return content

    def _map(self, payload: Payload) -> tuple[Mapped, tuple[int, int]]:
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
                if _OURS.fullmatch(name):
                    full = Path(directory, name)
                    try:
                        yield full.relative_to(self.folder).as_posix(), full.lstat()
                    except FileNotFoundError:
                        continue  # removed by another process since it was listed

    def remove_empty(self, *, but: Collection[str]) -> None:
        """Remove folders that are empty, and so only say how a collection was called; none called as in `but`."""
        kept = {QUARANTINE, *but}
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.name in kept or not _IS_SAFE.fullmatch(path.name):
                continue
            if path.is_dir() and not path.is_symlink():
                with contextlib.suppress(OSError):  # it is not empty
                    path.rmdir()


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


def _content(descriptor: int, size: int) -> Mapped:
    if size >= MAPPED:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    content = bytearray(size)
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        count = file.readinto(content)
    if count != size:
        raise DamagedPayload(f"it has {count:,} bytes, not {size:,}")
    return content


def checksum(content: Mapped) -> int:
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
