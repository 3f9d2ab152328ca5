"""An intended move: existing data continues on another cluster, topic or registry, or as a copy with its own identity.

The newest records of each partition in DATA_ROOT are first compared with the records that the topic holds at the same
offsets. Records that were copied without their offsets fail this check.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from redis.exceptions import RedisError

from feast_repo.addresses import shown
from feast_repo.codec.decoding import Decoder, RawBatch
from feast_repo.stores import identity
from feast_repo.stores.offline.files import data_files, day_folders
from feast_repo.stores.offline.parquet import despite_compaction, scan
from feast_repo.stores.offline.tables import (
    DEAD_LETTER_COLUMNS,
    FORGOTTEN,
    dead_letters_folder,
    event_columns,
    events_folder,
    progress_folder,
)
from feast_repo.stores.online import owner as redis_identity
from feast_repo.stores.progress import ProgressRecord
from stream import origin
from stream.kafka import METADATA_TIMEOUT_S, PARTITION_EOF, KafkaUnavailableError, client_config
from stream.source import within_calendar
from stream.topic import identities

if TYPE_CHECKING:
    from pathlib import Path

    from feast_repo.declare.events import EventStream
    from feast_repo.settings import StreamSettings
    from feast_repo.stores.identity import Identity, StreamIdentity
    from feast_repo.stores.progress import Progress
    from stream.recovery_store import RecoveryStore

RECORDS = 1_000
"""How many of each partition's newest records are compared."""
PATIENCE_S = 30.0
"""How long to wait while Kafka returns nothing."""


def adopt(settings: StreamSettings, store: RecoveryStore) -> list[str]:
    """Continue DATA_ROOT and the recovery state on the topic as it is now; returns one line per step that was done.

    Raises:
        OriginError: the topic doesn't hold the stored records; nothing was changed.
        KafkaUnavailableError: no broker answers, or the topic does not exist.
        RecoveryError: the description of the recovery state can't be read.
        OSError: DATA_ROOT or the directory can't be read or written.
    """
    now = identities(settings)
    compared = {stream.name: _compare(settings, stream, now[stream.name]) for stream in settings.catalog.streams}
    before = store.about()
    known = _known(settings.data_root)
    is_own = known is not None and known.folder == identity.folder(settings.data_root)
    given = known if known is not None and is_own else identity.new(settings.data_root)
    with identity.writing(settings.data_root):
        declarations = {} if known is None else known.declarations
        identity.save(settings.data_root, replace(given, declarations=declarations))
    recorded = origin.record_topics(settings, now)
    if before is not None:
        store.describe(replace(before, streams={**before.streams, **now}, data_id=recorded.id))
    kept = "keeps its id" if is_own else "is a copy, or was restored: it has an id of its own now,"
    state = "belongs to it" if before else "has no state: the next start rebuilds it"
    return [
        *(
            f"topic {one.topic!r} (cluster {one.cluster_id}, id {one.topic_id}, {one.partitions} partitions): "
            f"{compared[name]:,} stored records compared, all equal"
            for name, one in now.items()
        ),
        f"{settings.data_root} {kept} {recorded.id}",
        f"{store.directory} {state}",
        _adopt_registry(settings),
        _adopt_redis(settings),
    ]


def _adopt_registry(settings: StreamSettings) -> str:
    from feast_repo.stores.opening import RegistryUnavailableError, open_store, registry_id  # noqa: PLC0415  (as below)

    where = f"registry at {shown(settings.registry_url)}"
    try:
        store = open_store()
        identity.record_registry(settings.data_root, store.project, registry_id(store))
    except RegistryUnavailableError:
        return f"{where} does not answer: run this again when it does, if it describes this data"
    return f"{where} describes this data from now on"


def _adopt_redis(settings: StreamSettings) -> str:
    from feast_repo.stores.online.store import connect  # noqa: PLC0415  (needs Feast, which takes seconds to import)

    where = f"Redis at {shown(settings.redis_url)}"
    try:
        with connect(settings.redis_url) as redis:
            redis_identity.adopt(redis, identity.project(), settings.data_root)
    except RedisError:
        return f"{where} does not answer: run this again when it does, if it holds this data"
    return f"{where} holds this data from now on"


def _known(data_root: Path) -> Identity | None:
    try:
        return identity.load(data_root)
    except identity.IdentityError:
        return None


def _compare(settings: StreamSettings, stream: EventStream, now: StreamIdentity) -> int:
    """Compare a stream's stored records with the topic's; returns how many were equal."""
    progress = ProgressRecord(progress_folder(settings.data_root, stream)).load()
    if gone := sorted(partition for partition in progress if partition >= now.partitions):
        message = (
            f"{settings.data_root} holds records of partition {gone[0]}, and topic {now.topic!r} has {now.partitions} "
            f"partitions: {origin.APART}"
        )
        raise origin.OriginError(message)
    consumer = Consumer(
        {
            "group.id": f"ml-feature-store-{stream.topic}",
            "log_level": 0,
            **client_config(settings),
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
        }
    )
    try:
        return sum(_compare_partition(settings, stream, consumer, one) for one in progress.values())
    except KafkaException as error:
        message = f"can't read topic {now.topic!r} on {settings.kafka_bootstrap_servers}: {error.args[0].str()}"
        raise KafkaUnavailableError(message) from error
    finally:
        consumer.close()


