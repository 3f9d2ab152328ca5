"""Adds missing rows, and missing features of stored rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from batch.recompute.reaches import Reaches
from batch.recompute.rows import STORED, add_rows, beside_stored, lacking, may_be_null, overruling, with_nulls_as_seen
from batch.recompute.stored import stored_rows
from feast_repo.declare.rows import CREATED, EVENT_TIME

if TYPE_CHECKING:
    from pathlib import Path

    from batch.recompute.archive import Chunk, Mode
    from batch.recompute.recomputation import Recomputation

WRITER = "backfill"


class Filling:
    """Fills windows chunk by chunk. `history_end`: windows that begin before it are filled if the stream saw a part.

    A healed row is always completed from the complete truth, whatever the mode, so it stays healed.
    """

    def __init__(
        self, data_root: Path, recomputation: Recomputation, mode: Mode, history_end: datetime | None = None
    ) -> None:
        self._data_root, self._recomputation, self._mode = data_root, recomputation, mode
        self._history_end = history_end
        self._is_recorded = False
        self.completed = 0
        """Stored rows that received missing features."""

    def fill(self, chunk: Chunk, rows: pl.DataFrame) -> int:
        """Write a chunk's missing rows; returns how many. `rows`: recomputed in the filling's mode.

        Raises:
            OSError: the disk is full or not writable.
        """
        view = self._recomputation.scope.view
        stored = stored_rows(self._data_root, view, chunk.first, chunk.last)
        beside = beside_stored(view, rows, stored)
        added, by_truth = lacking(view, beside), self._mode == "complete"
        is_healed = pl.col(STORED + "writer").eq_missing(pl.lit("heal"))
        if by_truth and may_be_null(view) and added[STORED + CREATED].count():
            as_seen = self._recomputation.rows(chunk, "as-seen")
            unhealed = with_nulls_as_seen(view, beside.filter(~is_healed), as_seen)
            added = pl.concat([lacking(view, beside.filter(is_healed)), lacking(view, unhealed).select(added.columns)])
        if not by_truth and not (healed := added.filter(is_healed)).is_empty():
            complete = self._recomputation.rows(chunk, "complete")
            complete = complete.join(healed, on=[*view.join_keys, EVENT_TIME], how="semi")
            added = pl.concat([added.filter(~is_healed), lacking(view, beside_stored(view, complete, stored))])
            by_truth = True
        completed = added.filter(pl.col(STORED + CREATED).is_not_null())
        if self._history_end is not None:
            added = pl.concat([added, overruling(view, beside, self._history_end)]).unique()
        if added.is_empty():
            return 0
        if by_truth and not self._is_recorded:
            Reaches(self._data_root, view).record(WRITER, datetime.now(UTC), self._recomputation.scope.reach)
            self._is_recorded = True
        add_rows(self._data_root, view, WRITER, added)
        self.completed += len(completed)
        return len(added)
