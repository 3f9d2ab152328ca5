"""A table that is a log: appended in offset order, one file per day and epoch, never a row twice.

Guarantee: the rows of one day and one partition are appended in offset order, and files appear whole and in the order
in which they were taken, so what is there is always a prefix of what should be. After a restart, a table finds the
highest offset that is durable for each day and partition and skips rows up to it; this holds with and without recovery
state, and nothing is ever deleted.
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
"""Compression level: half the work of the default for files larger by a thirtieth, which a compaction writes anew."""


@dataclass(frozen=True)
class LogFile:
    """A file to be: rows of one day by partition, each partition's in offset order."""

    folder: Path
    rows: dict[int, list[pl.DataFrame]]

    def write(self) -> None:
        """Make the rows durable, in a file named after the first of them. It can be repeated.

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

    Exactly one writer may append a partition at a time. A call that failed can be repeated: no row is taken twice.
    """

    def __init__(self, folder: Path, columns: dict[str, pl.DataType]) -> None:
        self._folder = folder
        self._columns = columns
        self._taken: dict[str, dict[int, int]] = {}
        self._waiting: dict[str, dict[int, list[pl.DataFrame]]] = {}
        self.waiting_rows = 0

    def append(self, partition: int, rows: pl.DataFrame) -> None:
        """Take a partition's next rows: `offset`, and `kafka_timestamp` as Int64 ms, beside the table's columns.

        Rows that are durable or taken already are skipped.

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
        """All rows that wait, as files that the caller has to write, in this order: one per day."""
        files = [LogFile(day_folder(self._folder, name), self._waiting[name]) for name in sorted(self._waiting)]
        self._waiting, self.waiting_rows = {}, 0
        return files

    def flush(self) -> None:
        """Write all rows that wait.

        Raises:
            OSError: the disk is full or not writable; what was not written is lost for this table, not for the next.
        """
        for file in self.take_files():
            file.write()

    def _taken_offsets(self, name: str) -> dict[int, int]:
        """The highest offset of each partition on one day that is durable or waits; read from the files once."""
        if name not in self._taken:
            folder = day_folder(self._folder, name)
            disk.settle(folder)

            def read() -> dict[int, int]:
                # An older version's files may have other columns.
                rows = scan(data_files(folder), {name: LOG_KEY[name] for name in ("partition", "offset")})
                return dict(rows.group_by("partition").agg(pl.col("offset").max()).collect().iter_rows())

            self._taken[name] = despite_compaction(read)
        return self._taken[name]
