"""What stands between a client and a server, and cuts their connection at a chosen word?"""

import contextlib
import socket
import threading
from typing import Self

LOCAL = "127.0.0.1"


class Proxy:
    """Passes bytes on to a server's port and back, but the answer to a word it cuts off: the client never hears it.

    Args:
        port: The server's.
        word: What the client has to say.
        cuts: How often the answer is cut off, with the connection.
    """

    def __init__(self, port: int, *, word: bytes, cuts: int) -> None:
        self._port, self._word = port, word
        self.cuts_left = cuts
        self._listener = socket.create_server((LOCAL, 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.create_connection((LOCAL, self._port))
        back = threading.Thread(target=_pump, args=(server, client), daemon=True)
        back.start()
        with client, server, contextlib.suppress(OSError):
            while said := client.recv(1 << 16):
                if self.cuts_left and self._word in said:
                    self.cuts_left -= 1
                    client.shutdown(socket.SHUT_RDWR)  # from here on nothing gets back
                    server.sendall(said)
                    server.shutdown(socket.SHUT_WR)
                    back.join()
                    return
                server.sendall(said)


def _pump(server: socket.socket, client: socket.socket) -> None:
    """Pass on what the server says, to the end, whether or not anybody hears it."""
    with contextlib.suppress(OSError):
        while said := server.recv(1 << 16):
            with contextlib.suppress(OSError):
                client.sendall(said)
        client.shutdown(socket.SHUT_RDWR)
