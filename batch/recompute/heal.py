"""Corrects stored rows that late events have changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from batch.recompute.reaches import Reaches
from batch.recompute.rows import LATER, STORED, add_rows, beside_stored, differing, in_two_partitions
from batch.recompute.stored import effective, stored_rows
from feast_repo.declare.rows import CREATED, EVENT_TIME, SERVED

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from batch.recompute.archive import Scope
    from feast_repo.stores.online.view import OnlineView

WRITER = "heal"
VERSION = "#version"


class Healing:
    """Heals windows chunk by chunk, then the online rows.

    A window that is healed again keeps its earlier corrections: each records what was served, and from when on.
    """

    def __init__(self, data_root: Path, scope: Scope, now: datetime) -> None:
        self._data_root, self._view, self._reach, self._now = data_root, scope.view, scope.reach, now
        self._reaches = Reaches(data_root, scope.view)
        self._recorded: datetime | None = None
        self._newest: pl.DataFrame | None = None

    def heal(self, first: int, last: int, complete: pl.DataFrame) -> int:
        """Write corrections of windows `first` to `last` (indices); returns how many.

        `complete`: the windows' true rows, with PARTITION. Users in two partitions are left unchanged.

        Raises:
            OSError: the disk is full or not writable.
        """
        view = self._view
        stored = stored_rows(self._data_root, view, first, last)
        rows = complete.join(in_two_partitions(view, complete), on=view.join_keys, how="anti", maintain_order="left")
        wrong = differing(view, beside_stored(view, rows, stored))
        if not wrong.is_empty():
            created = pl.lit(self._created(wrong)).cast(complete.schema[CREATED])
            add_rows(
                self._data_root, view, WRITER, wrong.with_columns(created.alias(CREATED), pl.lit(None).alias(SERVED))
            )
        self._remember(stored_rows(self._data_root, view, first, last))
        return len(wrong)

    def _created(self, wrong: pl.DataFrame) -> datetime:
        """The corrections' creation time: now, but after the corrected rows. Their reach is recorded under it."""
        corrected = wrong.select((pl.col(STORED + CREATED) + LATER).max()).item()
        wanted = self._now if corrected is None else max(self._now, corrected)
        if self._recorded is None or wanted > self._recorded:
            self._recorded = self._reaches.record(WRITER, wanted, self._reach)
        return self._recorded

    def _remember(self, stored: pl.DataFrame) -> None:
        """Keep each user's newest window, if it was healed, with the number of its corrections."""
        view, keys = self._view, [*self._view.join_keys, EVENT_TIME]
        versions = (
            stored.filter(pl.col("writer") == WRITER).group_by(keys).agg(pl.col(CREATED).n_unique().alias(VERSION))
        )
        rows = effective(view, stored).join(versions, on=keys, how="left")
        known = rows if self._newest is None else pl.concat([self._newest, rows])
        self._newest = known.sort(EVENT_TIME).unique(view.join_keys, keep="last", maintain_order=True)

    def heal_online(self, online: OnlineView) -> int:
        """Write the healed rows that are their users' newest, with an atomic compare-and-set for each.

        The n-th correction of a row has a time n us after its window's end, so it replaces the row that it corrects and
        never a row of a later window. Idempotent.

        Raises:
            redis.RedisError: Redis is away; run the heal again.
        """
        if self._newest is None:
            return 0
        healed = self._newest.filter(pl.col(VERSION).is_not_null() & (pl.col("writer") == WRITER))
        online.settle()
        later = pl.duration(microseconds=pl.col(VERSION))
        return online.write_beside(healed.with_columns(pl.col(EVENT_TIME) + later).drop(VERSION))
