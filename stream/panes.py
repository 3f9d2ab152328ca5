"""Aggregates by pane and user: the state that windows are merged from.

A pane is stored as runs with one row per user each. As in a log-structured merge tree, a run is merged into the one
before it once that is at most twice as large, so a row is merged O(log n) times, and only with rows of its own pane.
Each column uses the smallest integer type that holds all of its values: most ten-minute counts fit one byte.
"""

from __future__ import annotations

import io
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import polars as pl

from feast_repo.declare.panes import AFTER, PANE, WINDOW
from feast_repo.declare.vocabulary import POLARS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from feast_repo.declare.views import WindowedView

Index = TypeVar("Index", int, pl.Expr)

FLUSH_ROWS = 65_536
"""Rows to buffer before aggregating: one large group-by costs far less than many small ones."""

STRING_BYTES, SHORT_STRING = 16, 12
"""Polars stores a string in 16 bytes, which hold the text itself if it is short and point to it otherwise."""

MERGED_ROWS = 1_000_000
"""How many rows may be merged at once when windows close, each row counted once per window. A gap in event time closes
all windows at once, and a pane is in most of them."""


class Panes:
    """The panes of one partition."""

    def __init__(self, view: WindowedView) -> None:
        self._view = view
        self._keys = view.join_keys
        self._runs: dict[int, list[pl.DataFrame]] = {}
        self._waiting: list[pl.DataFrame] = []
        self._waiting_rows = 0

    @property
    def nbytes(self) -> int:
        """Memory in bytes that the rows take, buffered ones included."""
        frames = [*(run for runs in self._runs.values() for run in runs), *self._waiting]
        return sum(_nbytes(column) for frame in frames for column in frame.iter_columns())

    def add(self, inputs: pl.DataFrame) -> None:
        """Add counted records while no window closes: join key, PANE, AFTER and the fields that aggregates read."""
        if inputs.is_empty():
            return
        self._waiting.append(inputs)
        self._waiting_rows += len(inputs)
        if self._waiting_rows >= FLUSH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._keep(pl.concat(self._waiting).group_by(PANE, *self._keys).agg(self._view.lift(POLARS)))
            self._waiting, self._waiting_rows = [], 0

    def _keep(self, added: pl.DataFrame) -> None:
        """Add rows of PANE, join key and aggregates, one per pane and user, to their panes."""
        for (pane,), run in added.partition_by(PANE, as_dict=True, include_key=False).items():
            runs = self._runs.setdefault(pane, [])
            runs.append(self._shrunk(run))
            while len(runs) > 1 and len(runs[-2]) <= 2 * len(runs[-1]):
                runs[-2:] = [self._merged(runs[-2:])]

    def _shrunk(self, run: pl.DataFrame) -> pl.DataFrame:
        columns = (run[name] for name in self._view.state_types)
        return run.select(*self._keys, *(one.shrink_dtype() if one.dtype.is_integer() else one for one in columns))

    def _merged(self, runs: list[pl.DataFrame]) -> pl.DataFrame:
        if len(runs) == 1:
            return runs[0]
        return self._shrunk(_collected(self._merge(_together(run.lazy() for run in runs))))

    def _merge(self, rows: pl.LazyFrame, *by: str) -> pl.LazyFrame:
        """Merge rows with the same user and the same `by` into one."""
        exact = rows.cast(self._view.state_types)  # type: ignore[arg-type]  # invariant keys, where names are str
        return exact.group_by(*by, *self._keys).agg(self._view.merge(POLARS))

    def close(self, inputs: pl.DataFrame, closed: int, upto: int) -> Iterator[tuple[int, pl.DataFrame]]:
        """Add counted records while the windows with index in (closed, upto] close; yields those that have rows.

        A row of pane p counts in the windows from the first that was open for it up to p + panes_per_window. In the
        next window it appears with empty aggregates. Merging those changes nothing for a user with records there, and
        becomes the expiry row of a user without. Gaps without panes cost nothing.
        """
        self._flush()
        added = inputs.group_by(PANE, AFTER, *self._keys).agg(self._view.lift(POLARS))
        bounds = self._bounds(closed, upto)
        for low, high in pairwise(bounds):
            merged = _collected(self._merge(self._spread(added, low, high), WINDOW).sort(WINDOW, *self._keys))
            by_window = merged.partition_by(WINDOW, as_dict=True, include_key=False, maintain_order=True)
            yield from ((int(index), rows) for (index,), rows in by_window.items())

        self._runs = {pane: runs for pane, runs in self._runs.items() if self._expiry(pane) > upto}
        live = added.lazy().drop(AFTER).filter(self._expiry(pl.col(PANE)) > upto)
        self._keep(_collected(self._merge(live, PANE)))

    def _expiry(self, pane: Index) -> Index:
        """The window in which a pane's rows appear with empty aggregates."""
        return pane + self._view.panes_per_window + 1

    def _bounds(self, closed: int, upto: int) -> list[int]:
        """Where to split the windows in (closed, upto] to limit the rows that are merged at once."""
        last = min(max(map(self._expiry, self._runs), default=closed), upto)
        rows = sum(len(run) for runs in self._runs.values() for run in runs)
        if rows * (last - closed) <= MERGED_ROWS:
            return [closed, upto]
        return sorted({*range(closed, last + 1), upto})

    def _spread(self, added: pl.DataFrame, closed: int, upto: int) -> pl.LazyFrame:
        """Each row once per window in (closed, upto] that it appears in: WINDOW, join key, aggregates."""
        # Existing rows were added while no window after their pane's end had closed.
        before = [
            run.lazy().select(pl.lit(pane, pl.Int64).alias(PANE), pl.lit(pane, pl.Int64).alias(AFTER), pl.all())
            for pane, runs in self._runs.items()
            if pane < upto and self._expiry(pane) > closed
            for run in runs
        ]
        expiry = self._expiry(pl.col(PANE))
        first = pl.max_horizontal(AFTER, pl.lit(closed, pl.Int64)) + 1
        last = pl.min_horizontal(expiry, pl.lit(upto, pl.Int64))
        rows = _together([*before, added.lazy()]).filter(first <= last)
        rows = rows.with_columns(pl.int_ranges(first, last + 1).alias(WINDOW)).explode(WINDOW)
        is_expiry = pl.when(pl.col(WINDOW) == expiry)
        return rows.with_columns(
            is_expiry.then(pl.lit(self._view.empty_state[name], dtype)).otherwise(pl.col(name)).alias(name)
            for name, dtype in self._view.state_types.items()
        )

    def to_bytes(self) -> bytes:
        """All panes as one compressed Arrow IPC file, each with one row per user."""
        self._flush()
        self._runs = {pane: [self._merged(runs)] for pane, runs in self._runs.items()}
        panes = [run.select(pl.lit(pane, pl.Int64).alias(PANE), pl.all()) for pane, (run,) in self._runs.items()]
        buffer = io.BytesIO()
        pl.concat([self._empty(), *panes], how="vertical_relaxed").write_ipc(buffer, compression="lz4")
        return buffer.getvalue()

    def _empty(self) -> pl.DataFrame:
        states = {name: pl.Int8() if dtype.is_integer() else dtype for name, dtype in self._view.state_types.items()}
        return pl.DataFrame(schema={PANE: pl.Int64, **self._view.entity.schema, **states})

    def load(self, data: bytes) -> None:
        """Load the state that `to_bytes` returned."""
        # By name: a new order of the features doesn't change their meaning.
        self._keep(pl.read_ipc(io.BytesIO(data)).select(PANE, *self._keys, *self._view.state_types))


def _together(frames: Iterable[pl.LazyFrame]) -> pl.LazyFrame:
    """Concatenate frames with integers of different sizes."""
    return pl.concat(list(frames), how="vertical_relaxed")


def _nbytes(column: pl.Series) -> int:
    """Memory in bytes that a column takes. For strings, Polars' own figure omits the 16 bytes beside the text."""
    if column.dtype != pl.String:
        return int(column.estimated_size())
    lengths = column.str.len_bytes()
    return STRING_BYTES * len(column) + int(lengths.filter(lengths > SHORT_STRING).sum())


def _collected(rows: pl.LazyFrame) -> pl.DataFrame:
    """Collect with the streaming engine, which doesn't copy its whole input and sorts twice as fast."""
    return rows.collect(engine="streaming")
