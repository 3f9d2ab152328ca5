"""The progress record: the position up to which each partition's data is stored.

It is written last, after everything before `next_offset` is durable, so it never runs ahead of the data. Parity,
backfill, compaction and serving read it to know how far the data is complete and whether the stream is alive.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import polars as pl

from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.stores.offline import disk
from feast_repo.stores.offline.parquet import publish, scan
from feast_repo.stores.offline.tables import from_milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from redis import Redis

    from feast_repo.declare.views import WindowedView


@dataclass(frozen=True)
class Progress:
    """One partition's position: all records before `next_offset`, and all windows that the watermark has closed, are
    stored.
    """

    topic: str
    partition: int
    next_offset: int
    watermark_ms: int | None


class ProgressRecord:
    """The record on disk: `partition-<number>.parquet`, one row each, replaced atomically.

    Columns: topic, partition, next_offset, watermark (UTC), updated_at (UTC, wall clock).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> dict[int, Progress]:
        """All partitions' positions, by partition."""
        progress = {}
        for path in sorted(self._folder.glob("partition-*.parquet")):
            row = scan(path).collect().row(0, named=True)
            progress[row["partition"]] = Progress(
                row["topic"],
                row["partition"],
                row["next_offset"],
                _milliseconds(row["watermark"]),
            )
        return progress

    def closed_end_ms(self, view: WindowedView) -> int | None:
        """The end of a view's last window that is closed in all partitions, ms UTC; None if none is.

        A partition that has closed none has no rows that could be behind, so it does not count.
        """
        ends = (view.closed_end_ms(one.watermark_ms) for one in self.load().values())
        return min((end for end in ends if end is not None), default=None)

    def settle(self) -> dict[int, Progress]:
        """All partitions' positions, made durable: a writer may have been killed just before they were.

        Raises:
            OSError: the disk is full or broken.
        """
        disk.settle(self._folder)
        return self.load()

    def updated_at_ms(self, partition: int) -> int:
        """The wall-clock time when a partition's position was saved."""
        updated_at: datetime = scan(self._path(partition)).collect()["updated_at"][0]
        return round(updated_at.timestamp() * 1000)

    def _path(self, partition: int) -> Path:
        return self._folder / f"partition-{partition:05d}.parquet"

    def save(self, progress: Progress) -> None:
        """Replace one partition's position.

        Raises:
            OSError: the disk is full or not writable; the old position stays.
        """
        row = pl.DataFrame([asdict(progress)], schema=_SCHEMA).select(
            "topic",
            "partition",
            "next_offset",
            from_milliseconds("watermark_ms").alias("watermark"),
            pl.lit(datetime.now(UTC)).cast(UTC_MICROSECONDS).alias("updated_at"),
        )
        publish(self._path(progress.partition), row)


def progress_key(project: str, view_name: str) -> str:
    """The Redis hash that holds the positions: field = partition, value = JSON."""
    return f"{project}:progress:{view_name}"


def announce(redis: Redis, key: str, progress: Iterable[Progress], view: WindowedView) -> None:
    """Announce the stream's positions to the view's online readers, with the wall-clock time in ms.

    Raises:
        redis.RedisError: the server is away.
    """
    now_ms = round(datetime.now(UTC).timestamp() * 1000)
    if mapping := {str(one.partition): _announcement(one, view, now_ms) for one in progress}:
        redis.hset(key, mapping=mapping)


ANNOUNCE_FORWARD = """
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known and cjson.decode(known)['next_offset'] >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""
"""Sets a partition's position (hash; partition, next offset, announcement) unless it already has one as far."""


def confirmed_key(project: str, view_name: str) -> str:
    """The Redis hash of what this server holds: field = partition, value = the offset before which it has all rows.

    It is written after the rows and before the progress record. So a server with less than the record has lost rows: it
    went back to an earlier state.
    """
    return f"{project}:confirmed:{view_name}"


CONFIRM_FORWARD = """
for number = 1, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[1], ARGV[number])
  if not known or tonumber(known) < tonumber(ARGV[number + 1]) then
    redis.call('HSET', KEYS[1], ARGV[number], ARGV[number + 1])
  end
end
"""
"""Sets offsets of partitions (hash; partition, offset, ...) unless it already has greater ones."""


def confirm(redis: Redis, key: str, progress: Iterable[Progress]) -> None:
    """Record that the server holds all rows up to these positions; greater ones, from a stream further ahead, stay.

    Raises:
        redis.RedisError: the server is away.
    """
    if positions := [number for one in progress for number in (one.partition, one.next_offset)]:
        redis.eval(CONFIRM_FORWARD, 1, key, *positions)


def confirmed(redis: Redis, key: str) -> dict[int, int]:
    """The offsets that `confirm` has recorded, by partition.

    Raises:
        redis.RedisError: the server is away.
    """
    told = cast("dict[bytes, bytes]", redis.hgetall(key))
    return {int(partition): int(offset) for partition, offset in told.items()}


def confirm_announced(redis: Redis, project: str, view_name: str) -> bool:
    """Confirm what a server from an older version announces; returns whether it announces anything.

    Raises:
        redis.RedisError: the server is away.
    """
    told = cast("dict[bytes, bytes]", redis.hgetall(progress_key(project, view_name)))
    for partition, announced in told.items():
        redis.hsetnx(confirmed_key(project, view_name), partition.decode(), json.loads(announced)["next_offset"])
    return bool(told)


def announce_missing(redis: Redis, key: str, record: ProgressRecord, view: WindowedView) -> None:
    """Announce recorded positions that readers don't know yet, with the record's times.

    Positions that a running stream announces meanwhile are kept.

    Raises:
        redis.RedisError: the server is away.
    """
    for one in record.load().values():
        announcement = _announcement(one, view, record.updated_at_ms(one.partition))
        redis.eval(ANNOUNCE_FORWARD, 1, key, one.partition, one.next_offset, announcement)


def _announcement(progress: Progress, view: WindowedView, updated_at_ms: int) -> str:
    closed_end_ms = view.closed_end_ms(progress.watermark_ms)
    return json.dumps({**asdict(progress), "last_closed_end_ms": closed_end_ms, "updated_at_ms": updated_at_ms})


_SCHEMA = {
    "topic": pl.String,
    "partition": pl.Int32,
    "next_offset": pl.Int64,
    "watermark_ms": pl.Int64,
}


def _milliseconds(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp() * 1000)
