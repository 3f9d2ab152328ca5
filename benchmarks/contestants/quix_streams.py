"""Quix Streams as its documentation has it: a hopping window that is reduced, and a batching sink.

    Kafka topic (JSON) -> hopping_window(1 h, 10 min, grace 2 min).reduce -> final, by partition -> sink -> both stores

Its state is RocksDB on disk, with no changelog topic, since one machine needs none. Its requirements clash with
Feast's, so this runs in an environment of its own (`environments.py`) and writes by `plain_stores.py`: pyarrow and a
redis-py pipeline in Feast's format, which costs less than Feast's push.

Guarantee: at least once, with a state folder that is kept. The sink writes before offsets and state are committed,
every 5 seconds, so rows can be written twice: Redis ends up the same, Parquet would have them twice. Windows close when
an event of their partition is 120 s beyond their end; heartbeats close none.

Not done, which this project does: event archive, dead letters (a broken message ends it), late rows, duplicates, and
rows for users who stopped clicking.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
from quixstreams import Application
from quixstreams.models import JSONDeserializer
from quixstreams.sinks import BatchingSink

from benchmarks.contestants import say
from benchmarks.contestants.plain_stores import COUNTS, TIME, PlainStores, topic_ends

if TYPE_CHECKING:
    from quixstreams.sinks import SinkBatch

WINDOW_MS, SLIDE_MS, LATENESS_MS = 3_600_000, 600_000, 120_000
PLACES = {"click": 0, "view": 1, "add_to_cart": 2, "purchase": 3}
PURCHASES, REVENUE = 3, 4


class StoresSink(BatchingSink):
    """Writes what a partition's windows gave since the last commit."""

    def __init__(self, stores: PlainStores) -> None:
        super().__init__()
        self._stores = stores

    def write(self, batch: SinkBatch) -> None:
        """Write to both stores."""
        rows = [(item.key, item.value["end"] * 1000, *item.value["value"]) for item in batch]
        columns = dict(zip(["user_id", "event_timestamp", *COUNTS], zip(*rows, strict=True), strict=True))
        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        self._stores.write(table.set_column(1, "event_timestamp", table["event_timestamp"].cast(TIME)))


class End:
    """Stops the application once it has processed every message that was there at its start."""

    def __init__(self, ends: dict[int, int]) -> None:
        self.application: Application | None = None
        self._ends = {partition: end for partition, end in ends.items() if end}

    def processed(self, _topic: str, partition: int, offset: int) -> None:
        """Take note of a processed message."""
        if self._ends.get(partition) == offset + 1:
            del self._ends[partition]
            if not self._ends and self.application is not None:
                self.application.stop()


def _first(click: dict[str, Any]) -> list[int]:
    """The counts of a window with one event."""
    return _count([0] * len(COUNTS), click)


def _count(counts: list[int], click: dict[str, Any]) -> list[int]:
    """Count one event."""
    place = PLACES[click["event_type"]]
    counts[place] += 1
    if place == PURCHASES:
        counts[REVENUE] += click.get("price_cents") or 0
    return counts


def main() -> None:
    """Read the topic to its end."""
    brokers, name = os.environ["KAFKA_BOOTSTRAP_SERVERS"], os.environ["KAFKA_TOPIC"]
    data_root = Path(os.environ["DATA_ROOT"])
    ends = topic_ends(brokers, name)
    end = End(ends)
    stores = PlainStores(data_root, os.environ["REDIS_URL"])
    with tempfile.TemporaryDirectory(dir=data_root, prefix="quix-state-") as state:
        application = Application(
            broker_address=brokers,
            consumer_group=Path(state).name,  # a new one, so that it begins at the beginning
            auto_offset_reset="earliest",
            auto_create_topics=False,
            loglevel="WARNING",
            on_message_processed=end.processed,
            state_dir=state,
            use_changelog_topics=False,
        )
        end.application = application
        topic = application.topic(
            name,
            key_deserializer="str",
            timestamp_extractor=lambda click, *_: click["event_timestamp"],
            value_deserializer=JSONDeserializer(loads=orjson.loads),
        )
        clicks = application.dataframe(topic).filter(lambda click: "user_id" in click)
        windows = clicks.hopping_window(WINDOW_MS, SLIDE_MS, grace_ms=LATENESS_MS).reduce(_count, _first)
        windows.final(closing_strategy="partition").sink(StoresSink(stores))
        say("ready")
        application.run()
    say("done", messages=sum(ends.values()))


if __name__ == "__main__":
    main()
