"""Load on an HTTP server from one thread, with the waiting counted: a request's time runs from when it was due."""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class LoadError(Exception):
    """The server gave another answer than 200."""


def post(path: str, body: bytes) -> bytes:
    """A request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def open_loop(
    port: int, request: Callable[[int], bytes], *, rate: float, seconds: float, connections: int = 64
) -> list[float]:
    """Requests at a constant rate, whether or not the answers come in time; their times in seconds.

    A request that finds no free connection waits for one, and that counts.

    Raises:
        LoadError: an answer was not 200.
    """
    due = [number / rate for number in range(round(rate * seconds))]
    return _load(port, request, due, connections)


def closed_loop(port: int, request: Callable[[int], bytes], *, requests: int, connections: int) -> float:
    """So many requests as fast as they are answered, one at a time on each connection; answers per second."""
    start = time.perf_counter()
    _load(port, request, [0.0] * requests, connections)
    return requests / (time.perf_counter() - start)


def _load(port: int, request: Callable[[int], bytes], due: list[float], connections: int) -> list[float]:
    taken: list[float] = []
    asked: dict[socket.socket, tuple[float, bytearray]] = {}
    with ExitStack() as stack:
        free: deque[socket.socket] = deque()
        for _ in range(connections):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            free.append(one)
        start, sent = time.perf_counter(), 0
        while len(taken) < len(due):
            now = time.perf_counter() - start
            while sent < len(due) and due[sent] <= now and free:
                one = free.popleft()
                one.sendall(request(sent))
                asked[one] = due[sent], bytearray()
                sent += 1
            wait = max(0.0, due[sent] - (time.perf_counter() - start)) if sent < len(due) and free else 10.0
            for one in select.select(list(asked), [], [], wait)[0]:
                due_at, answer = asked[one]
                answer += one.recv(1 << 18)
                if _complete(answer):
                    taken.append(time.perf_counter() - start - due_at)
                    del asked[one]
                    free.append(one)
    return taken


def _complete(answer: bytearray) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    if not head.startswith(b"HTTP/1.1 200"):
        raise LoadError(answer[:300].decode(errors="replace"))
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return len(body) >= int(length.partition(b":")[2])
