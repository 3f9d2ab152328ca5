"""Reads entities' features from the online store, with age and status per view.

    reader = open_reader(store, settings)
    reader.read([{"card_id": "c1", "shop": 7}])   # or: await reader.read_async([...])
    reader.read(["user_000001"])                  # if the service's only join key is one String

With our Redis store, one round trip reads all views of all entities in Feast's own format. Any other online store is
read through Feast's SDK, with the same results.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from redis.exceptions import RedisError

from feast_repo.stores.offline.tables import progress_folder
from feast_repo.stores.online.owner import check
from feast_repo.stores.online.pipe import ask
from feast_repo.stores.online.store import RedisUrlOnlineStoreConfig, connect
from feast_repo.stores.progress import ProgressRecord
from serving.errors import OnlineStoreError
from serving.freshness import Freshness
from serving.messages import features_of
from serving.redis_connection import RedisConnection
from serving.redis_rows import RedisRows
from serving.schema import ServedSchema, read_schema
from serving.stream_reach import StreamReach

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feast import FeatureStore

    from feast_repo.declare.services import FeatureService
    from serving.messages import Asked, EntityFeatures
    from serving.settings import ServingSettings


class Reader(Protocol):
    """Reads the views of one feature service. Threads may share it; `read_async` is for one event loop."""

    @property
    def schema(self) -> ServedSchema:
        """What is read."""

    def use(self, schema: ServedSchema) -> None:
        """Read this schema from now on. A running read finishes with the schema it started with."""

    def read(self, entities: Sequence[Asked]) -> list[EntityFeatures]:
        """Features in the order of the entities.

        Raises:
            OnlineStoreError: the online store is away, too slow, or refuses commands.
            ValueError: something is no entity of the service; the message names the join key.
        """

    async def read_async(self, entities: Sequence[Asked]) -> list[EntityFeatures]:
        """The same without blocking the event loop."""

    async def close(self) -> None:
        """Let go of the online store."""


class RedisReader:
    """Reads Feast's Redis format directly."""

    def __init__(self, schema: ServedSchema, key_version: int, url: str, timeout_s: float) -> None:
        self._key_version = key_version
        self._client = connect(url, socket_timeout=timeout_s)
        self._connection = RedisConnection(url, timeout_s)
        self.use(schema)

    @property
    def schema(self) -> ServedSchema:
        """What is read."""
        return self._what[0].schema

    def use(self, schema: ServedSchema) -> None:
        """From now on, read this."""
        self._what = RedisRows(schema, self._key_version), StreamReach(schema)

    def read(self, entities: Sequence[Asked]) -> list[EntityFeatures]:
        """Features in the order of the entities."""
        rows, reach = self._what
        (commands, asked), (more, count) = rows.commands(entities), reach.commands()
        try:
            replies = ask(self._client, [(commands + more, asked + count)])
        except RedisError as error:
            raise OnlineStoreError(error) from error
        return _judged(rows, reach, entities, replies, asked)

    async def read_async(self, entities: Sequence[Asked]) -> list[EntityFeatures]:
        """The same without blocking the event loop."""
        rows, reach = self._what
        (commands, asked), (more, count) = rows.commands(entities), reach.commands()
        try:
            replies = await self._connection.ask(commands + more, asked + count)
        except RedisError as error:
            raise OnlineStoreError(error) from error
        return _judged(rows, reach, entities, replies, asked)

    async def close(self) -> None:
        """Let go of Redis."""
        await self._connection.close()
        self._client.close()


def _judged(
    rows: RedisRows, reach: StreamReach, entities: Sequence[Asked], replies: list[Any], asked: int
) -> list[EntityFeatures]:
    if len(replies) > asked:
        reach.take(replies[asked:])
        del replies[asked:]
    return rows.rows(entities, replies, time.time() * 1000, reach.closed_ends)


class FeastReader:
    """Reads any online store through Feast's SDK, in a thread where it must not block."""

    def __init__(self, store: FeatureStore, schema: ServedSchema, settings: ServingSettings) -> None:
        self._store = store
        self._records = {
            view.name: (view, ProgressRecord(progress_folder(settings.data_root, view.source)))
            for view in settings.catalog.windowed
        }
        self._timeout_s = settings.serving_timeout_seconds
        self.use(schema)

    @property
    def schema(self) -> ServedSchema:
        """What is read."""
        return self._schema

    def use(self, schema: ServedSchema) -> None:
        """From now on, read this."""
        self._schema = schema

    def read(self, entities: Sequence[Asked]) -> list[EntityFeatures]:
        """Features in the order of the entities."""
        return self._read(self._schema, entities)

    def _read(self, schema: ServedSchema, entities: Sequence[Asked]) -> list[EntityFeatures]:
        keyed = [{name: entity[name] for name in schema.join_keys} for entity in map(schema.entity, entities)]
        try:
            response = self._store.get_online_features(
                [f"{view.name}:{name}" for view in schema.views for name in view.types],
                keyed,
                full_feature_names=True,
            )
        except Exception as error:  # the errors of Feast's stores share no base class
            raise OnlineStoreError(error) from error
        values: dict[str, list[Any]] = response.to_dict()
        names = list(response.proto.metadata.feature_names.val)
        now_ms = time.time() * 1000
        rows = [features_of(asked, {}) for asked in entities]
        for view in schema.views:
            closed_end = self._closed_end_ms(view.name)
            judge, columns = Freshness(view), [values[f"{view.name}__{name}"] for name in view.types]
            times = response.proto.results[names.index(f"{view.name}__{next(iter(view.types))}")].event_timestamps
            for number, row in enumerate(rows):
                # Feast returns 1970 for an unknown entity.
                time_ms = times[number].ToMicroseconds() / 1000 or None
                row.views[view.name] = judge.read([column[number] for column in columns], time_ms, now_ms, closed_end)
        return rows

    def _closed_end_ms(self, name: str) -> int | None:
        """The end of a view's last window that is closed in all partitions."""
        if name not in self._records:
            return None
        view, record = self._records[name]
        return record.closed_end_ms(view)

    async def read_async(self, entities: Sequence[Asked]) -> list[EntityFeatures]:
        """As `read`, in a thread that is abandoned after the timeout."""
        reading = asyncio.to_thread(self._read, self._schema, entities)
        try:
            return await asyncio.wait_for(reading, self._timeout_s)
        except TimeoutError as error:
            message = f"it did not answer in {self._timeout_s:g} s"
            raise OnlineStoreError(message) from error

    async def close(self) -> None:
        """Nothing to do: Feast keeps its connections for the life of the process."""


def open_reader(store: FeatureStore, settings: ServingSettings, service: FeatureService | None = None) -> Reader:
    """The fastest reader for the store's online store; `service`: whose views it reads (default: the settings').

    Raises:
        ChoiceError: the settings don't tell which service.
        SchemaError: the registry does not describe the feature service.
        ForeignRedisError: Redis holds another DATA_ROOT's data.
        sqlalchemy.exc.SQLAlchemyError: the registry's database is away.
    """
    service = settings.served if service is None else service
    schema = read_schema(store, service.name, service.views, service.freshness)
    online = store.config.online_store
    if isinstance(online, RedisUrlOnlineStoreConfig):
        with suppress(RedisError), connect(settings.redis_url) as redis:  # Redis may come up later
            check(redis, store.project, settings.data_root)
    if isinstance(online, RedisUrlOnlineStoreConfig) and not online.key_ttl_seconds:
        version = store.config.entity_key_serialization_version
        return RedisReader(schema, version, settings.redis_url, settings.serving_timeout_seconds)
    return FeastReader(store, schema, settings)
