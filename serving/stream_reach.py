"""How far the stream is, as its progress record in Redis tells: asked now and then, along with a question for rows."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from feast_repo.stores.online.format import argument
from feast_repo.stores.progress import progress_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serving.schema import ServedSchema

EVERY_S = 1.0
"""The stream moves once in a slide of minutes, so this is often."""


class StreamReach:
    """The end of the last window that is closed in all partitions, by view, in ms. Threads may share it."""

    def __init__(self, schema: ServedSchema) -> None:
        self._views = [view.name for view in schema.views if view.stale_after_ms is not None]
        self._command = b"".join(
            b"*2\r\n$5\r\nHVALS\r\n" + argument(progress_key(schema.project, name).encode()) for name in self._views
        )
        self._asked: float | None = None
        self.closed_ends: dict[str, int] = {}

    def commands(self) -> tuple[bytes, int]:
        """Commands in RESP and how many they are; nothing while the last answer is young enough."""
        now = time.monotonic()
        if self._asked is not None and now - self._asked < EVERY_S:
            return b"", 0
        if self.closed_ends:  # before anything is known, everybody asks
            self._asked = now
        return self._command, len(self._views)

    def take(self, replies: Sequence[list[bytes]]) -> None:
        """Read the replies to `commands`."""
        self._asked = time.monotonic()
        self.closed_ends = {
            name: end
            for name, announced in zip(self._views, replies, strict=True)
            if (end := _closed_end(list(map(json.loads, announced)))) is not None
        }


def _closed_end(positions: Sequence[dict[str, Any]]) -> int | None:
    """A partition in which no window was closed yet has no rows that could be stale."""
    ends = [one["last_closed_end_ms"] for one in positions if one["last_closed_end_ms"] is not None]
    return min(ends, default=None)
