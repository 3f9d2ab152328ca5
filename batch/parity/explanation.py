"""Decides which differences late events explain: those that late events cause exactly, bit by bit.

A stream row must equal the row as seen; a healed or backfilled row must equal the complete truth as of the reach that
was recorded when it was written. The mere existence of late events excuses nothing.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import polars as pl

from batch.recompute.rows import STORED
from batch.recompute.stored import bits
from feast_repo.declare.rows import CREATED, EVENT_TIME
from feast_repo.declare.stored import offline_columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch.recompute.archive import Chunk, Mode
    from batch.recompute.recomputation import Recomputation
    from feast_repo.declare.views import WindowedView

ROW, BOTH, UNDECLARED = "#row", "#both", "#undeclared:"
"""ROW numbers the compared rows; BOTH marks rows that are stored and recomputed; UNDECLARED is the prefix of a column
that marks a feature as not yet declared when the row was stored."""
EXPECTED = "#expected:"


class Truth:
    """A chunk's rows from the log: as seen, complete, and complete as of recorded reaches; each computed on demand."""

    def __init__(self, recomputation: Recomputation, chunk: Chunk, reaches: pl.DataFrame) -> None:
        self._recomputation, self._chunk, self._reaches = recomputation, chunk, reaches
        self.rows = cache(self._rows)

    def _rows(self, mode: Mode) -> pl.DataFrame:
        return self._recomputation.rows(self._chunk, mode)

    def as_of(self, writer: str, created: object = None) -> Iterator[pl.DataFrame]:
        """The complete rows as of a writer's recorded reaches, newest first: all of them, or those of one time."""
        recorded = self._reaches.filter(pl.col("writer") == writer)
        if created is not None:
            recorded = recorded.filter(pl.col(CREATED) == pl.lit(created, recorded.schema[CREATED]))
        for reach in recorded.sort(CREATED, descending=True).partition_by(CREATED, maintain_order=True):
            yield self._recomputation.as_of(reach).rows(self._chunk, "complete")


def explained(view: WindowedView, mode: Mode, wrong: pl.DataFrame, truth: Truth) -> pl.Series:
    """The ROW numbers of the wrong rows that late events explain.

    `wrong`: paired rows with ROW, BOTH, the writer and values of the stored row, and UNDECLARED columns.
    """
    keys = [*view.join_keys, EVENT_TIME]
    found = [pl.Series(ROW, [], wrong.schema[ROW])]
    both, written_by = wrong.filter(BOTH), pl.col("writer")
    streamed, backfilled, healed = (both.filter(written_by == name) for name in ("stream", "backfill", "heal"))
    if mode == "complete":
        absent = wrong.filter(written_by.is_null())
        if not absent.is_empty():
            found.append(absent.join(truth.rows("as-seen"), on=keys, how="anti")[ROW])
        if not streamed.is_empty():
            found.append(_equal(view, streamed, truth.rows("as-seen"), also=(CREATED,)))
        for (created,), rows in healed.partition_by(STORED + CREATED, as_dict=True).items():
            found += [_equal(view, rows, then) for then in truth.as_of("heal", created)]
    if not backfilled.is_empty():
        found.append(_equal(view, backfilled, truth.rows("as-seen" if mode == "complete" else "complete")))
        left = backfilled.filter(~pl.col(ROW).is_in(found[-1].implode()))
        earlier = truth.as_of("backfill")
        while not left.is_empty() and (expected := next(earlier, None)) is not None:
            found.append(_equal(view, left, expected))
            left = left.filter(~pl.col(ROW).is_in(found[-1].implode()))
    return pl.concat(found)


def _equal(view: WindowedView, stored: pl.DataFrame, expected: pl.DataFrame, also: tuple[str, ...] = ()) -> pl.Series:
    """The ROW numbers of stored rows with the expected features and other columns."""
    keys, types = [*view.join_keys, EVENT_TIME], offline_columns(view)
    names = [*view.features, *also]
    expected = expected.select(*keys, *(pl.col(name).alias(EXPECTED + name) for name in names))
    same = [bits(STORED + name, types[name]).eq_missing(bits(EXPECTED + name, types[name])) for name in names]
    undeclared = [pl.col(UNDECLARED + name) if name in view.features else pl.lit(value=False) for name in names]
    is_equal = pl.all_horizontal(pl.lit(value=True), *(a | b for a, b in zip(same, undeclared, strict=True)))
    return stored.join(expected, on=keys).filter(is_equal)[ROW].unique()
