"""The end of one partition's archived log: the records that open windows still need.

Files are partitioned by the day of their Kafka time, so only relevant days are read, and only the relevant rows of
those. Memory is bounded by what open windows hold, and time by the days that they span.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from feast_repo.declare.arrival import archived_arrival_ms
from feast_repo.stores.offline.files import data_files, day_folders
from feast_repo.stores.offline.parquet import day_folder, despite_compaction, scan
from feast_repo.stores.offline.tables import day, event_columns, events_folder
from stream.view_windows import tail_start_ms
from stream.windows import SnapshotError, WindowEngine, log_tail_start_ms

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from feast_repo.declare.events import EventStream
    from feast_repo.declare.views import WindowedView
    from feast_repo.stores.progress import Progress


class ArchiveTail:
    """The archived records of one partition that its progress record covers, from the end.

    tail = ArchiveTail(data_root, stream, views, progress)
    """

    def __init__(self, data_root: Path, stream: EventStream, views: Sequence[WindowedView], progress: Progress) -> None:
        self._folder = events_folder(data_root, stream)
        self._stream, self._views = stream, views
        self._progress = progress

    def engine(self) -> WindowEngine:
        """The partition's engine as it was at the progress record.

        Raises:
            SnapshotError: the archive was written under another allowed lateness, or lacks records.
            OSError: the archive can't be read.
        """
        stream, views, watermark_ms = self._stream, self._views, self._progress.watermark_ms
        if watermark_ms is None:  # nothing but dead letters so far
            return WindowEngine(stream, views)
        latest_ms, _ = self._latest()
        read = {name: None for view in views for name in (*view.join_keys, *view.input_columns)}
        own = (stream.time, stream.key, *(() if stream.event_id is None else (stream.event_id,)))
        start_ms = log_tail_start_ms(stream, views, watermark_ms)
        tail = self._records(start_ms, *dict.fromkeys((*own, *read)), "watermark").sort("offset")
        return WindowEngine.rebuild(
            stream, views, tail, max_event_ms=watermark_ms + stream.lateness_ms, max_arrival_ms=latest_ms
        )

    def first_needed(self) -> int:
        """The first offset to read without recovery state so that stored and future rows come out the same.

        Raises:
            SnapshotError: the archive lacks records.
            OSError: the archive can't be read.
        """
        watermark_ms = self._progress.watermark_ms
        if watermark_ms is None:
            return self._progress.next_offset
        _, first = self._latest()
        start_ms = min((tail_start_ms(view, watermark_ms) for view in self._views), default=watermark_ms)
        return min([first, *map(int, self._records(start_ms)["offset"])])

    def _records(self, start_ms: int, *columns: str) -> pl.DataFrame:
        """The records with event times from `start_ms` on: offset and these columns, with times in ms."""
        stream = self._stream
        days = [name for name in self._days() if name >= day(max(0, start_ms - stream.ahead_ms))]
        event_ms = pl.col(stream.time).dt.epoch("ms")

        def read() -> pl.DataFrame:
            rows = self._scan(days).filter(event_ms >= start_ms).select("offset", *columns)
            # An interrupted compaction leaves copies.
            return rows.collect(engine="streaming").unique("offset")

        rows = despite_compaction(read)
        return rows.with_columns(pl.col(name).dt.epoch("ms") for name in {"watermark", stream.time} & {*columns})

    def _latest(self) -> tuple[int, int]:
        """The latest arrival (ms) and the first offset that has it.

        Raises:
            SnapshotError: there is no record.
        """
        found: tuple[int, int] | None = None
        for name in reversed(self._days()):
            if found is not None and day(found[0]) > name:  # no arrival is later than its Kafka time
                return found
            of_day = despite_compaction(lambda: self._latest_of(name))  # noqa: B023  (called before the next round)
            if of_day is not None and (found is None or (of_day[0], -of_day[1]) > (found[0], -found[1])):
                found = of_day
        if found is None:
            message = (
                f"the archive has no records of partition {self._progress.partition}, whose progress record tells of "
                "some"
            )
            raise SnapshotError(message)
        return found

    def _latest_of(self, name: str) -> tuple[int, int] | None:
        arrivals = self._scan([name]).select(
            "offset", arrival=archived_arrival_ms(self._stream.time, self._stream.lateness_ms)
        )
        latest = pl.col("arrival").max()
        row = arrivals.select(latest, pl.col("offset").filter(pl.col("arrival") == latest).min()).collect(
            engine="streaming"
        )
        return None if row.item(0, 0) is None else row.row(0)

    def _days(self) -> list[str]:
        return [folder.name.removeprefix("dt=") for folder in day_folders(self._folder)]

    def _scan(self, days: list[str]) -> pl.LazyFrame:
        """The partition's records of some days, up to the progress record's offset."""
        files = [file for name in days for file in data_files(day_folder(self._folder, name))]
        rows = scan(files, event_columns(self._stream))
        return rows.filter(pl.col("offset") < self._progress.next_offset, partition=self._progress.partition)
