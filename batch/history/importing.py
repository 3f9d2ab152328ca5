"""Imports events that never went through the stream into the archive's format.

The input is JSON lines or Parquet with the event's declared fields, validated as the stream validates messages. What is
not accepted is kept as a reject. A user's partition is the one that Java clients assign, so rows match the stream's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import polars as pl
import pyarrow as pa
from confluent_kafka import murmur2

from batch.history.lines import judged_lines
from batch.history.parquet import judged_rows
from batch.history.rejects import Rejects
from batch.recompute.archive import PARTITION, REACH, ArchiveError
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.stores.offline.files import files_under
from feast_repo.stores.offline.parquet import day_folder, publish
from feast_repo.stores.offline.tables import event_columns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from feast_repo.declare.events import EventStream
    from feast_repo.declare.views import WindowedView

    Part: TypeAlias = tuple[pl.DataFrame, pl.DataFrame, int]

FIRST_OFFSET = -(2**62)
NEVER_SEEN = pl.datetime(9999, 12, 31, time_zone="UTC")
"""The watermark of these events: for the stream, all windows had closed."""
JSON_LINES, PARQUET = (".jsonl", ".ndjson", ".json"), ".parquet"
ROWS_A_PART = 250_000
"""Events per file, to keep files few."""


@dataclass(frozen=True)
class History:
    """The result of an import: its folder, the number of events, the time of the last one, and the rejects.

    `heartbeats` are left out. `ignored`: how many lines or rows the declaration ignores. `reasons`: how many were
    rejected, by reason, most frequent first.
    `rejects`: the file that keeps them, if there are any.
    """

    folder: Path
    events: int
    heartbeats: int
    ignored: int
    last_ms: int
    reasons: dict[str, int]
    rejects: Path | None

    @property
    def refused(self) -> int:
        """How many lines or rows were rejected."""
        return sum(self.reasons.values())


def bring_in(view: WindowedView, source: Path, partitions: int, folder: Path, rejects: Path | None = None) -> History:
    """Write the events of a file, or of all files in a folder, as an archive by event day. Memory: part of a file.

    An event is accepted if the stream would accept it now. Rejects go to the file `rejects`.

    Raises:
        ArchiveError: a file can't be read or has a column of another type, or no event was accepted.
        OSError: the disk is full or not writable.
    """
    events = view.source
    now_ms = time.time_ns() // 1_000_000
    archive = _Archive(events, partitions, folder)
    heartbeats = ignored = 0
    with Rejects(rejects) as rejected:
        for path in _files(source):
            read, place = (judged_rows, "row") if path.suffix == PARQUET else (judged_lines, "line")
            for records, bad, others in _told(path, read(path, events, now_ms)):
                counted = records.filter(~events.is_heartbeat)
                heartbeats += len(records) - len(counted)
                ignored += others
                archive.add(counted)
                rejected.add(path, place, bad)
        archive.flush()
    if not archive.events:
        where = f"; they are in {rejects}" if rejects is not None and rejected.reasons else ""
        message = f"{source} has no event of {events.name!r}: {rejected.summary or 'there are no rows'}{where}"
        raise ArchiveError(message)
    kept = rejects if rejected.reasons else None
    return History(
        folder, archive.events, heartbeats, ignored, archive.last_ms, dict(rejected.reasons.most_common()), kept
    )


class _Archive:
    """Writes events in parts, and counts them."""

    def __init__(self, events: EventStream, partitions: int, folder: Path) -> None:
        self._declaration = events
        self._partitions = partitions
        self._folder = folder
        self._waiting: list[pl.DataFrame] = []
        self._known: dict[str | int, int] = {}
        self._written = 0
        self.events = 0
        self.last_ms = -1

    def add(self, records: pl.DataFrame) -> None:
        """Take the next events: the declared fields."""
        self._waiting.append(records)
        self.events += len(records)
        if self.events - self._written >= ROWS_A_PART:
            self.flush()

    def flush(self) -> None:
        """Write the buffered events."""
        rows = pl.concat([pl.DataFrame(schema=self._declaration.schema), *self._waiting])
        self._waiting = []
        if rows.is_empty():
            return
        for key in set(rows[self._declaration.key].to_list()) - self._known.keys():
            self._known[key] = murmur2(str(key).encode(), self._partitions)
        records = _as_archive(self._declaration, rows, self._known, FIRST_OFFSET + self._written)
        for (day,), part in records.partition_by("#day", as_dict=True, include_key=False).items():
            publish(day_folder(self._folder, str(day)) / f"{self._written:020d}.parquet", part)
        self._written += len(rows)
        self.last_ms = max(self.last_ms, *rows.select(pl.col(self._declaration.time).max()).row(0))


def _files(source: Path) -> list[Path]:
    found = files_under(source, (*JSON_LINES, PARQUET))
    if not found:
        missing = "" if source.exists() else ": it does not exist"
        message = f"{source} is no JSON lines or Parquet file, and no folder with some{missing}"
        raise ArchiveError(message)
    return found


def _told(path: Path, parts: Iterator[Part]) -> Iterator[Part]:
    """The parts of a file; errors name the file in one line."""
    try:
        yield from parts
    except (pa.ArrowException, OSError) as error:
        reason = (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).partition("\n")[0]
        message = f"can't read {path}: {reason}"
        raise ArchiveError(message) from error


def reach_with(view: WindowedView, reach: pl.DataFrame, partitions: int, history: History) -> pl.DataFrame:
    """How far each partition may be recomputed: up to the stream's progress, or without one, to the end of history."""
    held = dict(zip(reach[PARTITION].to_list(), reach.rows(), strict=True))
    whole = min(reach["last"].to_list(), default=history.last_ms // view.slide_ms)
    rows = [held.get(partition, (partition, 0, whole)) for partition in range(partitions)]
    return pl.DataFrame(rows, schema=REACH, orient="row")


def _as_archive(events: EventStream, good: pl.DataFrame, known: dict[str | int, int], offset: int) -> pl.DataFrame:
    time = (pl.col(events.time) * 1000).cast(UTC_MICROSECONDS)
    columns = event_columns(events)
    return (
        good.with_columns(
            pl.col(events.key).replace_strict(known, return_dtype=pl.Int32).alias(PARTITION),
            pl.int_range(offset, offset + pl.len(), dtype=pl.Int64).alias("offset"),
            time.alias("kafka_timestamp"),
            pl.lit(value=False).alias("create_time"),
            NEVER_SEEN.cast(UTC_MICROSECONDS).alias("watermark"),
            time.alias(events.time),
        )
        .select(*columns)
        .cast(pl.Schema(columns))
        .with_columns(pl.col(events.time).dt.strftime("%Y-%m-%d").alias("#day"))
    )
