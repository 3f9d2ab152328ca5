"""What all tests share: real servers, started once and only when asked for, and an environment of their own."""

from __future__ import annotations

import gc
import os
import uuid
from typing import TYPE_CHECKING

import pytest
import redis
from hypothesis import HealthCheck, settings

from feast_repo.settings import StoreSettings, StreamSettings
from sandbox.apache_kafka import ApacheKafka
from sandbox.embedded_kafka import EmbeddedKafka
from sandbox.kafka_jars import apache_available
from sandbox.processes import Guard, free_port
from sandbox.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# A developer's .env and sandbox.env say nothing about tests. Set before any other class takes its copy.
for base in (StoreSettings, StreamSettings):
    base.model_config["env_file"] = None

SEED = "20261126"
UNREACHABLE = "127.0.0.1:1"
SETTINGS_OF_A_DEVELOPER = (
    "ALLOWED_LATENESS_SECONDS",
    "FEAST_REGISTRY_URL",
    "KAFKA_PROPERTIES_FILE",
    "KAFKA_TOPIC",
    "SANDBOX_KAFKA",
    "SERVING_API_KEYS",
    "SERVING_API_KEYS_FILE",
    "SERVING_CONCURRENCY",
    "SERVING_LOG_SCORES",
    "SERVING_SERVICE",
    "SERVING_REFRESH_SECONDS",
    "SERVING_TIMEOUT_SECONDS",
    "STREAM_STOP_AT_END",
)
SLOW = ("integration", "flows", "crash", "batch", "sandbox")
"""Folders, from that of the slowest files on."""
KAFKA = os.environ.get("SANDBOX_KAFKA", "auto")

settings.register_profile("default", deadline=None, print_blob=True)
# Shared machines are slow by the minute, so a slow strategy is no finding there; more examples are worth the wait.
settings.register_profile(
    "ci", deadline=None, print_blob=True, max_examples=300, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def runs_apache() -> bool:
    """Whether the tests' Kafka is the real one."""
    return KAFKA == "apache" or (KAFKA == "auto" and apache_available())


def pytest_configure(config: pytest.Config) -> None:
    """One seed for all properties, the same each time: new ones are tried by `make test-full`."""
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = SEED


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what the tests run on."""
    why = (
        "SANDBOX_KAFKA" if KAFKA != "auto" else f"java and Maven {'are' if apache_available() else 'are not both'} here"
    )
    return [
        f"Kafka: {'Apache Kafka' if runs_apache() else 'the embedded broker of librdkafka'} ({why})",
        f"seed of the properties: --hypothesis-seed={config.option.hypothesis_seed}",
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that of several processes none is left with one at the end."""
    items.sort(key=lambda item: SLOW.index(folder) if (folder := item.path.parent.name) in SLOW else len(SLOW))


@pytest.fixture(autouse=True, scope="module")
def _nothing_left_open() -> Iterator[None]:
    """What a file's tests leave open fails the last of them, and not whichever test runs when it is collected."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data in a folder of the test's own, and no server unless the test names one."""
    for name in SETTINGS_OF_A_DEVELOPER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATA_ROOT", str(tmp_path_factory.mktemp("data")))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", UNREACHABLE)
    monkeypatch.setenv("REDIS_URL", f"redis://{UNREACHABLE}/0")


@pytest.fixture(scope="session")
def guard() -> Iterator[Guard]:
    """Ends the session's servers even if the test run is killed."""
    watch = Guard()
    yield watch
    watch.close()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory, guard: Guard) -> Iterator[RedisServer]:
    """A Redis-compatible server for the whole session; tests that stop it must start it again."""
    server = RedisServer(tmp_path_factory.mktemp("redis") / "redis", free_port(), guard)
    server.start()
    yield server
    server.close()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty Redis-compatible server."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory, guard: Guard) -> Iterator[ApacheKafka | EmbeddedKafka]:
    """A Kafka broker for the whole session (the report's header says which); tests that stop it must start it again."""
    folder: Path = tmp_path_factory.mktemp("kafka") / "kafka"
    server = ApacheKafka(folder, free_port(), guard) if runs_apache() else EmbeddedKafka(folder, guard)
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def kafka_broker(kafka_server: ApacheKafka | EmbeddedKafka) -> str:
    """The broker's address, for `bootstrap.servers`."""
    return kafka_server.url


@pytest.fixture(scope="session")
def fresh_topic(kafka_server: ApacheKafka | EmbeddedKafka) -> Callable[[int], str]:
    """Makes an empty topic with so many partitions, and returns its name."""

    def make(partitions: int) -> str:
        topic = f"clickstream-{uuid.uuid4().hex[:12]}"
        kafka_server.create_topic(topic, partitions)
        return topic

    return make
