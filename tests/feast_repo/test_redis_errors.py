"""What an error of Redis means, explained by the words of its reply, through our own pipe and through redis-py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError, TimeoutError as RedisTimeoutError

from feast_repo.errors import ExitCode
from feast_repo.stores.online.errors import ClusterNodeError, can_pass, explained, reply_error
from feast_repo.stores.online.store import connect
from sandbox.processes import free_port
from sandbox.redis_server import RedisServer

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.processes import Guard

PASSING = [
    "LOADING Redis is loading the dataset in memory",
    "READONLY You can't write against a read only replica.",
    "NOREPLICAS Not enough good replicas to write.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "CLUSTERDOWN The cluster is down",
    "BUSY Redis is busy running a script.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "TRYAGAIN Multiple keys request during rehashing of slot",
]
FINAL = [
    ("NOAUTH Authentication required.", "correct REDIS_URL"),
    ("NOPERM User shop has no permissions to run the 'hset' command", "correct REDIS_URL"),
    ("WRONGTYPE Operation against a key holding the wrong kind of value", "refuses a command"),
    ("ERR DB index is out of range", "refuses a command"),
    ("MOVED 3999 127.0.0.1:6381", "Redis Cluster"),
]


@pytest.mark.parametrize("text", PASSING)
def test_answers_that_can_pass(text: str) -> None:
    for error in (reply_error(text), BaseParser.parse_error(text)):
        assert can_pass(error), repr(error)
        assert "does not answer" in str(explained(error))
        assert explained(error).exit_code == ExitCode.TRY_AGAIN


@pytest.mark.parametrize(("text", "words"), FINAL)
def test_answers_that_stay_are_told_with_the_remedy(text: str, words: str) -> None:
    for error in (reply_error(text), BaseParser.parse_error(text)):
        assert not can_pass(error), repr(error)
        assert words in str(explained(error))
        assert "\n" not in str(explained(error))
        assert explained(error).exit_code == ExitCode.REFUSED


@pytest.mark.parametrize("error", [RedisConnectionError("refused"), RedisTimeoutError("slow")])
def test_connections_that_break_can_pass(error: Exception) -> None:
    assert can_pass(error)


class ClusterNode(RedisServer):
    def command(self) -> list[str]:
        return [*super().command(), "--cluster-enabled", "yes"]


class BySocket(RedisServer):
    @property
    def url(self) -> str:
        return f"unix://{self.folder}/s?db=2"

    def command(self) -> list[str]:
        return [*super().command(), "--unixsocket", str(self.folder / "s")]


def test_node_of_a_cluster_is_refused_by_its_first_connection(tmp_path: Path, guard: Guard) -> None:
    server = ClusterNode(tmp_path / "node", free_port(), guard)
    server.start()
    try:
        with connect(server.url) as client, pytest.raises(ClusterNodeError, match="type: redis"):
            client.ping()
    finally:
        server.close()


def test_socket_of_this_machine(tmp_path_factory: pytest.TempPathFactory, guard: Guard) -> None:
    server = BySocket(tmp_path_factory.mktemp("by") / "r", free_port(), guard)
    server.start()
    try:
        with connect(server.url) as client:
            client.set("key", "value")
            assert client.get("key") == b"value"
    finally:
        server.close()
