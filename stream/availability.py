"""Waiting for a part that is away: one log line when it goes, one when it is back, a metric meanwhile; no data loss."""

from __future__ import annotations

import errno
import logging
import random
import threading
import time
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from feast_repo.stores.online.errors import can_pass, explained
from stream import metrics
from stream.stopping import fail, stop_requested, stop_undrained

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 5.0
UNDER_WAY_S = 2.0
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Availability:
    """Whether one part is available, as seen by several threads: it is away while any of them can't reach it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._missed_by: set[object] = set()
        self._missed_s = 0.0
        metrics.away.labels(name).set(0)

    def is_away(self, who: object, reason: object, doing: str) -> None:
        """Record that `who` can't reach it."""
        with self._lock:
            if not self._missed_by:
                logger.warning("%s is away (%s), %s until it is back", self.name, reason, doing)
                metrics.away.labels(self.name).set(1)
            self._missed_by.add(who)
            self._missed_s = time.monotonic()

    @property
    def away(self) -> bool:
        """Whether any thread can't reach it."""
        return bool(self._missed_by)

    def is_back(self, who: object) -> None:
        """Record that `who` can reach it again."""
        self._found({who})

    def is_back_for_all(self) -> None:
        """Record a sign of life for all; an answer that may have been in flight at the last failure doesn't count."""
        if self._missed_by and time.monotonic() - self._missed_s > UNDER_WAY_S:
            self._found(set(self._missed_by))

    def _found(self, by: set[object]) -> None:
        with self._lock:
            if by & self._missed_by:
                self._missed_by -= by
                if not self._missed_by:
                    logger.warning("%s is back", self.name)
                    metrics.away.labels(self.name).set(0)


class Emptied:
    """Which views lack stored rows in Redis, logged when the first lacks some and when none does; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lacking: set[str] = set()

    def look(self, view: str, *, filled: bool, loss: str | None) -> None:
        """Record whether a view's rows are marked as filled, and what Redis has lost since the last call."""
        with self._lock:
            if loss is not None:
                metrics.losses.inc()
            lacked = bool(self._lacking)
            self._lacking = self._lacking - {view} if filled else self._lacking | {view}
            if bool(self._lacking) is lacked:
                return
            metrics.emptied.set(int(bool(self._lacking)))
            if lacked:
                logger.warning("Redis is filled again")
            else:
                logger.error(
                    "%s: refilling it from Parquet (`python -m batch.restore_online`), the stream goes on",
                    loss or "Redis was not filled before this run began",
                )


kafka, redis, disk = (Availability(name) for name in ("Kafka", "Redis", "the disk"))


def hold_for_redis(operation: Callable[[], object]) -> None:
    """Retry an operation on Redis until it succeeds; meanwhile the epoch and the source are held back.

    Ends the run, with the epoch uncommitted, if a stop is requested meanwhile or if waiting can't help.
    """
    _hold(redis, operation, RedisError, _hopeless)


def hold_for_disk(operation: Callable[[], object]) -> None:
    """Retry an operation below DATA_ROOT until it succeeds; a full disk ends the run (exit 1, epoch uncommitted)."""
    _hold(disk, operation, OSError, _no_room)


def _hold(
    part: Availability,
    operation: Callable[[], object],
    away: type[Exception],
    hopeless: Callable[[Exception], str | None],
) -> None:
    me, wait_s = threading.get_ident(), FIRST_WAIT_S
    while True:
        try:
            operation()
        except away as error:
            if reason := hopeless(error):
                fail(f"{reason}; the epoch is not committed, so a resume is exact")
            part.is_away(me, error, "holding the epoch")
            if stop_requested.wait(wait_s * random.uniform(0.5, 1.5)):  # noqa: S311  (jitter, not a secret)
                stop_undrained(f"stopped while {part.name} is away")
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        else:
            part.is_back(me)
            return


def _hopeless(error: Exception) -> str | None:
    return str(explained(error)) if isinstance(error, RedisError) and not can_pass(error) else None


def _no_room(error: Exception) -> str | None:
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return f"no room left for DATA_ROOT ({error.strerror}): make room, then start again"
    return None
