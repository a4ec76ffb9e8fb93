"""How does sync code run the async core? The only room that knows event loops and threads.

One private event loop on one daemon thread does all the work, whoever calls: a script, a Jupyter cell
(whose own loop is running), several threads, an async function, a forked child. asyncio is never patched.
"""

import asyncio
import atexit
import concurrent.futures
import contextlib
import contextvars
import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from tradecache.errors import WrongThread

T = TypeVar("T")

GRACE = 2.0  # seconds that interrupted work is given to stop
POLL = 0.1  # seconds; on Windows a waiting thread does not notice Ctrl-C


class Bridge:
    """A private event loop on a daemon thread, started by the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the private loop, wait for it, and return its result or raise its error.

        The caller's context variables are visible to it. When the wait is interrupted (Ctrl-C), the work
        is cancelled before `KeyboardInterrupt` goes on.

        Raises:
            WrongThread: When called from the private loop itself, which would wait for itself.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise WrongThread
        loop = self._started()
        done: concurrent.futures.Future[T] = concurrent.futures.Future()
        started: list[asyncio.Task[None]] = []
        context = contextvars.copy_context()

        def begin() -> None:
            started.append(loop.create_task(_settle(work, done), context=context))

        loop.call_soon_threadsafe(begin)
        try:
            return _wait(done)
        except BaseException:
            if not done.done():
                loop.call_soon_threadsafe(lambda: [task.cancel() for task in started])
                concurrent.futures.wait([done], timeout=GRACE)
            raise

    def stop(self) -> None:
        """Stop the loop; the next `run` starts another."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None and thread.is_alive():
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=GRACE)

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = (
                    asyncio.SelectorEventLoop() if sys.platform == "win32" else asyncio.new_event_loop()
                )
                self._thread = threading.Thread(
                    target=_serve, args=(self._loop,), name="tradecache", daemon=True
                )
                self._thread.start()
            return self._loop


async def _settle(work: Coroutine[Any, Any, T], done: concurrent.futures.Future[T]) -> None:
    """Carry the outcome of `work` over to the thread that waits."""
    try:
        done.set_result(await work)
    except asyncio.CancelledError:
        done.cancel()
        done.set_running_or_notify_cancel()
    except BaseException as error:  # noqa: BLE001 - it is the caller's, and is raised there
        done.set_exception(error)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        with contextlib.suppress(RuntimeError):
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()


def _wait(done: "concurrent.futures.Future[T]") -> T:
    if sys.platform != "win32":
        return done.result()
    while True:
        with contextlib.suppress(concurrent.futures.TimeoutError):
            return done.result(timeout=POLL)
        if done.done():
            return done.result()


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that is about to return without waiting for anything, in the calling thread.

    Where it turns out to wait after all, it is closed and told so.

    Raises:
        Unfinished: When it would have had to wait.
    """
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    work.close()
    raise Unfinished


class Unfinished(Exception):
    """Raised by `finish` for work that cannot be finished on the spot."""


_shared = Bridge()


def shared_bridge() -> Bridge:
    """Return the bridge of this process."""
    return _shared


def _renew_after_fork() -> None:
    """Give a forked child a bridge of its own: its parent's loop has no thread there."""
    global _shared  # noqa: PLW0603 - one bridge per process is the point
    _shared = Bridge()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)


@atexit.register
def _stop() -> None:
    """Stop the loop of this process, whichever bridge it has by then."""
    _shared.stop()
