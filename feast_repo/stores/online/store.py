"""Feast's Redis store, reached by `REDIS_URL` or by Feast's own `connection_string`.

Keys, values and read commands are Feast's. The connection is ours, because a connection string can hold neither a URL
nor a password with a comma. So is the comparison of event times on writes, because Feast reads first and writes later,
and a newer row in between would be lost. Asynchronous clients live as long as their event loop.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, cast
from weakref import WeakKeyDictionary, finalize

from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from pydantic import model_validator
from redis import Redis, asyncio as redis_asyncio
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from feast_repo.settings import StoreSettings
from feast_repo.stores import registry
from feast_repo.stores.internals import answer_with, parse_connection_string
from feast_repo.stores.online.errors import ClusterNodeError
from feast_repo.stores.online.features import settle
from feast_repo.stores.online.format import decode_time
from feast_repo.stores.online.guard import SWAP_SHA, swap_until_settled
from feast_repo.stores.online.pipe import ask, packed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from feast import Entity, FeatureView
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.repo_config import RepoConfig

    Held: TypeAlias = tuple[AsyncGenerator[redis_asyncio.Redis, None], redis_asyncio.Redis]

logger = logging.getLogger(__name__)

CONNECTION: dict[str, Any] = {
    "socket_timeout": 3,
    "socket_connect_timeout": 3,
    "socket_keepalive": True,
    "retry": Retry(NoBackoff(), 1),
}
"""Without these a server that vanishes or freezes would block its client forever; REDIS_URL's query can change them.

One quick retry handles a connection that broke while idle; longer waits are up to the caller.
"""

BRIEFLY: dict[str, Any] = {"socket_timeout": 1, "socket_connect_timeout": 1, "retry": Retry(NoBackoff(), 0)}
"""For optional work that holds up others, such as the registry."""


def connect(url: str, **options: Any) -> Redis:
    """A client of the server at a redis://, rediss:// or unix:// URL; it connects on first use.

    Every connection checks whether the server is a cluster node.

    Raises:
        redis.RedisError: from commands; among them `ClusterNodeError`.
    """
    client = Redis.from_url(url, **{**connection_options(url), "redis_connect_func": _begin, **options})
    # In a cycle, such as an error's traceback makes, the collector may come to the sockets before redis-py's
    # destructors have closed them. This runs before both.
    finalize(client, client.connection_pool.disconnect).atexit = False
    return client


def connection_options(url: str) -> dict[str, Any]:
    """Options of every connection to the URL, for synchronous and asynchronous clients."""
    by_socket = url.startswith("unix://")  # has no keepalive
    return {name: value for name, value in CONNECTION.items() if not (by_socket and name == "socket_keepalive")}


def _begin(connection: Any) -> None:
    """Log in as redis-py does, then refuse a cluster node: it answers for some keys and redirects others."""
    connection.on_connect()
    connection.send_command("INFO", "cluster")
    try:
        facts = connection.read_response()
    except ResponseError:  # a user without this command, or a proxy: a command for another node's key will show it
        return
    if b"cluster_enabled:1" in (facts if isinstance(facts, bytes) else str(facts).encode()):
        raise ClusterNodeError


# Feast imports this module while it reads feature_store.yaml, and opens the registry afterwards.
registry.install()


class RedisUrlOnlineStoreConfig(RedisOnlineStoreConfig):
    """`online_store:` in feature_store.yaml; without a `connection_string` the address comes from the settings."""

    type: Literal["feast_repo.online_store.RedisUrlOnlineStore"] = "feast_repo.online_store.RedisUrlOnlineStore"

    path: str | None = None
    """The file of Feast's SQLite store, as `feast init` writes it: ignored, so it may stay when the type changes."""

    @model_validator(mode="after")
    def _only_by_url(self) -> Self:
        """Refuse options that Feast's own store would apply and this one would not.

        Raises:
            ValueError: an option of another way to connect is set.
        """
        if unused := self.model_fields_set & {"redis_type", "sentinel_master", "client"}:
            message = f"{sorted(unused)} have no effect: set REDIS_URL, or use `type: redis` for a cluster or Sentinel"
            raise ValueError(message)
        return self

    def address(self) -> tuple[str, dict[str, Any]]:
        """The server's URL, and further options of redis-py."""
        if "connection_string" not in self.model_fields_set:
            return StoreSettings().redis_url, {}
        (node, *_), options = parse_connection_string(RedisOnlineStore, self.connection_string)
        scheme = "rediss" if options.pop("ssl", False) else "redis"
        secrets = {name: str(options.pop(name)) for name in ("username", "password") if name in options}
        return f"{scheme}://{node['host']}:{node.get('port', 6379)}/{options.pop('db', 0)}", secrets | options


