"""Publishes profiles: `DATA_ROOT/profiles/profiles.csv` for people, and rows in the offline store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.views import SERVED, offline_columns
from feast_repo.features import user_profile_features
from feast_repo.stores.offline.parquet import day_folder, publish
from feast_repo.stores.offline.tables import features_folder

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


def publish_profiles(profiles: pl.DataFrame | pl.LazyFrame, time: datetime, data_root: Path) -> list[Path]:
    """Write the CSV and the offline rows, valid from `time`; returns the files. A lazy table may exceed memory.

    Both appear atomically. `created_timestamp` is also the profile time, as if the job had run then: training sets of
    the past see the rows, and a repeated run writes the same bytes.

    Raises:
        OSError: the data folder is not writable.
    """
    columns = offline_columns(user_profile_features)
    rows = profiles.with_columns(
        pl.lit(time).cast(UTC_MICROSECONDS).alias("event_timestamp"),
        pl.lit(time).cast(UTC_MICROSECONDS).alias("created_timestamp"),
        pl.lit(None).alias(SERVED),
        pl.lit("backfill").alias("writer"),
    )
    folder = day_folder(features_folder(data_root, user_profile_features.name), f"{time:%Y-%m-%d}")
    parquet = folder / f"backfill-{time:%Y%m%dT%H%M%S%fZ}.parquet"
    publish(parquet, rows.select(pl.col(name).cast(dtype) for name, dtype in columns.items()))

    csv = data_root / "profiles" / "profiles.csv"
    csv.parent.mkdir(parents=True, exist_ok=True)
    temporary = csv.with_suffix(".csv.tmp")
    profiles.lazy().sink_csv(temporary)
    temporary.replace(csv)
    return [csv, parquet]
