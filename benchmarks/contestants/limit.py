"""The least that any consumer of these messages does: take each one's parts, and decode it to columns.

One consumer for all partitions; value, key, timestamp, offset and error of each message; a typed decoder in C; a Polars
column for each field. No windows, no stores, no looking at what the decoder lets through.
"""

from __future__ import annotations

import gc
from operator import attrgetter

import msgspec
import polars as pl
from confluent_kafka import Consumer, TopicPartition

from benchmarks.contestants import say
from feast_repo.settings import StreamSettings
from stream.kafka import topic_partitions

BATCH = 2_000
"""What stays in the processor's cache from the poll to the columns."""


class Event(msgspec.Struct, gc=False):
    """The fields of a click."""

    event_id: str
    user_id: str
    event_type: str
    event_timestamp: int
    product_id: str | None = None
    session_id: str | None = None
    price_cents: int | None = None


COLUMNS = [(name, attrgetter(name)) for name in Event.__struct_fields__]
INTEGERS = {"event_timestamp", "price_cents"}


def main() -> None:
    """Read the topic to its end."""
    settings = StreamSettings()
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "group.id": "limit",
            "enable.auto.commit": False,
            # A fetch that only asks for partitions at their end holds up the others for so long.
            "fetch.wait.max.ms": 10,
            "fetch.queue.backoff.ms": 10,
            "fetch.message.max.bytes": 4 << 20,
            "queued.min.messages": 1_000_000,
        }
    )
    starts, left = [], 0
    topic = settings.catalog.stream().topic
    for partition in topic_partitions(settings, topic):
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition))
        starts.append(TopicPartition(topic, partition, low))
        left += high - low
    messages = left
    decode = msgspec.json.Decoder(Event).decode
    gc.disable()  # messages are no part of cycles, and looking for some takes a quarter of the time
    say("ready")
    consumer.assign(starts)
    while left:
        batch = consumer.consume(min(BATCH, left), timeout=0.1)
        if any(message.error() is not None for message in batch):
            raise RuntimeError
        events = list(map(decode, [message.value() for message in batch]))
        pl.DataFrame(
            {
                "key": [message.key() for message in batch],
                "kafka_timestamp": [message.timestamp()[1] for message in batch],
                "offset": [message.offset() for message in batch],
                **{
                    name: pl.Series(list(map(get, events)), dtype=pl.Int64 if name in INTEGERS else pl.String)
                    for name, get in COLUMNS
                },
            }
        )
        left -= len(batch)
    say("done", messages=messages)


if __name__ == "__main__":
    main()
