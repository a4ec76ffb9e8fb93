"""How does sync code run the async core? The only room that knows event loops and threads.

One private event loop on one daemon thread does all the work, whoever calls: a script, a Jupyter cell
(whose own loop is running), several threads, an async function, a forked child. asyncio is never patched.
"""

import asyncio
import atexit
import concurrent.futures
import contextlib
import contextvars
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

from tradecache.errors import WrongThread

T = TypeVar("T")

log = logging.getLogger("tradecache")

GRACE = 2.0  # seconds that interrupted work is given to stop
POLL = 0.1  # seconds; on Windows a waiting thread does not notice Ctrl-C


class Bridge:
    """A private event loop on a daemon thread, started by the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._repeated: set[asyncio.Task[None]] = set()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the private loop, wait for it, and return its result or raise its error.

        The caller's context variables are visible to it. When the wait is interrupted (Ctrl-C), the work
        is cancelled before `KeyboardInterrupt` goes on.

        Raises:
            WrongThread: When called from the private loop itself, which would wait for itself.
            concurrent.futures.CancelledError: When the loop was stopped, or the work cancelled itself.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise WrongThread
        call = _Call(work)
        loop = None
        try:
            with self._lock:  # so that what is begun here is known to a `stop` that comes after
                loop = self._running()
                loop.call_soon_threadsafe(call.begin)
            call.wait()
        except BaseException:
            _give_up(call, loop)
            raise
        if _ending.is_set():
            _let_end()
        return call.outcome()

    def stop(self) -> None:
        """Cancel what is under way and stop the loop; the next `run` starts another."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None and thread.is_alive():
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=2 * GRACE)

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the private loop, which runs from now on."""
        with self._lock:
            return self._running()

    def every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> Callable[[], None]:
        """Do some work again and again on the private loop, and a last time when that is stopped.

        An error of it is logged, and the work goes on. It does not go on in a forked child.

        Returns:
            A function that stops it, from any thread, and does not wait for the last time.
        """
        stopped = asyncio.Event()

        def begin() -> None:
            task = loop.create_task(_repeat(seconds, work, stopped))
            self._repeated.add(task)  # a loop has only weak references to its tasks
            task.add_done_callback(self._repeated.discard)

        def stop() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the work
                loop.call_soon_threadsafe(stopped.set)

        with self._lock:
            loop = self._running()
            loop.call_soon_threadsafe(begin)
        return stop

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._thread is None or not self._thread.is_alive():
            loop = asyncio.SelectorEventLoop() if sys.platform == "win32" else asyncio.new_event_loop()
            thread = threading.Thread(target=_serve, args=(loop,), name="tradecache", daemon=True)
            try:
                thread.start()
                self._loop, self._thread = loop, thread
            except BaseException:  # Ctrl-C, and the thread may run by now
                loop.call_soon_threadsafe(loop.stop)
                raise
        return self._loop


class _Call(Generic[T]):
    """Work that the private loop does, and the lock on which its caller waits for the outcome.

    A lock, because Ctrl-C ends the wait for one in a single step, and nothing is left half done.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._result: list[T] = []
        self._error: BaseException | None = None
        self.has_ended = False
        self._end = threading.Lock()
        self._end.acquire()

    def begin(self) -> None:
        """Begin the work; called by the loop, in the context of the caller."""
        self._task = asyncio.get_running_loop().create_task(self._work_through())

    def cancel(self) -> None:
        """Cancel the work; called by the loop."""
        if self._task is None:
            self.drop()
        else:  # a turn later, when it has surely begun and its `finally` will run
            asyncio.get_running_loop().call_soon(self._task.cancel)

    def drop(self) -> None:
        """Give up work that was never begun."""
        self._work.close()
        self._finish()

    def wait(self, timeout: float = -1) -> None:
        """Wait for the work to end."""
        if sys.platform == "win32" and timeout < 0:
            while not self._end.acquire(timeout=POLL):
                pass
        else:
            self._end.acquire(timeout=timeout)

    def outcome(self) -> T:
        """Return the result of work that has ended, or raise its error."""
        if self._error is None:
            return self._result[0]
        error, self._error = self._error, None  # which would hold this frame, and this frame it
        try:
            raise error
        finally:
            del error

    async def _work_through(self) -> None:
        try:
            self._result.append(await self._work)
        except asyncio.CancelledError:
            self._error = concurrent.futures.CancelledError()
        except BaseException as error:  # noqa: BLE001 - it is the caller's, and is raised there
            self._error = error
        finally:
            self._finish()

    def _finish(self) -> None:
        self.has_ended = True
        self._end.release()


def _give_up(call: _Call[Any], loop: asyncio.AbstractEventLoop | None) -> None:
    """Cancel a call whose caller was interrupted, and give it time to stop."""
    if call.has_ended:
        return
    if loop is None:
        call.drop()
        return
    with contextlib.suppress(RuntimeError):  # the loop was stopped meanwhile, which has cancelled it
        loop.call_soon_threadsafe(call.cancel)
        call.wait(GRACE)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(_wind_up())
        loop.close()


