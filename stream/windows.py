"""The window engine: one partition's events in, closed windows out.

Pure and columnar: it depends on neither Bytewax nor Kafka nor Feast, so it can be tested and reused alone. The full
rule is in `docs/semantics.md`; in short, per partition and in offset order:

    watermark  = greatest event time so far - allowed lateness
    window E   covers [E - window, E) and closes at once when the watermark reaches E
    a record   counts in each of its windows that is still open when it arrives, and in no closed one

State is kept in panes (user x slide), and a window is merged from its panes when it closes, as in Li et al., "No Pane,
No Gain" (SIGMOD Record 34(1), 2005). One invariant makes this exact: a record is added to its pane only while its last
window is open, and then counts in exactly those of its windows that close later.

In a stream with event ids, a record of an event that was seen before counts nowhere (`seen_ids.py`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl

from feast_repo.declare.arrival import MOST_AHEAD_MS
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.panes import AFTER, PANE
from feast_repo.errors import RefusedError
from stream.panes import Panes
from stream.seen_ids import HASHING, SeenIds, ids_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from feast_repo.declare.views import WindowedView

    Int64Array = NDArray[np.int64]

STATE_VERSION = 3
CHECKSUM_BYTES, VERSION_BYTES = 16, 2
NOTHING_CLOSED = -(2**62)
"""Index of the last closed window before the first record: below every real one, and safe to subtract from."""


class SnapshotError(RefusedError, ValueError):
    """A snapshot can't be restored: another version, another declaration, or not a snapshot at all."""


@dataclass(frozen=True)
class ClosedWindow:
    """The rows of one closed window, sorted by user: join key, event_timestamp, created_timestamp, features."""

    end_ms: int
    rows: pl.DataFrame


@dataclass(frozen=True)
class Processed:
    """The results of a batch.

    `records` is the input with `watermark` (Int64, ms; as the record saw it, so null for the very first record) and
    `missed_windows` (Int32; how many of its windows had closed before it arrived, 0 for heartbeats and duplicates).
    `windows` are the closed windows that have rows, ordered by their ends.
    """

    records: pl.DataFrame
    windows: list[ClosedWindow]


class _Snapshot(msgspec.Struct):
    declaration: str
    max_event_ms: int | None
    max_kafka_ms: int | None
    panes: bytes
    hashing: str
    seen: bytes


