"""The push: rows straight to Feast's stores, with the meaning of `FeatureStore.push(..., to=ONLINE_AND_OFFLINE)`.

Columns go to Feast's own bytes without a data frame of Python objects between. Which views a push source feeds comes
from the registry. Stores that are not ours get Feast's own push.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from itertools import compress
from typing import TYPE_CHECKING

import polars as pl
from feast import FeatureView
from feast.data_source import PushMode
from feast.errors import PushSourceNotFoundException

from feast_repo.feast_bytes import compare_with_feast
from feast_repo.offline_store import (
    SCHEMA_TAG,
    PartitionedParquetOfflineStoreConfig,
    source_folder,
    stored_columns,
)
from feast_repo.online_store import RedisUrlOnlineStoreConfig
from feast_repo.parquet import day_folder, publish
from feast_repo.redis_format import VALUE_FORMATS, RowFormat, UnsupportedFormatError, decode_time
from feast_repo.redis_pipe import ask
from feast_repo.tables import day

if TYPE_CHECKING:
    from feast import FeatureStore
    from redis import Redis

logger = logging.getLogger(__name__)

TIME = "event_timestamp"


class Pusher:
    """Pushes rows to the views of one push source.

        pusher = Pusher(open_store(), "user_clicks_push")
        pusher.push_online(rows)
        pusher.push_offline(rows, writer="stream", partition=3, window_end_ms=1_767_229_200_000)

    `rows` are the view's columns without `writer`: join key, event_timestamp and created_timestamp (Datetime us UTC),
    features. `redis` is the online store's client, None where pushes go through Feast. Threads may share a pusher.

    Raises:
        LookupError: no view has this push source.
    """

    def __init__(self, store: FeatureStore, push_source: str) -> None:
        self.project: str = store.project
        self.redis: Redis | None = None
        self._store = store
        self._push_source = push_source
        try:
            # Feast's own resolution: a push here and a push through Feast must reach the same views.
            views = store._fvs_for_push_source_or_raise(push_source, allow_cache=False)  # noqa: SLF001
        except PushSourceNotFoundException as error:
            message = f"no feature view has push source {push_source!r}: declare one, then run `feast apply`"
            raise LookupError(message) from error
        self._views = sorted(views, key=lambda view: str(view.name))
        try:
            self._formats = self._row_formats()
        except UnsupportedFormatError as reason:
            logger.warning("pushing through Feast, which is many times slower: %s", reason)
            self._formats = []
        self._offline_is_ours = isinstance(store.config.offline_store, PartitionedParquetOfflineStoreConfig) and all(
            SCHEMA_TAG in view.batch_source.tags for view in self._views
        )

    def _row_formats(self) -> list[RowFormat]:
        """How each view's rows look in Redis, compared with Feast.

        Raises:
            UnsupportedFormatError: Feast's own push must write them.
        """
        config, online = self._store.config, self._store.config.online_store
        if not isinstance(online, RedisUrlOnlineStoreConfig):
            message = f"the online store is {getattr(online, 'type', online)!r}"
            raise UnsupportedFormatError(message)
        extras = {
            "key_ttl_seconds": online.key_ttl_seconds,
            "enable_online_feature_view_versioning": config.registry.enable_online_feature_view_versioning,
            "precompute_online": any(service.precompute_online for service in self._store.list_feature_services()),
        }
        if used := [name for name, value in extras.items() if value]:
            message = f"{', '.join(used)} is set"
            raise UnsupportedFormatError(message)
        formats = [self._row_format(view) for view in self._views]
        self.redis = self._store._get_provider().online_store._get_client(online)  # noqa: SLF001  (the store's own connection pool)
        return formats

    def _row_format(self, view: FeatureView) -> RowFormat:
        types = {field.name: str(field.dtype) for field in view.features}
        if unknown := sorted(set(types.values()) - VALUE_FORMATS.keys()):
            message = f"view {view.name!r} has features of type {', '.join(unknown)}"
            raise UnsupportedFormatError(message)
        source = view.batch_source
        if type(view) is not FeatureView or source.timestamp_field != TIME or source.field_mapping:
            message = f"view {view.name!r} is no plain feature view with event time {TIME!r} and unmapped columns"
            raise UnsupportedFormatError(message)
        if [str(field.dtype) for field in view.entity_columns] != ["String"]:
            message = f"view {view.name!r} has join keys {view.join_keys}, not one of type String"
            raise UnsupportedFormatError(message)
        config = self._store.config
        row_format = RowFormat(
            self.project, view.name, view.join_keys[0], types, config.entity_key_serialization_version
        )
        compare_with_feast(config, view, row_format)
        return row_format

    def push_online(self, rows: pl.DataFrame) -> int:
        """Write each entity's newest row unless Redis has one as new; returns how many rows were written.

        An older row never overwrites a newer one, as long as this is the only writer that goes forward: the stored
        times are read, then compared. Through Feast's push, the store in use decides about rows that are not newer.

        Raises:
            redis.RedisError: Redis is away or refuses; the push can be repeated.
            ValueError: a row has no entity or no event time; nothing was written.
        """
        if rows.is_empty():
            return 0
        if without := rows[TIME].null_count():
            message = f"{without} of {len(rows)} rows for {self._push_source!r} have no {TIME}"
            raise ValueError(message)
        if self._formats:
            return sum(self._write(row_format, rows) for row_format in self._formats)
        newest = _newest(rows, sorted({key for view in self._views for key in view.join_keys}))
        self._store.push(self._push_source, newest.sort(TIME).to_pandas(), to=PushMode.ONLINE)
        return len(newest)

    def _write(self, row_format: RowFormat, rows: pl.DataFrame) -> int:
        assert self.redis is not None  # noqa: S101  (there is a client where there are formats)
        rows = _newest(rows, [row_format.join_key])
        keys = row_format.keys(rows[row_format.join_key])
        stored = ask(self.redis, row_format.read_time_commands(keys))
        known = {data: decode_time(data) for data in set(stored) if data is not None}
        offered = rows[TIME].dt.epoch("ns").to_list()
        is_newer = [data is None or time > known[data] for data, time in zip(stored, offered, strict=True)]
        newer = rows.filter(pl.Series(is_newer))
        ask(self.redis, row_format.write_commands(list(compress(keys, is_newer)), newer))
        return len(newer)

    def push_offline(self, rows: pl.DataFrame, *, writer: str, partition: int, window_end_ms: int) -> None:
        """Store one closed window of one partition, in a file named after both: pushing it again overwrites the same.

        Raises:
            OSError: the disk is full or not writable; nothing has changed.
        """
        if rows.is_empty():
            return
        rows = rows.with_columns(writer=pl.lit(writer))
        if not self._offline_is_ours:
            self._store.push(self._push_source, rows.to_pandas(), to=PushMode.OFFLINE)
            return
        for view in self._views:
            folder = day_folder(source_folder(view.batch_source, self._store.config.repo_path), day(window_end_ms))
            columns = stored_columns(view.batch_source)
            publish(folder / window_file(writer, partition, window_end_ms), rows.select(columns.keys()).cast(columns))


def _newest(rows: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Each entity's newest row; of rows with one time the first, as in Feast."""
    by_time = rows.sort(TIME, descending=True, maintain_order=True)
    return by_time.unique(keys, keep="first", maintain_order=True)


def window_file(writer: str, partition: int, window_end_ms: int) -> str:
    """The file name of one writer's rows of one window and partition."""
    end = datetime.fromtimestamp(window_end_ms / 1000, tz=UTC)
    return f"{writer}-p{partition:05d}-{end:%Y%m%dT%H%M%SZ}.parquet"
