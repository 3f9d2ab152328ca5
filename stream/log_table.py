"""A table that is a log: appended in offset order, one file per day and epoch, no row twice.

Guarantee: the rows of one day and partition are appended in offset order, and files appear atomically and in the order
in which they were taken, so the stored rows are always a prefix of the complete ones. After a restart, a table finds
the highest durable offset of each day and partition and skips rows up to it, with and without recovery state. Nothing
is ever deleted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from feast_repo.stores.offline import disk
from feast_repo.stores.offline.files import data_files
from feast_repo.stores.offline.parquet import day_folder, despite_compaction, publish, scan
from feast_repo.stores.offline.tables import LOG_KEY, day

if TYPE_CHECKING:
    from pathlib import Path

DAY_MS = 86_400_000
DAY = "#day"
"""Column with a row's day; no event field has such a name."""

FAST = 1
"""Compression level: half the default's work for files a thirtieth larger, which a compaction rewrites."""


@dataclass(frozen=True)
class LogFile:
    """A pending file: rows of one day by partition, each partition's in offset order."""

    folder: Path
    rows: dict[int, list[pl.DataFrame]]

    def write(self) -> None:
        """Make the rows durable in a file named after the first of them. Idempotent.

        Raises:
            OSError: the disk is full or not writable.
        """
        table = pl.concat(frame for _, frames in sorted(self.rows.items()) for frame in frames)
        first = table.row(0, named=True)
        path = self.folder / f"p{first['partition']:05d}-{first['offset']:020d}.parquet"
        publish(path, table, level=FAST)


class LogTable:
    """The append side of one log table for some of its partitions.

        table = LogTable(folder, columns)
        table.append(partition=3, rows=rows)   # in offset order
        table.flush()                          # durable when it returns

    Only one writer at a time may append to a partition. A failed call can be repeated: no row is taken twice.
    """

    def __init__(self, folder: Path, columns: dict[str, pl.DataType]) -> None:
        self._folder = folder
        self._columns = columns
        self._taken: dict[str, dict[int, int]] = {}
        self._waiting: dict[str, dict[int, list[pl.DataFrame]]] = {}
        self.waiting_rows = 0

    def append(self, partition: int, rows: pl.DataFrame) -> None:
        """Take a partition's next rows: the table's columns with `offset`, and `kafka_timestamp` as Int64 ms.

        Rows that are already durable or taken are skipped.

        Raises:
            OSError: the disk can't be read.
        """
        if rows.is_empty():
            return
        days = rows["kafka_timestamp"] // DAY_MS
        if days.min() == days.max():
            self._append_day(partition, rows)
        else:
            for part in rows.with_columns(days.alias(DAY)).partition_by(DAY, maintain_order=True):
                self._append_day(partition, part)

    def _append_day(self, partition: int, rows: pl.DataFrame) -> None:
        name = day(rows["kafka_timestamp"][0])
        taken = self._taken_offsets(name)
        if rows["offset"][0] <= taken.get(partition, -1):
            rows = rows.filter(pl.col("offset") > taken[partition])
        if rows.is_empty():
            return
        taken[partition] = rows["offset"][-1]
        rows = rows.with_columns(partition=pl.lit(partition, pl.Int32)).select(
            (pl.col(column) * 1000).cast(dtype)
            if isinstance(dtype, pl.Datetime) and rows.schema[column] == pl.Int64
            else pl.col(column)
            for column, dtype in self._columns.items()
        )
        self._waiting.setdefault(name, {}).setdefault(partition, []).append(rows)
        self.waiting_rows += len(rows)

    def take_files(self) -> list[LogFile]:
        """All pending rows as files, one per day, which the caller must write in this order."""
        files = [LogFile(day_folder(self._folder, name), self._waiting[name]) for name in sorted(self._waiting)]
        self._waiting, self.waiting_rows = {}, 0
        return files

    def flush(self) -> None:
        """Write all pending rows.

        Raises:
            OSError: the disk is full or not writable. This table has lost the unwritten rows; a new one takes them.
        """
        for file in self.take_files():
            file.write()

    def _taken_offsets(self, name: str) -> dict[int, int]:
        """The highest durable or pending offset of each partition on one day; read from the files once."""
        if name not in self._taken:
            folder = day_folder(self._folder, name)
            disk.settle(folder)

            def read() -> dict[int, int]:
                # Files of older versions may have other columns.
                rows = scan(data_files(folder), {name: LOG_KEY[name] for name in ("partition", "offset")})
                return dict(rows.group_by("partition").agg(pl.col("offset").max()).collect().iter_rows())

            self._taken[name] = despite_compaction(read)
        return self._taken[name]
