"""Feast's Redis store, reached by `REDIS_URL`.

Only the connection is ours: keys, values and reads are Feast's. Feast's own connection string can hold neither a URL
nor a password with a comma.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from pydantic import model_validator
from redis import Redis, asyncio as redis_asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from feast_repo import registry
from feast_repo.settings import StoreSettings

CONNECTION: dict[str, Any] = {
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "retry": Retry(NoBackoff(), 1),
}
"""Without these a server that vanishes or freezes would hold its client for ever; REDIS_URL's query can change them.

One quick retry makes up for a connection that broke while it was idle; longer waiting is for the caller to decide.
"""

# Feast imports this module while it reads feature_store.yaml, and opens the registry afterwards.
registry.install()


class RedisUrlOnlineStoreConfig(RedisOnlineStoreConfig):
    """`online_store:` in feature_store.yaml; the address comes from the settings."""

    type: Literal["feast_repo.online_store.RedisUrlOnlineStore"] = "feast_repo.online_store.RedisUrlOnlineStore"

    @model_validator(mode="after")
    def _only_by_url(self) -> Self:
        """Refuse what Feast's own store would heed and this one would not.

        Raises:
            ValueError: an option of another way to connect is set.
        """
        if unused := self.model_fields_set & {"connection_string", "redis_type", "sentinel_master", "client"}:
            message = f"{sorted(unused)} have no effect: set REDIS_URL, or use `type: redis` for a cluster or Sentinel"
            raise ValueError(message)
        return self


class RedisUrlOnlineStore(RedisOnlineStore):
    """Feast's Redis store at `StoreSettings().redis_url` (redis:// or rediss://)."""

    _client: Redis | None = None
    _client_async: redis_asyncio.Redis | None = None

    def _get_client(self, online_store_config: RedisOnlineStoreConfig) -> Redis:
        del online_store_config
        if self._client is None:
            self._client = Redis.from_url(StoreSettings().redis_url, **CONNECTION)
        return self._client

    async def _get_client_async(self, online_store_config: RedisOnlineStoreConfig) -> redis_asyncio.Redis:
        del online_store_config
        if self._client_async is None:
            self._client_async = redis_asyncio.Redis.from_url(StoreSettings().redis_url, **CONNECTION)
        return self._client_async
