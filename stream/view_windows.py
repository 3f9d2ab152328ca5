"""The windows of one view in one partition: which records count where, and the rows of windows that close."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.panes import AFTER, PANE
from stream.panes import Panes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from feast_repo.declare.views import WindowedView

    BoolArray = NDArray[np.bool_]
    Int32Array = NDArray[np.int32]
    Int64Array = NDArray[np.int64]

NO_WATERMARK = -(2**62)
"""The watermark before the first record: below every real one, and safe to subtract from."""


@dataclass(frozen=True)
class ClosedWindow:
    """The rows of one closed window, sorted by entity: join keys, event_timestamp, created_timestamp, features."""

    view: str
    end_ms: int
    rows: pl.DataFrame


@dataclass(frozen=True)
class Batch:
    """Consecutive records of a partition, and what is true of each for all views; times in ms UTC.

    `seen` and `reached` are the watermarks before and after each record, `arrival` is the greatest Kafka time so far,
    and `ignored` tells which records count nowhere: heartbeats and copies.
    """

    records: pl.DataFrame
    event: Int64Array
    seen: Int64Array
    reached: Int64Array
    arrival: Int64Array
    ignored: BoolArray


class ViewWindows:
    """One view's windows of one partition."""

    def __init__(self, view: WindowedView) -> None:
        self.view = view
        self.panes = Panes(view)

    def process(self, batch: Batch) -> tuple[Int32Array, list[ClosedWindow]]:
        """Take the next records: how many windows each has missed, and the windows that close and have rows."""
        slide_ms, windows = self.view.slide_ms, []
        inputs, missed = self._inputs(batch)
        closed_after = batch.reached // slide_ms
        if len(closed_after) and closed_after[-1] > (closed := int(batch.seen[0]) // slide_ms):
            for index, rows in self.panes.close(inputs, closed, int(closed_after[-1])):
                closing = np.searchsorted(closed_after, index)  # the first record whose watermark reaches the end
                windows.append(self._closed(index, rows, int(batch.arrival[closing])))
        else:
            self.panes.add(inputs)
        return missed, windows

    def resume(self, batch: Batch) -> None:
        """Take archived records after which no window has closed that they count in."""
        inputs, _ = self._inputs(batch)
        self.panes.add(inputs)

    def _inputs(self, batch: Batch) -> tuple[pl.DataFrame, Int32Array]:
        """The records that count in some window, as input for the panes, and how many windows each record missed."""
        view, pane, closed_before = self.view, batch.event // self.view.slide_ms, batch.seen // self.view.slide_ms
        missed = np.clip(closed_before - pane, 0, view.panes_per_window).astype(np.int32)
        missed[batch.ignored] = 0
        inputs = batch.records.select(
            *dict.fromkeys((*view.join_keys, *view.input_columns)),
            pl.Series(PANE, pane),
            # No window up to this one counts the record: it was closed already, or ends before the record's pane does.
            pl.Series(AFTER, np.maximum(closed_before, pane)),
        ).filter(pl.Series((missed < view.panes_per_window) & ~batch.ignored))
        return inputs, missed

    def _closed(self, index: int, rows: pl.DataFrame, created_ms: int) -> ClosedWindow:
        """A closed window with rows from its merged aggregates."""
        view = self.view
        end_ms = index * view.slide_ms
        times = (_utc(end_ms).alias("event_timestamp"), _utc(created_ms).alias("created_timestamp"))
        return ClosedWindow(view.name, end_ms, view.finished(rows).select(*view.join_keys, *times, *view.features))


def tail_start_ms(view: WindowedView, watermark_ms: int) -> int:
    """The earliest event time of records that can matter to open windows or their expiry rows."""
    return watermark_ms // view.slide_ms * view.slide_ms - view.window_ms


def _utc(milliseconds: int) -> pl.Expr:
    return pl.lit(milliseconds * 1000, pl.Int64).cast(UTC_MICROSECONDS)
