"""The point-in-time join: which stored row is an entity's value as of a time.

It is the newest of the entity's rows up to that time, unless it is older than the TTL; among rows with the same event
time the last created, and among those the last stored. Only row numbers are computed here, so values of any type pass
through unchanged, with one output row per input row, in order.

Cost: sorting the stored rows' keys and times, and one merge with the requested ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_TIME, _CREATED, _STORED, _ASKED, _RANK, _KNOWN = "#time", "#created", "#stored", "#asked", "#rank", "#known"
NONE = -1
"""Stands for no row."""


@dataclass(frozen=True)
class Rows:
    """Keys, and times as integers of one unit; both may have nulls. `created` is set for stored rows that have it."""

    keys: Mapping[str, pl.Series]
    times: pl.Series
    created: pl.Series | None = None

    def frame(self) -> pl.DataFrame:
        """As columns; a row without time or with a null in its key belongs to no entity."""
        created = {} if self.created is None else {_CREATED: self.created}
        return pl.DataFrame({**self.keys, _TIME: self.times, **created})


def answers(asked: Rows, stored: Rows, *, ttl: int | None = None, as_known: bool = False) -> NDArray[np.int64]:
    """For each requested row the number of the stored row, or `NONE`. Both have the same keys, of the same types.

    `ttl`: in units of the times, inclusive. `as_known`: only rows created by the requested time count, so later
    corrections are not seen.
    """
    keys = list(stored.keys)
    rows = stored.frame().with_row_index(_STORED).drop_nulls([*keys, _TIME])
    if stored.created is not None:
        rows = rows.sort(_TIME, _CREATED, maintain_order=True)
    else:
        rows = rows.sort(_TIME, maintain_order=True)
    known = _TIME
    if as_known and stored.created is not None:
        rows, known = _as_known(rows, keys), _KNOWN
    questions = asked.frame().with_row_index(_ASKED).drop_nulls([*keys, _TIME]).sort(_TIME)
    found = questions.join_asof(
        rows.select(*keys, known, _STORED),
        left_on=_TIME,
        right_on=known,
        by=keys or None,
        coalesce=False,
        check_sortedness=False,
    ).drop_nulls(_STORED)
    which, row = found[_ASKED].to_numpy(), found[_STORED].to_numpy().astype(np.int64)
    if ttl is not None:
        # No stored time is after the requested one, so unsigned differences are right even beyond 63 bits.
        ages = found[_TIME].to_numpy().view(np.uint64) - stored.times.gather(row).to_numpy().view(np.uint64)
        alive = ages <= min(ttl, 2**64 - 1)
        which, row = which[alive], row[alive]
    out = np.full(len(asked.times), NONE, np.int64)
    out[which] = row
    return out


def _as_known(rows: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Rows by the time from which they are known, each replaced by the newest row of its key known by then."""
    rows = (
        rows.drop_nulls(_CREATED).with_row_index(_RANK).with_columns(pl.max_horizontal(_TIME, _CREATED).alias(_KNOWN))
    )
    rows = rows.sort(_KNOWN, _RANK)
    if rows[_RANK].is_sorted():
        return rows
    newest = pl.col(_RANK).cum_max()
    ranked = rows.select(_RANK, _STORED)
    rows = rows.drop(_STORED).with_columns(newest.over(keys) if keys else newest)
    return rows.join(ranked, on=_RANK, how="left", maintain_order="left")


def newest(stored: Rows) -> NDArray[np.int64]:
    """The number of each key's newest row, ascending; nulls in a key compare as a value."""
    rows = stored.frame().with_row_index(_STORED).drop_nulls(_TIME)
    by = [_TIME] if stored.created is None else [_TIME, _CREATED]
    rows = rows.sort(by, maintain_order=True)
    last = rows.unique(list(stored.keys), keep="last") if stored.keys else rows.tail(1)
    return last[_STORED].sort().to_numpy().astype(np.int64)
