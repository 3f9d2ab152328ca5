"""One consumer for all Kafka partitions of a worker: one connection a broker, one fetch for many partitions.

It is asked for one partition at a time, which is how Bytewax reads. What a poll brings for others waits for them.
"""

from __future__ import annotations

import logging
from itertools import groupby
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from stream import availability
from stream.kafka import METADATA_TIMEOUT_S, client_config

if TYPE_CHECKING:
    from stream.settings import StreamSettings

logger = logging.getLogger(__name__)

MESSAGES_PER_POLL = 20_000
DEFAULTS: dict[str, str | int | bool] = {
    "fetch.wait.max.ms": 100,
    "fetch.queue.backoff.ms": 10,  # how long a full partition keeps the fetches waiting that also ask for others
    "queued.max.messages.kbytes": 16_384,  # per partition: what is read ahead must fit for a hundred of them
    "fetch.message.max.bytes": 1_048_576,
    "log_level": 0,  # what is wrong is told once, by `error_cb` and by the messages' errors
}

_abandoned: list[Consumer] = []


class WorkerConsumer:
    """The consumer of one worker thread.

        consumer.start(partition, offset)
        messages = consumer.take(partition)     # also errors, as messages; never waits
        consumer.stop(partition)                # the last one closes it

    Guarantee: each partition's messages come in offset order, each once. Less than 40,000 wait for being taken.
    """

    def __init__(self, settings: StreamSettings) -> None:
        self._topic = settings.kafka_topic
        self._consumer = Consumer(
            {
                **DEFAULTS,
                "group.id": f"ml-feature-store-{self._topic}",
                **client_config(settings),
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": settings.stream_stop_at_end,
                "auto.offset.reset": "error",
                "error_cb": self._on_error,
            }
        )
        self._new: dict[int, int] = {}
        self._arrived: dict[int, list[Message]] = {}
        self.waiting = 0
        """How many messages have arrived and were not taken."""
        self._committed: dict[int, int] = {}
        self.idle = False
        """Whether the last poll brought nothing for anyone."""

    def bounds(self, partition: int) -> tuple[int, int]:
        """A partition's first offset and the one after its last, as the broker says now.

        Raises:
            KafkaException: it does not answer, or does not know the partition.
        """
        low, high = self._consumer.get_watermark_offsets(
            TopicPartition(self._topic, partition), timeout=METADATA_TIMEOUT_S
        )
        return low, high

    def start(self, partition: int, offset: int) -> None:
        """Read a partition from this offset on."""
        self._arrived[partition] = []
        self._new[partition] = offset

    def take(self, partition: int) -> list[Message]:
        """What has arrived of a partition; what has arrived of none of them is looked for."""
        if not self._arrived[partition] and self.waiting < MESSAGES_PER_POLL:
            self._poll()
        messages, self._arrived[partition] = self._arrived[partition], []
        self.waiting -= len(messages)
        return messages

    def _poll(self) -> None:
        if self._new:  # all at once: one by one they would be looked up one by one, which takes seconds
            self._consumer.incremental_assign([TopicPartition(self._topic, *new) for new in self._new.items()])
            self._new.clear()
        messages = self._consumer.consume(MESSAGES_PER_POLL, timeout=0)
        self.idle = not messages
        for partition, run in groupby(messages, Message.partition):
            self._hand_out(partition, list(run))

    def _hand_out(self, partition: int, messages: list[Message]) -> None:
        # An error that is not about one partition is one of each; what is left of a stopped one is no one's.
        for taker in list(self._arrived) if partition < 0 else {partition} & self._arrived.keys():
            self._arrived[taker] += messages
            self.waiting += len(messages)

    def commit(self, partition: int, offset: int) -> None:
        """Let lag tools see how far a partition is stored."""
        if availability.kafka.away or offset == self._committed.get(partition):
            return
        self._committed[partition] = offset
        try:
            self._consumer.commit(offsets=[TopicPartition(self._topic, partition, offset)], asynchronous=True)
        except KafkaException as error:
            logger.debug("group offset not committed (for lag tools only): %s", error)

    def stop(self, partition: int) -> None:
        """Read no more of a partition; the last one leaves the broker."""
        self.waiting -= len(self._arrived.pop(partition))
        if not self._arrived:
            if availability.kafka.away:
                _abandoned.append(self._consumer)  # closing it would wait for the broker, and nothing depends on that
            else:
                self._consumer.close()
        elif self._new.pop(partition, None) is None:
            self._consumer.incremental_unassign([TopicPartition(self._topic, partition)])

    def _on_error(self, error: KafkaError) -> None:
        """Called while polling. librdkafka connects again by itself, so this is only told."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001  (librdkafka's public name)
            availability.kafka.is_away(self, error.str(), "waiting")
