"""How much slower hostile input is than clean input, in the whole dataflow: from the topic to both stores.

    python -m benchmarks.hostile

Every other message of the hostile topic is a good event; the others are of the kinds in `simulation/hostile.py`.
Both span two slides of event time, so that few windows close, and reading is what counts. Time is measured as in
`benchmarks/stream.py`. Rounds alternate between the two topics. The messages differ in size, so bytes/s are told beside
messages/s.

What bounds it: a dead letter's reason is found by looking at the message alone, and its bytes are stored.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import Producer

from benchmarks.options import options
from benchmarks.results import keep
from benchmarks.rounds import Spread, in_turn, ratio
from benchmarks.topic import aside, compete
from sandbox.stack import Sandbox
from simulation.hostile import Corpus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from simulation.hostile import Sent

MESSAGES = {"quick": 20_000, "usual": 500_000, "full": 500_000}


def produce(bootstrap: str, topic: str, messages: Iterable[Sent]) -> int:
    """Fill a topic; returns the bytes of all values."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "compression.type": "zstd", "linger.ms": 50}
    )
    size = 0
    for one in messages:
        producer.produce(topic, one.value, one.key, timestamp=one.kafka_timestamp)
        producer.poll(0)
        size += len(one.value)
    producer.flush()
    return size


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    chosen = options("benchmarks.hostile", "The dataflow on hostile and on clean input.", arguments)
    count = MESSAGES[chosen.size]
    topics = {
        "clean": islice(Corpus(1, messages_per_slide=count).messages(2 * count), 0, None, 2),
        "hostile": Corpus(2, messages_per_slide=count // 2).messages(count),
    }
    with tempfile.TemporaryDirectory() as folder, Sandbox(Path(folder) / "stack", kafka="auto") as sandbox:
        aside(sandbox)
        bytes_each = {}
        for topic, messages in topics.items():
            sandbox.kafka.create_topic(topic, sandbox.partitions)
            bytes_each[topic] = produce(sandbox.bootstrap, topic, messages) / count
        ways = {topic: partial(compete, sandbox, "ours", topic, Path(folder) / "data") for topic in topics}
        runs = in_turn(ways, chosen.rounds, "hostile")
    rates = {topic: [count / one.seconds for one in found] for topic, found in runs.items()}
    speeds = {topic: [rate * bytes_each[topic] / 1e6 for rate in found] for topic, found in rates.items()}
    messages_over, bytes_over = (ratio(found["clean"], found["hostile"]) for found in (rates, speeds))
    rows = "\n".join(
        f"| {topic} | {Spread.of(rates[topic]).text()} | {bytes_each[topic]:,.0f} | "
        f"{Spread.of(speeds[topic]).text(',.1f')} |"
        for topic in topics
    )
    text = (
        f"Clean input is {messages_over.text('.2f')} times as fast in messages/s, and {bytes_over.text('.2f')} times "
        f"in bytes/s ({count:,} messages, {chosen.rounds} rounds).\n\n"
        f"| topic | messages/s | bytes a message | MB/s |\n|---|---|---|---|\n{rows}\n"
    )
    result = {
        "clean_over_hostile_messages": asdict(messages_over),
        "clean_over_hostile_bytes": asdict(bytes_over),
        "messages_per_second": rates,
        "bytes_per_message": {topic: round(size) for topic, size in bytes_each.items()},
    }
    keep("hostile", chosen, "Hostile input beside clean input", result, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
