"""Samples of stored features in a period, one value a user, and how the stream did in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from batch.archive import days_of, files_of
from batch.stored import CREATED, TIME, effective, stored_rows
from feast_repo.parquet import despite_compaction
from feast_repo.tables import (
    PREDICTION_COLUMNS,
    dead_letters_folder,
    events_folder,
    features_folder,
    late_folder,
    predictions_folder,
)
from feast_repo.views import WindowedView, offline_columns

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from feast_repo.views import BatchView


@dataclass(frozen=True)
class Period:
    """Window ends, and times of records, from `start` to before `end` (UTC)."""

    start: datetime
    end: datetime

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M} UTC"


def sample(data_root: Path, view: WindowedView | BatchView, period: Period) -> pl.DataFrame:
    """The features of a view, a row for each user.

    Of a windowed view: one of the user's windows, chosen by a hash, among those that do not overlap and in which the
    user did something. Rows of overlapping windows, or several of one user, would not be independent, and tests would
    find differences where none are. Of a batch view: the row that held at the end of the period.

    Raises:
        OSError: a file can't be read.
    """
    key, features = view.entity.join_key, list(view.features)
    if not isinstance(view, WindowedView):
        return _newest(data_root, view, period).select(features)
    slide_ms = view.slide_ms
    first, last = (-(-round(time.timestamp() * 1000) // slide_ms) for time in (period.start, period.end))
    rows = effective(view, stored_rows(data_root, view, first, last - 1))
    apart = pl.col(TIME).dt.epoch("ms") % view.window_ms == 0
    active = pl.any_horizontal(pl.col(name).ne_missing(feature.empty) for name, feature in view.aggregates.items())
    chosen = rows.filter(apart & active).sort(pl.struct(key, TIME).hash(), TIME).unique(key, keep="first")
    return chosen.sort(key).select(features)


def scores(data_root: Path, period: Period) -> pl.Series:
    """The last probability in the period that the prediction service gave each user.

    Raises:
        OSError: a file can't be read.
    """
    folder, time = predictions_folder(data_root), pl.col("scored_at")
    days = [day for day in days_of(folder, f"{period.start:%Y-%m-%d}") if day <= f"{period.end:%Y-%m-%d}"]
    files = files_of(folder, days)
    rows = pl.scan_parquet(files, hive_partitioning=False) if files else pl.LazyFrame(schema=PREDICTION_COLUMNS)
    within = rows.filter(time.is_between(period.start, period.end, closed="left"))
    last = within.sort("scored_at", maintain_order=True).unique("user_id", keep="last").sort("user_id").collect()
    return last["probability"]


def _newest(data_root: Path, view: BatchView, period: Period) -> pl.DataFrame:
    folder, columns = features_folder(data_root, view.name), offline_columns(view)
    days = [day for day in days_of(folder) if day <= f"{period.end:%Y-%m-%d}"]

    def read() -> pl.DataFrame:
        files = files_of(folder, days)
        if not files:
            return pl.DataFrame(schema=columns)
        rows = pl.scan_parquet(
            files, schema=columns, missing_columns="insert", extra_columns="ignore", hive_partitioning=False
        )
        held = rows.filter(pl.col(TIME) < period.end, pl.col(TIME) >= period.end - view.ttl)
        return held.sort(TIME, CREATED).unique(view.entity.join_key, keep="last").collect()

    return despite_compaction(read).sort(view.entity.join_key)


def stream_health(data_root: Path, view: WindowedView, period: Period) -> dict[str, float]:
    """`events_per_hour`, `late_share` (of the events) and `dead_letter_share` (of all messages), by Kafka time.

    Raises:
        OSError: a file can't be read.
    """
    folders = (events_folder(data_root), late_folder(data_root, view), dead_letters_folder(data_root))
    events, late, dead = (_count(folder, period) for folder in folders)
    hours = (period.end - period.start).total_seconds() / 3600
    return {
        "events_per_hour": events / hours,
        "late_share": late / max(events, 1),
        "dead_letter_share": dead / max(events + dead, 1),
    }


def _count(folder: Path, period: Period) -> int:
    days = [day for day in days_of(folder, f"{period.start:%Y-%m-%d}") if day <= f"{period.end:%Y-%m-%d}"]

    def read() -> int:
        if not (files := files_of(folder, days)):
            return 0
        times = pl.scan_parquet(files, hive_partitioning=False).select("partition", "offset", "kafka_timestamp")
        within = pl.col("kafka_timestamp").is_between(period.start, period.end, closed="left")
        return int(times.filter(within).unique(["partition", "offset"]).select(pl.len()).collect().item())

    return despite_compaction(read)