class Recorder:
    """Stands in for Redis while Feast writes: returns no stored times, and records what is set."""

    def __init__(self) -> None:
        self.rows: list[tuple[bytes, dict[str | bytes, bytes]]] = []
        self._asked = 0

    def pipeline(self, *, transaction: bool) -> Self:
        """Everything is one pipeline."""
        del transaction
        return self

    def __enter__(self) -> Self:
        """It is its own context."""
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to close."""

    def hmget(self, *_: object) -> None:
        """Record a request for the stored time."""
        self._asked += 1

    def hset(self, key: bytes, mapping: Mapping[str | bytes, bytes]) -> None:
        """Record a row."""
        self.rows.append((key, dict(mapping)))

    def execute(self) -> list[list[None]]:
        """Nothing is stored."""
        return [[None]] * self._asked

    def commands(self) -> list[list[str | bytes]]:
        """The commands that would have been sent."""
        return [["HSET", key, *arguments(row)] for key, row in self.rows]


class RedisUrlOnlineStore(RedisOnlineStore):
    """Feast's Redis store at the address of its configuration."""

    _client: Redis | None = None

    def __init__(self) -> None:
        super().__init__()
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Held] = WeakKeyDictionary()

    def _get_client(self, online_store_config: RedisOnlineStoreConfig) -> Redis:
        if self._client is None:
            url, options = cast("RedisUrlOnlineStoreConfig", online_store_config).address()
            self._client = connect(url, **options)
        return self._client

    def _read_hash_fields(
        self, config: RepoConfig, commands: list[tuple[bytes, list[str | bytes]]]
    ) -> list[list[bytes | None]]:
        """One HMGET per key, which all of Feast's reads go through.

        Timeouts cost a little on each read; skipping redis-py's pipeline makes up for it.

        Raises:
            redis.RedisError: Redis is away or refuses; the call can be repeated.
        """
        redis = self._get_client(cast("RedisOnlineStoreConfig", config.online_store))

        def read() -> list[list[bytes | None]]:
            return ask(redis, packed(("HMGET", key, *fields) for key, fields in commands))

        return cast("Retry", redis.get_retry()).call_with_retry(read, lambda _: None)

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write each entity's newest row unless Redis has one at least as new, with an atomic compare-and-set.

        `feast materialize` and `FeatureStore.push` write with this. Feast's own method encodes the rows. With options
        that skip the comparison or limit a key's lifetime, it also sends them.

        Raises:
            redis.RedisError: Redis is away or refuses; the call can be repeated.
        """
        online = cast("RedisOnlineStoreConfig", config.online_store)
        if online.skip_dedup or online.key_ttl_seconds:
            super().online_write_batch(config, table, data, progress)
            return
        feast, recorder = RedisOnlineStore(), Recorder()
        answer_with(feast, recorder)
        feast.online_write_batch(config, table, data, progress)
        _write_newer(self._get_client(online), dict(recorder.rows))  # an entity's later rows are newer

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,  # noqa: FBT001  (Feast's signature)
    ) -> None:
        """Apply Feast's changes, and remove old values of features that are declared again.

        Redis need not be available: the stream does the same before it writes.
        """
        super().update(config, tables_to_delete, tables_to_keep, entities_to_delete, entities_to_keep, partial)
        url, options = cast("RedisUrlOnlineStoreConfig", config.online_store).address()
        try:
            with connect(url, **{**options, **BRIEFLY}) as redis:
                for view in tables_to_keep:
                    settle(redis, config.project, view.name, [field.name for field in view.features], begins=False)
        except RedisError as error:
            logger.info("not looking for values of removed features: Redis does not answer (%s)", error)

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """`online_write_batch` in a separate thread, so `push_async` never replaces a newer row either.

        Raises:
            redis.RedisError: Redis is away or refuses; the call can be repeated.
        """
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    async def _get_client_async(self, online_store_config: RedisOnlineStoreConfig) -> redis_asyncio.Redis:
        """The running event loop's client: a connection belongs to the loop that opened it."""
        loop = asyncio.get_running_loop()
        if (held := self._by_loop.get(loop)) is None:
            keeper = _until_the_loop_ends(*cast("RedisUrlOnlineStoreConfig", online_store_config).address())
            held = self._by_loop[loop] = keeper, await anext(keeper)
        return held[1]


async def _until_the_loop_ends(url: str, options: dict[str, Any]) -> AsyncGenerator[redis_asyncio.Redis, None]:
    """Yields a client; `asyncio.run` and servers close their loop's generators, which closes its connections."""
    client = redis_asyncio.Redis.from_url(url, **{**connection_options(url), **options})
    try:
        yield client
    finally:
        await client.aclose()


def arguments(row: Mapping[str | bytes, bytes]) -> list[str | bytes]:
    """Fields and values as arguments of HSET."""
    return [part for item in row.items() for part in item]


def _write_newer(redis: Redis, rows: Mapping[bytes, Mapping[str | bytes, bytes]]) -> None:
    """Set the rows that are newer than the stored ones; each begins with its time, as in Feast."""
    keys, fields = list(rows), [arguments(row) for row in rows.values()]
    times = [decode_time(cast("bytes", row[1])) for row in fields]

    def read(numbers: list[int]) -> list[bytes | None]:
        return ask(redis, packed(("HGET", keys[number], fields[number][0]) for number in numbers))

    def swaps(numbers: list[int], stored: list[bytes | None]) -> Iterator[tuple[bytes, int]]:
        pairs = zip(numbers, stored, strict=True)
        return packed(("EVALSHA", SWAP_SHA, 1, keys[number], time or b"", *fields[number]) for number, time in pairs)

    swap_until_settled(
        redis, len(keys), read, lambda number, stored: not stored or times[number] > decode_time(stored), swaps
    )
