"""How does a test stand in for a provider's web server, on the loopback, with recorded answers?"""

import contextlib
import datetime as dt
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit


class Request(NamedTuple):
    """What a client asked for."""

    host: str
    path: str
    query: dict[str, str]


class Reply(NamedTuple):
    """What it is answered; a status of 0 closes the connection without a word."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012 - a NamedTuple's default, never written to


class Provider(ThreadingHTTPServer):
    """A web server that answers GET as `answer` says and remembers what it was asked.

    As a proxy it takes itself for every host there is, with a certificate also for those asked by TLS.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[[Request], Reply], certificate: Path | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.certificate = certificate
        self.requests: list[Request] = []
        self.failures: list[BaseException] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def paths(self, part: str) -> list[Request]:
        """Return the requests whose path holds `part`."""
        return [request for request in self.requests if part in request.path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Provider

    def do_CONNECT(self) -> None:
        """Go on by TLS, as the host that was asked for."""
        self.send_response(200)
        self.end_headers()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server.certificate)
        self.connection = context.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        request = Request(self.headers.get("Host", ""), url.path, dict(parse_qsl(url.query)))
        self.server.requests.append(request)
        try:
            reply = self.server.answer(request)
        except BaseException as error:
            self.server.failures.append(error)
            raise
        if not reply.status:
            self.close_connection = True
            self.connection.close()
            return
        body = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
        self.send_response(reply.status)
        kind = "text/plain" if isinstance(reply.body, str) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def finish(self) -> None:
        """Close the connection, also where it went on by TLS."""
        super().finish()
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(answer: Callable[[Request], Reply], *, certificate: Path | None = None) -> Iterator[Provider]:
    """Serve until the block ends."""
    provider = Provider(answer, certificate)
    thread = threading.Thread(target=provider.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        provider.shutdown()
        provider.server_close()
        thread.join()
    assert provider.failures == []


def self_signed(folder: Path) -> Path:
    """Write a certificate for the loopback, with its key, and return the file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "loopback.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
