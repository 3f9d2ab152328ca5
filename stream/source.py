"""The Kafka source: each partition's new messages, one `RawBatch` at a time.

Guarantee: at-least-once delivery, in offset order within each partition. The next offset is part of the epoch's
snapshot, so with recovery a record counts exactly once. Kafka's group offsets are committed for lag tools only and
never read.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias

import polars as pl
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import KafkaError, KafkaException

from feast_repo.codec.decoding import RawBatch
from feast_repo.stores import identity
from feast_repo.stores.offline.tables import progress_folder
from feast_repo.stores.progress import ProgressRecord
from stream import availability, metrics
from stream.archive_tail import ArchiveTail
from stream.consumer import WorkerConsumer
from stream.kafka import AUTO_OFFSET_RESET, KafkaUnavailableError
from stream.lock import bytewax_arguments
from stream.pause import Worker, Workers
from stream.routing import part_of, place_of
from stream.stopping import fail, refuse, stop_requested
from stream.topic_watch import TopicWatch
from stream.uncommitted import uncommitted
from stream.windows import SnapshotError

if TYPE_CHECKING:
    from feast_repo.declare.events import EventStream
    from feast_repo.settings import StreamSettings
    from feast_repo.stores.identity import StreamIdentity
    from feast_repo.stores.progress import Progress

EARLIEST_MS, LATEST_MS = 0, 253_370_764_800_000  # 1970 to 9999-01-01, because windows end later than their events
IDLE, UNCONFIRMED = timedelta(milliseconds=20), timedelta(milliseconds=1)
"""Time to the next poll: while nothing arrives or Kafka is away, and while the topic's identity is being confirmed."""


OfStream: TypeAlias = tuple[str, RawBatch]
"""A batch, after the name of its stream."""


class KafkaSource(FixedPartitionedSource[OfStream, int]):
    """The partitions of all streams' topics as they were when the run started.

    A first run starts at the oldest record, a resumed run at the offset in its snapshot. It refuses to start (exit 2)
    if that offset is gone or never existed, because starting elsewhere would lose or repeat records.
    """

    def __init__(self, settings: StreamSettings) -> None:
        self.workers = Workers()
        self._settings = settings
        self._stored: dict[str, dict[int, Progress]] = {}
        self._watches: dict[str, TopicWatch] = {}
        self._lock = threading.Lock()
        self._consumers: dict[tuple[int, str], WorkerConsumer] = {}
        """By thread, as `Workers` are, and stream."""

    def list_parts(self) -> list[str]:
        """One part per Kafka partition that existed at the start check."""
        known, streams = self._known(), self._settings.catalog.streams
        return [part_of(one.name, number) for one in streams for number in range(known[one.name].partitions)]

    def _known(self) -> dict[str, StreamIdentity]:
        """The topics by stream, as recorded by the start check."""
        known = identity.load(self._settings.data_root)
        assert known is not None  # noqa: S101  (recorded before any dataflow is built)
        return known.streams

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> KafkaPartition:
        """Open one partition at its start or at the resumed offset."""
        del step_id
        name, partition = place_of(for_part)
        stream = self._settings.catalog.stream(name)
        with self._lock:  # worker threads share this object
            if name not in self._watches:
                record = ProgressRecord(progress_folder(self._settings.data_root, stream))
                self._stored[name] = record.load()
                recovery = bytewax_arguments(sys.argv)[1]
                self._watches[name] = TopicWatch(self._settings, self._known()[name], recovery)
        thread = threading.get_ident()
        if (thread, name) not in self._consumers:
            self._consumers[thread, name] = WorkerConsumer(self._settings, stream, self._watches[name])
        return KafkaPartition(
            self._settings,
            stream,
            self._consumers[thread, name],
            self.workers.this(),
            partition,
            resume_state,
            self._stored[name].get(partition),
        )


