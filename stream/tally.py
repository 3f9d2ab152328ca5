"""What a run has stored so far, for one line at its end."""

from __future__ import annotations

import threading
import time


class Tally:
    """Counts over all store parts of this process; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open_parts = 0
        self._first_s: float | None = None
        self._last_s = 0.0
        self.messages = 0
        self.feature_rows = 0

    def open_part(self) -> None:
        """Count a part that will be closed."""
        with self._lock:
            self._open_parts += 1

    def received(self) -> None:
        """Start the clock with the first batch."""
        with self._lock:
            if self._first_s is None:
                self._first_s = time.monotonic()

    def stored(self, messages: int, feature_rows: int) -> None:
        """Add what has become durable."""
        with self._lock:
            self.messages += messages
            self.feature_rows += feature_rows
            self._last_s = time.monotonic()

    def close_part(self) -> str | None:
        """The summary, once the last part is closed and if anything came."""
        with self._lock:
            self._open_parts -= 1
            if self._open_parts or self._first_s is None:
                return None
            seconds = max(self._last_s - self._first_s, 1e-3)
            return (
                f"read {self.messages:,} messages and stored {self.feature_rows:,} new feature rows in {seconds:.1f} s "
                f"({self.messages / seconds:,.0f} messages/s)"
            )
