"""Rows of state, one per entity: made from events, and merged.

Each integer column uses the smallest type that holds all of its values: most ten-minute counts fit one byte. Merging
starts from the declared types, so sums wrap around where the declaration says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from feast_repo.declare.vocabulary import POLARS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from feast_repo.declare.views import WindowedView

STRING_BYTES, SHORT_STRING = 16, 12
"""Polars stores a string in 16 bytes, which hold the text itself if it is short and point to it otherwise."""


class States:
    """How the states of a view are made and merged."""

    def __init__(self, view: WindowedView) -> None:
        self.keys = view.join_keys
        self.types = view.state_types
        self._lift, self._merge = view.lift(POLARS), view.merge(POLARS)
        self._empty = [pl.lit(value, self.types[name]).alias(name) for name, value in view.empty_state.items()]
        smallest = {name: pl.Int8() if dtype.is_integer() else dtype for name, dtype in self.types.items()}
        self.none = pl.DataFrame(schema={**view.entity.schema, **smallest})
        """No rows, in the columns of `shrunk`."""

    def lifted(self, events: pl.DataFrame, *by: str) -> pl.DataFrame:
        """Events to a row per entity and `by`."""
        return events.group_by(*by, *self.keys).agg(self._lift)

    def merged(self, rows: pl.LazyFrame, *by: str) -> pl.LazyFrame:
        """Rows to one per entity and `by`."""
        exact = rows.cast(self.types)  # type: ignore[arg-type]  # invariant keys, where names are str
        return exact.group_by(*by, *self.keys).agg(self._merge)

    def emptied(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Rows with the state of no events."""
        return rows.with_columns(self._empty)

    def run(self, runs: list[pl.DataFrame]) -> pl.DataFrame:
        """Runs as one."""
        return (
            runs[0] if len(runs) == 1 else self.shrunk(collected(self.merged(together(map(pl.DataFrame.lazy, runs)))))
        )

    def push(self, runs: list[pl.DataFrame], run: pl.DataFrame) -> None:
        """Add a run to others, as in a log-structured merge tree: a row is merged O(log n) times.

        A run is merged into the one before it once that is at most twice as large.
        """
        runs.append(run)
        while len(runs) > 1 and len(runs[-2]) <= 2 * len(runs[-1]):
            runs[-2:] = [self.run(runs[-2:])]

    def shrunk(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows with the smallest integers: join keys and state."""
        states = (rows[name] for name in self.types)
        shrunk = (one.shrink_dtype() if one.dtype.is_integer() else one for one in states)
        return pl.DataFrame([*(rows[key] for key in self.keys), *shrunk])


def together(frames: Iterable[pl.LazyFrame]) -> pl.LazyFrame:
    """Concatenate frames with integers of different sizes."""
    return pl.concat(list(frames), how="vertical_relaxed")


def collected(rows: pl.LazyFrame) -> pl.DataFrame:
    """Collect with the streaming engine, which doesn't copy its whole input and sorts twice as fast."""
    return rows.collect(engine="streaming")


def nbytes(rows: pl.DataFrame) -> int:
    """Memory in bytes that rows take. For strings, Polars' own figure omits the 16 bytes beside the text."""
    return sum(_nbytes(column) for column in rows.iter_columns())


def _nbytes(column: pl.Series) -> int:
    if column.dtype != pl.String:
        return int(column.estimated_size())
    lengths = column.str.len_bytes()
    return STRING_BYTES * len(column) + int(lengths.filter(lengths > SHORT_STRING).sum())
