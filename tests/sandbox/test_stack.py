from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from sandbox.processes import SandboxError
from sandbox.redis_server import redis_answers
from sandbox.settings import SandboxSettings
from sandbox.stack import Sandbox
from sandbox.topics import broker_answers, partition_count

if TYPE_CHECKING:
    from pathlib import Path


def test_the_environment_leads_every_setting_to_the_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox(tmp_path, topic="clicks") as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        settings = SandboxSettings()
        assert settings.data_root == tmp_path
        assert settings.registry_url == f"sqlite:///{tmp_path}/registry.db"
        assert redis_answers(settings.redis_url)
        assert (
            partition_count({"bootstrap.servers": settings.kafka_bootstrap_servers}, settings.catalog.stream().topic)
            == 64
        )
        kafka, store = sandbox.bootstrap, sandbox.redis_url
    assert not redis_answers(store)
    assert not broker_answers({"bootstrap.servers": kafka})


def test_the_store_keeps_its_data_over_a_kill(tmp_path: Path) -> None:
    with Sandbox(tmp_path, partitions=3) as sandbox:
        with redis.Redis.from_url(sandbox.redis_url) as client:
            client.set("key", "value")
            sandbox.redis.kill()
            sandbox.redis.start()
            assert client.get("key") == b"value"
        assert partition_count({"bootstrap.servers": sandbox.bootstrap}, sandbox.topic) == 3


def test_two_stacks_live_side_by_side(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "a") as one, Sandbox(tmp_path / "b") as two:
        assert not set(one.environment.items()) & set(two.environment.items()) - {("KAFKA_TOPIC", "clickstream")}


def test_a_start_that_fails_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sandbox = Sandbox(tmp_path, kafka="apache")
    with pytest.raises(SandboxError, match="Java 17"):
        sandbox.start()
    assert sandbox.redis.process is not None  # it was up before Kafka failed
    assert not sandbox.redis.running
