"""How does a test get a small disk of its own, without touching what others see?"""

import contextlib
import subprocess
import tempfile
from pathlib import Path

import pytest
from children import Child, Nursery

WAYS = (["unshare", "-m"], ["unshare", "-rm"])  # as root, or as root of a user namespace of its own


def seclusion() -> list[str]:
    """Return a command that runs another where it may mount; skip the test where there is none."""
    reasons = []
    for way in WAYS:
        trial = [*way, "mount", "-t", "tmpfs", "tmpfs", tempfile.gettempdir()]
        with contextlib.suppress(FileNotFoundError):
            done = subprocess.run(trial, capture_output=True, check=False, text=True)
            if not done.returncode:
                return way
            reasons.append(done.stderr.strip())
    return pytest.skip(f"no disk can be mounted here: {'; '.join(reasons) or 'there is no unshare'}")


class SmallDisk:
    """A disk of 4 MB, seen only by the servants that it starts."""

    def __init__(self, nursery: Nursery, folder: Path) -> None:
        self._nursery = nursery
        self._ending = contextlib.ExitStack()
        self._folder = folder
        folder.mkdir()
        self._mount("-t", "tmpfs", "-o", "size=4m", "tmpfs")

    def forbid_writing(self) -> None:
        """Make the disk read-only; nobody may have a file open for writing."""
        self._mount("-o", "remount,ro")

    def start(self, name: str = "cache", **settings: object) -> Child:
        """Start a servant on a folder of the disk, which ends with the disk."""
        child = self._nursery.start("servants:serve", str(self._folder / name), settings)
        self._ending.callback(child.end)
        return child

    def open(self, **settings: object) -> Child:
        """Start a servant and wait until it has opened its cache."""
        child = self.start(**settings)
        assert child.hear() == "open"
        return child

    def close(self) -> None:
        """End the servants; the disk goes with the process that forks them."""
        self._ending.close()

    def _mount(self, *options: str) -> None:
        child = self._nursery.start("servants:mount", *options, str(self._folder))
        assert child.hear() == "done"
        child.end()
