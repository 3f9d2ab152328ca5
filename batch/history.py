"""Events that never went through the stream, brought into the shape of the archive.

JSON lines or Parquet with the event's declared fields; what breaks the declaration is left out and counted. A user's
partition is the one that Java clients give it, so that rows join those of the stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
from confluent_kafka import murmur2

from batch.archive import PARTITION, REACH, ArchiveError
from feast_repo.events import UTC_MICROSECONDS, Choice, Integer, Text, Timestamp
from feast_repo.parquet import day_folder, publish
from feast_repo.tables import event_columns

if TYPE_CHECKING:
    from pathlib import Path

    from feast_repo.events import EventDeclaration, EventField
    from feast_repo.views import WindowedView

FIRST_OFFSET = -(2**62)
NEVER_SEEN = pl.datetime(9999, 12, 31, time_zone="UTC")
"""The watermark of these events: all windows had closed, as far as the stream can tell."""
JSON_LINES = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True)
class History:
    """What was brought in: where it lies, how many events and refused rows, and the last event's time."""

    folder: Path
    events: int
    refused: int
    last_ms: int


def bring_in(view: WindowedView, source: Path, partitions: int, folder: Path) -> History:
    """Write the events of a file, or of all files in a folder, as an archive by event day. Memory: a part of a file.

    Raises:
        ArchiveError: there are no events, or a file can't be read.
    """
    events = view.events
    total = accepted = 0
    last_ms = -1
    known: dict[str, int] = {}
    for file in _files(source):
        try:
            for number, rows in enumerate(_scan(file, events).collect_batches(maintain_order=True)):
                good = _good(events, rows)
                for user in set(good[events.key].to_list()) - known.keys():
                    known[user] = murmur2(user.encode(), partitions)
                records = _as_archive(events, good, known, FIRST_OFFSET + accepted)
                for (day,), part in records.partition_by("#day", as_dict=True, include_key=False).items():
                    publish(day_folder(folder, str(day)) / f"{accepted:020d}-{number}.parquet", part)
                total, accepted = total + len(rows), accepted + len(good)
                last_ms = max(last_ms, *good[events.time].to_list()) if len(good) else last_ms
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = str(error).partition("\n")[0]
            message = f"can't read {file}: {reason}"
            raise ArchiveError(message) from error
    if not accepted:
        message = f"{source} has no events with the fields of {events.name!r}"
        raise ArchiveError(message)
    return History(folder, accepted, total - accepted, last_ms)


def reach_with(view: WindowedView, reach: pl.DataFrame, partitions: int, history: History) -> pl.DataFrame:
    """How far each partition may be recomputed: as far as the stream is, or without one, as far as history is whole."""
    held = dict(zip(reach[PARTITION].to_list(), reach.rows(), strict=True))
    whole = min(reach["last"].to_list(), default=history.last_ms // view.slide_ms)
    rows = [held.get(partition, (partition, 0, whole)) for partition in range(partitions)]
    return pl.DataFrame(rows, schema=REACH, orient="row")


def _files(source: Path) -> list[Path]:
    files = sorted(source.rglob("*")) if source.is_dir() else [source]
    found = [file for file in files if file.suffix in {*JSON_LINES, ".parquet"} and not file.name.startswith(".")]
    if not found or not found[0].is_file():
        message = f"{source} is no JSON lines or Parquet file, and no folder with some"
        raise ArchiveError(message)
    return found


def _scan(file: Path, events: EventDeclaration) -> pl.LazyFrame:
    if file.suffix in JSON_LINES:
        return pl.scan_ndjson(file, schema=pl.Schema(events.schema), ignore_errors=True)
    rows = pl.scan_parquet(file, hive_partitioning=False)
    held = rows.collect_schema()
    time = pl.col(events.time)
    if isinstance(held.get(events.time), pl.Datetime):
        time = time.dt.epoch("ms").alias(events.time)
    columns = [time if name == events.time else pl.col(name) for name in events.schema if name in held]
    absent = [pl.lit(None).alias(name) for name in events.schema if name not in held]
    return rows.select(*columns, *absent).select(*events.schema).cast(pl.Schema(events.schema))


def _good(events: EventDeclaration, rows: pl.DataFrame) -> pl.DataFrame:
    """The events that fulfil the declaration; heartbeats say nothing here."""
    rules = [rule for field in events.fields for rule in _rules(field)]
    return rows.filter(*rules, pl.col(events.kind) != events.heartbeat, pl.col(events.key).is_not_null())


def _rules(field: EventField) -> list[pl.Expr]:
    value = pl.col(field.name)
    rules = [value.is_not_null()] if field.required else []
    if isinstance(field, Text):
        most = 2**31 if field.max_length is None else field.max_length
        rules.append(value.is_null() | value.str.len_chars().is_between(field.min_length, most))
    elif isinstance(field, Choice):
        rules.append(value.is_null() | value.is_in(field.values))
    elif isinstance(field, Timestamp):
        rules.append(value >= field.earliest_ms)
    elif isinstance(field, Integer) and field.non_negative:
        rules.append(value.is_null() | (value >= 0))
    return rules


def _as_archive(events: EventDeclaration, good: pl.DataFrame, known: dict[str, int], offset: int) -> pl.DataFrame:
    time = (pl.col(events.time) * 1000).cast(UTC_MICROSECONDS)
    columns = event_columns(events)
    return (
        good.with_columns(
            pl.col(events.key).replace_strict(known, return_dtype=pl.Int32).alias(PARTITION),
            pl.int_range(offset, offset + pl.len(), dtype=pl.Int64).alias("offset"),
            time.alias("kafka_timestamp"),
            NEVER_SEEN.cast(UTC_MICROSECONDS).alias("watermark"),
            time.alias(events.time),
        )
        .select(*columns)
        .cast(pl.Schema(columns))
        .with_columns(pl.col(events.time).dt.strftime("%Y-%m-%d").alias("#day"))
    )
