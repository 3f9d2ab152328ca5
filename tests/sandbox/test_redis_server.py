from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import redis

from sandbox.processes import LOOPBACK, SandboxError, free_port, wait_until
from sandbox.redis_server import RedisServer, redis_answers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.processes import Guard


@pytest.fixture(params=[False, True], ids=["in memory", "durable"])
def server(request: pytest.FixtureRequest, tmp_path: Path, guard: Guard) -> Iterator[RedisServer]:
    redis_server = RedisServer(tmp_path / "redis", free_port(), guard, durable=request.param)
    redis_server.start()
    yield redis_server
    redis_server.close()


def test_only_a_durable_server_keeps_its_data_over_a_kill_and_both_their_port(server: RedisServer) -> None:
    url = server.url
    with redis.Redis.from_url(url) as client:
        client.set("key", "value")
    server.kill()
    assert not redis_answers(url)
    server.start()
    assert server.url == url
    with redis.Redis.from_url(url) as client:
        assert client.get("key") == (b"value" if server.durable else None)


def test_it_restarts_while_clients_still_hold_connections(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        for _ in range(3):
            client.ping()
            server.stop()
            server.start()
            assert client.ping()


def test_a_paused_server_holds_its_clients_until_it_goes_on(server: RedisServer) -> None:
    server.pause()
    assert server.running
    assert not redis_answers(server.url)
    server.resume()
    assert wait_until(lambda: redis_answers(server.url), 10)


def test_a_replica_that_lagged_takes_its_place(server: RedisServer) -> None:
    url, replica = server.url, server.beside("replica")
    replica.start()
    with redis.Redis.from_url(url) as client:
        client.set("key", "before")
        replica.follow(server)
        replica.lose_primary()
        client.set("key", "after")
        server.fail_over(replica)
        assert server.url == url
        assert client.get("key") == b"before"
        client.set("key", "written")
        server.kill()
        server.start()
        assert client.get("key") == b"written" or not server.durable


def test_starting_a_running_server_changes_nothing(server: RedisServer) -> None:
    process = server.process
    server.start()
    assert server.process is process


def test_it_listens_on_loopback_only(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        assert client.config_get("bind") == {"bind": LOOPBACK}
        assert client.config_get("save") == {"save": ""}
    with socket.socket() as other:  # another address of the loopback network stays free
        other.bind(("127.0.0.2", server.port))


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(SandboxError, match=rf"port {port} is taken, so Redis \(Valkey\) can't start there"):
            RedisServer(tmp_path / "redis", port).start()


def test_a_server_that_ends_at_once_is_quoted(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", free_port(), durable=True)
    broken = tmp_path / "redis" / "appendonlydir"
    broken.mkdir(parents=True)
    (broken / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(SandboxError, match=r"ended while starting: .+ \(log: .+redis\.log\)"):
        server.start()
    assert not server.running
