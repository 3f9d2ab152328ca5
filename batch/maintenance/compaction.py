"""Merges the many small files of a day into few, while the stream writes and readers read.

    python -m batch.compaction

Only files that the progress record covers are merged: files that the stream may rewrite keep their names. The merged
file appears before its originals are removed, so no reader ever misses a row. In between, and after a crash at that
point, rows exist twice with equal content, which readers allow for. A journal beside the files lets the next run
finish.
"""

from __future__ import annotations

import json
import re
import sys
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import polars as pl
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import Progress as ProgressBar
from rich.table import Table

from batch.lock import only_batch_writer
from feast_repo.commands import Command, as_it_is
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline import disk
from feast_repo.stores.offline.files import data_files, day_folders
from feast_repo.stores.offline.parquet import publish, scan
from feast_repo.stores.offline.tables import (
    dead_letters_folder,
    events_folder,
    features_folder,
    late_folder,
    progress_folder,
)
from feast_repo.stores.progress import ProgressRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from feast_repo.declare.catalog import Catalog
    from feast_repo.declare.events import EventStream
    from feast_repo.declare.views import WindowedView
    from feast_repo.stores.progress import Progress

MERGED, JOURNALS, UNFINISHED = "compacted-", ".compacted-*.json", ".compacted-*.tmp"
TARGET_ROWS, TARGET_BYTES = 2_000_000, 256 * 2**20
"""Files with at least half of either (bytes in memory) are left unchanged; a merged file has at most this much. It
bounds memory even if dead letters are large."""
HALF = 0.5
LOG_FILE = re.compile(r"p\d{5}-\d{20}\.parquet")
STREAM_FILE = re.compile(r"stream-p(?P<partition>\d{5})-(?P<end>\w+)\.parquet")
BATCH_FILE = re.compile(r"(backfill|heal)-\w+-\w+\.parquet")
LOG_ORDER, FEATURE_ORDER = ("partition", "offset"), ("event_timestamp", "created_timestamp")


@dataclass
class CompactionSummary:
    """The number of a table's files before and after, over all days."""

    before: int = 0
    after: int = 0


@dataclass(frozen=True)
class _TableFiles:
    """A table's folder, its row order, and which of its files nobody will rewrite."""

    folder: Path
    order: tuple[str, ...]
    is_settled: Callable[[Path], bool]


def compact(
    data_root: Path, catalog: Catalog, console: Console, stream: str | None = None
) -> dict[str, CompactionSummary]:
    """Merge what can be merged of the streams (or of one), logs and rows of views, by table. Idempotent.

    Raises:
        ChoiceError: there is no stream of that name.
        BatchRunningError: a backfill, a heal or another compaction is running.
        OSError: the disk is full or not writable; all rows are still there, and a new run continues.
    """
    streams = catalog.streams if stream is None else (catalog.stream(stream),)
    with only_batch_writer(data_root):
        tables = [table for one in streams for table in _tables(data_root, one, catalog.views_of(one))]
        names = {table.folder: str(table.folder.relative_to(data_root)) for table in tables}
        days = [(table, day) for table in tables for day in day_folders(table.folder)]
        done = {name: CompactionSummary() for name in names.values()}
        with ProgressBar(console=console, transient=True) as bar:
            for table, day in bar.track(days, description="merging files"):
                finish(day)
                summary = done[names[table.folder]]
                summary.before += len(data_files(day))
                while groups := list(_groups(table, day)):  # a merged file may be small enough to merge again
                    for group in groups:
                        merge(day, group, table.order)
                    finish(day)
                summary.after += len(data_files(day))
        return done


def _tables(data_root: Path, stream: EventStream, views: Iterable[WindowedView]) -> Iterator[_TableFiles]:
    """All tables that a stream's run writes."""
    progress = ProgressRecord(progress_folder(data_root, stream)).load()
    late = (late_folder(data_root, view) for view in views)
    for folder in (events_folder(data_root, stream), *late, dead_letters_folder(data_root, stream)):
        yield _TableFiles(folder, LOG_ORDER, _log_rule(progress))
    for view in views:
        order = (*FEATURE_ORDER[:1], *view.join_keys, *FEATURE_ORDER[1:])
        yield _TableFiles(features_folder(data_root, view.name), order, _window_rule(progress, view))


