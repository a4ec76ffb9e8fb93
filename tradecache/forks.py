"""How does what a lock guards get through a fork? The thread that forks holds every such lock meanwhile."""

import os
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threading import RLock

_locks: "weakref.WeakSet[RLock]" = weakref.WeakSet()
_held: "list[RLock]" = []
one_fork = threading.RLock()
"""Held from before a fork until after it: one thread forks at a time, and what has to be held does not change."""


def fork_safe_lock() -> "RLock":
    """Return a lock that is free in a forked child, and what it guards is in no half-way state there.

    Whoever holds one may not wait for another.
    """
    lock = threading.RLock()
    with one_fork:
        _locks.add(lock)
    return lock


def _hold() -> None:
    one_fork.acquire()
    _held.extend(_locks)
    for lock in _held:
        lock.acquire()


def _release() -> None:
    for lock in _held:
        lock.release()
    _held.clear()
    one_fork.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_release)
