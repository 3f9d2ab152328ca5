"""The push: rows straight to Feast's stores, with the semantics of `FeatureStore.push(..., to=ONLINE_AND_OFFLINE)`.

Columns are encoded as Feast's own bytes without an intermediate frame of Python objects. The registry says which views
a push source feeds. Stores that are not ours get Feast's own push.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import polars as pl
from feast.data_source import PushMode
from feast.errors import PushSourceNotFoundException

from feast_repo.declare.rows import EVENT_TIME, SERVED
from feast_repo.stores.internals import views_of
from feast_repo.stores.offline.parquet import day_folder, publish
from feast_repo.stores.offline.source_columns import is_ours, stored_columns
from feast_repo.stores.offline.source_reader import source_folder
from feast_repo.stores.offline.store import PartitionedParquetOfflineStoreConfig
from feast_repo.stores.offline.tables import day, window_file
from feast_repo.stores.online.format import UnsupportedFormatError
from feast_repo.stores.online.view import OnlineView, newest_rows

if TYPE_CHECKING:
    from datetime import datetime

    from feast import FeatureStore
    from redis import Redis

logger = logging.getLogger(__name__)


class Pusher:
    """Pushes rows to the views of one push source.

        pusher = Pusher(open_store(), "user_clicks_push")
        pusher.push_online(rows)
        served = datetime.now(UTC)
        pusher.push_offline(rows, writer="stream", partition=3, window_end_ms=1_767_229_200_000, served=served)

    `rows`: join keys, event_timestamp and created_timestamp (Datetime us UTC), features. `redis` is the online store's
    client and `online` its views; None and empty if pushes go through Feast. `writer` names our connections on the
    server. Threads may share a pusher.

    Raises:
        LookupError: no view has this push source.
    """

    def __init__(self, store: FeatureStore, push_source: str, writer: str = "feature-writer") -> None:
        self.project: str = store.project
        self.redis: Redis | None = None
        self._store = store
        self._push_source = push_source
        try:
            # Feast's own resolution: a push here and a push through Feast must reach the same views.
            views = views_of(store, push_source)
        except PushSourceNotFoundException as error:
            message = f"no feature view has push source {push_source!r}: declare one, then run `feast apply`"
            raise LookupError(message) from error
        self._views = sorted(views, key=lambda view: str(view.name))
        self.online: list[OnlineView] = []
        try:
            self.online = [OnlineView(store, view, writer) for view in self._views]
            self.redis = self.online[0].redis
        except UnsupportedFormatError as reason:
            logger.warning("pushing through Feast, which is many times slower: %s", reason)
        self._offline_is_ours = isinstance(store.config.offline_store, PartitionedParquetOfflineStoreConfig) and all(
            is_ours(view.batch_source) for view in self._views
        )

    def settle(self) -> None:
        """Prepare Redis for the declared features: old values of a feature that was removed must not come back.

        Raises:
            redis.RedisError: Redis is away or refuses; it can be repeated.
        """
        for view in self.online:
            view.settle()

    def push_online(self, rows: pl.DataFrame) -> int:
        """Write each entity's newest row unless Redis has one at least as new; returns how many rows were written.

        An older row never overwrites a newer one, as long as this is the only writer that moves forward: the stored
        times are read, then compared. Through Feast's push, the store in use decides about rows that are not newer.

        Raises:
            redis.RedisError: Redis is away or refuses; the push can be repeated.
            ValueError: a row lacks a join key or its event time; nothing was written.
        """
        if rows.is_empty():
            return 0
        join_keys = sorted({key for view in self._views for key in view.join_keys})
        for name in (EVENT_TIME, *join_keys):
            if without := rows[name].null_count():
                message = f"{without} of {len(rows)} rows for {self._push_source!r} have no {name}"
                raise ValueError(message)
        if self.redis is not None:
            return sum(view.write_forward(rows) for view in self.online)
        newest = newest_rows(rows, join_keys)
        self._store.push(self._push_source, newest.sort(EVENT_TIME).to_pandas(), to=PushMode.ONLINE)
        return len(newest)

    def push_offline(
        self, rows: pl.DataFrame, *, writer: str, partition: int, window_end_ms: int, served: datetime
    ) -> None:
        """Store one closed window of one partition in a file named after both, so a repeated push overwrites it.

        `served`: a time after Redis had acknowledged the rows, so the online push comes first.

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
            table = rows.with_columns(pl.lit(served).alias(SERVED)).select(columns.keys()).cast(columns)
            publish(folder / window_file(writer, partition, window_end_ms), table)
