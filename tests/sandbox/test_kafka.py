"""Both brokers do the same for their clients."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, Consumer, Message, Producer, TopicPartition

from sandbox.processes import SandboxError, wait_until
from sandbox.topics import broker_answers, check_retention, end_offsets, partition_count

if TYPE_CHECKING:
    from sandbox.apache_kafka import ApacheKafka
    from sandbox.embedded_kafka import EmbeddedKafka

YEAR_2001_MS = 1_000_000_000_000


@pytest.fixture
def topic(kafka: ApacheKafka | EmbeddedKafka) -> str:
    name = f"clicks-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(name, 3)
    return name


def produce(bootstrap: str, topic: str, values: list[bytes], *, timestamp: int = YEAR_2001_MS) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "log_level": 0})
    for value in values:
        producer.produce(topic, value, key=b"user_000001", partition=1, timestamp=timestamp)
    assert producer.flush(30) == 0


def consume(bootstrap: str, topic: str, count: int) -> list[Message]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "log_level": 0})
    consumer.assign([TopicPartition(topic, 1, 0)])
    messages: list[Message] = []
    assert wait_until(lambda: len(messages.__iadd__(consumer.consume(count, timeout=1))) >= count, 60)
    consumer.close()
    return messages


def test_records_come_back_with_key_and_the_producers_time(kafka: ApacheKafka | EmbeddedKafka, topic: str) -> None:
    produce(kafka.url, topic, [b"a", b"b"])
    messages = consume(kafka.url, topic, 2)
    assert [message.value() for message in messages] == [b"a", b"b"]
    assert {message.key() for message in messages} == {b"user_000001"}
    assert {message.timestamp() for message in messages} == {(TIMESTAMP_CREATE_TIME, YEAR_2001_MS)}
    assert end_offsets({"bootstrap.servers": kafka.url}, topic) == {0: 0, 1: 2, 2: 0}


def test_a_topic_is_created_once_with_its_partitions(kafka: ApacheKafka | EmbeddedKafka, topic: str) -> None:
    config = {"bootstrap.servers": kafka.url}
    assert partition_count(config, topic) == 3
    produce(kafka.url, topic, [b"a"])
    kafka.create_topic(topic, 3)
    assert end_offsets(config, topic)[1] == 1  # still the same topic
    assert partition_count(config, "never-created") == 0
    assert partition_count(config, "never-created") == 0  # asking did not create it


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_port_and_records_survive(kafka: ApacheKafka | EmbeddedKafka, topic: str, way: str) -> None:
    url = kafka.url
    produce(url, topic, [b"before"])
    getattr(kafka, way)()
    assert not broker_answers({"bootstrap.servers": url})
    kafka.start()
    assert kafka.url == url
    produce(url, topic, [b"after"])
    assert [message.value() for message in consume(url, topic, 2)] == [b"before", b"after"]


def test_a_paused_broker_is_silent_until_it_goes_on(kafka: ApacheKafka | EmbeddedKafka) -> None:
    kafka.pause()
    assert not broker_answers({"bootstrap.servers": kafka.url})
    kafka.resume()
    assert wait_until(kafka.answers, 60)


def test_a_full_log_is_whole(kafka: ApacheKafka | EmbeddedKafka, topic: str) -> None:
    produce(kafka.url, topic, [b"a"])
    check_retention(kafka.url, topic)


def test_a_missing_topic_is_named(kafka: ApacheKafka | EmbeddedKafka) -> None:
    with pytest.raises(SandboxError, match=r"topic 'nowhere' is not on 127\.0\.0\.1:\d+; create it with"):
        check_retention(kafka.url, "nowhere")


def test_an_impossible_topic_is_refused_and_the_broker_lives_on(kafka: ApacheKafka | EmbeddedKafka) -> None:
    with pytest.raises(SandboxError, match="partitions"):
        kafka.create_topic("impossible", 0)
    assert kafka.answers()
