"""The push: rows straight to Feast's stores, with the meaning of `FeatureStore.push(..., to=ONLINE_AND_OFFLINE)`.

Columns go to Feast's own bytes without a data frame of Python objects between. Which views a push source feeds comes
from the registry. Stores that are not ours get Feast's own push.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from feast.data_source import PushMode

from feast_repo.offline_store import PartitionedParquetOfflineStoreConfig
from feast_repo.online_store import RedisUrlOnlineStoreConfig
from feast_repo.parquet import day_folder, publish
from feast_repo.redis_format import RowFormat, UnsupportedFormatError, decode_time
from feast_repo.tables import day

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feast import FeatureStore, FeatureView
    from redis import Redis

logger = logging.getLogger(__name__)

FEAST_INT64, FEAST_FLOAT64, FEAST_STRING = "Int64", "Float64", "String"


class Pusher:
    """Pushes rows to the views of one push source.

        pusher = Pusher(open_store(), "user_clicks_push")
        pusher.push_online(rows)
        pusher.push_offline(rows, writer="stream", partition=3, window_end_ms=1_767_229_200_000)

    Raises:
        LookupError: no view has this push source.
    """

    def __init__(self, store: FeatureStore, push_source: str) -> None:
        self.project: str = store.project
        self._store = store
        self._push_source = push_source
        self._views = [
            view
            for view in store.registry.list_feature_views(store.project)
            if view.stream_source is not None and view.stream_source.name == push_source
        ]
        if not self._views:
            message = f"no feature view has push source {push_source!r}: declare one, then run `feast apply`"
            raise LookupError(message)
        self.redis: Redis | None = None
        self._formats = self._row_formats()
        self._offline_is_ours = isinstance(store.config.offline_store, PartitionedParquetOfflineStoreConfig)

    def _row_formats(self) -> list[RowFormat] | None:
        """How each view's rows look in Redis; None where Feast's own push must do it."""
        config = self._store.config
        online = config.online_store
        try:
            if not isinstance(online, RedisUrlOnlineStoreConfig):
                message = f"the online store is {getattr(online, 'type', None)!r}"
                raise UnsupportedFormatError(message)  # noqa: TRY301  (one place tells about the fallback)
            if online.key_ttl_seconds is not None or config.registry.enable_online_feature_view_versioning:
                message = "key_ttl_seconds or feature view versioning is set"
                raise UnsupportedFormatError(message)  # noqa: TRY301
            formats = [self._row_format(view) for view in self._views]
        except UnsupportedFormatError as reason:
            logger.warning("pushing through Feast, which is many times slower: %s", reason)
            return None
        self.redis = self._store._get_provider().online_store._get_client(online)  # noqa: SLF001  (the store's own connection pool)
        return formats

    def _row_format(self, view: FeatureView) -> RowFormat:
        join_keys, types = view.join_keys, {str(field.dtype) for field in view.features}
        if len(join_keys) != 1 or str(view.entity_columns[0].dtype) != FEAST_STRING:
            message = f"view {view.name!r} has join keys {join_keys}, not one of type String"
            raise UnsupportedFormatError(message)
        if unknown := types - {FEAST_INT64, FEAST_FLOAT64, FEAST_STRING}:
            message = f"view {view.name!r} has features of type {sorted(unknown)}"
            raise UnsupportedFormatError(message)
        names = [field.name for field in view.features]
        version = self._store.config.entity_key_serialization_version
        return RowFormat(self.project, view.name, join_keys[0], names, version)

    def push_online(self, rows: pl.DataFrame) -> int:
        """Write each user's newest row unless Redis has one as new; returns how many rows were written.

        `rows`: join key, event_timestamp, created_timestamp (Datetime us UTC), features. An older row never overwrites
        a newer one, as long as this is the only writer that goes forward: the stored times are read, then compared.

        Raises:
            redis.RedisError: Redis is away; the push can be repeated.
        """
        if rows.is_empty():
            return 0
        join_key = self._views[0].join_keys[0]
        newest = rows.sort("event_timestamp").unique(join_key, keep="last", maintain_order=True)
        if self._formats is None:
            self._store.push(self._push_source, newest.to_pandas(), to=PushMode.ONLINE)
            return len(newest)
        return sum(self._write(row_format, newest) for row_format in self._formats)

    def _write(self, row_format: RowFormat, rows: pl.DataFrame) -> int:
        stored = list(self._ask(row_format.read_time_commands(row_format.keys(rows[row_format.join_key]))))
        known = {data: decode_time(data) for data in set(stored) if data is not None}
        offered = rows["event_timestamp"].dt.epoch("ns").to_list()
        is_newer = [data is None or time > known[data] for data, time in zip(stored, offered, strict=True)]
        newer = rows.filter(pl.Series(is_newer))
        for _ in self._ask(row_format.write_commands(newer)):
            pass
        return len(newer)

    def _ask(self, payloads: Iterator[tuple[bytes, int]]) -> Iterator[Any]:
        """Send ready-made commands and give the replies; a connection that failed is not used again."""
        assert self.redis is not None  # noqa: S101  (only called with formats)
        pool = self.redis.connection_pool
        connection = pool.get_connection()
        try:
            for payload, commands in payloads:
                connection.send_packed_command([payload])
                for _ in range(commands):
                    yield connection.read_response()
        except BaseException:
            connection.disconnect()  # replies may still be on their way
            raise
        finally:
            pool.release(connection)

    def push_offline(self, rows: pl.DataFrame, *, writer: str, partition: int, window_end_ms: int) -> None:
        """Store one closed window of one partition, in a file named after both: pushing it again overwrites the same.

        Raises:
            OSError: the disk is full or not writable; nothing has changed.
        """
        rows = rows.with_columns(writer=pl.lit(writer))
        if not self._offline_is_ours:
            self._store.push(self._push_source, rows.to_pandas(), to=PushMode.OFFLINE)
            return
        for view in self._views:
            folder = Path(view.batch_source.path)
            columns = [*view.join_keys, "event_timestamp", "created_timestamp", "writer"]
            features = [field.name for field in view.features]
            path = day_folder(folder, day(window_end_ms)) / window_file(writer, partition, window_end_ms)
            publish(path, rows.select(*columns, *features))


def window_file(writer: str, partition: int, window_end_ms: int) -> str:
    """The file name of one writer's rows of one window and partition."""
    end = datetime.fromtimestamp(window_end_ms / 1000, tz=UTC)
    return f"{writer}-p{partition:05d}-{end:%Y%m%dT%H%M%SZ}.parquet"
