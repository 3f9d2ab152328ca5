"""The access log: one line of JSON on stdout per request, with time, route and duration, and without values."""

from __future__ import annotations

import asyncio
import logging
import sys
import time

import msgspec

logger = logging.getLogger(__name__)

FLUSH_S = 0.5


class _Line(msgspec.Struct):
    at_ms: int
    method: str
    route: str
    status: int
    ms: float


class AccessLog:
    """Buffers lines and writes them twice a second: a system call per line would cost more than the answer."""

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder()
        self._lines = bytearray()
        self._timer: asyncio.TimerHandle | None = None

    def write(self, method: str, route: str, status: int, seconds: float) -> None:
        """Log an answered request; `route` is the declared path, without parameter values."""
        self._lines += self._encoder.encode(
            _Line(round(time.time() * 1000), method, route, status, round(seconds * 1000, 3))
        )
        self._lines += b"\n"

    def start(self) -> None:
        """Start writing."""
        self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.start)
        self._flush()

    def stop(self) -> None:
        """Write the remaining lines and stop."""
        if self._timer is not None:
            self._timer.cancel()
        self._flush()

    def _flush(self) -> None:
        lines, self._lines = self._lines, bytearray()
        if not lines:
            return
        try:
            sys.stdout.write(lines.decode())
            sys.stdout.flush()
        except OSError as error:  # a full disk or a closed pipe must neither fill the memory nor end the log
            logger.warning("%d bytes of the access log are lost: %s", len(lines), error)
