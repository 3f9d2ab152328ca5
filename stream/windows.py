"""The window engine: one partition's events in, closed windows out.

Pure and columnar: it knows neither Bytewax nor Kafka nor Feast, so it can be tested and reused alone. The rule is in
`docs/semantics.md`; in short, per partition and in offset order:

    watermark  = greatest event time so far - allowed lateness
    window E   covers [E - window, E) and closes at once when the watermark reaches E
    a record   counts in each of its windows that is still open when it arrives, and in no closed one

State is kept in panes (user x slide), and a window is merged from its panes when it closes: the panes of Li et al., "No
Pane, No Gain" (SIGMOD Record 34(1), 2005). This gives the exact rule because of one invariant: a record is added to its
pane only while its last window is open, and then it counts in exactly those of its windows that close later.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl

from feast_repo.events import UTC_MICROSECONDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from feast_repo.views import WindowedView

    Int64Array = NDArray[np.int64]

STATE_VERSION = 1
CHECKSUM_BYTES, VERSION_BYTES = 16, 2
NOTHING_CLOSED = -(2**62)
"""Index of the last closed window before the first record: below every real one, and safe to subtract from."""

PANE = "#pane"
"""Column with a pane's index (its start divided by the slide); no name that an event field would have."""

FLUSH_ROWS = 65_536
"""Rows that wait before they are aggregated: one large group-by costs far less than many small ones."""


class SnapshotError(ValueError):
    """A snapshot can't be restored: another version, another declaration, or not a snapshot at all."""


@dataclass(frozen=True)
class ClosedWindow:
    """The rows of one closed window, sorted by user: join key, event_timestamp, created_timestamp, features."""

    end_ms: int
    rows: pl.DataFrame


@dataclass(frozen=True)
class Processed:
    """What a batch led to.

    `records` is the input with `watermark` (Int64, ms; the one that the record saw, so null for the very first) and
    `missed_windows` (Int32; how many of its windows had closed before it came, 0 for heartbeats). `windows` are the
    closed windows that have rows, in order of their ends.
    """

    records: pl.DataFrame
    windows: list[ClosedWindow]


class _Snapshot(msgspec.Struct):
    declaration: str
    max_event_ms: int | None
    max_kafka_ms: int | None
    panes: bytes


