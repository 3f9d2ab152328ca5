from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from feast_repo.clickstream import clickstream
from feast_repo.codec.decoding import Decoder, RawBatch
from feast_repo.codec.heartbeats import heartbeat, is_heartbeat
from feast_repo.settings import PROJECT_ROOT, StreamSettings
from sandbox.broker import Broker
from stream.heartbeat import Activity, HeartbeatService, main, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARTITIONS = 3
QUIET_MS, DELAY_MS = 10_000, 5_000
WAIT_S = 60.0


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    broker = Broker()
    yield broker
    broker.close()


@pytest.fixture
def settings(broker: Broker, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StreamSettings:
    """A topic of the test's own, also in the environment of commands."""
    broker.create_topic(request.node.name, PARTITIONS)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.bootstrap)
    monkeypatch.setenv("KAFKA_TOPIC", request.node.name)
    return StreamSettings()


@pytest.fixture
def service(settings: StreamSettings) -> HeartbeatService:
    return HeartbeatService(settings, settings.catalog.stream(), quiet_ms=QUIET_MS, delay_ms=DELAY_MS)


def now() -> int:
    return time.time_ns() // 1_000_000


def write(settings: StreamSettings, partition: int, timestamp_ms: int, value: bytes = b"{}") -> None:
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "linger.ms": 0})
    producer.produce(settings.catalog.stream().topic, value, "user_000001", partition, timestamp=timestamp_ms)
    assert producer.flush(WAIT_S) == 0


def messages(settings: StreamSettings, enough: Callable[[list[Message]], bool]) -> list[Message]:
    """What is in the topic, once it is enough."""
    consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": "test", "log_level": 0})
    consumer.assign([TopicPartition(settings.catalog.stream().topic, partition, 0) for partition in range(PARTITIONS)])
    found: list[Message] = []
    deadline = time.monotonic() + WAIT_S
    while not enough(found) and time.monotonic() < deadline:
        found += [message for message in consumer.consume(1_000, timeout=0.2) if message.error() is None]
    consumer.close()
    assert enough(found)
    return sorted(found, key=lambda message: (message.partition(), message.offset()))


def test_empty_partitions_get_heartbeats_that_the_decoder_accepts(
    service: HeartbeatService, settings: StreamSettings
) -> None:
    at_ms = now()
    assert service.round(at_ms) == [0, 1, 2]
    found = messages(settings, lambda got: len(got) == 3)
    assert [message.partition() for message in found] == [0, 1, 2]
    decoded = Decoder(clickstream).decode(
        RawBatch(
            partition=0,
            values=[message.value() for message in found],
            keys=[message.key() for message in found],
            kafka_timestamps=[message.timestamp()[1] for message in found],
            offsets=[0, 1, 2],
        )
    )
    assert decoded.dead_letters.is_empty()
    assert decoded.records["event_type"].to_list() == ["heartbeat"] * 3
    assert decoded.records["event_timestamp"].to_list() == [at_ms - DELAY_MS] * 3
    assert decoded.records["user_id"].null_count() == 3
    assert decoded.records["event_id"].n_unique() == 3


def test_own_heartbeats_keep_no_partition_busy(service: HeartbeatService) -> None:
    at_ms = now()
    for later_ms in range(0, 25_000, 5_000):
        assert service.round(at_ms + later_ms) == [0, 1, 2]


def test_the_first_look_judges_by_the_last_record(service: HeartbeatService, settings: StreamSettings) -> None:
    at_ms = now()
    write(settings, 0, at_ms - QUIET_MS)  # old enough
    write(settings, 1, at_ms - 60_000)
    write(settings, 1, at_ms - QUIET_MS + 1)  # not quite
    assert service.round(at_ms) == [0, 2]
    assert service.round(at_ms + 1) == [0, 1, 2]


def test_a_heartbeat_as_last_record_means_quiet(service: HeartbeatService, settings: StreamSettings) -> None:
    at_ms = now()
    write(settings, 0, at_ms, heartbeat(clickstream, "another-service", at_ms)[0])
    assert service.round(at_ms) == [0, 1, 2]


def test_a_record_makes_its_partition_busy_and_no_other(service: HeartbeatService, settings: StreamSettings) -> None:
    at_ms = now()
    service.round(at_ms)
    write(settings, 1, at_ms - 3_600_000)  # seen to arrive, so its own time doesn't matter
    assert service.round(at_ms + 5_000) == [0, 2]
    assert service.round(at_ms + 5_000 + QUIET_MS - 1) == [0, 2]
    assert service.round(at_ms + 5_000 + QUIET_MS) == [0, 1, 2]


