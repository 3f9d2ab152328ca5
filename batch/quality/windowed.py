"""The rules' input from stored rows of a windowed view: single rows, and row counts by hour.

The stream has already published these rows, so this is a monitor rather than a gate.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl

from batch.quality.rules import LEAST_ROWS_TO_COMPARE, OFF_GRID, RATIO, VERSION
from batch.quality.validation import ROW
from feast_repo.declare.rows import CREATED, EVENT_TIME
from feast_repo.declare.stored import offline_columns

if TYPE_CHECKING:
    from datetime import datetime

    from feast_repo.declare.views import WindowedView

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def span_of(view: WindowedView) -> timedelta:
    """The time over which rows are counted: an hour, or the slide if that is longer."""
    return max(HOUR, view.slide)


def row_frame(view: WindowedView, stored: pl.DataFrame) -> pl.DataFrame:
    """Stored rows with ROW, OFF_GRID and VERSION; a feature is null in windows from before its declaration."""
    time_us = pl.col(EVENT_TIME).dt.epoch("us")
    # The stream writes a window once; backfill and heal later write versions of it.
    version = pl.when(pl.col("writer") == "stream").then(0).otherwise(pl.col(CREATED).dt.epoch("us"))
    columns = offline_columns(view)
    known = [
        pl.when(pl.col(name).is_null().all().over(EVENT_TIME))
        .then(pl.lit(default, columns[name]))
        .otherwise(pl.col(name))
        .alias(name)
        for name, default in view.defaults.items()
        if default is not None
    ]
    return (
        stored.with_columns(known)
        .with_columns((time_us % (view.slide_ms * 1000)).alias(OFF_GRID), version.alias(VERSION))
        .drop(CREATED)
        .with_row_index(ROW)
        .cast({ROW: pl.Int64})
    )


def hours_of(view: WindowedView, stored: pl.DataFrame) -> pl.DataFrame:
    """The number of effective `rows`, and of their `windows`, by `hour` (UTC), which is as long as `span_of` says."""
    row = pl.struct(*view.join_keys, EVENT_TIME)
    counts = {"rows": row.n_unique(), "windows": pl.col(EVENT_TIME).n_unique()}
    return stored.group_by(pl.col(EVENT_TIME).dt.truncate(span_of(view)).alias("hour")).agg(**counts)


def volume_frame(view: WindowedView, hours: pl.DataFrame, start: datetime, end: datetime) -> pl.DataFrame:
    """The full hours from `start` to `end` that can be compared with the day before: ROW, `hour`, `rows`, RATIO.

    `hours` come from `hours_of`. An hour that lacks rows or windows counts only if rows follow it, because a heartbeat
    may have closed windows after the end of the data. Hours are left out if the day before is incomplete or has few
    rows.
    """
    span = span_of(view)
    full = pl.col("windows") == span // view.slide
    ends = hours.select(pl.when(full).then(pl.col("hour") + span).otherwise("hour"))
    end = min([end, *ends.max().to_series().drop_nulls()])
    before = hours.filter(full, pl.col("rows") >= LEAST_ROWS_TO_COMPARE)
    before = before.select((pl.col("hour") + DAY).alias("hour"), pl.col("rows").alias("before"))
    return (
        before.filter(pl.col("hour") >= start, pl.col("hour") + span <= end)
        .join(hours, on="hour", how="left")
        .with_columns(pl.col("rows").fill_null(0))
        .sort("hour")
        .select("hour", "rows", (pl.col("rows") / pl.col("before")).alias(RATIO))
        .with_row_index(ROW)
        .cast({ROW: pl.Int64})
    )
