"""Bytes of a connection that was given up arrive late: they never put an older row over a newer one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from redis import Redis
from redis.exceptions import RedisError, TimeoutError as RedisTimeoutError

from feast_repo.features import user_click_features as view
from feast_repo.stores.online.writer import CannotEndError, WriteConnections, end_others
from feast_repo.stores.opening import ensure_applied
from feast_repo.stores.push import Pusher
from sandbox.checks import online_rows
from sandbox.held_proxy import HeldProxy
from tests.feast_repo.rows import NEW_YEAR, PUSH_SOURCE, clicks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feast import FeatureStore

    from sandbox.redis_server import RedisServer

USERS = ["user_000001", "user_000002"]
PING = [(b"*1\r\n$4\r\nPING\r\n", 1)]


@pytest.fixture
def proxy(redis_server: RedisServer, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldProxy]:
    """Before an empty Redis."""
    del redis_url
    with HeldProxy(redis_server.port) as proxy:
        monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{proxy.port}/0?socket_timeout=0.5")
        yield proxy


@pytest.fixture
def behind(proxy: HeldProxy, opened: Callable[[], FeatureStore]) -> FeatureStore:
    """A store whose connections pass through the proxy."""
    del proxy
    store = opened()
    ensure_applied(store)
    return store


def named(redis: Redis) -> dict[str, str]:
    """Ids of the connections that have a name, by name."""
    listed: Any = redis.client_list()
    return {one["name"]: one["id"] for one in listed if one["name"]}


def connected(redis: Redis) -> int:
    facts: Any = redis.info("clients")
    return int(facts["connected_clients"])


def served(store: FeatureStore) -> dict[str, int]:
    return dict(online_rows(store, view, pl.DataFrame({"user_id": USERS})).select("user_id", "click_count").iter_rows())


@pytest.mark.parametrize("allowed", [True, False])
def test_late_bytes_of_a_push_that_timed_out_change_nothing(
    behind: FeatureStore, proxy: HeldProxy, redis: Redis, *, allowed: bool
) -> None:
    """
    push 1 ---- held in the network ------------------------> arrives
    push 1 again ----> done     push 2 ----> done
    """
    if not allowed:
        redis.execute_command("ACL", "SETUSER", "default", "-client|kill")
    try:
        pusher = Pusher(behind, PUSH_SOURCE)
        first = clicks(USERS, NEW_YEAR, click_count=1)
        pusher.push_online(clicks(["somebody"], NEW_YEAR))
        proxy.keep_back(b"HSET" if allowed else b"EVALSHA")
        with pytest.raises(RedisTimeoutError):
            pusher.push_online(first)
        assert proxy.held_bytes
        assert pusher.push_online(first) == 2
        assert pusher.push_online(clicks(USERS, NEW_YEAR + view.slide, click_count=2)) == 2
        proxy.deliver()
        assert served(behind) == dict.fromkeys(USERS, 2)
    finally:
        redis.execute_command("ACL", "SETUSER", "default", "+@all")


def test_only_the_connection_that_was_given_up_is_ended(redis: Redis, redis_server: RedisServer) -> None:
    with HeldProxy(redis_server.port) as proxy, Redis(port=proxy.port, socket_timeout=0.3) as client:
        connections = WriteConnections(client, "me")
        assert connections.ask(PING) == [b"PONG"]
        before = connected(redis)
        proxy.keep_back(b"PING")
        with pytest.raises(RedisTimeoutError):
            connections.ask(PING)
        assert connected(redis) == before, "the server doesn't know that it was given up"
        assert connections.ask(PING) == connections.ask(PING) == [b"PONG"]
        assert connected(redis) == before
        assert list(named(redis)) == ["me"]


def test_a_restarted_server_numbers_its_connections_anew(redis_url: str, redis_server: RedisServer) -> None:
    with Redis.from_url(redis_url, socket_timeout=0.3) as client:
        connections = WriteConnections(client, "me")
        assert connections.ask(PING) == [b"PONG"]
        redis_server.pause()
        with pytest.raises(RedisTimeoutError):
            connections.ask(PING)
        redis_server.resume()
        redis_server.stop()
        with pytest.raises(RedisError):
            connections.ask(PING)
        redis_server.start()
        others = [Redis.from_url(redis_server.url) for _ in range(20)]
        ids = [other.client_id() for other in others]
        assert connections.ask(PING) == [b"PONG"]
        assert [other.client_id() for other in others] == ids, "a connection of someone else was ended"
        for other in others:
            other.close()


def test_a_connection_that_ended_while_idle_is_replaced(redis: Redis) -> None:
    connections = WriteConnections(redis, "me")
    assert connections.ask(PING) == [b"PONG"]
    redis.client_kill_filter(_id=named(redis)["me"])
    assert connections.ask(PING) == [b"PONG"]


def test_without_the_right_to_end_connections_nothing_is_sent(redis: Redis) -> None:
    redis.execute_command("ACL", "SETUSER", "default", "-client|kill")
    try:
        connections = WriteConnections(redis, "me")
        for _ in range(2):
            with pytest.raises(CannotEndError, match=r"(?i)no permission"):
                connections.ask([(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n", 1)])
        assert redis.get("a") is None
    finally:
        redis.execute_command("ACL", "SETUSER", "default", "+@all")


def test_connections_of_a_process_that_is_gone_are_ended(redis: Redis, redis_server: RedisServer) -> None:
    with HeldProxy(redis_server.port) as proxy, Redis(port=proxy.port, socket_timeout=0.3) as client:
        killed = WriteConnections(client, "stream:data:gone")
        proxy.keep_back(b"HSET")
        with pytest.raises(RedisTimeoutError):
            killed.ask([(b"*4\r\n$4\r\nHSET\r\n$1\r\nk\r\n$1\r\nf\r\n$1\r\n1\r\n", 1)])
        others = [Redis.from_url(redis_server.url) for _ in range(2)]
        for one, name in zip(others, ("stream:data:lives", "stream:others:gone"), strict=True):
            WriteConnections(one, name).ask(PING)
        assert end_others(redis, "stream:data:", {"lives"}) == 1
        redis.hset("k", "f", "2")
        proxy.deliver()
        assert redis.hgetall("k") == {b"f": b"2"}
        assert sorted(named(redis)) == ["stream:data:lives", "stream:others:gone"]
        for one in others:
            one.close()