class WindowEngine:
    """Windows of one partition.

        engine = WindowEngine(view)
        processed = engine.process(records)   # as many records at a time as you like
        engine = WindowEngine.restore(view, engine.snapshot())

    Results are a pure function of the records in order: how they are cut into batches never changes them.
    """

    def __init__(self, view: WindowedView) -> None:
        self._view = view
        self._max_event_ms: int | None = None
        self._max_kafka_ms: int | None = None
        self._panes = _Panes(view)

    @property
    def watermark_ms(self) -> int | None:
        """The watermark, ms UTC; None before the first record."""
        return None if self._max_event_ms is None else self._max_event_ms - self._view.lateness_ms

    @property
    def last_closed_end_ms(self) -> int | None:
        """The greatest window end that has closed, ms UTC; None before the first record."""
        watermark = self.watermark_ms
        return None if watermark is None else watermark // self._view.slide_ms * self._view.slide_ms

    def process(self, records: pl.DataFrame) -> Processed:
        """Take the partition's next accepted records, in offset order.

        `records` has `kafka_timestamp` (Int64, ms UTC) and the event's declared columns; a heartbeat has the declared
        kind and a null key. Other columns pass through.
        """
        view = self._view
        event = records[view.events.time].to_numpy()
        kafka = records["kafka_timestamp"].to_numpy()
        is_heartbeat = (records[view.events.kind] == view.events.heartbeat).to_numpy()

        max_event = _running_max(event, self._max_event_ms)
        max_kafka = _running_max(kafka, self._max_kafka_ms)
        closed_after = (max_event - view.lateness_ms) // view.slide_ms
        closed_before = np.empty_like(closed_after)
        closed_before[1:] = closed_after[:-1]
        closed_before[:1] = self._closed_index
        pane = event // view.slide_ms
        missed = np.where(is_heartbeat, 0, np.clip(closed_before - pane, 0, view.panes_per_window)).astype(np.int32)

        columns = dict.fromkeys((view.entity.join_key, *view.input_columns))
        inputs = records.select(*columns, pl.Series(PANE, pane))
        counts = pl.Series(~is_heartbeat & (missed < view.panes_per_window))
        windows: list[ClosedWindow] = []
        start = 0
        for position in np.flatnonzero(closed_after > closed_before).tolist():
            self._panes.add(inputs[start:position].filter(counts[start:position]))
            windows += self._panes.close(
                int(closed_before[position]), int(closed_after[position]), created_ms=int(max_kafka[position])
            )
            start = position
        self._panes.add(inputs[start:].filter(counts[start:]))

        watermark = pl.Series("watermark", max_event - view.lateness_ms, dtype=pl.Int64).shift(1)
        if len(records):
            watermark[0] = self.watermark_ms
            self._max_event_ms, self._max_kafka_ms = int(max_event[-1]), int(max_kafka[-1])
        return Processed(records.with_columns(watermark, pl.Series("missed_windows", missed, dtype=pl.Int32)), windows)

    @property
    def _closed_index(self) -> int:
        end = self.last_closed_end_ms
        return NOTHING_CLOSED if end is None else end // self._view.slide_ms

    def snapshot(self) -> bytes:
        """The state as compact immutable bytes, with checksum, format version and the declaration's fingerprint."""
        state = msgspec.msgpack.encode(
            _Snapshot(
                declaration=self._view.fingerprint,
                max_event_ms=self._max_event_ms,
                max_kafka_ms=self._max_kafka_ms,
                panes=self._panes.to_bytes(),
            )
        )
        content = STATE_VERSION.to_bytes(VERSION_BYTES) + state
        return _checksum(content) + content

    @classmethod
    def restore(cls, view: WindowedView, snapshot: bytes) -> WindowEngine:
        """Go on from a snapshot.

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
        engine = cls(view)
        engine._max_event_ms, engine._max_kafka_ms = state.max_event_ms, state.max_kafka_ms
        engine._panes.load(state.panes)
        return engine


class _Panes:
    """Aggregates by pane and user.

    A pane is a list of frames, each with one row per user: like in a log-structured merge tree, a frame is merged into
    the one before it once it is at least half its size, so a row is merged O(log n) times.
    """

    def __init__(self, view: WindowedView) -> None:
        self._view = view
        self._key = view.entity.join_key
        self._frames: dict[int, list[pl.DataFrame]] = {}
        self._waiting: list[pl.DataFrame] = []
        self._waiting_rows = 0

    def add(self, inputs: pl.DataFrame) -> None:
        """Add counted records: join key, pane, and the fields that the aggregates read."""
        if inputs.is_empty():
            return
        self._waiting.append(inputs)
        self._waiting_rows += len(inputs)
        if self._waiting_rows >= FLUSH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        added = pl.concat(self._waiting).group_by(PANE, self._key).agg(self._view.pane_expressions())
        self._waiting, self._waiting_rows = [], 0
        for pane, frame in _by_pane(added):
            frames = self._frames.setdefault(pane, [])
            frames.append(frame)
            while len(frames) > 1 and len(frames[-2]) <= 2 * len(frames[-1]):
                frames[-2:] = [self._merge(frames[-2:])]

    def _merge(self, frames: list[pl.DataFrame]) -> pl.DataFrame:
        return pl.concat(frames).group_by(self._key).agg(self._view.merge_expressions())

    def close(self, closed: int, upto: int, *, created_ms: int) -> list[ClosedWindow]:
        """Close the windows with index in (closed, upto]; gaps without panes are skipped, not stepped through."""
        self._flush()
        span = self._view.panes_per_window + 1  # a pane lives on for one window more, for the expiry rows
        indices = {pane + i for pane in self._frames for i in range(1, span + 1) if closed < pane + i <= upto}
        windows = [self._window(index, created_ms) for index in sorted(indices)]
        for pane in [pane for pane in self._frames if pane + span <= upto]:
            del self._frames[pane]
        return windows

    def _window(self, index: int, created_ms: int) -> ClosedWindow:
        view, key = self._view, self._key
        first = index - view.panes_per_window
        merged = self._merge([self._empty(), *self._frames_of(range(first, index))])
        # Users of the previous window who have nothing in this one: every record of the pane that left the window
        # counted in the previous one, since that was its last.
        gone = pl.concat([self._empty(), *self._frames_of([first - 1])]).select(key).unique()
        gone = gone.join(merged, on=key, how="anti")
        empty = [pl.lit(aggregate.empty, pl.Int64).alias(name) for name, aggregate in view.aggregates.items()]
        end_ms = index * view.slide_ms
        rows = (
            pl.concat([merged, gone.with_columns(empty)])
            .sort(key)
            .with_columns(
                *view.final_expressions(),
                event_timestamp=_utc(end_ms),
                created_timestamp=_utc(created_ms),
            )
            .select(key, "event_timestamp", "created_timestamp", *view.features)
        )
        return ClosedWindow(end_ms, rows)

    def _frames_of(self, panes: range | list[int]) -> list[pl.DataFrame]:
        return [frame for pane in panes for frame in self._frames.get(pane, ())]

    def _empty(self) -> pl.DataFrame:
        return pl.DataFrame(schema={self._key: pl.String, **dict.fromkeys(self._view.aggregates, pl.Int64)})

    def to_bytes(self) -> bytes:
        """All panes as one compressed Arrow IPC file."""
        self._flush()
        for frames in self._frames.values():
            if len(frames) > 1:
                frames[:] = [self._merge(frames)]
        merged = [frames[0].with_columns(pl.lit(pane, pl.Int64).alias(PANE)) for pane, frames in self._frames.items()]
        buffer = io.BytesIO()
        pl.concat([self._empty().with_columns(pl.lit(0, pl.Int64).alias(PANE)), *merged]).write_ipc(
            buffer, compression="lz4"
        )
        return buffer.getvalue()

    def load(self, data: bytes) -> None:
        """Take over what `to_bytes` gave."""
        self._frames = {pane: [frame] for pane, frame in _by_pane(pl.read_ipc(io.BytesIO(data)))}


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=CHECKSUM_BYTES).digest()


def _by_pane(frame: pl.DataFrame) -> list[tuple[int, pl.DataFrame]]:
    parts = frame.partition_by(PANE, as_dict=True, include_key=False)
    return [(pane, part) for (pane,), part in parts.items()]


def _running_max(values: Int64Array, previous: int | None) -> Int64Array:
    """The running maximum, begun at `previous`."""
    running = np.maximum.accumulate(values)
    return running if previous is None else np.maximum(running, previous)


def _utc(milliseconds: int) -> pl.Expr:
    return pl.lit(milliseconds * 1000, pl.Int64).cast(UTC_MICROSECONDS)
