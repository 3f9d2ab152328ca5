"""The window engine: one partition's events in, closed windows of all the stream's views out.

Pure and columnar: it depends on neither Bytewax nor Kafka nor Feast, so it can be tested and reused alone. The full
rule is in `docs/semantics.md`; in short, per partition and in offset order:

    watermark  = greatest event time so far - allowed lateness
    window E   covers [E - window, E) and closes at once when the watermark reaches E
    a record   counts in each of its windows that is still open when it arrives, and in no closed one

The watermark is the stream's, the windows are each view's. State is kept in panes (entity x slide), and a window is
merged from its panes when it closes, as in Li et al., "No Pane, No Gain" (SIGMOD Record 34(1), 2005). One invariant
makes this exact: a record is added to its pane only while its last window is open, and then counts in exactly those of
its windows that close later.

In a stream with event ids, a copy counts nowhere: a record with the id and time of an earlier one that sees a watermark
below that time plus the deduplication horizon (`seen_ids.py`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl

from feast_repo.declare.arrival import MOST_AHEAD_MS
from feast_repo.declare.views import deduplication_horizon_ms
from feast_repo.errors import RefusedError
from stream.seen_ids import HASHING, SeenIds, ids_of
from stream.view_windows import NO_WATERMARK, Batch, ClosedWindow, ViewWindows, tail_start_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from feast_repo.declare.events import EventStream
    from feast_repo.declare.views import WindowedView

    BoolArray = NDArray[np.bool_]
    Int32Array = NDArray[np.int32]
    Int64Array = NDArray[np.int64]

STATE_VERSION = 4
CHECKSUM_BYTES, VERSION_BYTES = 16, 2
BUCKETS = 8
"""Into so many parts of a horizon are seen ids divided, which are forgotten part by part."""


class SnapshotError(RefusedError, ValueError):
    """A snapshot can't be restored: another version, another declaration, or not a snapshot at all."""


@dataclass(frozen=True)
class Processed:
    """The results of a batch.

    `records` is the input with `watermark` (Int64, ms; as the record saw it, so null for the very first record).
    `missed` tells by view how many of its windows had closed before each record arrived: 0 for heartbeats and copies.
    `windows` are the closed windows that have rows, view by view, ordered by their ends.
    """

    records: pl.DataFrame
    missed: dict[str, Int32Array]
    windows: list[ClosedWindow]

    def late(self, view: str) -> pl.DataFrame:
        """The records that missed windows of a view, with `missed_windows` (Int32)."""
        missed = self.missed[view]
        at = np.flatnonzero(missed)
        return self.records[at].with_columns(pl.Series("missed_windows", missed[at], dtype=pl.Int32))


class _ViewState(msgspec.Struct):
    declaration: str
    panes: bytes


class _Snapshot(msgspec.Struct):
    max_event_ms: int | None
    max_kafka_ms: int | None
    views: dict[str, _ViewState]
    hashing: str
    seen: bytes