class WindowEngine:
    """Windows of one partition.

        engine = WindowEngine(view)
        processed = engine.process(records)   # as many records at a time as you like
        engine = WindowEngine.restore(view, engine.snapshot())

    Results are a pure function of the records in order: how they are split into batches never changes them.
    """

    def __init__(self, view: WindowedView) -> None:
        self._view = view
        self._max_event_ms: int | None = None
        self._max_arrival_ms: int | None = None
        self._panes = Panes(view)
        self._seen = SeenIds()

    @property
    def watermark_ms(self) -> int | None:
        """The watermark, ms UTC; None before the first record."""
        return None if self._max_event_ms is None else self._max_event_ms - self._view.lateness_ms

    @property
    def last_closed_end_ms(self) -> int | None:
        """The end of the last closed window, ms UTC; None before the first record."""
        watermark = self.watermark_ms
        return None if watermark is None else watermark // self._view.slide_ms * self._view.slide_ms

    @property
    def nbytes(self) -> tuple[int, int]:
        """Memory in bytes that the aggregates take, and that the seen ids take."""
        return self._panes.nbytes, self._seen.nbytes

    def process(self, records: pl.DataFrame) -> Processed:
        """Take the partition's next accepted records, in offset order.

        `records` has `kafka_timestamp` (Int64, ms UTC), `create_time` (Boolean: the timestamp is the producer's; may be
        omitted if none is) and the event's declared columns; a heartbeat has the declared kind and a null key. Other
        columns pass through.
        """
        if "create_time" not in records.columns:
            records = records.with_columns(create_time=pl.lit(value=False))
        view = self._view
        event = records[view.source.time].to_numpy()
        max_event = _running_max(event, self._max_event_ms)
        max_arrival = _running_max(_arrivals(records, max_event), self._max_arrival_ms)
        closed_after = (max_event - view.lateness_ms) // view.slide_ms
        closed_before = np.empty_like(closed_after)
        closed_before[1:] = closed_after[:-1]
        closed_before[:1] = self._closed_index
        pane = event // view.slide_ms
        inputs, missed = self._inputs(records, pane, closed_before)
        windows: list[ClosedWindow] = []
        if len(records) and closed_after[-1] > closed_before[0]:
            for index, rows in self._panes.close(inputs, int(closed_before[0]), int(closed_after[-1])):
                closing = np.searchsorted(closed_after, index)  # the first record whose watermark reaches the end
                windows.append(self._closed(index, rows, int(max_arrival[closing])))
            self._seen.forget(int(closed_after[-1]) - view.panes_per_window)
        else:
            self._panes.add(inputs)

        watermark = pl.Series("watermark", max_event - view.lateness_ms, dtype=pl.Int64).shift(1)
        if len(records):
            watermark[0] = self.watermark_ms
            self._max_event_ms, self._max_arrival_ms = int(max_event[-1]), int(max_arrival[-1])
        return Processed(records.with_columns(watermark, pl.Series("missed_windows", missed, dtype=pl.Int32)), windows)

    def _inputs(
        self, records: pl.DataFrame, pane: Int64Array, closed_before: Int64Array
    ) -> tuple[pl.DataFrame, NDArray[np.int32]]:
        """The records that count in some window, as input for the panes, and how many windows each record missed."""
        view = self._view
        missed = np.clip(closed_before - pane, 0, view.panes_per_window).astype(np.int32)
        counts = missed < view.panes_per_window
        no_click = records[view.source.key].is_null().to_numpy()
        if view.source.event_id is not None:
            at = np.flatnonzero(counts)
            events = records[view.source.event_id].gather(at), records[view.source.time].gather(at).to_numpy()
            no_click[at] |= self._seen.add(pane[at], ids_of(*events))
        missed[no_click] = 0
        inputs = records.select(
            *dict.fromkeys((*view.join_keys, *view.input_columns)),
            pl.Series(PANE, pane),
            # No window up to this one counts the record: it was closed already, or ends before the record's pane does.
            pl.Series(AFTER, np.maximum(closed_before, pane)),
        ).filter(pl.Series(counts & ~no_click))
        return inputs, missed

    def _closed(self, index: int, rows: pl.DataFrame, created_ms: int) -> ClosedWindow:
        """A closed window with rows from its merged aggregates."""
        view = self._view
        end_ms = index * view.slide_ms
        rows = rows.with_columns(
            *view.final_expressions(), event_timestamp=_utc(end_ms), created_timestamp=_utc(created_ms)
        )
        return ClosedWindow(
            end_ms, rows.select(*view.join_keys, "event_timestamp", "created_timestamp", *view.features)
        )

    @property
    def _closed_index(self) -> int:
        end = self.last_closed_end_ms
        return NOTHING_CLOSED if end is None else end // self._view.slide_ms

    def snapshot(self) -> bytes:
        """The state as compact immutable bytes with checksum, format version and the declaration's fingerprint."""
        state = msgspec.msgpack.encode(
            _Snapshot(
                declaration=self._view.fingerprint,
                max_event_ms=self._max_event_ms,
                max_kafka_ms=self._max_arrival_ms,
                panes=self._panes.to_bytes(),
                hashing=HASHING,
                seen=self._seen.to_bytes(),
            )
        )
        content = STATE_VERSION.to_bytes(VERSION_BYTES) + state
        return _checksum(content) + content

    @classmethod
    def restore(cls, view: WindowedView, snapshot: bytes) -> WindowEngine:
        """Resume from a snapshot.

        Raises:
            SnapshotError: the snapshot is of another format version or of another declaration, or is damaged.
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
        if state.declaration != view.fingerprint:
            message = (
                f"window state belongs to another declaration of {view.name!r} (its aggregates, times or lateness "
                "differ): go back to that declaration, or rebuild the recovery state for this one"
            )
            raise SnapshotError(message)
        if view.source.event_id is not None and state.hashing != HASHING:
            message = "window state knows its events by another hash than this version of Polars computes; rebuild it"
            raise SnapshotError(message)
        engine = cls(view)
        engine._max_event_ms, engine._max_arrival_ms = state.max_event_ms, state.max_kafka_ms
        engine._panes.load(state.panes)
        engine._seen.load(state.seen)
        return engine

    @classmethod
    def rebuild(cls, view: WindowedView, tail: pl.DataFrame, max_event_ms: int, max_arrival_ms: int) -> WindowEngine:
        """The engine as it is after processing a log, rebuilt from the log's archived end.

        `tail`: as for `process`, with the archived `watermark` (Int64, ms) that each record saw, in offset order. It
        has at least all records with an event time from `tail_start_ms()` on. The maxima are those of the whole log.

        Raises:
            SnapshotError: the log was archived under another allowed lateness.
        """
        engine = cls(view)
        engine._max_event_ms, engine._max_arrival_ms = max_event_ms, max_arrival_ms
        if tail[view.source.time].max() != max_event_ms:
            message = (
                f"the archive of {view.source.name!r} was written with another allowed lateness than "
                f"{view.source.allowed_lateness}: go back to it, or use another DATA_ROOT"
            )
            raise SnapshotError(message)
        live = tail.filter(pl.col(view.source.time) >= tail_start_ms(view, max_event_ms - view.lateness_ms))
        closed_before = (live["watermark"] // view.slide_ms).fill_null(NOTHING_CLOSED).to_numpy()
        inputs, _ = engine._inputs(live, live[view.source.time].to_numpy() // view.slide_ms, closed_before)
        engine._panes.add(inputs)
        engine._seen.forget(engine._closed_index - view.panes_per_window)
        return engine


def tail_start_ms(view: WindowedView, watermark_ms: int) -> int:
    """The earliest event time of records that can matter to open windows or their expiry rows."""
    return watermark_ms // view.slide_ms * view.slide_ms - view.window_ms


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


def _utc(milliseconds: int) -> pl.Expr:
    return pl.lit(milliseconds * 1000, pl.Int64).cast(UTC_MICROSECONDS)
