"""A Feast offline store on Parquet: Feast's own files, and tables in one folder per day.

A source in day folders, `<source>/dt=YYYY-MM-DD/*.parquet`, declares its columns in a tag (see `source_columns.py`).
Writes only add complete files, so concurrent writers lose nothing and a reader never sees a partial write; Feast's own
file stores rewrite the whole file. Every other source is read and written in place, as Feast's file stores do.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.infra.offline_stores.offline_utils import get_pyarrow_schema_from_batch_source
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.utils import compute_non_entity_date_range

from feast_repo.declare.fields import INT64_MAX
from feast_repo.stores.offline.history import ViewHistory, as_of_each_row, as_of_one_time, asked_of, taken
from feast_repo.stores.offline.parquet import day_folder, publish
from feast_repo.stores.offline.point_in_time import Rows, newest
from feast_repo.stores.offline.retrieval_job import ArrowJob, write_file
from feast_repo.stores.offline.source_columns import arrow_schema, is_ours, pushed_columns, stored_columns
from feast_repo.stores.offline.source_reader import is_parquet, read_rows, source_folder
from feast_repo.stores.offline.ticks import common_unit, ticks, to_ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pandas as pd
    from feast import FeatureView
    from feast.data_source import DataSource
    from feast.infra.offline_stores.offline_store import RetrievalJob
    from feast.infra.registry.base_registry import BaseRegistry
    from feast.repo_config import RepoConfig
    from numpy.typing import NDArray

_ignore_served: ContextVar[bool] = ContextVar("ignore_served", default=False)


@contextmanager
def ignoring_served() -> Iterator[None]:
    """Within the block, point-in-time joins with `filter_by_created_timestamp` use the creation time alone."""
    before = _ignore_served.set(True)
    try:
        yield
    finally:
        _ignore_served.reset(before)


class PartitionedParquetOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """`offline_store:` in feature_store.yaml."""

    type: Literal["feast_repo.offline_store.PartitionedParquetOfflineStore"] = (
        "feast_repo.offline_store.PartitionedParquetOfflineStore"
    )


class PartitionedParquetOfflineStore(DuckDBOfflineStore):
    """Parquet files and day folders. A point-in-time join returns one row per entity row, in order."""

    @staticmethod
    def get_historical_features(  # noqa: PLR0917  (Feast's signature)
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,  # noqa: FBT001, FBT002
        filter_by_created_timestamp: bool = False,  # noqa: FBT001, FBT002
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Join features as of each entity row's time, reading only rows within the TTL.

        `entity_df` is a frame, DuckDB SQL that returns one, or None: then each entity with a live row at `end_date`
        (naive: UTC; None: now) gets a row as of then. As in Feast's Dask store, the TTL decides what is live, and
        `start_date` only appears in the metadata. With `filter_by_created_timestamp`, a row counts from its creation
        and, in day folders, from when it was served, unless within `ignoring_served`.

        Raises:
            ValueError: the entity frame doesn't fit the views.
        """
        as_served = filter_by_created_timestamp and not _ignore_served.get()
        views = [
            ViewHistory(view, feature_refs, full_names=full_feature_names, as_served=as_served)
            for view in feature_views
        ]
        if entity_df is None:
            first, last = compute_non_entity_date_range(feature_views, start_date=start_date, end_date=end_date)
            keys: list[str] = []

            def read() -> pa.Table:
                return as_of_one_time(last, views, config.repo_path, as_known=filter_by_created_timestamp)
        else:
            asked = asked_of(entity_df)
            first, last = asked.span() or (None, None)
            keys = [name for name in asked.table.column_names if name != asked.time]

            def read() -> pa.Table:
                return as_of_each_row(asked, views, config.repo_path, as_known=filter_by_created_timestamp)

        return ArrowJob(
            read,
            config,
            on_demand=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            full_feature_names=full_feature_names,
            metadata=RetrievalMetadata(
                features=feature_refs, keys=keys, min_event_timestamp=first, max_event_timestamp=last
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Each entity's newest row within a range, for materialization."""

        def read() -> pa.Table:
            columns = _columns(join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column)
            table, times = _within(config, data_source, columns, timestamp_field, start_date, end_date)
            keys = {name: pl.Series(pl.from_arrow(table[name])) for name in join_key_columns}
            created = table[created_timestamp_column] if created_timestamp_column else None
            if created is not None:
                created = ticks(created, common_unit([created.type]), str(created_timestamp_column))
            return _with_key(_rows(table, newest(Rows(keys, times, created))), join_key_columns)

        return ArrowJob(read, config)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """All rows within a range."""

        def read() -> pa.Table:
            columns = _columns(join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column)
            table, _ = _within(config, data_source, columns, timestamp_field, start_date, end_date)
            return _with_key(table, join_key_columns)

        return ArrowJob(read, config)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Add rows. In day folders each day gets one file named by its content, so the call is idempotent.

        A plain file is replaced by one with the rows in front, as in Feast.

        Raises:
            ValueError: a row has no event time, or the columns are not the source's.
            OSError: the disk is full or not writable; days that were already written stay.
        """
        source = feature_view.batch_source
        if source is not None and is_ours(source):
            _add_days(source, config.repo_path, table, feature_view.name)
        elif source is not None and is_parquet(source) and source_folder(source, config.repo_path).is_file():
            _add_to_file(source, config, table)
        else:
            DuckDBOfflineStore.offline_write_batch(config, feature_view, table, None)
        if progress is not None:
            progress(len(table))

    @staticmethod
    def get_table_column_names_and_types_from_data_source(
        config: RepoConfig, data_source: DataSource
    ) -> list[tuple[str, str]]:
        """The columns and their Arrow types; for day folders those of a push, even if there are no rows."""
        if not is_ours(data_source):
            return list(data_source.get_table_column_names_and_types(config))
        return [(field.name, str(field.type)) for field in arrow_schema(pushed_columns(data_source))]


def _columns(keys: list[str], features: list[str], time: str, created: str | None) -> list[str]:
    return list(dict.fromkeys([*keys, *features, time, *([created] if created else [])]))


def _within(
    config: RepoConfig,
    source: DataSource,
    columns: Sequence[str],
    time_column: str,
    start: datetime | None,
    end: datetime | None,
) -> tuple[pa.Table, pl.Series]:
    """The rows from `start` to `end`, both included (naive: UTC), and their times."""
    first, last = (None if time is None else _aware(time) for time in (start, end))
    table = read_rows(source, config.repo_path, columns, time_column, first, last)
    unit = common_unit([table[time_column].type])
    times = ticks(table[time_column], unit, time_column)
    inside = times.is_not_null().to_numpy()
    for time, compare in ((first, times.__ge__), (last, times.__le__)):
        if time is not None:
            bound = max(-INT64_MAX, min(to_ticks(time, unit), INT64_MAX))
            inside &= compare(bound).fill_null(value=False).to_numpy()
    if inside.all():
        return table, times
    rows = np.flatnonzero(inside)
    return _rows(table, rows), times.gather(rows)


def _rows(table: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    return pa.table({name: taken(table[name], rows) for name in table.column_names})


def _with_key(table: pa.Table, keys: list[str]) -> pa.Table:
    """The table with the key that Feast uses for a view without entities."""
    if keys:
        return table
    return table.append_column(DUMMY_ENTITY_ID, pa.repeat(pa.scalar(DUMMY_ENTITY_VAL), len(table)))


def _add_days(source: DataSource, repo_path: Path | None, table: pa.Table, view: str) -> None:
    columns, brought = stored_columns(source), pushed_columns(source)
    rows = pl.DataFrame(table).select(brought.keys())
    rows = rows.with_columns(pl.lit(None).alias(name) for name in columns if name not in brought)
    rows = rows.select(columns.keys()).cast(columns)
    if without := rows[source.timestamp_field].null_count():
        message = f"{without} of {len(rows)} rows for {view!r} have no {source.timestamp_field}"
        raise ValueError(message)
    days = rows[source.timestamp_field].dt.strftime("%Y-%m-%d").alias("#day")
    for (day,), part in rows.with_columns(days).partition_by("#day", as_dict=True, include_key=False).items():
        content = hashlib.blake2b(part.write_ipc(None).getvalue(), digest_size=16).hexdigest()
        publish(day_folder(source_folder(source, repo_path), day) / f"push-{content}.parquet", part)


def _add_to_file(source: DataSource, config: RepoConfig, table: pa.Table) -> None:
    _, columns = get_pyarrow_schema_from_batch_source(config, source)
    if columns != table.column_names:
        message = f"rows have the columns {table.column_names}, but source {source.name!r} has {columns}, in this order"
        raise ValueError(message)
    file = source_folder(source, config.repo_path)
    stored = pq.read_table(file, partitioning=None)
    write_file(pa.concat_tables([table.cast(stored.schema), stored]), str(file))


def _aware(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
