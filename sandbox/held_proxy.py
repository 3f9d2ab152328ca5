"""A proxy that can hold back what a client sends to a server, and deliver it later."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

CHUNK = 1 << 16


class HeldProxy:
    """Forwards connections to a server on loopback; on request, holds one back from a given text on.

    with HeldProxy(port) as proxy:
        proxy.keep_back(b"HSET")     # the next connection that sends it
        proxy.deliver()              # the held bytes, as a recovering network would
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self._text: bytes | None = None
        self._held: list[tuple[socket.socket, bytearray]] = []
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for one in self._open:
            with contextlib.suppress(OSError):  # it has ended
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for one in self._open:
            one.close()

    @property
    def held_bytes(self) -> int:
        """The number of held bytes."""
        with self._lock:
            return sum(len(data) for _, data in self._held)

    def keep_back(self, text: bytes) -> None:
        """Hold back the next connection that sends a text, from that text on."""
        with self._lock:
            self._text = text

    def deliver(self) -> None:
        """Send the held bytes; when this returns, the server has taken all that it will ever take."""
        with self._lock:
            held, self._held = self._held, []
        for upstream, data in held:
            try:
                upstream.sendall(data)
                upstream.shutdown(socket.SHUT_WR)
                while upstream.recv(CHUNK):
                    pass
            except OSError:  # the server has ended the connection
                pass

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                upstream = socket.create_connection(("127.0.0.1", self._server))
            except OSError:  # the server is away
                client.close()
                continue
            self._open += [client, upstream]
            for passing in (self._pass_on, self._pass_back):
                self._threads.append(threading.Thread(target=passing, args=(client, upstream)))
                self._threads[-1].start()

    def _pass_on(self, client: socket.socket, upstream: socket.socket) -> None:
        held: bytearray | None = None
        while data := _received(client):
            with self._lock:
                if held is None and self._text is not None and self._text in data:
                    self._text, held = None, bytearray()
                    self._held.append((upstream, held))
                if held is not None:
                    held += data
                    continue
            with contextlib.suppress(OSError):  # the server has ended the connection, and the client notices
                upstream.sendall(data)
        if held is None:
            _end(upstream)

    def _pass_back(self, client: socket.socket, upstream: socket.socket) -> None:
        while data := _received(upstream):
            with contextlib.suppress(OSError):  # the client has gone
                client.sendall(data)
        _end(client)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(CHUNK)
    except OSError:
        return b""
