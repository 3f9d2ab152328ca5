"""Finds what names an entity in the files below a data folder, and removes it file by file.

A file keeps its name and its other rows, bit by bit, and is replaced atomically: at any moment it is the old one or the
new one, so an interrupted run is continued by another.

Log tables keep the place of a removed row, because a replay of the topic skips what the table has by its highest
offset: a row that is gone would be appended again. What stays of an event is what a heartbeat has: the place in the
log, its times, and the watermark that it saw. So the watermarks, closing times and recomputed rows of all others stay
as they are.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import polars as pl
import pyarrow.parquet as pq

from batch.maintenance.compaction import finish
from feast_repo.codec import strict_json
from feast_repo.codec.raw_bytes import from_member
from feast_repo.stores.offline import disk
from feast_repo.stores.offline.files import files_under
from feast_repo.stores.offline.parquet import publish, scan, whole_file
from feast_repo.stores.offline.tables import (
    DEAD_LETTERS,
    EVENTS,
    FORGOTTEN,
    LATE,
    LOG_KEY,
    progress_folder,
    rejects_folder,
)
from feast_repo.stores.progress import ProgressRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from batch.maintenance.subject import Subject
    from feast_repo.declare.catalog import Catalog
    from feast_repo.declare.events import EventStream

TEXTS = {".json", ".jsonl", ".csv", ".html", ".txt"}
UNFINISHED, MERGES = (".*.tmp", "*.csv.tmp"), ".compacted-*.json"
REPORTS = "reports"
PLACE_IN_LOG = {*LOG_KEY, "create_time", "watermark", "missed_windows"}
"""What stays of a forgotten event beside its time."""


@dataclass(frozen=True)
class Finding:
    """What one file has of the entity: so many rows or lines, and how they are removed.

    `uncommitted` rows of a log are behind the progress record: the stream will read them again. Without an `erase`, the
    file is none of ours.
    """

    file: Path
    place: str
    rows: int
    erase: Callable[[], None] | None
    uncommitted: int = 0


class DataFiles:
    """The files below a data folder that may name an entity. The caller has locked out the stream and batch jobs."""

    def __init__(self, data_root: Path, catalog: Catalog) -> None:
        self._root, self._catalog = data_root, catalog
        self._sources = {stream.name: stream for stream in catalog.streams}
        self._sources |= {f"{LATE}/{view.name}": view.source for view in catalog.windowed}
        self._next_offsets = {
            stream.name: {
                partition: one.next_offset
                for partition, one in ProgressRecord(progress_folder(data_root, stream)).load().items()
            }
            for stream in catalog.streams
        }

    def all(self) -> list[Path]:
        """All files that are searched, in order.

        Raises:
            OSError: a folder can't be read.
        """
        return files_under(self._root, {".parquet", *TEXTS})

    def place(self, file: Path) -> str:
        """The table or folder that a file belongs to, for people."""
        parts = [part for part in file.relative_to(self._root).parts[:-1] if not part.startswith("dt=")]
        return "/".join(parts) or file.name

    def tidy(self) -> None:
        """Finish interrupted compactions, and remove the files that killed writers have left unfinished.

        The originals of a merge are told by their size and time, so they are removed before any is rewritten.

        Raises:
            OSError: a folder is not writable.
        """
        for folder in sorted({journal.parent for journal in self._root.rglob(MERGES)}):
            finish(folder)
        for pattern in UNFINISHED:
            for file in self._root.rglob(pattern):
                if file.is_file():
                    disk.remove(file)

    def search(self, file: Path, subject: Subject) -> Finding | None:
        """What a file has of an entity; None if it has nothing.

        Raises:
            OSError: the file can't be read.
            polars.exceptions.PolarsError: the file is damaged.
        """
        if file.suffix == ".parquet":
            return self._in_table(file, subject)
        place, lines = self.place(file), 0
        erase: Callable[[], None] | None = None
        if file.suffix == ".csv" and (kept := _other_rows(file, subject)) is not None:
            lines, erase = sum(1 for _, is_kept in kept() if not is_kept), partial(_keep_lines, file, kept)
        elif file.suffix == ".jsonl" and file.parent == rejects_folder(self._root):
            kept = partial(_other_rejects, file, subject)
            lines, erase = sum(1 for _, is_kept in kept() if not is_kept), partial(_keep_lines, file, kept)
        else:
            with file.open("rb") as text:
                lines = sum(1 for line in text if subject.in_text(line))
            if place == REPORTS:
                erase = partial(_remove_report, file)
        return Finding(file, place, lines, erase) if lines else None

    def _in_table(self, file: Path, subject: Subject) -> Finding | None:
        place = self.place(file)
        table, _, name = place.partition("/")
        if table == DEAD_LETTERS:
            return self._in_letters(file, subject, self._sources.get(name))
        schema = scan(file).collect_schema()
        if (matches := subject.in_row(schema)) is None:
            return None
        stream = self._sources.get(name if table == EVENTS else place)
        if table not in {EVENTS, LATE} or stream is None:  # nothing is replayed into the log of no stream
            rows = scan(file).select(matches.sum()).collect(engine="streaming").item()
            return Finding(file, place, rows, partial(_remove_rows, file, matches)) if rows else None
        told = scan(file).select(matches.sum(), (matches & ~self._is_committed(stream)).sum().alias("uncommitted"))
        rows, uncommitted = told.collect(engine="streaming").row(0)
        erase = partial(_blank_events, file, matches, {*PLACE_IN_LOG, stream.time})
        return Finding(file, place, rows, erase, uncommitted) if rows else None

    def _in_letters(self, file: Path, subject: Subject, stream: EventStream | None) -> Finding | None:
        letters = scan(file).collect()
        # Of a stream that is no longer declared, nobody knows what its key was.
        key = next(iter(subject.values)) if stream is None else stream.key
        hits = [
            subject.in_message(value or b"", (key, data)) for data, value in letters.select("key", "value").iter_rows()
        ]
        named = letters.filter(pl.Series(hits, dtype=pl.Boolean))
        if named.is_empty():
            return None
        uncommitted = 0 if stream is None else len(named.filter(~self._is_committed(stream)))
        erase = partial(_blank_letters, file, pl.Series(hits, dtype=pl.Boolean))
        return Finding(file, self.place(file), len(named), erase, uncommitted)

    def _is_committed(self, stream: EventStream) -> pl.Expr:
        reach = self._next_offsets[stream.name]
        return pl.any_horizontal(
            pl.lit(value=False),
            *((pl.col("partition") == partition) & (pl.col("offset") < offset) for partition, offset in reach.items()),
        )


def _remove_rows(file: Path, matches: pl.Expr) -> None:
    publish(file, scan(file).filter(~matches))


def _blank_events(file: Path, matches: pl.Expr, staying: set[str]) -> None:
    blank = (pl.when(~matches).then(name).alias(name) for name in pq.read_schema(file).names if name not in staying)
    publish(file, scan(file).with_columns(blank))


def _blank_letters(file: Path, named: pl.Series) -> None:
    letters = scan(file).collect()
    publish(
        file,
        letters.with_columns(
            key=pl.when(~named).then("key"),
            value=pl.when(~named).then("value").otherwise(pl.lit(b"")),
            reason=pl.when(~named).then("reason").otherwise(pl.lit(FORGOTTEN)),
        ),
    )


def _other_rows(file: Path, subject: Subject) -> Callable[[], Iterator[tuple[bytes, bool]]] | None:
    """A CSV file's rows as they are written, each with whether it stays; None if it lacks one of the columns."""

    def rows() -> Iterator[tuple[list[str], bytes]]:
        taken: list[bytes] = []

        def lines(source: Iterable[bytes]) -> Iterator[str]:
            for line in source:
                taken.append(line)
                yield line.decode(errors="surrogateescape")

        with file.open("rb") as source:
            for cells in csv.reader(lines(source)):
                yield cells, b"".join(taken)
                taken.clear()

    def kept() -> Iterator[tuple[bytes, bool]]:
        for cells, written in rows():
            yield written, not subject.in_cells(dict(zip(header, cells, strict=False)))

    header, _ = next(rows(), ([], b""))
    return kept if subject.values.keys() <= set(header) else None


def _other_rejects(file: Path, subject: Subject) -> Iterator[tuple[bytes, bool]]:
    """The lines of rejected history, each with whether it stays: the value within it does not name the entity."""
    with file.open("rb") as lines:
        for line in lines:
            try:
                named = subject.in_message(from_member("value", strict_json.parse(line)))
            except (ValueError, KeyError, TypeError, AttributeError):  # not a line of ours, or one without a value
                named = subject.in_text(line)
            yield line, not named


def _keep_lines(file: Path, kept: Callable[[], Iterator[tuple[bytes, bool]]]) -> None:
    with whole_file(file) as output:
        for line, is_kept in kept():
            if is_kept:
                output.write(line)


def _remove_report(file: Path) -> None:
    """Remove a report as a whole, JSON and page: it is a finding of its time, and can be made again."""
    for suffix in (".json", ".html"):
        disk.remove(file.with_suffix(suffix))
    disk.sync_folder(file.parent)
