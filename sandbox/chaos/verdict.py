"""Compares the drill's stores at the end with what was produced."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
from confluent_kafka import Consumer, KafkaException, TopicPartition

from feast_repo.stores.offline.tables import dead_letters_folder, event_columns, events_folder
from sandbox.checks import newest_rows, online_rows, rows_of
from sandbox.oracle import compare
from stream.kafka import PARTITION_EOF, client_config, topic_partitions

if TYPE_CHECKING:
    from pathlib import Path

    from feast_repo.settings import StreamSettings

PRODUCED: dict[str, pl.DataType] = {
    "partition": pl.Int32(),
    "offset": pl.Int64(),
    "kafka_timestamp": pl.Int64(),
    "value": pl.Binary(),
}


@dataclass(frozen=True)
class Verdict:
    """Counts of errors, which must all be 0, and of the rows compared."""

    messages: int
    feature_rows: int
    users: int
    messages_lost: int
    messages_twice: int
    messages_wrong: int
    rows_lost: int
    rows_twice: int
    rows_wrong: int
    online_behind: int

    @property
    def faultless(self) -> bool:
        """Whether nothing went wrong and something was compared."""
        wrong = (self.messages_lost, self.messages_twice, self.messages_wrong, self.rows_lost, self.rows_twice)
        return not any((*wrong, self.rows_wrong, self.online_behind)) and min(self.messages, self.feature_rows) > 0


def produced(settings: StreamSettings) -> pl.DataFrame:
    """The topic, read with a plain consumer.

    Raises:
        KafkaException: it can't be read.
    """
    consumer = Consumer({"group.id": "drill", "enable.partition.eof": True, **client_config(settings)})
    topic = settings.catalog.stream().topic
    partitions = topic_partitions(settings, topic)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    rows, open_partitions = [], set(partitions)
    while open_partitions:
        for message in consumer.consume(10_000, timeout=1.0):
            error = message.error()
            if error is None:
                at = message.timestamp()[1]
                rows.append((message.partition(), message.offset(), at, message.value() or b""))
            elif error.code() == PARTITION_EOF:
                open_partitions.discard(message.partition())
            else:
                raise KafkaException(error)
    consumer.close()
    return pl.DataFrame(rows, schema=PRODUCED, orient="row")


def judge(settings: StreamSettings, log: pl.DataFrame, malformed: set[bytes], scratch: Path) -> Verdict:
    """Compare all stores with the log; `malformed` are the values that must be dead letters."""
    from feast_repo.stores.opening import open_store  # noqa: PLC0415  (Feast takes seconds to import)

    view, root = settings.catalog.view(), settings.data_root
    archive, letters = rows_of(events_folder(root, view.source)), rows_of(dead_letters_folder(root, view.source))
    is_bad = pl.Series([value in malformed for value in log["value"].to_list()], dtype=pl.Boolean)
    good, bad = log.filter(~is_bad), log.filter(is_bad)
    stored = pl.concat([archive.select("partition", "offset"), letters.select("partition", "offset")])
    at = ["partition", "offset"]
    expected = _decoded(good, settings)
    same_letters = bad.join(letters.select(*at, "value"), on=[*at, "value"], how="semi")
    same_events = expected.join(archive.select(expected.columns), on=expected.columns, how="semi", nulls_equal=True)

    # The same rule over the produced records instead of the archived ones.
    day = events_folder(scratch, view.source) / "dt=2026-03-01"
    day.mkdir(parents=True)
    columns = [name for name in event_columns(view.source) if name in expected.columns]
    expected.select(columns).write_parquet(day / "produced.parquet")
    by_archive, by_log = compare(root, view), compare(root, view, archive_root=scratch)

    store = open_store()
    offline = newest_rows(root, view).select(*view.join_keys, "event_timestamp", *view.features)
    online = online_rows(store, view, offline)
    return Verdict(
        messages=len(log),
        feature_rows=by_log.recomputed,
        users=len(offline),
        messages_lost=len(log.join(stored, on=at, how="anti")),
        messages_twice=len(stored) - len(stored.unique()),
        messages_wrong=len(bad) - len(same_letters) + len(expected) - len(same_events),
        rows_lost=by_log.only_recomputed + by_archive.only_recomputed,
        rows_twice=by_log.stored_twice,
        rows_wrong=by_log.different + by_log.only_stored + by_archive.different + by_archive.only_stored,
        online_behind=len(pl.concat([offline, online]).unique()) - len(offline),
    )


def _decoded(good: pl.DataFrame, settings: StreamSettings) -> pl.DataFrame:
    """The produced events in the archive's columns, decoded one by one."""
    fields = settings.catalog.view().source.schema
    time = settings.catalog.view().source.time
    rows = [json.loads(value) for value in good["value"].to_list()]
    values = {name: pl.Series(name, [row.get(name) for row in rows], dtype=dtype) for name, dtype in fields.items()}
    types = event_columns(settings.catalog.view().source)
    return (
        good.select("partition", "offset", "kafka_timestamp")
        .with_columns(**values)
        .with_columns((pl.col(name) * 1000).cast(types[name]) for name in ("kafka_timestamp", time))
    )
