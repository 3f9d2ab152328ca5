from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

import feast_repo.settings
from feast_repo.clickstream import clickstream
from feast_repo.stores.offline.tables import progress_folder
from feast_repo.stores.progress import Progress, ProgressRecord
from sandbox.lifecycle import notes, problems
from sandbox.settings import SandboxSettings
from sandbox.stack import Sandbox
from sandbox.state import State, save

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.setattr(feast_repo.settings, "SANDBOX_ENV", tmp_path / "sandbox.env")
    with Sandbox(tmp_path, partitions=2) as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        save(tmp_path, State(tuple(running.parts()), running.environment))
        yield running


def test_data_of_another_log_is_noticed(sandbox: Sandbox) -> None:
    settings, state = SandboxSettings(), State(tuple(sandbox.parts()), sandbox.environment)
    record = ProgressRecord(progress_folder(sandbox.root, clickstream))
    assert notes(sandbox.root, settings, state) == []
    producer = Producer({"bootstrap.servers": sandbox.bootstrap})
    producer.produce(sandbox.topic, b"one", partition=1)
    assert producer.flush(30) == 0
    record.save(Progress(topic="clickstream", partition=1, next_offset=1, watermark_ms=None))
    assert notes(sandbox.root, settings, state) == []
    record.save(Progress(topic="clickstream", partition=0, next_offset=7, watermark_ms=None))
    (note,) = notes(sandbox.root, settings, state)
    assert "holds data up to offset 7 of partition 0 of clickstream, but this log ends at 0" in note


def test_each_silent_or_lost_part_is_a_problem(sandbox: Sandbox) -> None:
    settings, state = SandboxSettings(), State(tuple(sandbox.parts()), sandbox.environment)
    assert problems(sandbox.root, settings, state) == {}
    sandbox.redis.pause()
    sandbox.kafka.stop()
    assert problems(sandbox.root, settings, state) == {"kafka": "does not answer", "redis": "does not answer"}
    sandbox.redis.kill()
    sandbox.kafka.start()
    assert "is gone" in problems(sandbox.root, settings, state)["redis"]
    sandbox.redis.start()
    feast_repo.settings.SANDBOX_ENV.unlink()
    fresh = State(tuple(sandbox.parts()), sandbox.environment)
    assert "sandbox.env is missing" in problems(sandbox.root, settings, fresh)["settings"]
