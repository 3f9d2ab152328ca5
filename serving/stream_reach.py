"""The stream's progress as announced in Redis, refreshed now and then along with a read of rows."""

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
"""Frequent enough, because the stream advances once per slide, which is minutes."""


class StreamReach:
    """The end of the last window that is closed in all partitions, by view, in ms. Threads may share it."""

    def __init__(self, schema: ServedSchema) -> None:
        self._views = [view.name for view in schema.views if view.streamed]
        self._command = b"".join(
            b"*2\r\n$5\r\nHVALS\r\n" + argument(progress_key(schema.project, name).encode()) for name in self._views
        )
        self._asked: float | None = None
        self.closed_ends: dict[str, int] = {}

    def commands(self) -> tuple[bytes, int]:
        """RESP commands and their number; none while the last answer is recent enough."""
        now = time.monotonic()
        if self._asked is not None and now - self._asked < EVERY_S:
            return b"", 0
        if self.closed_ends:  # until something is known, every read asks
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
    """The last window end closed in all partitions; one without a closed window has no rows that could be stale."""
    ends = [one["last_closed_end_ms"] for one in positions if one["last_closed_end_ms"] is not None]
    return min(ends, default=None)
