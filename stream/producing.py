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

PARTITIONER = "murmur2_random"  # as in Java clients: two partitioners would put one user into two partitions
BY_KEY = -1
FLUSH_TIMEOUT_S = 30.0
STOPPED_FLUSH_TIMEOUT_S = 6.0
"""Less than the time after which a stopping process is killed."""
FLUSH_LOOK_S = 0.2
FULL_QUEUE_WAIT_S = 0.02


def producer_config(settings: StreamSettings) -> dict[str, Any]:
    """Properties of our producers: idempotent (no loss, no duplicates on retries), always with the same partitioner.

    Raises:
        ValueError: a line of the properties file is not `key=value`.
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
    """Takes frames with the columns of `simulation.records.message_schema`.

    `failed` counts undelivered records; it is final once closed.
    """

    failed: int
    last_error: str

    def send(self, records: pl.DataFrame) -> None:
        """Take records in order."""
        ...

    def close(self) -> None:
        """Deliver what is still in flight."""
        ...


class TopicSink:
    """Produces to a topic: Kafka timestamp = `arrival_ms`, to `partition` if given, else by key.

    Guarantee: at-least-once within a run, and in order per partition, as long as the broker answers within the
    producer's `message.timeout.ms`; `failed` counts undelivered records. Once `stop` is set, the broker gets 6 s to
    take the rest.
    """

    def __init__(self, settings: StreamSettings, topic: str, stop: threading.Event) -> None:
        self.failed = 0
        self.last_error = ""
        self._topic = topic
        self._stop = stop
        self._give_up = math.inf
        # Report failures only: a Python callback per message would cost more than everything else.
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
        """Hand records to the producer in order; waits while its queue is full.

        Raises:
            KafkaException: the producer can't go on at all.
        """
        values = records["value"].to_list()
        keys = records["key"].cast(pl.Binary).to_list()  # faster than encoding text message by message
        partitions = records["partition"].fill_null(BY_KEY).to_list()
        arrivals = records["arrival_ms"].to_list()
        headers = _headers(records)
        sent = 0
        while sent < len(values) and time.monotonic() < self._deadline():
            left = iter(arrivals[sent:])
            # The loop runs inside `map`: three times as fast as a `for` loop and as `produce_batch`, which also takes
            # no timestamps. Arguments are positional because keywords cost as much as the call itself.
            calls = map(
                self._producer.produce,
                repeat(self._topic),
                values[sent:],
                keys[sent:],
                partitions[sent:],
                repeat(None),
                repeat(None),
                left,
                *([] if headers is None else [headers[sent:]]),
            )
            try:
                deque(calls, maxlen=0)
            except BufferError:  # the queue is full; the rejected record is sent again
                sent = len(values) - length_hint(left) - 1
                self._producer.poll(FULL_QUEUE_WAIT_S)
            else:
                sent = len(values)
        self.failed += len(values) - sent
        self._producer.poll(0)

    def close(self) -> None:
        """Wait until all records are delivered or have failed; those still in flight after 30 s count as failed."""
        give_up = time.monotonic() + FLUSH_TIMEOUT_S
        while under_way := self._producer.flush(FLUSH_LOOK_S):
            if time.monotonic() > min(give_up, self._deadline()):
                break
        self.failed += under_way  # only now: callbacks during the flush also count failures

    def _deadline(self) -> float:
        """The monotonic time until which to wait for room in the queue."""
        if self._stop.is_set():
            self._give_up = min(self._give_up, time.monotonic() + STOPPED_FLUSH_TIMEOUT_S)
        return self._give_up

    def _on_failure(self, error: KafkaError, _message: Message) -> None:
        self.failed += 1
        self.last_error = error.str()

    def _on_error(self, error: KafkaError) -> None:
        self.last_error = error.str()


def _headers(records: pl.DataFrame) -> list[list[tuple[str, bytes]] | None] | None:
    """The headers of each record; None if none has any, since an argument more costs time for each record."""
    if "headers" not in records.columns or records["headers"].null_count() == records.height:
        return None
    return [told and [(one["name"], one["value"]) for one in told] for told in records["headers"].to_list()]


class FileSink:
    """Writes message values, one per line; values that are empty or contain a line break are skipped."""

    def __init__(self, path: Path) -> None:
        """Open the file, replacing an existing one.

        Raises:
            OSError: it can't be written.
        """
        self.failed = 0
        self.last_error = ""
        self._file = path.open("wb")

    def send(self, records: pl.DataFrame) -> None:
        """Append the records' values and flush them to readers.

        Raises:
            OSError: the disk is full.
        """
        lines = [value for value in records["value"].to_list() if value and b"\n" not in value and b"\r" not in value]
        self._file.write(b"".join(line + b"\n" for line in lines))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
