from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaException, Message, Producer

from stream import consumer as module
from stream.consumer import WorkerConsumer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Stack

MESSAGES = 3_000


@pytest.fixture
def topic(stack: Stack) -> Stack:
    """Partition p has p * 3,000 messages with a number each."""
    producer = Producer({"bootstrap.servers": stack.environment["KAFKA_BOOTSTRAP_SERVERS"]})
    name = stack.settings.kafka_topic
    for partition in range(4):
        for number in range(partition * MESSAGES):
            producer.produce(name, b"%d" % number, partition=partition)
    producer.flush()
    return stack


@pytest.fixture
def consumer(topic: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerConsumer]:
    monkeypatch.setenv("STREAM_STOP_AT_END", "1")
    one = WorkerConsumer(topic.settings)
    yield one
    for partition in range(4):
        with contextlib.suppress(KeyError):
            one.stop(partition)


def read(consumer: WorkerConsumer, partitions: set[int]) -> dict[int, list[int]]:
    """Everything of these partitions, asked for in turn, up to their ends."""
    numbers: dict[int, list[int]] = {partition: [] for partition in partitions}
    left = set(partitions)
    while left:
        for partition in sorted(left):
            for message in consumer.take(partition):
                if message.error():
                    left.discard(partition)
                else:
                    numbers[partition].append(int(message.value() or b""))
    return numbers


def test_each_partition_comes_in_order_from_its_offset_on(consumer: WorkerConsumer) -> None:
    assert consumer.bounds(2) == (0, 2 * MESSAGES)
    starts = {0: 0, 1: 10, 2: 2 * MESSAGES - 1, 3: 0}
    for partition, offset in starts.items():
        consumer.start(partition, offset)
    assert read(consumer, set(starts)) == {
        partition: list(range(offset, partition * MESSAGES)) for partition, offset in starts.items()
    }


def test_only_so_much_waits_for_a_partition_that_is_not_asked(
    consumer: WorkerConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MESSAGES_PER_POLL", 100)
    for partition in (1, 3):
        consumer.start(partition, 0)
    taken = 0
    while consumer.waiting < 100:  # what is taken for partition 1 brings some for 3 until there is no room
        taken += len(consumer.take(1))
    for _ in range(1_000):
        taken += len(consumer.take(1))
    assert consumer.waiting < 200
    assert read(consumer, {3}) == {3: list(range(3 * MESSAGES))}


def test_a_partition_can_come_later_and_go_earlier(consumer: WorkerConsumer) -> None:
    consumer.start(3, 0)
    while not consumer.take(3):
        pass
    consumer.start(1, 5)
    consumer.stop(3)
    assert read(consumer, {1}) == {1: list(range(5, MESSAGES))}


def test_one_that_was_never_read_can_go(consumer: WorkerConsumer) -> None:
    consumer.start(2, 0)
    consumer.start(1, 0)
    consumer.stop(2)
    assert read(consumer, {1}) == {1: list(range(MESSAGES))}


def test_an_error_without_a_partition_reaches_all(consumer: WorkerConsumer) -> None:
    for partition in (1, 2):
        consumer.start(partition, MESSAGES)
    fatal = Message(error=None)
    consumer._hand_out(-1, [fatal])  # noqa: SLF001  (no broker makes such an error when a test needs one)
    assert consumer.take(1) == consumer.take(2) == [fatal]


def test_a_partition_that_is_not_there_has_no_bounds(consumer: WorkerConsumer) -> None:
    with pytest.raises(KafkaException):
        consumer.bounds(99)
