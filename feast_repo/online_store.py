"""Feast's Redis store, reached by `REDIS_URL`.

Only the connection is ours: keys, values and reads are Feast's. Feast's own connection string can hold neither a URL
nor a password with a comma.
"""

from __future__ import annotations

from typing import Literal

from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from redis import Redis, asyncio as redis_asyncio

from feast_repo import registry
from feast_repo.settings import StoreSettings

# Feast imports this module while it reads feature_store.yaml, and opens the registry afterwards.
registry.install()


class RedisUrlOnlineStoreConfig(RedisOnlineStoreConfig):
    """`online_store:` in feature_store.yaml; the address comes from the settings."""

    type: Literal["feast_repo.online_store.RedisUrlOnlineStore"] = "feast_repo.online_store.RedisUrlOnlineStore"


class RedisUrlOnlineStore(RedisOnlineStore):
    """Feast's Redis store at `StoreSettings().redis_url` (redis:// or rediss://)."""

    _client: Redis | None = None
    _client_async: redis_asyncio.Redis | None = None

    def _get_client(self, online_store_config: RedisOnlineStoreConfig) -> Redis:
        del online_store_config
        if self._client is None:
            self._client = Redis.from_url(StoreSettings().redis_url)
        return self._client

    async def _get_client_async(self, online_store_config: RedisOnlineStoreConfig) -> redis_asyncio.Redis:
        del online_store_config
        if self._client_async is None:
            self._client_async = redis_asyncio.Redis.from_url(StoreSettings().redis_url)
        return self._client_async
