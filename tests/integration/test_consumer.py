from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, KafkaError, KafkaException, Message, Producer

from stream import availability, consumer as module, topic_watch
from stream.consumer import Arrived, WorkerConsumer
from stream.stopping import stop_requested
from stream.topic import Topic
from stream.topic_watch import TopicWatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Stack

MESSAGES = 3_000


@pytest.fixture
def topic(stack: Stack) -> Stack:
    """Partition p has p * 3,000 messages with a number each."""
    producer = Producer({"bootstrap.servers": stack.environment["KAFKA_BOOTSTRAP_SERVERS"]})
    name = stack.settings.catalog.stream().topic
    for partition in range(4):
        for number in range(partition * MESSAGES):
            producer.produce(name, b"%d" % number, partition=partition)
    producer.flush()
    return stack


@pytest.fixture
def consumer(topic: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerConsumer]:
    monkeypatch.setenv("STREAM_STOP_AT_END", "1")
    monkeypatch.setattr(topic_watch, "EVERY_S", 0.2)  # also how long it takes to end
    watch = TopicWatch(topic.settings, Topic(topic.settings, topic.settings.catalog.stream().topic).identity(), None)
    one = WorkerConsumer(topic.settings, topic.settings.catalog.stream(), watch)
    yield one
    for partition in range(4):
        with contextlib.suppress(KeyError):
            one.stop(partition)
    stop_requested.set()  # else the watch goes on, and tells later tests that Kafka is away when its server is closed
    watch.ask()
    for thread in threading.enumerate():
        if thread.name == "topic":
            thread.join()
    stop_requested.clear()


def message(offset: int) -> Message:
    return Message(value=b"0", offset=offset, timestamp=(TIMESTAMP_CREATE_TIME, 0))


def error(code: int) -> Message:
    return Message(error=KafkaError(code))


def take(consumer: WorkerConsumer, partition: int) -> Arrived:
    """What comes of a partition, as soon as it is confirmed."""
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        arrived = consumer.take(partition)
        if arrived:
            return arrived
    message = f"nothing came of partition {partition}"
    raise TimeoutError(message)


def read(consumer: WorkerConsumer, partitions: set[int]) -> dict[int, list[int]]:
    """Everything of these partitions, asked for in turn, up to their ends."""
    numbers: dict[int, list[int]] = {partition: [] for partition in partitions}
    left = set(partitions)
    while left:
        for partition in sorted(left):
            arrived = consumer.take(partition)
            numbers[partition] += map(int, arrived.batch.values)
            if arrived.end is not None:
                left.discard(partition)
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
    while consumer.waiting < 100:  # what is taken for partition 1 brings some for 3 until there is no room
        consumer.take(1)
    for _ in range(1_000):
        consumer.take(1)
    assert consumer.waiting < 200
    numbers: list[int] = []
    while (arrived := consumer.take(3)).end is None:
        numbers += map(int, arrived.batch.values)
        consumer.take(1)
    assert [*numbers, *map(int, arrived.batch.values)] == list(range(3 * MESSAGES))


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
    fatal = error(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    consumer._hand_out(-1, [fatal])  # noqa: SLF001  (no broker makes such an error when a test needs one)
    assert take(consumer, 1).failure == take(consumer, 2).failure == fatal.error()


def test_nothing_is_handed_out_behind_a_failure(consumer: WorkerConsumer) -> None:
    consumer.start(1, MESSAGES)
    hand_out = consumer._hand_out  # noqa: SLF001
    hand_out(1, [message(7), error(KafkaError.OFFSET_OUT_OF_RANGE), message(9)])
    hand_out(1, [message(10)])
    first, then = take(consumer, 1), take(consumer, 1)
    hand_out(1, [message(11)])
    last = take(consumer, 1)
    assert [one.batch.offsets for one in (first, then, last)] == [[7], [], []]
    assert first.failure is not None
    assert first.failure == then.failure == last.failure
    assert consumer.waiting == 0


def test_what_passes_hides_no_message(consumer: WorkerConsumer) -> None:
    consumer.start(1, MESSAGES)
    consumer._hand_out(1, [message(7), error(KafkaError._TRANSPORT), message(8)])  # noqa: SLF001
    arrived = take(consumer, 1)
    availability.kafka.is_back_for_all()
    assert (arrived.batch.offsets, arrived.end, arrived.failure) == ([7, 8], None, None)


def test_a_partition_that_is_not_there_has_no_bounds(consumer: WorkerConsumer) -> None:
    with pytest.raises(KafkaException):
        consumer.bounds(99)
