"""Published rows of a batch view: in the offline store, and as a CSV file for people."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import polars as pl

from batch.report_files import stem
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.rows import CREATED, EVENT_TIME, SERVED
from feast_repo.declare.stored import offline_columns
from feast_repo.stores.offline.files import data_files, day_folders
from feast_repo.stores.offline.parquet import day_folder, publish, scan
from feast_repo.stores.offline.tables import features_folder

if TYPE_CHECKING:
    from pathlib import Path

    from feast_repo.declare.batch_views import BatchView
    from feast_repo.declare.catalog import Catalog


@dataclass(frozen=True)
class BatchTable:
    """A batch view's rows below DATA_ROOT."""

    data_root: Path
    catalog: Catalog
    view: BatchView

    @property
    def csv(self) -> Path:
        """The newest rows for people: `profiles/profiles.csv`, or one file per view if there are several."""
        return self.data_root / "profiles" / f"{stem('profiles', self.view, self.catalog.batch)}.csv"

    @property
    def keys(self) -> list[str]:
        """The columns that identify a row of one time."""
        return list(self.view.join_keys)

    def publish(self, table: pl.DataFrame | pl.LazyFrame, time: datetime) -> list[Path]:
        """Write the CSV and the offline rows, valid from `time`; returns the files. A lazy table may exceed memory.

        Both appear atomically. `created_timestamp` is also that time, as if the job had run then: training sets of the
        past see the rows, and a repeated run writes the same bytes.

        Raises:
            OSError: the data folder is not writable.
        """
        columns = offline_columns(self.view)
        rows = table.with_columns(
            pl.lit(time).cast(UTC_MICROSECONDS).alias(EVENT_TIME),
            pl.lit(time).cast(UTC_MICROSECONDS).alias(CREATED),
            pl.lit(None).alias(SERVED),
            pl.lit("backfill").alias("writer"),
        )
        parquet = day_folder(self._folder, f"{time:%Y-%m-%d}") / f"backfill-{time:%Y%m%dT%H%M%S%fZ}.parquet"
        publish(parquet, rows.select(pl.col(name).cast(dtype) for name, dtype in columns.items()))

        self.csv.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.csv.with_suffix(".csv.tmp")
        table.lazy().sink_csv(temporary)
        temporary.replace(self.csv)
        return [self.csv, parquet]

    def newest_time(self) -> datetime | None:
        """The time from which the newest published rows are valid."""
        last = next(filter(None, map(data_files, reversed(day_folders(self._folder)))), [])
        if not last:
            return None
        time = scan(last).select(pl.col(EVENT_TIME).max()).collect().item()
        return time if isinstance(time, datetime) else None

    def published(self, time: datetime | None) -> pl.DataFrame:
        """The published rows of a time, one per entity."""
        columns = offline_columns(self.view)
        files = [] if time is None else data_files(day_folder(self._folder, f"{time:%Y-%m-%d}"))
        if not files:
            return pl.DataFrame(schema=columns)
        rows = scan(files, columns)
        held = rows.filter(pl.col(EVENT_TIME) == pl.lit(time).cast(UTC_MICROSECONDS)).collect()
        return held.sort(CREATED, *self.keys).unique(self.keys, keep="last", maintain_order=True)

    @property
    def _folder(self) -> Path:
        return features_folder(self.data_root, self.view.name)
