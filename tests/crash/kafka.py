"""A topic in memory, and what stands in for `confluent_kafka.Consumer` before it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, Message

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from confluent_kafka import TopicPartition

TOPIC = "clickstream"


@dataclass(frozen=True)
class Sent:
    """A message as a producer sent it."""

    key: bytes | None
    value: bytes
    kafka_ms: int


@dataclass
class Log:
    """A partition: offsets are positions in `messages`, of which the first `low` are deleted."""

    messages: list[Sent] = field(default_factory=list)
    low: int = 0


class SameTopic:
    """Stands in for the watch over a topic that never becomes another one."""

    def ask(self) -> int:
        return 1

    def confirms(self, ticket: int) -> bool:
        return ticket == 1


class SimulatedConsumer:
    """Gives what it was assigned in pieces of any size, now and then with an error that passes."""

    def __init__(self, config: dict[str, Any], logs: Sequence[Log], chance: random.Random) -> None:
        self._tells_ends = config["enable.partition.eof"]
        self._logs = logs
        self._chance = chance
        self._next: dict[int, int] = {}
        self._told: set[int] = set()

    def get_watermark_offsets(self, partition: TopicPartition, **_: object) -> tuple[int, int]:
        log = self._logs[partition.partition]
        return log.low, len(log.messages)

    def incremental_assign(self, partitions: Sequence[TopicPartition]) -> None:
        self._next.update({one.partition: one.offset for one in partitions})

    def incremental_unassign(self, partitions: Sequence[TopicPartition]) -> None:
        for one in partitions:
            del self._next[one.partition]

    def consume(self, wanted: int, timeout: float) -> list[Message]:
        del timeout
        messages: list[Message] = []
        for partition in self._chance.sample(sorted(self._next), len(self._next)):
            messages += self._some_of(partition, min(wanted - len(messages), self._chance.randrange(30)))
        return messages

    def _some_of(self, partition: int, at_most: int) -> list[Message]:
        start, log = self._next[partition], self._logs[partition]
        if start < log.low:
            error = KafkaError(KafkaError._AUTO_OFFSET_RESET, "offset out of range")  # noqa: SLF001
            return [Message(topic=TOPIC, partition=partition, offset=start, error=error)]
        if self._chance.random() < 0.05:
            error = KafkaError(KafkaError._TRANSPORT, "broker transport failure")  # noqa: SLF001
            return [Message(topic=TOPIC, partition=partition, error=error)]
        end = min(start + at_most, len(log.messages))
        self._next[partition] = end
        messages = [
            Message(
                topic=TOPIC,
                partition=partition,
                offset=offset,
                key=log.messages[offset].key,
                value=log.messages[offset].value,
                timestamp=(TIMESTAMP_LOG_APPEND_TIME, log.messages[offset].kafka_ms),
            )
            for offset in range(start, end)
        ]
        if self._tells_ends and end == len(log.messages) and partition not in self._told:
            self._told.add(partition)
            error = KafkaError(KafkaError._PARTITION_EOF, "end")  # noqa: SLF001
            messages.append(Message(topic=TOPIC, partition=partition, offset=end, error=error))
        return messages

    def commit(self, offsets: Sequence[TopicPartition], **_: object) -> None:
        """Lag tools alone would read it."""

    def close(self) -> None:
        self._next.clear()
