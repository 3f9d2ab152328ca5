"""A producer at a constant rate whose event time runs faster than the wall clock; it says when it closed which window.

    python -m benchmarks.live 10000 64        # events/s, seconds

It prints two lines of JSON: `ready` with `partition_of`, the three busiest users of each partition; and `done` with
`closed`, for each partition and window end when the record that closes it was handed to librdkafka (epoch seconds),
and with how many milliseconds the producer was behind its own plan at most.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from confluent_kafka import Producer, murmur2

from benchmarks.clicks import Clicks
from benchmarks.contestants import say
from feast_repo.features import user_click_features as view
from feast_repo.settings import StreamSettings
from stream.kafka import topic_partitions
from stream.producing import PARTITIONER

if TYPE_CHECKING:
    from collections.abc import Iterator

SPEED = 60
USERS = 50_000
LINGER_MS = 5
PER_SECOND = 200
"""Bursts: what is due in 5 ms is produced at once."""
BUSIEST = 3


def live_clicks(rate: int, seconds: int) -> Clicks:
    """What is produced at this rate in so many seconds of wall time."""
    return Clicks(rate * seconds, USERS, seconds * SPEED / 60)


def closings(events: pl.DataFrame) -> Iterator[tuple[int, int, int]]:
    """Which record closes which window: (number, partition, window end in ms).

    `events`: `partition`, `event_timestamp` (ms) in the order in which they are produced.
    """
    for (partition,), rows in events.with_row_index("number").partition_by("partition", as_dict=True).items():
        number = rows["number"].to_numpy()
        reached = (np.maximum.accumulate(rows["event_timestamp"].to_numpy()) - view.lateness_ms) // view.slide_ms
        for place in np.flatnonzero(np.diff(reached)) + 1:
            for index in range(reached[place - 1] + 1, reached[place] + 1):
                yield int(number[place]), int(str(partition)), int(index) * view.slide_ms


def main() -> None:
    """Produce."""
    rate, seconds = int(sys.argv[1]), int(sys.argv[2])
    settings = StreamSettings()
    partitions = len(topic_partitions(settings, settings.catalog.stream().topic))
    records = pl.concat(live_clicks(rate, seconds).records()).select("user_id", "event_timestamp", "value")
    partition_of = {user: murmur2(user.encode(), partitions) for user in records["user_id"].unique().to_list()}
    placed = records.with_columns(
        pl.col("user_id").replace_strict(partition_of, return_dtype=pl.Int32).alias("partition")
    )
    closes = {number: (partition, end_ms) for number, partition, end_ms in closings(placed)}
    busiest = placed.group_by("partition", "user_id").len().sort("len", "user_id", descending=True)
    users = busiest.group_by("partition").head(BUSIEST)["user_id"].to_list()
    messages = list(zip(*placed.select("value", "user_id", "partition").to_dict(as_series=False).values(), strict=True))
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "partitioner": PARTITIONER,
            "compression.type": "zstd",
            "linger.ms": LINGER_MS,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    say("ready", partition_of={user: partition_of[user] for user in users})
    closed: list[tuple[int, int, float]] = []
    topic, burst, behind = settings.catalog.stream().topic, max(1, rate // PER_SECOND), 0.0
    start = time.time()
    for number, (value, key, partition) in enumerate(messages):
        if number % burst == 0:
            producer.poll(0)
            early = start + number / rate - time.time()
            behind = max(behind, -early)
            if early > 0:
                time.sleep(early)
        if number in closes:
            closed.append((*closes[number], time.time()))
        producer.produce(topic, value, key, partition)
    producer.flush()
    say("done", closed=closed, behind_ms=behind * 1000)


if __name__ == "__main__":
    main()
