"""The dataflow's only output: everything that a batch led to, made durable in the one order that is safe.

    at once        features -> Redis (guarded: an older row never overwrites a newer one, so a replay is harmless)
                   features -> their files; log rows -> their tables, many at a time
    at epoch end   the rest of these -> progress record -> the epoch commits

All writing goes on in threads beside the dataflow, which therefore waits only for what is in the way: for room, so that
memory is bounded, and at the epoch's end for everything.

Guarantee: when an epoch commits, all of its rows are durable, and the progress record never runs ahead of them. After a
crash the epoch is replayed: log rows that are durable are skipped, and a feature file is overwritten with the same
content, or left alone once the progress record has passed its window. Nothing is deleted.

It is one sink rather than one a store, because the order between the stores carries the guarantee, and Bytewax promises
none between sinks.
"""

from __future__ import annotations

import atexit
import gc
import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import polars as pl
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from feast_repo.online_marker import is_filled, mark_filled, marker_key, read_mark
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
from stream import metrics
from stream.availability import Emptied, hold_for_disk, hold_for_redis
from stream.background import Background
from stream.log_table import LogTable
from stream.routing import partition_of
from stream.steps import parts
from stream.stopping import refuse
from stream.tally import Tally

if TYPE_CHECKING:
    from redis import Redis

    from feast_repo.push import Pusher
    from stream.settings import StreamSettings
    from stream.windows import ClosedWindow

logger = logging.getLogger(__name__)

WRITER = "stream"
WRITE_THREADS = 8
COLLECT_AFTER = 100_000
"""Objects that may come to be, beyond those that go, before the collector looks for cycles among them."""

FLUSH_ROWS = 250_000
"""Log rows that are written before the epoch's end, which bounds memory; their durability alone commits nothing."""

ROOM = 2
"""Batches for Redis, and sets of log files, that may be under way before the dataflow waits."""


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
        self._emptied = Emptied()

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
                _spare_the_collector()
        return StorePart(self._settings, self._pusher, self._tally, self._emptied)


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


