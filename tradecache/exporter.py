"""How does Prometheus get the numbers? A small HTTP server, in the background or as a process of its own."""

import errno
import logging
import os
import signal
import socket
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from tradecache.bridge import in_background
from tradecache.errors import InvalidInput
from tradecache.forks import one_fork
from tradecache.metrics import CacheCollector, FolderCollector, app_of

MAX_PORT = 65_535
POLL = 0.1  # seconds between two looks whether to stop
PATIENCE = 10.0  # seconds that somebody who has connected may take to ask
BUSY = "one that nobody listens on at {}; 0 chooses a free one"
REFUSALS = {errno.EADDRINUSE: BUSY, errno.EACCES: "one that you may listen on at {}, such as 9464"}

log = logging.getLogger("tradecache")


class MetricsServer:
    """Answers each GET with what a collector has to tell, in Prometheus' text format or in OpenMetrics.

    It listens from the beginning, and answers after `begin` or while `run` does. A forked child lets go of it.

    Args:
        collector: Of whom.
        port: On which port, 0 to 65535; 0: any free one.
        address: At which address of this machine: whoever can reach it can read the numbers.

    Raises:
        InvalidInput: When it cannot listen there, naming the port or the address.
    """

    def __init__(
        self, collector: CacheCollector | FolderCollector, *, port: int, address: str = "127.0.0.1"
    ) -> None:
        self._listener = _listening(checked_port(port), address)
        self._listener.set_app(app_of(collector))
        self.address, self.port = address, int(self._listener.server_address[1])
        self.is_closed = False
        """Whether it has stopped, or is about to."""
        self._wait: Callable[[], None] = self._listener.server_close
        self._forget: Callable[[], object] = self.stop
        with one_fork:  # so that a child of this instant knows of it
            _LIVE.add(self)

    @property
    def url(self) -> str:
        """Where to look."""
        return f"http://{f'[{self.address}]' if ':' in self.address else self.address}:{self.port}/metrics"

    def begin(self) -> None:
        """Answer in the background until `close`; it does not keep the interpreter from ending."""
        self._wait = in_background(self.run, name="tradecache metrics")

    def run(self) -> None:
        """Answer until `stop`."""
        with self._listener:
            while not self.is_closed:
                self._listener.handle_request()

    def end_with(self, owner: object) -> None:
        """Stop when somebody is let go of; it is not kept alive by him once it was closed."""
        self._forget = weakref.finalize(owner, self.stop).detach

    def stop(self) -> None:
        """Stop soon; from any thread, and from a signal's handler."""
        self.is_closed = True

    def close(self) -> None:
        """Stop, and wait until the port is free; more than once is fine."""
        self.stop()
        self._forget()
        self._wait()

    def _let_go(self) -> None:
        """Close the port in a forked child, which would hold it as long as it lives, and never answer."""
        self.stop()
        self._listener.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        """Say where it is."""
        return f"<MetricsServer {self.url}{', closed' if self.is_closed else ''}>"


class _Listener(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread of its own, says nothing, and asks no name server."""

    daemon_threads = True
    timeout = POLL

    def __init__(self, port: int, address: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, port), _Quiet)

    def server_bind(self) -> None:
        """Listen, without the look-up of the machine's name, which takes seconds where there is no network."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the library's signature
        """Log what goes wrong with one request, such as a client that has gone."""
        log.debug("a request of %s for metrics went wrong: %r", client_address, sys.exception())


class _Quiet(WSGIRequestHandler):
    timeout = PATIENCE

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's signature
        """Say nothing."""


def checked_port(port: object) -> int:
    """Return a port that can be listened on.

    Raises:
        InvalidInput: For anything but a whole number from 0 to 65535.
    """
    if isinstance(port, int) and not isinstance(port, bool) and 0 <= port <= MAX_PORT:
        return port
    raise InvalidInput("port", port, f"a whole number from 0 to {MAX_PORT}; 0 chooses a free one")


def run_until_signalled(server: MetricsServer) -> None:
    """Answer in this thread, the main one, until Ctrl-C or SIGTERM."""
    with _handled(lambda *_: server.stop(), signal.SIGINT, signal.SIGTERM):
        server.run()


@contextmanager
def _handled(handler: Callable[..., None], *numbers: signal.Signals) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _listening(port: int, address: object) -> _Listener:
    if not isinstance(address, str) or not address:
        raise InvalidInput("address", address, 'an address of this machine, such as "127.0.0.1"')
    try:
        return _Listener(port, address)
    except (OSError, UnicodeError, TypeError) as error:  # the last for text that no address can be
        code = error.errno if isinstance(error, OSError) else None
        if code in REFUSALS:
            raise InvalidInput("port", port, REFUSALS[code].format(address)) from error
        allowed = f'an address of this machine, such as "127.0.0.1" ({error})'
        raise InvalidInput("address", address, allowed) from error


_LIVE: "weakref.WeakSet[MetricsServer]" = weakref.WeakSet()


def _after_fork() -> None:
    for server in _LIVE:
        server._let_go()  # noqa: SLF001 - one module, two halves of one thing
    _LIVE.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
