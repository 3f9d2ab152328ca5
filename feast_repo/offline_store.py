"""A Feast offline store on Parquet in one folder per day: `<source>/dt=YYYY-MM-DD/*.parquet`.

Reads are Feast's DuckDB store, limited to the days that can matter. Writes only ever add whole files, so concurrent
writers lose nothing and a reader never sees half a write; Feast's own file stores rewrite the whole file. A source that
doesn't tell its columns (see `SCHEMA_TAG`) is left to Feast's store: it is some other file.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import duckdb
import ibis
import pandas as pd
import polars as pl
from feast.infra.offline_stores.duckdb import (
    DuckDBOfflineStore,
    DuckDBOfflineStoreConfig,
    _read_data_source,
    _write_data_source,
)
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.ibis import (
    IbisRetrievalJob,
    get_historical_features_ibis,
    pull_all_from_table_or_query_ibis,
    pull_latest_from_table_or_query_ibis,
)
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df

from feast_repo.events import UTC_MICROSECONDS
from feast_repo.files import data_files, day_folders
from feast_repo.parquet import day_folder, despite_compaction, publish
from feast_repo.views import SERVED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa
    from feast import FeatureView
    from feast.data_source import DataSource
    from feast.infra.offline_stores.offline_store import RetrievalJob
    from feast.infra.registry.base_registry import BaseRegistry
    from feast.repo_config import RepoConfig

SCHEMA_TAG = "columns"
"""Tag of a source that holds the columns that a push brings, as JSON, so that an empty folder has a schema, too."""

_ignore_served: ContextVar[bool] = ContextVar("ignore_served", default=False)
FOREVER = timedelta(days=36_500)
FILE_IS_GONE = ("No files found", "No such file")
"""What the text of DuckDB's error says."""
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
    """Day-partitioned Parquet. A point-in-time join gives one row for each entity row, in any order."""

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
        """Join features as of each entity row's time, reading only days within reach of a TTL.

        With `filter_by_created_timestamp`, a row counts from when it was created and served (see `as_served`).
        """
        time_column = infer_event_timestamp_from_entity_df(dict(zip(entity_df.columns, entity_df.dtypes, strict=True)))
        times = pd.to_datetime(entity_df[time_column], utc=True).dropna()
        reach = max((view.ttl or FOREVER for view in feature_views), default=FOREVER)
        days = (None, None) if times.empty else ((times.min() - reach).date(), times.max().date())
        return _ReplanningJob(
            lambda: get_historical_features_ibis(
                config=config,
                feature_views=feature_views,
                feature_refs=feature_refs,
                entity_df=entity_df,
                registry=registry,
                project=project,
                full_feature_names=full_feature_names,
                filter_by_created_timestamp=filter_by_created_timestamp,
                data_source_reader=_reader(*days, served=filter_by_created_timestamp and not _ignore_served.get()),
                data_source_writer=_write_data_source,
            )
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
        return _ReplanningJob(
            lambda: pull_latest_from_table_or_query_ibis(
                config=config,
                data_source=data_source,
                join_key_columns=join_key_columns,
                feature_name_columns=feature_name_columns,
                timestamp_field=timestamp_field,
                created_timestamp_column=created_timestamp_column,
                start_date=start_date,
                end_date=end_date,
                data_source_reader=_reader(_utc_day(start_date), _utc_day(end_date)),
                data_source_writer=_write_data_source,
            )
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
        return _ReplanningJob(
            lambda: pull_all_from_table_or_query_ibis(
                config=config,
                data_source=data_source,
                join_key_columns=join_key_columns,
                feature_name_columns=feature_name_columns,
                timestamp_field=timestamp_field,
                created_timestamp_column=created_timestamp_column,
                start_date=start_date,
                end_date=end_date,
                data_source_reader=_reader(_utc_day(start_date), _utc_day(end_date)),
                data_source_writer=_write_data_source,
            )
        )

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Add the rows as one file a day, named by their content: the same call again changes nothing.

        Raises:
            ValueError: a row has no event time.
            OSError: the disk is full or not writable; days that were written before stay.
        """
        source = feature_view.batch_source
        if SCHEMA_TAG not in source.tags:
            DuckDBOfflineStore.offline_write_batch(config, feature_view, table, progress)
            return
        columns, brought = stored_columns(source), pushed_columns(source)
        rows = pl.DataFrame(table).select(brought.keys()).with_columns(pl.lit(None).alias(SERVED))
        rows = rows.select(columns.keys()).cast(columns)
        if without := rows[source.timestamp_field].null_count():
            message = f"{without} of {len(rows)} rows for {feature_view.name!r} have no {source.timestamp_field}"
            raise ValueError(message)
        days = rows[source.timestamp_field].dt.strftime("%Y-%m-%d").alias("#day")
        for (day,), part in rows.with_columns(days).partition_by("#day", as_dict=True, include_key=False).items():
            content = hashlib.blake2b(part.write_ipc(None).getvalue(), digest_size=16).hexdigest()
            publish(day_folder(source_folder(source, config.repo_path), day) / f"push-{content}.parquet", part)
        if progress is not None:
            progress(len(rows))

    @staticmethod
    def get_table_column_names_and_types_from_data_source(
        config: RepoConfig, data_source: DataSource
    ) -> list[tuple[str, str]]:
        """The columns that a push brings, whether rows are there or not."""
        if SCHEMA_TAG not in data_source.tags:
            return list(data_source.get_table_column_names_and_types(config))
        return [(name, str(dtype)) for name, dtype in pushed_columns(data_source).items()]


class _ReplanningJob(IbisRetrievalJob):
    """A query that is planned on a new listing if a listed file is gone, which is what compaction does to files."""

    def __init__(self, plan: Callable[[], IbisRetrievalJob]) -> None:
        self._plan = plan
        with _quietly():  # planning opens the files for their schemas, so it can miss one, too
            self.__dict__.update(despite_compaction(plan, FILE_IS_GONE).__dict__)

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._read(super()._to_df_internal, timeout)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._read(super()._to_arrow_internal, timeout)

    def _read(self, read: Callable[[int | None], Any], timeout: int | None) -> Any:
        def read_or_plan_again() -> Any:
            try:
                return read(timeout)
            except duckdb.IOException:
                self.table = self._plan().table
                raise

        with _quietly():
            return despite_compaction(read_or_plan_again, FILE_IS_GONE)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the warning that Ibis calls DuckDB by an old name, which Feast makes everybody see."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"fetch_arrow_table\(\) is deprecated", DeprecationWarning)
        yield


def pushed_columns(source: DataSource) -> pl.Schema:
    """The columns that a push to a source brings, with their Polars types, from its `SCHEMA_TAG`."""
    return pl.Schema({name: _TYPES[dtype] for name, dtype in json.loads(source.tags[SCHEMA_TAG]).items()})


def stored_columns(source: DataSource) -> pl.Schema:
    """Columns of a source's files in stored order, with their Polars types: those of a push, and `SERVED`."""
    pushed = list(pushed_columns(source).items())
    place = 1 + [name for name, _ in pushed].index(source.created_timestamp_column)
    return pl.Schema([*pushed[:place], (SERVED, UTC_MICROSECONDS), *pushed[place:]])


def source_folder(source: DataSource, repo_path: Path | str | None) -> Path:
    """The folder of a source's days; a relative one is below the folder of feature_store.yaml."""
    return Path(FileSource.get_uri_for_file_path(repo_path, source.file_options.uri))


@contextmanager
def ignoring_served() -> Iterator[None]:
    """Point-in-time joins with `filter_by_created_timestamp` that begin in here go by creation alone."""
    before = _ignore_served.set(True)
    try:
        yield
    finally:
        _ignore_served.reset(before)


def as_served(rows: ibis.Table, created: str) -> ibis.Table:
    """Rows with the time from which they could be served in `created`: when they were made, or served if that is later.

    A stream that was down makes rows by its log's times, and serves them when it is back.
    """
    served = ibis.greatest(rows[created], ibis.coalesce(rows[SERVED], rows[created]))
    return rows.mutate(**{created: served})


def _reader(first: date | None, last: date | None, *, served: bool = False) -> Callable[[DataSource, str], ibis.Table]:
    """A reader of the days from `first` to `last`; None: without that bound. `served`: as `as_served` says."""

    def read(source: DataSource, repo_path: str) -> ibis.Table:
        if SCHEMA_TAG not in source.tags:
            return _read_data_source(source, repo_path)
        empty = ibis.memtable(pl.DataFrame(schema=stored_columns(source)).to_arrow())
        files = [
            str(file)
            for folder in day_folders(source_folder(source, repo_path))
            if _within(folder, first, last)
            for file in data_files(folder)
        ]
        if not files:
            return empty
        stored = ibis.read_parquet(files, hive_partitioning=False, union_by_name=True)
        # Days from before a feature was declared: their rows have null for it.
        lacking = {name: ibis.null(dtype) for name, dtype in empty.schema().items() if name not in stored.columns}
        stored = stored.mutate(**lacking) if lacking else stored
        return as_served(stored, source.created_timestamp_column) if served else stored

    return read


def _within(folder: Path, first: date | None, last: date | None) -> bool:
    day = date.fromisoformat(folder.name.removeprefix("dt="))
    return (first is None or day >= first) and (last is None or day <= last)


def _utc_day(time: datetime | None) -> date | None:
    if time is None:
        return None
    return (time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)).date()
