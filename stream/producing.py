"""Where generated records go: a Kafka topic, or a file."""

from __future__ import annotations

import math
import time
from collections import deque
from itertools import repeat
from operator import length_hint
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl
from confluent_kafka import KafkaError, Message, Producer

from stream.kafka import client_config

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from feast_repo.settings import StreamSettings

PARTITIONER = "murmur2_random"  # what Java clients use: with two partitioners a user would live in two partitions
BY_KEY = -1
FLUSH_TIMEOUT_S = 30.0
STOPPED_FLUSH_TIMEOUT_S = 6.0
"""Less than the time after which a process that was asked to stop is ended."""
FLUSH_LOOK_S = 0.2
FULL_QUEUE_WAIT_S = 0.02


def producer_config(settings: StreamSettings) -> dict[str, Any]:
    """Properties of our producers: no loss and no duplicates on retries, and always the same partitioner.

    Raises:
        ValueError: a line of the properties file is no `key=value`.
        OSError: the properties file can't be read.
    """
    return {
        "enable.idempotence": True,
        "compression.type": "zstd",
        "linger.ms": 50,
        "batch.size": 1_000_000,
        "batch.num.messages": 100_000,
        "queue.buffering.max.messages": 200_000,
        **client_config(settings),
        "partitioner": PARTITIONER,
    }


class Sink(Protocol):
    """Takes frames of `simulation.records.RECORD`; `failed` of them were not delivered: final once closed."""

    failed: int
    last_error: str

    def send(self, records: pl.DataFrame) -> None:
        """Take records in order."""
        ...

    def close(self) -> None:
        """Deliver what is still under way."""
        ...


class TopicSink:
    """Produces to the topic: Kafka timestamp = `arrival_ms`, to `partition` if given, else by key.

    At least once within a run, and in order per partition, as long as the broker answers within the producer's
    `message.timeout.ms`; `failed` counts what was not delivered. Once `stop` is set, it gets 6 s to take the rest.
    """

    def __init__(self, settings: StreamSettings, stop: threading.Event) -> None:
        self.failed = 0
        self.last_error = ""
        self._topic = settings.kafka_topic
        self._stop = stop
        self._give_up = math.inf
        # Reports for failures only: a call back into Python for each message would cost more than all the rest.
        self._producer = Producer(
            {
                **producer_config(settings),
                "delivery.report.only.error": True,
                "on_delivery": self._on_failure,
                "error_cb": self._on_error,
                "log_level": 0,
            }
        )

    def send(self, records: pl.DataFrame) -> None:
        """Hand records to the producer in order, waiting while its queue is full.

        Raises:
            KafkaException: the producer can't go on at all.
        """
        values = records["value"].to_list()
        keys = records["key"].cast(pl.Binary).to_list()  # encoding text message by message would take longer
        partitions = records["partition"].fill_null(BY_KEY).to_list()
        arrivals = records["arrival_ms"].to_list()
        sent = 0
        while sent < len(values) and time.monotonic() < self._deadline():
            left = iter(arrivals[sent:])
            # The loop runs inside `map`: three times as fast as a `for` loop, and as `produce_batch`, which besides
            # knows no timestamps. Positional arguments, because keywords cost as much as the call itself.
            calls = map(
                self._producer.produce,
                repeat(self._topic),
                values[sent:],
                keys[sent:],
                partitions[sent:],
                repeat(None),
                repeat(None),
                left,
            )
            try:
                deque(calls, maxlen=0)
            except BufferError:  # the queue is full; the record that met it is taken again
                sent = len(values) - length_hint(left) - 1
                self._producer.poll(FULL_QUEUE_WAIT_S)
            else:
                sent = len(values)
        self.failed += len(values) - sent
        self._producer.poll(0)

    def close(self) -> None:
        """Wait until all is delivered or has failed; what is still under way after 30 s counts as failed."""
        give_up = time.monotonic() + FLUSH_TIMEOUT_S
        while under_way := self._producer.flush(FLUSH_LOOK_S):
            if time.monotonic() > min(give_up, self._deadline()):
                break
        self.failed += under_way  # now, since flushing calls back, which counts failures

    def _deadline(self) -> float:
        """Until when to wait for room in the queue, on the monotonic clock."""
        if self._stop.is_set():
            self._give_up = min(self._give_up, time.monotonic() + STOPPED_FLUSH_TIMEOUT_S)
        return self._give_up

    def _on_failure(self, error: KafkaError, _message: Message) -> None:
        self.failed += 1
        self.last_error = error.str()

    def _on_error(self, error: KafkaError) -> None:
        self.last_error = error.str()


class FileSink:
    """Writes message values, one a line; values that are empty or hold a line break are left out."""

    def __init__(self, path: Path) -> None:
        """Open the file, replacing what is there.

        Raises:
            OSError: it can't be written.
        """
        self.failed = 0
        self.last_error = ""
        self._file = path.open("wb")

    def send(self, records: pl.DataFrame) -> None:
        """Append the records' values, and let readers see them.

        Raises:
            OSError: the disk is full.
        """
        lines = [value for value in records["value"].to_list() if value and b"\n" not in value and b"\r" not in value]
        self._file.write(b"".join(line + b"\n" for line in lines))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