def _log_rule(progress: Mapping[int, Progress]) -> Callable[[Path], bool]:
    def is_settled(file: Path) -> bool:
        if LOG_FILE.fullmatch(file.name) is None:
            return False
        last = scan(file).group_by("partition").agg(pl.col("offset").max()).collect()
        return all(partition in progress and top < progress[partition].next_offset for partition, top in last.rows())

    return is_settled


def _window_rule(progress: Mapping[int, Progress], view: WindowedView) -> Callable[[Path], bool]:
    def is_settled(file: Path) -> bool:
        name = STREAM_FILE.fullmatch(file.name)
        if name is None:
            return BATCH_FILE.fullmatch(file.name) is not None
        one = progress.get(int(name["partition"]))
        closed_end_ms = None if one is None else view.closed_end_ms(one.watermark_ms)
        end_ms = round(datetime.strptime(name["end"], "%Y%m%dT%H%M%S%z").timestamp() * 1000)
        return closed_end_ms is not None and end_ms <= closed_end_ms

    return is_settled


def _groups(table: _TableFiles, day: Path) -> Iterator[list[Path]]:
    """Groups of files to merge, ordered by name: at least two files, together within the target size."""
    group: list[Path] = []
    held = 0.0
    for file in data_files(day):
        size = _share_of_target(file)
        if size >= HALF or not (file.name.startswith(MERGED) or table.is_settled(file)):
            continue
        group.append(file)
        held += size
        if held >= HALF:
            if len(group) > 1:
                yield group
            group, held = [], 0.0
    if len(group) > 1:
        yield group


def _share_of_target(file: Path) -> float:
    told = pq.read_metadata(file)
    size = sum(told.row_group(number).total_byte_size for number in range(told.num_row_groups))
    return float(max(told.num_rows / TARGET_ROWS, size / TARGET_BYTES))


def merge(folder: Path, files: Sequence[Path], order: Sequence[str]) -> None:
    """Add a file with the rows of others, which `finish` removes afterwards.

    Raises:
        OSError: the disk is full or not writable; call `finish`, then try again.
    """
    name = f"{MERGED}{uuid.uuid4().hex}"
    # All columns, including those of features that are no longer declared.
    parts = [scan(file) for file in files]
    rows = pl.concat(parts, how="diagonal_relaxed").sort(order).collect()
    _write_journal(folder, name, files)
    publish(folder / f"{name}.parquet", rows)


def _write_journal(folder: Path, name: str, files: Sequence[Path]) -> None:
    originals = [[file.name, *_identity(file)] for file in files]
    temporary = folder / f".{name}.tmp"
    with disk.create(temporary) as file:
        file.write(json.dumps({"merged": f"{name}.parquet", "originals": originals}).encode())
        disk.sync(file)
    disk.rename(temporary, folder / f".{name}.json")
    disk.sync_folder(folder)  # before the merged file can appear


def _identity(file: Path) -> tuple[int, int]:
    """Identifies a file's content: a file of the same name that was written later has another identity."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def finish(folder: Path) -> None:
    """Remove the originals of merged files, then their journals, and the leftovers of a killed merge.

    Raises:
        OSError: the folder is not writable.
    """
    for journal in sorted(folder.glob(JOURNALS)):
        told = json.loads(journal.read_text())
        if (folder / told["merged"]).exists():
            for name, *identity in told["originals"]:
                original = folder / name
                if original.exists() and list(_identity(original)) == identity:
                    original.unlink()
            disk.sync_folder(folder)
        journal.unlink()
    for temporary in folder.glob(UNFINISHED):
        temporary.unlink()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("python -m batch.compaction", "Merge the small files of each day, while the stream runs on.")
    command.add_choice("stream", "all streams, each with its views")
    command.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = command.parse_args(arguments)
    settings = command.settings(StreamSettings)
    start = time.monotonic()
    with command.telling(settings.data_root):
        done = compact(settings.data_root, settings.catalog, Console(stderr=True), options.stream)
    seconds = round(time.monotonic() - start, 3)
    if options.json:
        tables = {name: asdict(summary) for name, summary in done.items()}
        sys.stdout.write(json.dumps({"tables": tables, "seconds": seconds}) + "\n")
        return 0
    table = Table("table", "files before", "after", title=f"compaction, {seconds:.1f} s")
    for name, summary in done.items():
        table.add_row(name, f"{summary.before:,}", f"{summary.after:,}")
    as_it_is().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