def test_two_services_take_turns(service: HeartbeatService, settings: StreamSettings) -> None:
    other = HeartbeatService(settings, settings.catalog.stream(), quiet_ms=QUIET_MS, delay_ms=DELAY_MS)
    at_ms = now()
    assert service.round(at_ms) == [0, 1, 2]
    assert other.round(at_ms + 1_000) == [0, 1, 2]  # its first look sees heartbeats only
    assert service.round(at_ms + 5_000) == []
    assert other.round(at_ms + 6_000) == [0, 1, 2]


def test_a_record_just_before_our_heartbeat_is_not_overlooked() -> None:
    # look: end 7 | somebody writes 7 | our heartbeat is 8 | look: end 9
    activity = Activity(end=7)
    activity.wrote(8)
    activity.look(9, now_ms=123)
    assert activity == Activity(end=9, busy_ms=123)


def test_a_record_just_after_our_heartbeat_is_not_overlooked() -> None:
    # look: end 7 | our heartbeat is 7 | somebody writes 8 | look: end 9
    activity = Activity(end=7)
    activity.wrote(7)
    assert activity == Activity(end=8)
    activity.look(9, now_ms=123)
    assert activity == Activity(end=9, busy_ms=123)


class Script(threading.Event):
    """A stop event that, instead of waiting between rounds, does the next step and at last is set."""

    def __init__(self, *steps: Callable[[], None]) -> None:
        super().__init__()
        self.steps = list(steps)

    def wait(self, timeout: float | None = None) -> bool:
        del timeout
        if self.steps:
            self.steps.pop(0)()
        else:
            self.set()
        return self.is_set()


def test_an_outage_is_told_once_and_counts_as_busy(
    service: HeartbeatService,
    settings: StreamSettings,
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("stream.heartbeat.REQUEST_TIMEOUT_S", 1.0)

    def back() -> None:
        broker.set_up()
        # The clients reconnect by themselves; rounds until then fail as the ones before.
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            try:
                service._ends()  # noqa: SLF001  (waits for the service's own connection)
            except Exception:  # noqa: BLE001, S112  (whatever an absent broker causes)
                continue
            return

    with caplog.at_level(logging.INFO, "stream.heartbeat"):
        tally = serve([service], Script(broker.set_down, lambda: None, back), interval_s=1.0, once=False)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0].startswith("no heartbeats: ")
    assert told[1] == "the brokers are back"
    assert (tally.rounds, tally.heartbeats) == (2, PARTITIONS)  # none right after the outage
    assert len(messages(settings, lambda got: len(got) == PARTITIONS)) == PARTITIONS
    assert service.round(now() + QUIET_MS) == [0, 1, 2]


def test_the_command_does_one_round(settings: StreamSettings, capsys: pytest.CaptureFixture[str]) -> None:
    before_ms = now()
    assert main(["--once", "--json", "--delay-seconds", "2"]) == 0
    after_ms = now()
    assert json.loads(capsys.readouterr().out) == {"rounds": 1, "heartbeats": PARTITIONS}
    for message in messages(settings, lambda got: len(got) == PARTITIONS):
        assert before_ms - 2_000 <= json.loads(message.value())["event_timestamp"] <= after_ms - 2_000
        assert message.key() is None


def test_the_service_goes_on_until_sigterm(settings: StreamSettings) -> None:
    command = [sys.executable, "-m", "stream.heartbeat", "--interval-seconds", "0.05"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=PROJECT_ROOT, env=os.environ, **pipes) as process:  # type: ignore[call-overload]  # typed pipes
        try:
            messages(settings, lambda got: len(got) >= 3 * PARTITIONS)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=WAIT_S)
        finally:
            process.kill()
    assert process.returncode == 0
    assert b" heartbeats in " in out
    assert err.count(b"\n") == 1


def test_once_without_a_broker_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setattr("stream.heartbeat.REQUEST_TIMEOUT_S", 1.0)
    assert main(["--once"]) == 1
    assert "no heartbeats: " in caplog.text
    assert capsys.readouterr().out == "0 heartbeats in 0 rounds\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--interval-seconds", "0"], "--interval-seconds: '0'"),
        (["--quiet-seconds", "-1"], "--quiet-seconds: '-1'"),
        (["--delay-seconds", "soon"], "--delay-seconds: 'soon'"),
        (["--twice"], "--twice"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    shown = capsys.readouterr()
    assert end.value.code == 2
    assert named in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"\xff", b'{"event_type":"view"}', b"[" * 100_000])
def test_other_messages_are_no_heartbeats(value: bytes | None) -> None:
    assert not is_heartbeat(clickstream, value)
    assert is_heartbeat(clickstream, heartbeat(clickstream, "id", 1)[0])