def _spare_the_collector() -> None:
    """Keep the garbage collector from looking through Feast's million objects, and through each poll, again and again.

    A poll's messages are objects by the thousand that it tracks, and none is part of a cycle.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    atexit.register(gc.unfreeze)  # else libraries take what was never collected for leaks, and say so


class StorePart(StatefulSinkPartition[Outcome, None]):
    """The stores for some Kafka partitions."""

    def __init__(self, settings: StreamSettings, pusher: Pusher, tally: Tally, emptied: Emptied) -> None:
        view, root = settings.view, settings.data_root
        self._pusher = pusher
        self._tally = tally
        self._emptied = emptied
        self._messages = self._late_rows = self._dead = 0
        tally.open_part()
        self._events = LogTable(events_folder(root), event_columns(view.events))
        self._late = LogTable(late_folder(root, view), late_columns(view.events))
        self._dead_letters = LogTable(dead_letters_folder(root), DEAD_LETTER_COLUMNS)
        self._record = ProgressRecord(progress_folder(root))
        self._stored = self._record.load()
        self._reached: dict[int, Progress] = {}
        self._windows: list[ClosedWindow] = []
        # A catch-up closes thousands of small windows in one epoch: their writes and syncs overlap.
        self._feature_files = ThreadPoolExecutor(WRITE_THREADS, thread_name_prefix="features")
        self._offline: list[Future[None]] = []
        # One thread each, since both keep an order: Redis rows are read and then compared, and log tables grow.
        self._online = Background("redis", ROOM)
        self._logs = Background("logs", ROOM)
        self._progress_key = progress_key(pusher.project, view.name)
        self._marker_key = marker_key(pusher.project, view.name)
        redis = pusher.redis
        if redis is not None and not self._stored:  # the beginning: there is nothing that Redis could lack
            hold_for_redis(lambda: mark_filled(redis, self._marker_key))
        self._mark: bytes | None = None  # unknown, so that the first epoch is pushed twice rather than not at all

    def write_batch(self, values: list[Outcome]) -> None:
        """Have all that came written."""
        self._tally.received()
        closed: list[ClosedWindow] = []
        for outcome in values:
            partition = outcome.progress.partition
            self._messages += len(outcome.records) + len(outcome.dead_letters)
            late = outcome.records.filter(pl.col("missed_windows") > 0)
            self._late_rows += len(late)
            self._dead += len(outcome.dead_letters)
            hold_for_disk(lambda: self._log(outcome, late))  # noqa: B023  (called before the next round)
            # Windows that are durable were pushed online before they became so.
            windows = [window for window in outcome.windows if window.end_ms > self._closed_end(partition)]
            self._offline += [self._feature_files.submit(self._push_offline, partition, window) for window in windows]
            closed += windows
            self._reached[partition] = outcome.progress
        if self._events.waiting_rows + self._dead_letters.waiting_rows >= FLUSH_ROWS:
            self._write_logs()
        if closed:
            features = pl.concat([window.rows for window in closed])
            self._online.do(partial(hold_for_redis, partial(self._pusher.push_online, features)))
            self._windows += closed

    def _log(self, outcome: Outcome, late: pl.DataFrame) -> None:
        partition = outcome.progress.partition
        self._events.append(partition, outcome.records)
        self._late.append(partition, late)
        self._dead_letters.append(partition, outcome.dead_letters)

    def _write_logs(self) -> None:
        for table in (self._events, self._late, self._dead_letters):
            for file in table.take_files():
                self._logs.do(partial(hold_for_disk, file.write))

    def _push_offline(self, partition: int, window: ClosedWindow) -> None:
        hold_for_disk(
            lambda: self._pusher.push_offline(
                window.rows, writer=WRITER, partition=partition, window_end_ms=window.end_ms
            )
        )

    def _closed_end(self, partition: int) -> int:
        """The last window end whose rows are durable; its file may have been compacted, so it is never rewritten."""
        stored = self._stored.get(partition)
        return -1 if stored is None or stored.last_closed_end_ms is None else stored.last_closed_end_ms

    def snapshot(self) -> None:
        """Make the epoch durable; the progress record comes last."""
        self._write_logs()
        for file in self._offline:
            file.result()
        self._logs.finish()
        self._online.finish()
        if (redis := self._pusher.redis) is not None and self._reached:
            hold_for_redis(lambda: self._push_what_a_restore_missed(redis))
        feature_rows = sum(len(window.rows) for window in self._windows)
        self._windows.clear()
        self._offline.clear()
        advanced = {
            partition: progress
            for partition, progress in self._reached.items()
            if partition not in self._stored or progress.next_offset > self._stored[partition].next_offset
        }
        for partition, progress in advanced.items():
            hold_for_disk(lambda: self._record.save(progress))  # noqa: B023  (called before the next round)
            self._stored[partition] = progress
        self._reached.clear()
        if redis is not None and advanced:
            hold_for_redis(lambda: announce(redis, self._progress_key, advanced.values()))
        self._tell(feature_rows, advanced)

    def _push_what_a_restore_missed(self, redis: Redis) -> None:
        """Push the epoch's windows again unless the mark says that Redis has lost nothing since the last epoch.

        A restore that ran meanwhile could not read them: their files are here only now. It comes before the progress
        record is saved, since windows that the record has passed are not pushed any more.
        """
        mark = read_mark(redis, self._marker_key)
        if self._windows and (mark != self._mark or not is_filled(mark)):
            self._pusher.push_online(pl.concat([window.rows for window in self._windows]))
        self._mark = mark
        self._emptied.look(filled=is_filled(mark))

    def _tell(self, feature_rows: int, advanced: dict[int, Progress]) -> None:
        """Count what has become durable."""
        self._tally.stored(self._messages, feature_rows)
        metrics.messages.inc(self._messages)
        metrics.late.inc(self._late_rows)
        metrics.dead_letters.inc(self._dead)
        metrics.feature_rows.inc(feature_rows)
        self._messages = self._late_rows = self._dead = 0
        for partition, progress in advanced.items():
            if progress.watermark_ms is not None:
                metrics.watermark.labels(partition).set(progress.watermark_ms / 1000)

    def close(self) -> None:
        """End the writing threads; the last part tells what the run has stored."""
        self._feature_files.shutdown()
        self._online.close()
        self._logs.close()
        if summary := self._tally.close_part():
            logger.info("%s", summary)
