"""Refills Redis while the stream runs on, with `batch.restore_online` in a separate process."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import time
from typing import IO

from feast_repo.settings import PROJECT_ROOT
from stream.stopping import stop_requested

logger = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 3600.0
"""Between the starts of two refills, doubling while losses follow each other: a server too small for the data loses
rows again as they are written."""

POLL_S = 0.1


class Refill:
    """At most one refill at a time; for one thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (as long as this object)
        self._began_s = -LONGEST_PAUSE_S
        self._pause_s = FIRST_PAUSE_S

    def ask_for(self) -> None:
        """Start a refill soon, unless one is running."""
        if self._is_running():
            return
        now = time.monotonic()
        if now - self._began_s < self._pause_s:
            return
        calm = now - self._began_s > 2 * LONGEST_PAUSE_S
        self._pause_s = FIRST_PAUSE_S if calm else min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._began_s = now
        self._said.seek(0)
        self._said.truncate()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "batch.restore_online"],
            cwd=PROJECT_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
        )

    def finish(self) -> None:
        """Wait for a running refill, or end it if a stop was requested: the next run continues it."""
        while self._is_running():
            if stop_requested.wait(POLL_S) and self._process is not None:
                self._process.terminate()
                self._process.wait()
                logger.warning("Redis is not filled yet: the next run goes on, or run `python -m batch.restore_online`")
                return

    def _is_running(self) -> bool:
        if self._process is None:
            return False
        if (code := self._process.poll()) is None:
            return True
        self._process = None
        if code != 0:
            self._said.seek(0)
            reason = self._said.read().decode(errors="replace").strip().rpartition("\n")[2]
            logger.warning("Redis was not refilled, and will be tried again: %s", reason)
        return False
