"""The dataflow's only output: everything that a batch led to, made durable in the one order that is safe.

    at once        features -> Redis (guarded: an older row never overwrites a newer one, so a replay is harmless)
    at epoch end   log tables -> feature files -> progress record -> the epoch commits

Guarantee: when an epoch commits, all of its rows are durable, and the progress record never runs ahead of them. After a
crash the epoch is replayed: log rows that are durable are skipped, and a feature file is overwritten with the same
content, or left alone once the progress record has passed its window. Nothing is deleted.

It is one sink rather than one a store, because the order between the stores carries the guarantee, and Bytewax promises
none between sinks.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError as RedisConnectionError,
    ReadOnlyError,
    TimeoutError as RedisTimeoutError,
)

from feast_repo.progress import Progress, ProgressRecord, announce, progress_key
from feast_repo.tables import (
    DEAD_LETTER_COLUMNS,
    dead_letters_folder,
    event_columns,
    events_folder,
    late_columns,
    late_folder,
    progress_folder,
)
from stream.log_table import LogTable
from stream.routing import partition_of
from stream.steps import parts
from stream.stopping import refuse, stop_requested
from stream.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from feast_repo.push import Pusher
    from stream.settings import StreamSettings
    from stream.windows import ClosedWindow

logger = logging.getLogger(__name__)

WRITER = "stream"
WRITE_THREADS = 8
REDIS_AWAY = (RedisConnectionError, RedisTimeoutError, BusyLoadingError, ReadOnlyError)
LONGEST_WAIT_S = 5.0


@dataclass(frozen=True)
class Outcome:
    """What one batch of a partition led to. `records` and `dead_letters` are in offset order."""

    progress: Progress
    records: pl.DataFrame
    dead_letters: pl.DataFrame
    windows: list[ClosedWindow]


class Stores(FixedPartitionedSink[Outcome, None]):
    """Redis, Parquet, log tables and progress record, for outcomes keyed by Kafka partition."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._pusher: Pusher | None = None
        self._tally = Tally()

    def list_parts(self) -> list[str]:
        """A fixed number of parts, whatever the number of workers or Kafka partitions."""
        return parts()

    def part_fn(self, item_key: str) -> int:
        """A Kafka partition always belongs to the same part."""
        return partition_of(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> StorePart:
        """Open the stores; what they hold tells where to go on, so there is no state to resume."""
        del step_id, for_part, resume_state
        with self._lock:  # worker threads share this object, and opening Feast takes seconds
            if self._pusher is None:
                self._pusher = _open_pusher(self._settings)
        return StorePart(self._settings, self._pusher, self._tally)


def _open_pusher(settings: StreamSettings) -> Pusher:
    from feast_repo.push import Pusher  # noqa: PLC0415  (Feast takes seconds to import)
    from feast_repo.store import (  # noqa: PLC0415
        RegistryMismatchError,
        RegistryUnavailableError,
        ensure_applied,
        open_store,
    )

    try:
        store = open_store()
        ensure_applied(store)
        return Pusher(store, settings.view.push_source)
    except (RegistryMismatchError, RegistryUnavailableError, LookupError, ValueError) as error:
        refuse(str(error))


class StorePart(StatefulSinkPartition[Outcome, None]):
    """The stores for some Kafka partitions."""

    def __init__(self, settings: StreamSettings, pusher: Pusher, tally: Tally) -> None:
        view, root = settings.view, settings.data_root
        self._pusher = pusher
        self._tally = tally
        self._messages = 0
        tally.open_part()
        self._events = LogTable(events_folder(root), event_columns(view.events))
        self._late = LogTable(late_folder(root, view), late_columns(view.events))
        self._dead_letters = LogTable(dead_letters_folder(root), DEAD_LETTER_COLUMNS)
        self._record = ProgressRecord(progress_folder(root))
        self._stored = self._record.load()
        self._reached: dict[int, Progress] = {}
        self._windows: list[tuple[int, ClosedWindow]] = []
        # A catch-up closes thousands of small windows in one epoch: their writes and syncs overlap.
        self._threads = ThreadPoolExecutor(WRITE_THREADS, thread_name_prefix="parquet")
        self._progress_key = progress_key(pusher.project, view.name)

    def write_batch(self, values: list[Outcome]) -> None:
        """Buffer what goes to Parquet, and push features online."""
        self._tally.received()
        for outcome in values:
            partition = outcome.progress.partition
            self._messages += len(outcome.records) + len(outcome.dead_letters)
            self._events.append(partition, outcome.records)
            self._late.append(partition, outcome.records.filter(pl.col("missed_windows") > 0))
            self._dead_letters.append(partition, outcome.dead_letters)
            closed = self._closed_end(partition)
            self._windows += [(partition, window) for window in outcome.windows if window.end_ms > closed]
            self._reached[partition] = outcome.progress
        if rows := [window.rows for outcome in values for window in outcome.windows]:
            features = pl.concat(rows)
            _hold_until_done("Redis", lambda: self._pusher.push_online(features))

    def _closed_end(self, partition: int) -> int:
        """The last window end whose rows are durable; its file may have been compacted, so it is never rewritten."""
        stored = self._stored.get(partition)
        return -1 if stored is None or stored.last_closed_end_ms is None else stored.last_closed_end_ms

    def snapshot(self) -> None:
        """Make the epoch durable; the progress record comes last."""
        self._events.flush()
        self._late.flush()
        self._dead_letters.flush()
        list(self._threads.map(self._push_offline, self._windows))
        feature_rows = sum(len(window.rows) for _, window in self._windows)
        self._windows.clear()
        advanced = {
            partition: progress
            for partition, progress in self._reached.items()
            if partition not in self._stored or progress.next_offset > self._stored[partition].next_offset
        }
        for partition, progress in advanced.items():
            self._record.save(progress)
            self._stored[partition] = progress
        self._reached.clear()
        redis = self._pusher.redis
        if redis is not None and advanced:
            _hold_until_done("Redis", lambda: announce(redis, self._progress_key, advanced.values()))
        self._tally.stored(self._messages, feature_rows)
        self._messages = 0

    def close(self) -> None:
        """End the writing threads; the last part tells what the run has stored."""
        self._threads.shutdown()
        if summary := self._tally.close_part():
            logger.info("%s", summary)

    def _push_offline(self, closed: tuple[int, ClosedWindow]) -> None:
        partition, window = closed
        self._pusher.push_offline(window.rows, writer=WRITER, partition=partition, window_end_ms=window.end_ms)


class StoreAwayError(RuntimeError):
    """A store did not come back before the run was asked to stop; the epoch is not committed."""


def _hold_until_done(store: str, operation: Callable[[], object]) -> None:
    """Retry with growing, jittered waits while a store is away; this holds the epoch, and with it the source.

    Raises:
        StoreAwayError: the run was asked to stop meanwhile.
    """
    wait_s, away = 0.05, False
    while True:
        try:
            operation()
        except AuthenticationError:
            raise  # it is there, and waiting won't help
        except REDIS_AWAY as error:
            if not away:
                logger.warning("%s is away (%s), holding the epoch until it is back", store, error)
            away = True
            if stop_requested.is_set():
                message = f"{store} is away; stopped without committing the epoch, a resume is exact"
                raise StoreAwayError(message) from error
            time.sleep(wait_s * random.uniform(0.5, 1.5))  # noqa: S311  (jitter, not a secret)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        else:
            if away:
                logger.warning("%s is back", store)
            return
