"""All uses of Feast's and redis-py's private names, in one place.

`CHECKED_ON` names the versions they were checked on; `tests/test_internals.py` fails when another one is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    import socket

    from feast import FeatureStore, FeatureView
    from redis import Redis

CHECKED_ON = {"feast": "0.67.0", "redis": "7.4.1"}


def online_store(store: FeatureStore) -> Any:
    """The online store that a feature store has opened."""
    return store._get_provider().online_store  # noqa: SLF001


def redis_client(store: FeatureStore) -> Redis:
    """The Redis client of a feature store's Redis store, with its pool of connections."""
    client: Redis = online_store(store)._get_client(store.config.online_store)  # noqa: SLF001
    return client


def answer_with(redis_store: Any, client: Any) -> None:
    """Make a Feast store use this client instead of opening a connection."""
    redis_store._client = client  # noqa: SLF001


def write_with(provider: Any, redis_store: Any) -> None:
    """Make a Feast provider write to this online store."""
    provider._online_store = redis_store  # noqa: SLF001


def parse_connection_string(redis_store: Any, text: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Servers and options of a Feast connection string, parsed by Feast's Redis store class."""
    servers: tuple[list[dict[str, Any]], dict[str, Any]] = redis_store._parse_connection_string(text)  # noqa: SLF001
    return servers


def views_of(store: FeatureStore, push_source: str) -> set[FeatureView]:
    """The views that a push to this source reaches.

    Raises:
        feast.errors.PushSourceNotFoundException: none.
    """
    views: set[FeatureView] = store._fvs_for_push_source_or_raise(push_source, allow_cache=False)  # noqa: SLF001
    return views


def socket_of(connection: Any) -> socket.socket:
    """The socket of a redis-py connection. It changes when the connection reconnects."""
    found: socket.socket = connection._sock  # noqa: SLF001
    return found


def transport_of(connection: Any) -> asyncio.Transport:
    """The transport of an asynchronous redis-py connection."""
    found: asyncio.Transport = connection._writer.transport  # noqa: SLF001
    return found
