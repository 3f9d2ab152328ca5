"""A Feast offline store on Parquet in one folder per day: `<source>/dt=YYYY-MM-DD/*.parquet`.

Reads are Feast's DuckDB store, limited to the days that can matter. Writes only ever add whole files, so concurrent
writers lose nothing and a reader never sees half a write; Feast's own file stores rewrite the whole file.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ibis
import pandas as pd
import polars as pl
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.ibis import (
    get_historical_features_ibis,
    pull_all_from_table_or_query_ibis,
    pull_latest_from_table_or_query_ibis,
)
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df

from feast_repo.events import UTC_MICROSECONDS
from feast_repo.parquet import day_folder, publish

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa
    from feast import FeatureView
    from feast.data_source import DataSource
    from feast.infra.offline_stores.offline_store import RetrievalJob
    from feast.infra.registry.base_registry import BaseRegistry
    from feast.repo_config import RepoConfig

SCHEMA_TAG = "columns"
"""Tag of a source that holds its columns as JSON, so that an empty folder has a schema, too."""

FOREVER = timedelta(days=36_500)
_TYPES: dict[str, Any] = {
    "String": pl.String,
    "Int64": pl.Int64,
    "Float64": pl.Float64,
    str(UTC_MICROSECONDS): UTC_MICROSECONDS,
}


class PartitionedParquetOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """`offline_store:` in feature_store.yaml."""

    type: Literal["feast_repo.offline_store.PartitionedParquetOfflineStore"] = (
        "feast_repo.offline_store.PartitionedParquetOfflineStore"
    )


class PartitionedParquetOfflineStore(DuckDBOfflineStore):
    """Day-partitioned Parquet; a point-in-time join keeps every entity row."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,  # noqa: FBT001, FBT002  (Feast's signature)
        filter_by_created_timestamp: bool = False,  # noqa: FBT001, FBT002
    ) -> RetrievalJob:
        """Join features as of each entity row's time, reading only days within reach of a TTL."""
        time_column = infer_event_timestamp_from_entity_df(dict(zip(entity_df.columns, entity_df.dtypes, strict=True)))
        times = pd.to_datetime(entity_df[time_column], utc=True)
        reach = max((view.ttl or FOREVER for view in feature_views), default=FOREVER)
        first = None if entity_df.empty else times.min().to_pydatetime() - reach
        last = None if entity_df.empty else times.max().to_pydatetime()
        return get_historical_features_ibis(
            config=config,
            feature_views=feature_views,
            feature_refs=feature_refs,
            entity_df=entity_df,
            registry=registry,
            project=project,
            full_feature_names=full_feature_names,
            filter_by_created_timestamp=filter_by_created_timestamp,
            data_source_reader=_reader(first, last),
            data_source_writer=_refuse_to_write,
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
        """Each entity's newest row within a range; this feeds materialization."""
        return pull_latest_from_table_or_query_ibis(
            config=config,
            data_source=data_source,
            join_key_columns=join_key_columns,
            feature_name_columns=feature_name_columns,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            start_date=start_date,
            end_date=end_date,
            data_source_reader=_reader(start_date, end_date),
            data_source_writer=_refuse_to_write,
        )

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
        return pull_all_from_table_or_query_ibis(
            config=config,
            data_source=data_source,
            join_key_columns=join_key_columns,
            feature_name_columns=feature_name_columns,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            start_date=start_date,
            end_date=end_date,
            data_source_reader=_reader(start_date, end_date),
            data_source_writer=_refuse_to_write,
        )

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Add the rows as one file a day, named by their content: the same call again changes nothing."""
        source = feature_view.batch_source
        rows = pl.DataFrame(table).select(_columns(source))
        days = rows[source.timestamp_field].dt.strftime("%Y-%m-%d").alias("day")
        for (day,), part in rows.with_columns(days).partition_by("day", as_dict=True, include_key=False).items():
            content = hashlib.blake2b(part.write_ipc(None).getvalue(), digest_size=16).hexdigest()
            publish(day_folder(_folder(source, config.repo_path), day) / f"push-{content}.parquet", part)
        if progress is not None:
            progress(len(rows))

    @staticmethod
    def get_table_column_names_and_types_from_data_source(
        config: RepoConfig, data_source: DataSource
    ) -> list[tuple[str, str]]:
        """The declared columns, whether rows are there or not."""
        del config
        return [(name, str(dtype)) for name, dtype in _columns(data_source).items()]


def _folder(source: DataSource, repo_path: Path | str | None) -> Path:
    return Path(FileSource.get_uri_for_file_path(repo_path, source.file_options.uri))


def _columns(source: DataSource) -> dict[str, Any]:
    declared = source.tags.get(SCHEMA_TAG)
    if declared is None:
        message = f"source {source.name!r} has no {SCHEMA_TAG!r} tag; build it like feast_repo/definitions.py does"
        raise ValueError(message)
    return {name: _TYPES[dtype] for name, dtype in json.loads(declared).items()}


def _reader(first: datetime | None, last: datetime | None) -> Callable[[DataSource, str], ibis.Table]:
    """A reader of the days from `first` to `last`; None: without that bound."""
    first_day, last_day = (None if time is None else _utc(time).date() for time in (first, last))

    def read(source: DataSource, repo_path: str) -> ibis.Table:
        files = [
            str(file)
            for folder in sorted(_folder(source, repo_path).glob("dt=*"))
            if _within(folder, first_day, last_day)
            for file in sorted(folder.glob("*.parquet"))
        ]
        if not files:
            return ibis.memtable(pl.DataFrame(schema=_columns(source)).to_arrow())
        return ibis.read_parquet(files, hive_partitioning=False, union_by_name=True)

    return read


def _within(folder: Path, first: date | None, last: date | None) -> bool:
    day = date.fromisoformat(folder.name.removeprefix("dt="))
    return (first is None or day >= first) and (last is None or day <= last)


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _refuse_to_write(*_: object, **__: object) -> None:
    message = "this store writes through offline_write_batch only"
    raise NotImplementedError(message)
