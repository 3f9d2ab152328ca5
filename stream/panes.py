"""Aggregates by pane and entity: the state that windows are merged from.

A pane is stored as runs with one row per entity each (`states.py`). A window is merged from panes and from spans of
several panes that have been merged before (`spans.py`).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, TypeVar

import polars as pl

from feast_repo.declare.panes import AFTER, PANE, WINDOW
from stream.spans import Spans
from stream.states import States, collected, nbytes, together

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from feast_repo.declare.views import WindowedView

Index = TypeVar("Index", int, pl.Expr)
FIRST, LAST = pl.col("#first"), pl.col("#last")
"""The windows in which a row appears."""

FLUSH_ROWS = 65_536
"""Rows to buffer before aggregating: one large group-by costs far less than many small ones."""

MERGED_ROWS = 1_000_000
"""Windows that close together are merged at once if they have about so many rows at most: a merge has a fixed cost."""


class Panes:
    """The panes of one partition.

    A record counts in the windows that close after it was added, from the one that ends with its pane to
    `panes_per_window` later. In the next window its entity appears with empty state: an expiry row, unless the entity
    has records there.
    """

    def __init__(self, view: WindowedView) -> None:
        self._panes_per_window = view.panes_per_window
        self._states = States(view)
        self._spans = Spans(self._states, view.panes_per_window)
        self._waiting: list[pl.DataFrame] = []
        self._waiting_rows = 0

    @property
    def nbytes(self) -> int:
        """Memory in bytes that the rows take, buffered ones included."""
        return sum(map(nbytes, (*self._spans.frames(), *self._waiting)))

    def add(self, inputs: pl.DataFrame) -> None:
        """Add counted records while no window closes: join keys, PANE, AFTER and the fields that aggregates read."""
        if inputs.is_empty():
            return
        self._waiting.append(inputs)
        self._waiting_rows += len(inputs)
        if self._waiting_rows >= FLUSH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._keep(self._states.lifted(pl.concat(self._waiting), PANE))
            self._waiting, self._waiting_rows = [], 0

    def _keep(self, added: pl.DataFrame) -> None:
        """Add rows of PANE, join keys and state to their panes."""
        for (pane,), rows in added.partition_by(PANE, as_dict=True, include_key=False).items():
            self._spans.add(pane, rows)

    def close(self, inputs: pl.DataFrame, closed: int, upto: int) -> Iterator[tuple[int, pl.DataFrame]]:
        """Add counted records while the windows with index in (closed, upto] close; yields those that have rows.

        Rows are one per entity, sorted: join keys and state. Gaps without panes cost nothing.
        """
        self._flush()
        added = self._states.lifted(inputs, AFTER, PANE)
        due = list(self._due({*self._spans.panes, *added[PANE].unique()}, closed, upto))
        held = sum(len(run) for runs in self._spans.panes.values() for run in runs) + len(added)
        at_once = max(1, MERGED_ROWS // max(1, held))
        for start in range(0, len(due), at_once):
            windows = due[start : start + at_once]
            if start:
                is_before = pl.col(AFTER) < windows[0]
                self._settle(added.filter(is_before), windows[0])
                added = added.filter(~is_before)
            yield from self._closed(windows, added)
        self._settle(added, upto + 1)
        self._spans.forget(upto - self._panes_per_window)

    def _settle(self, added: pl.DataFrame, index: int) -> None:
        """Add rows of PANE, AFTER, join keys and state to their panes, unless no window from this one on has them."""
        live = added.lazy().filter(self._expiry(pl.col(PANE)) >= index)
        self._keep(collected(self._states.merged(live, PANE)))

    def _due(self, panes: Iterable[int], closed: int, upto: int) -> Iterator[int]:
        """The windows in (closed, upto] in which one of the panes appears."""
        for pane in sorted(panes):
            last = min(self._expiry(pane), upto)
            yield from range(max(pane, closed) + 1, last + 1)
            closed = max(closed, last)

    def _expiry(self, pane: Index) -> Index:
        """The window in which a pane's rows appear with the state of no events."""
        return pane + self._panes_per_window + 1

    def _closed(self, windows: list[int], added: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
        """Merge windows that close one after another while records are added."""
        low, high = windows[0], windows[-1]
        counted: dict[int, tuple[pl.DataFrame, int, int]] = {}
        for index in windows:
            for run in self._spans.cover(index - self._panes_per_window, index, settled=low):
                _, first, _ = counted.get(id(run), (run, index, index))
                counted[id(run)] = run, first, index
        rows = [self._in_windows(run.lazy(), first, last) for run, first, last in counted.values()]
        arrived, expiry = added.lazy(), self._expiry(pl.col(PANE))
        rows.append(self._in_windows(arrived, pl.col(AFTER) + 1, pl.min_horizontal(expiry - 1, high)))
        expiring = [self._in_windows(arrived, expiry, pl.min_horizontal(expiry, high))]
        for index in windows:
            runs = self._spans.panes.get(index - self._panes_per_window - 1, [])
            expiring += [self._in_windows(run.lazy(), index, index) for run in runs]
        every = together([*rows, *map(self._states.emptied, expiring)]).filter(FIRST <= LAST)
        spread = every.with_columns(pl.int_ranges(FIRST, LAST + 1).alias(WINDOW)).explode(WINDOW)
        merged = collected(self._states.merged(spread, WINDOW).sort(WINDOW, *self._states.keys))
        by_window = merged.partition_by(WINDOW, as_dict=True, include_key=False, maintain_order=True)
        yield from ((int(index), found) for (index,), found in by_window.items())

    def _in_windows(self, rows: pl.LazyFrame, first: int | pl.Expr, last: int | pl.Expr) -> pl.LazyFrame:
        """Rows with the windows in which they appear; in none if the last is before the first."""
        bounds = (pl.lit(bound, pl.Int64) if isinstance(bound, int) else bound for bound in (first, last))
        named = (bound.alias(name) for bound, name in zip(bounds, ("#first", "#last"), strict=True))
        return rows.select(*named, *self._states.keys, *self._states.types)

    def to_bytes(self) -> bytes:
        """All panes as one compressed Arrow IPC file, each with one row per entity."""
        self._flush()
        self._spans.compact()
        panes = [
            run.select(pl.lit(pane, pl.Int64).alias(PANE), pl.all())
            for pane, runs in self._spans.panes.items()
            for run in runs
        ]
        none = self._states.none.select(pl.lit(None, pl.Int64).alias(PANE), pl.all())
        buffer = io.BytesIO()
        pl.concat([none, *panes], how="vertical_relaxed").write_ipc(buffer, compression="lz4")
        return buffer.getvalue()

    def load(self, data: bytes) -> None:
        """Load the state that `to_bytes` returned."""
        # By name: a new order of the features doesn't change their meaning.
        self._keep(pl.read_ipc(io.BytesIO(data)).select(PANE, *self._states.keys, *self._states.types))
