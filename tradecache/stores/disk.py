"""How are files made private, put into quarantine, and their names made to last?"""

import contextlib
import os
import re
import secrets
import time
from pathlib import Path

QUARANTINE = "quarantine"
TEMPORARY = re.compile(r"\.[0-9a-f]{16}\..+")
"""What files are called that are made here, until they have their own name."""
QUARANTINED = re.compile(r"\d+-.+", re.DOTALL)
"""What files are called that were put into quarantine."""


def create_private(path: Path) -> None:
    """Create an empty file for its owner only, if there is none; SQLite gives those beside it the same mode.

    The file itself is never opened: to close it would take away all locks that this process has on it.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.{path.name}")
    with contextlib.suppress(OSError):  # who opens it meets the same error, and names it
        if path.exists():
            return
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            os.link(temporary, path)
        finally:
            temporary.unlink()


def replace_private(path: Path, content: bytes, *, fsync: bool = False) -> None:
    """Write a file for its owner only, in the place of the one that is there: all of it or nothing.

    Args:
        path: Where.
        content: All of it.
        fsync: Whether it survives a power loss, too, once this returns.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if fsync:
                file.flush()
                os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if fsync:
        sync_folder(path.parent)


def quarantined(folder: Path, path: Path) -> Path:
    """Move a file below `folder` to its `quarantine/`, under a name that is not taken, and return it."""
    place = folder / QUARANTINE
    place.mkdir(mode=0o700, exist_ok=True)
    target = place / f"{time.time_ns()}-{path.name}"
    return path.rename(target)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power loss, where the system offers it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
