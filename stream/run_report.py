"""Logs what a run has stored: one line a minute, one at the end, and warnings when most messages don't count."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stream import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from feast_repo.declare.events import EventStream
    from feast_repo.declare.views import WindowedView
    from feast_repo.stores.progress import Progress
    from stream.epoch import Epoch

logger = logging.getLogger(__name__)

EVERY_S = 60.0


@dataclass
class Counts:
    """Counts of what has become durable since some moment."""

    messages: int = 0
    feature_rows: int = 0
    late: int = 0
    uncounted: int = 0
    ignored: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, epoch: Epoch) -> None:
        """Add an epoch."""
        self.messages += epoch.messages
        self.feature_rows += epoch.feature_rows
        self.late += epoch.late
        self.uncounted += epoch.uncounted
        self.ignored += epoch.ignored
        self.refused += epoch.refused

    def __str__(self) -> str:
        """Messages, rows, late records, refused messages and perhaps ignored ones as text."""
        told = f"{self.messages:,} messages and stored {self.feature_rows:,} new feature rows"
        late = f"{self.late:,} late ({self.uncounted:,} of them counted in no window)"
        ignored = f"; {self.ignored:,} ignored" if self.ignored else ""
        return f"{told}; {late if self.late else 'none late'}; {self.refused_in_words or 'none'} refused{ignored}"

    @property
    def refused_in_words(self) -> str:
        """How many messages became dead letters, with the most frequent reason; empty if none did."""
        if not self.refused:
            return ""
        (reason, count), *_ = self.refused.most_common(1)
        return f"{self.refused.total():,} ({count:,} {reason})"


class RunReport:
    """Counts over all store parts of this process; thread-safe.

    Each minute one line reports what was stored since the previous line; when the last part closes, one line reports
    the total. A warning, at most one a minute of each kind, reports that most messages of an epoch were refused or
    late.
    """

    def __init__(
        self, stream: EventStream, views: Sequence[WindowedView], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._name = stream.name
        self._slides_ms = [view.slide_ms for view in views]
        self._clock = clock
        self._lock = threading.Lock()
        self._open_parts = 0
        self._first_s: float | None = None
        self._last_s = self._told_s = clock()
        self._warned_s: dict[str, float] = {}
        self._total, self._since = Counts(), Counts()
        self._watermarks: dict[int, int] = {}

    def open_part(self) -> None:
        """Register a part that will be closed."""
        with self._lock:
            self._open_parts += 1

    def received(self) -> None:
        """Start the clock with the first batch."""
        with self._lock:
            if self._first_s is None:
                self._first_s = self._clock()

    def stored(self, epoch: Epoch, advanced: Iterable[Progress]) -> None:
        """Add a durable epoch."""
        with self._lock:
            now_s = self._clock()
            for progress in advanced:
                if progress.watermark_ms is not None:
                    self._watermarks[progress.partition] = progress.watermark_ms
            if epoch.messages:
                self._last_s = now_s
            self._total.add(epoch)
            self._since.add(epoch)
            self._warn(epoch, now_s)
            if now_s - self._told_s >= EVERY_S:
                logger.info("%s: in %.0f s: read %s%s", self._name, now_s - self._told_s, self._since, self._where())
                self._told_s, self._since = now_s, Counts()

    def close_part(self) -> None:
        """After the last part, report what the run has stored, if anything arrived."""
        with self._lock:
            self._open_parts -= 1
            if self._open_parts or self._first_s is None:
                return
            seconds = max(self._last_s - self._first_s, 1e-3)
            rate = self._total.messages / seconds
            told = (self._name, self._total, seconds, f"{rate:,.0f}", self._where())
            logger.info("%s: read %s; %.1f s, %s messages/s%s", *told)

    def _warn(self, epoch: Epoch, now_s: float) -> None:
        counts = Counts()
        counts.add(epoch)
        if 2 * counts.refused.total() > counts.messages and self._may_warn("refused", now_s):
            logger.warning(
                "most messages were refused: %s of %s; `python -m stream.dead_letters list` shows examples",
                counts.refused_in_words,
                f"{counts.messages:,}",
            )
        if 2 * counts.late > counts.messages and self._may_warn("late", now_s):
            logger.warning(
                "most messages were late: %s of %s, %s of them counted in no window, since their windows had closed "
                "before they came; send history in the order of its times, before anything newer",
                f"{counts.late:,}",
                f"{counts.messages:,}",
                f"{counts.uncounted:,}",
            )

    def _may_warn(self, kind: str, now_s: float) -> bool:
        if now_s - self._warned_s.get(kind, -EVERY_S) < EVERY_S:
            return False
        self._warned_s[kind] = now_s
        return True

    def _where(self) -> str:
        """How far the log has been read, and which window closes next."""
        told = f"; lag {metrics.lag_in_all(self._name):,.0f} messages"
        if not self._watermarks:
            return told
        watermark, lateness_ms = min(self._watermarks.values()), self._stream.lateness_ms
        told += f"; event time {_utc(watermark + lateness_ms)}"
        if not self._slides_ms:
            return told
        end = min((watermark // slide + 1) * slide for slide in self._slides_ms)
        return f"{told}, the next window ({_utc(end)}) closes at {_utc(end + lateness_ms)}"


def _utc(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
