"""One consumer for all Kafka partitions of a worker: one connection per broker, one fetch for many partitions.

Bytewax asks for one partition at a time. Messages that a poll returns for other partitions are buffered as their parts.
Messages are taken apart and released a few at a time, which keeps them in the processor's cache.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from feast_repo.codec.decoding import RawBatch
from feast_repo.codec.heartbeats import header_of
from feast_repo.codec.json_codec import MESSAGES_AT_ONCE
from stream import availability
from stream.kafka import ALL_BROKERS_DOWN, AUTO_OFFSET_RESET, METADATA_TIMEOUT_S, PARTITION_EOF, client_config
from stream.start_checks import first_process

if TYPE_CHECKING:
    from feast_repo.declare.events import EventStream
    from feast_repo.settings import StreamSettings
    from stream.topic_watch import TopicWatch

logger = logging.getLogger(__name__)

MESSAGES_PER_POLL = 50_000
"""Of all partitions together. More means larger batches per partition, and each batch has a fixed cost."""

DEFAULTS: dict[str, str | int | bool] = {
    "fetch.wait.max.ms": 100,
    "fetch.queue.backoff.ms": 10,  # how long a full partition delays fetches that also ask for others
    "queued.max.messages.kbytes": 16_384,  # per partition: the read-ahead of a hundred of them must fit in memory
    "fetch.message.max.bytes": 1_048_576,
    "log_level": 0,  # errors are reported once, by `error_cb` and by the messages' errors
}

# All other errors are transient: librdkafka reconnects and retries by itself.
_FINAL = {
    AUTO_OFFSET_RESET,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
}
LEAVE_WITHIN_S = 1.0
_left: list[Consumer] = []  # Python would close a released consumer, however long that takes
_create_time_told: set[str] = set()
_telling = threading.Lock()


@dataclass
class Arrived:
    """What has arrived of one partition.

    `end` is the log's end if it was reached (with `stream_stop_at_end`); it lies after the last offset, even where
    transaction markers leave a gap. `failure` is the reason that nothing follows this batch.
    """

    batch: RawBatch
    end: int | None = None
    failure: KafkaError | None = None

    def __bool__(self) -> bool:
        return bool(self.batch.offsets) or self.end is not None or self.failure is not None

    def add(self, later: Arrived) -> None:
        """Append what arrived after it."""
        for ours, theirs in zip(self.batch.columns, later.batch.columns, strict=True):
            ours.extend(theirs)
        self.end = later.end if later.end is not None else self.end
        self.failure = self.failure or later.failure


class WorkerConsumer:
    """The consumer of one worker thread.

        consumer.start(partition, offset)
        arrived = consumer.take(partition)      # never waits
        consumer.stop(partition)                # stopping the last partition closes it

    Guarantee: each partition's messages come in offset order, each once, and none after a failure. All come from the
    topic that `watch` knows. Fewer than 100,000 are buffered. A transient error is logged and waited out.
    """

    def __init__(self, settings: StreamSettings, stream: EventStream, watch: TopicWatch) -> None:
        self._topic = stream.topic
        self._reads_headers = stream.heartbeat is None
        self._watch = watch
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
        self._arrived: dict[int, Arrived] = {}
        self._unconfirmed: dict[int, Arrived] = {}
        """Messages since the last check of the topic; if the topic was recreated, they are foreign."""
        self._ticket: int | None = None
        self.waiting = 0
        """How many messages have arrived but were not taken."""
        self._committed: dict[int, int] = {}
        self.idle = False
        """Whether the last poll returned nothing for any partition."""
        self._tells_create_time = first_process()

    @property
    def unconfirmed(self) -> bool:
        """Whether messages have arrived that can't be taken yet."""
        return self._ticket is not None

    def bounds(self, partition: int) -> tuple[int, int]:
        """A partition's first offset and the one after its last, as the broker reports them now.

        Raises:
            KafkaException: the broker does not answer, or does not know the partition.
        """
        low, high = self._consumer.get_watermark_offsets(
            TopicPartition(self._topic, partition), timeout=METADATA_TIMEOUT_S
        )
        return low, high

    def behind(self, partition: int, offset: int) -> int:
        """How many offsets lie between this one and the partition's end, as of the last fetch; sends no request."""
        high: int
        _, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
        return max(0, high - offset)

    def start(self, partition: int, offset: int) -> None:
        """Read a partition from this offset on."""
        self._arrived[partition] = _nothing(partition)
        self._new[partition] = offset

    def take(self, partition: int) -> Arrived:
        """A partition's confirmed messages since the last call."""
        self._hand_over()
        # Even with messages at hand: they are processed while Kafka is asked about the next ones.
        if self._ticket is None and self.waiting < MESSAGES_PER_POLL:
            self._poll()
            self._hand_over()
        arrived = self._arrived[partition]
        self._arrived[partition] = _nothing(partition, arrived.failure)
        self.waiting -= len(arrived.batch.offsets)
        return arrived

    def _poll(self) -> None:
        if self._new:  # all at once: one by one they would be looked up one by one, which takes seconds
            self._consumer.incremental_assign([TopicPartition(self._topic, *new) for new in self._new.items()])
            self._new.clear()
        self.idle = True
        left = MESSAGES_PER_POLL
        while left:
            wanted = min(MESSAGES_AT_ONCE, left)
            messages = self._consumer.consume(wanted, timeout=0)
            for partition, run in groupby(messages, Message.partition):
                self._hand_out(partition, list(run))
            self.idle = self.idle and not messages
            left = left - wanted if len(messages) == wanted else 0
        if any(self._unconfirmed.values()):
            self._ticket = self._watch.ask()

    def _hand_over(self) -> None:
        """Release confirmed messages for taking."""
        if self._ticket is None or not self._watch.confirms(self._ticket):
            return
        for partition, arrived in self._unconfirmed.items():
            if partition in self._arrived:
                self._arrived[partition].add(arrived)
        self._unconfirmed, self._ticket = {}, None

    def _hand_out(self, partition: int, messages: list[Message]) -> None:
        # An error without a partition concerns all of them; leftovers of a stopped partition are dropped.
        for taker in list(self._arrived) if partition < 0 else {partition} & self._arrived.keys():
            arrived = self._unconfirmed.setdefault(taker, _nothing(taker, self._arrived[taker].failure))
            if arrived.failure is None:
                self._add(arrived.batch, self._good(taker, messages, arrived))

    def _add(self, batch: RawBatch, messages: list[Message]) -> None:
        batch.values.extend([message.value() or b"" for message in messages])
        batch.keys.extend(map(Message.key, messages))
        times = [message.timestamp() for message in messages]
        batch.kafka_timestamps.extend([time for _, time in times])
        batch.create_time.extend([kind != TIMESTAMP_LOG_APPEND_TIME for kind, _ in times])
        batch.offsets.extend(map(Message.offset, messages))
        if self._reads_headers:
            batch.heartbeats.extend([header_of(message.headers()) for message in messages])
        self.waiting += len(messages)
        if messages and self._tells_create_time:
            self._warn_of_create_time(messages[0])

    @staticmethod
    def _good(partition: int, messages: list[Message], arrived: Arrived) -> list[Message]:
        """The messages without an error, up to the first permanent error."""
        if not any(map(Message.error, messages)):
            return messages
        good = []
        for message in messages:
            error = message.error()
            if error is None:
                good.append(message)
            elif error.code() == PARTITION_EOF:
                arrived.end = message.offset()
            elif error.fatal() or error.code() in _FINAL:
                arrived.failure = error
                break
            else:
                availability.kafka.is_away(partition, error.str(), "waiting")
        return good

    def _warn_of_create_time(self, message: Message) -> None:
        if message.timestamp()[0] == TIMESTAMP_LOG_APPEND_TIME:
            return
        self._tells_create_time = False
        with _telling:  # once a topic, whichever worker comes first
            if self._topic in _create_time_told:
                return
            _create_time_told.add(self._topic)
            logger.warning(
                "topic %s has producers' timestamps; set message.timestamp.type=LogAppendTime, so that one producer "
                "with a wrong clock can't move event time",
                self._topic,
            )

    def commit(self, partition: int, offset: int) -> None:
        """Commit the group offset, so that lag tools see how far a partition is stored."""
        if availability.kafka.away or offset == self._committed.get(partition):
            return
        self._committed[partition] = offset
        try:
            self._consumer.commit(offsets=[TopicPartition(self._topic, partition, offset)], asynchronous=True)
        except KafkaException as error:
            logger.debug("group offset not committed (for lag tools only): %s", error)

    def stop(self, partition: int) -> None:
        """Stop reading a partition; after the last one the consumer leaves the broker, within a second."""
        for held in (self._arrived.pop(partition), self._unconfirmed.pop(partition, _nothing(partition))):
            self.waiting -= len(held.batch.offsets)
        if not self._arrived:
            self._leave()
        elif self._new.pop(partition, None) is None:
            self._consumer.incremental_unassign([TopicPartition(self._topic, partition)])

    def _leave(self) -> None:
        """Close the consumer, which sends the last group offsets, or abandon it.

        `Consumer.close` waits indefinitely for a broker that does not answer, and nothing depends on it.
        """
        _left.append(self._consumer)
        if not availability.kafka.away:
            closing = threading.Thread(target=self._consumer.close, name="leave", daemon=True)
            closing.start()
            closing.join(LEAVE_WITHIN_S)

    def _on_error(self, error: KafkaError) -> None:
        """Called while polling. librdkafka reconnects by itself, so the error is only reported."""
        if error.code() == ALL_BROKERS_DOWN:
            availability.kafka.is_away(self, error.str(), "waiting")


def _nothing(partition: int, failure: KafkaError | None = None) -> Arrived:
    return Arrived(RawBatch(partition, [], [], [], []), failure=failure)