class KafkaPartition(StatefulSourcePartition[OfStream, int]):
    """One partition's records from an offset on."""

    def __init__(
        self,
        settings: StreamSettings,
        stream: EventStream,
        consumer: WorkerConsumer,
        worker: Worker,
        partition: int,
        resume_offset: int | None,
        stored: Progress | None,
    ) -> None:
        self._stream = stream
        self._partition = partition
        self._part = part_of(stream.name, partition)
        self._where = f"{stream.topic}[{partition}] on {settings.kafka_bootstrap_servers}"
        self._consumer = consumer
        self._worker = worker
        self._next_offset, end = self._start_and_end(settings, resume_offset, stored)
        self._end = end if settings.stream_stop_at_end else None
        self._ended = self._end is not None and self._next_offset >= self._end
        self._uncommitted: int | None = None
        self._awake: datetime | None = None
        self._failure: KafkaError | None = None
        uncommitted.open(self._part, self._next_offset)
        consumer.start(partition, self._next_offset)
        worker.ask_in(self._part, 0.0)

    def _start_and_end(
        self, settings: StreamSettings, resume_offset: int | None, stored: Progress | None
    ) -> tuple[int, int]:
        """Where to start, and the partition's current end; refuses if the log contradicts the stored data."""
        where = self._where
        try:
            low, high = self._consumer.bounds(self._partition)
        except KafkaException as error:
            refuse(KafkaUnavailableError(f"can't read the offsets of {where}: {error.args[0].str()}"))
        if resume_offset is not None and resume_offset < low:
            refuse(
                f"{where}: the recovery state resumes at offset {resume_offset}, but Kafka has deleted everything "
                f"before {low} (retention), so records are lost: raise the topic's retention, and go on with another "
                "DATA_ROOT and a new recovery directory"
            )
        if stored is not None and resume_offset is None and stored.next_offset < low:
            refuse(
                f"{where}: data up to offset {stored.next_offset} is stored, but Kafka has deleted all before "
                f"{low} (retention), and windows would lack the deleted records: resume with the recovery directory, "
                "or keep the gap apart by using another DATA_ROOT"
            )
        if stored is not None and resume_offset is None and low > 0:
            self._check_what_is_gone(settings, stored, low)
        next_stored = low if stored is None else stored.next_offset
        if resume_offset is not None and resume_offset > next_stored:
            refuse(
                f"{where}: the recovery state resumes at offset {resume_offset}, but {settings.data_root} holds the "
                f"data up to {next_stored} only: correct DATA_ROOT, or use the recovery directory that belongs to it"
            )
        known = max(resume_offset or 0, 0 if stored is None else stored.next_offset)
        if known > high:
            refuse(
                f"{where} ends at offset {high}, but data up to offset {known} is stored: this is another topic, or it "
                f"was recreated; use another DATA_ROOT and recovery directory than {settings.data_root}"
            )
        return (low if resume_offset is None else resume_offset), high

    def _check_what_is_gone(self, settings: StreamSettings, stored: Progress, low: int) -> None:
        """Refuse to compute open windows from a log that lacks some of their records."""
        try:
            views = settings.catalog.views_of(self._stream)
            needed = ArchiveTail(settings.data_root, self._stream, views, stored).first_needed()
        except (SnapshotError, OSError, pl.exceptions.PolarsError) as error:
            refuse(f"{self._where}: Kafka has deleted everything before {low} (retention), and {error}")
        if needed < low:
            refuse(
                f"{self._where}: windows that are open need the records from offset {needed} on, but Kafka has deleted "
                f"everything before {low} (retention): resume with the recovery directory, `-r`; one that is lost is "
                "rebuilt from the archive"
            )

    def next_batch(self) -> list[OfStream]:
        """The next messages; ends on a stop signal or at the requested end."""
        if stop_requested.is_set() or self._ended:
            raise StopIteration
        if self._failure is not None:
            fail(self._why_it_ends(self._failure))
        arrived = self._consumer.take(self._partition)
        self._failure = arrived.failure
        if arrived.end is not None:
            self._ended = self._end is not None and arrived.end >= self._end
        wait = self._wait()
        self._awake = None if wait is None else datetime.now(UTC) + wait
        self._worker.ask_in(self._part, 0.0 if wait is None else wait.total_seconds())
        if not arrived.batch.offsets:
            return []
        availability.kafka.is_back_for_all()
        timestamps = within_calendar(arrived.batch.kafka_timestamps)
        return self._advance(replace(arrived.batch, kafka_timestamps=timestamps))

    def _wait(self) -> timedelta | None:
        """Until the next look; None: at once, since a poll that brought others something may bring us something too."""
        if self._consumer.unconfirmed and not availability.kafka.away:
            return UNCONFIRMED
        return IDLE if self._consumer.unconfirmed or self._consumer.idle else None

    def _why_it_ends(self, error: KafkaError) -> str:
        """The message for a permanent Kafka error at the next record; all earlier records are stored or replayed."""
        remedy = "mend that, then start again"
        if error.code() in {AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:
            remedy = (
                "Kafka has deleted it (retention): raise the topic's retention, and go on with another DATA_ROOT and a "
                "new recovery directory"
            )
        return f"{self._where}, offset {self._next_offset}: {error.str()}; {remedy}"

    def _advance(self, batch: RawBatch) -> list[OfStream]:
        """Advance past the batch; at the requested end, drop what came after it."""
        self._next_offset = batch.offsets[-1] + 1
        if self._end is not None and self._next_offset >= self._end:
            self._ended = True
            within = sum(offset < self._end for offset in batch.offsets)
            batch = RawBatch(batch.partition, *(column[:within] for column in batch.columns))
            self._next_offset = batch.offsets[-1] + 1 if within else self._end
        uncommitted.read(self._part, self._next_offset)
        return [(self._stream.name, batch)] if batch.offsets else []

    def next_awake(self) -> datetime | None:
        """When to poll again; None: at once."""
        return self._awake

    def snapshot(self) -> int:
        """The next offset. The previous snapshot is committed by now, so its offset is published to lag tools."""
        if self._uncommitted is not None:
            uncommitted.committed(self._part, self._uncommitted)
            self._consumer.commit(self._partition, self._uncommitted)
        self._uncommitted = self._next_offset
        behind = self._consumer.behind(self._partition, self._next_offset)
        metrics.lag.labels(self._stream.name, self._partition).set(behind)
        return self._next_offset

    def close(self) -> None:
        """Stop reading the partition; the last epoch commits as the run ends."""
        self._consumer.commit(self._partition, self._next_offset)
        self._consumer.stop(self._partition)
        self._worker.ask_no_more(self._part)


def within_calendar(timestamps: list[int]) -> list[int]:
    """Clamp timestamps to Python's calendar: producers may send any 64-bit value, which must not crash the run."""
    if min(timestamps) >= EARLIEST_MS and max(timestamps) <= LATEST_MS:
        return timestamps
    return [min(max(timestamp, EARLIEST_MS), LATEST_MS) for timestamp in timestamps]
