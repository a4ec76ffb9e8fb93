"""How does a test start, steer and kill processes that have tradecache loaded?"""

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PATIENCE = 60  # seconds
SERVE = "import sys, children; children.serve(int(sys.argv[1]))"


class ChildFailed(AssertionError):
    """Raised when a child ended, or its work raised, where the test expected an answer."""


class Child:
    """A forked process: JSON lines go in and come out."""

    def __init__(self, pid: int, orders: int, answers: int) -> None:
        self.pid = pid
        self._orders = os.fdopen(orders, "w", encoding="utf-8")
        self._answers = os.fdopen(answers, "r", encoding="utf-8", errors="surrogateescape")

    def tell(self, order: Any) -> None:
        """Send one order."""
        self._orders.write(json.dumps(order) + "\n")
        self._orders.flush()

    def hear(self) -> Any:
        """Wait for one answer."""
        for answer in self.rest():
            return answer
        raise ChildFailed("the child ended without an answer")

    def ask(self, *order: Any) -> Any:
        """Send an order and wait for its answer."""
        self.tell(order)
        return self.hear()

    def rest(self) -> Iterator[Any]:
        """Yield what the child still says until it ends; a line that was cut off was never said."""
        for line in self._answers:
            if not line.endswith("\n"):
                return
            answer = json.loads(line)
            if isinstance(answer, dict) and "failed" in answer:
                raise ChildFailed(answer["failed"])
            yield answer

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; an ended child is fine."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def end(self) -> None:
        """Close the line of orders, on which a child ends, and wait until it has; more than once is fine."""
        with contextlib.suppress(BrokenPipeError):
            self._orders.close()
        if not self._answers.closed:
            for _ in self._answers:
                pass
            self._answers.close()


class Nursery:
    """A small process that has loaded tradecache and forks a child of itself for each `start`.

    Args:
        prefix: A command that runs it, such as `unshare -m`.
    """

    def __init__(self, *prefix: str) -> None:
        self._socket, theirs = socket.socketpair()
        command = [*prefix, sys.executable, "-c", SERVE, str(theirs.fileno())]
        paths = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], env={**os.environ, "PYTHONPATH": paths}
        )
        theirs.close()

    def start(self, work: str, *args: Any) -> Child:
        """Fork a child that runs `work` ("module:function") with JSON-able arguments."""
        child_in, orders = os.pipe()
        answers, child_out = os.pipe()
        socket.send_fds(self._socket, [json.dumps([work, args]).encode()], [child_in, child_out])
        os.close(child_in)
        os.close(child_out)
        return Child(int(self._socket.recv(32)), orders, answers)

    def close(self) -> None:
        """End the process that forks; its children end when their orders do."""
        self._socket.close()
        self._process.wait(timeout=30)


def wait_until(holds: Callable[[], bool]) -> None:
    """Ask again and again until something holds that another process brings about."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.001)


def say(answer: Any) -> None:
    """Answer from within a child; it is out when this returns."""
    os.write(1, json.dumps(answer).encode() + b"\n")


def orders() -> Iterator[Any]:
    """Yield the orders that a child is given, from within it."""
    for line in sys.stdin:
        yield json.loads(line)


def serve(descriptor: int) -> None:
    """Fork for each request until the line is closed; no thread is ever started here."""
    import servants  # noqa: F401 - loaded once, for all children

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    line = socket.socket(fileno=descriptor)
    while True:
        request, descriptors, _, _ = socket.recv_fds(line, 65536, 2)
        if not request:
            return
        pid = os.fork()
        if not pid:
            line.close()
            _work(request, *descriptors)
        for each in descriptors:
            os.close(each)
        line.send(str(pid).encode())


def _work(request: bytes, child_in: int, child_out: int) -> None:
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(child_in, 0)
        os.dup2(child_out, 1)
        os.close(child_in)
        os.close(child_out)
        sys.stdin = os.fdopen(0, "r", encoding="utf-8")
        (work, args) = json.loads(request)
        module, _, name = work.partition(":")
        getattr(importlib.import_module(module), name)(*args)
        status = 0
    except BaseException:  # noqa: BLE001 - it is told to the test
        say({"failed": traceback.format_exc()})
    finally:
        os._exit(status)