class WindowEngine:
    """Windows of one partition, of any number of views of its stream.

        engine = WindowEngine(stream, views)
        processed = engine.process(records)   # as many records at a time as you like
        engine = WindowEngine.restore(stream, views, engine.snapshot())

    Results are a pure function of the records in order: how they are split into batches never changes them.
    """

    def __init__(self, stream: EventStream, views: Sequence[WindowedView]) -> None:
        self._stream = stream
        self._views = [ViewWindows(view) for view in views]
        self._max_event_ms: int | None = None
        self._max_arrival_ms: int | None = None
        self._seen = SeenIds()
        self._horizon_ms = deduplication_horizon_ms(stream, views)

    @property
    def watermark_ms(self) -> int | None:
        """The watermark, ms UTC; None before the first record."""
        return None if self._max_event_ms is None else self._max_event_ms - self._stream.lateness_ms

    @property
    def nbytes(self) -> tuple[int, int]:
        """Memory in bytes that the aggregates take, and that the seen ids take."""
        return sum(one.panes.nbytes for one in self._views), self._seen.nbytes

    def process(self, records: pl.DataFrame) -> Processed:
        """Take the partition's next accepted records, in offset order.

        `records` has `kafka_timestamp` (Int64, ms UTC), `create_time` (Boolean: the timestamp is the producer's; may be
        omitted if none is) and the stream's declared columns; a heartbeat has a null key. Other columns pass through.
        """
        if "create_time" not in records.columns:
            records = records.with_columns(create_time=pl.lit(value=False))
        event = records[self._stream.time].to_numpy()
        max_event = _running_max(event, self._max_event_ms)
        max_arrival = _running_max(_arrivals(records, max_event), self._max_arrival_ms)
        reached = max_event - self._stream.lateness_ms
        seen = np.empty_like(reached)
        seen[1:] = reached[:-1]
        seen[:1] = NO_WATERMARK if self.watermark_ms is None else self.watermark_ms
        batch = Batch(records, event, seen, reached, max_arrival, self._ignored(records, event, seen))
        missed, windows = {}, []
        for one in self._views:
            missed[one.view.name], closed = one.process(batch)
            windows += closed

        watermark = pl.Series("watermark", reached, dtype=pl.Int64).shift(1)
        if len(records):
            watermark[0] = self.watermark_ms
            self._max_event_ms, self._max_arrival_ms = int(max_event[-1]), int(max_arrival[-1])
            self._forget()
        return Processed(records.with_columns(watermark), missed, windows)

    def _ignored(self, records: pl.DataFrame, event: Int64Array, seen: Int64Array) -> BoolArray:
        """Which records count nowhere: heartbeats, and copies of earlier events."""
        ignored: BoolArray = records[self._stream.key].is_null().to_numpy()
        if self._horizon_ms is None or self._stream.event_id is None:
            return ignored
        at = np.flatnonzero(seen < event + self._horizon_ms)
        ids = ids_of(records[self._stream.event_id].gather(at), event[at])
        ignored = ignored.copy()
        ignored[at] |= self._seen.add(event[at] // self._bucket_ms, ids)
        return ignored

    @property
    def _bucket_ms(self) -> int:
        return max(1, (self._horizon_ms or 0) // BUCKETS)

    def _forget(self) -> None:
        """Forget the events of which no copy can be recognized any more."""
        if self._horizon_ms is not None and self.watermark_ms is not None:
            self._seen.forget((self.watermark_ms - self._horizon_ms + 1) // self._bucket_ms - 1)

    def snapshot(self) -> bytes:
        """The state as compact immutable bytes with checksum, format version and the declarations' fingerprints."""
        state = msgspec.msgpack.encode(
            _Snapshot(
                max_event_ms=self._max_event_ms,
                max_kafka_ms=self._max_arrival_ms,
                views={one.view.name: _ViewState(one.view.fingerprint, one.panes.to_bytes()) for one in self._views},
                hashing=HASHING,
                seen=self._seen.to_bytes(),
            )
        )
        content = STATE_VERSION.to_bytes(VERSION_BYTES) + state
        return _checksum(content) + content

    @classmethod
    def restore(cls, stream: EventStream, views: Sequence[WindowedView], snapshot: bytes) -> WindowEngine:
        """Resume from a snapshot.

        Raises:
            SnapshotError: the snapshot is of another format version or of other declarations, or is damaged.
        """
        checksum, content = snapshot[:CHECKSUM_BYTES], snapshot[CHECKSUM_BYTES:]
        if checksum != _checksum(content):
            message = "not a window state, or a damaged one; rebuild the recovery state"
            raise SnapshotError(message)
        version = int.from_bytes(content[:VERSION_BYTES])
        if version != STATE_VERSION:
            message = f"window state has version {version}, this program reads {STATE_VERSION}; rebuild it"
            raise SnapshotError(message)
        state = msgspec.msgpack.decode(content[VERSION_BYTES:], type=_Snapshot)
        fingerprints = {name: view.declaration for name, view in state.views.items()}
        declared = {view.name: view.fingerprint for view in views}
        if fingerprints != declared:
            names = ", ".join(repr(name) for name, _ in sorted(fingerprints.items() ^ declared.items()))
            message = (
                f"window state belongs to another declaration of {names} (its aggregates, times or lateness differ): "
                "go back to that declaration, or rebuild the recovery state for this one"
            )
            raise SnapshotError(message)
        if stream.event_id is not None and state.hashing != HASHING:
            message = "window state knows its events by another hash than this version of Polars computes; rebuild it"
            raise SnapshotError(message)
        engine = cls(stream, views)
        engine._max_event_ms, engine._max_arrival_ms = state.max_event_ms, state.max_kafka_ms
        for one in engine._views:
            one.panes.load(state.views[one.view.name].panes)
        engine._seen.load(state.seen)
        return engine

    @classmethod
    def rebuild(
        cls,
        stream: EventStream,
        views: Sequence[WindowedView],
        tail: pl.DataFrame,
        *,
        max_event_ms: int,
        max_arrival_ms: int,
    ) -> WindowEngine:
        """The engine as it is after processing a log, rebuilt from the log's archived end.

        `tail`: as for `process`, with the archived `watermark` (Int64, ms) that each record saw, in offset order. It
        has at least all records with an event time from `log_tail_start_ms()` on. The maxima are those of the whole
        log.

        Raises:
            SnapshotError: the log was archived under another allowed lateness.
        """
        engine = cls(stream, views)
        engine._max_event_ms, engine._max_arrival_ms = max_event_ms, max_arrival_ms
        if tail[stream.time].max() != max_event_ms:
            message = (
                f"the archive of {stream.name!r} was written with another allowed lateness than "
                f"{stream.allowed_lateness}: go back to it, or use another DATA_ROOT"
            )
            raise SnapshotError(message)
        watermark_ms = max_event_ms - stream.lateness_ms
        event, seen = tail[stream.time].to_numpy(), tail["watermark"].fill_null(NO_WATERMARK).to_numpy()
        ignored = engine._ignored(tail, event, seen)
        for one in engine._views:
            live = event >= tail_start_ms(one.view, watermark_ms)
            records = tail.filter(pl.Series(live))
            one.resume(Batch(records, event[live], seen[live], seen[live], seen[live], ignored[live]))
        engine._forget()
        return engine


def log_tail_start_ms(stream: EventStream, views: Sequence[WindowedView], watermark_ms: int) -> int:
    """The earliest event time of records that can matter to windows and copies to come."""
    horizon_ms = deduplication_horizon_ms(stream, views) or 0
    return min(watermark_ms - horizon_ms, *(tail_start_ms(view, watermark_ms) for view in views), watermark_ms)


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=CHECKSUM_BYTES).digest()


def _arrivals(records: pl.DataFrame, max_event: Int64Array) -> Int64Array:
    """When each record arrived: its Kafka time, bounded if it is a producer's (`feast_repo/declare/arrival.py`)."""
    kafka = records["kafka_timestamp"].to_numpy()
    if not records["create_time"].any():
        return kafka
    return np.where(records["create_time"].to_numpy(), np.minimum(kafka, max_event + MOST_AHEAD_MS), kafka)


def _running_max(values: Int64Array, previous: int | None) -> Int64Array:
    """The running maximum, starting from `previous`."""
    running = np.maximum.accumulate(values)
    return running if previous is None else np.maximum(running, previous)
