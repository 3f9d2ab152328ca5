"""Settings of the topic and of Redis that break promises are told once, at the start."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from redis import Redis

from feast_repo.settings import StreamSettings
from sandbox.processes import free_port, wait_until
from sandbox.redis_server import RedisServer
from stream.start_checks import look_at_redis, look_at_topics
from tests.conftest import runs_apache

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.processes import Guard


@pytest.mark.skipif(not runs_apache(), reason="the embedded broker has no configuration of topics")
@pytest.mark.parametrize(("policy", "told"), [("compact", 1), ("compact,delete", 1), ("delete", 0)])
def test_compacted_topic(
    kafka_broker: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    policy: str,
    told: int,
) -> None:
    topic = f"clicks-{uuid.uuid4().hex[:12]}"
    new = NewTopic(topic, 1, 1, config={"cleanup.policy": policy})
    admin = AdminClient({"bootstrap.servers": kafka_broker})
    admin.create_topics([new])[topic].result(10)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_broker)
    monkeypatch.setenv("KAFKA_TOPIC", topic)
    look_at_topics(StreamSettings())
    assert ["compacted" in record.message for record in caplog.records] == [True] * told


def test_only_the_first_process_of_a_cluster_tells(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Redis.from_url(redis_url) as redis:
        monkeypatch.setattr("sys.argv", ["/lib/bytewax/run.py", "stream.dataflow", "-i", "1"])
        look_at_redis(redis)
        assert not caplog.records
        monkeypatch.setattr("sys.argv", ["/lib/bytewax/run.py", "stream.dataflow", "-i", "0"])
        look_at_redis(redis)
    assert ["append-only" in record.message for record in caplog.records] == [True]


def test_redis_that_keeps_everything_is_no_news_and_one_that_evicts_is(
    tmp_path: Path, guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path / "redis", free_port(), guard, durable=True)
    server.start()
    try:
        with Redis.from_url(server.url) as redis:
            look_at_redis(redis)
            assert not caplog.records
            redis.config_set("maxmemory", "100mb")
            look_at_redis(redis)
            assert not caplog.records
            redis.config_set("maxmemory-policy", "allkeys-lru")
            look_at_redis(redis)
    finally:
        server.close()
    assert ["allkeys-lru" in record.message for record in caplog.records] == [True]


def test_redis_that_is_away_is_waited_for(tmp_path: Path, guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    server = RedisServer(tmp_path / "redis", free_port(), guard, durable=True)
    try:
        with Redis.from_url(server.url) as redis, ThreadPoolExecutor(1) as thread:
            looking = thread.submit(look_at_redis, redis)
            assert wait_until(lambda: "Redis is away" in caplog.text, 30)
            server.start()
            looking.result(30)
    finally:
        server.close()
    assert [record.getMessage() for record in caplog.records][1:] == ["Redis is back"]