async def _wind_up() -> None:
    """Cancel what is under way, and give it time to stop."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=GRACE)


async def _repeat(seconds: float, work: Callable[[], Awaitable[None]], stopped: asyncio.Event) -> None:
    try:
        while not stopped.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), seconds)
            if not stopped.is_set():
                await _tried(work)
    finally:
        await _tried(work)


async def _tried(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except Exception:
        log.exception("%r went wrong in the background", work)


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


async def ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks, of whichever loop, and wait for those of this one."""
    here = asyncio.get_running_loop()
    for task in tasks:
        if task.get_loop() is here:
            task.cancel()
        elif task.get_loop().is_running():
            task.get_loop().call_soon_threadsafe(task.cancel)
    await asyncio.gather(*(task for task in tasks if task.get_loop() is here), return_exceptions=True)


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """Run a blocking function in a thread of its own and return its result, or raise its error.

    Whoever waits can be cancelled at once; the function then runs on to its end, for nobody. The thread is
    a daemon, so that a provider that never answers does not keep the interpreter from ending, as the
    threads of an executor would.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        result, error = _outcome(lambda: context.run(function, *args))
        with contextlib.suppress(RuntimeError):  # the loop was stopped meanwhile, and nobody waits
            loop.call_soon_threadsafe(_settle, future, result, error)

    threading.Thread(target=work, name="tradecache call", daemon=True).start()
    return await future


def in_background(work: Callable[[], None], *, name: str) -> Callable[[], None]:
    """Do some work that blocks on a daemon thread of its own; return what waits for its end.

    Whoever waits within the work itself is not kept, nor who waits in a forked child, where it does not go on.
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()

    def wait() -> None:
        if threading.current_thread() is not thread:
            thread.join()

    return wait


def _outcome(function: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return function(), None
    except Exception as error:  # noqa: BLE001 - it is the caller's, and is raised there
        if not isinstance(error, StopIteration):  # which a future does not take
            return None, error
        cause: BaseException = error
    except BaseException as error:  # noqa: BLE001 - sys.exit() would end the loop of all the others
        cause = error
    wrapped = RuntimeError(f"the call ended by {type(cause).__name__}")
    wrapped.__cause__ = cause
    return None, wrapped


def _settle(future: "asyncio.Future[Any]", result: object, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


async def in_time(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """Return what some work returns, if it does in time; else walk away from it, also where it does not let go.

    Raises:
        TimeoutError: When it has not ended in time, or has cancelled itself.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_nobody_asks)
    if not task.done() or task.cancelled():
        raise TimeoutError(f"no answer within {seconds:g} s")
    return task.result()


def _nobody_asks(task: "asyncio.Future[Any]") -> None:
    """Take the error of abandoned work, which would be complained of."""
    if not task.cancelled():
        task.exception()


class PerLoop(Generic[T]):
    """One thing for each event loop, made when a loop first needs it: connections belong to the loop that made them.

    Args:
        make: Makes one.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[asyncio.AbstractEventLoop, T] = {}

    def here(self) -> T:
        """Return the one of the running loop."""
        loop = asyncio.get_running_loop()
        found = self._made.get(loop)
        if found is None:
            self._made = {each: thing for each, thing in self._made.items() if not each.is_closed()}
            found = self._made[loop] = self._make()
        return found

    def take(self) -> T | None:
        """Return the one of the running loop, if it was made, and forget it."""
        return self._made.pop(asyncio.get_running_loop(), None)


def loop_in_use() -> asyncio.AbstractEventLoop:
    """Return the loop that runs in this thread, or else, closed again, one of the kind that would be made."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        loop = asyncio.new_event_loop()
        loop.close()
        return loop


_shared = Bridge()
_inherited: list[Bridge] = []  # kept: to close a loop in the child changes the selector of its parent's
_ending = threading.Event()


def shared_bridge() -> Bridge:
    """Return the bridge of this process."""
    return _shared


async def on_private_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await what `work` makes on the private loop, where connections live that several loops use."""
    loop = _shared.loop()
    if loop is asyncio.get_running_loop():
        return await work()
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), loop))


def _renew_after_fork() -> None:
    """Give a forked child a bridge of its own: its parent's loop has no thread there."""
    global _shared  # noqa: PLW0603 - one bridge per process is the point
    _inherited.append(_shared)
    _shared = Bridge()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)


@atexit.register
def _stop() -> None:
    """Stop the loop of this process, whichever bridge it has by then."""
    _ending.set()
    _shared.stop()


def _let_end() -> None:
    """Hold a daemon thread whose work was cancelled because the interpreter ends; it would only complain."""
    if threading.current_thread() is not threading.main_thread():
        threading.Event().wait()