def _compare_partition(settings: StreamSettings, stream: EventStream, consumer: Consumer, progress: Progress) -> int:
    where = f"{stream.topic}[{progress.partition}] on {settings.kafka_bootstrap_servers}"
    part = TopicPartition(stream.topic, progress.partition)
    low, high = consumer.get_watermark_offsets(part, timeout=METADATA_TIMEOUT_S)
    if not low <= progress.next_offset <= high:
        message = (
            f"{where} holds offsets {low} to {high}, and {settings.data_root} goes on at {progress.next_offset}: it "
            f"doesn't hold the same records at the same offsets; {origin.APART}"
        )
        raise origin.OriginError(message)
    first = max(low, progress.next_offset - RECORDS)
    stored = _stored(settings.data_root, stream, progress, first)
    batch = _read(consumer, progress, TopicPartition(part.topic, part.partition, first))
    decoded = Decoder(stream).decode(batch)
    found = _told_apart(stream, decoded.records, decoded.dead_letters)
    # Transactions and compaction leave gaps in the offsets, so the check is that each stored record is in the topic.
    differing = stored.join(found, on=stored.columns, how="anti", nulls_equal=True)
    if not differing.is_empty():
        first = differing["offset"].to_list()[0]
        message = f"{where} holds another record at offset {first} than {settings.data_root}: {origin.APART}"
        raise origin.OriginError(message)
    return len(stored)


def _stored(data_root: Path, stream: EventStream, progress: Progress, first: int) -> pl.DataFrame:
    """A partition's stored messages from an offset on: offset, kafka_timestamp (ms), and the columns to compare."""

    def read(folder: Path, columns: dict[str, pl.DataType]) -> pl.DataFrame:
        files = [file for day in day_folders(folder) for file in data_files(day)]
        table = scan(files, columns)
        wanted = pl.col("offset").is_between(first, progress.next_offset, closed="left")
        rows = table.filter(wanted, partition=progress.partition).collect().unique("offset")
        return rows.with_columns(pl.col("kafka_timestamp").dt.epoch("ms"))

    accepted = despite_compaction(lambda: read(events_folder(data_root, stream), event_columns(stream)))
    letters = despite_compaction(lambda: read(dead_letters_folder(data_root, stream), DEAD_LETTER_COLUMNS))
    # Of a forgotten entity (`batch/maintenance/forget.py`) the topic may still have what is removed here.
    fields = [name for name in stream.schema if name != stream.time]
    accepted = accepted.filter(pl.any_horizontal(pl.col(name).is_not_null() for name in fields))
    accepted = accepted.with_columns(pl.col(stream.time).dt.epoch("ms"))
    return _told_apart(stream, accepted, letters.filter(pl.col("reason") != FORGOTTEN)).sort("offset")


def _told_apart(stream: EventStream, accepted: pl.DataFrame, letters: pl.DataFrame) -> pl.DataFrame:
    """Messages in columns that tell them apart: of accepted ones the declared fields, of letters the value."""
    fields = [name for name in stream.schema if name in accepted.columns]
    accepted = accepted.select("offset", "kafka_timestamp", *fields, pl.lit(None, pl.Binary).alias("value"))
    nothing = (pl.lit(None, stream.schema[name]).alias(name) for name in fields)
    letters = letters.select("offset", "kafka_timestamp", *nothing, "value")
    return pl.concat([accepted, letters])


def _read(consumer: Consumer, progress: Progress, start: TopicPartition) -> RawBatch:
    """The partition's messages from `start` up to the next offset of the stored data."""
    batch = RawBatch(progress.partition, [], [], [], [])
    if start.offset >= progress.next_offset:
        return batch
    consumer.assign([start])
    waited_s = time.monotonic()
    while time.monotonic() - waited_s < PATIENCE_S:
        for message in consumer.consume(RECORDS, timeout=1.0):
            waited_s = time.monotonic()
            if _is_end(message) or message.offset() >= progress.next_offset:
                return batch
            batch.values.append(message.value() or b"")
            batch.keys.append(message.key())
            batch.kafka_timestamps.extend(within_calendar([message.timestamp()[1]]))
            batch.offsets.append(message.offset())
        if batch.next_offset >= progress.next_offset:
            return batch
    silence = f"{start.topic}[{start.partition}] gave nothing for {PATIENCE_S:.0f} s; try again"
    raise KafkaUnavailableError(silence)


def _is_end(message: Message) -> bool:
    """Whether this marks the partition's end rather than carrying a message.

    Raises:
        KafkaException: it is an error.
    """
    error = message.error()
    if error is not None and error.code() != PARTITION_EOF:
        raise KafkaException(error)
    return error is not None
