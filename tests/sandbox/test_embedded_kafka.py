from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from sandbox.embedded_kafka import EmbeddedKafka, tell
from sandbox.processes import HOME, SandboxError, wait_until
from sandbox.topics import RetentionError, broker_answers, check_retention, partition_count

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.processes import Guard


@pytest.fixture
def kafka(tmp_path: Path, guard: Guard) -> Iterator[EmbeddedKafka]:
    server = EmbeddedKafka(tmp_path / "kafka", guard)
    server.start()
    yield server
    server.close()


def test_records_beyond_its_limit_are_missed_loudly(kafka: EmbeddedKafka) -> None:
    kafka.create_topic("clicks", 64)
    producer = Producer({"bootstrap.servers": kafka.url, "linger.ms": 0})
    for _ in range(40):  # 8 MB that can't be compressed; it keeps 5 MiB
        producer.produce("clicks", os.urandom(200_000), partition=7)
        assert producer.flush(30) == 0
    with pytest.raises(RetentionError, match=r"'clicks' .* lost its oldest records: partition 7 begins at offset \d+"):
        check_retention(kafka.url, "clicks")


def test_it_takes_many_partitions(kafka: EmbeddedKafka) -> None:
    kafka.create_topic("wide", 256)
    assert partition_count({"bootstrap.servers": kafka.url}, "wide") == 256


def test_a_command_it_does_not_know_is_refused(kafka: EmbeddedKafka) -> None:
    with pytest.raises(SandboxError, match=r"refuses 'dance': unknown command 'dance'"):
        tell(kafka.control, "dance")
    with pytest.raises(SandboxError, match=r"refuses 'create clicks': unknown command"):
        tell(kafka.control, "create clicks")


def test_a_closed_broker_is_gone_and_its_control_port_says_so(kafka: EmbeddedKafka) -> None:
    kafka.pause()
    kafka.close()
    assert not kafka.running
    with pytest.raises(SandboxError, match="does not answer on its control port"):
        tell(kafka.control, "up")


def test_the_process_serves_its_topics_until_sigterm(tmp_path: Path) -> None:
    ready = tmp_path / "broker.json"
    command = [sys.executable, "-m", "sandbox.broker", "--topic", "clicks:5", "--port-file", str(ready)]
    with subprocess.Popen(command, cwd=HOME) as broker:
        try:
            assert wait_until(ready.exists, 30)
            bootstrap = ready.read_text().split('"')[3]
            assert partition_count({"bootstrap.servers": bootstrap}, "clicks") == 5
        finally:
            broker.terminate()
        assert broker.wait(30) == 0
    assert not broker_answers({"bootstrap.servers": bootstrap})


@pytest.mark.parametrize("topic", ["clicks", "clicks:", ":3", "clicks:0", "clicks:x", "clicks:99999"])
def test_a_bad_topic_argument_is_named(topic: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sandbox.broker", "--topic", topic, "--port-file", str(tmp_path / "x")]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"'{topic}' is not <topic>:<partitions>" in done.stderr
