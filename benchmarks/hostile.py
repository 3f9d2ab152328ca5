"""How much slower hostile input is than clean input, in the whole dataflow: from the topic to both stores.

    python -m benchmarks.hostile

Every other message of the hostile topic is a good event; the others are of the kinds in `tests/stream/hostile.py`.
Both span two slides of event time, so that few windows close, and reading is what counts. Rounds alternate between the
two topics. The messages differ in size, so bytes/s are told beside messages/s.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import Producer
from rich.progress import track

from benchmarks.results import keep
from feast_repo.commands import Command, integer
from feast_repo.settings import PROJECT_ROOT
from sandbox.stack import Sandbox
from tests.stream.hostile import Corpus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.stream.hostile import Sent

MESSAGES = 200_000
RATE = re.compile(r"\(([\d,]+) messages/s\)")


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


def run(sandbox: Sandbox, topic: str, folder: Path) -> float:
    """The dataflow over a topic, with empty stores; its messages per second."""
    environment = {
        **os.environ,
        **sandbox.environment,
        "KAFKA_TOPIC": topic,
        "DATA_ROOT": str(folder),
        "FEAST_REGISTRY_URL": f"sqlite:///{folder}/registry.db",
        "STREAM_STOP_AT_END": "1",
    }
    command = [sys.executable, "-m", "bytewax.run", "stream.dataflow"]
    done = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=True)
    shutil.rmtree(folder)
    found = RATE.search(done.stderr)
    if found is None:
        message = f"the dataflow told no rate: {done.stderr}"
        raise RuntimeError(message)
    return float(found[1].replace(",", ""))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    command = Command("python -m benchmarks.hostile", "The dataflow on hostile and on clean input.")
    command.add_argument("--rounds", type=integer(1, 100), default=5, help="runs on each topic (%(default)s)")
    options = command.parse_args(arguments)
    topics = {
        "clean": islice(Corpus(1, messages_per_slide=MESSAGES).messages(2 * MESSAGES), 0, None, 2),
        "hostile": Corpus(2, messages_per_slide=MESSAGES // 2).messages(MESSAGES),
    }
    rates: dict[str, list[float]] = {topic: [] for topic in topics}
    with tempfile.TemporaryDirectory() as folder, Sandbox(Path(folder) / "stack") as sandbox:
        sizes = {}
        for topic, messages in topics.items():
            sandbox.kafka.create_topic(topic, sandbox.partitions)
            sizes[topic] = produce(sandbox.bootstrap, topic, messages)
        for _ in track(range(options.rounds), description="rounds"):
            for topic in topics:
                rates[topic].append(run(sandbox, topic, Path(folder) / "data"))
    median = {topic: statistics.median(found) for topic, found in rates.items()}
    bytes_each = {topic: size / MESSAGES for topic, size in sizes.items()}
    result = {
        "clean_over_hostile_messages": round(median["clean"] / median["hostile"], 2),
        "clean_over_hostile_bytes": round(
            median["clean"] * bytes_each["clean"] / (median["hostile"] * bytes_each["hostile"]), 2
        ),
        "messages_per_second": {
            topic: {"median": median[topic], "least": min(found), "most": max(found)} for topic, found in rates.items()
        },
        "bytes_per_message": {topic: round(size) for topic, size in bytes_each.items()},
    }
    rows = "\n".join(
        f"| {topic} | {median[topic]:,.0f} | {min(rates[topic]):,.0f} to {max(rates[topic]):,.0f} | "
        f"{bytes_each[topic]:,.0f} | {median[topic] * bytes_each[topic] / 1e6:,.1f} |"
        for topic in topics
    )
    text = (
        f"Clean input is {result['clean_over_hostile_messages']} times as fast in messages/s, and "
        f"{result['clean_over_hostile_bytes']} times in bytes/s "
        f"({MESSAGES:,} messages, median of {options.rounds}).\n\n"
        f"| topic | messages/s | from ... to | bytes a message | MB/s |\n|---|---|---|---|---|\n{rows}\n"
    )
    command_line = f"python -m benchmarks.hostile --rounds {options.rounds}"
    keep("hostile", command_line, "Hostile input beside clean input", result, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
